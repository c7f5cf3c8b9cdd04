//! Integration tests: one binary, one file per room.
mod runner;
