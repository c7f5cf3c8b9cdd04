//! The wire: what a task looks like in JSON, going out; `asked.rs` has it
//! coming in.
//!
//! Names are the same in HTTP, on the command line and in files. Written by
//! hand, so that changing the model never changes the wire by accident.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::command::View;
use crate::model::attempt::{Attempt, Outcome};
use crate::model::depend::Link;
use crate::model::ledger::Call;
use crate::model::prompt::Prompt;
use crate::model::task::Task;

use super::budgets::BudgetInfo;
use super::models::CallInfo;
use super::number::{Pairs, Stamp, is_default};
use super::run_info::RunInfo;

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Why, in one word.
    pub class: String,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// Why, in one line.
    pub message: String,
}

impl From<&Outcome> for Verdict {
    fn from(outcome: &Outcome) -> Self {
        Self {
            class: outcome.class.word().to_owned(),
            exit_code: outcome.exit_code,
            signal: outcome.signal,
            message: outcome.message.clone(),
        }
    }
}

/// One execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptInfo {
    /// From 1, without gaps.
    pub number: u32,
    /// Why it ended, in one word; none while it is live.
    pub outcome: Option<String>,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// Why it ended, in one line.
    pub message: Option<String>,
    /// When it was started.
    pub started_at: Option<Stamp>,
    /// When it was over.
    pub ended_at: Option<Stamp>,
    /// CPU time.
    pub cpu_seconds: Option<f64>,
    /// Highest memory use.
    pub memory_peak_bytes: Option<u64>,
    /// Output kept.
    pub output_bytes: u64,
    /// Output dropped.
    pub output_dropped_bytes: u64,
    /// User it ran as.
    pub user: Option<String>,
    /// That user's number.
    pub uid: Option<u32>,
    /// Its first process.
    pub pid: Option<u32>,
    /// Its cgroup.
    pub cgroup: Option<String>,
    /// The call of a model that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallInfo>,
    /// Calls of models that were made for it, of the latest ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relayed: Vec<CallInfo>,
}

impl From<&Attempt> for AttemptInfo {
    fn from(attempt: &Attempt) -> Self {
        let outcome = attempt.outcome.as_ref();
        let started = attempt.started.as_ref();
        Self {
            number: attempt.key.number,
            outcome: outcome.map(|outcome| outcome.class.word().to_owned()),
            exit_code: outcome.and_then(|outcome| outcome.exit_code),
            signal: outcome.and_then(|outcome| outcome.signal),
            message: outcome.map(|outcome| outcome.message.clone()),
            started_at: started.map(|started| Stamp(started.at)),
            ended_at: attempt.ended.map(Stamp),
            cpu_seconds: attempt
                .usage
                .cpu_micros
                .map(|micros| Duration::from_micros(micros).as_secs_f64()),
            memory_peak_bytes: attempt.usage.memory_peak,
            output_bytes: attempt.usage.output_kept,
            output_dropped_bytes: attempt.usage.output_dropped,
            user: started.map(|started| started.user.clone()),
            uid: started.map(|started| started.uid),
            pid: started.map(|started| started.pid),
            cgroup: started.and_then(|started| started.cgroup.clone()),
            call: None,
            relayed: Vec::new(),
        }
    }
}

impl AttemptInfo {
    fn with_calls(attempt: &Attempt, calls: &[Call]) -> Self {
        let mine = || calls.iter().filter(|call| call.key == attempt.key);
        let relayed = mine().filter(|call| call.relayed);
        Self {
            call: mine().find(|call| !call.relayed).map(CallInfo::from),
            relayed: relayed.map(CallInfo::from).collect(),
            ..Self::from(attempt)
        }
    }
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskInfo {
    /// Its number.
    pub id: i64,
    /// Where it stands.
    pub state: String,
    /// What it waits for, for people.
    pub reason: Option<String>,
    /// What it waits for, for programs.
    pub reason_code: Option<String>,
    /// How far its attempt says that it is, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// What its attempt says that it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Whether its attempt says that it has started up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
    /// Until when it waits, where that is known.
    pub until: Option<Stamp>,
    /// Its name.
    pub name: Option<String>,
    /// Its queue.
    pub queue: String,
    /// Its priority.
    pub priority: i32,
    /// Its labels.
    pub labels: Pairs,
    /// Uid of its submitter.
    pub owner: u32,
    /// Its idempotency key.
    pub key: Option<String>,
    /// Its group key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its unique key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<String>,
    /// When it must be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Stamp>,
    /// Number of the schedule that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<i64>,
    /// For which of the schedule's times it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nominal_at: Option<Stamp>,
    /// What it runs, and how.
    #[serde(flatten)]
    pub run: RunInfo,
    /// When it was accepted.
    pub created_at: Stamp,
    /// When it became, or becomes, ready.
    pub due_at: Stamp,
    /// When its live attempt was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Stamp>,
    /// When it was over.
    pub ended_at: Option<Stamp>,
    /// How it ended.
    pub outcome: Option<Verdict>,
    /// Its executions; not in listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<AttemptInfo>>,
    /// The budgets that its calls of models draw on; not in listings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetInfo>,
    /// What it was told to wait for; not in listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<AfterInfo>>,
    /// How many tasks were told to wait for it; not in listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependants: Option<u64>,
}

/// A task that another one was told to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AfterInfo {
    /// Its number.
    pub task: i64,
    /// How it has to end: `ok` or `any`.
    pub wants: String,
    /// Whether it has.
    pub met: bool,
    /// Where it stands; none when it is no longer kept.
    pub state: Option<String>,
}

impl From<&Link> for AfterInfo {
    fn from(link: &Link) -> Self {
        Self {
            task: link.parent.0,
            wants: link.wants.word().to_owned(),
            met: link.met,
            state: link.state.map(|state| state.word().to_owned()),
        }
    }
}

/// A page of a listing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TaskPage")]
pub struct Page {
    /// The tasks, newest first.
    pub tasks: Vec<TaskInfo>,
    /// Numbers of tasks that belong here and whose rows are damaged.
    #[serde(default, skip_serializing_if = "is_default")]
    pub damaged: Vec<i64>,
    /// Where the next page begins; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl TaskInfo {
    /// A task without its attempts.
    #[must_use]
    pub fn of_task(task: &Task) -> Self {
        Self {
            id: task.id.0,
            state: task.state.word().to_owned(),
            reason: None,
            reason_code: None,
            until: None,
            progress: None,
            status: None,
            ready: false,
            name: task.name.clone(),
            queue: task.queue.clone(),
            priority: task.priority,
            labels: Pairs(task.labels.clone()),
            owner: task.owner,
            key: task.key.clone(),
            group: task.group.clone(),
            unique: task.unique.clone(),
            deadline: task.deadline.map(Stamp),
            schedule: task.tick.map(|tick| tick.schedule.0),
            nominal_at: task.tick.map(|tick| Stamp(tick.nominal)),
            run: RunInfo::of_task(task),
            created_at: Stamp(task.created),
            due_at: Stamp(task.due),
            started_at: None,
            ended_at: task.ended.map(Stamp),
            outcome: task.outcome.as_ref().map(Verdict::from),
            attempts: None,
            budgets: Vec::new(),
            after: None,
            dependants: None,
        }
    }

    /// A task as it appears in a listing.
    #[must_use]
    pub fn in_list(view: &View) -> Self {
        let reason = view.reason.as_ref();
        let notice = view.sign.as_ref().map(|sign| &sign.notice);
        Self {
            progress: notice
                .and_then(|notice| notice.progress)
                .map(|done| f64::from(done) / 10.0),
            status: notice
                .and_then(|notice| notice.status.clone())
                .filter(|status| !status.is_empty()),
            ready: notice.is_some_and(|notice| notice.ready),
            started_at: view
                .live()
                .and_then(|live| live.started.as_ref())
                .map(|at| Stamp(at.at)),
            reason: reason.map(ToString::to_string),
            reason_code: reason.map(|reason| reason.code().to_owned()),
            until: reason.and_then(|reason| reason.until()).map(Stamp),
            ..Self::of_task(&view.task)
        }
    }

    /// A task with all there is to say about it.
    #[must_use]
    pub fn of_view(view: &View) -> Self {
        let attempts = view.attempts.iter();
        let attempts = attempts.map(|one| AttemptInfo::with_calls(one, &view.calls));
        let listed = Self::in_list(view);
        Self {
            run: RunInfo {
                prompt: view.task.spec.prompt.clone().map(Prompt::as_asked),
                ..listed.run
            },
            attempts: Some(attempts.collect()),
            budgets: view.budgets.iter().map(BudgetInfo::from).collect(),
            after: Some(view.after.iter().map(AfterInfo::from).collect()),
            dependants: Some(view.dependants),
            ..listed
        }
    }
}
