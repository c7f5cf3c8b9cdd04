//! Floor 0: the rules of the queue as plain values and pure functions.
//!
//! Nothing here reads a clock, opens a file, spawns, logs or draws a random
//! number: time and jitter come in as arguments, and what should happen goes
//! out as a returned value. Whatever is true of a task without an operating
//! system is decided on this floor.

pub mod accept;
pub mod admit;
pub mod agent;
pub mod attempt;
pub mod badge;
pub mod bound;
pub mod breaker;
pub mod budget;
pub mod capture;
pub mod check;
pub mod depend;
pub mod doctor;
mod draw;
pub mod edit;
pub mod estimate;
pub mod event;
pub mod filter;
pub mod gauge;
pub mod health;
pub mod hook;
pub mod id;
pub mod invalid;
pub mod json;
pub mod ledger;
pub mod limit;
pub mod live;
pub mod lot;
pub mod notice;
pub mod origin;
pub mod price;
pub mod prompt;
pub mod quantity;
pub mod queue;
pub mod quota;
pub mod rate;
pub mod reason;
pub mod receipt;
pub mod restart;
pub mod retry;
pub mod role;
pub mod schedule;
pub mod schema;
pub mod setting;
pub mod span;
pub mod spec;
pub mod step;
pub mod task;
pub mod time;
pub mod trace;
mod verdict;
