//! What the runner waits for: descriptors and kernel timers in one epoll set.
//!
//! Deadlines are timer descriptors, so nothing here asks what time it is and
//! a clock that is set changes no deadline.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// What an event is about; attempts by their local number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Token {
    /// A daemon wants to connect.
    Listener,
    /// The daemon's connection.
    Link,
    /// A signal to the runner.
    Signals,
    /// An attempt's first process ended, or the line of a call says something.
    Exit(u32),
    /// Standard output.
    Out(u32),
    /// Standard error.
    Err(u32),
    /// The child reached `exec`, or says why not.
    Exec(u32),
    /// An attempt says something about itself.
    Notice(u32),
    /// A process that makes calls ended.
    Caller(u32),
    /// A deadline.
    Timer(Timer),
}

/// The deadlines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Timer {
    /// Nothing held, nobody connected: time to go.
    Idle,
    /// Look for the daemon again.
    Dial,
    /// Stopping: attempts had their time.
    Grace,
    /// Stopping: the daemon had its time to acknowledge.
    Linger,
    /// The first process is gone; whoever else holds the pipes had their time.
    Drain(u32),
    /// See again whether everything of an attempt is gone.
    Retry(u32),
    /// Tell what an attempt has said, and hear it again.
    Notices(u32),
    /// A process that makes calls has had none for a while.
    Caller(u32),
    /// Tell which programs run.
    Starts,
}

impl Token {
    fn pack(self) -> u64 {
        let (tag, id) = match self {
            Self::Listener => (0, 0),
            Self::Link => (1, 0),
            Self::Signals => (2, 0),
            Self::Exit(id) => (3, id),
            Self::Out(id) => (4, id),
            Self::Err(id) => (5, id),
            Self::Exec(id) => (6, id),
            Self::Timer(Timer::Idle) => (7, 0),
            Self::Timer(Timer::Dial) => (8, 0),
            Self::Timer(Timer::Grace) => (9, 0),
            Self::Timer(Timer::Linger) => (10, 0),
            Self::Timer(Timer::Drain(id)) => (11, id),
            Self::Timer(Timer::Retry(id)) => (12, id),
            Self::Timer(Timer::Notices(id)) => (13, id),
            Self::Notice(id) => (14, id),
            Self::Caller(id) => (15, id),
            Self::Timer(Timer::Caller(id)) => (16, id),
            Self::Timer(Timer::Starts) => (17, 0),
        };
        u64::from(id) << 8 | tag
    }

    fn unpack(packed: u64) -> Option<Self> {
        let id = u32::try_from(packed >> 8).ok()?;
        Some(match packed & 0xff {
            0 => Self::Listener,
            1 => Self::Link,
            2 => Self::Signals,
            3 => Self::Exit(id),
            4 => Self::Out(id),
            5 => Self::Err(id),
            6 => Self::Exec(id),
            7 => Self::Timer(Timer::Idle),
            8 => Self::Timer(Timer::Dial),
            9 => Self::Timer(Timer::Grace),
            10 => Self::Timer(Timer::Linger),
            11 => Self::Timer(Timer::Drain(id)),
            12 => Self::Timer(Timer::Retry(id)),
            13 => Self::Timer(Timer::Notices(id)),
            14 => Self::Notice(id),
            15 => Self::Caller(id),
            16 => Self::Timer(Timer::Caller(id)),
            17 => Self::Timer(Timer::Starts),
            _ => return None,
        })
    }
}

/// The epoll set and the running timers.
#[derive(Debug)]
pub(super) struct Poll {
    epoll: Epoll,
    timers: HashMap<Timer, TimerFd>,
}

impl Poll {
    pub(super) fn new() -> nix::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            timers: HashMap::new(),
        })
    }

    /// Reports when `fd` can be read (or is hung up).
    pub(super) fn watch(&self, fd: impl AsFd, token: Token) -> nix::Result<()> {
        self.epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.pack()))
    }

    /// Reports also when `fd` can be written, or no longer.
    pub(super) fn want_write(&self, fd: impl AsFd, token: Token, write: bool) -> nix::Result<()> {
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, write);
        self.epoll
            .modify(fd, &mut EpollEvent::new(flags, token.pack()))
    }

    /// Forgets `fd`. Needed before closing it: a child between fork and exec
    /// holds a copy, which would keep it in the set.
    pub(super) fn forget(&self, fd: impl AsFd) {
        if let Err(error) = self.epoll.delete(fd) {
            tracing::warn!(%error, "could not take a descriptor out of the epoll set");
        }
    }

    /// Starts or restarts a timer. Without a descriptor for it the deadline is
    /// lost, which is said, and is no reason to fail: each has another way on.
    pub(super) fn arm(&mut self, timer: Timer, wait: Duration) {
        self.disarm(timer);
        let started = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
        )
        .and_then(|fd| {
            let wait = wait.max(Duration::from_micros(1));
            fd.set(
                Expiration::OneShot(TimeSpec::from_duration(wait)),
                TimerSetTimeFlags::empty(),
            )?;
            self.watch(&fd, Token::Timer(timer))?;
            Ok(fd)
        });
        match started {
            Ok(fd) => {
                self.timers.insert(timer, fd);
            }
            Err(error) => tracing::error!(?timer, %error, "could not start a timer"),
        }
    }

    /// Stops a timer, if it runs.
    pub(super) fn disarm(&mut self, timer: Timer) {
        if let Some(fd) = self.timers.remove(&timer) {
            self.forget(&fd);
        }
    }

    /// Whether a timer runs.
    pub(super) fn armed(&self, timer: Timer) -> bool {
        self.timers.contains_key(&timer)
    }

    /// Waits, and fills `ready` with what happened. Timers that fired are gone.
    pub(super) fn wait(&mut self, ready: &mut Vec<Token>) -> nix::Result<()> {
        ready.clear();
        let mut events = [EpollEvent::empty(); 64];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error),
        };
        for event in events.iter().take(count) {
            let Some(token) = Token::unpack(event.data()) else {
                continue;
            };
            if let Token::Timer(timer) = token {
                // One that was stopped in this very turn must not fire.
                if !self.armed(timer) {
                    continue;
                }
                self.disarm(timer);
            }
            ready.push(token);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        let tokens = [
            Token::Listener,
            Token::Link,
            Token::Signals,
            Token::Exit(u32::MAX),
            Token::Out(1),
            Token::Err(2),
            Token::Exec(3),
            Token::Timer(Timer::Idle),
            Token::Timer(Timer::Dial),
            Token::Timer(Timer::Grace),
            Token::Timer(Timer::Linger),
            Token::Timer(Timer::Drain(4)),
            Token::Timer(Timer::Retry(5)),
            Token::Timer(Timer::Notices(6)),
            Token::Notice(7),
            Token::Caller(8),
            Token::Timer(Timer::Caller(9)),
        ];
        for token in tokens {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }

    #[test]
    fn a_timer_fires_once_and_a_stopped_one_never() {
        let mut poll = Poll::new().unwrap();
        poll.arm(Timer::Idle, Duration::from_millis(1));
        poll.disarm(Timer::Idle);
        poll.arm(Timer::Retry(9), Duration::from_millis(2));
        let mut ready = Vec::new();
        poll.wait(&mut ready).unwrap();
        assert_eq!(ready, [Token::Timer(Timer::Retry(9))]);
        assert!(!poll.armed(Timer::Retry(9)));
    }
}
