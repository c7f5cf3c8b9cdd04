//! Tasks that read what another one has written.
//!
//! What can be known here is looked at here; the output itself is a file, and
//! is read where the attempt is launched. One whose input is not whole is not
//! started: nobody works on half of it.

use std::borrow::Cow;

use crate::model::spec::{NewTask, Parent, Spec};
use crate::model::task::{State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::command::Submitted;
use super::effect::Feed;

impl<S: Store> Engine<S> {
    /// Whose output the current attempt of a task reads, if it reads any.
    pub(super) fn feed(&mut self, task: &Task, now: Time) -> Result<Option<Feed>, store::Error> {
        let Some(id) = task.spec.stdin_from else {
            return Ok(None);
        };
        let missing = |why: String| Ok(Some(Feed::Missing(why)));
        let Some(from) = self.sound(now, |store| store.task(id))? else {
            return missing(format!(
                "task {id}, whose output it reads, is no longer kept"
            ));
        };
        if from.state != State::Succeeded {
            let state = from.state;
            return missing(format!("task {id}, whose output it reads, is {state}"));
        }
        let key = from.attempt_key();
        let attempts = self.sound(now, |store| store.attempts(id))?;
        let last = attempts.iter().find(|attempt| attempt.key == key);
        match last.map_or(0, |attempt| attempt.usage.output_dropped) {
            0 => Ok(Some(Feed::Output(key))),
            dropped => missing(format!(
                "{dropped} bytes of the output of task {id}, which it reads, are no longer kept or \
                 were over its output cap"
            )),
        }
    }
}

/// A task of a request with the number of the one whose output it reads, now
/// that those before it have numbers.
pub(super) fn numbered<'t>(new: &'t NewTask, all: &[Submitted]) -> Cow<'t, NewTask> {
    let id = match new.stdin_from {
        None => return Cow::Borrowed(new),
        Some(Parent::Task(id)) => Some(id),
        Some(Parent::Member(place)) => all.get(place).map(|one| one.id),
    };
    Cow::Owned(NewTask {
        spec: Spec {
            stdin_from: id,
            ..new.spec.clone()
        },
        ..new.clone()
    })
}
