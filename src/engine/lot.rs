//! Batches that providers work on: what they are called is kept with their task
//! as soon as it is known, and one whose task is cancelled is cancelled there
//! too, by a task of its own.

use std::sync::Arc;

use crate::model::estimate::Weight;
use crate::model::invalid::Invalid;
use crate::model::limit::Tokens;
use crate::model::lot::{Lot, Order, name, read};
use crate::model::price::Price;
use crate::model::prompt::{Prompt, QUEUE, TIMEOUT_MS, patience};
use crate::model::spec::{NewTask, Spec};
use crate::model::task::{State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::accounts::{Ask, Route};

/// Ending of the account whose limits a batch counts against: providers have
/// limits of their own for those, which they alone keep.
const ACCOUNT: &str = " batches";

/// Counts the prompts of a batch, and the most that it may come to.
pub(super) fn settle(prompt: &mut Prompt, text: &[u8], each: u32) -> Result<(), Invalid> {
    let Some(lot) = prompt.lot.as_mut().filter(|lot| lot.cancels.is_none()) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(text);
    let rows = read(&text).map_err(|why| Invalid::new("prompt.text", why))?;
    let each = prompt.max_tokens.unwrap_or(each);
    let output = rows
        .iter()
        .map(|row| u64::from(row.max_tokens.unwrap_or(each)));
    lot.output = output.sum();
    lot.rows = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    // Every prompt has the instructions of all ahead of it.
    let system = Weight::of(prompt.system.as_deref().unwrap_or_default().as_bytes());
    let times = u64::from(lot.rows);
    prompt.weight = prompt.weight.and(Weight {
        plain: system.plain.saturating_mul(times),
        dense: system.dense.saturating_mul(times),
    });
    Ok(())
}

/// What a batch takes, which waits for nothing here but for its budgets.
pub(super) fn ask(model: &str, route: &Route, lot: &Lot, input: u64) -> Ask {
    // One that is there already was reckoned with when it was made.
    let new = lot.batch.is_none() && lot.cancels.is_none();
    let cost = Tokens {
        input: if new { input } else { 0 },
        output: if new { lot.output } else { 0 },
    };
    Ask {
        model: model.to_owned(),
        account: format!("{}{ACCOUNT}", route.account),
        cost,
        price: route.price.map(Price::halved),
    }
}

/// Whether a call of this account is a batch.
pub(super) fn is_batch(account: &str) -> bool {
    account.ends_with(ACCOUNT)
}

/// The mark of a task's batch: of no other task here, and hardly of one of
/// another host.
fn mark(task: &Task) -> String {
    format!("taskdaemon-{}-{:x}", task.id, task.created.micros())
}

/// What the program that sees to a task's batch has to know of it.
pub(super) fn order(task: &Task, lot: &Lot) -> Order {
    Order {
        mark: lot.cancels.clone().unwrap_or_else(|| mark(task)),
        batch: lot.batch.clone(),
        again: task.attempt > 1,
        cancel: lot.cancels.is_some(),
        since: task.created.micros().div_euclid(1_000_000),
    }
}

impl<S: Store> Engine<S> {
    /// A task's batch is called so from now on; nothing means that it failed as
    /// a whole, and another one may be made.
    pub(super) fn name_batch(&mut self, task: &Task, text: &str) -> Result<(), store::Error> {
        let mut named = task.clone();
        let spec = Arc::make_mut(&mut named.spec);
        let lot = spec.prompt.as_mut().and_then(|prompt| prompt.lot.as_mut());
        let Some(lot) = lot.filter(|lot| lot.cancels.is_none()) else {
            return Ok(());
        };
        let batch = name(text);
        if lot.batch == batch {
            return Ok(());
        }
        lot.batch = batch;
        self.store.save_edit(task, &named)
    }

    /// Has the batch of a task cancelled that was.
    pub(super) fn call_off(&mut self, task: &Task, now: Time) -> Result<(), store::Error> {
        let prompt = task.spec.prompt.as_ref();
        let Some((prompt, lot)) = prompt.and_then(|prompt| Some((prompt, prompt.lot.as_ref()?)))
        else {
            return Ok(());
        };
        if task.state != State::Cancelled || task.attempt == 0 || lot.cancels.is_some() {
            return Ok(());
        }
        let new = NewTask {
            owner: task.owner,
            queue: QUEUE.to_owned(),
            name: Some(format!("cancels the batch of task {}", task.id)),
            stdin: Some(Vec::new()),
            spec: Spec {
                timeout_ms: Some(TIMEOUT_MS),
                retry: patience(),
                prompt: Some(Prompt {
                    model: prompt.model.clone(),
                    lot: Some(Lot {
                        cancels: Some(mark(task)),
                        batch: lot.batch.clone(),
                        ..Lot::default()
                    }),
                    ..Prompt::default()
                }),
                ..Spec::default()
            },
            ..NewTask::default()
        };
        self.make(&new, now).map(drop)
    }
}
