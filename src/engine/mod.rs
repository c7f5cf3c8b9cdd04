//! Floor 2: the one owner of all state.

pub mod options;
