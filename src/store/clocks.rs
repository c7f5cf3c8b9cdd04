//! What is kept to tell that the host's clock was set.

use crate::model::task::Task;

use super::Error;

/// How far the wall clock is ahead of the time since boot, and the tasks that
/// care when that changes.
pub trait Clocks {
    /// The boot id and the lead, in microseconds, that were kept last.
    ///
    /// # Errors
    /// The database refused.
    fn lead(&mut self) -> Result<Option<(String, i64)>, Error>;

    /// Keeps the lead of a boot.
    ///
    /// # Errors
    /// The database refused.
    fn keep_lead(&mut self, boot: &str, lead: i64) -> Result<(), Error>;

    /// Tasks that wait for the end of a duration: the live ones, and those
    /// that are scheduled for another reason than their start time.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn timed(&mut self) -> Result<Vec<Task>, Error>;
}
