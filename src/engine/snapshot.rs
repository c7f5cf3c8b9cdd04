//! The engine's figures: one value that status, health, metrics and `STATUS=`
//! all read.

use crate::model::task::State;
use crate::model::time::Time;

use super::command::Abilities;

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

/// The runner at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerInfo {
    /// Name of its life.
    pub instance: String,
    /// Version of its program.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// What it can enforce.
    pub abilities: Abilities,
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
    /// Slots in use.
    pub used: u32,
    /// The connected runner.
    pub runner: Option<RunnerInfo>,
    /// Commits since start.
    pub commits: u64,
    /// Commands carried out since start.
    pub commands: u64,
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
