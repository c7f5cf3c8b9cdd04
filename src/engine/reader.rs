//! Reads for the rooms above, on a thread and a read-only connection of their
//! own, so that a long listing never holds up a commit.

use crate::model::task::TaskId;

use super::command::{Caller, Filter, Reply, View};

/// What can be asked without changing anything.
#[derive(Debug)]
pub enum Query {
    /// One task.
    Show {
        /// Who asks.
        caller: Caller,
        /// Which.
        id: TaskId,
        /// The task.
        reply: Reply<View>,
    },
    /// A page of tasks.
    List {
        /// Which.
        filter: Filter,
        /// The tasks, without their attempts.
        reply: Reply<Vec<View>>,
    },
}
