//! What is kept of schedules.

use crate::model::id::{ScheduleId, Tick};
use crate::model::schedule::plan::{NewSchedule, Schedule, Shown};
use crate::model::task::Task;
use crate::model::time::Time;

use super::Error;

/// Schedules and the tasks they made. The changes belong to the transaction
/// that is open: a nominal time's task and the cursor that says so are kept
/// together or not at all.
pub trait Schedules {
    /// Keeps a new schedule, with its cursor at `now`.
    ///
    /// # Errors
    /// The database refused; a name twice is an error.
    fn add_schedule(&mut self, new: &NewSchedule, now: Time) -> Result<Schedule, Error>;

    /// One schedule.
    ///
    /// # Errors
    /// The database refused, or the row is damaged.
    fn schedule(&mut self, id: ScheduleId) -> Result<Option<Schedule>, Error>;

    /// The schedule to which an owner gave this name.
    ///
    /// # Errors
    /// The database refused, or the row is damaged.
    fn schedule_named(&mut self, owner: u32, name: &str) -> Result<Option<Schedule>, Error>;

    /// A page of schedules.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn schedules(&mut self, shown: Shown) -> Result<Vec<Schedule>, Error>;

    /// How many schedules an owner has.
    ///
    /// # Errors
    /// The database refused.
    fn count_schedules(&mut self, owner: u32) -> Result<u64, Error>;

    /// Saves a schedule's rule, task, cursor, wake and whether it is paused.
    ///
    /// # Errors
    /// The database refused.
    fn save_schedule(&mut self, schedule: &Schedule) -> Result<(), Error>;

    /// Forgets a schedule; its tasks stay.
    ///
    /// # Errors
    /// The database refused.
    fn remove_schedule(&mut self, id: ScheduleId) -> Result<(), Error>;

    /// Schedules whose next nominal time is not after `now`, earliest first.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn due_schedules(&mut self, now: Time, limit: u32) -> Result<Vec<Schedule>, Error>;

    /// The earliest next nominal time of all.
    ///
    /// # Errors
    /// The database refused.
    fn next_tick(&mut self) -> Result<Option<Time>, Error>;

    /// Schedules whose cursor is after `now`, since the clock was set back.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn schedules_ahead(&mut self, now: Time) -> Result<Vec<Schedule>, Error>;

    /// When the bucket out of which the starts of all schedules are taken is
    /// full again.
    fn starts(&self) -> Time;

    /// Keeps when that bucket is full again, with the tasks of this
    /// transaction.
    fn keep_starts(&mut self, until: Time);

    /// Whether there is a task for a nominal time.
    ///
    /// # Errors
    /// The database refused.
    fn has_tick(&mut self, tick: Tick) -> Result<bool, Error>;

    /// Tasks of a schedule that are not over, oldest first.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn unfinished_of(&mut self, id: ScheduleId) -> Result<Vec<Task>, Error>;

    /// The latest tasks of a schedule, newest first.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn latest_of(&mut self, id: ScheduleId, limit: u32) -> Result<Vec<Task>, Error>;
}
