//! A runner of the daemon's own, where no service manager starts one.
//!
//! It gets its listening socket as standard input, just as the service manager
//! would hand it over, and lives on when the daemon ends.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::options::Users;

/// A runner that this process started.
pub(super) struct OwnRunner {
    child: Child,
}

impl OwnRunner {
    /// Starts a runner that listens on `path`. Whatever was there answered
    /// nobody and is replaced; the state directory's lock keeps a second daemon
    /// from doing the same.
    pub(super) fn start(path: &Path, users: Users) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("runner")
            .args(match users {
                Users::Own => &["--options", r#"{"users":"own"}"#][..],
                Users::Policy => &[],
            })
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .spawn()?;
        tracing::info!("started a runner, pid {}", child.id());
        Ok(Self { child })
    }
}

impl Drop for OwnRunner {
    /// Collects the exit of a runner that has ended. One that lives is left
    /// alone: it has tasks.
    fn drop(&mut self) {
        if let Err(error) = self.child.try_wait() {
            tracing::debug!(%error, "the runner's exit could not be collected");
        }
    }
}
