//! When to leave a provider alone that fails.
//!
//! It opens after three failures in a row, or when of at least ten calls within
//! a minute half have failed; then nothing is asked for a time that doubles
//! with each opening, and after it one call finds out. Two good answers close
//! it. Refusals for being too many are no failures; those have their own wait.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::draw::{draw, share};
use super::time::Time;

/// Failures in a row that open it.
const IN_A_ROW: u32 = 3;
/// Calls in a [`WINDOW`] of which half may fail.
const CALLS_MIN: u32 = 10;
/// In which calls are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// How long it is open the first time.
const OPEN: Duration = Duration::from_secs(30);
/// And at most.
const OPEN_MAX: Duration = Duration::from_secs(600);
/// Good answers that close it.
const GOOD: u32 = 2;
/// Time closed after which it is as if it had never been open.
const FORGET: Duration = Duration::from_secs(600);

/// How a call went, as far as it says something of its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    /// The provider did what it should.
    Well,
    /// It did not; it may have said when it can again.
    Badly(Option<Duration>),
}

/// What is known of a provider's failures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// Failures in a row.
    failures: u32,
    /// Calls and failures since a time.
    since: Time,
    calls: u32,
    bad: u32,
    /// Times it was opened, one after the other.
    opened: u32,
    /// Until when nothing is asked. Set until it is closed again.
    until: Option<Time>,
    /// Good answers since then.
    good: u32,
    /// When it was closed.
    closed: Time,
}

impl Breaker {
    /// Until when nothing may be asked, if that is after `now`.
    #[must_use]
    pub fn shut(&self, now: Time) -> Option<Time> {
        self.until.filter(|until| *until > now)
    }

    /// Whether one call at a time finds out how the provider does.
    #[must_use]
    pub fn is_trying(&self, now: Time) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// A call is over. `seed` spreads the times of those that open together.
    pub fn learn(&mut self, went: Went, seed: u64, now: Time) {
        if now.since(self.since) > WINDOW || self.since > now {
            (self.since, self.calls, self.bad) = (now, 0, 0);
        }
        self.calls += 1;
        match went {
            Went::Well => self.well(now),
            Went::Badly(asks) => {
                self.failures += 1;
                self.bad += 1;
                self.good = 0;
                let half = self.calls >= CALLS_MIN && self.bad * 2 >= self.calls;
                // What was on its way when it was opened tells nothing new.
                let early = self.shut(now).is_some();
                if !early && (self.until.is_some() || self.failures >= IN_A_ROW || half) {
                    self.open(asks, seed, now);
                }
            }
        }
    }

    fn well(&mut self, now: Time) {
        self.failures = 0;
        if self.until.is_none() {
            if now.since(self.closed) > FORGET {
                self.opened = 0;
            }
            return;
        }
        self.good += 1;
        if self.good >= GOOD {
            self.until = None;
            self.closed = now;
        }
    }

    fn open(&mut self, asks: Option<Duration>, seed: u64, now: Time) {
        let doubled = OPEN.saturating_mul(1 << self.opened.min(10));
        let wait = doubled.min(OPEN_MAX);
        // From four fifths to six.
        let spread = wait * 4 / 5 + share(wait * 2 / 5, draw(seed));
        self.until = Some(now.after(spread.max(asks.unwrap_or_default())));
        self.opened += 1;
        (self.calls, self.bad, self.good) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Went = Went::Badly(None);

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn three_in_a_row_open_it_and_two_good_answers_close_it() {
        let mut breaker = Breaker::default();
        for went in [BAD, BAD, Went::Well, BAD, BAD] {
            breaker.learn(went, 1, at(0));
        }
        assert_eq!(breaker.shut(at(0)), None);
        breaker.learn(BAD, 1, at(0));
        let until = breaker.shut(at(0)).expect("open");
        assert!((at(24)..=at(36)).contains(&until), "{until:?}");
        assert!(!breaker.is_trying(at(1)));
        assert!(breaker.is_trying(until));
        assert_eq!(breaker.shut(until), None);
        breaker.learn(Went::Well, 1, at(40));
        assert!(breaker.is_trying(at(40)));
        breaker.learn(Went::Well, 1, at(41));
        assert!(!breaker.is_trying(at(41)));
        assert_eq!(breaker.shut(at(41)), None);
    }

    #[test]
    fn each_opening_doubles_the_time_up_to_ten_minutes() {
        let mut breaker = Breaker::default();
        let mut now = at(0);
        (0..2).for_each(|_| breaker.learn(BAD, 7, now));
        for seconds in [30, 60, 120, 240, 480, 600, 600] {
            breaker.learn(BAD, 7, now);
            let until = breaker.shut(now).expect("open");
            let wait = until.since(now).as_secs();
            assert!(
                (seconds * 4 / 5..=seconds * 6 / 5).contains(&wait),
                "{wait}"
            );
            // What comes late is no new opening.
            breaker.learn(BAD, 7, now);
            assert_eq!(breaker.shut(now), Some(until));
            now = until;
        }
        breaker.learn(Went::Well, 7, now);
        breaker.learn(Went::Well, 7, now);
        breaker.learn(Went::Well, 7, now.after(FORGET * 2));
        (0..3).for_each(|_| breaker.learn(BAD, 7, now.after(FORGET * 2)));
        let until = breaker.shut(now.after(FORGET * 2)).expect("open");
        assert!(until.since(now.after(FORGET * 2)) <= Duration::from_secs(36));
    }

    #[test]
    fn half_of_many_open_it_and_a_providers_own_wait_counts() {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            breaker.learn(Went::Well, 1, at(0));
            breaker.learn(BAD, 1, at(0));
        }
        assert!(breaker.shut(at(0)).is_some());
        let mut breaker = Breaker::default();
        let asks = Went::Badly(Some(Duration::from_secs(300)));
        (0..3).for_each(|_| breaker.learn(asks, 1, at(0)));
        assert_eq!(breaker.shut(at(0)), Some(at(300)));
        // Of another minute they do not count.
        let mut breaker = Breaker::default();
        for minute in 0..20 {
            let went = if minute % 2 == 0 { BAD } else { Went::Well };
            breaker.learn(went, 1, at(minute * 61));
        }
        assert_eq!(breaker.shut(at(0)), None);
    }
}
