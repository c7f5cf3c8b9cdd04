//! A runner of the daemon's own, where no service manager starts one.
//!
//! It gets its listening socket as standard input, just as the service manager
//! would hand it over, and lives on when the daemon ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::runner::Users;

/// A runner that this process started.
pub(super) struct OwnRunner {
    child: Child,
}

impl OwnRunner {
    /// Starts a runner that listens on `path`. Whatever was there answered
    /// nobody and is replaced; the state directory's lock keeps a second daemon
    /// from doing the same.
    pub(super) fn start(path: &Path, users: Users) -> io::Result<Self> {
        let lock = lock(path)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("runner")
            .args(match users {
                Users::Own => &["--users", "own"][..],
                Users::Policy => &[],
            })
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            // Ctrl-C in a terminal is for the daemon alone.
            .process_group(0)
            .spawn();
        // In this process the lock must not live on, and not reach anyone else.
        drop(lock);
        let child = child?;
        failpoint!("run/runner/started");
        tracing::info!("started a runner, pid {}", child.id());
        Ok(Self { child })
    }
}

/// Makes sure that no runner lives whose socket somebody removed: another one
/// would take its tasks for lost and run them beside it. The lock is handed
/// down with its descriptor, and ends with the runner.
fn lock(socket: &Path) -> io::Result<File> {
    let path = socket.with_extension("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::other(format!(
            "a runner lives that cannot be reached (its socket was removed?); its tasks go on, \
             and nothing new starts until it ends: see who holds {}",
            path.display()
        )),
        TryLockError::Error(error) => error,
    })?;
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(file)
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
