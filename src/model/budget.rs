//! Budgets: the most that calls of models may come to, in tokens and in money.
//!
//! A purse is what has been spent of a budget, and what is held for calls on
//! their way: the most that each of them may come to. A call may be made when
//! it fits beside both, so that no sum of calls goes beyond the budget. Some
//! purses are of a day, which begins at midnight UTC, as providers count, or of a
//! minute; those of a task and of a batch last.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{AgentId, TaskId};
use super::limit::Tokens;
use super::price::Money;
use super::time::Time;

/// Microseconds of a minute.
const MINUTE: i64 = 60 * 1_000_000;
/// Microseconds of a day.
const DAY: i64 = 24 * 3600 * 1_000_000;
/// Most tokens of a budget.
pub const TOKENS_MAX: u64 = 1_000_000_000_000_000;
/// Longest name of a batch.
pub const NAME_MAX: usize = 255;

/// What a task may spend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// All its calls together.
    pub own: Cap,
    /// The batch that it shares another one with, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// What the agent may spend that it is a run of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Allowance>,
}

/// What all runs of an agent may spend together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allowance {
    /// The agent's name, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// In a day.
    pub day: Cap,
    /// Tokens in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minute: Option<u64>,
}

impl Allowance {
    /// What is wrong with it, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let minute = Cap {
            tokens: self.minute,
            cost: None,
        };
        let caps = [self.day, minute];
        let mut caps = caps.iter().filter(|cap| !cap.is_empty()).peekable();
        if caps.peek().is_none() {
            return Some("needs tokens, cost or tokens_per_minute".to_owned());
        }
        caps.find_map(Cap::fault)
    }
}

/// The most that may be spent; where nothing is said, as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cap {
    /// Tokens of questions and answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money, in the currency that prices are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
}

/// An amount of both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Tokens.
    pub tokens: u64,
    /// Money.
    pub cost: Money,
}

impl Sum {
    /// Of so many tokens with their price.
    #[must_use]
    pub const fn of(tokens: Tokens, cost: Money) -> Self {
        let tokens = tokens.input.saturating_add(tokens.output);
        Self { tokens, cost }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            cost: self.cost.and(other.cost),
        }
    }

    /// What is left without the other.
    const fn less(self, other: Self) -> Self {
        let cost = self.cost.micros().saturating_sub(other.cost.micros());
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            cost: Money::from_micros(cost),
        }
    }
}

/// How a budget stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purse {
    /// Of calls that are over.
    pub spent: Sum,
    /// The most that calls on their way may come to.
    pub held: Sum,
}

impl Purse {
    /// A call is let go that may come to so much.
    #[must_use]
    pub const fn hold(self, most: Sum) -> Self {
        Self {
            held: self.held.and(most),
            ..self
        }
    }

    /// A call is over for which so much was held, and has come to so much.
    #[must_use]
    pub const fn settle(self, held: Sum, spent: Sum) -> Self {
        Self {
            spent: self.spent.and(spent),
            held: self.held.less(held),
        }
    }
}

/// Names a purse.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// That of a task.
    #[must_use]
    pub fn of_task(id: TaskId) -> Self {
        Self(format!("task/{id}"))
    }

    /// That of a user's batch.
    #[must_use]
    pub fn of_batch(owner: u32, name: &str) -> Self {
        Self(format!("batch/{owner}/{name}"))
    }

    /// That of a user on a day.
    #[must_use]
    pub fn of_user(uid: u32, day: Day) -> Self {
        Self(format!("user/{uid}/{}", day.0))
    }

    /// That of a queue on a day.
    #[must_use]
    pub fn of_queue(queue: &str, day: Day) -> Self {
        Self(format!("queue/{queue}/{}", day.0))
    }

    /// That of an agent on a day.
    #[must_use]
    pub fn of_agent(id: AgentId, day: Day) -> Self {
        Self(format!("agent/{id}/{}", day.0))
    }

    /// That of an agent in a minute.
    #[must_use]
    pub fn of_minute(id: AgentId, minute: Minute) -> Self {
        Self(format!("minute/{id}/{}", minute.0))
    }

    /// As it is kept.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same without its day, where it is of one.
    #[must_use]
    pub fn lane(&self) -> &str {
        match self.0.rsplit_once('/') {
            Some((lane, _)) if !self.lasts() => lane,
            Some(_) | None => &self.0,
        }
    }

    /// The user whose it is, of one of a user on a day.
    #[must_use]
    pub fn user(&self) -> Option<u32> {
        self.lane().strip_prefix("user/")?.parse().ok()
    }

    /// One that was kept.
    #[must_use]
    pub const fn read(text: String) -> Self {
        Self(text)
    }

    /// Whether it is of no day.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.0.starts_with("task/") || self.0.starts_with("batch/")
    }
}

/// A day, by its number since 1970, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day(i64);

impl Day {
    /// The day of a time.
    #[must_use]
    pub const fn of(time: Time) -> Self {
        Self(time.micros().div_euclid(DAY))
    }

    /// When the next one begins.
    #[must_use]
    pub const fn end(self) -> Time {
        Time::from_micros((self.0 + 1) * DAY)
    }
}

/// A minute, by its number since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute(i64);

impl Minute {
    /// The minute of a time.
    #[must_use]
    pub const fn of(time: Time) -> Self {
        Self(time.micros().div_euclid(MINUTE))
    }

    /// When the next one begins.
    #[must_use]
    pub const fn end(self) -> Time {
        Time::from_micros((self.0 + 1) * MINUTE)
    }
}

/// What is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Tokens.
    Tokens,
    /// Millionths of money.
    Cost,
}

/// What a budget has no room for, all in one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// The unit.
    pub unit: Unit,
    /// Has been spent.
    pub spent: u64,
    /// Is held for calls on their way.
    pub held: u64,
    /// The most that the call may come to.
    pub most: u64,
    /// May be spent.
    pub cap: u64,
}

/// Whether a call fits into a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// It does.
    Fits,
    /// It will, when other calls come to less than they may, or another day
    /// begins.
    Later(Short),
    /// It never will.
    Never(Short),
}

impl Cap {
    /// Whether it limits nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.tokens.is_none() && self.cost.is_none()
    }

    /// What is wrong with it, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.is_empty() {
            return Some("needs tokens, cost, or both".to_owned());
        }
        match self.tokens {
            Some(0) => Some("tokens must be at least 1".to_owned()),
            Some(tokens) if tokens > TOKENS_MAX => {
                Some(format!("tokens must not be more than {TOKENS_MAX}"))
            }
            Some(_) | None => None,
        }
    }

    /// Whether a call fits that may come to so much. Of a purse that lasts what
    /// is spent stays spent; another one is empty on the next day.
    #[must_use]
    pub fn judge(&self, purse: &Purse, most: Sum, lasts: bool) -> Stand {
        let money = |sum: Sum| sum.cost.micros();
        let units = [
            (
                Unit::Tokens,
                self.tokens,
                (|sum| sum.tokens) as fn(Sum) -> u64,
            ),
            (Unit::Cost, self.cost.map(Money::micros), money),
        ];
        let mut stand = Stand::Fits;
        for (unit, cap, count) in units {
            let Some(cap) = cap else { continue };
            let short = Short {
                unit,
                spent: count(purse.spent),
                held: count(purse.held),
                most: count(most),
                cap,
            };
            let stays = if lasts { short.spent } else { 0 };
            if stays.saturating_add(short.most) > cap {
                return Stand::Never(short);
            }
            let all = short.spent.saturating_add(short.held);
            if all.saturating_add(short.most) > cap && stand == Stand::Fits {
                stand = Stand::Later(short);
            }
        }
        stand
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |count: u64| match self.unit {
            Unit::Tokens => count.to_string(),
            Unit::Cost => Money::from_micros(count).to_string(),
        };
        let (spent, cap, most) = (words(self.spent), words(self.cap), words(self.most));
        let unit = match self.unit {
            Unit::Tokens => " tokens",
            Unit::Cost => "",
        };
        write!(f, "{spent} of {cap}{unit} spent")?;
        if self.held > 0 {
            write!(f, ", {} held for calls on their way", words(self.held))?;
        }
        write!(f, ", and this call may come to {most}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(tokens: u64, micros: u64) -> Sum {
        Sum {
            tokens,
            cost: Money::from_micros(micros),
        }
    }

    #[test]
    fn what_is_short_is_told_with_its_numbers() {
        let cap = Cap {
            tokens: Some(1_000),
            cost: Some(Money::from_micros(2_000_000)),
        };
        let purse = Purse {
            spent: sum(100, 1_920_000),
            held: sum(50, 30_000),
        };
        assert_eq!(cap.judge(&purse, sum(850, 50_000), false), Stand::Fits);
        let Stand::Later(short) = cap.judge(&purse, sum(1, 50_001), false) else {
            panic!("it fits tomorrow");
        };
        let told = "1.92 of 2.00 spent, 0.03 held for calls on their way, and this call may come to \
                    0.050001";
        assert_eq!(short.to_string(), told);
        // What lasts waits for others, and not for a day.
        assert!(matches!(
            cap.judge(&purse, sum(1, 80_000), true),
            Stand::Later(_)
        ));
        assert!(matches!(
            cap.judge(&purse, sum(1, 80_001), true),
            Stand::Never(_)
        ));
        let Stand::Never(short) = cap.judge(&purse, sum(1_001, 1), false) else {
            panic!("it never fits");
        };
        assert!(
            short.to_string().starts_with("100 of 1000 tokens spent"),
            "{short}"
        );
        assert_eq!(
            Cap::default().judge(&purse, sum(u64::MAX, 1), true),
            Stand::Fits
        );
    }

    #[test]
    fn a_day_ends_at_midnight_utc() {
        let noon = Time::from_micros(20_000 * DAY + DAY / 2);
        assert_eq!(Day::of(noon).end(), Time::from_micros(20_001 * DAY));
        assert_eq!(Day::of(Day::of(noon).end()), Day(20_001));
        assert_eq!(Day::of(Time::from_micros(-1)), Day(-1));
        assert!(Name::of_task(TaskId(7)).lasts());
        assert!(!Name::of_user(7, Day(1)).lasts());
    }

    proptest! {
        #[test]
        fn what_is_spent_and_held_never_goes_beyond_a_budget(
            cap in (1_u64..5_000, 1_u64..5_000),
            lasts: bool,
            steps in prop::collection::vec((0_u8..3, 0_u64..2_000, 0_u64..2_000, 0_u64..=100), 1..200),
        ) {
            let cap = Cap { tokens: Some(cap.0), cost: Some(Money::from_micros(cap.1)) };
            let mut purse = Purse::default();
            let mut made: Vec<Sum> = Vec::new();
            for (step, tokens, micros, part) in steps {
                if step > 0 {
                    let most = sum(tokens, micros);
                    if cap.judge(&purse, most, lasts) == Stand::Fits {
                        purse = purse.hold(most);
                        made.push(most);
                    }
                } else if let Some(held) = made.pop() {
                    // It comes to at most what was held.
                    let spent = sum(held.tokens * part / 100, held.cost.micros() * part / 100);
                    purse = purse.settle(held, spent);
                }
                let all = purse.spent.and(purse.held);
                prop_assert!(cap.tokens.is_some_and(|most| all.tokens <= most));
                prop_assert!(cap.cost.is_some_and(|most| all.cost <= most));
            }
            let held = made.into_iter().fold(Sum::default(), Sum::and);
            prop_assert_eq!(purse.held, held);
        }
    }
}
