//! The record's side of the store: what happened, what is removed, and rows
//! that cannot be read.

use crate::model::event::{Entries, Wanted};
use crate::model::filter::{Filter, Listing, Selection, Window};
use crate::model::id::TaskId;
use crate::model::task::State;
use crate::model::time::Time;

use super::Error;

/// A task that is over, as far as its removal needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// When it was over.
    pub ended: Time,
    /// Which.
    pub id: TaskId,
    /// Its attempts are numbered up to this.
    pub attempt: u32,
    /// Whether a task that is not over depends on it.
    pub wanted: bool,
}

/// What one step of a walk over all tasks found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The tasks that were looked for, oldest first.
    pub ids: Vec<TaskId>,
    /// The next step is after this one; absent when all were looked at.
    pub reached: Option<TaskId>,
}

/// The record, its removal, and the repair of single rows.
pub trait Record {
    /// A page of tasks, newest first. Damaged rows are named, not shown.
    ///
    /// # Errors
    /// The database refused.
    fn page(&mut self, filter: &Filter) -> Result<Listing, Error>;

    /// A page of events, oldest first. Looks at a bounded number of rows, so a
    /// page may be short, or empty, before the end.
    ///
    /// # Errors
    /// The database refused.
    fn events(&mut self, wanted: &Wanted) -> Result<Entries, Error>;

    /// Removes the oldest events: at most `most`, none with a number above
    /// `through` unless it is older than `older`. Returns how many went.
    ///
    /// # Errors
    /// The database refused.
    fn drop_events(&mut self, through: i64, older: Option<Time>, most: u32) -> Result<u32, Error>;

    /// Tasks that are over, in the order in which they ended, after the given
    /// place in it.
    ///
    /// # Errors
    /// The database refused.
    fn over(&mut self, after: (Time, TaskId), most: u32) -> Result<Vec<Over>, Error>;

    /// One task that is over.
    ///
    /// # Errors
    /// The database refused.
    fn one_over(&mut self, id: TaskId) -> Result<Option<Over>, Error>;

    /// Removes a task that is over with its input, attempts and edges. The
    /// events about it stay.
    ///
    /// # Errors
    /// [`Error::Fenced`] when it is not over, or the database refused.
    fn remove(&mut self, id: TaskId) -> Result<(), Error>;

    /// Takes the output of a task's attempts that are over for removed.
    /// Returns their numbers.
    ///
    /// # Errors
    /// The database refused.
    fn remove_output(&mut self, id: TaskId) -> Result<Vec<u32>, Error>;

    /// Bytes of output of attempts that are over.
    fn output(&self) -> u64;

    /// The number of the last task.
    fn last_task(&self) -> TaskId;

    /// One step of a walk over all tasks, oldest first.
    ///
    /// # Errors
    /// The database refused.
    fn matching(&mut self, selection: &Selection, window: Window) -> Result<Found, Error>;

    /// The attempts of the tasks in a range whose output was not removed.
    ///
    /// # Errors
    /// The database refused.
    fn attempts_with_output(
        &mut self,
        first: TaskId,
        last: TaskId,
    ) -> Result<Vec<(TaskId, u32)>, Error>;

    /// Makes the rows of a damaged task readable again: the task is over, in
    /// this state, because of the damage. Returns the number of its attempt.
    ///
    /// # Errors
    /// [`Error::Damaged`] when there is no such row, or the database refused.
    fn quarantine(
        &mut self,
        id: TaskId,
        to: State,
        outcome: &crate::model::attempt::Outcome,
        now: Time,
    ) -> Result<u32, Error>;
}
