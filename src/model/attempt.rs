//! One execution of a task: how it is named, launched, ended and judged.
//!
//! [`Launch`] and [`Ended`] are what daemon and runner tell each other about an
//! attempt; [`Outcome`] is the verdict that is stored and shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::TaskId;
use super::receipt::Receipt;
use super::time::Time;

/// Names one attempt, and fences it: every report and every change carries the
/// number, and one that is not the task's live attempt is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The task.
    pub task: TaskId,
    /// The attempt's number, from 1, without gaps.
    pub number: u32,
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.task, self.number)
    }
}

/// Resources one attempt may use. A limit that the host cannot enforce is
/// refused, never ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory in bytes (`memory.max` of the attempt's cgroup, swap off).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// CPU time in thousandths of one core (`cpu.max`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<u32>,
    /// Processes and threads at once (`pids.max`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl Limits {
    /// True when nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything a runner needs to start one attempt. The capture file, and the
/// file that is the task's standard input if there is one, travel beside it as
/// open descriptors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Which attempt this is.
    pub key: AttemptKey,
    /// Program and arguments, passed as they are; the program is looked up in
    /// the task's `PATH` when its name has no slash.
    pub argv: Vec<String>,
    /// Variables the task asked for, on top of the runner's own allow-list.
    pub env: Vec<(String, String)>,
    /// Working directory; the target user's home, or `/`, when absent.
    pub cwd: Option<String>,
    /// User to run as; the policy's default when absent.
    pub user: Option<String>,
    /// Uid of whoever submitted the task, for the runner's policy to judge.
    pub asked_by: u32,
    /// File mode creation mask.
    pub umask: u32,
    /// Limits of the attempt's cgroup.
    pub limits: Limits,
    /// Bytes of output kept before capture starts to drop.
    pub output_cap: u64,
    /// Whether a second descriptor, the standard input, comes with this message.
    pub stdin: bool,
    /// Whether the daemon runs it for itself, as its own user, and no policy is
    /// asked: whoever is that user may do so anyway.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Whether a last descriptor comes with this message, the pipe of the commit
    /// that records it: the program begins once there is a byte in it, and never
    /// if it ends without one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after_commit: bool,
}

impl Launch {
    /// Forgets what only the process needs, once it is prepared: the variables
    /// and the arguments.
    pub fn lighten(&mut self) {
        self.env = Vec::new();
        self.argv.truncate(1);
    }
}

/// How the first process of an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum Exit {
    /// It exited by itself.
    Code {
        /// The exit status, 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// It never ran: the launch failed before or at `exec`.
    Spawn {
        /// What was attempted, on what, and why it failed.
        error: String,
        /// The host was short of something at that moment (descriptors,
        /// processes, memory), which is not the task's fault.
        #[serde(default)]
        scarce: bool,
        /// Nobody could say as whom it may run: the run-as policy could not be
        /// read. That is for an administrator to mend.
        #[serde(default)]
        undecided: bool,
        /// The run-as policy does not allow it. An administrator can.
        #[serde(default)]
        denied: bool,
    },
    /// It never ran: what it was to read of another task is not whole.
    Unfed {
        /// What is missing, and why.
        error: String,
    },
    /// Nobody saw how it ended: its runner died, or the host restarted.
    Lost,
}

/// What the kernel counted for an attempt. Fields are absent where the
/// controllers are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of all its processes, in microseconds.
    pub cpu_micros: Option<u64>,
    /// Highest memory use, in bytes.
    pub memory_peak: Option<u64>,
    /// Output bytes written to the capture file.
    pub output_kept: u64,
    /// Output bytes dropped because the cap was reached.
    pub output_dropped: u64,
}

/// A runner's final word on an attempt, kept until the daemon has committed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How the first process ended.
    pub exit: Exit,
    /// Whether the kernel's OOM killer struck inside the attempt's cgroup.
    pub oom: bool,
    /// Whether the runner ended the attempt because it was itself told to stop.
    pub interrupted: bool,
    /// Whether it never began, since its daemon ended before it had said that the
    /// start was on disk. Should it be there, the same attempt may be started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unrecorded: bool,
    /// When the attempt was seen to be over.
    pub at: Time,
    /// What it used.
    pub usage: Usage,
    /// What a call of a model says of itself, where the attempt was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
}

impl Ended {
    /// An end that nobody saw.
    #[must_use]
    pub fn lost(at: Time) -> Self {
        Self {
            exit: Exit::Lost,
            oom: false,
            interrupted: false,
            unrecorded: false,
            at,
            usage: Usage::default(),
            receipt: None,
        }
    }

    /// What the call of a model says that was turned away: it was not made, for
    /// a reason that is not the task's.
    #[must_use]
    pub fn turned_away(&self) -> Option<&Receipt> {
        let receipt = self.receipt.as_deref();
        receipt.filter(|receipt| receipt.end.is_turned_away())
    }

    /// The end of an attempt of which nothing ran, since what it was to read of
    /// another task is not whole: why.
    #[must_use]
    pub fn unfed(error: String, at: Time) -> Self {
        Self {
            exit: Exit::Unfed { error },
            ..Self::lost(at)
        }
    }

    /// The end of an attempt of which nothing ran: why, and whether the host
    /// was short of something.
    #[must_use]
    pub fn not_started(error: String, scarce: bool, at: Time) -> Self {
        Self {
            exit: Exit::Spawn {
                error,
                scarce,
                undecided: false,
                denied: false,
            },
            ..Self::lost(at)
        }
    }
}

/// Where and as whom an attempt runs, known once it was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Process id of the first process.
    pub pid: u32,
    /// Uid it runs under.
    pub uid: u32,
    /// Name of that user.
    pub user: String,
    /// Its cgroup below the cgroup root, where it has one.
    pub cgroup: Option<String>,
    /// When it was started.
    pub at: Time,
}

/// Why an attempt is over, in one word; retry rules go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Exit code 0.
    Success,
    /// Another exit code.
    Exit,
    /// Ended by a signal nobody here sent.
    Signal,
    /// Ended by the kernel for using more memory than its limit.
    Oom,
    /// Over its time limit.
    Timeout,
    /// Never ran.
    Spawn,
    /// Its runner died, or the host restarted, before the end was seen.
    Lost,
    /// Ended because its runner was told to stop.
    Interrupted,
    /// Cancelled by a person or a program.
    Cancelled,
    /// A task it depends on did not end as it has to.
    Skipped,
    /// Not started in time.
    Expired,
    /// The LLM provider refused it.
    Provider,
    /// Interrupted too often; quarantined.
    Poison,
    /// A call of a model would have gone beyond a budget.
    Budget,
}

impl Class {
    /// Every class, in storage order.
    pub const ALL: [Self; 14] = [
        Self::Success,
        Self::Exit,
        Self::Signal,
        Self::Oom,
        Self::Timeout,
        Self::Spawn,
        Self::Lost,
        Self::Interrupted,
        Self::Cancelled,
        Self::Skipped,
        Self::Expired,
        Self::Provider,
        Self::Poison,
        Self::Budget,
    ];

    /// The word used in storage, JSON, logs and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Oom => "oom",
            Self::Timeout => "timeout",
            Self::Spawn => "spawn",
            Self::Lost => "lost",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Expired => "expired",
            Self::Provider => "provider",
            Self::Poison => "poison",
            Self::Budget => "budget",
        }
    }

    /// The class a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.word() == word)
    }
}

/// The verdict on an attempt, and on a task: that of its last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Why it is over.
    pub class: Class,
    /// Exit code, when the process exited by itself.
    pub exit_code: Option<i32>,
    /// Signal, when a signal ended the process.
    pub signal: Option<i32>,
    /// One line for people: what failed and why. Empty on success.
    pub message: String,
}

/// One execution of a task, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which attempt.
    pub key: AttemptKey,
    /// Instance of the runner it was given to. Another instance that does not
    /// know the attempt proves it lost; the same one proves it never began.
    /// In a sandbox profile, what [`profile_runner`] says.
    pub runner: String,
    /// Boot id of the host at the claim.
    pub boot: String,
    /// When it was claimed.
    pub claimed: Time,
    /// Where it runs, once it does.
    pub started: Option<Started>,
    /// When it was over.
    pub ended: Option<Time>,
    /// The verdict; absent exactly while the attempt is live.
    pub outcome: Option<Outcome>,
    /// What it used.
    pub usage: Usage,
}

/// Begins the runner of an attempt in a sandbox profile; no shared runner's
/// instance has it, which is a number.
const PROFILE: &str = "profile:";

/// What stands in an attempt's `runner` when it got a runner of its own, in a
/// sandbox profile: there is no instance yet that could be named.
#[must_use]
pub fn profile_runner(profile: &str) -> String {
    format!("{PROFILE}{profile}")
}

impl Attempt {
    /// Whether it was given to a runner of its own, which no shared runner can
    /// know of.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.runner.starts_with(PROFILE)
    }
}
