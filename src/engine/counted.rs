//! What is counted since the start of this process: how attempts and calls of
//! models ended, and how long things took. Plain values of a fixed size, told
//! with the other figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::attempt::Class;
use crate::model::limit::Tokens;
use crate::model::price::Money;
use crate::model::receipt::End;

/// Bounds of durations, in milliseconds: from what a start takes to what a long
/// job does.
pub const BOUNDS_MS: [u64; 14] = [
    5, 10, 25, 50, 100, 500, 1_000, 5_000, 10_000, 60_000, 300_000, 1_800_000, 7_200_000,
    86_400_000,
];

/// How durations are spread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many were not longer than each of [`BOUNDS_MS`] and longer than the
    /// one before it.
    within: [u64; BOUNDS_MS.len()],
    /// How many there were.
    pub count: u64,
    /// Their sum, in microseconds.
    pub sum_us: u64,
}

impl Spread {
    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let fits = |bound: &u64| micros <= bound.saturating_mul(1_000);
        let place = BOUNDS_MS.iter().position(fits);
        if let Some(within) = place.and_then(|place| self.within.get_mut(place)) {
            *within += 1;
        }
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(micros);
    }

    /// How many were not longer than each bound, in seconds.
    pub fn up_to(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let mut sum = 0;
        BOUNDS_MS
            .iter()
            .zip(self.within)
            .map(move |(bound, count)| {
                sum += count;
                (Duration::from_millis(*bound), sum)
            })
    }
}

/// What became of the calls of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// How many ended how; `unknown` where nobody heard.
    pub ends: BTreeMap<&'static str, u64>,
    /// Tokens that were used, as far as the provider said.
    pub tokens: Tokens,
    /// What that cost, as far as there is a price.
    pub cost: Money,
}

/// Everything that is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Attempts by how they ended, in the order of [`Class::ALL`].
    ends: [u64; Class::ALL.len()],
    /// From the start of a process to its end.
    pub ran: Spread,
    /// From when a task was ready to its launch.
    pub waited: Spread,
    /// Calls by model.
    pub calls: Arc<BTreeMap<String, Calls>>,
}

impl Counted {
    /// Counts the end of an attempt, and how long its process ran where it had
    /// one.
    pub(super) fn end(&mut self, class: Class, ran: Option<Duration>) {
        let place = Class::ALL.iter().position(|other| *other == class);
        if let Some(count) = place.and_then(|place| self.ends.get_mut(place)) {
            *count += 1;
        }
        if let Some(ran) = ran {
            self.ran.add(ran);
        }
    }

    /// Counts the end of a call.
    pub(super) fn call(
        &mut self,
        model: &str,
        end: Option<End>,
        used: Option<Tokens>,
        cost: Option<Money>,
    ) {
        let calls = Arc::make_mut(&mut self.calls);
        let calls = match calls.get_mut(model) {
            Some(calls) => calls,
            None => calls.entry(model.to_owned()).or_default(),
        };
        *calls
            .ends
            .entry(end.map_or("unknown", End::word))
            .or_default() += 1;
        let used = used.unwrap_or_default();
        calls.tokens.input = calls.tokens.input.saturating_add(used.input);
        calls.tokens.output = calls.tokens.output.saturating_add(used.output);
        calls.cost = calls.cost.and(cost.unwrap_or_default());
    }

    /// Attempts that ended in each way.
    pub fn by_class(&self) -> impl Iterator<Item = (Class, u64)> + '_ {
        Class::ALL.into_iter().zip(self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_counts_each_duration_once_and_bounds_belong_to_what_is_below() {
        let mut spread = Spread::default();
        for millis in [0, 5, 6, 10, 1_000, 86_400_000, 86_400_001] {
            spread.add(Duration::from_millis(millis));
        }
        let up_to: Vec<u64> = spread.up_to().map(|(_, count)| count).collect();
        assert_eq!(up_to[..3], [2, 4, 4]);
        assert_eq!(up_to.last(), Some(&6), "one is longer than all bounds");
        assert_eq!(spread.count, 7);
        assert_eq!(spread.sum_us, 172_801_022_000);
    }

    #[test]
    fn ends_and_calls_are_added_up() {
        let mut counted = Counted::default();
        counted.end(Class::Exit, Some(Duration::from_secs(1)));
        counted.end(Class::Exit, None);
        let exits = counted.by_class().find(|(class, _)| *class == Class::Exit);
        assert_eq!((exits, counted.ran.count), (Some((Class::Exit, 2)), 1));
        let used = Tokens {
            input: 3,
            output: 4,
        };
        let cost = Some(Money::from_micros(5));
        counted.call("chat", Some(End::Answered), Some(used), cost);
        counted.call("chat", Some(End::Refused), None, None);
        counted.call("chat", None, None, cost);
        let chat = &counted.calls["chat"];
        assert_eq!(
            chat.ends,
            [("answered", 1), ("refused", 1), ("unknown", 1)].into()
        );
        assert_eq!((chat.tokens, chat.cost), (used, Money::from_micros(10)));
    }
}
