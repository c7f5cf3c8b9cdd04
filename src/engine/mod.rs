//! Floor 2: the engine, the one owner of all state.

pub mod command;
pub mod handle;
pub mod options;
pub mod reader;
pub mod snapshot;
