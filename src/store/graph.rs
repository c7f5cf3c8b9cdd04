//! What waits for what, and who has a unique key, as kept.

use crate::model::depend::Link;
use crate::model::id::TaskId;
use crate::model::spec::Wants;
use crate::model::task::State;

use super::Error;

/// The first of those a task still waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub parent: TaskId,
    /// Where it stands; absent when it is no longer kept.
    pub state: Option<State>,
    /// How many more there are.
    pub more: u64,
}

/// Edges between tasks, and unique keys.
///
/// An edge that is met stays met, whatever becomes of the parent, until the
/// child is run again.
pub trait Graph {
    /// Stores that one task waits for another.
    ///
    /// # Errors
    /// The database refused; the same pair twice is an error.
    fn link(&mut self, child: TaskId, parent: TaskId, wants: Wants, met: bool)
    -> Result<(), Error>;

    /// Whether an edge counts as met.
    ///
    /// # Errors
    /// The database refused.
    fn set_met(&mut self, child: TaskId, parent: TaskId, met: bool) -> Result<(), Error>;

    /// What a task was told to wait for, by number.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn parents(&mut self, child: TaskId) -> Result<Vec<Link>, Error>;

    /// Tasks that were told to wait for this one, by number.
    ///
    /// # Errors
    /// The database refused.
    fn children(&mut self, parent: TaskId, limit: u32) -> Result<Vec<TaskId>, Error>;

    /// How many tasks were told to wait for this one.
    ///
    /// # Errors
    /// The database refused.
    fn count_children(&mut self, parent: TaskId) -> Result<u64, Error>;

    /// Blocked tasks that still wait for this one, by number, and how it has
    /// to end.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn waiting(&mut self, parent: TaskId) -> Result<Vec<(TaskId, Wants)>, Error>;

    /// Whether a task waits for any other still; costs the same however many
    /// it has waited for.
    ///
    /// # Errors
    /// The database refused.
    fn is_held(&mut self, child: TaskId) -> Result<bool, Error>;

    /// The first task that this one still waits for, and how many more.
    ///
    /// # Errors
    /// The database refused, or a row is damaged.
    fn held_by(&mut self, child: TaskId) -> Result<Option<Held>, Error>;

    /// The unfinished task of an owner that has this unique key.
    ///
    /// # Errors
    /// The database refused.
    fn unique_holder(&mut self, owner: u32, key: &str) -> Result<Option<TaskId>, Error>;

    /// Takes a task's unique key away.
    ///
    /// # Errors
    /// The database refused.
    fn release_unique(&mut self, id: TaskId) -> Result<(), Error>;
}
