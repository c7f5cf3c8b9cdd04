//! What a task runs, as it is shown.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::prompt::Prompt;
use crate::model::quantity::{ByteSize, format_duration};
use crate::model::spec::OnInterrupt;
use crate::model::task::Task;

use super::hooks::HookRule;
use super::number::{Pairs, is_default};

/// What a task runs, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunInfo {
    /// Program and arguments; none where a model is asked.
    pub command: Vec<String>,
    /// What a language model is asked, but for the text; its schema is not in
    /// listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Prompt>,
    /// Variables.
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: Pairs,
    /// Working directory.
    pub cwd: Option<String>,
    /// User asked for.
    pub user: Option<String>,
    /// File mode creation mask, in octal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
    /// Time limit of one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Time between the request to end and the kill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<String>,
    /// Longest wait in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_ttl: Option<String>,
    /// Longest silence of an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<String>,
    /// Memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// CPU limit, in cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Limit on processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Bytes of output kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_cap: Option<String>,
    /// Sandbox profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Whether it may ask models through the daemon.
    #[serde(default, skip_serializing_if = "is_default")]
    pub llm: bool,
    /// The task whose output it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_from: Option<i64>,
    /// What happens when it is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRule>,
    /// The task whose hook it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_of: Option<i64>,
    /// What its submitter called the request that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Number of the trace that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// What follows an interruption.
    pub on_interrupt: OnInterrupt,
    /// Attempts in all.
    pub max_attempts: u32,
    /// Attempts that counted against that so far.
    pub tries: u32,
}

impl RunInfo {
    /// The command, or the words that ask the same of a model, but for the text.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        match &self.prompt {
            None => self.command.clone(),
            Some(prompt) => prompt.words(),
        }
    }

    pub(super) fn of_task(task: &Task) -> Self {
        let spec = &*task.spec;
        let span = |ms: Option<u64>| ms.map(|ms| format_duration(Duration::from_millis(ms)));
        let size = |bytes: Option<u64>| bytes.map(|bytes| ByteSize(bytes).to_string());
        Self {
            command: spec.argv.clone(),
            prompt: spec.prompt.as_ref().map(Prompt::brief),
            env: Pairs(spec.env.clone()),
            cwd: spec.cwd.clone(),
            user: spec.user.clone(),
            umask: spec.umask.map(|mask| format!("{mask:03o}")),
            timeout: span(spec.timeout_ms),
            grace: span(spec.grace_ms),
            queue_ttl: span(spec.queue_ttl_ms),
            heartbeat: span(spec.heartbeat_ms),
            memory: size(spec.limits.memory),
            cpu: spec.limits.cpu_milli.map(|milli| f64::from(milli) / 1000.0),
            pids: spec.limits.pids,
            output_cap: size(spec.output_cap),
            profile: spec.profile.clone(),
            llm: spec.llm,
            stdin_from: spec.stdin_from.map(|id| id.0),
            hooks: spec.hooks.iter().map(HookRule::from).collect(),
            hook_of: spec.hook_of.map(|id| id.0),
            request: spec.request.clone(),
            trace: spec.trace.as_ref().map(|trace| trace.id.to_string()),
            on_interrupt: spec.on_interrupt,
            max_attempts: spec.retry.max_attempts,
            tries: task.tries,
        }
    }
}
