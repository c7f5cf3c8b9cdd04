//! The runner's end of a connection: bytes and descriptors in, messages out.
//!
//! Never blocks, never decides; who may speak is checked here.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt};

use super::protocol::{FromRunner, PROTOCOL_MIN, ToRunner};
use super::sys::{self, Received};
use super::wire::{self, FrameError, Inbox};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Reads in one turn of the loop, so that a daemon with much to say leaves
/// time for the tasks' output.
const READS: usize = 16;
/// Descriptors that may wait for their messages.
const FDS_WAITING: usize = 256;

/// A connection to a daemon.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    inbox: Inbox,
    chunk: Box<[u8]>,
    fds: VecDeque<OwnedFd>,
    outbox: Vec<u8>,
    sent: usize,
    /// The daemon has said who it is, and it can be understood.
    pub(super) greeted: bool,
    /// Newest protocol the daemon speaks, as far as it has said.
    pub(super) speaks: u32,
    /// Whether the loop waits for room to write.
    pub(super) waiting: bool,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("closed by the daemon")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("too many open files to take descriptors")]
    LostDescriptors,
    #[error("more descriptors than messages for them")]
    TooManyDescriptors,
}

/// How far reading got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// Everything that came is read.
    No,
    /// There may be more; come back after the others had their turn.
    Maybe,
}

impl Link {
    /// Takes a connection of a peer that may command this runner.
    pub(super) fn new(stream: UnixStream, daemon_uid: Option<u32>) -> io::Result<Self> {
        let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
        let own = nix::unistd::getuid().as_raw();
        if peer.uid() != 0 && peer.uid() != own && Some(peer.uid()) != daemon_uid {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("uid {} may not command this runner", peer.uid()),
            ));
        }
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            inbox: Inbox::default(),
            chunk: vec![0; CHUNK].into(),
            fds: VecDeque::new(),
            outbox: Vec::new(),
            sent: 0,
            greeted: false,
            speaks: PROTOCOL_MIN,
            waiting: false,
        })
    }

    /// Reads what came, up to this turn's share.
    pub(super) fn read(&mut self) -> Result<More, Broken> {
        for _ in 0..READS {
            let Received { bytes, fds, lost } = match sys::receive(&self.stream, &mut self.chunk) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(More::No),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if lost {
                // Which message they were for cannot be known; the daemon
                // will see which of its launches are held.
                return Err(Broken::LostDescriptors);
            }
            if bytes == 0 {
                return Err(Broken::Closed);
            }
            self.fds.extend(fds);
            self.inbox.push(self.chunk.get(..bytes).unwrap_or_default());
            if self.fds.len() > FDS_WAITING {
                return Ok(More::Maybe);
            }
        }
        Ok(More::Maybe)
    }

    /// The next message that is here as a whole, with its descriptors.
    pub(super) fn next(&mut self) -> Result<Option<(ToRunner, Vec<OwnedFd>)>, Broken> {
        let Some(message) = self.inbox.next::<ToRunner>()? else {
            if self.inbox.is_empty() {
                // Nobody asked for these.
                self.fds.clear();
            }
            if self.fds.len() > FDS_WAITING {
                return Err(Broken::TooManyDescriptors);
            }
            return Ok(None);
        };
        let wanted = match &message {
            ToRunner::Launch(launch) => {
                1 + usize::from(launch.stdin) + usize::from(launch.after_commit)
            }
            ToRunner::Hello(_)
            | ToRunner::Signal { .. }
            | ToRunner::Kill { .. }
            | ToRunner::Freeze { .. }
            | ToRunner::Thaw { .. }
            | ToRunner::Ack { .. }
            | ToRunner::Renew => 0,
        };
        let fds = self.fds.drain(..wanted.min(self.fds.len())).collect();
        Ok(Some((message, fds)))
    }

    /// Puts a message behind those that wait to be written. One that the
    /// daemon is too old to know is not said.
    pub(super) fn say(&mut self, message: &FromRunner) {
        if message.since() > self.speaks {
            return;
        }
        if let Err(error) = wire::encode(message, &mut self.outbox) {
            tracing::error!(%error, "a message to the daemon cannot be written");
        }
    }

    /// Writes what waits, as far as there is room.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.outbox.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match (&self.stream).write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Keep what is left only.
                    self.outbox.drain(..self.sent);
                    self.sent = 0;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Ok(())
    }

    /// Whether something waits to be written.
    pub(super) const fn behind(&self) -> bool {
        self.sent < self.outbox.len()
    }

    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
