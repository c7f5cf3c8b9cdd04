//! Faults done to a real daemon on real disks, judged from outside. The table in README.md says which fault of the
//! catalogue is tried by which test, and which found what.
//!
//! They need the feature `failpoints`, most need root, and `tests/run faults` runs them. A test that cannot be run on a
//! machine says so in a line that begins with "skipped".
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "all of this is test code, which clippy cannot see outside of test functions"
)]

#[path = "../it/bed.rs"]
#[expect(dead_code, reason = "only its requests are used")]
mod bed;
mod disk;
mod draw;
mod host;
mod inject;
mod journal;
mod load;
mod power;

mod calls;
mod cuts;
mod damage;
mod pids;
mod points;
mod promise;
mod readonly;
mod rest;
mod steps;
mod table;
mod writes;
