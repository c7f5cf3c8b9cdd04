//! Everything that can enter the engine, and everything that comes back.
//!
//! Each command that changes state carries its reply, which is sent after the
//! change is on disk and never before.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::model::attempt::{Attempt, AttemptKey, Ended, Started};
use crate::model::depend::Link;
use crate::model::id::{ScheduleId, TaskId};
use crate::model::invalid::Invalid;
use crate::model::ledger::Call;
use crate::model::notice::Notice;
use crate::model::origin::Origin;
use crate::model::rate::Rate;
use crate::model::reason::Reason;
use crate::model::spec::NewTask;
use crate::model::task::{Refusal, State, Task};
use crate::model::time::Time;

use super::called::Called;
use super::edit;
use super::graph::Ask;
use super::hooks::{self, Hooks};
use super::options::Options;
use super::prompts::Prompts;
use super::refuse::Room;
use super::runner::RunnerUp;
use super::signs::Sign;
use super::{agents, queues, record, relay, schedules};

/// Where the answer to a command goes.
pub type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Uid by the kernel's or a token's word.
    pub uid: u32,
    /// Whether tasks of others are open to this caller.
    pub admin: bool,
    /// By which process and request.
    pub origin: Origin,
}

impl Caller {
    /// Whether this caller may see and act on a task of `owner`.
    #[must_use]
    pub const fn may_touch(self, owner: u32) -> bool {
        self.admin || self.uid == owner
    }
}

/// Why a command was not carried out. Unless it says otherwise, nothing was
/// changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such task, or none that this caller may know of.
    #[error("there is no task {0}; `taskdaemon list` shows those there are")]
    NotFound(TaskId),
    /// A field of a submitted task.
    #[error("{}{invalid}", .index.map(|i| format!("tasks[{i}].")).unwrap_or_default())]
    Invalid {
        /// Which of several tasks, from 0.
        index: Option<usize>,
        /// The field and what is wrong with it.
        invalid: Invalid,
    },
    /// No such schedule, or none that this caller may know of.
    #[error("there is no schedule {0}; `taskdaemon schedule list` shows those there are")]
    NoSchedule(Called<ScheduleId>),
    /// The name is taken.
    #[error("there is a schedule `{0}` already; remove it, or replace it with `--replace`")]
    ScheduleExists(String),
    /// The owner has as many as a user may have.
    #[error("you have {0} schedules, which is as many as one user may have; remove some")]
    TooManySchedules(u64),
    /// The schedule's rule is not to run a task beside another.
    #[error(
        "a task of schedule `{0}` is not over, and its overlap rule is `skip`; wait, or cancel it"
    )]
    StillRunning(String),
    /// What was asked of an agent.
    #[error(transparent)]
    Agent(#[from] agents::ask::Refused),
    /// No such queue.
    #[error("there is no queue `{0}`; `taskdaemon queue list` shows those there are")]
    NoQueue(String),
    /// The model cannot be asked.
    #[error(transparent)]
    Model(#[from] relay::NoCall),
    /// The queue takes no new tasks.
    #[error("queue `{0}` is draining and takes no new tasks; an admin can `resume` it")]
    Draining(String),
    /// The queue has tasks that are not over.
    #[error(
        "queue `{name}` has {tasks} unfinished tasks; wait until they are over, or cancel them"
    )]
    QueueInUse {
        /// Its name.
        name: String,
        /// How many.
        tasks: u64,
    },
    /// The caller is no admin.
    #[error("only an admin may {0}")]
    AdminOnly(&'static str),
    /// The user has as many tasks waiting as one may have.
    #[error(
        "you have {waiting} tasks waiting, and one user may have {most}; \
         wait until some have started, or cancel some"
    )]
    Quota {
        /// How many there are.
        waiting: u64,
        /// How many there may be.
        most: u64,
    },
    /// The user hands in more often than one may.
    #[error("you submit more often than {rate}; put several tasks into one submit, or wait")]
    TooFast {
        /// How often one may.
        rate: Rate,
        /// Until the next is let in.
        wait: Duration,
    },
    /// The task's state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The idempotency key belongs to a different request.
    #[error("key `{key}` was already used for task {task} with another request; use a new key")]
    KeyReused {
        /// The key.
        key: String,
        /// The task that has it.
        task: TaskId,
    },
    /// An unfinished task has the unique key.
    #[error(
        "unique key `{key}` is held by {holder}, which is not over: wait for it or cancel it, \
             or submit with on_conflict `return` or `replace`"
    )]
    UniqueHeld {
        /// The key.
        key: String,
        /// Who has it.
        holder: String,
    },
    /// A task that is to be run again waits for one that did not end as it has
    /// to.
    #[error(
        "cannot retry task {task}: it waits for task {parent}, which {}; retry that one first \
             with those that hang on it: `taskdaemon retry --dependants {parent}`",
        .state.map_or_else(|| "did not succeed and is gone".to_owned(), |state| format!("is {state}"))
    )]
    ParentFailed {
        /// The task.
        task: TaskId,
        /// What it waits for.
        parent: TaskId,
        /// How that ended, if it is still known.
        state: Option<State>,
    },
    /// A limit was asked for that this host cannot enforce.
    #[error("{0} cannot be enforced on this host; `taskdaemon status` shows what can")]
    Unenforceable(&'static str),
    /// A task in a sandbox profile was to be paused.
    #[error(
        "cannot pause task {id}: it runs in sandbox profile `{profile}`, which has a runner of its \
         own, and only tasks of the shared runner can be frozen; cancel it, or let it run"
    )]
    NoPauseIn {
        /// The task.
        id: TaskId,
        /// Its profile.
        profile: String,
    },
    /// There are as many unfinished tasks as the configuration allows.
    #[error("the backlog is full: {0} unfinished tasks; wait until some are over")]
    BacklogFull(u64),
    /// The disk under the state directory is nearly full.
    #[error(
        "the disk is nearly full: {} free of {} that must be; make room on the file system of the \
         state directory", .0.free, .0.mark
    )]
    DiskFull(Room),
    /// The file system of the state directory became read-only.
    #[error(
        "the file system of the state directory is read-only, and nothing can be saved; see why \
         (`dmesg`, `findmnt -T DIRECTORY`), mount it for writing, then repeat"
    )]
    ReadOnly,
    /// Another process writes to the database, and does not end.
    #[error("another process holds the database's lock (`fuser -v` names it); end it, then repeat")]
    Locked,
    /// Too many commands are waiting.
    #[error("the engine is busy; try again in a moment")]
    Busy,
    /// The daemon is going down.
    #[error("the daemon is stopping; try again when it is back")]
    Stopping,
    /// The commit failed, so whether the change is on disk is not known.
    #[error(
        "storage failed while saving: whether the change was kept is unknown; \
             repeat the request with the same idempotency key"
    )]
    Unknown,
    /// Reading failed.
    #[error("storage could not be read: {0}")]
    Storage(String),
}

/// The answer to one submitted task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its number.
    pub id: TaskId,
    /// Where it stands.
    pub state: State,
    /// False when the idempotency key had been used for the same request
    /// before, and this is that earlier task.
    pub created: bool,
}

/// A task with all there is to say about it.
#[derive(Debug, Clone)]
pub struct View {
    /// The task.
    pub task: Task,
    /// Its attempts, first to last; in listings only a live one.
    pub attempts: Vec<Attempt>,
    /// The calls of models that its attempts made; not in listings.
    pub calls: Vec<Call>,
    /// What it was told to wait for; not in listings.
    pub after: Vec<Link>,
    /// How many tasks were told to wait for it; not in listings.
    pub dependants: u64,
    /// What it waits for; absent when it is over.
    pub reason: Option<Reason>,
    /// What its live attempt says of itself.
    pub sign: Option<Sign>,
}

impl View {
    /// Its live attempt.
    #[must_use]
    pub fn live(&self) -> Option<&Attempt> {
        let last = self.attempts.last();
        last.filter(|attempt| attempt.outcome.is_none() && self.task.state.is_live())
    }
}

/// What enters the engine.
#[derive(Debug)]
pub enum Command {
    /// Do what a request asks for, and put its origin on the record.
    Asked {
        /// The process and the request.
        origin: Origin,
        /// What is asked for.
        command: Box<Self>,
    },
    /// Accept tasks, all or none.
    Submit {
        /// The tasks.
        tasks: Vec<NewTask>,
        /// Their numbers, in order.
        reply: Reply<Vec<Submitted>>,
    },
    /// Cancel a task.
    Cancel {
        /// Who asks.
        caller: Caller,
        /// Which.
        id: TaskId,
        /// The task afterwards.
        reply: Reply<Task>,
    },
    /// Run a task again that is over.
    Retry {
        /// Who asks.
        caller: Caller,
        /// Which.
        id: TaskId,
        /// The task afterwards.
        reply: Reply<Task>,
    },
    /// Something about a task together with those behind it.
    Graph(Ask),
    /// Freeze a running task.
    Pause {
        /// Who asks.
        caller: Caller,
        /// Which.
        id: TaskId,
        /// The task afterwards.
        reply: Reply<Task>,
    },
    /// Thaw a paused task.
    Resume {
        /// Who asks.
        caller: Caller,
        /// Which.
        id: TaskId,
        /// The task afterwards.
        reply: Reply<Task>,
    },
    /// Change a task that waits.
    Edit(edit::Ask),
    /// Answer when a task is over.
    Wait {
        /// Who asks.
        caller: Caller,
        /// Which.
        id: TaskId,
        /// The task when it is over.
        reply: Reply<View>,
    },
    /// Give a queue other hooks.
    Hook(hooks::Ask),
    /// Make or change a schedule.
    Schedule(schedules::Ask),
    /// Make or change an agent, or say what became of one.
    Agent(agents::ask::Ask),
    /// Change a queue.
    Queue(queues::Ask),
    /// Ask a model for a task, or say what came of it.
    Relay(relay::Ask),
    /// Answer at the end of this turn: shows that the engine makes progress.
    Ping {
        /// When the engine's turn began.
        reply: Reply<Time>,
    },
    /// New settings, from a reload.
    Configure {
        /// The engine's own.
        options: Options,
        /// What follows a task's end.
        hooks: Hooks,
        /// Which models there are.
        prompts: Prompts,
    },
    /// What the record is asked.
    Record(record::Ask),
    /// How far the wall clock is ahead of the time since boot, now that it was set.
    ClockLead {
        /// In microseconds.
        lead: i64,
    },
    /// A runner introduced itself.
    RunnerUp(RunnerUp),
    /// The runner starts nothing more: it is stopping, or the connection is gone.
    RunnerDown,
    /// A runner of one attempt came to the report socket.
    Dialled {
        /// Names the visit in the answer.
        visit: u64,
        /// The attempt it says it holds.
        key: AttemptKey,
        /// Its uid by the kernel's word.
        uid: u32,
        /// Whether that uid is root's or the daemon's own.
        trusted: bool,
    },
    /// An attempt runs.
    Started {
        /// Which.
        key: AttemptKey,
        /// Where and as whom.
        started: Started,
    },
    /// A live attempt has said something about itself.
    Notified {
        /// Which.
        key: AttemptKey,
        /// What it has said since the last of these; parts of that may come again.
        notice: Notice,
        /// When it said the last part of it.
        at: Time,
    },
    /// An attempt is over.
    Ended {
        /// Which.
        key: AttemptKey,
        /// Where and as whom it ran, if it did.
        started: Option<Started>,
        /// How it ended.
        ended: Ended,
    },
    /// Start nothing more; answer and end the engine.
    Shutdown {
        /// Sent when everything before it is committed.
        reply: Reply<()>,
    },
}
