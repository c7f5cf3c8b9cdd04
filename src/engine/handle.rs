//! The door to the engine for rooms above: a cheap clone that hides the
//! channels. Changes go to the engine's thread, reads to the reader's.

use std::collections::HashSet;
use std::sync::mpsc::{SyncSender, TrySendError};

use tokio::sync::{oneshot, watch};

use crate::clock;
use crate::model::depend;
use crate::model::edit::Edit;
use crate::model::event::{Entries, Wanted};
use crate::model::filter::{Filter, Selection};
use crate::model::id::{ScheduleId, TaskId};
use crate::model::invalid::Invalid;
use crate::model::schedule::plan::{NewSchedule, Schedule, Shown};
use crate::model::spec::NewTask;
use crate::model::task::Task;
use crate::model::time::Time;

use super::bulk::{Action, Count, Order};
use super::called::Called;
use super::command::{Caller, Command, Error, Reply, Submitted, View};
use super::edit;
use super::graph::{Affected, Ask};
use super::picture::Picture;
use super::reader::{Listed, Query, ScheduleView};
use super::record;
use super::schedules::{self, Changed};
use super::snapshot::Snapshot;
use super::spans::Intake;

/// Talks to the engine.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: SyncSender<Command>,
    queries: SyncSender<Query>,
    snapshot: watch::Receiver<Snapshot>,
    alive: watch::Receiver<()>,
    pub(super) intake: Option<Intake>,
}

impl Handle {
    pub(super) const fn new(
        commands: SyncSender<Command>,
        queries: SyncSender<Query>,
        snapshot: watch::Receiver<Snapshot>,
        alive: watch::Receiver<()>,
        intake: Option<Intake>,
    ) -> Self {
        Self {
            commands,
            queries,
            snapshot,
            alive,
            intake,
        }
    }

    /// Accepts tasks, all or none; answers when they are on disk.
    ///
    /// # Errors
    /// See [`Error`]; nothing is accepted then, except possibly at
    /// [`Error::Unknown`].
    pub async fn submit(
        &self,
        caller: Caller,
        tasks: Vec<NewTask>,
    ) -> Result<Vec<Submitted>, Error> {
        check(&tasks, clock::now())?;
        self.ask_as(caller, |reply| Command::Submit { tasks, reply })
            .await
    }

    /// Cancels a task; answers when that is on disk, not when it has ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cancel(&self, caller: Caller, id: TaskId) -> Result<Task, Error> {
        self.ask_as(caller, |reply| Command::Cancel { caller, id, reply })
            .await
    }

    /// Queues a task again that is over.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn retry(&self, caller: Caller, id: TaskId) -> Result<Task, Error> {
        self.ask_as(caller, |reply| Command::Retry { caller, id, reply })
            .await
    }

    /// Cancels a task and everything behind it that is not over.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cancel_tree(&self, caller: Caller, id: TaskId) -> Result<Affected, Error> {
        self.ask_as(caller, |reply| {
            Command::Graph(Ask::Cancel { caller, id, reply })
        })
        .await
    }

    /// Queues a task again that is over, and those behind it that were skipped.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn retry_tree(&self, caller: Caller, id: TaskId) -> Result<Affected, Error> {
        self.ask_as(caller, |reply| {
            Command::Graph(Ask::Retry { caller, id, reply })
        })
        .await
    }

    /// What hangs together with a task, at most so many tasks.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn graph(&self, caller: Caller, id: TaskId, limit: usize) -> Result<Picture, Error> {
        self.read(|reply| Query::Graph {
            caller,
            id,
            limit,
            reply,
        })
        .await
    }

    /// Freezes a running task.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Unenforceable`] where its runner cannot.
    pub async fn pause(&self, caller: Caller, id: TaskId) -> Result<Task, Error> {
        self.ask_as(caller, |reply| Command::Pause { caller, id, reply })
            .await
    }

    /// Thaws a paused task.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resume(&self, caller: Caller, id: TaskId) -> Result<Task, Error> {
        self.ask_as(caller, |reply| Command::Resume { caller, id, reply })
            .await
    }

    /// Changes what was asked of a task that waits.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn edit(&self, caller: Caller, id: TaskId, edit: Edit) -> Result<Task, Error> {
        let edit = Box::new(edit);
        self.ask_as(caller, |reply| {
            Command::Edit(edit::Ask {
                caller,
                id,
                edit,
                reply,
            })
        })
        .await
    }

    /// Waits until a task is over.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Stopping`] when the daemon goes down first.
    pub async fn wait(&self, caller: Caller, id: TaskId) -> Result<View, Error> {
        self.ask(|reply| Command::Wait { caller, id, reply }).await
    }

    /// Answers after one turn of the engine.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ping(&self) -> Result<Time, Error> {
        self.ask(|reply| Command::Ping { reply }).await
    }

    /// One task with its attempts and what it waits for.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn show(&self, caller: Caller, id: TaskId) -> Result<View, Error> {
        self.read(|reply| Query::Show { caller, id, reply }).await
    }

    /// One change for many tasks; answers when all of it is on disk.
    ///
    /// # Errors
    /// See [`Error`]; a part may have been changed at [`Error::Stopping`].
    pub async fn bulk(
        &self,
        caller: Caller,
        action: Action,
        selection: Selection,
        dry_run: bool,
    ) -> Result<Count, Error> {
        self.ask_as(caller, |reply| {
            Command::Record(record::Ask::Bulk(Order {
                caller,
                action,
                selection,
                dry_run,
                reply,
            }))
        })
        .await
    }

    /// Puts something on the record that is about no task; answers when it is
    /// on disk.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn note(&self, note: impl FnOnce(Reply<()>) -> record::Note) -> Result<(), Error> {
        self.ask(|reply| Command::Record(record::Ask::Note(note(reply))))
            .await
    }

    /// A page of events, oldest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn events(&self, wanted: Wanted) -> Result<Entries, Error> {
        self.read(|reply| Query::Events { wanted, reply }).await
    }

    /// A page of tasks, newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, filter: Filter) -> Result<Listed, Error> {
        self.read(|reply| Query::List { filter, reply }).await
    }

    /// Makes a schedule, or with `replace` gives one of that name another rule
    /// and task.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_schedule(
        &self,
        caller: Caller,
        new: NewSchedule,
        replace: bool,
    ) -> Result<Changed, Error> {
        let now = clock::now();
        let invalid = |invalid| Error::Invalid {
            index: None,
            invalid,
        };
        new.check(now).map_err(invalid)?;
        let new = Box::new(new);
        self.ask_as(caller, |reply| {
            Command::Schedule(schedules::Ask::Add {
                new,
                replace,
                reply,
            })
        })
        .await
    }

    /// Pauses, resumes, triggers or removes a schedule.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change_schedule(
        &self,
        caller: Caller,
        called: Called<ScheduleId>,
        change: schedules::Change,
    ) -> Result<Changed, Error> {
        self.ask_as(caller, |reply| {
            Command::Schedule(schedules::Ask::Change {
                caller,
                called,
                change,
                reply,
            })
        })
        .await
    }

    /// One schedule with the latest tasks it made.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn schedule(
        &self,
        caller: Caller,
        called: Called<ScheduleId>,
    ) -> Result<ScheduleView, Error> {
        self.read(|reply| Query::Schedule {
            caller,
            called,
            reply,
        })
        .await
    }

    /// A page of schedules.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn schedules(&self, shown: Shown) -> Result<Vec<Schedule>, Error> {
        self.read(|reply| Query::Schedules { shown, reply }).await
    }

    /// The engine's own figures, as of its last turn.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// A receiver that wakes when the figures change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }

    /// Returns when the engine has ended, by order or by failure.
    pub async fn ended(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }

    /// The channel itself, for the threads that report on attempts: they wait
    /// for room instead of being turned away, since a report is never dropped.
    #[must_use]
    pub fn commands(&self) -> SyncSender<Command> {
        self.commands.clone()
    }

    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        send(&self.commands, command(reply))?;
        answer.await.unwrap_or(Err(Error::Stopping))
    }

    /// Asks for a change, with the origin of the request for the record.
    pub(super) async fn ask_as<T>(
        &self,
        caller: Caller,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, Error> {
        let origin = caller.origin;
        self.ask(|reply| Command::Asked {
            origin,
            command: Box::new(command(reply)),
        })
        .await
    }

    pub(super) async fn read<T>(&self, query: impl FnOnce(Reply<T>) -> Query) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        send(&self.queries, query(reply))?;
        answer.await.unwrap_or(Err(Error::Stopping))
    }
}

/// Looks at what can be judged without the store, on the caller's thread.
fn check(tasks: &[NewTask], now: Time) -> Result<(), Error> {
    depend::check(tasks).map_err(|(place, invalid)| Error::Invalid {
        index: (tasks.len() > 1).then_some(place),
        invalid,
    })?;
    let mut keys = HashSet::new();
    for (place, task) in tasks.iter().enumerate() {
        let index = (tasks.len() > 1).then_some(place);
        task.check(now)
            .map_err(|invalid| Error::Invalid { index, invalid })?;
        if let Some(key) = &task.key
            && !keys.insert((task.owner, key))
        {
            let reason = "is used twice in this request".to_owned();
            return Err(Error::Invalid {
                index,
                invalid: Invalid {
                    field: "key",
                    reason,
                },
            });
        }
    }
    Ok(())
}

fn send<T>(channel: &SyncSender<T>, message: T) -> Result<(), Error> {
    channel.try_send(message).map_err(|error| match error {
        TrySendError::Full(_) => Error::Busy,
        TrySendError::Disconnected(_) => Error::Stopping,
    })
}
