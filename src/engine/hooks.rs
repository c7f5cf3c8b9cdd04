//! Hooks: the tasks that follow from a task's end.
//!
//! A hook is inserted in the transaction that ends the task it belongs to:
//! both are on disk, or neither is. From there it is a task as any other, of
//! the same owner, with retries; what it does, it does as that owner. Hooks
//! have no hooks, so there is no end to them that would start another one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::model::check;
use crate::model::event::Kind;
use crate::model::hook::{self, Act, Hook, Secret};
use crate::model::id::TaskId;
use crate::model::retry::{Retry, passing};
use crate::model::spec::{NewTask, Spec};
use crate::model::task::Task;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::command::{Caller, Command, Error, Reply};
use super::handle::Handle;
use super::reader::Query;

/// Verb of our own program that sends what it reads.
pub const DELIVER: &str = "deliver";
/// Label of a hook: the number of the task that it belongs to.
const LABEL: &str = "hook-of";
/// Time limit of one attempt, in milliseconds.
const TIMEOUT_MS: u64 = 60_000;

/// What the engine knows of hooks besides those of tasks and queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Those of every task on this host.
    pub host: Vec<Hook>,
    /// What webhooks are signed with.
    pub secret: Option<Secret>,
    /// Our own program, which sends webhooks.
    pub program: String,
}

/// What enters the engine about hooks.
#[derive(Debug)]
pub enum Ask {
    /// Give a queue other hooks.
    SetOfQueue {
        /// Uid of who asks.
        actor: u32,
        /// Which queue.
        queue: String,
        /// Its hooks from now on.
        hooks: Vec<Hook>,
        /// They, as they are kept.
        reply: Reply<Vec<Hook>>,
    },
}

/// Whose hook one is.
#[derive(Debug, Clone, Copy)]
enum Source {
    Task,
    Queue,
    Host,
}

impl Source {
    const fn word(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Queue => "queue",
            Self::Host => "host",
        }
    }
}

impl<S: Store> Engine<S> {
    /// Obeys other hooks from now on.
    pub fn set_hooks(&mut self, hooks: Hooks) {
        self.hooks = hooks;
    }

    pub(super) fn about_hooks(&mut self, ask: Ask, now: Time) -> Result<(), store::Error> {
        let Ask::SetOfQueue {
            actor,
            queue,
            hooks,
            reply,
        } = ask;
        self.store.set_queue_hooks(&queue, &hooks)?;
        let data = json!({ "queue": queue, "change": "hooks" });
        self.note(Kind::QueueChanged, Some(actor), &data, now)?;
        self.answers.push(Answer::Hooks(reply, hooks));
        Ok(())
    }

    /// Makes the hooks of a task that has just come to its end, after that was
    /// recorded.
    pub(super) fn fire_hooks(&mut self, task: &Task, now: Time) -> Result<(), store::Error> {
        let Some(end) = task.state.end() else {
            return Ok(());
        };
        // Nobody can submit to it, so what is in it is a hook.
        if task.queue == hook::QUEUE {
            return Ok(());
        }
        let event = self.store.last_event();
        let trace = self.trace_below(task);
        let of_queue = self.store.queue_hooks(&task.queue)?;
        let of_task = task.spec.hooks.iter().map(|hook| (Source::Task, hook));
        let of_queue = of_queue.iter().map(|hook| (Source::Queue, hook));
        let of_host = self.hooks.host.iter().map(|hook| (Source::Host, hook));
        let all: Vec<_> = of_task
            .chain(of_queue)
            .chain(of_host)
            .filter(|(_, hook)| hook.on.include(end))
            .enumerate()
            .map(|(place, (source, hook))| {
                // No two ends have the same number, not even of one task.
                let word = Word {
                    event: event_of(task),
                    body: told(task, source).to_string(),
                    delivery: format!("{}-{event}-{place}", task.id),
                    variables: facts(task),
                    profile: task.spec.profile.clone(),
                };
                let mut base = follower(task);
                base.spec.trace.clone_from(&trace);
                self.hooks.make(base, &hook.act, word, now)
            })
            .collect();
        for new in all {
            failpoint!("engine/hook/before");
            self.make(&new, now)?;
        }
        Ok(())
    }
}

/// What a hook has to say.
pub(super) struct Word {
    /// Name of what happened.
    pub(super) event: String,
    /// All of it, in JSON.
    pub(super) body: String,
    /// A name that no other word has.
    pub(super) delivery: String,
    /// The facts that a command gets as variables, by the ends of their names.
    pub(super) variables: Vec<(&'static str, String)>,
    /// The profile that a command runs under.
    pub(super) profile: Option<String>,
}

impl Hooks {
    /// The task that says it, from what all hooks of its origin have in common.
    pub(super) fn make(&self, base: NewTask, act: &Act, word: Word, now: Time) -> NewTask {
        let mut new = base;
        match act {
            Act::Command(command) => {
                let variables = word.variables.into_iter();
                let env = variables.map(|(name, value)| (format!("TASKDAEMON_HOOK_{name}"), value));
                new.stdin = Some(word.body.into_bytes());
                new.spec.argv.clone_from(command);
                new.spec.env = env.collect();
                new.spec.profile = word.profile;
            }
            Act::Webhook(url) => {
                let mut headers = BTreeMap::from([
                    ("Content-Type", "application/json".to_owned()),
                    ("Taskdaemon-Delivery", word.delivery),
                    ("Taskdaemon-Event", word.event),
                ]);
                if let Some(secret) = &self.secret {
                    headers.insert("Taskdaemon-Signature", secret.sign(now, &word.body));
                }
                let order = json!({"url": url, "headers": headers, "body": word.body});
                new.stdin = Some(order.to_string().into_bytes());
                new.spec.argv = vec![self.program.clone(), DELIVER.to_owned()];
                new.spec.retry.retry_on = passing();
            }
        }
        new
    }
}

/// The facts that a command gets of a task that is over.
fn facts(task: &Task) -> Vec<(&'static str, String)> {
    let outcome = task.outcome.as_ref();
    let class = outcome.map(|outcome| outcome.class.word().to_owned());
    let code = outcome.and_then(|outcome| outcome.exit_code);
    let variables = [
        ("TASK", Some(task.id.to_string())),
        ("STATE", Some(task.state.word().to_owned())),
        ("CLASS", class),
        ("EXIT_CODE", code.map(|code| code.to_string())),
        ("QUEUE", Some(task.queue.clone())),
        ("NAME", task.name.clone()),
    ];
    let variables = variables.into_iter();
    variables
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// What all hooks of a task have in common.
fn follower(task: &Task) -> NewTask {
    let id = task.id;
    let mut new = hook(task.owner, task.spec.user.clone(), Some(id));
    new.name = Some(format!("hook of task {id}"));
    new.labels = BTreeMap::from([(LABEL.to_owned(), id.to_string())]);
    new
}

/// What all hooks have in common.
pub(super) fn hook(owner: u32, user: Option<String>, of: Option<TaskId>) -> NewTask {
    NewTask {
        owner,
        queue: hook::QUEUE.to_owned(),
        spec: Spec {
            user,
            timeout_ms: Some(TIMEOUT_MS),
            retry: Retry {
                max_attempts: 5,
                base_ms: 10_000,
                cap_ms: 600_000,
                ..Retry::default()
            },
            hook_of: of,
            ..Spec::default()
        },
        ..NewTask::default()
    }
}

/// Name of what happened to a task.
fn event_of(task: &Task) -> String {
    format!("task.{}", task.state)
}

/// What is told of a task that is over, in the words of the API.
fn told(task: &Task, source: Source) -> Value {
    json!({
        "event": event_of(task),
        "hook": source.word(),
        "id": task.id,
        "state": task.state,
        "name": task.name,
        "queue": task.queue,
        "labels": task.labels,
        "owner": task.owner,
        "key": task.key,
        "created_at": stamp(task.created),
        "due_at": stamp(task.due),
        "ended_at": task.ended.map(stamp),
        "attempt": task.attempt,
        "tries": task.tries,
        "max_attempts": task.spec.retry.max_attempts,
        "outcome": task.outcome,
    })
}

pub(super) fn stamp(time: Time) -> Option<String> {
    let time = Timestamp::from_microsecond(time.micros()).ok()?;
    Some(format!("{time:.6}"))
}

impl Handle {
    /// Gives a queue other hooks.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_queue_hooks(
        &self,
        caller: Caller,
        queue: String,
        hooks: Vec<Hook>,
    ) -> Result<Vec<Hook>, Error> {
        let invalid = |invalid| Error::Invalid {
            index: None,
            invalid,
        };
        check::queue_name(&queue).map_err(invalid)?;
        check::hooks(&hooks).map_err(invalid)?;
        self.ask_as(caller, |reply| {
            Command::Hook(Ask::SetOfQueue {
                actor: caller.uid,
                queue,
                hooks,
                reply,
            })
        })
        .await
    }

    /// The hooks of a queue.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn queue_hooks(&self, queue: String) -> Result<Vec<Hook>, Error> {
        self.read(|reply| Query::QueueHooks { queue, reply }).await
    }
}
