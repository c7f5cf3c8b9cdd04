//! The wire: what a task looks like in JSON, coming in, and the answer to it.
//!
//! The same fields with the same names are in files of tasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::quantity::ByteSize;
use crate::model::spec::{Conflict, OnInterrupt};

use super::budgets::BudgetRule;
use super::hooks::HookRule;
use super::json::{object, objects};
use super::number::{Cores, Factor, Pairs, Span, Word, is_default};

/// A task to submit, or a list of them under `tasks`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Submit {
    /// Program and arguments.
    pub command: Vec<String>,
    /// What a language model is asked, instead of a command.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PromptRule")]
    pub prompt: Option<PromptRule>,
    /// Variables.
    #[serde(skip_serializing_if = "is_default")]
    pub env: Pairs,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User to run as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File mode creation mask, in octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
    /// Standard input, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Standard input, as bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin_base64: Option<String>,
    /// The task whose standard output is the standard input, or goes behind the
    /// text of a prompt: by its number, or by the `ref` of one that stands before
    /// it in this request. It waits for it, as if that were in `after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin_from: Option<Word>,
    /// Queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Higher starts first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: Pairs,
    /// Not to be started before this time, in RFC 3339 form.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub run_at: Option<String>,
    /// Not to be started before so much time has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// Must be over by this time, in RFC 3339 form.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub deadline: Option<String>,
    /// Idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Group key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What other tasks of this request call it in their `after`; also its name
    /// where it has no other.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub refer: Option<String>,
    /// Tasks it waits for, each by its number or by its `ref` in this request:
    /// `12`, `"build"`. They have to succeed; with `:any` behind, as in
    /// `"12:any"` or `"build:any"`, they only have to be over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Word>,
    /// Unique key while it is not over. The idempotency key comes first: a
    /// request that is repeated gets its task again, over or not, and only a
    /// new one is asked for its unique key.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UniqueRule")]
    pub unique: Option<UniqueRule>,
    /// Longest silence of an attempt on its notify socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Span>,
    /// Time limit of one attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Time between the request to end and the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// Longest wait in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ttl: Option<Span>,
    /// Memory limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// CPU limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cores>,
    /// Limit on processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Bytes of output kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_cap: Option<ByteSize>,
    /// Sandbox profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Whether it may ask models through the daemon: its programs find that by
    /// `OPENAI_BASE_URL` and `ANTHROPIC_BASE_URL`.
    #[serde(skip_serializing_if = "is_default")]
    pub llm: bool,
    /// What its calls of models may come to.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BudgetRule")]
    pub budget: Option<BudgetRule>,
    /// What follows an interruption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_interrupt: Option<OnInterrupt>,
    /// What follows a failed attempt.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RetryRule")]
    pub retry: Option<RetryRule>,
    /// What happens when it is over.
    #[serde(deserialize_with = "objects", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<HookRule>")]
    pub hooks: Option<Vec<HookRule>>,
    /// Several tasks, instead of everything above.
    #[serde(deserialize_with = "objects", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Self>")]
    pub tasks: Option<Vec<Self>>,
}

impl Submit {
    /// The field by which it has to do with other tasks of its request, if any.
    pub(super) fn names_others(&self) -> Option<&'static str> {
        let shares = self
            .budget
            .as_ref()
            .is_some_and(|budget| budget.batch.is_some());
        let fields = [
            ("after", !self.after.is_empty()),
            ("ref", self.refer.is_some()),
            ("stdin_from", self.stdin_from.is_some()),
            ("budget.batch", shares),
        ];
        fields
            .into_iter()
            .find(|(_, there)| *there)
            .map(|(name, _)| name)
    }
}

/// A key that only one unfinished task of an owner has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UniqueRule {
    /// The key.
    pub key: String,
    /// What happens when an unfinished task has it: `reject` (the default),
    /// `return` or `replace`.
    #[serde(default)]
    pub on_conflict: Conflict,
}

/// What a language model is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PromptRule {
    /// The text; at most 1 MiB. It may be empty where `stdin_from` says what is
    /// asked.
    pub text: String,
    /// The model, by its name in section `[llm]`; the first one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Instructions ahead of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Most tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// JSON schema of the answer; at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// How often the model is asked to mend an answer that is not as the schema
    /// has it; 2 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repairs: Option<u32>,
    /// The text has a prompt a line, each a JSON object with `id`, `text` and,
    /// where they are others than those of all, `system` and `max_tokens`. They
    /// go to the provider as one of its own batches, for half the price and
    /// within a day, and so do their answers into the output.
    #[serde(skip_serializing_if = "is_default")]
    pub provider_batch: bool,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryRule {
    /// Attempts in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Longest first wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Span>,
    /// Growth of the wait from try to try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<Factor>,
    /// Longest wait of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_max: Option<Span>,
    /// Exit codes and classes that are tried again; when empty, all but `oom`
    /// and `spawn`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retry_on: Vec<Word>,
    /// Exit codes and classes that are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_retry_on: Vec<Word>,
}

/// The answer to one submitted task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// Its number.
    pub id: i64,
    /// Where it stands.
    pub state: String,
    /// False when this is an earlier task with the same idempotency key, or the
    /// one that has the unique key.
    pub created: bool,
    /// What the request called it.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub refer: Option<String>,
}
