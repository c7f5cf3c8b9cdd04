//! A runner of the daemon's own, where no service manager starts one.
//!
//! It gets its listening socket as standard input, just as the service manager
//! would hand it over, and lives on when the daemon ends. A supervisor with
//! more rights than its daemon keeps one for it, so that tasks are not the
//! daemon there either.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::runner::client::Connection;
use crate::runner::pidfd::Process;
use crate::runner::protocol::{FromRunner, Hello, ToRunner};
use crate::runner::{self, Users};

/// How long a runner that is kept for a daemon waits for it when it has
/// nothing to do: longer than a daemon takes to be started again.
const KEPT_IDLE: Duration = Duration::from_secs(60);

/// The user of a daemon that has fewer rights than its runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
}

/// A runner that this process started.
#[derive(Debug)]
pub struct OwnRunner {
    child: Child,
}

impl OwnRunner {
    /// Starts a runner that listens on `path`. Whatever was there answered
    /// nobody and is replaced; the state directory's lock keeps a second daemon
    /// from doing the same.
    pub(super) fn start(path: &Path, users: Users) -> io::Result<Self> {
        Self::begin(path, users, lock(path)?, None)
    }

    /// Waits until no other runner lives for this socket, and starts one that
    /// the peer's daemon may connect to.
    ///
    /// # Errors
    /// The system refuses.
    pub fn keep(path: &Path, users: Users, peer: &Peer) -> io::Result<Self> {
        let file = lock_file(path)?;
        file.lock()?;
        // No runner of a daemon's own, so one of the service manager's.
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::other(format!(
                "somebody else has a runner at {}; is a service manager running the daemon too?",
                path.display()
            )));
        }
        Self::begin(path, users, file, Some(peer))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The system refuses.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    fn begin(path: &Path, users: Users, lock: File, peer: Option<&Peer>) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        let mut options = runner::Options {
            users,
            ..runner::Options::default()
        };
        if let Some(peer) = peer {
            std::os::unix::fs::lchown(path, Some(peer.uid), None)?;
            options.daemon_user = Some(peer.name.clone());
            options.idle = KEPT_IDLE;
        }
        let child = Command::new(program()?)
            .arg("runner")
            .arg("--options")
            .arg(serde_json::to_string(&options)?)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            // Where nothing is written. An inherited descriptor would, for a
            // moment, be inherited by whatever else is started meanwhile.
            .stdout(Stdio::from(lock))
            // Ctrl-C in a terminal is for the daemon alone.
            .process_group(0)
            .spawn();
        let child = child?;
        failpoint!("run/runner/started");
        tracing::info!("started a runner, pid {}", child.id());
        Ok(Self { child })
    }
}

/// Makes sure that no runner lives whose socket somebody removed: another one
/// would take its tasks for lost and run them beside it. The lock is handed
/// down as the runner's standard output, and ends with the runner.
fn lock(socket: &Path) -> io::Result<File> {
    let file = lock_file(socket)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::other(format!(
            "a runner lives that cannot be reached (its socket was removed?); its tasks go on, \
             and nothing new starts until it ends: see who holds {}",
            lock_path(socket).display()
        )),
        TryLockError::Error(error) => error,
    })?;
    Ok(file)
}

/// Our own program's file, also when another one took its place: then that.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"));
    Ok(text.map_or_else(|| path.clone(), PathBuf::from))
}

fn lock_path(socket: &Path) -> PathBuf {
    socket.with_extension("lock")
}

fn lock_file(socket: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(lock_path(socket))
}

/// Whether a runner lives for this socket, with or without tasks. Where that
/// cannot be told, none does.
#[must_use]
pub fn lives(socket: &Path) -> bool {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(lock_path(socket));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Ends the runner of a socket with all its tasks, where one lives and no
/// daemon: it gives them its usual grace. Tells whether it has ended in time,
/// or `None` when there was none.
///
/// # Errors
/// It cannot be reached, or may not be signalled.
pub fn end(socket: &Path, limit: Duration) -> io::Result<Option<bool>> {
    if !lives(socket) {
        return Ok(None);
    }
    let (mut sender, mut receiver) = Connection::connect(socket)?.split()?;
    sender.send(&ToRunner::Hello(Hello::ours()), &[])?;
    let hello = loop {
        match receiver.recv()? {
            Some(FromRunner::Hello(hello)) => break hello.hello,
            Some(_) => {}
            None => return Err(io::Error::other("the runner closed the connection")),
        }
    };
    let pid = i32::try_from(hello.pid).map_err(io::Error::other)?;
    let runner = Process::open(pid)?;
    runner.signal(Signal::SIGTERM)?;
    // It waits for nobody to record how its tasks ended.
    drop((sender, receiver));
    runner.ends_within(limit).map(Some)
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
