//! How one account stands with one model: what is left of its limits, and what
//! its provider has said.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::breaker::{Breaker, Went};
use super::draw::{draw, share};
use super::estimate::{Pace, Weight};
use super::limit::{Dimension, Left, Levels, Limits, Refund, Tokens};
use super::receipt::{End, Receipt};
use super::time::Time;

/// Waits after refusals that do not say how long: the first, and at most.
const HOLDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Longest wait that a provider can ask for: after it one call tries. A wait of
/// years would be a fault of the provider that nobody here notices.
const HOLD_MAX: Duration = Duration::from_secs(3600);
/// Calls at once from which on nobody counts how many are tried after a hold.
const RAMP_MAX: u32 = 64;

/// A provider asked to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hold {
    until: Time,
    why: String,
}

/// How an account stands with a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gauge {
    levels: Levels,
    hold: Option<Hold>,
    /// Refusals in a row.
    refusals: u32,
    /// Why nothing is asked before a person has acted.
    barred: Option<String>,
    breaker: Breaker,
    /// Most calls at once while it is tried how many the provider takes.
    ramp: Option<u32>,
    pace: Pace,
}

/// What keeps a call from being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A person has to act.
    Barred(String),
    /// The provider asked to wait.
    Hold(String),
    /// The provider failed too often.
    Broken,
    /// One call finds out whether it can be asked again.
    Trying,
    /// As many are made as may be at once.
    Crowded(u32),
    /// A limit is used up.
    Used(Dimension),
}

impl Cause {
    /// Whether a person has to act.
    #[must_use]
    pub const fn is_for_a_person(&self) -> bool {
        matches!(self, Self::Barred(_))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Barred(why) => write!(
                f,
                "it is not asked until its account is put right and the configuration reloaded: \
                 {why}"
            ),
            Self::Hold(why) => write!(f, "it asked to wait: {why}"),
            Self::Broken => f.write_str("it failed too often"),
            Self::Trying => f.write_str("another call finds out whether it answers again"),
            Self::Crowded(most) => write!(f, "{most} calls at a time"),
            Self::Used(dimension) => write!(f, "its {} are used up", dimension.words()),
        }
    }
}

/// A call cannot be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shut {
    /// Why.
    pub cause: Cause,
    /// Until when, where that is a time and not an event.
    pub until: Option<Time>,
}

impl Shut {
    /// So many calls are made as may be at once.
    #[must_use]
    pub const fn crowded(most: u32) -> Self {
        Self {
            cause: Cause::Crowded(most),
            until: None,
        }
    }
}

/// How a model's provider does, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers, for all that is known.
    Good,
    /// It asked to wait.
    Held,
    /// It failed too often, and is left alone.
    Open,
    /// It is tried again.
    Trying,
    /// A person has to act.
    Barred,
}

impl Health {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Held => "held",
            Self::Open => "open",
            Self::Trying => "trying",
            Self::Barred => "barred",
        }
    }
}

impl Gauge {
    /// Brings it up to `now` and to these limits.
    pub fn refill(&mut self, limits: &Limits, now: Time) {
        self.levels.refill(limits, now);
    }

    /// Tokens that a text will be, rather more than it is.
    #[must_use]
    pub fn estimate(&self, weight: Weight) -> u64 {
        self.pace.tokens(weight)
    }

    /// What keeps a call from being made that may cost so much, beside
    /// `running` others; none when it can be. It has to be of now.
    #[must_use]
    pub fn shut(&self, limits: &Limits, cost: Tokens, running: u32, now: Time) -> Option<Shut> {
        let at = |cause, until| Some(Shut { cause, until });
        if let Some(why) = &self.barred {
            return at(Cause::Barred(why.clone()), None);
        }
        if let Some(hold) = self.hold.as_ref().filter(|hold| hold.until > now) {
            return at(Cause::Hold(hold.why.clone()), Some(hold.until));
        }
        if let Some(until) = self.breaker.shut(now) {
            return at(Cause::Broken, Some(until));
        }
        if self.breaker.is_trying(now) && running > 0 {
            return at(Cause::Trying, None);
        }
        if let Some(most) = limits.concurrency.filter(|most| running >= *most) {
            return at(Cause::Crowded(most), None);
        }
        if self.ramp.is_some_and(|most| running >= most) {
            return at(Cause::Trying, None);
        }
        let (dimension, wait) = self.levels.wait(limits, cost)?;
        at(Cause::Used(dimension), Some(now.after(wait)))
    }

    /// A call is made that may cost so much.
    pub fn take(&mut self, cost: Tokens) {
        self.levels.take(cost);
    }

    /// A call is over: puts right what was taken for it, and learns from how it
    /// went. Without a receipt nobody knows what it cost, and what was taken is
    /// spent. It has to be of now; `seed` spreads waits.
    pub fn settle(&mut self, limits: &Limits, call: Settled<'_>, seed: u64, now: Time) {
        let Some(receipt) = call.receipt else {
            return;
        };
        let refund = limits.refund.unwrap_or(call.refund);
        match (receipt.end, receipt.used()) {
            (End::Answered | End::Broken, Some(used)) => {
                self.levels.settle(limits, call.taken, used, refund);
                self.pace.learn(call.weight, used.input);
            }
            (End::Answered | End::Broken, None) => {}
            // It was not worked on; what came before it may have been.
            (End::Refused | End::Overloaded | End::Barred | End::Rejected, used) => {
                let used = used.unwrap_or_default();
                self.levels.settle(limits, call.taken, used, Refund::All);
            }
        }
        for remains in &receipt.remains {
            let left = i64::try_from(remains.left).unwrap_or(i64::MAX);
            let others = i64::try_from(call.others.of(remains.dimension)).unwrap_or(i64::MAX);
            self.levels
                .lower(remains.dimension, left.saturating_sub(others));
        }
        self.learn(receipt, seed, now);
    }

    fn learn(&mut self, receipt: &Receipt, seed: u64, now: Time) {
        match receipt.end {
            End::Answered => {
                self.refusals = 0;
                self.breaker.learn(Went::Well, seed, now);
                self.ramp = self
                    .ramp
                    .map(|most| most * 2)
                    .filter(|most| *most < RAMP_MAX);
            }
            End::Refused => self.hold(receipt, seed, now),
            End::Overloaded => {
                self.breaker.learn(Went::Badly(asked(receipt)), seed, now);
                self.hold(receipt, seed, now);
            }
            End::Barred => self.barred = Some(receipt.why.clone()),
            End::Broken => self.breaker.learn(Went::Badly(asked(receipt)), seed, now),
            End::Rejected => {}
        }
    }

    /// Waits as long as the provider asks, or twice as long as the last time
    /// where it does not say; then one call tries.
    fn hold(&mut self, receipt: &Receipt, seed: u64, now: Time) {
        let doubled = HOLDS.0.saturating_mul(1 << self.refusals.min(10));
        let wait = asked(receipt).unwrap_or_else(|| doubled.min(HOLDS.1));
        let until = now.after(wait + share(wait / 20, draw(seed)));
        // Of calls that were on their way together, only the first tells
        // something new.
        let is_held = self.hold.as_ref().is_some_and(|hold| hold.until > now);
        if is_held && asked(receipt).is_none() {
            return;
        }
        self.refusals = self.refusals.saturating_add(1);
        self.ramp = Some(1);
        let longer = self.hold.as_ref().is_none_or(|hold| hold.until < until);
        if longer {
            let why = receipt.why.clone();
            self.hold = Some(Hold { until, why });
        }
    }

    /// A person has acted, or says so.
    pub fn forgive(&mut self) {
        self.barred = None;
    }

    /// How the provider does.
    #[must_use]
    pub fn health(&self, now: Time) -> Health {
        if self.barred.is_some() {
            Health::Barred
        } else if self.breaker.shut(now).is_some() {
            Health::Open
        } else if self.hold.as_ref().is_some_and(|hold| hold.until > now) {
            Health::Held
        } else if self.breaker.is_trying(now) || self.ramp.is_some() {
            Health::Trying
        } else {
            Health::Good
        }
    }

    /// What is left of each limit.
    #[must_use]
    pub fn left(&self, limits: &Limits) -> Vec<Left> {
        self.levels.left(limits)
    }
}

/// A call that is over.
#[derive(Debug, Clone, Copy)]
pub struct Settled<'r> {
    /// What was taken for it.
    pub taken: Tokens,
    /// What was asked.
    pub weight: Weight,
    /// What is given back where the limits do not say.
    pub refund: Refund,
    /// What was taken for calls that were made after it and are not over: the
    /// provider's word on what is left does not know of them.
    pub others: Others,
    /// Its own word; none when nobody heard it.
    pub receipt: Option<&'r Receipt>,
}

/// What other calls took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Others {
    /// How many there are.
    pub calls: u64,
    /// Their tokens.
    pub tokens: Tokens,
}

impl Others {
    const fn of(self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::Requests => self.calls,
            Dimension::InputTokens => self.tokens.input,
            Dimension::OutputTokens => self.tokens.output,
            Dimension::Tokens => self.tokens.input.saturating_add(self.tokens.output),
        }
    }
}

/// The wait that a provider asks for.
fn asked(receipt: &Receipt) -> Option<Duration> {
    receipt.wait().map(|wait| wait.min(HOLD_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn limits() -> Limits {
        serde_json::from_str(
            r#"{"requests": "60/1m", "output_tokens": "6000/1m", "concurrency": 3}"#,
        )
        .expect("limits")
    }

    const COST: Tokens = Tokens {
        input: 10,
        output: 100,
    };

    fn over(gauge: &mut Gauge, receipt: Option<&Receipt>, now: Time) {
        let call = Settled {
            taken: COST,
            weight: Weight::default(),
            refund: Refund::None,
            others: Others::default(),
            receipt,
        };
        gauge.refill(&limits(), now);
        gauge.settle(&limits(), call, 3, now);
    }

    fn cause(gauge: &mut Gauge, running: u32, now: Time) -> Option<Cause> {
        gauge.refill(&limits(), now);
        let shut = gauge.shut(&limits(), COST, running, now);
        shut.map(|shut| shut.cause)
    }

    #[test]
    fn a_hold_is_waited_out_and_then_one_call_tries() {
        let mut gauge = Gauge::default();
        let refused = Receipt {
            wait_us: Some(20_000_000),
            why: "too many".to_owned(),
            ..Receipt::of(End::Refused)
        };
        over(&mut gauge, Some(&refused), at(0));
        assert_eq!(gauge.health(at(1)), Health::Held);
        let held = Some(Cause::Hold("too many".to_owned()));
        assert_eq!(cause(&mut gauge, 0, at(19)), held);
        assert_eq!(cause(&mut gauge, 0, at(21)), None);
        assert_eq!(cause(&mut gauge, 1, at(21)), Some(Cause::Trying));
        over(&mut gauge, Some(&Receipt::of(End::Answered)), at(22));
        assert_eq!(cause(&mut gauge, 1, at(22)), None);
        assert_eq!(cause(&mut gauge, 2, at(22)), Some(Cause::Trying));
        for _ in 0..6 {
            over(&mut gauge, Some(&Receipt::of(End::Answered)), at(23));
        }
        assert_eq!(cause(&mut gauge, 2, at(23)), None);
        assert_eq!(cause(&mut gauge, 3, at(23)), Some(Cause::Crowded(3)));
        assert_eq!(gauge.health(at(23)), Health::Good);
    }

    #[test]
    fn sec_26_a_provider_that_asks_for_years_is_tried_after_an_hour() {
        for end in [End::Refused, End::Broken] {
            let mut gauge = Gauge::default();
            let forever = Receipt {
                wait_us: Some(1_000_000_000_000_000),
                ..Receipt::of(end)
            };
            for _ in 0..3 {
                over(&mut gauge, Some(&forever), at(0));
            }
            assert!(cause(&mut gauge, 0, at(1)).is_some(), "{end:?}");
            assert_eq!(
                cause(&mut gauge, 0, at(3600 * 21 / 20 + 1)),
                None,
                "{end:?}"
            );
        }
    }

    #[test]
    fn refusals_that_say_nothing_are_waited_for_longer_and_longer() {
        let mut gauge = Gauge::default();
        let mut now = at(0);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            over(&mut gauge, Some(&Receipt::of(End::Refused)), now);
            let shut = gauge.shut(&limits(), COST, 0, now).expect("held");
            let wait = shut.until.expect("a time").since(now);
            let least = Duration::from_secs(seconds);
            assert!(wait >= least && wait <= least * 21 / 20, "{wait:?}");
            now = shut.until.expect("a time");
        }
    }

    #[test]
    fn refusals_of_calls_made_together_are_one_refusal() {
        let mut gauge = Gauge::default();
        for _ in 0..8 {
            over(&mut gauge, Some(&Receipt::of(End::Refused)), at(0));
        }
        let shut = gauge.shut(&limits(), COST, 0, at(0)).expect("held");
        let wait = shut.until.expect("a time").since(at(0));
        assert!(wait <= Duration::from_millis(1_050), "{wait:?}");
    }

    #[test]
    fn a_barred_account_waits_for_a_person_and_costs_nothing() {
        let mut gauge = Gauge::default();
        gauge.refill(&limits(), at(0));
        gauge.take(COST);
        let barred = Receipt {
            why: "no money".to_owned(),
            ..Receipt::of(End::Barred)
        };
        over(&mut gauge, Some(&barred), at(0));
        let told = cause(&mut gauge, 0, at(9_999)).expect("shut").to_string();
        assert!(told.contains("no money"), "{told}");
        assert_eq!(gauge.left(&limits())[1].now, 1000, "tokens came back");
        gauge.forgive();
        assert_eq!(cause(&mut gauge, 0, at(9_999)), None);
    }

    #[test]
    fn what_nobody_heard_of_is_spent() {
        let mut gauge = Gauge::default();
        gauge.refill(&limits(), at(0));
        gauge.take(COST);
        over(&mut gauge, None, at(0));
        assert_eq!(gauge.left(&limits())[1].now, 900);
    }

    #[test]
    fn a_providers_word_counts_less_what_is_on_its_way() {
        let mut gauge = Gauge::default();
        gauge.refill(&limits(), at(0));
        let receipt = Receipt {
            remains: vec![super::super::receipt::Remains {
                dimension: Dimension::OutputTokens,
                left: 500,
            }],
            ..Receipt::of(End::Answered)
        };
        let call = Settled {
            taken: COST,
            weight: Weight::default(),
            refund: Refund::None,
            others: Others {
                calls: 2,
                tokens: Tokens {
                    input: 20,
                    output: 200,
                },
            },
            receipt: Some(&receipt),
        };
        gauge.settle(&limits(), call, 3, at(0));
        assert_eq!(gauge.left(&limits())[1].now, 300);
    }
}
