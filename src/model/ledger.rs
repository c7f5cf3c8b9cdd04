//! The ledger of calls: what each may cost, and what it did.

use super::attempt::AttemptKey;
use super::budget::{Name, Sum};
use super::limit::Tokens;
use super::price::Money;
use super::receipt::End;
use super::time::Time;

/// A call that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its number; 0 before it is kept.
    pub id: i64,
    /// The attempt that makes it, or for which it is made.
    pub key: AttemptKey,
    /// Whether the daemon makes it for the attempt, and passes the answer on.
    pub relayed: bool,
    /// Uid of the task's owner.
    pub owner: u32,
    /// Name of the model that is asked.
    pub model: String,
    /// Name of the gauge whose limits it counts against.
    pub gauge: String,
    /// When it was let go.
    pub at: Time,
    /// What was taken for it.
    pub taken: Tokens,
    /// What that costs, where the price is known.
    pub estimate: Option<Money>,
    /// Tokens that budgets reckon with.
    pub held: u64,
    /// The purses that it draws on.
    pub purses: Vec<Name>,
    /// What came of it, once it is over.
    pub over: Option<Over>,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// When.
    pub at: Time,
    /// How; none when nobody knows.
    pub end: Option<End>,
    /// What it used, as the provider counts.
    pub used: Option<Tokens>,
    /// What that cost, where the price is known. What nobody knows of counts as
    /// it was estimated.
    pub cost: Option<Money>,
}

impl Call {
    /// What is held for it in each of its purses.
    #[must_use]
    pub fn holds(&self) -> Sum {
        Sum {
            tokens: self.held,
            cost: self.estimate.unwrap_or_default(),
        }
    }

    /// What it has cost so far, or may have.
    #[must_use]
    pub fn cost(&self) -> Option<Money> {
        self.over.map_or(self.estimate, |over| over.cost)
    }
}

/// What a model was used for since a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// Its name.
    pub model: String,
    /// Calls.
    pub calls: u64,
    /// Tokens, of calls that are over.
    pub tokens: Tokens,
    /// What they cost or may have, where the price is known.
    pub cost: Money,
    /// Calls of which nobody knows what became.
    pub unknown: u64,
}
