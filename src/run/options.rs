//! Settings of running: which runner, how much output.
//!
//! Plain values; `config` reads and checks them, the room obeys them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::quantity::ByteSize;
use crate::model::setting::Kind::Restart;
use crate::model::setting::settings;
use crate::runner::Users;

settings! {
    /// Settings of running, section `[run]`.
    pub struct Options {
        /// Unix socket of the runner, by default `runner.sock` in `runtime_dir`.
        runner_socket: PathBuf = PathBuf::from("/run/taskdaemon/runner.sock"), Restart;
        /// Unix socket where runners of single attempts, in a sandbox profile, find the daemon
        /// again after a restart; by default `report/report.sock` in `runtime_dir`.
        report_socket: PathBuf = PathBuf::from("/run/taskdaemon/report/report.sock"), Restart;
        /// Output kept of one attempt, where the task names no other cap.
        output_cap: ByteSize = ByteSize::mib(10), Restart;
        /// "auto": start a runner of its own when nothing listens on the runner's socket;
        /// "never": wait for one.
        start_runner: StartRunner = StartRunner::Auto, Restart;
        /// Whom tasks run as under a runner that the daemon started itself. "policy": whom
        /// /etc/taskdaemon/run-as.toml allows; "own": always the daemon's own user.
        users: Users = Users::Policy, Restart;
    }
}

/// Whether the daemon may start a runner itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartRunner {
    /// When nothing listens on the runner's socket.
    Auto,
    /// Not at all: systemd does.
    Never,
}
