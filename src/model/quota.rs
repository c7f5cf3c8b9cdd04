//! A quota: so much of something in so much time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::quantity::{format_duration, parse_duration};

/// Largest amount of one period.
const AMOUNT_MAX: u64 = 1_000_000_000_000;
/// Longest period: thirty days.
const PERIOD_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// A limit of a longer period may be used up at once: providers spread those of
/// a minute over it, and those of a day not.
pub(super) const SPREAD_MAX: Duration = Duration::from_secs(60);
/// So much in so much time. As text, `40000/1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    amount: u64,
    period: Duration,
}

/// Why a text is no quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a limit such as `40000/1m`: a number from 1 to {AMOUNT_MAX}, `/`, and a time \
     from 1s to 30d"
)]
pub struct BadQuota(String);

impl Quota {
    /// How much in a period.
    #[must_use]
    pub const fn amount(self) -> u64 {
        self.amount
    }

    /// The period.
    #[must_use]
    pub const fn period(self) -> Duration {
        self.period
    }

    /// Parts of one token.
    pub(super) fn one(self) -> i128 {
        i128::try_from(self.period.as_micros()).unwrap_or(i128::MAX)
    }

    /// Parts that a full bucket holds; one token at least.
    pub(super) fn capacity(self, burst: Duration) -> i128 {
        if self.period > SPREAD_MAX {
            return i128::from(self.amount) * self.one();
        }
        self.refill(burst.min(self.period)).max(self.one())
    }

    /// Parts that come back in a time.
    pub(super) fn refill(self, elapsed: Duration) -> i128 {
        let elapsed = i128::try_from(elapsed.as_micros()).unwrap_or(i128::MAX);
        elapsed.saturating_mul(i128::from(self.amount))
    }

    /// Time in which so many parts come back, rounded up.
    pub(super) fn time_for(self, parts: i128) -> Duration {
        let amount = i128::from(self.amount);
        let micros = (parts.max(0) + amount - 1) / amount;
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.amount, format_duration(self.period))
    }
}

impl FromStr for Quota {
    type Err = BadQuota;

    fn from_str(text: &str) -> Result<Self, BadQuota> {
        let bad = || BadQuota(text.chars().take(40).flat_map(char::escape_debug).collect());
        let (amount, period) = text.split_once('/').ok_or_else(bad)?;
        let digits = !amount.is_empty() && amount.bytes().all(|byte| byte.is_ascii_digit());
        let amount: u64 = amount.parse().ok().filter(|_| digits).ok_or_else(bad)?;
        let period = parse_duration(period).map_err(|_| bad())?;
        let fits = (1..=AMOUNT_MAX).contains(&amount)
            && (Duration::from_secs(1)..=PERIOD_MAX).contains(&period);
        fits.then_some(Self { amount, period }).ok_or_else(bad)
    }
}

impl Serialize for Quota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read_as_they_are_written_and_bad_ones_are_refused() {
        for good in ["50/1m", "1/1s", "1000000000000/30d", "40000/1m30s"] {
            assert_eq!(good.parse::<Quota>().expect(good).to_string(), good);
        }
        for bad in [
            "50", "/1m", "0/1m", "5/1", "5/500ms", "5/31d", "-1/1m", "1.5/1m", "+1/1m",
        ] {
            assert!(bad.parse::<Quota>().is_err(), "{bad}");
        }
    }
}
