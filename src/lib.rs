#![doc = include_str!("ARCHITECTURE.md")]

// Beside the floors, and first: a macro is known from its place on.
#[macro_use]
pub mod failpoint;

// Floor 0: rules.
pub mod model;

// Floor 1: what is kept, and what is run.
pub mod runner;
pub mod store;

// Floor 2: the one owner of all state.
pub mod engine;

// Floor 3: requests in, work out.
pub mod api;
pub mod run;

// Floor 4: settings, and who asks the API.
pub mod client;
pub mod config;
pub mod web;

// Floor 5: the process.
pub mod daemon;

// The roof.
pub mod cli;

// Beside the floors.
pub mod clock;
pub mod telemetry;

// Every room's doors to the outside, for tests.
pub mod surfaces;

/// Version of this program. A package build may set its own, so that an
/// upgrade can be told from the program it replaces.
pub const VERSION: &str = match option_env!("TASKDAEMON_BUILD_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
