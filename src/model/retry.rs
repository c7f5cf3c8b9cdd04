//! How often a failed task is tried again, and how long it waits between.
//!
//! The wait before try `n + 1` is a random share of `base * factor^(n-1)`,
//! capped ("full jitter": the whole wait is drawn, so that tasks which failed
//! together do not come back together). The draw is a pure function of task
//! and try, so that a replayed history waits the same.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attempt::{Class, Outcome};
use super::draw::{draw, share};
use super::id::TaskId;

/// Exit code of our own programs for a failure that may pass: `EX_TEMPFAIL` of
/// `sysexits.h`.
pub const TRY_AGAIN: u8 = 75;

/// Failures after which a task that runs our own program is tried again: what
/// the program itself calls passing, and ends that are not its own.
#[must_use]
pub fn passing() -> Vec<Failure> {
    let classes = [Class::Signal, Class::Timeout, Class::Spawn, Class::Lost];
    let classes = classes.into_iter().map(Failure::Class);
    classes.chain([Failure::Code(TRY_AGAIN)]).collect()
}

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
    /// Failures that are tried again; when empty, all that trying again may
    /// help with (see [`Retry::allows`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retry_on: Vec<Failure>,
    /// Failures that are not tried again, whatever `retry_on` says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_retry_on: Vec<Failure>,
}

/// A kind of failure that a rule names: a class, or one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Failure {
    /// This exit code.
    Code(u8),
    /// Everything of this class.
    Class(Class),
}

impl Failure {
    /// Classes that a rule can name.
    pub const CLASSES: [Class; 7] = [
        Class::Exit,
        Class::Signal,
        Class::Oom,
        Class::Timeout,
        Class::Spawn,
        Class::Lost,
        Class::Provider,
    ];

    fn covers(self, outcome: &Outcome) -> bool {
        match self {
            Self::Code(code) => {
                // Our own program's end is its provider's doing, and an exit as well.
                matches!(outcome.class, Class::Exit | Class::Provider)
                    && outcome.exit_code == Some(i32::from(code))
            }
            Self::Class(class) => outcome.class == class,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => code.fmt(f),
            Self::Class(class) => f.write_str(class.word()),
        }
    }
}

impl FromStr for Failure {
    type Err = String;

    /// Reads `75` or `timeout`.
    fn from_str(text: &str) -> Result<Self, String> {
        let class = Class::from_word(text).filter(|class| Self::CLASSES.contains(class));
        match (text.parse::<u8>(), class) {
            (Ok(0), _) => Err("exit code 0 is no failure".to_owned()),
            (Ok(code), _) => Ok(Self::Code(code)),
            (_, Some(class)) => Ok(Self::Class(class)),
            (Err(_), None) => {
                let words = Self::CLASSES.map(Class::word).join(", ");
                Err(format!(
                    "`{}` must be an exit code from 1 to 255 or one of {words}",
                    text.chars().take(40).collect::<String>().escape_debug()
                ))
            }
        }
    }
}

impl Default for Retry {
    /// One attempt; whoever raises the number gets 1 s, doubled, up to 10 min.
    fn default() -> Self {
        Self {
            max_attempts: 1,
            base_ms: 1_000,
            factor_percent: 200,
            cap_ms: 600_000,
            retry_on: Vec::new(),
            no_retry_on: Vec::new(),
        }
    }
}

impl Retry {
    /// Whether an attempt that ended this way may be tried again when `tries`
    /// attempts have been consumed. Where the rule does not say, an attempt
    /// that ran out of memory is not, since the same limit would strike again,
    /// and one that could not be started is not, since what is missing does not
    /// come by waiting; what the host was short of has gone another way.
    #[must_use]
    pub fn allows(&self, outcome: &Outcome, tries: u32) -> bool {
        let covered = |failures: &[Failure]| failures.iter().any(|one| one.covers(outcome));
        let retryable = match outcome.class {
            Class::Exit | Class::Signal | Class::Timeout | Class::Lost | Class::Provider => {
                self.retry_on.is_empty() || covered(&self.retry_on)
            }
            Class::Oom | Class::Spawn => covered(&self.retry_on),
            Class::Success
            | Class::Interrupted
            | Class::Cancelled
            | Class::Skipped
            | Class::Expired
            | Class::Poison
            | Class::Budget => false,
        };
        retryable && !covered(&self.no_retry_on) && tries < self.max_attempts
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
            ..Retry::default()
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

    fn failed(class: Class, exit_code: Option<i32>) -> Outcome {
        Outcome {
            class,
            exit_code,
            signal: None,
            message: String::new(),
        }
    }

    #[test]
    fn what_waiting_does_not_mend_is_not_retried_by_itself() {
        let retry = Retry {
            max_attempts: 5,
            ..Retry::default()
        };
        assert!(!retry.allows(&failed(Class::Oom, None), 1));
        assert!(!retry.allows(&failed(Class::Spawn, None), 1));
        assert!(retry.allows(&failed(Class::Exit, Some(1)), 4));
        assert!(!retry.allows(&failed(Class::Exit, Some(1)), 5));
    }

    #[test]
    fn rules_name_exit_codes_and_classes() {
        let read = |words: &[&str]| words.iter().map(|word| word.parse().unwrap()).collect();
        let retry = Retry {
            max_attempts: 5,
            retry_on: read(&["75", "oom", "signal"]),
            no_retry_on: read(&["signal"]),
            ..Retry::default()
        };
        let allows = |class, code| retry.allows(&failed(class, code), 1);
        assert!(allows(Class::Exit, Some(75)));
        assert!(!allows(Class::Exit, Some(1)));
        assert!(allows(Class::Oom, None));
        assert!(!allows(Class::Timeout, None));
        assert!(
            !allows(Class::Signal, None),
            "no_retry_on has the last word"
        );
        assert!(!allows(Class::Timeout, Some(75)), "a time-out is no exit");
        for bad in ["0", "256", "-1", "success", "cancelled", "", "EXIT"] {
            assert!(bad.parse::<Failure>().is_err(), "{bad}");
        }
    }
}
