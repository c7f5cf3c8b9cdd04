//! The sockets systemd passed, by name, each looked at before it is believed.
//!
//! libsystemd receives those with names; listenfd those of developers' tools,
//! which give none. Both trust what they are told, so the protocol is checked
//! here first: for whom, how many, open, of which type. Serving is for others.

use std::env;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::process;

use libsystemd::activation::{FileDescriptor, IsType, receive_descriptors_with_names};
use listenfd::ListenFd;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};

/// Number of the first descriptor systemd passes.
const FIRST: RawFd = 3;

/// A socket that already listens; it never blocks and no child inherits it.
#[derive(Debug)]
pub enum Listener {
    /// A unix stream socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

/// What a passed descriptor has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A listening unix stream socket, named `api`.
    Unix,
    /// A listening TCP socket, named `tcp`.
    Tcp,
}

impl Family {
    /// What a name promises; nothing when the name is not ours.
    fn of_name(name: &str) -> Option<Self> {
        match name {
            "api" => Some(Self::Unix),
            "tcp" => Some(Self::Tcp),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unix => "listening unix stream socket",
            Self::Tcp => "listening TCP socket",
        })
    }
}

/// Passed sockets that cannot be served. All of these are faults of the unit
/// files, so the caller ends with the exit code for configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable is missing or not what the protocol says.
    #[error("{variable}={value:?}: {wanted}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// Its value; empty when it is missing.
        value: String,
        /// What was expected.
        wanted: &'static str,
    },
    /// More or fewer names than descriptors.
    #[error("LISTEN_FDNAMES has {names} names for {fds} descriptors")]
    Names {
        /// Names counted.
        names: usize,
        /// Descriptors announced.
        fds: usize,
    },
    /// A name that means nothing here.
    #[error(
        "descriptor {fd} is named {name:?}: the names are `api` and `tcp` (FileDescriptorName= of the socket unit)"
    )]
    UnknownName {
        /// Its number.
        fd: RawFd,
        /// Its name.
        name: String,
    },
    /// Announced, but not open.
    #[error("descriptor {fd} ({name}) was announced but is not open: {source}")]
    Closed {
        /// Its number.
        fd: RawFd,
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// Open, but not what its name promises.
    #[error("descriptor {fd} ({name}) is not a {wanted}")]
    WrongType {
        /// Its number.
        fd: RawFd,
        /// Its name.
        name: String,
        /// What it should be.
        wanted: Family,
    },
    /// The system refused something.
    #[error("cannot set up descriptor {fd} ({name}): {source}")]
    Setup {
        /// Its number.
        fd: RawFd,
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The library found what we did not.
    #[error("cannot receive descriptors: {0}")]
    Receive(String),
}

/// Takes the sockets passed to this process; it must be the only thread.
pub(super) fn take(warnings: &mut Vec<String>) -> Result<Vec<(String, Listener)>, Error> {
    let Some(count) = text("LISTEN_FDS") else {
        return Ok(Vec::new());
    };
    let bad = |variable, value: &str, wanted| Error::Variable {
        variable,
        value: value.to_owned(),
        wanted,
    };
    let number = count
        .parse::<RawFd>()
        .ok()
        .filter(|count| (0..=RawFd::MAX - FIRST).contains(count))
        .ok_or_else(|| bad("LISTEN_FDS", &count, "not a number of descriptors"))?;
    let count = usize::try_from(number).unwrap_or(0);
    // A process that was not meant must not touch descriptors 3 and up: they
    // are its parent's business. Nobody meant at all is a broken launcher.
    let pid = text("LISTEN_PID").unwrap_or_default();
    match pid.parse::<u32>() {
        Ok(meant) if meant == process::id() => {}
        Ok(_) => {
            warnings.push(format!(
                "LISTEN_PID={pid} is not this process: the passed sockets are left alone"
            ));
            return Ok(Vec::new());
        }
        Err(_) => {
            return Err(bad(
                "LISTEN_PID",
                &pid,
                "LISTEN_FDS needs the process id the sockets are meant for",
            ));
        }
    }
    let names = text("LISTEN_FDNAMES");
    let labels: Vec<String> = names
        .as_deref()
        .map(|names| names.split(':').map(str::to_owned).collect())
        .unwrap_or_default();
    // Both crates are only called when every descriptor exists: they allocate
    // by the announced number and cut off what has no name.
    for fd in FIRST..FIRST + number {
        let index = usize::try_from(fd - FIRST).unwrap_or(0);
        let name = labels.get(index).map_or("unnamed", String::as_str);
        prepare(fd, name)?;
    }
    if names.is_none() {
        return unnamed(count);
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    if labels.len() != count {
        return Err(Error::Names {
            names: labels.len(),
            fds: count,
        });
    }
    receive_descriptors_with_names(false)
        .map_err(|error| Error::Receive(error.to_string()))?
        .into_iter()
        .map(|(descriptor, name)| named(descriptor, name))
        .collect()
}

fn text(variable: &str) -> Option<String> {
    env::var_os(variable).map(|value| value.to_string_lossy().into_owned())
}

/// Makes sure that a descriptor is open, is not inherited and never blocks.
fn prepare(fd: RawFd, name: &str) -> Result<(), Error> {
    #[expect(
        unsafe_code,
        reason = "a passed descriptor is only a number until it was looked at"
    )]
    // SAFETY: nothing in this process can have opened or closed the number
    // before the first thread; fcntl on a number that is not open only fails.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let setup = |errno: Errno| Error::Setup {
        fd,
        name: name.to_owned(),
        source: errno.into(),
    };
    fcntl(borrowed, FcntlArg::F_GETFD).map_err(|errno| Error::Closed {
        fd,
        name: name.to_owned(),
        source: errno.into(),
    })?;
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(setup)?;
    let flags = fcntl(borrowed, FcntlArg::F_GETFL).map_err(setup)?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(borrowed, FcntlArg::F_SETFL(flags)).map_err(setup)?;
    Ok(())
}

/// A descriptor that came with a name: it has to be what the name promises.
fn named(descriptor: FileDescriptor, name: String) -> Result<(String, Listener), Error> {
    let (unix, inet) = (descriptor.is_unix(), descriptor.is_inet());
    let fd = descriptor.into_raw_fd();
    let Some(wanted) = Family::of_name(&name) else {
        return Err(Error::UnknownName { fd, name });
    };
    let fits = match wanted {
        Family::Unix => unix,
        Family::Tcp => inet,
    };
    #[expect(unsafe_code, reason = "the crate hands out a bare number")]
    // SAFETY: the number was passed to this process to own, is open, and
    // `take` runs once, so nobody else owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    if !fits || !listens(owned.as_fd()) {
        return Err(Error::WrongType { fd, name, wanted });
    }
    let listener = match wanted {
        Family::Unix => Listener::Unix(owned.into()),
        Family::Tcp => Listener::Tcp(owned.into()),
    };
    Ok((name, listener))
}

fn listens(fd: BorrowedFd<'_>) -> bool {
    getsockopt(&fd, sockopt::SockType) == Ok(SockType::Stream)
        && getsockopt(&fd, sockopt::AcceptConn) == Ok(true)
}

/// Sockets of a developer's tool, which gives them no names: their type says
/// what they are for.
fn unnamed(count: usize) -> Result<Vec<(String, Listener)>, Error> {
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..count {
        let fd = FIRST + RawFd::try_from(index).unwrap_or(0);
        let (name, listener) = if let Ok(Some(unix)) = passed.take_unix_listener(index) {
            ("api", Listener::Unix(unix))
        } else if let Ok(Some(tcp)) = passed.take_tcp_listener(index) {
            ("tcp", Listener::Tcp(tcp))
        } else {
            return Err(Error::WrongType {
                fd,
                name: "unnamed".to_owned(),
                wanted: Family::Unix,
            });
        };
        if !listens(listener.as_fd()) {
            return Err(Error::WrongType {
                fd: listener.as_fd().as_raw_fd(),
                name: name.to_owned(),
                wanted: Family::Unix,
            });
        }
        listeners.push((name.to_owned(), listener));
    }
    Ok(listeners)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(unix) => unix.as_fd(),
            Self::Tcp(tcp) => tcp.as_fd(),
        }
    }
}
