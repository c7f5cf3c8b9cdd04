//! What was asked: the part of a task that its submitter wrote. The checks its
//! fields pass before anything is stored are in [`super::check`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attempt::Limits;
use super::budget::{Budget, Cap};
use super::hook::Hook;
use super::id::{Run, TaskId, Tick};
use super::prompt::Prompt;
use super::retry::Retry;
use super::time::Time;
use super::trace::Trace;

/// Queue of a task that names none.
pub const DEFAULT_QUEUE: &str = "default";

/// What to do with a task whose attempt was cut short by no fault of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInterrupt {
    /// Run it again: effects happen at least once.
    #[default]
    Retry,
    /// Leave it failed for a person to look at: effects happen at most once.
    Hold,
}

/// The command and the conditions under which it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Program and arguments, never a shell string; none where a model is asked.
    pub argv: Vec<String>,
    /// What a language model is asked, instead of a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Prompt>,
    /// Variables on top of the runner's allow-list.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User to run as, within the host's run-as policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File mode creation mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Resource limits of each attempt.
    #[serde(skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// Sandbox profile, a `taskdaemon-run-NAME.socket` of the host; the shared
    /// runner when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Time limit of one attempt, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Time between the request to end and the kill, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// Longest wait in the queue before the task expires, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ttl_ms: Option<u64>,
    /// Longest silence of a running attempt, in milliseconds; it breaks it by
    /// `WATCHDOG=1` on its notify socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
    /// Bytes of output kept; the daemon's setting when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_cap: Option<u64>,
    /// The task whose output is the standard input, or goes behind the text of a
    /// prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin_from: Option<TaskId>,
    /// Whether it may ask models through the daemon.
    #[serde(skip_serializing_if = "is_default")]
    pub llm: bool,
    /// What its calls of models may come to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// What follows a failed attempt.
    #[serde(skip_serializing_if = "is_default")]
    pub retry: Retry,
    /// What follows an interrupted attempt.
    #[serde(skip_serializing_if = "is_default")]
    pub on_interrupt: OnInterrupt,
    /// What happens when the task is over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// The task whose hook this one is, or the latest run of the agent whose hook
    /// it is; nobody can ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_of: Option<TaskId>,
    /// What its submitter called the request that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Its place in a trace. It tells no two requests apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// The agent that this one is a run of; nobody can ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A key that only one unfinished task of an owner may have, and what happens
/// to a second one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// The key.
    pub key: String,
    /// What happens when an unfinished task has it.
    pub on_conflict: Conflict,
}

/// What becomes of a submit whose unique key an unfinished task has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Conflict {
    /// It is refused.
    #[default]
    Reject,
    /// It is answered with the task that has the key.
    Return,
    /// The task that has the key is cancelled, and the new one follows it.
    Replace,
}

/// A task that has to be over before another one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// Which.
    pub parent: Parent,
    /// How it has to have ended.
    pub wants: Wants,
}

/// Names a task that another one waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parent {
    /// One that exists.
    Task(TaskId),
    /// One of the same request, by its place in it.
    Member(usize),
}

/// How a task has to end for those that wait for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wants {
    /// It has to succeed; when it does not, those that wait are skipped.
    #[default]
    Ok,
    /// It has to be over, in whatever way.
    Any,
}

/// A task as submitted, before it has a number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTask {
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
    /// Not to be started before.
    pub run_at: Option<Time>,
    /// Must be over by then.
    pub deadline: Option<Time>,
    /// Idempotency key, unique per owner.
    pub key: Option<String>,
    /// Group key.
    pub group: Option<String>,
    /// Unique key while it is not over.
    pub unique: Option<Unique>,
    /// Tasks it waits for.
    pub after: Vec<After>,
    /// The task whose output it reads, which is one of those.
    pub stdin_from: Option<Parent>,
    /// What its whole batch may spend from now on.
    pub batch: Option<Cap>,
    /// The firing of a schedule that it stands for.
    pub tick: Option<Tick>,
    /// SHA-256 of the request, to tell a repeated submit from a reused key.
    pub body_hash: [u8; 32],
    /// Standard input of every attempt.
    pub stdin: Option<Vec<u8>>,
    /// The command and its conditions.
    pub spec: Spec,
}
