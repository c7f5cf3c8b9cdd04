//! Calls of language models: whom a prompt asks, whether it may now, and what
//! it costs.
//!
//! What a call may cost is taken of its account's limits in the transaction
//! that starts its attempt, and put right in the one that ends it. The accounts
//! are rows, so what is known of them outlives this process.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::attempt::{AttemptKey, Ended, Exit};
use crate::model::budget::Sum;
use crate::model::estimate::Weight;
use crate::model::gauge::Settled;
use crate::model::ledger::{Call, Over, Spent};
use crate::model::limit::Tokens;
use crate::model::price::Money;
use crate::model::prompt::Prompt;
use crate::model::receipt::{End, Receipt};
use crate::model::task::Task;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::accounts::{Ask, Choice};
use super::budgets::spend::{Hold, Verdict};
use super::command::Error;
use super::handle::Handle;
use super::lot;
use super::news::News;
use super::reader::Query;
use super::spans;

/// Prompts of one user in one queue that are passed over in a turn, because
/// their models cannot be asked, before the rest has to wait for them.
pub(super) const PASSED_MAX: u32 = 64;
/// Prompts that fail in a turn because they are over a budget.
const REFUSED_MAX: u32 = 200;
/// Calls that are shown with a task.
const SHOWN: u32 = 100;
/// How long the ledger is kept.
pub(super) const KEPT: Duration = Duration::from_secs(35 * 24 * 3600);

/// The latest calls of a task: those of prompts, and those that are relayed.
pub(super) fn of_task(store: &mut impl Store, task: &Task) -> Result<Vec<Call>, store::Error> {
    if task.spec.prompt.is_none() && !task.spec.llm {
        return Ok(Vec::new());
    }
    store.calls(task.id, SHOWN)
}

/// A prompt with what it reads of another task.
pub(super) fn fed<'p>(
    store: &mut impl Store,
    task: &Task,
    prompt: &'p Prompt,
) -> Result<Cow<'p, Prompt>, store::Error> {
    let Some(parent) = task.spec.stdin_from else {
        return Ok(Cow::Borrowed(prompt));
    };
    let attempts = store.attempts(parent)?;
    let bytes = attempts.last().map(|attempt| attempt.usage.output_kept);
    let heavier = prompt.clone().heavier_by(bytes.unwrap_or_default());
    Ok(Cow::Owned(heavier))
}

/// Whether a prompt's next attempt may make its call.
pub(super) enum Booked {
    /// It may.
    Starts,
    /// It waits.
    Waits,
    /// It never may, and why.
    Never(String),
}

/// What one look at the ready tasks has found of prompts.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// There are models that might be asked.
    models: bool,
    /// Attempts that were calls at its beginning.
    pub(super) calls: u32,
    /// Free slots for whatever is no call.
    pub(super) slots: u32,
    /// Models that cannot be asked: who comes later does not overtake.
    pub(super) shut: HashSet<String>,
    /// Prompts passed over, by queue and user.
    passed: HashMap<(i64, u32), u32>,
    /// Prompts that were over a budget for good.
    refused: u32,
}

impl Pass {
    /// A look that begins with so many calls; none where there are no models.
    pub(super) fn of(calls: Option<u32>) -> Self {
        Self {
            models: calls.is_some(),
            calls: calls.unwrap_or_default(),
            ..Self::default()
        }
    }

    /// A look at tasks that are no calls, with so many free slots.
    pub(super) fn of_slots(slots: u32) -> Self {
        Self {
            slots,
            ..Self::default()
        }
    }

    /// Whether nothing more can start.
    pub(super) const fn is_over(&self) -> bool {
        self.slots == 0 && !self.models
    }

    /// Notes that a prompt failed without an attempt; whether to look at the
    /// next one in this turn.
    pub(super) const fn refuse(&mut self) -> bool {
        self.refused += 1;
        self.refused < REFUSED_MAX
    }

    /// Notes that a prompt was passed over; whether to look at the next one.
    pub(super) fn go_on(&mut self, queue: i64, owner: u32) -> bool {
        let passed = self.passed.entry((queue, owner)).or_default();
        *passed += 1;
        *passed < PASSED_MAX
    }
}

impl Handle {
    /// What models were used for since a time, by model.
    ///
    /// # Errors
    /// See [`Error`](super::command::Error).
    pub async fn spent_since(&self, since: Time) -> Result<Vec<Spent>, Error> {
        self.read(|reply| Query::Spent { since, reply }).await
    }
}

impl<S: Store> Engine<S> {
    /// Knows how the accounts stand, and that a person may have mended them.
    pub(super) fn open_accounts(&mut self) -> Result<(), store::Error> {
        let mut accounts = self.prompts.accounts();
        for (name, gauge) in self.store.gauges()? {
            if let Some(account) = accounts.accounts.get_mut(&name) {
                account.gauge = gauge;
                account.gauge.forgive();
            }
        }
        self.snapshot.calls = Arc::new(accounts);
        Ok(())
    }

    /// Lets a prompt's next attempt make its call, if it may.
    pub(super) fn book_call(
        &mut self,
        task: &Task,
        prompt: &Prompt,
        pass: &mut Pass,
        now: Time,
    ) -> Result<Booked, store::Error> {
        // A batch does not wait for what others wait for.
        if prompt.lot.is_none() && pass.shut.contains(&prompt.model) {
            return Ok(Booked::Waits);
        }
        let prompt = fed(&mut self.store, task, prompt)?;
        let ask = match self.snapshot.calls.choose(&prompt, None, now) {
            // Its program says so.
            Choice::Nobody => return Ok(Booked::Starts),
            Choice::Wait(wait) => {
                pass.shut.insert(prompt.model.clone());
                self.start_again_at(wait.shut.until);
                return Ok(Booked::Waits);
            }
            Choice::Ask(ask) => ask,
        };
        let hold = match self.may_spend(task, &ask, &prompt, now)? {
            Verdict::May(hold) => hold,
            Verdict::Later(reason) => {
                self.start_again_at(reason.until());
                return Ok(Booked::Waits);
            }
            // The model that it wants may cost less than the one that would
            // answer instead.
            Verdict::Never(_) if ask.model != prompt.model => return Ok(Booked::Waits),
            Verdict::Never(why) => return Ok(Booked::Never(why)),
        };
        let key = AttemptKey {
            task: task.id,
            number: task.attempt + 1,
        };
        self.take_call(ask, key, task.owner, false, hold, now)?;
        Ok(Booked::Starts)
    }

    /// Writes down a call that is let go, and takes what it may cost; its number.
    pub(super) fn take_call(
        &mut self,
        ask: Ask,
        key: AttemptKey,
        owner: u32,
        relayed: bool,
        hold: Hold,
        now: Time,
    ) -> Result<i64, store::Error> {
        let call = hold.note(Call {
            id: 0,
            key,
            relayed,
            owner,
            model: ask.model,
            gauge: ask.account.clone(),
            at: now,
            taken: ask.cost,
            estimate: ask.price.map(|price| price.of(ask.cost)),
            held: 0,
            purses: Vec::new(),
            over: None,
        });
        let id = self.store.begin_call(&call)?;
        self.hold(&call, now)?;
        let calls = Arc::make_mut(&mut self.snapshot.calls);
        calls.own += u32::from(!relayed);
        if let Some(account) = calls.accounts.get_mut(&ask.account) {
            account.running += 1;
            account.gauge.refill(&account.limits, now);
            account.gauge.take(ask.cost);
            self.store.save_gauge(&ask.account, &account.gauge)?;
        }
        Ok(id)
    }

    /// Counts the calls that are made; none where there are no models.
    pub(super) fn count_calls(&mut self) -> Result<Option<u32>, store::Error> {
        if self.snapshot.calls.accounts.is_empty() {
            return Ok(None);
        }
        let calls = Arc::make_mut(&mut self.snapshot.calls);
        for (name, account) in &mut calls.accounts {
            let running = self
                .store
                .running_calls(name, Time::from_micros(i64::MIN))?;
            account.running = u32::try_from(running.calls).unwrap_or(u32::MAX);
        }
        calls.own = self.store.own_calls()?;
        Ok(Some(calls.own))
    }

    /// A prompt's attempt is over, and its call with it.
    pub(super) fn end_call(
        &mut self,
        key: AttemptKey,
        prompt: &Prompt,
        ended: &Ended,
        now: Time,
    ) -> Result<(), store::Error> {
        let unsent = Receipt::of(End::Rejected);
        let receipt = match &ended.exit {
            Exit::Spawn { .. } | Exit::Unfed { .. } => Some(&unsent),
            Exit::Code { .. } | Exit::Signal { .. } | Exit::Lost => ended.receipt.as_deref(),
        };
        let Some(call) = self.store.call(key)? else {
            return Ok(());
        };
        // Of an answer that was mended, all turns are in the sum.
        let weight = match &prompt.schema {
            None => prompt.weight,
            Some(_) => Weight::default(),
        };
        self.trace_call(&call, (receipt, None), ended.at)?;
        self.settle_call(&call, weight, receipt, now)
    }

    /// Those who made these calls are gone: nobody knows what became of them.
    pub(super) fn lose_relayed(&mut self, now: Time) -> Result<(), store::Error> {
        for call in self.store.open_relayed_calls()? {
            self.trace_call(&call, (None, None), now)?;
            self.settle_call(&call, Weight::default(), None, now)?;
        }
        Ok(())
    }

    /// Counts a call that is over, and tells of it.
    fn tell_call(&mut self, call: &Call, over: Over) -> Result<(), store::Error> {
        let took = over.at.since(call.at);
        self.snapshot.counted.call(&call.model, &over, took);
        let task = spans::readable(self.store.task(call.key.task))?.flatten();
        let Some(route) = self.snapshot.calls.routes.get(&call.model) else {
            return Ok(());
        };
        self.news.push(News::Called {
            key: call.key,
            provider: route.provider.clone(),
            serves: route.serves.clone(),
            over,
            took,
            trace: task.as_ref().and_then(spans::name),
        });
        Ok(())
    }

    /// Puts right what was taken for a call that is over, once.
    pub(super) fn settle_call(
        &mut self,
        call: &Call,
        weight: Weight,
        receipt: Option<&Receipt>,
        now: Time,
    ) -> Result<(), store::Error> {
        if call.over.is_some() {
            return Ok(());
        }
        let used = receipt.and_then(Receipt::used);
        let calls = Arc::make_mut(&mut self.snapshot.calls);
        calls.own = calls.own.saturating_sub(u32::from(!call.relayed));
        let price = calls.routes.get(&call.model).and_then(|route| route.price);
        let is_batch = lot::is_batch(&call.gauge);
        let price = price.map(|price| if is_batch { price.halved() } else { price });
        let end = receipt.map(|receipt| receipt.end);
        let known = match (end, used) {
            (_, Some(used)) => Some(used),
            // Nothing was done for it.
            (Some(end), None) if end.is_turned_away() || end == End::Rejected => {
                Some(Tokens::default())
            }
            (Some(_) | None, None) => None,
        };
        // What nobody knows counts as it was reckoned.
        let cost = match known {
            Some(known) => price.map(|price| price.of(known)),
            None => call.estimate,
        };
        let over = Over {
            at: now,
            end,
            used,
            cost,
        };
        self.tell_call(call, over)?;
        self.store.end_call(call.id, &over)?;
        let tokens = known.map(|known| Sum::of(known, Money::default()).tokens);
        let spent = Sum {
            tokens: tokens.unwrap_or(call.held),
            // One without a price any more costs what it did when it began.
            cost: cost.or(call.estimate).unwrap_or_default(),
        };
        self.spend(call, spent, now)?;
        let calls = Arc::make_mut(&mut self.snapshot.calls);
        let Some(account) = calls.accounts.get_mut(&call.gauge) else {
            return Ok(());
        };
        let others = self.store.running_calls(&call.gauge, call.at)?;
        let settled = Settled {
            taken: call.taken,
            weight,
            refund: account.refund,
            others,
            receipt,
        };
        account.running = account.running.saturating_sub(1);
        account.gauge.refill(&account.limits, now);
        let seed = call.key.task.0.cast_unsigned();
        account.gauge.settle(&account.limits, settled, seed, now);
        self.store.save_gauge(&call.gauge, &account.gauge)
    }
}
