//! Floor 1: what is kept.
//!
//! One trait, [`Store`], between the engine and a database. It is synchronous,
//! has no clock, knows rows and not rules, and is judged by one conformance
//! suite (`tests/it/store.rs`). [`sqlite::Sqlite`] is the embedded backend; the
//! trait exists because a shared PostgreSQL is the second.

pub mod agents;
pub mod backup;
pub mod ballast;
mod books;
pub mod calls;
pub mod clocks;
pub mod disk;
pub mod edit;
pub mod graph;
pub mod hooks;
mod list;
pub mod lock;
pub mod migrate;
mod open;
pub mod options;
pub mod probe;
pub mod queues;
mod quota;
pub mod record;
mod rows;
pub mod schedules;
pub mod sound;
pub mod sqlite;
mod sum;

use std::path::PathBuf;

use crate::model::attempt::{Attempt, AttemptKey, Outcome, Started, Usage};
use crate::model::event::Event;
use crate::model::filter::Filter;
use crate::model::id::TaskId;
use crate::model::spec::NewTask;
use crate::model::task::{State, Task};
use crate::model::time::Time;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database answered with an error.
    #[error("cannot {act} in the database{}", advice(.source))]
    Database {
        /// What was attempted.
        act: &'static str,
        /// The database's own words.
        source: rusqlite::Error,
    },
    /// A row does not say what a row can say.
    #[error("row of {table} {id} is damaged: {what}; restore a backup, or move the file away")]
    Damaged {
        /// Which table.
        table: &'static str,
        /// Which row.
        id: i64,
        /// What is wrong with it.
        what: String,
    },
    /// A change was fenced off: the row is not in the state it was read in.
    #[error("task {0} was changed by someone else; this process no longer owns the store")]
    Fenced(TaskId),
    /// The file is not one this program may open.
    #[error("cannot use {path}: {why}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// A file operation failed.
    #[error("cannot {act} {path}{}", file_advice(.source))]
    File {
        /// What was attempted.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Database { source, .. }
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }

    /// Whether another process holds the database's lock. Nothing was changed.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Database { source, .. }
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy))
    }

    /// Whether trying again cannot help before a person has acted.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unusable { .. } | Self::Damaged { .. } => true,
            Self::Database { source, .. } => !advice(source).is_empty(),
            Self::File { source, .. } => !file_advice(source).is_empty(),
            Self::Fenced(_) => false,
        }
    }
}

/// What a person has to do about an error; nothing where it may pass by itself.
fn advice(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, ReadOnly};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => {
            ", which is damaged: restore a backup, or move it away"
        }
        Some(ReadOnly) => {
            ", which cannot be written to: see how its disk is mounted, or restore a backup"
        }
        _ => "",
    }
}

/// The same about a file.
fn file_advice(error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem {
        ", whose file system is read-only: see why (`dmesg`), and mount it for writing"
    } else {
        ""
    }
}

/// The task that has an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHolder {
    /// Its number.
    pub id: TaskId,
    /// Where it stands.
    pub state: State,
    /// Hash of the request that made it.
    pub body_hash: [u8; 32],
}

/// Where tasks, attempts and events are kept.
///
/// Between [`begin`](Self::begin) and [`commit`](Self::commit) every change is
/// provisional and seen only by this store. After `commit` returned it is on
/// stable storage. A `commit` that failed leaves its outcome unknown: the only
/// right thing is to drop the store and open it anew.
pub trait Store:
    agents::Agents
    + calls::Calls
    + clocks::Clocks
    + edit::Edits
    + graph::Graph
    + hooks::Hooks
    + queues::Queues
    + record::Record
    + schedules::Schedules
{
    /// Opens a transaction; one that is open goes on.
    ///
    /// # Errors
    /// The database refused.
    fn begin(&mut self) -> Result<(), Error>;

    /// Makes the transaction durable.
    ///
    /// # Errors
    /// The outcome is unknown.
    fn commit(&mut self) -> Result<(), Error>;

    /// Stores a new task: blocked, or ready or to be ready as the model says at
    /// `now`. Its group key is settled, see [`queues::Queues`].
    ///
    /// # Errors
    /// The database refused.
    fn insert(&mut self, new: &NewTask, blocked: bool, now: Time) -> Result<Task, Error>;

    /// The task an owner gave this idempotency key.
    ///
    /// # Errors
    /// The database refused.
    fn by_key(&mut self, owner: u32, key: &str) -> Result<Option<KeyHolder>, Error>;

    /// One task.
    ///
    /// # Errors
    /// The database refused, or the row is damaged.
    fn task(&mut self, id: TaskId) -> Result<Option<Task>, Error>;

    /// Saves what changes in a task's life. `before` is the state and attempt
    /// it was read with, and fences the change. Its group key is settled, see
    /// [`queues::Queues`].
    ///
    /// # Errors
    /// [`Error::Fenced`], or the database refused.
    fn save(&mut self, before: (State, u32), after: &Task) -> Result<(), Error>;

    /// The task's standard input.
    ///
    /// # Errors
    /// The database refused.
    fn input(&mut self, id: TaskId) -> Result<Option<Vec<u8>>, Error>;

    /// Tasks whose `wake` is not after `now`, earliest first.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn awake(&mut self, now: Time, limit: u32) -> Result<Vec<Task>, Error>;

    /// The earliest `wake` of all tasks.
    ///
    /// # Errors
    /// The database refused.
    fn next_wake(&mut self) -> Result<Option<Time>, Error>;

    /// Stores a claimed attempt.
    ///
    /// # Errors
    /// The database refused; a number twice is an error.
    fn begin_attempt(&mut self, attempt: &Attempt) -> Result<(), Error>;

    /// Records where a live attempt runs.
    ///
    /// # Errors
    /// The database refused. An attempt that is not live is left alone.
    fn start_attempt(&mut self, key: AttemptKey, started: &Started) -> Result<(), Error>;

    /// Records the end of a live attempt, and where it ran if that is new.
    ///
    /// # Errors
    /// [`Error::Fenced`] when it is not live, or the database refused.
    fn end_attempt(
        &mut self,
        key: AttemptKey,
        started: Option<&Started>,
        at: Time,
        outcome: &Outcome,
        usage: &Usage,
    ) -> Result<(), Error>;

    /// Every live attempt.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn live(&mut self) -> Result<Vec<Attempt>, Error>;

    /// A task's attempts, first to last.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn attempts(&mut self, id: TaskId) -> Result<Vec<Attempt>, Error>;

    /// A page of tasks, newest first.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn list(&mut self, filter: &Filter) -> Result<Vec<Task>, Error>;

    /// Appends to the record of what happened.
    ///
    /// # Errors
    /// The database refused.
    fn record(&mut self, event: &Event) -> Result<(), Error>;

    /// Tasks in each state, in the order of [`State::ALL`].
    fn tally(&self) -> [u64; State::ALL.len()];

    /// Tasks of an owner in one state.
    fn count_of_owner(&self, owner: u32, state: State) -> u64;

    /// Tasks of an owner in a queue that are in one state.
    fn count_of_both(&self, queue: i64, owner: u32, state: State) -> u64;

    /// Tasks of a queue in one state.
    fn count_of_queue(&self, queue: i64, state: State) -> u64;

    /// The number of the last event.
    fn last_event(&self) -> i64;
}
