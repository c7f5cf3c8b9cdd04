//! What a running task says about itself, in the service manager's words.
//!
//! A task sends datagrams to the socket that its variable `NOTIFY_SOCKET`
//! names, as a service does with `sd_notify`. [`parse`] reads one, and
//! [`Notice::then`] makes one of two, so that many can be told as few. Both
//! take whatever comes: a task may write anything there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::receipt::Receipt;

/// Longest datagram that is read, in bytes; of a longer one nothing counts.
pub const DATAGRAM_MAX: usize = 4096;
/// Longest status text, in characters; the rest is cut.
pub const STATUS_MAX: usize = 200;
/// Progress of a task that is done, per mille.
pub const PROGRESS_DONE: u16 = 1000;
/// Longest extension that can be asked for at once, in microseconds: a year.
pub const EXTEND_MAX_US: u64 = 365 * 24 * 3600 * 1_000_000;

/// What a task has said about itself, in one datagram or in several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one answer per word of the service manager's"
)]
pub struct Notice {
    /// `STATUS=`: one line for people, without control characters, of at most
    /// [`STATUS_MAX`] characters. An empty one takes back what was said before.
    pub status: Option<String>,
    /// `X_PROGRESS=`, in percent with decimals: how far the task is, per mille,
    /// at most [`PROGRESS_DONE`]. This word is this program's own.
    pub progress: Option<u16>,
    /// `READY=1`: it has started up.
    pub ready: bool,
    /// `WATCHDOG=1`: it is alive.
    pub watchdog: bool,
    /// `WATCHDOG=trigger`: it is to be treated as if it were not.
    pub trigger: bool,
    /// `EXTEND_TIMEOUT_USEC=`: it asks for so much more time from now on, in
    /// microseconds, at most [`EXTEND_MAX_US`].
    pub extend_us: Option<u64>,
    /// `STOPPING=1`: it has begun to end by itself.
    pub stopping: bool,
    /// `X_RECEIPT=`, as JSON: what a call of a model came to. Of others than
    /// our own program nobody listens to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
    /// `X_BATCH=`: what a provider calls the batch that it works on, likewise;
    /// empty when there is none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
}

impl Notice {
    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This and a later one as one, as of the later one's time, `elapsed`
    /// after this. The later word counts; of two extensions, the one that
    /// reaches further; and what is said once (ready, alive, triggered,
    /// stopping) was said.
    #[must_use]
    pub fn then(self, later: Self, elapsed: Duration) -> Self {
        let elapsed = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let left = self.extend_us.and_then(|us| us.checked_sub(elapsed));
        Self {
            status: later.status.or(self.status),
            progress: later.progress.or(self.progress),
            ready: self.ready || later.ready,
            watchdog: self.watchdog || later.watchdog,
            trigger: self.trigger || later.trigger,
            extend_us: left.max(later.extend_us),
            stopping: self.stopping || later.stopping,
            receipt: later.receipt.or(self.receipt),
            batch: later.batch.or(self.batch),
        }
    }

    /// The same within the limits that [`parse`] keeps: for a notice that
    /// comes from a program which may have been made to say anything.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            status: self.status.as_deref().map(line),
            progress: self.progress.map(|done| done.min(PROGRESS_DONE)),
            extend_us: self.extend_us.map(|us| us.min(EXTEND_MAX_US)),
            receipt: self.receipt.map(|receipt| Box::new(receipt.bounded(line))),
            batch: self.batch.as_deref().map(line),
            ..self
        }
    }
}

/// Reads one datagram. Lines that are not understood say nothing, and of two
/// that say the same thing the last one counts.
#[must_use]
pub fn parse(datagram: &[u8]) -> Notice {
    let mut notice = Notice::default();
    if datagram.len() > DATAGRAM_MAX {
        return notice;
    }
    for text in datagram.split(|byte| *byte == b'\n') {
        let Ok(text) = str::from_utf8(text) else {
            continue;
        };
        match text.split_once('=') {
            Some(("STATUS", status)) => notice.status = Some(line(status)),
            Some(("X_PROGRESS", percent)) => {
                notice.progress = per_mille(percent).or(notice.progress);
            }
            Some(("READY", "1")) => notice.ready = true,
            Some(("WATCHDOG", "1")) => notice.watchdog = true,
            Some(("WATCHDOG", "trigger")) => notice.trigger = true,
            Some(("EXTEND_TIMEOUT_USEC", us)) => {
                let us = number(us).map(|us| us.min(EXTEND_MAX_US));
                notice.extend_us = us.or(notice.extend_us);
            }
            Some(("STOPPING", "1")) => notice.stopping = true,
            Some(("X_RECEIPT", text)) => {
                let receipt: Option<Receipt> = serde_json::from_str(text).ok();
                let receipt = receipt.map(|receipt| Box::new(receipt.bounded(line)));
                notice.receipt = receipt.or(notice.receipt);
            }
            Some(("X_BATCH", name)) => notice.batch = Some(line(name)),
            // Other words of the service manager's: errno, main pid, names of
            // descriptors to keep. Nothing here follows from them.
            _ => {}
        }
    }
    notice
}

/// A text as one line of harmless characters, cut to its limit.
fn line(text: &str) -> String {
    text.chars()
        .take(STATUS_MAX)
        .map(|c| if disturbs(c) { ' ' } else { c })
        .collect()
}

/// Whether a character does more to a terminal or a log than be seen: control
/// characters, line separators, and those that turn the direction of a text.
fn disturbs(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// Digits and nothing else, as a number.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // Too large a number is a large number.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// `0` to `100`, with decimals, as per mille; what is finer is cut.
fn per_mille(percent: &str) -> Option<u16> {
    let (whole, parts) = percent.split_once('.').unwrap_or((percent, "0"));
    number(parts)?;
    let tenths = number(parts.get(..1)?)?;
    let done = number(whole)?.checked_mul(10)?.checked_add(tenths)?;
    let rest = parts.bytes().any(|digit| digit != b'0');
    let done = u16::try_from(done).ok()?;
    (done < PROGRESS_DONE || done == PROGRESS_DONE && !rest).then_some(done)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: &str) -> Notice {
        parse(text.as_bytes())
    }

    #[test]
    fn each_word_is_understood() {
        let notice = said(
            "READY=1\nSTATUS=half way\nX_PROGRESS=50\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=7\n\
             STOPPING=1\nERRNO=2\nMAINPID=1\nUNKNOWN\n=\n",
        );
        let expected = Notice {
            status: Some("half way".to_owned()),
            progress: Some(500),
            ready: true,
            watchdog: true,
            trigger: false,
            extend_us: Some(7),
            stopping: true,
            receipt: None,
            batch: None,
        };
        assert_eq!(notice, expected);
        assert_eq!(said("X_BATCH=batch_1").batch.as_deref(), Some("batch_1"));
        assert!(said("WATCHDOG=trigger").trigger);
        assert!(said("READY=0\nWATCHDOG=2\nSTOPPING=yes\nready=1\n READY=1").is_empty());
        assert!(said("").is_empty());
    }

    #[test]
    fn progress_is_a_percentage() {
        for (text, expected) in [
            ("0", Some(0)),
            ("42", Some(420)),
            ("42.5", Some(425)),
            ("42.59", Some(425)),
            ("100", Some(1000)),
            ("100.00", Some(1000)),
            ("100.01", None),
            ("101", None),
            ("-1", None),
            ("+1", None),
            ("1.", None),
            (".5", None),
            ("1e1", None),
            ("NaN", None),
            ("99999999999999999999999", None),
            ("1.\u{fc}", None),
            ("", None),
        ] {
            assert_eq!(
                said(&format!("X_PROGRESS={text}")).progress,
                expected,
                "{text}"
            );
        }
        assert_eq!(said("X_PROGRESS=5\nX_PROGRESS=x").progress, Some(50));
    }

    #[test]
    fn a_status_is_one_harmless_line() {
        let notice = said("STATUS=a\u{1b}[31mb\tc\u{202e}d\u{85}e");
        assert_eq!(notice.status.as_deref(), Some("a [31mb c d e"));
        let long = said(&format!("STATUS={}", "\u{fc}".repeat(STATUS_MAX + 1)));
        assert_eq!(long.status, Some("\u{fc}".repeat(STATUS_MAX)));
        assert_eq!(parse(b"STATUS=\xff\nREADY=1").status, None);
        assert!(parse(b"STATUS=\xff\nREADY=1").ready);
        assert_eq!(said("STATUS=").status.as_deref(), Some(""));
    }

    #[test]
    fn a_receipt_is_read_within_its_bounds() {
        let text =
            "X_RECEIPT={\"end\":\"refused\",\"wait_us\":99999999999999999,\"why\":\"a\\u001bb\"}";
        let receipt = said(text).receipt.expect("a receipt");
        assert_eq!(receipt.why, "a b");
        assert_eq!(
            receipt.wait().map(|wait| wait.as_secs()),
            Some(30 * 24 * 3600)
        );
        for bad in ["X_RECEIPT=", "X_RECEIPT={}", "X_RECEIPT={\"end\":\"won\"}"] {
            assert!(said(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn of_a_datagram_too_long_nothing_counts() {
        let mut text = "READY=1\n".to_owned();
        text.push_str(&"x".repeat(DATAGRAM_MAX - text.len()));
        assert!(said(&text).ready);
        text.push('x');
        assert!(said(&text).is_empty());
    }

    #[test]
    fn of_two_the_later_word_counts_and_no_event_is_lost() {
        let first = said("STATUS=one\nX_PROGRESS=10\nWATCHDOG=trigger\nEXTEND_TIMEOUT_USEC=100");
        let both = first.then(said("STATUS=two\nREADY=1"), Duration::from_micros(30));
        let expected = Notice {
            status: Some("two".to_owned()),
            progress: Some(100),
            ready: true,
            trigger: true,
            extend_us: Some(70),
            ..Notice::default()
        };
        assert_eq!(both, expected);
        let later = both
            .clone()
            .then(said("EXTEND_TIMEOUT_USEC=50"), Duration::from_micros(10));
        assert_eq!(later.extend_us, Some(60));
        let over = both.then(said("STATUS="), Duration::from_micros(71));
        assert_eq!((over.extend_us, over.status.as_deref()), (None, Some("")));
    }

    proptest! {
        #[test]
        fn whatever_comes_stays_within_the_limits(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            words in "((STATUS|X_PROGRESS|EXTEND_TIMEOUT_USEC|WATCHDOG)=[^\n]{0,300}\n){0,8}",
        ) {
            for datagram in [bytes.as_slice(), words.as_bytes()] {
                let notice = parse(datagram);
                prop_assert_eq!(&notice.clone().bounded(), &notice);
                prop_assert!(notice.progress.is_none_or(|done| done <= PROGRESS_DONE));
                let status = notice.status.unwrap_or_default();
                prop_assert!(status.chars().count() <= STATUS_MAX);
                prop_assert!(!status.chars().any(disturbs));
            }
        }
    }
}
