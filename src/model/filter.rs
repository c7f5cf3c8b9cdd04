//! Which tasks a listing shows.

use super::id::TaskId;
use super::task::State;

/// A listing from new to old, narrowed by every field that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only tasks of this owner.
    pub owner: Option<u32>,
    /// Only tasks in one of these states; all when empty.
    pub states: Vec<State>,
    /// Only tasks of this queue.
    pub queue: Option<String>,
    /// Only tasks whose name contains this, letter by letter.
    pub name: Option<String>,
    /// Only tasks with this label and value.
    pub label: Option<(String, String)>,
    /// Only tasks older than this one.
    pub before: Option<TaskId>,
    /// At most so many.
    pub limit: u32,
}
