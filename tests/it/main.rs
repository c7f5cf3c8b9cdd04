//! Integration tests: one binary, one file per room.

mod runner;
mod sim;
mod store;
