//! Telling systemd what is true of this service, without ever waiting for it.
//!
//! The words come from sd-notify; the socket is our own, because that crate
//! blocks, and knows no abstract addresses. One call is one datagram. A
//! message that cannot be delivered is dropped with one warning: a daemon that
//! works must not stop because nobody listens.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// Longest status line, in characters.
const STATUS_MAX: usize = 256;

/// The way to systemd. Cheap to clone; does nothing where there is no systemd.
///
/// Each method tells whether the message is on its way (or nobody asked for
/// one); `false` lets a caller to whom it matters, as with READY, say it again.
#[derive(Debug, Clone, Default)]
pub struct Notify(Option<Arc<Socket>>);

#[derive(Debug)]
struct Socket {
    socket: UnixDatagram,
    manager: SocketAddr,
    warned: AtomicBool,
}

impl Notify {
    /// The way to the given address, as `NOTIFY_SOCKET` has it: a path, or `@`
    /// and an abstract name. An address that cannot be used is a warning.
    #[must_use]
    pub fn to(address: Option<OsString>, warnings: &mut Vec<String>) -> Self {
        let Some(address) = address else {
            return Self::default();
        };
        match Socket::open(&address) {
            Ok(socket) => Self(Some(Arc::new(socket))),
            Err(error) => {
                warnings.push(format!(
                    "cannot notify systemd at {}: {error}",
                    address.display()
                ));
                Self::default()
            }
        }
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

    fn send(&self, states: &[NotifyState<'_>]) -> bool {
        let Some(way) = &self.0 else {
            return true;
        };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        failpoint!("daemon/notify/before");
        match way.socket.send_to_addr(message.as_bytes(), &way.manager) {
            Ok(_) => {
                way.warned.store(false, Ordering::Relaxed);
                true
            }
            Err(error) => {
                if !way.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!("systemd was not notified ({error}); going on without");
                }
                false
            }
        }
    }
}

impl Socket {
    fn open(address: &OsString) -> io::Result<Self> {
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
        Ok(Self {
            socket,
            manager,
            warned: AtomicBool::new(false),
        })
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
