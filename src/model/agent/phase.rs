//! Where an instance of an agent can stand.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where an instance of an agent stands.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nobody wants it to run.
    #[default]
    Stopped,
    /// Waits for agents that have to be up before it.
    Waiting,
    /// Has a run that has not said yet that it is up.
    Starting,
    /// Is up.
    Healthy,
    /// Is up, and has done nothing for a while.
    Idle,
    /// Its run was asked to end.
    Stopping,
    /// What its run left behind is put right.
    CleaningUp,
    /// Waits for its next start after an end.
    BackingOff,
    /// Waits longer, after too many ends in a row.
    CoolingOff,
    /// Has ended with exit code 0, and is not started again.
    Completed,
    /// Has ended otherwise, and is not started again.
    Failed,
}

impl Phase {
    /// Every phase, in the order in which they are told.
    pub const ALL: [Self; 11] = [
        Self::Healthy,
        Self::Idle,
        Self::Starting,
        Self::Waiting,
        Self::BackingOff,
        Self::CoolingOff,
        Self::Stopping,
        Self::CleaningUp,
        Self::Stopped,
        Self::Completed,
        Self::Failed,
    ];

    /// The word used in JSON, logs and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Idle => "idle",
            Self::Stopping => "stopping",
            Self::CleaningUp => "cleaning_up",
            Self::BackingOff => "backing_off",
            Self::CoolingOff => "cooling_off",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// Whether it is up.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Healthy | Self::Idle)
    }

    /// Whether nothing happens any more until somebody wants it.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Completed | Self::Failed)
    }

    /// Whether it has a run that nobody has asked to end.
    pub(super) const fn has_run(self) -> bool {
        matches!(self, Self::Starting | Self::Healthy | Self::Idle)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
