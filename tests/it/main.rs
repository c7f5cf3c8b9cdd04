//! Integration tests: one binary, one file per room.

mod api;
mod bed;
mod cli;
mod clocks;
mod config;
mod daemon;
mod handover;
mod migrate;
mod notify;
mod packaging;
mod profile;
mod runner;
mod signals;
mod sim;
mod store;
mod telemetry;
mod tidy;
