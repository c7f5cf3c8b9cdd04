//! The program: hands its arguments to the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    taskdaemon::failpoint::arm();
    taskdaemon::cli::run(std::env::args_os())
}
