//! Agents: processes that are to run for ever, and what keeps them running.
//!
//! What is asked for is in [`plan`], where each instance stands and what leads
//! from there to where in [`life`]. Each run of an agent is a task of its own,
//! in the queue [`QUEUE`].

mod check;
pub mod hook;
pub mod life;
pub mod phase;
pub mod plan;
pub mod probe;

/// The queue of agents' runs and clean-ups. Nobody can submit to it.
pub const QUEUE: &str = "agents";
