//! Where a task stands in a trace, as W3C Trace Context has it.
//!
//! The numbers of a task's own spans follow from what is stored with it, so
//! that a daemon which was started in between names them as the last one did.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::attempt::AttemptKey;
use super::id::TaskId;
use super::time::Time;

/// The flag of a trace that is kept.
const SAMPLED: u8 = 0b01;
/// Flags that are passed on: those that the standard knows.
const KNOWN: u8 = 0b11;
/// Length of a `traceparent` of the version we speak.
const LENGTH: usize = 55;
/// Longest `tracestate` that is passed on, in bytes, and its most entries.
const STATE_MAX: usize = 512;
const ENTRIES_MAX: usize = 32;
/// Parts of a whole share.
const WHOLE: u32 = 1_000_000;

/// Makes a type of so many bytes that are not all zero, written in lower-case
/// hexadecimal digits.
macro_rules! number {
    ($(#[doc = $doc:literal])* $Name:ident, $bytes:literal) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $Name([u8; $bytes]);

        impl $Name {
            /// That of these bytes; should all of them be zero, which stands for
            /// none, the last one is made another.
            #[must_use]
            pub fn new(mut bytes: [u8; $bytes]) -> Self {
                if bytes == [0; $bytes] {
                    bytes[$bytes - 1] = 1;
                }
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn bytes(self) -> [u8; $bytes] {
                self.0
            }

            fn of(sum: &[u8]) -> Self {
                let mut bytes = [0; $bytes];
                for (byte, from) in bytes.iter_mut().zip(sum) {
                    *byte = *from;
                }
                Self::new(bytes)
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $Name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $bytes];
                if text.len() != 2 * $bytes {
                    return Err("has another length");
                }
                for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    *byte = hex(digits).ok_or("is not lower-case hexadecimal")?;
                }
                if bytes == [0; $bytes] {
                    return Err("is zero, which stands for none");
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $Name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $Name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

number! {
    /// The number of a trace.
    TraceId, 16
}
number! {
    /// The number of a span in its trace.
    SpanId, 8
}

/// The byte that two lower-case hexadecimal digits stand for.
fn hex(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |letter: &u8| match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?)
}

/// A place in a trace: what a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span in it.
    pub span: SpanId,
    /// The flags.
    pub flags: u8,
}

impl Context {
    /// The place that a `traceparent` names; none where it is malformed, so that
    /// a trace begins anew. Of a later version, what this one knows is read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let version = hex(bytes.get(..2)?)?;
        let ends = match bytes.get(LENGTH) {
            None => true,
            Some(next) => version > 0 && *next == b'-',
        };
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if version == 0xff || !ends || !dashes {
            return None;
        }
        Some(Self {
            trace: text.get(3..35)?.parse().ok()?,
            span: text.get(36..52)?.parse().ok()?,
            flags: hex(bytes.get(53..LENGTH)?)? & KNOWN,
        })
    }
}

impl fmt::Display for Context {
    /// As a `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, flags } = self;
        write!(f, "00-{trace}-{span}-{flags:02x}")
    }
}

/// What a `tracestate` says that can be passed on; empty where it cannot.
#[must_use]
pub fn state(text: &str) -> &str {
    let text = text.trim();
    let entry = |entry: &str| entry.trim().is_empty() || entry.contains('=');
    let good = text.len() <= STATE_MAX
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && text.split(',').count() <= ENTRIES_MAX
        && text.split(',').all(entry);
    if good { text } else { "" }
}

/// A task's place in a trace, as it is kept with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The span that it was asked for in; none where the trace begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SpanId>,
    /// The flags.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub flags: u8,
    /// What others want passed on, a `tracestate`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// What came before, where it was retried after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<Round>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(flags: &u8) -> bool {
    *flags == 0
}

/// A new round of a task that was over: a span of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Rounds before it.
    pub number: u32,
    /// Attempts before it.
    pub after: u32,
    /// When it began.
    pub at: Time,
}

impl Trace {
    /// The trace of whoever asks from this place.
    #[must_use]
    pub fn of(context: Context, state: &str) -> Self {
        Self {
            id: context.trace,
            parent: Some(context.span),
            flags: context.flags,
            state: state.to_owned(),
            round: None,
        }
    }

    /// A new trace, of which the share says whether it is kept.
    #[must_use]
    pub fn begun(id: TraceId, share: Share) -> Self {
        Self {
            id,
            parent: None,
            flags: if share.keeps(id) { SAMPLED } else { 0 },
            state: String::new(),
            round: None,
        }
    }

    /// The same trace for what is asked for in a span of it.
    #[must_use]
    pub fn below(&self, span: Option<SpanId>) -> Self {
        Self {
            parent: span,
            round: None,
            ..self.clone()
        }
    }

    /// Whether its spans are kept.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The place of a span of it.
    #[must_use]
    pub const fn at(&self, span: SpanId) -> Context {
        Context {
            trace: self.id,
            span,
            flags: self.flags,
        }
    }

    /// The span of a task, in its latest round.
    #[must_use]
    pub fn task(&self, id: TaskId) -> SpanId {
        let round = self.round.map_or(0, |round| round.number);
        self.span(b't', id.0, round)
    }

    /// The span of an attempt.
    #[must_use]
    pub fn attempt(&self, key: AttemptKey) -> SpanId {
        self.span(b'a', key.task.0, key.number)
    }

    /// The span of the time before an attempt.
    #[must_use]
    pub fn wait(&self, key: AttemptKey) -> SpanId {
        self.span(b'w', key.task.0, key.number)
    }

    /// The span of a call of a model, by its number in the ledger.
    #[must_use]
    pub fn call(&self, number: i64) -> SpanId {
        self.span(b'c', number, 0)
    }

    /// What asked for the task goes into the number as well: tasks of two hosts
    /// may have one number, and be of one trace.
    fn span(&self, kind: u8, number: i64, part: u32) -> SpanId {
        let sum = Sha256::new()
            .chain_update(self.id.bytes())
            .chain_update(self.parent.map_or([0; 8], SpanId::bytes))
            .chain_update([kind])
            .chain_update(number.to_le_bytes())
            .chain_update(part.to_le_bytes())
            .finalize();
        SpanId::of(&sum)
    }
}

/// The numbers that a process gives: as good as random, and drawn of its secret
/// and a count.
#[must_use]
pub fn drawn(secret: &[u8; 32], count: u64) -> (TraceId, SpanId) {
    let sum = Sha256::new()
        .chain_update(secret)
        .chain_update(count.to_le_bytes())
        .finalize();
    let (trace, span) = sum.split_at(16);
    (TraceId::of(trace), SpanId::of(span))
}

/// The share of new traces that are kept, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    millionths: u32,
}

impl Share {
    /// All of them.
    pub const ALL: Self = Self { millionths: WHOLE };

    /// A share; none for what is not between 0 and 1.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it lies between 0 and a million"
        )]
        let millionths = (share * f64::from(WHOLE)).round() as u32;
        (0.0..=1.0).contains(&share).then_some(Self { millionths })
    }

    /// Whether a trace is one of those that are kept: by its last seven bytes,
    /// which are random, so that all who go by the same share keep the same.
    #[must_use]
    pub fn keeps(self, id: TraceId) -> bool {
        let random = id.0[9..].iter();
        let random = random.fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
        random * u128::from(WHOLE) < u128::from(self.millionths) << 56
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(f64::from(self.millionths) / f64::from(WHOLE))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(from)?;
        let bad = || serde::de::Error::custom(format!("{share} is not between 0 and 1"));
        Self::new(share).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    fn parsed(text: &str) -> Option<String> {
        Context::parse(text).map(|context| context.to_string())
    }

    /// The examples of W3C Trace Context, and what it says is invalid.
    #[test]
    fn a_traceparent_is_read_as_the_standard_has_it_or_not_at_all() {
        let good = format!("00-{TRACE}-{PARENT}-01");
        let plain = format!("00-{TRACE}-{PARENT}-00");
        for (text, same) in [
            (good.clone(), &good),
            (plain.clone(), &plain),
            // A later version: longer, or with flags that nobody knows yet.
            (format!("01-{TRACE}-{PARENT}-01"), &good),
            (
                format!("cc-{TRACE}-{PARENT}-01-what-the-future-brings"),
                &good,
            ),
            (format!("fe-{TRACE}-{PARENT}-09"), &good),
            (format!("00-{TRACE}-{PARENT}-fc"), &plain),
        ] {
            assert_eq!(parsed(&text).as_ref(), Some(same), "{text}");
        }
        for bad in [
            String::new(),
            "00".to_owned(),
            TRACE.to_owned(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("01-{TRACE}-{PARENT}-01.more"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-0x"),
            format!("0-{TRACE}-{PARENT}-01"),
            format!("0x-{TRACE}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", PARENT.to_uppercase()),
            format!("00-{}-{PARENT}-01", &TRACE[1..]),
            format!("00_{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}_{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}_01"),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01 "),
            format!("00-{}é-{PARENT}-01", &TRACE[2..]),
        ] {
            assert_eq!(parsed(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tracestate_is_passed_on_as_it_is_or_not_at_all() {
        let long = format!("a={}", "x".repeat(STATE_MAX));
        let many = vec!["a=1"; ENTRIES_MAX + 1].join(",");
        for (text, kept) in [
            ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", None),
            ("a=1, ,b=2", None),
            (" a=1 ", Some("a=1")),
            ("a", Some("")),
            ("a=\u{e9}", Some("")),
            ("a=1\nb=2", Some("")),
            (&long, Some("")),
            (&many, Some("")),
        ] {
            assert_eq!(state(text), kept.unwrap_or(text), "{text}");
        }
    }

    #[test]
    fn spans_have_numbers_that_follow_from_what_is_kept() {
        let context = Context::parse(&format!("00-{TRACE}-{PARENT}-01")).expect("a place");
        let trace = Trace::of(context, "a=1");
        let kept = serde_json::to_string(&trace).expect("JSON");
        let again: Trace = serde_json::from_str(&kept).expect("a trace");
        assert_eq!(again, trace);
        let key = |task, number| AttemptKey {
            task: TaskId(task),
            number,
        };
        let retried = Trace {
            round: Some(Round {
                number: 1,
                after: 2,
                at: Time::default(),
            }),
            ..trace.clone()
        };
        let elsewhere = trace.below(Some(SpanId::new([7; 8])));
        let all = [
            trace.task(TaskId(1)),
            trace.task(TaskId(2)),
            trace.attempt(key(1, 1)),
            trace.attempt(key(1, 2)),
            trace.wait(key(1, 1)),
            trace.call(1),
            retried.task(TaskId(1)),
            elsewhere.task(TaskId(1)),
        ];
        let mut different = all.map(SpanId::bytes).to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), all.len());
        assert_eq!(again.attempt(key(1, 1)), all[2]);
        assert_eq!(retried.attempt(key(1, 3)), trace.attempt(key(1, 3)));
        assert_eq!(elsewhere.state, "a=1");
    }

    #[test]
    fn a_task_that_is_retried_before_any_attempt_has_a_span_for_each_round() {
        let first = Trace::begun(drawn(&[3; 32], 0).0, Share::ALL);
        let round = |number| Trace {
            round: Some(Round {
                number,
                after: 0,
                at: Time::default(),
            }),
            ..first.clone()
        };
        let spans = [first.clone(), round(1), round(2)].map(|trace| trace.task(TaskId(1)));
        assert!(spans[0] != spans[1] && spans[1] != spans[2] && spans[0] != spans[2]);
    }

    #[test]
    fn a_share_keeps_so_many_traces_and_always_the_same() {
        let half = Share::new(0.5).expect("a share");
        let ids = (0..10_000).map(|count| drawn(&[9; 32], count).0);
        let kept = ids.clone().filter(|id| half.keeps(*id)).count();
        assert!((4_700..5_300).contains(&kept), "{kept}");
        assert!(ids.clone().all(|id| Share::ALL.keeps(id)));
        let none = Share::new(0.0).expect("a share");
        assert!(!ids.clone().any(|id| none.keeps(id)));
        let last = TraceId::new([0xff; 16]);
        assert!(Share::ALL.keeps(last) && !half.keeps(last));
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::new(bad), None, "{bad}");
        }
        assert!(!Trace::begun(last, none).is_sampled());
        assert!(Trace::begun(last, Share::ALL).is_sampled());
        let text = serde_json::to_string(&half).expect("JSON");
        assert_eq!(text, "0.5");
        assert!(serde_json::from_str::<Share>("1.5").is_err());
    }
}
