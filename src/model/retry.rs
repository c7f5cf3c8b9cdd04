//! How often a failed task is tried again, and how long it waits between.
//!
//! The wait before try `n + 1` is a random share of `base * factor^(n-1)`,
//! capped ("full jitter": the whole wait is drawn, so that tasks which failed
//! together do not come back together). The draw is a pure function of task
//! and try, so that a replayed history waits the same.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attempt::Class;
use super::draw::{draw, share};
use super::id::TaskId;

/// What a task does after a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included; at least 1.
    pub max_attempts: u32,
    /// Longest possible first wait, in milliseconds.
    pub base_ms: u64,
    /// Growth of the wait from try to try, in percent: 200 doubles it.
    pub factor_percent: u32,
    /// Longest possible wait, in milliseconds.
    pub cap_ms: u64,
}

impl Default for Retry {
    /// One attempt; whoever raises the number gets 1 s, doubled, up to 10 min.
    fn default() -> Self {
        Self {
            max_attempts: 1,
            base_ms: 1_000,
            factor_percent: 200,
            cap_ms: 600_000,
        }
    }
}

impl Retry {
    /// Whether an attempt that ended this way may be tried again when `tries`
    /// attempts have been consumed.
    #[must_use]
    pub const fn allows(&self, class: Class, tries: u32) -> bool {
        let retryable = match class {
            Class::Exit | Class::Signal | Class::Timeout | Class::Spawn | Class::Lost => true,
            // The same limit would strike again.
            Class::Oom => false,
            Class::Provider => true,
            Class::Success | Class::Interrupted | Class::Cancelled | Class::Poison => false,
        };
        retryable && tries < self.max_attempts
    }

    /// The wait after `tries` consumed attempts.
    #[must_use]
    pub fn wait(&self, task: TaskId, tries: u32) -> Duration {
        let mut ceiling = self.base_ms;
        for _ in 1..tries {
            ceiling = ceiling.saturating_mul(u64::from(self.factor_percent)) / 100;
            if ceiling >= self.cap_ms {
                break;
            }
        }
        let ceiling = Duration::from_millis(ceiling.min(self.cap_ms));
        share(
            ceiling,
            draw(task.0.cast_unsigned() ^ (u64::from(tries) << 48)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_the_doubling_ceiling_and_the_cap() {
        let retry = Retry {
            max_attempts: 99,
            base_ms: 1_000,
            factor_percent: 200,
            cap_ms: 60_000,
        };
        for id in 1..500 {
            let mut ceiling = 1_000;
            for tries in 1..40 {
                let wait = retry.wait(TaskId(id), tries);
                assert!(
                    wait <= Duration::from_millis(ceiling),
                    "{id} {tries} {wait:?}"
                );
                assert_eq!(
                    wait,
                    retry.wait(TaskId(id), tries),
                    "a replay waits the same"
                );
                ceiling = (ceiling * 2).min(60_000);
            }
        }
    }

    #[test]
    fn waits_use_the_whole_range() {
        let retry = Retry {
            max_attempts: 2,
            ..Retry::default()
        };
        let (low, high) = (1..2_000)
            .map(|id| retry.wait(TaskId(id), 1))
            .fold((Duration::MAX, Duration::ZERO), |(low, high), wait| {
                (low.min(wait), high.max(wait))
            });
        assert!(low < Duration::from_millis(20), "{low:?}");
        assert!(high > Duration::from_millis(980), "{high:?}");
    }

    #[test]
    fn an_oom_kill_is_not_retried_at_the_same_limit() {
        let retry = Retry {
            max_attempts: 5,
            ..Retry::default()
        };
        assert!(!retry.allows(Class::Oom, 1));
        assert!(retry.allows(Class::Exit, 4));
        assert!(!retry.allows(Class::Exit, 5));
    }
}
