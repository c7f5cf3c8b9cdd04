//! Who pays for a call, and whether there is enough for it.
//!
//! What a call may come to is held in the purses that it draws on, in the
//! transaction that lets it go, and settled in the one that ends it. So what is
//! spent and held of a budget is never more than it has, whatever crashes.

use crate::engine::Engine;
use crate::engine::accounts::{Accounts, Ask, Choice};
use crate::engine::calls::fed;
use crate::engine::prompts::Prompts;
use crate::model::budget::{Cap, Name, Short, Stand, Sum};
use crate::model::invalid::Invalid;
use crate::model::ledger::Call;
use crate::model::prompt::Prompt;
use crate::model::reason::Reason;
use crate::model::spec::{NewTask, Spec};
use crate::model::task::Task;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::{BATCH, Share, of_task, shares};

/// Whether a call may be made.
#[derive(Debug)]
pub(in crate::engine) enum Verdict {
    /// It may.
    May(Hold),
    /// It may later.
    Later(Reason),
    /// It never may, and why.
    Never(String),
}

/// What is held for a call, and where.
#[derive(Debug)]
pub(in crate::engine) struct Hold {
    most: Sum,
    purses: Vec<Name>,
    /// One of them has a limit.
    pub(in crate::engine) limited: bool,
}

impl Hold {
    /// Writes into a call's row what is held for it.
    pub(in crate::engine) fn note(self, call: Call) -> Call {
        Call {
            estimate: call.estimate.map(|_| self.most.cost),
            held: self.most.tokens,
            purses: self.purses,
            ..call
        }
    }
}

/// Whether a call fits into all of them.
fn judge(shares: Vec<Share>, ask: &Ask, most: Sum) -> Verdict {
    let mut later: Option<(String, Short, Option<Time>)> = None;
    for share in &shares {
        let whose = &share.whose;
        if ask.price.is_none() && share.cap.cost.is_some() {
            let model = &ask.model;
            return Verdict::Never(format!(
                "model `{model}` has no price, so nobody knows what it takes of the budget of \
                 {whose}: an admin has to set `price` of it in section [llm]"
            ));
        }
        match share.cap.judge(&share.purse, most, share.until.is_none()) {
            Stand::Fits => {}
            Stand::Later(short) => {
                // The one that lasts longest.
                let longer = later.as_ref().is_none_or(|(.., until)| until.is_none());
                if longer {
                    later = Some((whose.clone(), short, share.until));
                }
            }
            Stand::Never(short) => {
                let advice = match whose.as_str() {
                    BATCH => "; hand it in again with a larger --max-cost and --retry-failed",
                    _ => "",
                };
                return Verdict::Never(format!("over the budget of {whose}: {short}{advice}"));
            }
        }
    }
    match later {
        Some((whose, short, until)) => Verdict::Later(Reason::Budget {
            whose,
            short,
            until,
        }),
        None => Verdict::May(Hold {
            most,
            limited: shares.iter().any(|share| !share.cap.is_empty()),
            purses: shares.into_iter().map(|share| share.name).collect(),
        }),
    }
}

/// The most that a call may come to.
fn most(ask: &Ask, prompt: &Prompt) -> Sum {
    let tokens = prompt.at_most(ask.cost);
    let cost = ask.price.map(|price| price.of(tokens));
    Sum::of(tokens, cost.unwrap_or_default())
}

/// Why a prompt whose model can be asked waits for a budget, if it does.
pub(in crate::engine) fn why(
    store: &mut impl Store,
    task: &Task,
    accounts: &Accounts,
    now: Time,
) -> Result<Option<Reason>, store::Error> {
    let Some(prompt) = &task.spec.prompt else {
        return Ok(None);
    };
    let prompt = fed(store, task, prompt)?;
    let Choice::Ask(ask) = accounts.choose(&prompt, None, now) else {
        return Ok(None);
    };
    let shares = shares(store, &accounts.budgets, task, now)?;
    Ok(match judge(shares, &ask, most(&ask, &prompt)) {
        Verdict::Later(reason) => Some(reason),
        Verdict::May(_) | Verdict::Never(_) => None,
    })
}

impl Prompts {
    /// Refuses a budget that nobody could keep.
    pub(in crate::engine) fn check_budget(
        &self,
        spec: &Spec,
        batch: Option<Cap>,
    ) -> Result<(), Invalid> {
        let Some(budget) = &spec.budget else {
            return Ok(());
        };
        let refuse = |why: String| Err(Invalid::new("budget", why));
        let Some(prompt) = &spec.prompt else {
            if spec.llm {
                return Ok(());
            }
            return refuse("goes with a prompt, or a task with llm".to_owned());
        };
        if budget.own.cost.is_none() && batch.is_none_or(|batch| batch.cost.is_none()) {
            return Ok(());
        }
        let Some(target) = self.target(&prompt.model) else {
            return Ok(());
        };
        let names = [&target.model.name]
            .into_iter()
            .chain(&target.model.fallback);
        for name in names {
            let price = self.target(name).and_then(|target| target.model.price);
            if price.is_none() {
                return refuse(format!(
                    "of money needs a price, and model `{name}` has none: an admin has to set \
                     `price` of it in section [llm]"
                ));
            }
        }
        Ok(())
    }
}

impl<S: Store> Engine<S> {
    /// Whether a call that a task wants may be made.
    pub(in crate::engine) fn may_spend(
        &mut self,
        task: &Task,
        ask: &Ask,
        prompt: &Prompt,
        now: Time,
    ) -> Result<Verdict, store::Error> {
        let rules = &self.snapshot.calls.budgets;
        let shares = shares(&mut self.store, rules, task, now)?;
        Ok(judge(shares, ask, most(ask, prompt)))
    }

    /// The budgets with limits that a task draws on.
    pub(in crate::engine) fn budgets_of(
        &mut self,
        task: &Task,
        now: Time,
    ) -> Result<Vec<Share>, store::Error> {
        of_task(&mut self.store, &self.snapshot.calls.budgets, task, now)
    }

    /// Holds what a call may come to.
    pub(in crate::engine) fn hold(&mut self, call: &Call, now: Time) -> Result<(), store::Error> {
        for name in &call.purses {
            let (purse, _) = self.store.purse(name)?;
            self.store
                .save_purse(name, &purse.hold(call.holds()), now)?;
        }
        Ok(())
    }

    /// A call is over, and has come to so much.
    pub(in crate::engine) fn spend(
        &mut self,
        call: &Call,
        spent: Sum,
        now: Time,
    ) -> Result<(), store::Error> {
        for name in &call.purses {
            let (purse, _) = self.store.purse(name)?;
            let purse = purse.settle(call.holds(), spent);
            self.store.save_purse(name, &purse, now)?;
        }
        Ok(())
    }

    /// Puts the limits in force that batches were handed in with.
    pub(in crate::engine) fn fund(
        &mut self,
        tasks: &[NewTask],
        now: Time,
    ) -> Result<(), store::Error> {
        let mut last = None;
        for task in tasks {
            let budget = task.spec.budget.as_ref();
            let name = budget.and_then(|budget| budget.batch.as_ref());
            let Some((name, cap)) = name.zip(task.batch) else {
                continue;
            };
            let name = Name::of_batch(task.owner, name);
            let this = Some((name, cap));
            if this == last {
                continue;
            }
            if let Some((name, cap)) = &this {
                self.store.cap_purse(name, *cap, now)?;
            }
            last = this;
            self.hungry = true;
        }
        Ok(())
    }
}
