//! The run room's settings.

use std::path::PathBuf;

/// Where work goes, and what is kept of its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Socket of the shared runner.
    pub runner_socket: PathBuf,
    /// Bytes of output kept of an attempt whose task names no other cap.
    pub output_cap: u64,
    /// Whether to start an own runner when nobody listens on the socket.
    pub start_runner: StartRunner,
}

/// Who starts the runner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StartRunner {
    /// The daemon, when nobody else listens.
    #[default]
    Auto,
    /// Only the service manager.
    Never,
}
