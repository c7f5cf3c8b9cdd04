//! The accounts behind models, and whom a prompt asks.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::gauge::{Gauge, Shut};
use crate::model::limit::{Limits, Refund, Tokens};
use crate::model::price::Price;
use crate::model::prompt::{Dialect, Prompt};
use crate::model::reason::Reason;
use crate::model::time::Time;

use super::budgets::Rule;
use super::lot;

/// One account with one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its limits.
    pub limits: Limits,
    /// What its provider gives back of what a call did not use, where the limits
    /// do not say.
    pub refund: Refund,
    /// How it stands.
    pub gauge: Gauge,
    /// Calls of it that are made, as of the last start or end of one.
    pub running: u32,
}

impl Account {
    /// Its gauge as of `now`, and what keeps a small prompt from being sent.
    #[must_use]
    pub fn now(&self, now: Time) -> (Gauge, Option<Shut>) {
        let mut gauge = self.gauge.clone();
        gauge.refill(&self.limits, now);
        let shut = gauge.shut(&self.limits, Tokens::default(), self.running, now);
        (gauge, shut)
    }
}

/// What a name of a model stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Who serves it.
    pub provider: String,
    /// How that one speaks.
    pub dialect: Dialect,
    /// What its provider calls it.
    pub serves: String,
    /// The account that pays.
    pub account: String,
    /// What its tokens cost, where that is known.
    pub price: Option<Price>,
    /// Most tokens of an answer where a prompt does not say.
    pub max_tokens: u32,
    /// Models that may answer instead, in order.
    pub fallback: Vec<String>,
    /// How long it is waited for before another one answers.
    pub patience: Duration,
}

/// All models, and the accounts behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Models by name.
    pub routes: BTreeMap<String, Route>,
    /// Accounts by name.
    pub accounts: BTreeMap<String, Account>,
    /// The model of prompts that name none.
    pub first: String,
    /// Calls at once, of all of them.
    pub most: u32,
    /// Attempts that are calls, as of the last start or end of one.
    pub own: u32,
    /// What calls may come to in a day.
    pub budgets: Vec<Rule>,
}

/// A call that can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The model.
    pub model: String,
    /// The account that pays.
    pub account: String,
    /// What it may cost.
    pub cost: Tokens,
    /// What its tokens cost.
    pub price: Option<Price>,
}

/// A call that cannot be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The model.
    pub model: String,
    /// Why, and until when.
    pub shut: Shut,
}

impl Wait {
    /// Whether it is worth waiting so long.
    fn is_within(&self, patience: Duration, now: Time) -> bool {
        match self.shut.until {
            Some(until) => until <= now.after(patience),
            // The end of another call is near; a person is not.
            None => !self.shut.cause.is_for_a_person(),
        }
    }

    /// What is told of it.
    pub(super) fn reason(self) -> Reason {
        Reason::Model {
            model: self.model,
            cause: self.shut.cause,
            until: self.shut.until,
        }
    }

    fn is_before(&self, other: &Self) -> bool {
        match (self.shut.until, other.shut.until) {
            (Some(one), Some(other)) => one < other,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

/// What a prompt does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// It asks.
    Ask(Ask),
    /// It waits.
    Wait(Wait),
    /// Its model is not there any more.
    Nobody,
}

impl Accounts {
    /// Calls that are made.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.accounts.values().map(|account| account.running).sum()
    }

    /// What a prompt that speaks any dialect, or this one, does now: it asks its model, or waits for it as long as
    /// that one's rule says, or asks the first of its fallbacks that can be.
    #[must_use]
    pub fn choose(&self, prompt: &Prompt, dialect: Option<Dialect>, now: Time) -> Choice {
        let wanted = match prompt.model.as_str() {
            "" => &self.first,
            _ => &prompt.model,
        };
        let Some(route) = self.routes.get(wanted) else {
            return Choice::Nobody;
        };
        let mut least: Option<Wait> = None;
        for name in [wanted].into_iter().chain(&route.fallback) {
            let other = |route: &Route| dialect.is_some_and(|dialect| dialect != route.dialect);
            if self.routes.get(name).is_some_and(other) {
                continue;
            }
            let wait = match self.ask(name, prompt, now) {
                None => continue,
                Some(Ok(ask)) => return Choice::Ask(ask),
                Some(Err(wait)) => wait,
            };
            if name == wanted && wait.is_within(route.patience, now) {
                return Choice::Wait(wait);
            }
            if least.as_ref().is_none_or(|least| wait.is_before(least)) {
                least = Some(wait);
            }
        }
        least.map_or(Choice::Nobody, Choice::Wait)
    }

    fn ask(&self, model: &str, prompt: &Prompt, now: Time) -> Option<Result<Ask, Wait>> {
        let route = self.routes.get(model)?;
        let account = self.accounts.get(&route.account)?;
        let mut gauge = account.gauge.clone();
        gauge.refill(&account.limits, now);
        let cost = Tokens {
            input: gauge.estimate(prompt.weight),
            output: prompt.max_tokens.unwrap_or(route.max_tokens).into(),
        };
        if let Some(lot) = &prompt.lot {
            return Some(Ok(lot::ask(model, route, lot, cost.input)));
        }
        let model = model.to_owned();
        let shut = gauge.shut(&account.limits, cost, account.running, now);
        let full = self.running() >= self.most;
        let shut = shut.or_else(|| full.then(|| Shut::crowded(self.most)));
        Some(match shut {
            Some(shut) => Err(Wait { model, shut }),
            None => Ok(Ask {
                model,
                account: route.account.clone(),
                cost,
                price: route.price,
            }),
        })
    }
}
