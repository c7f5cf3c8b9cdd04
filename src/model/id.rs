//! How a task is named everywhere: in rows, messages, paths and words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of a task: positive, unique for ever on one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub i64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
