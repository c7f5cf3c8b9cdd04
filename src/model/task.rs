//! A task, where it can stand, and what can happen to it. How one leads to the
//! other is in [`super::step`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attempt::{AttemptKey, Ended, Outcome, Started};
use super::hook::End;
use super::id::{TaskId, Tick};
use super::spec::Spec;
use super::time::Time;

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for tasks it depends on.
    Blocked,
    /// Waits for its start time or the end of a backoff.
    Scheduled,
    /// Ready; waits for a slot.
    Queued,
    /// An attempt is live.
    Running,
    /// An attempt is live and frozen.
    Paused,
    /// An attempt is live and asked to end.
    Stopping,
    /// Over: exit code 0.
    Succeeded,
    /// Over: every attempt failed. Also the dead list.
    Failed,
    /// Over: cancelled.
    Cancelled,
    /// Over: a task it depends on failed.
    Skipped,
    /// Over: not started within its queue time.
    Expired,
}

impl State {
    /// Every state, in storage order.
    pub const ALL: [Self; 11] = [
        Self::Blocked,
        Self::Scheduled,
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
        Self::Expired,
    ];

    /// The word used in JSON, logs and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Expired => "expired",
        }
    }

    /// The state a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether nothing happens any more without an explicit retry.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        self.end().is_some()
    }

    /// Which end this is, if it is one.
    #[must_use]
    pub const fn end(self) -> Option<End> {
        match self {
            Self::Succeeded => Some(End::Succeeded),
            Self::Failed => Some(End::Failed),
            Self::Cancelled => Some(End::Cancelled),
            Self::Skipped => Some(End::Skipped),
            Self::Expired => Some(End::Expired),
            Self::Blocked
            | Self::Scheduled
            | Self::Queued
            | Self::Running
            | Self::Paused
            | Self::Stopping => None,
        }
    }

    /// Whether an attempt is live.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Stopping)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a live attempt is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// Someone cancelled the task.
    Cancel,
    /// The attempt is over its time limit.
    Timeout,
    /// The task is over its deadline.
    Deadline,
    /// The attempt gave no sign of life for too long.
    Silence,
}

/// Why a scheduled task is not ready yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delay {
    /// Its start time has not come.
    Start,
    /// It waits after a failed attempt.
    Backoff,
    /// Its runner turned an attempt away: it was full, or about to stop.
    TurnedAway,
    /// The host was short of something that a start needs.
    Scarce,
    /// The run-as policy could not be read, or did not allow it.
    Undecided,
}

/// Waiting time that weighs as much as one point of priority, so that no task
/// waits for ever behind ones of a higher priority.
pub const AGEING: Duration = Duration::from_secs(300);

/// A task: what was asked, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// Uid of the submitter.
    pub owner: u32,
    /// Queue it waits in.
    pub queue: String,
    /// Higher starts first.
    pub priority: i32,
    /// Name for people.
    pub name: Option<String>,
    /// Labels for filters.
    pub labels: BTreeMap<String, String>,
    /// Idempotency key.
    pub key: Option<String>,
    /// Group key: of those in a queue that have the same one, only so many
    /// run at once.
    pub group: Option<String>,
    /// Unique key: no two tasks of an owner that are not over have the same.
    pub unique: Option<String>,
    /// When it must be over, attempts and waits together.
    pub deadline: Option<Time>,
    /// The schedule that made it, and for which nominal time.
    pub tick: Option<Tick>,
    /// The command and its conditions.
    pub spec: Arc<Spec>,
    /// Where it stands.
    pub state: State,
    /// When it was accepted.
    pub created: Time,
    /// When it became, or becomes, ready to start; start order within a priority.
    pub due: Time,
    /// Why it is scheduled, while it is.
    pub delay: Option<Delay>,
    /// When the clock next has something to say about it, if ever.
    pub wake: Option<Time>,
    /// When the time limit of its live attempt strikes.
    pub time_limit: Option<Time>,
    /// The last sign of life of its live attempt, where it has to give any.
    pub beat: Option<Time>,
    /// Since when it is paused.
    pub paused: Option<Time>,
    /// Number of its latest attempt; 0 before the first.
    pub attempt: u32,
    /// Attempts that count against its budget.
    pub tries: u32,
    /// When attempts were interrupted, the latest [`POISON_COUNT`] of them.
    pub interruptions: Vec<Time>,
    /// Why its live attempt is being ended.
    pub stop: Option<StopCause>,
    /// When it was over.
    pub ended: Option<Time>,
    /// The verdict on its latest attempt, or on the task when it had none.
    pub outcome: Option<Outcome>,
}

impl Task {
    /// Its place in the start order among ready tasks, lowest first: when it
    /// was due, less [`AGEING`] for each point of priority. That compares as
    /// priority does when it grows with the waiting time, and never changes.
    #[must_use]
    pub fn rank(&self) -> i64 {
        let point = i64::try_from(AGEING.as_micros()).unwrap_or(i64::MAX);
        self.due
            .micros()
            .saturating_sub(i64::from(self.priority).saturating_mul(point))
    }

    /// Names the latest attempt.
    #[must_use]
    pub const fn attempt_key(&self) -> AttemptKey {
        AttemptKey {
            task: self.id,
            number: self.attempt,
        }
    }
}

/// Something that happens to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The time in [`Task::wake`] has come.
    Wake,
    /// The last task it depended on ended well enough.
    Unblock,
    /// A task it depended on did not.
    Skip {
        /// Which, and how it ended, in words.
        why: String,
    },
    /// It gets a slot.
    Claim,
    /// An attempt is over.
    Ended {
        /// Which.
        key: AttemptKey,
        /// Where and as whom it ran, if it did and that is not known yet.
        started: Option<Started>,
        /// How.
        ended: Ended,
    },
    /// Someone cancels it.
    Cancel,
    /// Someone wants it run again.
    Retry {
        /// Whether a task that it depends on is not over.
        blocked: bool,
    },
    /// Someone freezes it.
    Pause,
    /// Someone thaws it.
    Resume,
    /// Its live attempt gave a sign of life.
    Beat {
        /// When.
        at: Time,
    },
    /// Its live attempt asks for its time limit not to strike before.
    Extend {
        /// This time.
        until: Time,
    },
    /// Its live attempt says itself that it has gone wrong.
    GiveUp,
    /// The clock was set; what is measured as a duration moves along.
    ClockSet {
        /// By so many microseconds, forth or back.
        by: i64,
    },
}

/// What has to be done in the world about a step, once it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Start the attempt just claimed.
    Launch,
    /// Ask every process of the attempt to end.
    Terminate,
    /// End every process of the attempt.
    Kill,
    /// Freeze every process of the attempt.
    Freeze,
    /// Thaw every process of the attempt.
    Thaw,
    /// The attempt's end is recorded: its runner may forget it.
    Acknowledge,
}

/// The result of an event that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The task afterwards.
    pub task: Task,
    /// The verdict on the attempt that this event ended, if it ended one.
    pub verdict: Option<Outcome>,
    /// What to do, in order.
    pub acts: Vec<Act>,
}

impl Step {
    /// A step that ends no attempt.
    #[must_use]
    pub(super) const fn to(task: Task, acts: Vec<Act>) -> Self {
        Self {
            task,
            verdict: None,
            acts,
        }
    }
}

/// An event that this state does not allow. The task is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The report is not about the live attempt.
    #[error("attempt {0} is not the live attempt of its task; its report changes nothing")]
    Fenced(AttemptKey),
    /// The task is over.
    #[error("cannot {act} task {task}: it is already {state}")]
    Over {
        /// What was attempted.
        act: &'static str,
        /// On what.
        task: TaskId,
        /// How it ended.
        state: State,
    },
    /// The task belongs to an agent.
    #[error(
        "cannot {act} task {task}: it belongs to an agent, which makes a new one for each run; \
         see `taskdaemon agent`"
    )]
    OfAgent {
        /// What was attempted.
        act: &'static str,
        /// On what.
        task: TaskId,
    },
    /// The task is not over.
    #[error("cannot {act} task {task}: it is {state}; {hint}")]
    Unfit {
        /// What was attempted.
        act: &'static str,
        /// On what.
        task: TaskId,
        /// Where it stands.
        state: State,
        /// What to do instead.
        hint: &'static str,
    },
}

impl Refusal {
    /// Why `act` cannot be done with a task as it stands; `hint` says what to
    /// do instead while it is not over.
    pub(super) const fn of(act: &'static str, task: &Task, hint: &'static str) -> Self {
        if task.state.is_terminal() {
            return Self::Over {
                act,
                task: task.id,
                state: task.state,
            };
        }
        Self::Unfit {
            act,
            task: task.id,
            state: task.state,
            hint,
        }
    }
}
