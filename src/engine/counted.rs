//! What is counted since the start of this process: how attempts and calls of
//! models ended, and how long things took. Plain values of a fixed size, told
//! with the other figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::attempt::Class;
use crate::model::ledger::Over;
use crate::model::price::Money;
use crate::model::receipt::End;

/// How many bounds a spread has.
const BOUNDS: usize = 14;
/// Bounds of durations, in microseconds: from what a start takes to what a long
/// job does.
const RUN_US: [u64; BOUNDS] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    7_200_000_000,
    86_400_000_000,
];
/// The same of calls of models, as OpenTelemetry's conventions have them.
const CALL_US: [u64; BOUNDS] = [
    10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_280_000, 2_560_000, 5_120_000,
    10_240_000, 20_480_000, 40_960_000, 81_920_000,
];
/// Bounds of the tokens of a call, as they have them.
const TOKENS: [u64; BOUNDS] = [
    1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216,
    67_108_864,
];

/// How numbers are spread: durations in microseconds, or tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    bounds: &'static [u64; BOUNDS],
    /// How many were not more than each bound and more than the one before it.
    within: [u64; BOUNDS],
    /// How many there were.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
}

impl Spread {
    /// Nothing yet.
    const fn of(bounds: &'static [u64; BOUNDS]) -> Self {
        Self {
            bounds,
            within: [0; BOUNDS],
            count: 0,
            sum: 0,
        }
    }

    /// Counts a number.
    fn add(&mut self, number: u64) {
        let place = self.bounds.iter().position(|bound| number <= *bound);
        if let Some(within) = place.and_then(|place| self.within.get_mut(place)) {
            *within += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(number);
    }

    /// Counts a duration.
    pub fn add_time(&mut self, took: Duration) {
        self.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts what the other has counted, by the same bounds.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.within.iter_mut().zip(other.within) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many were not more than each bound.
    pub fn up_to(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut sum = 0;
        self.bounds
            .iter()
            .zip(self.within)
            .map(move |(bound, count)| {
                sum += count;
                (*bound, sum)
            })
    }
}

/// What became of the calls of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// From when they were let go to their end, by how they ended; `unknown`
    /// where nobody heard.
    pub took: BTreeMap<&'static str, Spread>,
    /// Tokens of what was asked, of each of which the provider said them.
    pub input: Spread,
    /// The same of answers.
    pub output: Spread,
    /// What that cost, as far as there is a price.
    pub cost: Money,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            took: BTreeMap::new(),
            input: Spread::of(&TOKENS),
            output: Spread::of(&TOKENS),
            cost: Money::default(),
        }
    }
}

impl Calls {
    /// Counts what the other has counted.
    pub fn merge(&mut self, other: &Self) {
        for (end, took) in &other.took {
            self.of(end).merge(took);
        }
        self.input.merge(&other.input);
        self.output.merge(&other.output);
        self.cost = self.cost.and(other.cost);
    }

    fn of(&mut self, end: &'static str) -> &mut Spread {
        self.took.entry(end).or_insert(Spread::of(&CALL_US))
    }
}

/// Everything that is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Default for Counted {
    fn default() -> Self {
        Self {
            ends: [0; Class::ALL.len()],
            ran: Spread::of(&RUN_US),
            waited: Spread::of(&RUN_US),
            calls: Arc::default(),
        }
    }
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
            self.ran.add_time(ran);
        }
    }

    /// Counts the end of a call.
    pub(super) fn call(&mut self, model: &str, over: &Over, took: Duration) {
        let calls = Arc::make_mut(&mut self.calls);
        let calls = match calls.get_mut(model) {
            Some(calls) => calls,
            None => calls.entry(model.to_owned()).or_default(),
        };
        calls
            .of(over.end.map_or("unknown", End::word))
            .add_time(took);
        if let Some(used) = over.used {
            calls.input.add(used.input);
            calls.output.add(used.output);
        }
        calls.cost = calls.cost.and(over.cost.unwrap_or_default());
    }

    /// Attempts that ended in each way.
    pub fn by_class(&self) -> impl Iterator<Item = (Class, u64)> + '_ {
        Class::ALL.into_iter().zip(self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limit::Tokens;
    use crate::model::time::Time;

    #[test]
    fn a_spread_counts_each_duration_once_and_bounds_belong_to_what_is_below() {
        let mut spread = Spread::of(&RUN_US);
        for millis in [0, 5, 6, 10, 1_000, 86_400_000, 86_400_001] {
            spread.add_time(Duration::from_millis(millis));
        }
        let up_to: Vec<u64> = spread.up_to().map(|(_, count)| count).collect();
        assert_eq!(up_to[..3], [2, 4, 4]);
        assert_eq!(up_to.last(), Some(&6), "one is longer than all bounds");
        assert_eq!(spread.count, 7);
        assert_eq!(spread.sum, 172_801_022_000);
        let mut twice = spread;
        twice.merge(&spread);
        assert_eq!(
            (twice.count, twice.up_to().last()),
            (14, Some((RUN_US[13], 12)))
        );
        for bounds in [&RUN_US, &CALL_US, &TOKENS] {
            assert!(bounds.is_sorted(), "{bounds:?}");
        }
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
        let over = |end, used, cost| Over {
            at: Time::default(),
            end,
            used,
            cost,
        };
        let cost = Some(Money::from_micros(5));
        let took = Duration::from_millis(15);
        counted.call("chat", &over(Some(End::Answered), Some(used), cost), took);
        counted.call("chat", &over(Some(End::Refused), None, None), took);
        counted.call("chat", &over(None, None, cost), took);
        let chat = &counted.calls["chat"];
        let ends = chat.took.iter().map(|(end, took)| (*end, took.count));
        let ends: Vec<_> = ends.collect();
        assert_eq!(ends, [("answered", 1), ("refused", 1), ("unknown", 1)]);
        assert_eq!((chat.input.count, chat.input.sum), (1, 3));
        assert_eq!((chat.output.count, chat.output.sum), (1, 4));
        assert_eq!(chat.cost, Money::from_micros(10));
        let mut both = chat.clone();
        both.merge(chat);
        assert_eq!(both.took["answered"].count, 2);
        assert_eq!((both.output.sum, both.cost), (8, Money::from_micros(20)));
    }
}
