//! Those who wait for a task to be over.

use crate::model::id::TaskId;
use crate::model::task::Task;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::calls;
use super::command::{Caller, Command, Reply, View};

impl<S: Store> Engine<S> {
    /// Takes out whoever waits for a task that is not over: that changes
    /// nothing, and needs no turn. What cannot be read is left to the turn.
    pub fn park(&mut self, commands: &mut Vec<Command>) {
        let wait = |command: &mut Command| {
            let Command::Wait { caller, id, .. } = command else {
                return false;
            };
            self.is_open(*caller, *id)
        };
        for command in commands.extract_if(.., wait).collect::<Vec<_>>() {
            if let Command::Wait { id, reply, .. } = command {
                self.keep(id, reply);
            }
        }
    }

    fn is_open(&mut self, caller: Caller, id: TaskId) -> bool {
        let task = self.store.task(id).ok().flatten();
        task.is_some_and(|task| caller.may_touch(task.owner) && !task.state.is_terminal())
    }

    fn keep(&mut self, id: TaskId, reply: Reply<View>) {
        let waiters = self.waiters.entry(id).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(reply);
    }

    pub(super) fn wait(
        &mut self,
        caller: Caller,
        id: TaskId,
        reply: Reply<View>,
        now: Time,
    ) -> Result<(), store::Error> {
        let result = match self.find(caller, id, now)? {
            Ok(task) if !task.state.is_terminal() => {
                self.keep(id, reply);
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
            budgets: self.budgets_of(&task, now)?,
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
