//! How often a process that ended is started again, and how long that waits.
//!
//! The first waits are short, because most ends are accidents; they grow, and
//! after some starts in a row there is a long pause, because something is
//! wrong that starting does not mend. A process that was well for a while has
//! paid for its past. Time and jitter are arguments.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::draw::share;
use super::time::Time;

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Waits before the first, second, … restart in a row; beyond the last,
    /// the last. Without any, there is no wait.
    pub steps: Vec<Duration>,
    /// The most that chance adds to a wait, in percent of it.
    pub jitter_percent: u32,
    /// Restarts in a row before the pause; 0 pauses before each.
    pub limit: u32,
    /// The pause, after which the row begins anew.
    pub cool_off: Duration,
    /// How long it has to be well until what was before is forgotten.
    pub healthy: Duration,
}

/// What has happened so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restarts {
    in_row: u32,
    total: u64,
    well_since: Option<Time>,
}

/// What to do about an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Time to wait before the start.
    pub wait: Duration,
    /// When that is over.
    pub at: Time,
    /// What the wait is for.
    pub why: Why,
}

/// What a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The so many-th restart in a row, counted from 1.
    Backoff(u32),
    /// There were as many in a row as the limit allows.
    CoolOff,
}

impl Policy {
    /// The wait before the `number`-th restart in a row, counted from 1, with
    /// its share of chance: a draw from all 64-bit numbers.
    fn wait(&self, number: u32, draw: u64) -> Duration {
        let index = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let step = self.steps.get(index).or_else(|| self.steps.last());
        self.jittered(step.copied().unwrap_or_default(), draw)
    }

    fn jittered(&self, wait: Duration, draw: u64) -> Duration {
        let most = wait.saturating_mul(self.jitter_percent) / 100;
        wait.saturating_add(share(most, draw))
    }
}

impl Restarts {
    /// It is well from now on, until it ends.
    pub fn ready(&mut self, now: Time) {
        self.well_since.get_or_insert(now);
    }

    /// It was ended by no fault of its own: that says nothing of it.
    pub const fn interrupted(&mut self) {
        self.well_since = None;
        self.total = self.total.saturating_add(1);
    }

    /// A person wants it started: the row begins anew.
    pub const fn forgive(&mut self) {
        self.in_row = 0;
        self.well_since = None;
    }

    /// The clock was set by so many microseconds: what was a duration stays one.
    pub fn clock_set(&mut self, by: i64) {
        let moved = |at: Time| Time::from_micros(at.micros().saturating_add(by));
        self.well_since = self.well_since.map(moved);
    }

    /// Since when it is well, while it is.
    #[must_use]
    pub const fn well_since(&self) -> Option<Time> {
        self.well_since
    }

    /// It has ended, and is to be started again.
    pub fn ended(&mut self, policy: &Policy, now: Time, draw: u64) -> Next {
        let well = self.well_since.take().map(|since| now.since(since));
        if well.is_some_and(|well| well >= policy.healthy) {
            self.in_row = 0;
        }
        self.total = self.total.saturating_add(1);
        let (wait, why) = if self.in_row >= policy.limit {
            self.in_row = 0;
            (policy.jittered(policy.cool_off, draw), Why::CoolOff)
        } else {
            self.in_row += 1;
            (policy.wait(self.in_row, draw), Why::Backoff(self.in_row))
        };
        Next {
            wait,
            at: now.after(wait),
            why,
        }
    }

    /// Restarts in all.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Restarts in a row.
    #[must_use]
    pub const fn in_row(&self) -> u32 {
        self.in_row
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Policy {
        Policy {
            steps: [1, 2, 4, 8, 16, 60].map(Duration::from_secs).into(),
            jitter_percent: 0,
            limit: 5,
            cool_off: Duration::from_secs(300),
            healthy: Duration::from_secs(600),
        }
    }

    #[test]
    fn waits_grow_then_pause_then_begin_anew() {
        let (policy, mut restarts, mut now) = (policy(), Restarts::default(), Time::from_micros(0));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let next = restarts.ended(&policy, now, 0);
            waits.push(next.wait.as_secs());
            now = next.at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 300, 1, 2]);
        assert_eq!(restarts.total(), 8);
        let patient = Policy { limit: 9, ..policy };
        let mut restarts = Restarts::default();
        let waits: Vec<_> = (0..8)
            .map(|_| restarts.ended(&patient, now, 0).wait.as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 60, 60, 60]);
    }

    #[test]
    fn a_good_while_forgets_the_past_and_a_short_one_does_not() {
        let (policy, mut restarts) = (policy(), Restarts::default());
        let begin = Time::from_micros(0);
        for _ in 0..3 {
            restarts.ended(&policy, begin, 0);
        }
        restarts.ready(begin);
        let short = begin.after(Duration::from_secs(599));
        assert_eq!(restarts.ended(&policy, short, 0).why, Why::Backoff(4));
        restarts.ready(begin);
        // Saying it again does not begin it again.
        restarts.ready(begin.after(Duration::from_secs(500)));
        let long = begin.after(Duration::from_secs(600));
        assert_eq!(restarts.ended(&policy, long, 0).why, Why::Backoff(1));
    }

    /// One life: how long it takes to be ready, if it ever is, how long it
    /// lives then, and what chance says about its end.
    fn life() -> impl Strategy<Value = (u64, Option<u64>, u64)> {
        (0..100_u64, proptest::option::of(0..2_000_u64), any::<u64>())
    }

    proptest! {
        #[test]
        fn no_history_starts_more_often_than_the_rule_allows(
            lives in proptest::collection::vec(life(), 1..200),
            jitter_percent in 0..50_u32,
            limit in 0..8_u32,
        ) {
            let policy = Policy { jitter_percent, limit, ..policy() };
            let (mut restarts, mut now) = (Restarts::default(), Time::from_micros(0));
            let mut in_row = 0;
            for (index, (delay, lived, draw)) in lives.into_iter().enumerate() {
                now = now.after(Duration::from_secs(delay));
                if let Some(lived) = lived {
                    restarts.ready(now);
                    now = now.after(Duration::from_secs(lived));
                    if Duration::from_secs(lived) >= policy.healthy {
                        in_row = 0;
                    }
                }
                let same = restarts.clone().ended(&policy, now, draw);
                let next = restarts.ended(&policy, now, draw);
                prop_assert_eq!(next, same, "a function of its arguments");
                prop_assert_eq!(next.at, now.after(next.wait));
                let base = match next.why {
                    Why::CoolOff => {
                        prop_assert_eq!(in_row, limit, "a pause only at the limit");
                        in_row = 0;
                        policy.cool_off
                    }
                    Why::Backoff(number) => {
                        in_row += 1;
                        prop_assert_eq!(number, in_row);
                        prop_assert!(number <= limit, "never beyond the limit");
                        policy.steps[usize::try_from(number - 1).expect("small").min(5)]
                    }
                };
                prop_assert!(next.wait >= base);
                prop_assert!(next.wait <= base + base * jitter_percent / 100);
                prop_assert_eq!(restarts.total(), u64::try_from(index).expect("small") + 1);
                now = next.at;
            }
        }

        #[test]
        fn a_clock_that_is_set_back_counts_as_no_time(back in 1..1_000_000_i64) {
            let (policy, mut restarts) = (policy(), Restarts::default());
            restarts.ended(&policy, Time::from_micros(0), 0);
            restarts.ready(Time::from_micros(0));
            let next = restarts.ended(&policy, Time::from_micros(-back), u64::MAX);
            prop_assert_eq!(next.why, Why::Backoff(2));
        }
    }
}
