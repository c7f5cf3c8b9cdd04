//! What a provider lets one account have of a model: so many requests and
//! tokens in so much time.
//!
//! Each limit is a token bucket. What a call may cost is taken of all buckets
//! at once, or of none; what it did cost is settled when it is over. A level
//! may be negative: a call that is larger than a bucket waits until that is
//! full, and leaves a debt.
//!
//! Levels are kept in as many parts of a token as the limit's period has
//! microseconds: in one microsecond exactly `amount` parts come back, so that
//! nothing is rounded away however often a bucket is looked at.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quantity::{duration, format_duration};
use super::quota::{Quota, SPREAD_MAX};
use super::time::Time;

/// What is made up for at once after a rest, where nothing says how much:
/// providers count minutes in parts of some seconds.
const BURST: Duration = Duration::from_secs(10);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Calls.
    Requests,
    /// Tokens of what is asked.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
    /// Both together.
    Tokens,
}

impl Dimension {
    /// Its name for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InputTokens => "input tokens",
            Self::OutputTokens => "output tokens",
            Self::Tokens => "tokens",
        }
    }
}

/// One quota, or several that all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMore")]
pub struct Quotas(pub Vec<Quota>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(Quota),
    More(Vec<Quota>),
}

impl From<OneOrMore> for Quotas {
    fn from(read: OneOrMore) -> Self {
        match read {
            OneOrMore::One(quota) => Self(vec![quota]),
            OneOrMore::More(quotas) => Self(quotas),
        }
    }
}

/// Which unused part of a reservation a provider gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refund {
    /// None: what a call might have cost is spent.
    None,
    /// That of answers.
    Output,
    /// All of it.
    All,
}

/// All limits of one account for one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Calls.
    pub requests: Quotas,
    /// Tokens of what is asked.
    pub input_tokens: Quotas,
    /// Tokens of answers.
    pub output_tokens: Quotas,
    /// Both together.
    pub tokens: Quotas,
    /// Calls at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Of a limit of up to a minute, what can be used at once after a rest, as a
    /// part of its period.
    #[serde(with = "duration")]
    pub burst: Duration,
    /// What is given back of what a call did not use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund: Option<Refund>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: Quotas::default(),
            input_tokens: Quotas::default(),
            output_tokens: Quotas::default(),
            tokens: Quotas::default(),
            concurrency: None,
            burst: BURST,
            refund: None,
        }
    }
}

impl Limits {
    /// Each quota, with what it counts.
    pub fn each(&self) -> impl Iterator<Item = (Dimension, Quota)> {
        let of = |dimension, quotas: &'_ Quotas| {
            let quotas: Vec<_> = quotas.0.iter().map(|quota| (dimension, *quota)).collect();
            quotas
        };
        of(Dimension::Requests, &self.requests)
            .into_iter()
            .chain(of(Dimension::InputTokens, &self.input_tokens))
            .chain(of(Dimension::OutputTokens, &self.output_tokens))
            .chain(of(Dimension::Tokens, &self.tokens))
    }

    /// What is wrong with them, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.concurrency == Some(0) {
            return Some("concurrency must be at least 1".to_owned());
        }
        if self.burst.is_zero() || self.burst > SPREAD_MAX {
            return Some("burst must lie between 1ms and 1m".to_owned());
        }
        let all: Vec<_> = self.each().collect();
        let twice = all.iter().enumerate().find(|(index, (dimension, quota))| {
            let mut before = all.iter().take(*index);
            before.any(|(other, one)| other == dimension && one.period() == quota.period())
        });
        twice.map(|(_, (dimension, quota))| {
            let period = format_duration(quota.period());
            format!("two limits of {} in {period}", dimension.words())
        })
    }
}

/// Tokens of one call: what it may take, or took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Of what is asked.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
}

impl Tokens {
    /// As one dimension counts them.
    fn of(self, dimension: Dimension) -> i128 {
        match dimension {
            Dimension::Requests => 1,
            Dimension::InputTokens => i128::from(self.input),
            Dimension::OutputTokens => i128::from(self.output),
            Dimension::Tokens => i128::from(self.input) + i128::from(self.output),
        }
    }
}

/// What is left of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Level {
    dimension: Dimension,
    period_us: u64,
    /// Whole tokens; negative is a debt.
    whole: i64,
    /// And so many parts of one.
    parts: u64,
}

impl Level {
    fn one(self) -> i128 {
        i128::from(self.period_us.max(1))
    }

    fn left(self) -> i128 {
        i128::from(self.whole) * self.one() + i128::from(self.parts)
    }

    fn set(&mut self, left: i128) {
        let whole = left.div_euclid(self.one());
        let bound = whole.clamp(i64::MIN.into(), i64::MAX.into());
        self.whole = i64::try_from(bound).unwrap_or(0);
        self.parts = u64::try_from(left.rem_euclid(self.one())).unwrap_or(0);
    }
}

/// What is left of all limits, as of a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Levels {
    at: Time,
    levels: Vec<Level>,
}

/// What is left of a limit, to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// What is counted.
    pub dimension: Dimension,
    /// The limit.
    pub quota: Quota,
    /// What can be used at once.
    pub now: i64,
    /// The most that this can be.
    pub most: i64,
}

impl Levels {
    /// Brings them up to `now`, and to these limits: a limit that is new is
    /// unused. What a clock that was set back has already given is not given
    /// twice.
    pub fn refill(&mut self, limits: &Limits, now: Time) {
        let elapsed = now.since(self.at);
        let levels = limits.each().map(|(dimension, quota)| {
            let period_us = u64::try_from(quota.period().as_micros()).unwrap_or(u64::MAX);
            let full = quota.capacity(limits.burst);
            let mut known = self.levels.iter();
            let known =
                known.find(|level| level.dimension == dimension && level.period_us == period_us);
            let left = known.map(|level| level.left().saturating_add(quota.refill(elapsed)));
            let mut level = Level {
                dimension,
                period_us,
                whole: 0,
                parts: 0,
            };
            level.set(left.unwrap_or(full).min(full));
            level
        });
        self.levels = levels.collect();
        self.at = now;
    }

    /// The time until a call could be made that may take so much, and what it
    /// waits for; none when it could be now. They have to be of now.
    #[must_use]
    pub fn wait(&self, limits: &Limits, tokens: Tokens) -> Option<(Dimension, Duration)> {
        let waits = limits.each().zip(&self.levels);
        let waits = waits.filter_map(|((dimension, quota), level)| {
            let need = tokens.of(dimension).saturating_mul(quota.one());
            let missing = need.min(quota.capacity(limits.burst)) - level.left();
            (missing > 0).then(|| (dimension, quota.time_for(missing)))
        });
        waits.max_by_key(|(_, wait)| *wait)
    }

    /// Takes what a call may cost.
    pub fn take(&mut self, tokens: Tokens) {
        for level in &mut self.levels {
            let taken = tokens.of(level.dimension).saturating_mul(level.one());
            level.set(level.left().saturating_sub(taken));
        }
    }

    /// Puts right what was taken by what was used. What was used beyond it is
    /// always taken; what was not is given back where `refund` says so, the
    /// call itself never.
    pub fn settle(&mut self, limits: &Limits, taken: Tokens, used: Tokens, refund: Refund) {
        for ((dimension, quota), level) in limits.each().zip(&mut self.levels) {
            let back = match (dimension, refund) {
                (Dimension::Requests, _) => false,
                (Dimension::OutputTokens, Refund::Output) | (_, Refund::All) => true,
                (_, Refund::None | Refund::Output) => false,
            };
            let over = taken.of(dimension) - used.of(dimension);
            if over < 0 || back {
                let over = over.saturating_mul(level.one());
                let left = level.left().saturating_add(over);
                level.set(left.min(quota.capacity(limits.burst)));
            }
        }
    }

    /// Believes a provider which says that no more than this is left of what
    /// its limits count. It never raises a level.
    pub fn lower(&mut self, dimension: Dimension, left: i64) {
        for level in &mut self.levels {
            // Of a day's limit it says nothing.
            let minute = level.period_us <= 60_000_000;
            if level.dimension == dimension && minute && level.whole >= left {
                (level.whole, level.parts) = (left, 0);
            }
        }
    }

    /// What is left of each limit.
    #[must_use]
    pub fn left(&self, limits: &Limits) -> Vec<Left> {
        let shown = limits.each().zip(&self.levels);
        let shown = shown.map(|((dimension, quota), level)| Left {
            dimension,
            quota,
            now: level.whole,
            most: i64::try_from(quota.capacity(limits.burst) / quota.one()).unwrap_or(i64::MAX),
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(json: &str) -> Limits {
        serde_json::from_str(json).expect("limits")
    }

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn tokens(input: u64, output: u64) -> Tokens {
        Tokens { input, output }
    }

    #[test]
    fn limits_are_read_one_or_several_and_bad_ones_are_refused() {
        let read = limits(r#"{"requests": ["50/1m", "1000/1d"], "output_tokens": "8000/1m"}"#);
        assert_eq!(read.each().count(), 3);
        assert_eq!(read.burst, BURST);
        assert_eq!(read.fault(), None);
        let twice = limits(r#"{"requests": ["50/1m", "60/1m"]}"#);
        assert!(
            twice
                .fault()
                .expect("a fault")
                .contains("two limits of requests")
        );
        assert!(limits(r#"{"concurrency": 0}"#).fault().is_some());
        assert!(limits(r#"{"burst": "2m"}"#).fault().is_some());
        assert!(serde_json::from_str::<Limits>(r#"{"request": "50/1m"}"#).is_err());
    }

    #[test]
    fn all_is_taken_or_nothing_and_the_longest_wait_is_told() {
        let limits = limits(r#"{"requests": "60/1m", "input_tokens": "6000/1m"}"#);
        let mut levels = Levels::default();
        levels.refill(&limits, at(100));
        assert_eq!(levels.wait(&limits, tokens(1000, 0)), None);
        levels.take(tokens(1000, 0));
        // 9 requests are left, and no tokens: 500 come back in 5 s.
        let wait = levels.wait(&limits, tokens(500, 0));
        assert_eq!(wait, Some((Dimension::InputTokens, Duration::from_secs(5))));
        levels.refill(&limits, at(105));
        assert_eq!(levels.wait(&limits, tokens(500, 0)), None);
    }

    #[test]
    fn a_call_larger_than_a_bucket_waits_until_it_is_full_and_leaves_a_debt() {
        let limits = limits(r#"{"tokens": "6000/1m"}"#);
        let mut levels = Levels::default();
        levels.refill(&limits, at(0));
        assert_eq!(levels.wait(&limits, tokens(3000, 2000)), None);
        levels.take(tokens(3000, 2000));
        assert_eq!(levels.left(&limits)[0].now, -4000);
        let wait = levels.wait(&limits, tokens(1, 0)).expect("a wait");
        assert_eq!(wait, (Dimension::Tokens, Duration::from_millis(40_010)));
    }

    #[test]
    fn what_was_not_used_comes_back_where_the_provider_gives_it_back() {
        let limits = limits(r#"{"output_tokens": "6000/1m", "input_tokens": "6000/1m"}"#);
        for (refund, expected) in [
            (Refund::None, [500, 500]),
            (Refund::Output, [500, 900]),
            (Refund::All, [900, 900]),
        ] {
            let mut levels = Levels::default();
            levels.refill(&limits, at(0));
            levels.take(tokens(500, 500));
            levels.settle(&limits, tokens(500, 500), tokens(100, 100), refund);
            let left: Vec<_> = levels.left(&limits).iter().map(|left| left.now).collect();
            assert_eq!(left, expected, "{refund:?}");
        }
        let mut levels = Levels::default();
        levels.refill(&limits, at(0));
        levels.take(tokens(500, 500));
        levels.settle(&limits, tokens(500, 500), tokens(700, 500), Refund::None);
        assert_eq!(levels.left(&limits)[0].now, 300, "more was used than taken");
    }

    #[test]
    fn a_days_limit_can_be_used_at_once_and_a_providers_word_only_lowers() {
        let limits = limits(r#"{"requests": ["60/1m", "1000/1d"]}"#);
        let mut levels = Levels::default();
        levels.refill(&limits, at(0));
        let left = levels.left(&limits);
        assert_eq!((left[0].most, left[1].most), (10, 1000));
        levels.lower(Dimension::Requests, 3);
        levels.lower(Dimension::Requests, 900);
        let left = levels.left(&limits);
        assert_eq!((left[0].now, left[1].now), (3, 1000));
    }

    #[test]
    fn a_clock_set_back_gives_nothing_twice_and_other_limits_start_unused() {
        let minute = limits(r#"{"requests": "60/1m"}"#);
        let mut levels = Levels::default();
        levels.refill(&minute, at(1000));
        (0..10).for_each(|_| levels.take(tokens(0, 0)));
        levels.refill(&minute, at(10));
        assert_eq!(levels.left(&minute)[0].now, 0);
        levels.refill(&minute, at(12));
        assert_eq!(levels.left(&minute)[0].now, 2);
        let hour = limits(r#"{"requests": "60/1h"}"#);
        levels.refill(&hour, at(12));
        assert_eq!(levels.left(&hour)[0].now, 60);
    }

    proptest! {
        /// In any stretch of time no more is admitted than a full bucket, what
        /// came back meanwhile, and one call.
        #[test]
        fn no_window_has_more_than_capacity_rate_and_one_call(
            amount in 1_u64..100_000,
            period in 1_u64..3600,
            calls in prop::collection::vec((0_i64..20_000, 0_u64..5_000, 0_u64..5_000), 1..100),
        ) {
            let limits = limits(&format!("{{\"tokens\": \"{amount}/{period}s\"}}"));
            let quota = limits.tokens.0[0];
            let full = quota.capacity(limits.burst);
            let (mut now, mut levels) = (0, Levels::default());
            let mut admitted: Vec<(i64, i128)> = Vec::new();
            for (pause, input, output) in calls {
                now += pause * 1000;
                levels.refill(&limits, Time::from_micros(now));
                let call = tokens(input, output);
                if levels.wait(&limits, call).is_none() {
                    levels.take(call);
                    let cost = call.of(Dimension::Tokens) * quota.one();
                    admitted.push((now, cost));
                }
            }
            for (index, (from, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for (to, cost) in &admitted[index..] {
                    let span = Duration::from_micros(u64::try_from(to - from).unwrap());
                    sum += cost;
                    prop_assert!(sum <= full + quota.refill(span) + cost);
                }
            }
        }

        /// Whoever waits as long as was told can go.
        #[test]
        fn the_wait_that_is_told_is_enough(
            amount in 1_u64..100_000,
            period in 1_u64..3600,
            taken in 0_u64..200_000,
            wanted in 0_u64..200_000,
        ) {
            let limits = limits(&format!("{{\"input_tokens\": \"{amount}/{period}s\"}}"));
            let mut levels = Levels::default();
            levels.refill(&limits, at(0));
            levels.take(tokens(taken, 0));
            if let Some((_, wait)) = levels.wait(&limits, tokens(wanted, 0)) {
                prop_assert!(wait > Duration::ZERO);
                levels.refill(&limits, at(0).after(wait));
                prop_assert_eq!(levels.wait(&limits, tokens(wanted, 0)), None);
            }
        }
    }
}
