#![doc = include_str!("ARCHITECTURE.md")]

// Floor 0: rules.
pub mod model;

// Floor 1: what is kept, and what is run.
pub mod runner;
pub mod store;

// Floor 2: the one owner of all state.
pub mod engine;

// Beside the floors.
pub mod clock;
