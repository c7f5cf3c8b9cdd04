//! Those who wait for a task to be over.

use crate::model::id::TaskId;
use crate::model::task::Task;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::calls;
use super::command::{Caller, Reply, View};

impl<S: Store> Engine<S> {
    pub(super) fn wait(
        &mut self,
        caller: Caller,
        id: TaskId,
        reply: Reply<View>,
        now: Time,
    ) -> Result<(), store::Error> {
        let result = match self.find(caller, id, now)? {
            Ok(task) if !task.state.is_terminal() => {
                let waiters = self.waiters.entry(id).or_default();
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push(reply);
                return Ok(());
            }
            Ok(task) => Ok(Box::new(self.view(task, now)?)),
            Err(error) => Err(error),
        };
        self.answers.push(Answer::View(reply, result));
        Ok(())
    }

    /// A task that is over, with its attempts, as of this transaction.
    fn view(&mut self, task: Task, now: Time) -> Result<View, store::Error> {
        Ok(View {
            attempts: self.sound(now, |store| store.attempts(task.id))?,
            calls: calls::of_task(&mut self.store, &task)?,
            after: self.store.parents(task.id)?,
            dependants: self.store.count_children(task.id)?,
            reason: None,
            sign: None,
            task,
        })
    }

    /// Gives everyone who waits for a task that has ended in this turn their
    /// answer, to be sent like any other.
    pub(super) fn tell_waiters(&mut self, now: Time) -> Result<(), store::Error> {
        for task in std::mem::take(&mut self.over) {
            let Some(waiters) = self.waiters.remove(&task.id) else {
                continue;
            };
            let view = self.view(task, now)?;
            for reply in waiters {
                self.answers
                    .push(Answer::View(reply, Ok(Box::new(view.clone()))));
            }
        }
        Ok(())
    }
}
