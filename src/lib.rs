#![doc = include_str!("ARCHITECTURE.md")]

// Floor 0: rules.
pub mod model;

// Floor 1: what is kept, and what is run.
pub mod runner;
pub mod store;

// Floor 2: the one owner of all state.
pub mod engine;

// Floor 3: work out.
//pub mod run;

// Beside the floors.
pub mod clock;

/// Version of this program. A package build may set its own, so that an
/// upgrade can be told from the program it replaces.
pub const VERSION: &str = match option_env!("TASKDAEMON_BUILD_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
