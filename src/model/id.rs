//! How a task is named everywhere: in rows, messages, paths and words.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// Number of a task: positive, unique for ever on one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub i64);

/// Number of a schedule: positive, unique for ever on one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScheduleId(pub i64);

/// Number of an agent: positive, unique for ever on one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentId(pub i64);

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One firing of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tick {
    /// Which schedule.
    pub schedule: ScheduleId,
    /// The time it fired for, which is not always the time it fired at.
    pub nominal: Time,
}

/// What a task is to an agent: a run of one of its instances, or the clean-up
/// behind one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    /// Which agent.
    pub agent: AgentId,
    /// Which instance, counted from 1.
    pub instance: u32,
    /// Whether it is a clean-up.
    pub clean_up: bool,
}
