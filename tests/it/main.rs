//! Integration tests: one binary, one file per room.

mod api;
mod bed;
mod calendar;
mod cli;
mod clocks;
mod config;
mod cron;
mod daemon;
mod freeze;
mod handover;
mod hooks;
mod hooks_live;
mod migrate;
mod notify;
mod notify_socket;
mod packaging;
mod profile;
mod runner;
mod schedules;
mod signals;
mod signs;
mod sim;
mod store;
mod store_hooks;
mod telemetry;
mod tidy;
