//! What live attempts say of themselves: signs of life, progress, a line of
//! status, and the wish for more time.
//!
//! What is only shown is kept in memory: the runner tells it again after a
//! restart. What decides over the attempt goes through the model. A sign of
//! life is written down when the clock would otherwise strike, and not each
//! time it comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::agent::life;
use crate::model::attempt::AttemptKey;
use crate::model::id::TaskId;
use crate::model::notice::Notice;
use crate::model::task::{Event, State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;

/// What the live attempt of a task has said so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// Uid of the task's owner.
    pub owner: u32,
    /// The task's queue.
    pub queue: String,
    /// The attempt's number.
    pub attempt: u32,
    /// All of it as one.
    pub notice: Notice,
    /// When it said the last part.
    pub at: Time,
    /// When it last said that it is alive.
    pub beat: Option<Time>,
}

/// Signs by task; shared with whoever reads them.
pub type Signs = Arc<BTreeMap<TaskId, Sign>>;

impl<S: Store> Engine<S> {
    /// A live attempt has said something.
    pub(super) fn notified(
        &mut self,
        key: AttemptKey,
        notice: Notice,
        at: Time,
        now: Time,
    ) -> Result<(), store::Error> {
        let Some(task) = self.sound(now, |store| store.task(key.task))? else {
            return Ok(());
        };
        if !task.state.is_live() || task.attempt != key.number {
            return Ok(());
        }
        let (owner, queue) = (task.owner, task.queue.clone());
        if notice.ready && task.spec.run.is_some() {
            self.agents_task_did(key, life::Event::Ready, now)?;
        }
        if let Some(name) = &notice.batch {
            self.name_batch(&task, name)?;
        }
        if notice.trigger {
            // Refused by no state, as are the others.
            let _step = self.advance(task, Event::GiveUp, None, now)?;
        } else if let Some(more) = notice.extend_us {
            let until = at.after(Duration::from_micros(more));
            let _step = self.advance(task, Event::Extend { until }, None, now)?;
        }
        let signs = Arc::make_mut(&mut self.snapshot.signs);
        let sign = signs.entry(key.task).or_insert_with(|| Sign {
            owner,
            queue,
            attempt: key.number,
            notice: Notice::default(),
            at,
            beat: None,
        });
        if sign.attempt != key.number {
            (sign.attempt, sign.notice, sign.beat) = (key.number, Notice::default(), None);
        }
        if notice.watchdog {
            sign.beat = sign.beat.max(Some(at));
        }
        let said = std::mem::take(&mut sign.notice);
        sign.notice = said.then(notice, at.since(sign.at));
        sign.at = sign.at.max(at);
        Ok(())
    }

    /// A task with the latest sign of life in it.
    pub(super) fn refreshed(&mut self, task: Task, now: Time) -> Result<Task, store::Error> {
        let sign = self.snapshot.signs.get(&task.id);
        let beat = sign
            .filter(|sign| sign.attempt == task.attempt && task.state == State::Running)
            .and_then(|sign| sign.beat)
            .filter(|beat| task.beat.is_some_and(|known| known < *beat));
        let Some(at) = beat else {
            return Ok(task);
        };
        let before = task.clone();
        let moved = self.shift(task, Event::Beat { at }, None, now)?;
        Ok(moved.unwrap_or(before))
    }

    /// Nothing is live any more that a sign could be of.
    pub(super) fn forget_sign(&mut self, task: TaskId) {
        if self.snapshot.signs.contains_key(&task) {
            Arc::make_mut(&mut self.snapshot.signs).remove(&task);
        }
    }
}
