//! Queues: what is asked of them, and who may.
//!
//! A queue is there from its first task on, or from when its limits were set.
//! All changes count from the next start on; none ends what runs.

use crate::model::agent;
use crate::model::event::Kind;
use crate::model::invalid::Invalid;
use crate::model::queue::{Lane, Limits, Queue};
use crate::model::task::State;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::command::{Caller, Command, Error, Reply};
use super::handle::Handle;
use super::reader::Query;

/// What can be asked of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Have other limits. Makes the queue where there is none.
    Set(Limits),
    /// Start nothing.
    Pause,
    /// Start tasks and take new ones.
    Resume,
    /// Take nothing new, and run what is there.
    Drain,
    /// Be forgotten, limits and all.
    Remove,
}

impl Change {
    const fn word(self) -> &'static str {
        match self {
            Self::Set(_) => "set",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Drain => "drain",
            Self::Remove => "remove",
        }
    }
}

/// What enters the engine about a queue.
#[derive(Debug)]
pub struct Ask {
    /// Who asks.
    pub caller: Caller,
    /// Name of the queue.
    pub name: String,
    /// What is to change.
    pub change: Change,
    /// The queue afterwards.
    pub reply: Reply<Lane>,
}

impl<S: Store> Engine<S> {
    pub(super) fn about_queue(&mut self, ask: Ask, now: Time) -> Result<(), store::Error> {
        let data = serde_json::json!({ "queue": ask.name, "change": ask.change.word() });
        let result = if ask.caller.admin {
            self.change_queue(ask.name, ask.change)?
        } else {
            Err(Error::AdminOnly("change a queue"))
        };
        if result.is_ok() {
            self.hungry = true;
            self.note(Kind::QueueChanged, Some(ask.caller.uid), &data, now)?;
        }
        self.answers
            .push(Answer::Queue(ask.reply, result.map(Box::new)));
        Ok(())
    }

    fn change_queue(
        &mut self,
        name: String,
        change: Change,
    ) -> Result<Result<Lane, Error>, store::Error> {
        let found = match self.store.queue_named(&name)? {
            None if matches!(change, Change::Set(_)) => Some(self.store.make_queue(&name)?),
            found => found,
        };
        let Some(mut queue) = found else {
            return Ok(Err(Error::NoQueue(name)));
        };
        match change {
            Change::Set(limits) => {
                self.regrouping |= limits.group_limit.is_some();
                limits.set(&mut queue);
            }
            Change::Pause => queue.paused = true,
            Change::Drain => queue.draining = true,
            Change::Resume => (queue.paused, queue.draining) = (false, false),
            Change::Remove => return self.remove_queue(queue),
        }
        self.store.save_queue(&queue)?;
        Ok(Ok(self.lane(queue)))
    }

    fn remove_queue(&mut self, queue: Queue) -> Result<Result<Lane, Error>, store::Error> {
        let lane = self.lane(queue);
        let unfinished = State::ALL.iter().zip(lane.counts);
        let unfinished = unfinished.filter(|(state, _)| !state.is_terminal());
        let tasks: u64 = unfinished.map(|(_, count)| count).sum();
        if tasks > 0 {
            let name = lane.queue.name;
            return Ok(Err(Error::QueueInUse { name, tasks }));
        }
        self.store.remove_queue(&lane.queue)?;
        Ok(Ok(lane))
    }

    fn lane(&self, queue: Queue) -> Lane {
        let count = |state| self.store.count_of_queue(queue.id, state);
        Lane {
            counts: State::ALL.map(count),
            queue,
        }
    }

    /// Refuses new tasks where one of these queues takes none.
    pub(super) fn open_to<'t>(
        &mut self,
        queues: impl Iterator<Item = &'t str>,
    ) -> Result<Result<(), Error>, store::Error> {
        let mut last = "";
        for name in queues {
            if name != last && self.store.is_draining(name)? {
                return Ok(Err(Error::Draining(name.to_owned())));
            }
            last = name;
        }
        Ok(Ok(()))
    }
}

impl Handle {
    /// Changes a queue.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change_queue(
        &self,
        caller: Caller,
        name: String,
        change: Change,
    ) -> Result<Lane, Error> {
        let invalid = |invalid| Error::Invalid {
            index: None,
            invalid,
        };
        if name == agent::QUEUE && matches!(change, Change::Set(_) | Change::Drain) {
            let reason = format!(
                "`{name}` has the runs of agents, which have limits of their own; it can only be \
                 paused and resumed"
            );
            return Err(invalid(Invalid::new("queue", reason)));
        }
        if let Change::Set(limits) = &change {
            limits.check(&name).map_err(invalid)?;
        }
        self.ask_as(caller, |reply| {
            Command::Queue(Ask {
                caller,
                name,
                change,
                reply,
            })
        })
        .await
    }

    /// Since when the first in line of each of these queues, by their rows, is
    /// ready.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn waits(&self, queues: Vec<i64>) -> Result<Vec<Option<Time>>, Error> {
        self.read(|reply| Query::Waits { queues, reply }).await
    }

    /// Every queue, by name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn queues(&self) -> Result<Vec<Lane>, Error> {
        self.read(|reply| Query::Queues { reply }).await
    }
}
