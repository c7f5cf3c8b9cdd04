//! The daemon's end of a connection to a runner, for two plain threads: one
//! that sends, one that receives.
//!
//! Blocking on purpose, knows nothing of tasks, and reconnects by itself
//! never: whoever holds it decides what a broken connection means.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::protocol::{AFTER_COMMIT, FromRunner, Hello, PROTOCOL_MIN, ToRunner};
use super::wire::{self, Inbox};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// A connection to a runner.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
}

/// The half that speaks.
#[derive(Debug)]
pub struct Sender {
    stream: UnixStream,
    frame: Vec<u8>,
    /// Newest protocol the runner speaks, as far as it has said.
    speaks: u32,
}

/// The half that listens.
#[derive(Debug)]
pub struct Receiver {
    stream: UnixStream,
    inbox: Inbox,
    chunk: Box<[u8]>,
}

impl Connection {
    /// Connects to a runner's socket.
    ///
    /// # Errors
    /// The socket is absent, closed to this user, or nobody listens.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self::from_stream(UnixStream::connect(path)?))
    }

    /// Uses a connection that exists: a socket pair, or one that a runner made
    /// to the report socket.
    #[must_use]
    pub const fn from_stream(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// The two halves, for two threads.
    ///
    /// # Errors
    /// No descriptor is left for the second half.
    pub fn split(self) -> io::Result<(Sender, Receiver)> {
        let sender = Sender {
            stream: self.stream.try_clone()?,
            frame: Vec::new(),
            speaks: PROTOCOL_MIN,
        };
        let receiver = Receiver {
            stream: self.stream,
            inbox: Inbox::default(),
            chunk: vec![0; CHUNK].into(),
        };
        Ok((sender, receiver))
    }
}

impl Sender {
    /// Takes note of what the runner understands. Until then it is taken for
    /// the oldest there is.
    pub const fn know(&mut self, hello: &Hello) {
        self.speaks = hello.max;
    }

    /// Whether the runner is new enough for a message.
    #[must_use]
    pub const fn can_say(&self, message: &ToRunner) -> bool {
        message.since() <= self.speaks
    }

    /// Whether the runner can get an attempt ready that has still to wait for
    /// its commit.
    #[must_use]
    pub const fn has_patience(&self) -> bool {
        self.speaks >= AFTER_COMMIT
    }

    /// Sends one message, with the descriptors that belong to it. Waits while
    /// the runner does not read. A message that the runner is too old to know
    /// is not sent.
    ///
    /// # Errors
    /// The message is longer than a frame may be (`InvalidData`; nothing was
    /// sent), or the connection is broken.
    pub fn send(&mut self, message: &ToRunner, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if !self.can_say(message) {
            tracing::debug!(?message, "the runner is too old for a message");
            return Ok(());
        }
        self.frame.clear();
        wire::encode(message, &mut self.frame)?;
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let beside: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
        // The descriptors travel with the first bytes, once.
        let sent = loop {
            let sent = sendmsg::<()>(
                self.stream.as_raw_fd(),
                &[IoSlice::new(&self.frame)],
                beside,
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            match sent {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        let rest = self.frame.get(sent..).unwrap_or_default();
        (&self.stream).write_all(rest)?;
        self.frame.shrink_to(CHUNK);
        Ok(())
    }

    /// Ends the connection for both halves; a receiver that waits sees its end.
    ///
    /// # Errors
    /// It is ended already.
    pub fn shutdown(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Both)
    }
}

impl Receiver {
    /// Waits for the next message; `None` when the runner closed the
    /// connection between two of them.
    ///
    /// # Errors
    /// The connection broke, or what came is no message (`InvalidData`).
    pub fn recv(&mut self) -> io::Result<Option<FromRunner>> {
        loop {
            if let Some(message) = self.inbox.next()? {
                return Ok(Some(message));
            }
            self.wait()?;
            match self.stream.read(&mut self.chunk) {
                Ok(0) if self.inbox.is_empty() => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.inbox.push(self.chunk.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sleeps until there is something to read. Whoever sleeps in the read
    /// itself is woken by each of our own messages that the runner takes in as
    /// well, since a stream tells that there is room by the same way.
    fn wait(&self) -> io::Result<()> {
        let limit = match self.stream.read_timeout()? {
            Some(time) => PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, limit) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The stream itself, to set a time limit on waiting.
    #[must_use]
    pub const fn stream(&self) -> &UnixStream {
        &self.stream
    }
}
