//! Budgets on the wire: what is asked of one, and how one stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::budgets::Share;
use crate::model::budget::{Allowance, Budget, Cap, NAME_MAX};
use crate::model::price::Money;

use super::number::{Stamp, is_default};
use super::problem::Problem;

/// What calls of models may come to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetRule {
    /// Tokens of all calls of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money, in the currency that prices are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    /// A budget that it shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchRule>,
}

/// A budget that all tasks of one user share which name it. The latest request
/// says how much it is, for all of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchRule {
    /// Its name.
    pub name: String,
    /// Tokens.
    #[serde(skip_serializing_if = "is_default")]
    pub tokens: Option<u64>,
    /// Money.
    #[serde(skip_serializing_if = "is_default")]
    pub cost: Option<Money>,
}

impl BudgetRule {
    /// One of money alone.
    #[must_use]
    pub fn of_money(cost: Money) -> Self {
        Self {
            cost: Some(cost),
            ..Self::default()
        }
    }

    /// The same without how much the shared one is: that tells no request from
    /// another one.
    pub(super) fn to_tell_apart(&self) -> Self {
        let batch = self.batch.as_ref().map(|batch| BatchRule {
            name: batch.name.clone(),
            ..BatchRule::default()
        });
        Self {
            batch,
            ..self.clone()
        }
    }
}

/// A task's budget, and what its batch may spend from now on.
pub(super) fn budget(rule: Option<BudgetRule>) -> Result<(Option<Budget>, Option<Cap>), Problem> {
    let Some(rule) = rule else {
        return Ok((None, None));
    };
    let own = Cap {
        tokens: rule.tokens,
        cost: rule.cost,
    };
    if let Some(why) = own
        .fault()
        .filter(|_| !own.is_empty() || rule.batch.is_none())
    {
        return Err(Problem::invalid("budget", why));
    }
    let Some(batch) = rule.batch else {
        let budget = Budget {
            own,
            ..Budget::default()
        };
        return Ok((Some(budget), None));
    };
    let name = batch.name;
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        let why = format!("must have 1 to {NAME_MAX} bytes, and no control characters");
        return Err(Problem::invalid("budget.batch.name", why));
    }
    let cap = Cap {
        tokens: batch.tokens,
        cost: batch.cost,
    };
    if let Some(why) = cap.fault() {
        return Err(Problem::invalid("budget.batch", why));
    }
    let budget = Budget {
        own,
        batch: Some(name),
        agent: None,
    };
    Ok((Some(budget), Some(cap)))
}

/// What all runs of an agent may come to together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentRule {
    /// Tokens in a day, which begins at midnight UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money in a day, in the currency that prices are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    /// Tokens in a minute of the clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
}

impl From<AgentRule> for Allowance {
    fn from(rule: AgentRule) -> Self {
        Self {
            name: String::new(),
            day: Cap {
                tokens: rule.tokens,
                cost: rule.cost,
            },
            minute: rule.tokens_per_minute,
        }
    }
}

/// How a budget stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BudgetInfo {
    /// Whose it is, for people.
    pub of: String,
    /// Tokens there are, where they are limited.
    pub tokens: Option<u64>,
    /// Tokens of calls that are over.
    pub tokens_spent: u64,
    /// The most that calls on their way may come to.
    pub tokens_held: u64,
    /// Money there is, where that is limited.
    pub cost: Option<f64>,
    /// What calls that are over came to.
    pub cost_spent: f64,
    /// The most that calls on their way may come to.
    pub cost_held: f64,
    /// When it begins anew, where it does.
    pub until: Option<Stamp>,
}

impl From<&Share> for BudgetInfo {
    fn from(share: &Share) -> Self {
        let (spent, held) = (share.purse.spent, share.purse.held);
        Self {
            of: share.whose.clone(),
            tokens: share.cap.tokens,
            tokens_spent: spent.tokens,
            tokens_held: held.tokens,
            cost: share.cap.cost.map(Money::amount),
            cost_spent: spent.cost.amount(),
            cost_held: held.cost.amount(),
            until: share.until.map(Stamp),
        }
    }
}
