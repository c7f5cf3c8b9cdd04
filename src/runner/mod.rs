//! Floor 1: the runner, the process that owns children.

pub mod protocol;
