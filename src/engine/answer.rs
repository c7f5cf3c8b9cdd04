//! Answers held back until the commit that makes them true.

use std::sync::Arc;

use crate::model::agent::plan::Agent;
use crate::model::hook::Hook;
use crate::model::id::TaskId;
use crate::model::queue::Lane;
use crate::model::task::Task;
use crate::model::time::Time;

use super::bulk::Count;
use super::command::{Error, Reply, Submitted, View};
use super::graph::Affected;
use super::relay::Grant;
use super::schedules::Changed;

/// A reply with what it will say.
#[derive(Debug)]
pub(super) enum Answer {
    /// To a submit.
    Submitted(Reply<Vec<Submitted>>, Result<Vec<Submitted>, Error>),
    /// To whoever asked about or changed a task.
    Task(Reply<Task>, Result<Box<Task>, Error>),
    /// To whoever changed a task together with those behind it.
    Affected(Reply<Affected>, Result<Box<Affected>, Error>),
    /// To whoever waited for the end of a task.
    View(Reply<View>, Result<Box<View>, Error>),
    /// To a change of many tasks.
    Counted(Reply<Count>, Result<Count, Error>),
    /// To whoever asked about a schedule.
    Schedule(Reply<Changed>, Result<Box<Changed>, Error>),
    /// To whoever asked about an agent.
    Agent(Reply<Arc<Agent>>, Result<Arc<Agent>, Error>),
    /// To whoever changed hooks.
    Hooks(Reply<Vec<Hook>>, Vec<Hook>),
    /// To whoever asked which output is kept.
    WithOutput(Reply<Vec<(TaskId, u32)>>, Vec<(TaskId, u32)>),
    /// To whoever changed a queue.
    Queue(Reply<Lane>, Result<Box<Lane>, Error>),
    /// To whoever wants a call of a model.
    Grant(Reply<Grant>, Result<Box<Grant>, Error>),
    /// To a ping.
    Pong(Reply<Time>, Time),
    /// To a shutdown.
    Done(Reply<()>),
}

impl Answer {
    /// Says it. Whoever has gone away in the meantime does not need to know.
    pub(super) fn send(self) {
        match self {
            Self::Submitted(reply, result) => drop(reply.send(result)),
            Self::Task(reply, result) => drop(reply.send(result.map(|task| *task))),
            Self::Affected(reply, result) => drop(reply.send(result.map(|all| *all))),
            Self::View(reply, result) => drop(reply.send(result.map(|view| *view))),
            Self::Counted(reply, result) => drop(reply.send(result)),
            Self::Schedule(reply, result) => drop(reply.send(result.map(|changed| *changed))),
            Self::Agent(reply, result) => drop(reply.send(result)),
            Self::Hooks(reply, hooks) => drop(reply.send(Ok(hooks))),
            Self::WithOutput(reply, kept) => drop(reply.send(Ok(kept))),
            Self::Queue(reply, result) => drop(reply.send(result.map(|lane| *lane))),
            Self::Grant(reply, result) => drop(reply.send(result.map(|grant| *grant))),
            Self::Pong(reply, at) => drop(reply.send(Ok(at))),
            Self::Done(reply) => drop(reply.send(Ok(()))),
        }
    }

    /// Says instead that nobody knows: the commit failed.
    pub(super) fn send_unknown(self) {
        match self {
            Self::Submitted(reply, _) => drop(reply.send(Err(Error::Unknown))),
            Self::Task(reply, _) => drop(reply.send(Err(Error::Unknown))),
            Self::Affected(reply, _) => drop(reply.send(Err(Error::Unknown))),
            // Nothing was asked to change, so nothing is unknown: ask again.
            Self::View(reply, _) => drop(reply.send(Err(Error::Stopping))),
            Self::Counted(reply, _) => drop(reply.send(Err(Error::Unknown))),
            Self::Schedule(reply, _) => drop(reply.send(Err(Error::Unknown))),
            Self::Agent(reply, _) => drop(reply.send(Err(Error::Unknown))),
            Self::Hooks(reply, _) => drop(reply.send(Err(Error::Unknown))),
            Self::WithOutput(reply, _) => drop(reply.send(Err(Error::Unknown))),
            Self::Queue(reply, _) => drop(reply.send(Err(Error::Unknown))),
            Self::Grant(reply, _) => drop(reply.send(Err(Error::Unknown))),
            Self::Pong(reply, _) => drop(reply.send(Err(Error::Unknown))),
            Self::Done(reply) => drop(reply.send(Err(Error::Unknown))),
        }
    }
}
