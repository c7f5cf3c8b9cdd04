//! Which tasks a listing shows.

use super::attempt::Class;
use super::id::TaskId;
use super::task::{State, Task};
use super::time::Time;

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

/// A page of tasks, with those that cannot be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The tasks, newest first.
    pub tasks: Vec<Task>,
    /// Tasks of this page whose rows are damaged.
    pub damaged: Vec<TaskId>,
    /// The next page is before this one; absent on the last page.
    pub next: Option<TaskId>,
}

/// Which tasks a change is for, narrowed by every field that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only tasks of this owner.
    pub owner: Option<u32>,
    /// Only tasks in one of these states.
    pub states: Vec<State>,
    /// Only tasks of this queue.
    pub queue: Option<String>,
    /// Only tasks whose name contains this, letter by letter.
    pub name: Option<String>,
    /// Only tasks with all these labels and values.
    pub labels: Vec<(String, String)>,
    /// Only tasks whose outcome has one of these classes; all when empty.
    pub classes: Vec<Class>,
    /// Only tasks that were over by then or, where they are not over, were
    /// accepted by then.
    pub by: Option<Time>,
}

/// Where a walk over all tasks stands and how far it may go in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Only tasks newer than this one.
    pub after: TaskId,
    /// Only tasks up to this one.
    pub until: TaskId,
    /// At most so many are looked at.
    pub look: u32,
    /// At most so many are taken.
    pub take: u32,
}
