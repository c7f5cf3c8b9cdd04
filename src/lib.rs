#![doc = include_str!("ARCHITECTURE.md")]

pub mod daemon;

pub mod config;

pub mod api;
pub mod run;

pub mod engine;

pub mod runner;
pub mod store;

pub mod model;

pub mod clock;
pub mod telemetry;
