//! Integration tests: one binary, one file per room.

mod config;
mod notify;
mod signals;
mod runner;
mod sim;
mod store;
mod telemetry;
