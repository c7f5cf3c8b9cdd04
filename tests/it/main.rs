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
mod graph;
mod handover;
mod job;
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
mod store_graph;
mod telemetry;
mod tidy;
