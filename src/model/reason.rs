//! Why a task is not running, or not over: always a reason, and until when or
//! until which event.

use std::fmt;

use super::budget::Short;
use super::gauge::Cause;
use super::id::TaskId;
use super::task::State;
use super::time::Time;

/// What a task that is not at rest waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Its start time.
    StartTime {
        /// When it becomes ready.
        until: Time,
    },
    /// The end of the pause after a failed attempt.
    Backoff {
        /// When it becomes ready.
        until: Time,
        /// Attempts that count against its budget so far.
        tries: u32,
        /// Attempts it has in all.
        most: u32,
    },
    /// The end of a pause, because its runner turned an attempt away.
    TurnedAway {
        /// When it becomes ready.
        until: Time,
        /// What the runner said.
        why: String,
    },
    /// The end of a pause, because the host was short of something.
    Scarce {
        /// When it becomes ready.
        until: Time,
        /// Of what.
        why: String,
    },
    /// A run-as policy that can be read and allows it.
    Undecided {
        /// When it is tried again.
        until: Time,
        /// What is wrong with it, or what it does not allow.
        why: String,
    },
    /// Others of its group key, of which only so many run at once.
    Group {
        /// The group key.
        group: String,
        /// How many may run at once.
        limit: u32,
    },
    /// The next start that its queue's rate allows.
    Rate {
        /// The queue.
        queue: String,
        /// When that is.
        until: Time,
    },
    /// Attempts of its owner, who has as many as one user may have.
    UserSlot {
        /// The owner's uid.
        owner: u32,
        /// Attempts a user may have.
        limit: u32,
    },
    /// A model that can be asked.
    Model {
        /// Which.
        model: String,
        /// What keeps it from being asked.
        cause: Cause,
        /// Until when, where that is a time.
        until: Option<Time>,
    },
    /// Room in a budget.
    Budget {
        /// Whose.
        whose: String,
        /// What is short.
        short: Short,
        /// When the next day begins, where that helps.
        until: Option<Time>,
    },
    /// A free slot on this host.
    Slot {
        /// Slots in use.
        used: u32,
        /// Slots there are.
        total: u32,
    },
    /// A free slot of its queue.
    QueueSlot {
        /// The queue.
        queue: String,
        /// Slots in use.
        used: u32,
        /// Slots the queue has.
        total: u32,
    },
    /// Its queue is paused.
    QueuePaused {
        /// The queue.
        queue: String,
    },
    /// Tasks that it depends on.
    Dependency {
        /// The first of them and where it stands, where that is known.
        first: Option<(TaskId, Option<State>)>,
        /// How many more there are.
        more: u64,
    },
    /// No runner is connected; tasks start when one is.
    NoRunner,
    /// The daemon is shutting down; tasks start when it is back.
    Shutdown,
    /// Someone to resume it.
    Resume,
    /// Its processes are asked to end, and are killed at a set time.
    Stopping {
        /// When what is left is killed.
        until: Option<Time>,
    },
    /// Its own process: it runs.
    Itself {
        /// When its time limit strikes.
        until: Option<Time>,
    },
}

impl Reason {
    /// The word that programs go by.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::StartTime { .. } => "start_time",
            Self::Backoff { .. } => "backoff",
            Self::TurnedAway { .. } => "turned_away",
            Self::Scarce { .. } => "scarce",
            Self::Undecided { .. } => "undecided",
            Self::Group { .. } => "group",
            Self::Rate { .. } => "rate",
            Self::UserSlot { .. } => "user_slot",
            Self::Model { .. } => "model",
            Self::Budget { .. } => "budget",
            Self::Slot { .. } => "slot",
            Self::QueueSlot { .. } => "queue_slot",
            Self::QueuePaused { .. } => "queue_paused",
            Self::Dependency { .. } => "dependency",
            Self::NoRunner => "no_runner",
            Self::Shutdown => "shutdown",
            Self::Resume => "resume",
            Self::Stopping { .. } => "stopping",
            Self::Itself { .. } => "running",
        }
    }

    /// Until when, where the end is a time and not an event.
    #[must_use]
    pub const fn until(&self) -> Option<Time> {
        match self {
            Self::StartTime { until }
            | Self::Backoff { until, .. }
            | Self::TurnedAway { until, .. }
            | Self::Scarce { until, .. }
            | Self::Undecided { until, .. }
            | Self::Rate { until, .. } => Some(*until),
            Self::Stopping { until }
            | Self::Itself { until }
            | Self::Model { until, .. }
            | Self::Budget { until, .. } => *until,
            Self::Slot { .. }
            | Self::Group { .. }
            | Self::UserSlot { .. }
            | Self::QueueSlot { .. }
            | Self::QueuePaused { .. }
            | Self::Dependency { .. }
            | Self::NoRunner
            | Self::Shutdown
            | Self::Resume => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartTime { .. } => f.write_str("waits for its start time"),
            Self::Backoff { tries, most, .. } => {
                write!(
                    f,
                    "waits to be tried again after {tries} of {most} attempts"
                )
            }
            Self::TurnedAway { why, .. } => {
                write!(f, "waits to be tried again: it was turned away: {why}")
            }
            Self::Scarce { why, .. } => {
                write!(f, "waits to be tried again: the host is short: {why}")
            }
            Self::Undecided { why, .. } => {
                write!(f, "waits for the run-as policy: {why}")
            }
            Self::Group { group, limit } => {
                write!(f, "waits for others of group `{group}`: {limit} at a time")
            }
            Self::Rate { queue, .. } => {
                write!(f, "waits for queue `{queue}`: its rate is used up")
            }
            Self::UserSlot { owner, limit } => {
                write!(f, "waits for other tasks of uid {owner}: {limit} at a time")
            }
            Self::Model { model, cause, .. } => {
                write!(f, "waits for model `{model}`: {cause}")
            }
            Self::Budget { whose, short, .. } => {
                write!(f, "waits for the budget of {whose}: {short}")
            }
            Self::Slot { used, total } => {
                write!(f, "waits for a slot: {used} of {total} in use")
            }
            Self::QueueSlot { queue, used, total } => {
                write!(
                    f,
                    "waits for queue `{queue}`: {used} of {total} slots in use"
                )
            }
            Self::QueuePaused { queue } => write!(f, "waits for paused queue `{queue}`"),
            Self::Dependency { first, more } => dependency(f, *first, *more),
            Self::NoRunner => f.write_str("waits for a runner to connect"),
            Self::Shutdown => f.write_str("waits for the daemon, which is stopping"),
            Self::Resume => f.write_str("paused: waits for `resume`"),
            Self::Stopping { .. } => f.write_str("stopping: its processes are asked to end"),
            Self::Itself { .. } => f.write_str("running"),
        }
    }
}

fn dependency(
    f: &mut fmt::Formatter<'_>,
    first: Option<(TaskId, Option<State>)>,
    more: u64,
) -> fmt::Result {
    match first {
        None => return f.write_str("waits for a task it depends on"),
        Some((id, None)) => write!(f, "waits for task {id}")?,
        Some((id, Some(state))) => write!(f, "waits for task {id} ({state})")?,
    }
    if more > 0 {
        write!(f, " and {more} more")?;
    }
    Ok(())
}
