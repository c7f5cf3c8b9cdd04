//! Integration tests: one binary, one file per room.

mod api;
mod bed;
mod cli;
mod config;
mod daemon;
mod handover;
mod notify;
mod profile;
mod runner;
mod signals;
mod sim;
mod store;
mod telemetry;
mod tidy;
