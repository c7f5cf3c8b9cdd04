//! A rate: so many starts in so much time.
//!
//! It is a token bucket that is kept as one number: the time at which it will
//! be full again (the generic cell rate algorithm). Nothing has to be counted
//! or topped up, and a bucket that nobody uses costs nothing.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::quantity::{format_duration, parse_duration};
use super::time::Time;

/// Most of them in one period.
const COUNT_MAX: u32 = 1_000_000;
/// Longest period: thirty days.
const PERIOD_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// So many in so much time, and so many at once after a rest. As text, `10/1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    period: Duration,
}

/// One that was taken ahead of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Booked {
    /// How long it has to wait until it is free.
    pub wait: Duration,
    /// When the bucket is full again.
    pub until: Time,
}

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRate {
    /// It has another form.
    #[error("`{0}` is not a rate such as `10/1m`: a number, `/`, and a duration with its unit")]
    Form(String),
    /// It is out of bounds.
    #[error("`{0}` is out of bounds: 1 to 1000000 in a period of 1ms to 30d")]
    Bounds(String),
}

impl Rate {
    /// Of all schedules of a host, where nothing else is said: fifty a second.
    pub const SCHEDULES: Self = Self {
        count: 50,
        period: Duration::from_secs(1),
    };

    /// `count` in each `period`.
    #[must_use]
    pub fn new(count: u32, period: Duration) -> Option<Self> {
        let good = (1..=COUNT_MAX).contains(&count)
            && (Duration::from_millis(1)..=PERIOD_MAX).contains(&period);
        good.then_some(Self { count, period })
    }

    /// How many in a period.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The period.
    #[must_use]
    pub const fn period(self) -> Duration {
        self.period
    }

    /// Time in which one becomes free again, in microseconds; rounded up, so
    /// that the rate is never exceeded.
    fn gap(self) -> i64 {
        let gap = self.period.as_micros().div_ceil(u128::from(self.count));
        i64::try_from(gap).unwrap_or(i64::MAX)
    }

    /// Time in which an empty bucket fills, in microseconds.
    fn depth(self) -> i64 {
        self.gap().saturating_mul(i64::from(self.count))
    }

    /// When the bucket is full, as far as that can be: what was written before
    /// a change of the rate or of the clock counts for an empty bucket at most.
    fn full(self, until: Time, now: Time) -> i64 {
        let empty = now.micros().saturating_add(self.depth());
        until.micros().clamp(now.micros(), empty)
    }

    /// The bucket as it can be: one that was emptied by a clock since set back,
    /// or at a slower rate, is empty now and fills from now on.
    #[must_use]
    pub fn mend(self, until: Time, now: Time) -> Time {
        until.min(Time::from_micros(now.micros().saturating_add(self.depth())))
    }

    /// How many may start now, of a bucket that is full again at `until`.
    #[must_use]
    pub fn free(self, until: Time, now: Time) -> u32 {
        let empty = now.micros().saturating_add(self.depth());
        let left = empty.saturating_sub(self.full(until, now)) / self.gap();
        u32::try_from(left).unwrap_or(0).min(self.count)
    }

    /// When the bucket is full again after one more has been taken now.
    #[must_use]
    pub fn take(self, until: Time, now: Time) -> Time {
        Time::from_micros(self.full(until, now).saturating_add(self.gap()))
    }

    /// Takes one now or, when there is none, the first that becomes free and
    /// that nobody has taken yet: so a bucket may owe any number of them.
    /// What it owes is only known by a clock that nobody sets, see
    /// [`Rate::mend`].
    #[must_use]
    pub fn book(self, until: Time, now: Time) -> Booked {
        let full = until.max(now).micros();
        let lead = self.depth().saturating_sub(self.gap());
        let start = Time::from_micros(full.saturating_sub(lead));
        Booked {
            wait: start.since(now),
            until: Time::from_micros(full.saturating_add(self.gap())),
        }
    }

    /// When the next one may start; `now` or before it when one may now.
    #[must_use]
    pub fn next(self, until: Time, now: Time) -> Time {
        let wait = self.depth().saturating_sub(self.gap());
        Time::from_micros(self.full(until, now).saturating_sub(wait))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, format_duration(self.period))
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let shown = || text.chars().take(40).flat_map(char::escape_debug).collect();
        let form = || BadRate::Form(shown());
        let (count, period) = text.split_once('/').ok_or_else(form)?;
        if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return Err(form());
        }
        let period = parse_duration(period).map_err(|_| form())?;
        let rate = count
            .parse()
            .ok()
            .and_then(|count| Self::new(count, period));
        rate.ok_or_else(|| BadRate::Bounds(shown()))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn a_rested_bucket_gives_its_count_at_once_and_then_one_by_one() {
        let rate: Rate = "3/1s".parse().expect("a rate");
        let now = at(5_000_000);
        let mut until = Time::default();
        for left in [3, 2, 1] {
            assert_eq!(rate.free(until, now), left);
            assert!(rate.next(until, now) <= now);
            until = rate.take(until, now);
        }
        assert_eq!(rate.free(until, now), 0);
        let next = rate.next(until, now);
        assert_eq!(next, at(5_333_334));
        assert_eq!(rate.free(until, at(next.micros() - 1)), 0);
        assert_eq!(rate.free(until, next), 1);
        assert_eq!(rate.free(until, at(6_000_002)), 3);
    }

    #[test]
    fn a_clock_set_back_costs_one_period_at_most() {
        let rate: Rate = "10/1m".parse().expect("a rate");
        let until = rate.take(at(7_200_000_000), at(7_200_000_000));
        let now = at(0);
        assert_eq!(rate.free(until, now), 0);
        assert_eq!(rate.next(until, now), at(6_000_000));
        let mended = rate.mend(until, now);
        assert_eq!(rate.free(mended, at(6_000_000)), 1);
        assert_eq!(rate.mend(mended, at(6_000_000)), mended);
    }

    #[test]
    fn rates_are_read_as_they_are_written_and_bad_ones_are_refused() {
        for good in ["10/1m", "1/1ms", "1000000/30d", "5/1m30s"] {
            assert_eq!(good.parse::<Rate>().expect(good).to_string(), good);
        }
        for bad in [
            "",
            "10",
            "/1m",
            "10/",
            "10/m",
            "10/1",
            "-1/1s",
            "+1/1s",
            "1.5/1s",
            " 1/1s",
            "1/1s ",
            "0/1s",
            "1/0s",
            "1/31d",
            "1000001/1s",
            "99999999999/1s",
            "1/1s/1s",
            "\u{1f980}/1s",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_booked_of_an_empty_bucket_becomes_free_one_after_the_other() {
        let rate: Rate = "2/1s".parse().expect("a rate");
        let now = at(5_000_000);
        let mut until = Time::default();
        for wait in [0, 0, 500, 1_000, 1_500, 2_000] {
            let booked = rate.book(until, now);
            assert_eq!(booked.wait, Duration::from_millis(wait));
            until = booked.until;
        }
        // Two seconds later all of them are free, and the next is not yet.
        let later = at(7_000_000);
        assert_eq!(rate.book(until, later).wait, Duration::from_millis(500));
        assert_eq!(rate.book(until, at(9_000_000)).wait, Duration::ZERO);
        // After a mend it owes nothing, and has nothing.
        let mended = rate.mend(until, now);
        assert_eq!(rate.book(mended, now).wait, Duration::from_millis(500));
        let end = rate.book(at(i64::MAX), now);
        assert_eq!(end.until, at(i64::MAX));
    }

    proptest! {
        /// Whenever they are asked for: in any stretch of time start at most a
        /// full bucket and what has become free meanwhile.
        #[test]
        fn what_is_booked_starts_no_faster_than_the_rate_allows(
            count in 1_u32..50,
            period in 1_u64..10_000,
            steps in prop::collection::vec((0_i64..3_000_000, 1_usize..100), 1..20),
        ) {
            let rate = Rate::new(count, Duration::from_millis(period)).expect("a rate");
            let (mut now, mut until) = (0, Time::default());
            let mut starts = Vec::new();
            for (step, many) in steps {
                now += step;
                for _ in 0..many {
                    let free = rate.free(until, at(now)) > 0;
                    let booked = rate.book(until, at(now));
                    prop_assert_eq!(booked.wait == Duration::ZERO, free);
                    until = booked.until;
                    starts.push(at(now).after(booked.wait).micros());
                }
            }
            prop_assert!(starts.is_sorted());
            for (index, from) in starts.iter().enumerate() {
                for (more, to) in starts[index..].iter().enumerate() {
                    let freed = (to - from) * i64::from(count) / (i64::try_from(period).unwrap() * 1_000);
                    prop_assert!(i64::try_from(more).unwrap() < i64::from(count) + freed + 1);
                }
            }
        }

        /// In any stretch of time there are at most a full bucket and what has
        /// become free meanwhile.
        #[test]
        fn no_window_has_more_than_the_rate_allows(
            count in 1_u32..50,
            period in 1_u64..10_000,
            steps in prop::collection::vec(0_i64..3_000_000, 1..200),
        ) {
            let rate = Rate::new(count, Duration::from_millis(period)).expect("a rate");
            let (mut now, mut until) = (0, Time::default());
            let mut starts = Vec::new();
            for step in steps {
                now += step;
                while rate.free(until, at(now)) > 0 {
                    prop_assert!(rate.next(until, at(now)) <= at(now));
                    until = rate.take(until, at(now));
                    starts.push(now);
                }
                prop_assert!(rate.next(until, at(now)) > at(now));
            }
            for (index, from) in starts.iter().enumerate() {
                for (more, to) in starts[index..].iter().enumerate() {
                    let freed = (to - from) * i64::from(count) / (i64::try_from(period).unwrap() * 1_000);
                    prop_assert!(i64::try_from(more).unwrap() < i64::from(count) + freed + 1);
                }
            }
        }
    }
}
