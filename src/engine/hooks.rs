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
        if task.spec.hook_of.is_some() {
            return Ok(());
        }
        let event = self.store.last_event();
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
                let delivery = format!("{}-{event}-{place}", task.id);
                let body = told(task, source).to_string();
                match &hook.act {
                    Act::Command(command) => of_command(task, command, body),
                    Act::Webhook(url) => self.hooks.of_webhook(task, url, &body, &delivery, now),
                }
            })
            .collect();
        for new in all {
            failpoint!("engine/hook/before");
            self.make(&new, now)?;
        }
        Ok(())
    }
}

impl Hooks {
    fn of_webhook(&self, task: &Task, url: &str, body: &str, delivery: &str, now: Time) -> NewTask {
        let mut headers = BTreeMap::from([
            ("Content-Type", "application/json".to_owned()),
            ("Taskdaemon-Delivery", delivery.to_owned()),
            ("Taskdaemon-Event", event(task)),
        ]);
        if let Some(secret) = &self.secret {
            headers.insert("Taskdaemon-Signature", secret.sign(now, body));
        }
        let order = json!({"url": url, "headers": headers, "body": body});
        let mut new = follower(task, order.to_string());
        new.spec.argv = vec![self.program.clone(), DELIVER.to_owned()];
        new.spec.retry.retry_on = passing();
        new
    }
}

/// The hook that runs a command: where and as whom the task ran.
fn of_command(task: &Task, command: &[String], body: String) -> NewTask {
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
    let variable = |(name, value): (&str, Option<String>)| {
        value.map(|value| (format!("TASKDAEMON_HOOK_{name}"), value))
    };
    let mut new = follower(task, body);
    new.spec.argv = command.to_vec();
    new.spec.env = variables.into_iter().filter_map(variable).collect();
    new.spec.profile.clone_from(&task.spec.profile);
    new
}

/// What all hooks of a task have in common.
fn follower(task: &Task, stdin: String) -> NewTask {
    NewTask {
        owner: task.owner,
        queue: hook::QUEUE.to_owned(),
        name: Some(format!("hook of task {}", task.id)),
        labels: BTreeMap::from([(LABEL.to_owned(), task.id.to_string())]),
        stdin: Some(stdin.into_bytes()),
        spec: Spec {
            user: task.spec.user.clone(),
            timeout_ms: Some(TIMEOUT_MS),
            retry: Retry {
                max_attempts: 5,
                base_ms: 10_000,
                cap_ms: 600_000,
                ..Retry::default()
            },
            hook_of: Some(task.id),
            ..Spec::default()
        },
        ..NewTask::default()
    }
}

/// Name of what happened to a task.
fn event(task: &Task) -> String {
    format!("task.{}", task.state)
}

/// What is told of a task that is over, in the words of the API.
fn told(task: &Task, source: Source) -> Value {
    json!({
        "event": event(task),
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

fn stamp(time: Time) -> Option<String> {
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
