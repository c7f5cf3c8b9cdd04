//! Schedules that go by length of time: `every 90s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use super::bad::BadWhen;
use crate::model::quantity::{format_duration, parse_duration};
use crate::model::time::Time;

/// Shortest interval.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest interval: ten years of 365 days.
const LONGEST: Duration = Duration::from_hours(24 * 3650);

/// An equal length of real time, again and again: no zone and no change of
/// the clock has a part in it.
///
/// As text `every 90s`, or `every 90s from 2026-01-31T12:00:00Z`. The times
/// are the anchor plus whole intervals; without `from` the anchor is the
/// start of 1970, so that `every 1h` fires at each full hour of universal
/// time. Nothing fires at or before the anchor's own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    every: Duration,
    anchor: Time,
}

impl Interval {
    /// An interval counted from a time; less than milliseconds is cut off.
    ///
    /// # Errors
    ///
    /// Below a second and above ten years.
    pub fn new(every: Duration, anchor: Time) -> Result<Self, BadWhen> {
        let every = Duration::from_secs(every.as_secs())
            + Duration::from_millis(every.subsec_millis().into());
        if (SHORTEST..=LONGEST).contains(&every) {
            Ok(Self { every, anchor })
        } else {
            Err(BadWhen::Interval {
                why: format!(
                    "{} is not between {} and {}",
                    format_duration(every),
                    format_duration(SHORTEST),
                    format_duration(LONGEST)
                ),
            })
        }
    }

    /// The length.
    #[must_use]
    pub const fn every(&self) -> Duration {
        self.every
    }

    /// The first time strictly after another.
    pub(super) fn next(&self, after: Time) -> Option<Time> {
        let every = i64::try_from(self.every.as_micros()).ok()?;
        let passed = after.micros().checked_sub(self.anchor.micros())?.max(0);
        let steps = (passed / every).checked_add(1)?;
        let next = self
            .anchor
            .micros()
            .checked_add(steps.checked_mul(every)?)?;
        Some(Time::from_micros(next))
    }
}

impl FromStr for Interval {
    type Err = BadWhen;

    fn from_str(text: &str) -> Result<Self, BadWhen> {
        let bad = |why: String| BadWhen::Interval { why };
        let words = super::words(text)?;
        let words: Vec<_> = words.into_iter().map(|(_, word)| word).collect();
        let (every, anchor) = match words.as_slice() {
            ["every", every] => (every, Time::default()),
            ["every", every, "from", anchor] => {
                let anchor: Timestamp = anchor.parse().map_err(|_| {
                    bad(format!(
                        "`{anchor}` is not a time such as `2026-01-31T12:00:00Z`"
                    ))
                })?;
                (every, Time::from_micros(anchor.as_microsecond()))
            }
            _ => {
                return Err(bad(
                    "write `every 90s` or `every 90s from 2026-01-31T12:00:00Z`".to_owned(),
                ));
            }
        };
        let every = parse_duration(every).map_err(|error| bad(error.to_string()))?;
        Self::new(every, anchor)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "every {}", format_duration(self.every))?;
        match Timestamp::from_microsecond(self.anchor.micros()) {
            Ok(anchor) if self.anchor != Time::default() => write!(f, " from {anchor}"),
            _ => Ok(()),
        }
    }
}
