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
mod migrate;
mod notify;
mod notify_socket;
mod packaging;
mod profile;
mod record;
mod retention;
mod runner;
mod schedules;
mod signals;
mod sim;
mod store;
mod store_record;
mod telemetry;
mod tidy;
