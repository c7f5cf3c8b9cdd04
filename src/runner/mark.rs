//! The mark in the environment of every task of one runner socket, where there
//! are no cgroups: by it a fresh runner finds what a killed one left running,
//! and ends it before an attempt is run a second time beside it.
//!
//! The mark is a secret number in a file beside the socket. A process has it
//! only from a task, so no stranger is ever found; one that has cleared its
//! environment, or is of a user into whose environment this runner may not
//! look, is not found either.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, poll};

use super::serve::Door;
use super::start::random_name;
use super::{sys, tree};

/// Variable that holds the mark.
pub(super) const VARIABLE: &str = "TASKDAEMON_MARK";
/// Rounds of looking and killing: each finds what was born in the one before.
const ROUNDS: u32 = 16;
/// How long one process is waited for, in milliseconds.
const PATIENCE_MS: u16 = 1000;
/// Length of a mark, in characters.
const LEN: usize = 32;

/// The mark of the socket this runner listens on; made if there is none.
pub(super) fn of(door: &Door) -> Option<String> {
    let Door::Listener(listener) = door else {
        return None;
    };
    let path = listener.local_addr().ok()?;
    let path = path.as_pathname()?.with_extension("mark");
    match read(&path).or_else(|_| make(&path)) {
        Ok(mark) => Some(mark),
        Err(error) => {
            tracing::warn!(%error, "no mark at {}: should this runner be killed, what its tasks have \
                started goes on", path.display());
            None
        }
    }
}

/// Reads a mark that this user has made and nobody else can know.
fn read(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    let own = meta.uid() == nix::unistd::getuid().as_raw() && meta.mode() & 0o077 == 0;
    let mut mark = String::new();
    file.take(LEN as u64 + 1).read_to_string(&mut mark)?;
    let whole = mark.len() == LEN && mark.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !own || !meta.is_file() || !whole {
        return Err(io::Error::other("it is not a mark of this user's"));
    }
    Ok(mark)
}

/// Makes a new one in the place of whatever is there.
fn make(path: &Path) -> io::Result<String> {
    let mark = random_name().map_err(|error| io::Error::other(format!("{error:#}")))?;
    let fresh: PathBuf = path.with_extension(format!("mark-{}", std::process::id()));
    fs::remove_file(&fresh).ok();
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(mark.as_bytes()))
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        fs::remove_file(&fresh).ok();
    }
    written.map(|()| mark)
}

/// Ends every process that bears the mark: whoever started it was killed.
pub(super) fn end_bearers(mark: &str) {
    let entry = format!("{VARIABLE}={mark}");
    for _ in 0..ROUNDS {
        let killed: Vec<_> = tree::bearers(&entry)
            .into_iter()
            .filter_map(|pid| kill(pid, &entry))
            .collect();
        if killed.is_empty() {
            return;
        }
        tracing::warn!(
            processes = killed.len(),
            "ending what an earlier runner left"
        );
        for pidfd in killed {
            let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            if let Err(error) = poll(&mut fds, PATIENCE_MS) {
                tracing::debug!(%error, "cannot wait for a process to end");
            }
        }
    }
    tracing::error!("what an earlier runner left does not end, or starts processes faster");
}

/// Kills a process that bears the mark still when it is pinned.
fn kill(pid: i32, entry: &str) -> Option<OwnedFd> {
    let pidfd = sys::pidfd_open(pid).ok()?;
    if !tree::bears(pid, entry) {
        return None;
    }
    match sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) => Some(pidfd),
        Err(error) => {
            tracing::warn!(pid, %error, "cannot kill what an earlier runner left");
            None
        }
    }
}
