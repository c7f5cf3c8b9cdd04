//! The append-only record of what happened: one row per change, written in
//! the same transaction as the change itself.

use super::id::TaskId;
use super::task::State;
use super::time::Time;

/// What a row of the record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A task was accepted.
    Submitted,
    /// A task changed its state.
    Changed(State),
    /// Someone asked for a cancel.
    CancelAsked,
    /// Someone asked for another run.
    RetryAsked,
    /// Someone asked for a pause.
    PauseAsked,
    /// Someone asked for the end of a pause.
    ResumeAsked,
    /// Someone changed what was asked, before it ran.
    Edited,
    /// A schedule made no task, since this one was not over.
    TickLeftOut,
}

impl Kind {
    /// The word stored and shown.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Changed(state) => state.word(),
            Self::CancelAsked => "cancel_asked",
            Self::RetryAsked => "retry_asked",
            Self::PauseAsked => "pause_asked",
            Self::ResumeAsked => "resume_asked",
            Self::Edited => "edited",
            Self::TickLeftOut => "tick_left_out",
        }
    }
}

/// One row of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Time,
    /// To which task.
    pub task: TaskId,
    /// In which attempt; 0 before the first.
    pub attempt: u32,
    /// What.
    pub kind: Kind,
    /// Uid of who asked for it; absent when nobody did.
    pub actor: Option<u32>,
    /// Uid of the task's owner, who may read of it.
    pub owner: u32,
    /// What the kind alone does not say, as a JSON object.
    pub data: Option<String>,
}
