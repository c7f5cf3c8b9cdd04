//! What is kept of hooks: those of queues. A task's own are in its spec.

use crate::model::hook::Hook;

use super::Error;

/// Hooks of queues. A change belongs to the transaction that is open.
pub trait Hooks {
    /// What happens whenever a task of this queue is over.
    ///
    /// # Errors
    /// The database refused, or the row is damaged.
    fn queue_hooks(&mut self, queue: &str) -> Result<Vec<Hook>, Error>;

    /// Gives a queue other hooks, and makes it if it is not there.
    ///
    /// # Errors
    /// The database refused.
    fn set_queue_hooks(&mut self, queue: &str, hooks: &[Hook]) -> Result<(), Error>;
}
