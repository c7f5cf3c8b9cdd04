//! The line of a call: what runner and caller say to each other about it.
//!
//! A caller is a process of our own program that makes calls of models, several
//! at a time (`calls.rs`). It takes each from its desk, the socket that is its
//! standard input, as one message with four descriptors: the call's line,
//! standard input, output and error. On the line the call says of itself what a
//! service says on its notify socket, and last its exit code; it is told to
//! stand still and to go on. Whoever hangs up ends the call.
//!
//! Both are sockets that keep messages whole and in order (`SOCK_SEQPACKET`).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, getsockopt, recv, send, sendmsg,
    socketpair, sockopt,
};

use super::sys;
use crate::model::notice::DATAGRAM_MAX;

/// First bytes of messages.
const CALL: u8 = b'C';
const NOTICE: u8 = b'N';
const EXIT: u8 = b'X';
const FREEZE: u8 = b'F';
const THAW: u8 = b'T';

/// One end of a call's line.
#[derive(Debug)]
pub struct Line(OwnedFd);

/// What the caller hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToCaller {
    /// Stand still.
    Freeze,
    /// Go on.
    Thaw,
    /// The call is not wanted any more.
    HungUp,
}

/// What the runner hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FromCaller<'a> {
    Notice(&'a [u8]),
    Exit(u8),
    /// The caller has ended, and did not say how the call did.
    HungUp,
}

/// A call as a caller takes it.
#[derive(Debug)]
pub struct Handed {
    /// Its line.
    pub line: Line,
    /// What it reads.
    pub input: OwnedFd,
    /// Where its answer goes.
    pub out: OwnedFd,
    /// Where its complaints go.
    pub err: OwnedFd,
}

/// Where a caller takes calls from.
#[derive(Debug)]
pub struct Desk(OwnedFd);

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = SockType::SeqPacket;
    Ok(socketpair(
        AddressFamily::Unix,
        kind,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// The socket of a new caller: the runner's end, and what is to be the
/// caller's standard input.
pub(super) fn desk() -> io::Result<(OwnedFd, OwnedFd)> {
    pair()
}

/// Hands a call over; waits for nothing.
pub(super) fn hand_over(
    desk: &OwnedFd,
    line: &Line,
    [input, out, err]: [BorrowedFd<'_>; 3],
) -> io::Result<()> {
    let numbers = [line.as_fd(), input, out, err].map(|fd| fd.as_raw_fd());
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let beside = [ControlMessage::ScmRights(&numbers)];
    let parts = [IoSlice::new(&[CALL])];
    sendmsg::<()>(desk.as_raw_fd(), &parts, &beside, flags, None)?;
    Ok(())
}

impl Desk {
    /// Takes standard input as a desk, if it is one.
    ///
    /// # Errors
    /// No descriptor is left for it.
    pub fn standard_input() -> io::Result<Option<Self>> {
        let input = io::stdin();
        match getsockopt(&input, sockopt::SockType) {
            Ok(SockType::SeqPacket) => Ok(Some(Self(input.as_fd().try_clone_to_owned()?))),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// The next call; `None` when there will be no other.
    ///
    /// # Errors
    /// `WouldBlock` when there is none yet, and whatever is wrong with the
    /// socket.
    pub fn take(&self) -> io::Result<Option<Handed>> {
        loop {
            let mut word = [0; 8];
            let received = sys::receive(&self.0, &mut word)?;
            if received.bytes == 0 {
                return Ok(None);
            }
            let mut fds = received.fds.into_iter();
            // Of a call for which there are no descriptors left the line closes,
            // which the runner sees; it ends no other.
            if let [Some(line), Some(input), Some(out), Some(err)] =
                [fds.next(), fds.next(), fds.next(), fds.next()]
            {
                return Ok(Some(Handed {
                    line: Line(line),
                    input,
                    out,
                    err,
                }));
            }
        }
    }
}

impl Line {
    /// Both ends of a new line.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (ours, theirs) = pair()?;
        Ok((Self(ours), Self(theirs)))
    }

    /// Tells the call to stand still, or to go on. One that is over is not
    /// told.
    pub(super) fn freeze(&self, freeze: bool) {
        let word = if freeze { FREEZE } else { THAW };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        if let Err(error) = send(self.0.as_raw_fd(), &[word], flags) {
            tracing::debug!(%error, freeze, "a call cannot be told");
        }
    }

    /// What the call says next, as far as it has said something.
    pub(super) fn hear<'a>(&self, room: &'a mut [u8]) -> io::Result<FromCaller<'a>> {
        let len = loop {
            match recv(self.0.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => break 0,
                other => break other?,
            }
        };
        Ok(match room.get(..len).unwrap_or_default() {
            [NOTICE, text @ ..] => FromCaller::Notice(text),
            [EXIT, code] => FromCaller::Exit(*code),
            _ => FromCaller::HungUp,
        })
    }

    /// Says something of the call, in the words of `sd_notify`. What is longer
    /// than a notice may be is left out.
    ///
    /// # Errors
    /// The runner is gone.
    pub fn say(&self, words: &str) -> io::Result<()> {
        if words.len() >= DATAGRAM_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.write(&[&[NOTICE], words.as_bytes()].concat())
    }

    /// Says how the call ended, as its last word.
    ///
    /// # Errors
    /// The runner is gone.
    pub fn end(&self, code: u8) -> io::Result<()> {
        self.write(&[EXIT, code])
    }

    /// Waits while the runner does not read: nothing that is said gets lost.
    fn write(&self, message: &[u8]) -> io::Result<()> {
        loop {
            match send(self.0.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
                    poll(&mut fds, PollTimeout::NONE)?;
                }
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// What the runner says next.
    ///
    /// # Errors
    /// `WouldBlock` when it says nothing.
    pub fn word(&self) -> io::Result<ToCaller> {
        let mut word = [0; 8];
        Ok(
            match recv(self.0.as_raw_fd(), &mut word, MsgFlags::MSG_DONTWAIT) {
                Ok(1) if word.starts_with(&[FREEZE]) => ToCaller::Freeze,
                Ok(1) if word.starts_with(&[THAW]) => ToCaller::Thaw,
                Ok(_) | Err(Errno::ECONNRESET) => ToCaller::HungUp,
                Err(errno) => return Err(errno.into()),
            },
        )
    }
}

impl From<OwnedFd> for Line {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Desk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_is_said_on_a_line_is_heard_whole_and_in_order() {
        let (runner, caller) = Line::pair().unwrap();
        let mut room = [0; DATAGRAM_MAX];
        assert_eq!(
            runner.hear(&mut room).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        caller.say("STATUS=a").unwrap();
        caller.say("STATUS=b").unwrap();
        caller.end(75).unwrap();
        assert_eq!(
            runner.hear(&mut room).unwrap(),
            FromCaller::Notice(b"STATUS=a")
        );
        assert_eq!(
            runner.hear(&mut room).unwrap(),
            FromCaller::Notice(b"STATUS=b")
        );
        assert_eq!(runner.hear(&mut room).unwrap(), FromCaller::Exit(75));
        assert!(caller.say(&"x".repeat(DATAGRAM_MAX)).is_err());
        runner.freeze(true);
        runner.freeze(false);
        assert_eq!(caller.word().unwrap(), ToCaller::Freeze);
        assert_eq!(caller.word().unwrap(), ToCaller::Thaw);
        assert!(caller.word().is_err());
        drop(runner);
        assert_eq!(caller.word().unwrap(), ToCaller::HungUp);
        assert!(caller.end(0).is_err());
    }

    #[test]
    fn a_caller_that_ends_hangs_up() {
        let (runner, caller) = Line::pair().unwrap();
        // A word that it never read.
        runner.freeze(true);
        drop(caller);
        assert_eq!(runner.hear(&mut [0; 64]).unwrap(), FromCaller::HungUp);
        runner.freeze(false);
    }

    #[test]
    fn a_call_is_handed_over_with_its_descriptors() {
        let (ours, theirs) = desk().unwrap();
        let desk = Desk(theirs);
        assert_eq!(desk.take().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // One that lost its descriptors on the way is passed over.
        send(ours.as_raw_fd(), &[CALL], MsgFlags::empty()).unwrap();
        let (line, far) = Line::pair().unwrap();
        let stdin = io::stdin();
        hand_over(&ours, &far, [stdin.as_fd(); 3]).unwrap();
        drop(far);
        let handed = desk.take().unwrap().unwrap();
        handed.line.end(7).unwrap();
        assert_eq!(line.hear(&mut [0; 64]).unwrap(), FromCaller::Exit(7));
        drop(ours);
        assert!(desk.take().unwrap().is_none());
    }
}
