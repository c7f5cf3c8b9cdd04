//! Changing what was asked, as long as it waits.

use crate::model::edit::{Bad, Edit};
use crate::model::event::Kind;
use crate::model::id::TaskId;
use crate::model::task::{Refusal, State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::command::{Caller, Error, Reply};

/// A change that somebody asks for.
#[derive(Debug)]
pub struct Ask {
    /// Who asks.
    pub caller: Caller,
    /// Of which task.
    pub id: TaskId,
    /// What is to be different.
    pub edit: Box<Edit>,
    /// The task afterwards.
    pub reply: Reply<Task>,
}

impl From<Bad> for Error {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Refused(refusal) => Self::Refused(refusal),
            Bad::Invalid(invalid) => Self::Invalid {
                index: None,
                invalid,
            },
        }
    }
}

impl<S: Store> Engine<S> {
    pub(super) fn edit(&mut self, ask: Ask, now: Time) -> Result<(), store::Error> {
        let result = match self.find(ask.caller, ask.id, now)? {
            Err(error) => Err(error),
            Ok(task) if task.spec.run.is_some() => {
                let (act, task) = ("change", task.id);
                Err(Refusal::OfAgent { act, task }.into())
            }
            Ok(task) => match ask.edit.apply(&task, now) {
                Err(bad) => Err(bad.into()),
                Ok(edited)
                    if edited.queue != task.queue && self.store.is_draining(&edited.queue)? =>
                {
                    Err(Error::Draining(edited.queue))
                }
                Ok(edited) => {
                    self.save_edit(&task, &edited, &ask, now)?;
                    Ok(Box::new(edited))
                }
            },
        };
        self.answers.push(Answer::Task(ask.reply, result));
        Ok(())
    }

    fn save_edit(
        &mut self,
        task: &Task,
        edited: &Task,
        ask: &Ask,
        now: Time,
    ) -> Result<(), store::Error> {
        self.store.save_edit(task, edited)?;
        let data = serde_json::json!({ "fields": ask.edit.fields() });
        let (actor, data) = (Some(ask.caller.uid), Some(data.to_string()));
        self.record_with(edited, Kind::Edited, actor, data, now)?;
        if edited.state != task.state {
            let kind = Kind::Changed(edited.state);
            self.record(edited, kind, Some(ask.caller.uid), now)?;
        }
        self.hungry |= edited.state == State::Queued;
        Ok(())
    }
}
