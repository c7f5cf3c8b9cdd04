//! A socket for each attempt, on which it says how it is doing: what its
//! variable `NOTIFY_SOCKET` names.
//!
//! Each lies in a directory of its own and belongs to the attempt's user, so
//! that no other user's process can send there, not even to crowd it. Tasks of
//! one user could still mistake each other's: whose a message is, is asked of
//! the kernel, see [`is_from`]. What becomes of a message is in `notices.rs`.
//!
//! A message may bring descriptors: with a pipe, whose end it sees when the
//! message is taken, a client waits until it was heard. None of them gets into
//! this process. To let go of one may still take as long as a task likes, so
//! such messages are looked at here and taken by a thread.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, getuid, setfsuid};

use super::serve::Door;
use super::start::random_name;
use super::sys::{self, Datagram};
use crate::model::attempt::Started;

/// Name of the socket in its directory.
const NAME: &str = "notify";
/// Only its user may send: to connect is to write.
const SOCKET_MASK: u32 = 0o177;
/// Whoever knows a name below may get there, and nobody sees the names.
const PASSAGE: u32 = 0o711;
/// The same while a user's socket is made in there.
const OPEN: u32 = 0o733;
/// Stack of a thread that takes messages.
const STACK: usize = 64 * 1024;

/// Where all sockets of this runner lie.
#[derive(Debug)]
pub(super) struct Mailboxes {
    dir: PathBuf,
    /// One that is made already, for whoever had the last.
    ahead: Ahead,
    /// It was said that a socket could not be made.
    complained: bool,
}

/// Nobody waits for a socket that is made while there is nothing else to do.
#[derive(Debug)]
enum Ahead {
    /// Nobody has asked for one yet.
    Nobody,
    /// To be made for this user.
    Wanted(u32),
    /// Made for this user.
    Made(u32, Mailbox),
}

impl Mailboxes {
    /// Finds the place: beside the socket that daemons connect to, or for a
    /// runner without one where temporary files go, which in a sandbox is a
    /// directory of its own. `None`, and said why, where there is no such place.
    pub(super) fn find(door: &Door) -> Option<Self> {
        let made = match beside(door) {
            Some(dir) => take(&dir).map(|()| dir),
            None => make_below(&std::env::temp_dir()),
        };
        match made {
            Ok(dir) => Some(Self::at(dir)),
            Err(error) => {
                tracing::warn!(%error, "no place for sockets: tasks cannot say how they are doing");
                None
            }
        }
    }

    /// The place that was found before a renewal.
    pub(super) const fn at(dir: PathBuf) -> Self {
        Self {
            dir,
            ahead: Ahead::Nobody,
            complained: false,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a user's socket. Where it cannot be made the task does without,
    /// and this is said once.
    pub(super) fn make(&mut self, uid: u32) -> Option<Mailbox> {
        match std::mem::replace(&mut self.ahead, Ahead::Wanted(uid)) {
            Ahead::Made(of, mailbox) if of == uid => Some(mailbox),
            Ahead::Made(..) | Ahead::Wanted(_) | Ahead::Nobody => self.make_now(uid),
        }
    }

    /// Makes the next one, if somebody may want it.
    pub(super) fn make_ahead(&mut self) {
        if let Ahead::Wanted(uid) = self.ahead {
            let made = self.make_now(uid);
            self.ahead = made.map_or(Ahead::Nobody, |mailbox| Ahead::Made(uid, mailbox));
        }
    }

    /// Removes what was made ahead.
    pub(super) fn forget(&mut self) {
        self.ahead = Ahead::Nobody;
    }

    fn make_now(&mut self, uid: u32) -> Option<Mailbox> {
        // A name that nobody can guess: who does not know it cannot get in
        // while the user may.
        let made = random_name()
            .map_err(|error| io::Error::other(format!("{error:#}")))
            .and_then(|name| make(&self.dir.join(name), uid));
        match made {
            Ok(mailbox) => Some(mailbox),
            Err(error) => {
                if !self.complained {
                    self.complained = true;
                    tracing::warn!(
                        "cannot make a socket in {} for uid {uid}: {error}; tasks like this one \
                         cannot say how they are doing",
                        self.dir.display()
                    );
                }
                None
            }
        }
    }

    /// Removes the place; the sockets are gone with their attempts.
    pub(super) fn leave(&mut self) {
        self.forget();
        if let Err(error) = fs::remove_dir(&self.dir) {
            tracing::debug!(%error, "cannot remove {}", self.dir.display());
        }
    }
}

/// Beside the listening socket, under its name.
fn beside(door: &Door) -> Option<PathBuf> {
    let Door::Listener(listener) = door else {
        return None;
    };
    let address = listener.local_addr().ok()?;
    Some(address.as_pathname()?.with_extension("notify"))
}

/// Makes a directory, or takes this user's own and empties it of what a runner
/// that was killed left behind.
fn take(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(PASSAGE).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(dir)?;
            if !meta.is_dir() || meta.uid() != getuid().as_raw() {
                return Err(io::Error::other(format!(
                    "{} is not this runner's own directory",
                    dir.display()
                )));
            }
            for left in fs::read_dir(dir)?.filter_map(Result::ok) {
                clear(&left.path());
            }
        }
        made => made?,
    }
    // Whatever the mask took away or an earlier owner had added.
    fs::set_permissions(dir, Permissions::from_mode(PASSAGE))
}

/// Makes a directory nobody has yet.
fn make_below(dir: &Path) -> io::Result<PathBuf> {
    let made = nix::unistd::mkdtemp(&dir.join("taskdaemon-notify-XXXXXX"))?;
    fs::set_permissions(&made, Permissions::from_mode(PASSAGE))?;
    Ok(made)
}

/// Removes a socket and its directory.
fn clear(dir: &Path) {
    let removed = fs::remove_file(dir.join(NAME)).and_then(|()| fs::remove_dir(dir));
    if let Err(error) = removed {
        tracing::debug!(%error, "cannot remove {}", dir.display());
    }
}

/// Makes a directory and in it a user's own socket.
fn make(dir: &Path, uid: u32) -> io::Result<Mailbox> {
    DirBuilder::new().mode(0o700).create(dir)?;
    let made = fill(dir, uid);
    if made.is_err() {
        fs::remove_dir(dir).ok();
    }
    made
}

fn fill(dir: &Path, uid: u32) -> io::Result<Mailbox> {
    let path = dir.join(NAME);
    let own = getuid();
    let socket = if uid == own.as_raw() {
        bind(&path)?
    } else {
        // A runner that may become anybody need not be able to give files
        // away: the file is made as the user's own.
        fs::set_permissions(dir, Permissions::from_mode(OPEN))?;
        let bound = become_for_files(Uid::from_raw(uid)).and_then(|()| bind(&path));
        become_for_files(own)?;
        bound?
    };
    let mailbox = Mailbox {
        socket: Arc::new(socket),
        path,
    };
    fs::set_permissions(dir, Permissions::from_mode(PASSAGE))?;
    setsockopt(&mailbox.socket, sockopt::PassCred, &true)?;
    mailbox.socket.set_nonblocking(true)?;
    Ok(mailbox)
}

/// Has files made by this thread, the only one that makes any, belong to a
/// user.
fn become_for_files(uid: Uid) -> io::Result<()> {
    setfsuid(uid);
    // The call says nothing about its success, but who one was before.
    if setfsuid(uid) == uid {
        return Ok(());
    }
    Err(io::Error::other(format!("cannot make files as uid {uid}")))
}

fn bind(path: &Path) -> io::Result<UnixDatagram> {
    let before = umask(Mode::from_bits_truncate(SOCKET_MASK));
    let bound = UnixDatagram::bind(path);
    umask(before);
    bound
}

/// One attempt's socket. Its files go with it.
#[derive(Debug)]
pub(super) struct Mailbox {
    socket: Arc<UnixDatagram>,
    path: PathBuf,
}

impl Mailbox {
    /// What the task is told.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes over, after a renewal, what was there before.
    pub(super) fn restore(fd: RawFd, path: PathBuf) -> io::Result<Self> {
        let socket = Arc::new(UnixDatagram::from(sys::adopt(fd)?));
        Ok(Self { socket, path })
    }

    /// Looks at the next message, if one waits.
    pub(super) fn look(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        sys::look_at_datagram(&*self.socket, buffer)
    }

    /// Takes the message that was looked at.
    pub(super) fn take(&self) -> io::Result<()> {
        self.socket.recv(&mut []).map(drop)
    }

    /// Has it taken by a thread, until whose end nothing else may be done here.
    pub(super) fn take_apart(&self) -> io::Result<JoinHandle<()>> {
        let socket = Arc::clone(&self.socket);
        thread(move || drop(socket.recv(&mut [])))
    }

    /// Lets no more messages come.
    pub(super) fn shut(&self) {
        if let Err(error) = self.socket.shutdown(Shutdown::Read) {
            tracing::debug!(%error, "cannot shut a task's socket");
        }
    }

    /// Has all that wait in a socket that is shut taken by a thread.
    pub(super) fn empty_apart(&self) -> io::Result<()> {
        let socket = Arc::clone(&self.socket);
        thread(move || while socket.recv(&mut []).is_ok() {}).map(drop)
    }
}

fn thread(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let builder = Builder::new().name("take".to_owned());
    builder.stack_size(STACK).spawn(work)
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        if let Some(dir) = self.path.parent() {
            clear(dir);
        }
    }
}

/// Whether a message is from a process of the attempt: by its cgroup, or, where
/// there are none or the process is gone already, by its user. A process of
/// the same user that is no part of the attempt can so be taken for one when
/// it ends at once; it could as well have ended the attempt.
pub(super) fn is_from(attempt: &Started, pid: i32, uid: u32) -> bool {
    let Some(own) = &attempt.cgroup else {
        return uid == attempt.uid;
    };
    match group(pid) {
        Some(group) => Path::new(&group).starts_with(own),
        None => pid > 0 && uid == attempt.uid,
    }
}

/// The cgroup of a process that is still there.
fn group(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let group = group.strip_suffix(" (deleted)").unwrap_or(group);
    Some(group.to_owned())
}
