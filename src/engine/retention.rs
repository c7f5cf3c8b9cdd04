//! What is removed by itself: tasks that are over, their output, and events,
//! by age and by amount.
//!
//! A walk goes along the order in which tasks ended, a bounded number of them
//! a turn, and remembers its place, so that rows that have to stay are looked
//! at once a walk and not at each step. Between walks nothing is done.

use std::time::Duration;

use crate::model::attempt::AttemptKey;
use crate::model::bound::{Age, Bound};
use crate::model::id::TaskId;
use crate::model::quantity::ByteSize;
use crate::model::setting::Kind::Live;
use crate::model::setting::settings;
use crate::model::task::State;
use crate::model::time::Time;
use crate::store::record::Over;
use crate::store::{self, Store};

use super::Engine;
use super::calls::KEPT;
use super::effect::Effect;

/// Most tasks looked at, and events removed, in one turn.
const STEP: u32 = 500;
/// Time between the end of a walk and the next one.
const PAUSE: Duration = Duration::from_secs(60);

settings! {
    /// Settings of retention, section `[retention]`. What is over is removed when it is older or
    /// more than this. Tasks that are not over, and those that such tasks depend on, always stay.
    pub struct Options {
        /// How long a task is kept when it is over, or "none" for ever.
        task_age: Bound<Age> = Bound::Most(Age::days(14)), Live;
        /// Most tasks that are over, or "none".
        task_count: Bound<u64> = Bound::Most(100_000), Live;
        /// How long the output of a task is kept when it is over, or "none" for as long as the
        /// task.
        output_age: Bound<Age> = Bound::Most(Age::days(14)), Live;
        /// Most output of tasks that are over, in all, or "none".
        output_bytes: Bound<ByteSize> = Bound::Most(ByteSize::mib(8192)), Live;
        /// How long events are kept, or "none" for ever.
        event_age: Bound<Age> = Bound::Most(Age::days(14)), Live;
        /// Most events, or "none".
        event_count: Bound<u64> = Bound::Most(1_000_000), Live;
    }
}

impl Options {
    /// Everything is kept for ever.
    #[must_use]
    pub const fn keep_all() -> Self {
        Self {
            task_age: Bound::Unbounded,
            task_count: Bound::Unbounded,
            output_age: Bound::Unbounded,
            output_bytes: Bound::Unbounded,
            event_age: Bound::Unbounded,
            event_count: Bound::Unbounded,
        }
    }
}

/// A place in the order in which tasks ended: before the first.
const START: (Time, TaskId) = (Time::from_micros(i64::MIN), TaskId(0));

/// The walk, and when it goes on.
#[derive(Debug)]
pub(super) struct Walk {
    options: Options,
    due: Time,
    /// Where the removal of tasks stands.
    tasks: (Time, TaskId),
    /// Where the removal of output stands; that is not begun anew, because
    /// whatever is in front of it has none.
    outputs: (Time, TaskId),
}

impl Walk {
    pub(super) const fn new() -> Self {
        Self {
            options: Options::keep_all(),
            due: Time::from_micros(i64::MIN),
            tasks: START,
            outputs: START,
        }
    }
}

/// Whether something is older than it may be.
fn is_old(at: Time, age: Bound<Age>, now: Time) -> bool {
    age.most().is_some_and(|age| at < now.before(age.0))
}

impl<S: Store> Engine<S> {
    /// Obeys these rules from now on.
    pub fn retain(&mut self, options: Options) {
        self.walk = Walk {
            options,
            ..Walk::new()
        };
    }

    /// When retention wants its next turn.
    pub(super) fn retention_due(&self) -> Option<Time> {
        (self.walk.options != Options::keep_all()).then_some(self.walk.due)
    }

    /// One step of the walk, if it is due.
    pub(super) fn remove_old(&mut self, now: Time) -> Result<(), store::Error> {
        // A clock that was set back must not put the walk off.
        self.walk.due = self.walk.due.min(now.after(PAUSE));
        if self.retention_due().is_none_or(|due| due > now) {
            return Ok(());
        }
        let events = self.remove_events(now)?;
        failpoint!("engine/retention/begun");
        let tasks = self.remove_tasks(now)?;
        let outputs = self.remove_outputs(now)?;
        let calls = self.store.drop_calls(now.before(KEPT), STEP)? < STEP;
        if events && tasks && outputs && calls {
            self.walk.due = now.after(PAUSE);
            self.walk.tasks = START;
        }
        Ok(())
    }

    /// True when nothing is left to be done, as for the two below.
    fn remove_events(&mut self, now: Time) -> Result<bool, store::Error> {
        let options = &self.walk.options;
        let most = options.event_count.most();
        let most = most.and_then(|most| i64::try_from(most).ok());
        let through = most.map_or(0, |most| self.store.last_event().saturating_sub(most));
        let older = options.event_age.most().map(|age| now.before(age.0));
        Ok(self.store.drop_events(through, older, STEP)? < STEP)
    }

    fn remove_tasks(&mut self, now: Time) -> Result<bool, store::Error> {
        let over = State::ALL.iter().zip(self.store.tally());
        let over = over.filter(|(state, _)| state.is_terminal());
        let mut count: u64 = over.map(|(_, count)| count).sum();
        let most = self.walk.options.task_count.most().unwrap_or(u64::MAX);
        let age = self.walk.options.task_age;
        let page = self.store.over(self.walk.tasks, STEP)?;
        for task in &page {
            if count <= most && !is_old(task.ended, age, now) {
                return Ok(true);
            }
            self.walk.tasks = (task.ended, task.id);
            if !task.wanted {
                self.remove_task(task)?;
                count -= 1;
            }
        }
        Ok(is_last(&page))
    }

    fn remove_outputs(&mut self, now: Time) -> Result<bool, store::Error> {
        let most = self.walk.options.output_bytes.most();
        let most = most.map_or(u64::MAX, ByteSize::bytes);
        let age = self.walk.options.output_age;
        let page = self.store.over(self.walk.outputs, STEP)?;
        for task in &page {
            if self.store.output() <= most && !is_old(task.ended, age, now) {
                return Ok(true);
            }
            self.walk.outputs = (task.ended, task.id);
            let numbers = self.store.remove_output(task.id)?;
            self.erase(task.id, numbers);
        }
        Ok(is_last(&page))
    }

    /// Removes a task that is over, and what it wrote.
    pub(super) fn remove_task(&mut self, task: &Over) -> Result<(), store::Error> {
        self.store.remove(task.id)?;
        failpoint!("engine/prune/after");
        self.erase(task.id, 1..=task.attempt);
        Ok(())
    }

    fn erase(&mut self, task: TaskId, numbers: impl IntoIterator<Item = u32>) {
        let keys = numbers
            .into_iter()
            .map(|number| AttemptKey { task, number });
        let effects = keys.map(Effect::Erase);
        self.turned.effects.extend(effects);
    }
}

fn is_last(page: &[Over]) -> bool {
    page.len() < usize::try_from(STEP).unwrap_or(usize::MAX)
}
