//! Integration tests: one binary, one file per room.

mod config;
mod notify;
mod runner;
mod signals;
mod sim;
mod store;
mod telemetry;
mod tidy;
