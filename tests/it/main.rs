//! Integration tests: one binary, one file per room.

mod bed;
mod config;
mod daemon;
mod notify;
mod profile;
mod runner;
mod signals;
mod sim;
mod store;
mod telemetry;
mod tidy;
