//! What is kept of a change to a task that waits.

use crate::model::task::Task;

use super::Error;

/// Changes of what was asked. They belong to the transaction that is open.
pub trait Edits {
    /// Saves a task that was read as `before` and is to be `after`: its queue,
    /// rank, name, labels and spec, and where it stands. Fenced by the state
    /// and attempt of `before`.
    ///
    /// # Errors
    /// [`Error::Fenced`], or the database refused.
    fn save_edit(&mut self, before: &Task, after: &Task) -> Result<(), Error>;
}
