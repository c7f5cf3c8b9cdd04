//! The engine's figures: one value that status, health, metrics and `STATUS=`
//! all read.

use std::sync::Arc;

use crate::model::task::State;
use crate::model::time::Time;
use crate::store::disk::Shortage;

use super::command::RunnerUp;
use super::signs::Signs;

/// What the engine is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Opening and recovering.
    #[default]
    Starting,
    /// At work.
    Running,
    /// Starting nothing more.
    Stopping,
    /// Storage failed; the process is about to end.
    Failed,
}

/// Figures as of one turn of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is doing.
    pub phase: Phase,
    /// Tasks in each state, in the order of [`State::ALL`].
    pub counts: [u64; State::ALL.len()],
    /// Slots there are.
    pub slots: u32,
    /// Attempts at once in a queue that has no limit of its own.
    pub queue_concurrency: Option<u32>,
    /// Slots in use.
    pub used: u32,
    /// The connected runner.
    pub runner: Option<Arc<RunnerUp>>,
    /// What live attempts say of themselves.
    pub signs: Signs,
    /// Commits since start.
    pub commits: u64,
    /// Commands carried out since start.
    pub commands: u64,
    /// Number of the last event.
    pub last_event: i64,
    /// Set while the disk has too little room for new tasks.
    pub shortage: Option<Shortage>,
    /// When the engine's last turn ended.
    pub turned: Time,
}

impl Snapshot {
    /// Tasks in one state.
    #[must_use]
    pub fn count(&self, state: State) -> u64 {
        State::ALL
            .iter()
            .position(|other| *other == state)
            .map_or(0, |index| self.counts[index])
    }
}
