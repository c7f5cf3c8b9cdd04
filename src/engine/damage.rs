//! Rows that cannot be read: one damaged task must not end the daemon, which
//! would find it again at its next start.
//!
//! What reads tasks asks through [`Engine::sound`]. A task that turns out to be
//! damaged is quarantined, which makes its row readable, and the question is
//! asked again. Damage of pages or of the schema is another matter and ends
//! the process.

use crate::model::attempt::{AttemptKey, Class, Outcome};
use crate::model::event::Kind;
use crate::model::id::TaskId;
use crate::model::task::State;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::effect::Effect;

impl<S: Store> Engine<S> {
    /// Asks the store, and quarantines what is damaged on the way.
    pub(super) fn sound<T>(
        &mut self,
        now: Time,
        mut ask: impl FnMut(&mut S) -> Result<T, store::Error>,
    ) -> Result<T, store::Error> {
        let mut last = 0;
        loop {
            match ask(&mut self.store) {
                Err(store::Error::Damaged { id, what, table }) if id > 0 && id != last => {
                    last = id;
                    self.quarantine(TaskId(id), table, &what, now)?;
                }
                answer => return answer,
            }
        }
    }

    pub(super) fn quarantine(
        &mut self,
        id: TaskId,
        table: &str,
        what: &str,
        now: Time,
    ) -> Result<(), store::Error> {
        let outcome = Outcome {
            class: Class::Poison,
            exit_code: None,
            signal: None,
            message: format!("the row of {table} {id} was damaged: {what}"),
        };
        let number = self.store.quarantine(id, State::Failed, &outcome, now)?;
        tracing::error!(task = id.0, "task {id} is quarantined: {}", outcome.message);
        // Should an attempt of it be live, nobody waits for its end any more.
        self.turned
            .effects
            .push(Effect::Kill(AttemptKey { task: id, number }));
        if let Some(task) = self.store.task(id)? {
            if let Some(group) = &task.group
                && let Some(queue) = self.store.queue_named(&task.queue)?
            {
                self.store.settle_group(queue.id, group)?;
            }
            self.record(&task, Kind::Changed(task.state), None, now)?;
            self.agents_task_over(&task, now)?;
            self.over.push(task);
        }
        self.hungry = true;
        Ok(())
    }
}
