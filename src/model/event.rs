//! The append-only record of what happened: one row per change, written in
//! the same transaction as the change itself.

use super::id::TaskId;
use super::origin::Origin;
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
    /// Someone had a task that was over removed.
    Removed,
    /// Someone asked for a pause.
    PauseAsked,
    /// Someone asked for the end of a pause.
    ResumeAsked,
    /// Someone changed what was asked, before it ran.
    Edited,
    /// A schedule made no task, since this one was not over.
    TickLeftOut,
    /// Someone made, changed or removed a schedule.
    ScheduleChanged,
    /// Someone made, changed or removed an agent, or it stands elsewhere now.
    AgentChanged,
    /// Someone changed or removed a queue.
    QueueChanged,
    /// Someone had the configuration read again, and it came into force.
    Reloaded,
    /// Someone was turned away: unknown, or without the right to do it.
    Denied,
}

impl Kind {
    /// Kinds that are no states.
    const OTHERS: [Self; 13] = [
        Self::Submitted,
        Self::CancelAsked,
        Self::RetryAsked,
        Self::Removed,
        Self::PauseAsked,
        Self::ResumeAsked,
        Self::Edited,
        Self::TickLeftOut,
        Self::ScheduleChanged,
        Self::AgentChanged,
        Self::QueueChanged,
        Self::Reloaded,
        Self::Denied,
    ];

    /// Every word there is, for whoever asks for one.
    pub fn words() -> impl Iterator<Item = &'static str> {
        let states = State::ALL.into_iter().map(State::word);
        Self::OTHERS.into_iter().map(Self::word).chain(states)
    }

    /// The word stored and shown.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Changed(state) => state.word(),
            Self::CancelAsked => "cancel_asked",
            Self::RetryAsked => "retry_asked",
            Self::Removed => "removed",
            Self::PauseAsked => "pause_asked",
            Self::ResumeAsked => "resume_asked",
            Self::Edited => "edited",
            Self::TickLeftOut => "tick_left_out",
            Self::ScheduleChanged => "schedule_changed",
            Self::AgentChanged => "agent_changed",
            Self::QueueChanged => "queue_changed",
            Self::Reloaded => "reloaded",
            Self::Denied => "denied",
        }
    }
}

/// One row of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Time,
    /// To which task; 0 where it is about none.
    pub task: TaskId,
    /// In which attempt; 0 before the first.
    pub attempt: u32,
    /// What.
    pub kind: Kind,
    /// Uid of who asked for it; absent when nobody did.
    pub actor: Option<u32>,
    /// By which process and request.
    pub origin: Origin,
    /// Uid of the task's owner, who may read of it.
    pub owner: u32,
    /// The task's queue; empty where it is about none.
    pub queue: String,
    /// What the kind alone does not say, as a JSON object.
    pub data: Option<String>,
}

/// A row of the record as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number: later rows have higher ones, and none is missing between.
    pub seq: i64,
    /// When.
    pub at: Time,
    /// To which task.
    pub task: TaskId,
    /// In which attempt; 0 before the first.
    pub attempt: u32,
    /// What, as the word of its [`Kind`].
    pub kind: String,
    /// Uid of who asked for it; absent when nobody did.
    pub actor: Option<u32>,
    /// The process that asked.
    pub pid: Option<u32>,
    /// The request's name.
    pub request: Option<String>,
    /// The task's queue.
    pub queue: Option<String>,
    /// What the kind alone does not say, as a JSON object.
    pub data: Option<String>,
}

/// Which rows of the record are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only later ones than this, where nothing is said of `before`.
    pub after: i64,
    /// Only earlier ones than this, newest first.
    pub before: Option<i64>,
    /// Only about tasks of this owner.
    pub owner: Option<u32>,
    /// Only about this task.
    pub task: Option<TaskId>,
    /// Only about tasks of this queue.
    pub queue: Option<String>,
    /// Only of these kinds; all when empty.
    pub kinds: Vec<String>,
    /// Only what this user asked for.
    pub actor: Option<u32>,
    /// Only what the request of this name asked for.
    pub request: Option<String>,
    /// Only what happened at this time and later.
    pub since: Option<Time>,
    /// At most so many.
    pub limit: u32,
}

/// A page of the record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// The rows, in the order of their numbers.
    pub entries: Vec<Entry>,
    /// Everything up to this number was looked at, or from it on where the newest
    /// come first: the next page is behind it.
    pub reached: i64,
    /// Number of the oldest row that is kept; one more than the last one's
    /// when none is.
    pub oldest: i64,
    /// Number of the last row.
    pub last: i64,
}
