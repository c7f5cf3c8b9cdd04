//! Telling whoever started this daemon what is true of it, without ever
//! waiting: systemd by its socket, a parent of ours by a pipe.
//!
//! The words come from sd-notify; the socket is our own, because that crate
//! blocks, and knows no abstract addresses. One call is one datagram, or one
//! write that a pipe keeps whole. A message that cannot be delivered is dropped
//! with one warning: a daemon that works must not stop because nobody listens.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use sd_notify::NotifyState;

/// Longest status line, in characters.
const STATUS_MAX: usize = 256;

/// The way to whoever started this. Cheap to clone; does nothing where nobody
/// asked.
///
/// Each method tells whether the message is on its way (or nobody asked for
/// one); `false` lets a caller to whom it matters, as with READY, say it again.
#[derive(Debug, Clone, Default)]
pub struct Notify(Option<Arc<Way>>);

#[derive(Debug)]
struct Way {
    to: To,
    warned: AtomicBool,
}

#[derive(Debug)]
enum To {
    Manager(UnixDatagram, SocketAddr),
    Parent(File),
}

impl Notify {
    /// The way to the given address, as `NOTIFY_SOCKET` has it: a path, or `@`
    /// and an abstract name. An address that cannot be used is a warning.
    #[must_use]
    pub fn to(address: Option<OsString>, warnings: &mut Vec<String>) -> Self {
        let Some(address) = address else {
            return Self::default();
        };
        match To::manager(&address) {
            Ok(to) => Self::over(to),
            Err(error) => {
                warnings.push(format!(
                    "cannot notify systemd at {}: {error}",
                    address.display()
                ));
                Self::default()
            }
        }
    }

    /// The way to a parent that reads this pipe.
    ///
    /// # Errors
    /// It cannot be set not to wait.
    pub fn to_parent(pipe: OwnedFd) -> io::Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self::over(To::Parent(File::from(pipe))))
    }

    fn over(to: To) -> Self {
        let warned = AtomicBool::new(false);
        Self(Some(Arc::new(Way { to, warned })))
    }

    /// Whether anybody asked to be told.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// It serves: after a start, and at the end of a reload.
    pub fn ready(&self, status: &str) -> bool {
        self.send(&[NotifyState::Ready, NotifyState::Status(&sanitise(status))])
    }

    /// A reload begins. Both fields in one datagram, or `systemctl reload`
    /// waits until it times out.
    pub fn reloading(&self) -> bool {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(_) => self.send(&[NotifyState::Reloading]),
        }
    }

    /// It stops, and cannot change its mind: newer systemd kills what says
    /// this and does not end.
    pub fn stopping(&self, status: &str) -> bool {
        self.send(&[
            NotifyState::Stopping,
            NotifyState::Status(&sanitise(status)),
        ])
    }

    /// The line that `systemctl status` shows.
    pub fn status(&self, text: &str) -> bool {
        self.send(&[NotifyState::Status(&sanitise(text))])
    }

    /// Asks for so much time from now before a start or stop counts as hung.
    pub fn extend_timeout(&self, time: Duration) -> bool {
        let usec = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.send(&[NotifyState::ExtendTimeoutUsec(usec)])
    }

    /// Feeds the watchdog.
    pub fn watchdog(&self) -> bool {
        self.send(&[NotifyState::Watchdog])
    }

    /// The system error a failing start came down to.
    pub fn errno(&self, errno: u32, status: &str) -> bool {
        self.send(&[
            NotifyState::Errno(errno),
            NotifyState::Status(&sanitise(status)),
        ])
    }

    /// Which process it is, for a parent that cannot know.
    pub fn main_pid(&self) -> bool {
        self.send(&[NotifyState::MainPid(std::process::id())])
    }

    /// It ends with this exit code, and why.
    pub fn exit(&self, code: u8, status: &str) -> bool {
        self.send(&[
            NotifyState::Status(&sanitise(status)),
            NotifyState::Custom(&format!("EXIT_STATUS={code}")),
        ])
    }

    fn send(&self, states: &[NotifyState<'_>]) -> bool {
        let Some(way) = &self.0 else {
            return true;
        };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        failpoint!("daemon/notify/before");
        let sent = match &way.to {
            To::Manager(socket, manager) => {
                socket.send_to_addr(message.as_bytes(), manager).map(drop)
            }
            // Shorter than what a pipe keeps whole.
            To::Parent(pipe) => (&*pipe).write_all(message.as_bytes()),
        };
        match sent {
            Ok(()) => {
                way.warned.store(false, Ordering::Relaxed);
                true
            }
            Err(error) => {
                if !way.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "whoever started this was not notified ({error}); going on without"
                    );
                }
                false
            }
        }
    }
}

impl To {
    fn manager(address: &OsString) -> io::Result<Self> {
        let manager = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "neither a path nor an abstract name",
                ));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self::Manager(socket, manager))
    }
}

/// One line and not too long: a line break in a status would begin a message
/// of its own, so that the text of a task could stop the daemon.
fn sanitise(status: &str) -> String {
    status
        .chars()
        .take(STATUS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
