//! What daemon and runner say to each other: length-prefixed JSON on a unix
//! stream, with open descriptors passed beside [`ToRunner::Launch`].
//!
//! Frame: a 4-byte little-endian length, then that many bytes of JSON. Unknown
//! fields are ignored, the numbers below are compared at connection, and a
//! message that the other side is too old for is not sent (`since`), so a
//! daemon and a runner of neighbouring versions understand each other both
//! ways. Either side speaks [`Hello`] first; the runner's names every attempt
//! it holds, and after it come, unasked, the reports that nobody acknowledged.

use serde::{Deserialize, Serialize};

use crate::model::attempt::{AttemptKey, Ended, Launch, Started};
use crate::model::notice::Notice;
use crate::model::time::Time;

/// Oldest protocol this build still speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// Newest protocol this build speaks.
pub const PROTOCOL_MAX: u32 = 4;
/// Oldest protocol in which a launch can wait for its commit.
pub const AFTER_COMMIT: u32 = 4;
/// Largest frame accepted, in bytes: an argument list and environment of the
/// kernel's limit, escaped, fit well within.
pub const FRAME_MAX: usize = 16 * 1024 * 1024;

/// Who is speaking, and which protocols it can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol it speaks.
    pub min: u32,
    /// Newest protocol it speaks.
    pub max: u32,
    /// Version of its program.
    pub version: String,
    /// Its process id.
    pub pid: u32,
}

impl Hello {
    /// This program's introduction.
    #[must_use]
    pub fn ours() -> Self {
        Self {
            min: PROTOCOL_MIN,
            max: PROTOCOL_MAX,
            version: crate::VERSION.to_owned(),
            pid: std::process::id(),
        }
    }

    /// Whether the two have a protocol in common.
    #[must_use]
    pub const fn understands(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

/// What the runner can enforce where it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one answer per kernel feature, on the wire"
)]
pub struct Abilities {
    /// Each attempt gets a cgroup of its own, killed as a whole.
    pub cgroup: bool,
    /// Memory limits and OOM detection.
    pub memory: bool,
    /// CPU limits.
    pub cpu: bool,
    /// Limits on the number of processes.
    pub pids: bool,
    /// Tasks may run as other users than the runner's.
    pub switch_user: bool,
    /// Attempts can be frozen and thawed.
    #[serde(default)]
    pub freeze: bool,
}

/// The runner's introduction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerHello {
    /// Version numbers and pid.
    #[serde(flatten)]
    pub hello: Hello,
    /// Random name of this runner's life; kept over a renewal by `execve`,
    /// which is the same process with the same children.
    pub instance: String,
    /// The kernel's boot id.
    pub boot: String,
    /// What it can enforce.
    pub abilities: Abilities,
    /// The file by which it judges as whom tasks may run, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Attempts it holds: live, or ended and not yet acknowledged.
    pub held: Vec<AttemptKey>,
}

/// Daemon to runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum ToRunner {
    /// The daemon's introduction.
    Hello(Hello),
    /// Start an attempt. Descriptors: the capture file, then standard input if
    /// the launch says so, then the pipe of its commit, likewise. A launch of an attempt that is already held changes
    /// nothing.
    Launch(Launch),
    /// Send a signal to every process of an attempt.
    Signal {
        /// The attempt.
        key: AttemptKey,
        /// The signal's number.
        signal: i32,
    },
    /// End every process of an attempt at once.
    Kill {
        /// The attempt.
        key: AttemptKey,
    },
    /// Stop every process of an attempt where it is, without its knowing. A
    /// frozen attempt can be killed; a signal that it handles reaches it when
    /// it is thawed, and one that it does not ends it at once.
    Freeze {
        /// The attempt.
        key: AttemptKey,
    },
    /// Let a frozen attempt go on.
    Thaw {
        /// The attempt.
        key: AttemptKey,
    },
    /// The end of this attempt is committed; forget it.
    Ack {
        /// The attempt.
        key: AttemptKey,
    },
    /// Replace yourself by the program now installed, keeping every child.
    Renew,
}

/// Runner to daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum FromRunner {
    /// The runner's introduction.
    Hello(RunnerHello),
    /// It was told to stop and starts nothing more. Repeated at each connection.
    Leaving,
    /// An attempt runs.
    Started {
        /// The attempt.
        key: AttemptKey,
        /// Where and as whom.
        started: Started,
    },
    /// What a live attempt has said about itself since the last of these. After
    /// each connection all that is known of it, possibly as two: the second
    /// with the last sign of life alone.
    Notified {
        /// The attempt.
        key: AttemptKey,
        /// What it said.
        notice: Notice,
        /// When it said the last part of it.
        at: Time,
    },
    /// An attempt is over and nothing of it is left. Repeated at each
    /// connection until acknowledged.
    Ended {
        /// The attempt.
        key: AttemptKey,
        /// Where and as whom it ran, if it did.
        started: Option<Started>,
        /// How it ended.
        ended: Ended,
    },
}

impl ToRunner {
    /// Oldest protocol that has this message.
    #[must_use]
    pub const fn since(&self) -> u32 {
        match self {
            // An older runner would begin it at once.
            Self::Launch(launch) if launch.after_commit => AFTER_COMMIT,
            // An older runner would run it as somebody else.
            Self::Launch(launch) if launch.own => 3,
            Self::Hello(_)
            | Self::Launch(_)
            | Self::Signal { .. }
            | Self::Kill { .. }
            | Self::Ack { .. }
            | Self::Renew => 1,
            Self::Freeze { .. } | Self::Thaw { .. } => 2,
        }
    }
}

impl FromRunner {
    /// Oldest protocol that has this message.
    #[must_use]
    pub const fn since(&self) -> u32 {
        match self {
            Self::Hello(_) | Self::Leaving | Self::Started { .. } | Self::Ended { .. } => 1,
            Self::Notified { .. } => 2,
        }
    }
}
