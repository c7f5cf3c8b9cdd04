//! The signals that mean something, as one closed list and one stream.
//!
//! There is no channel to overflow: the runtime keeps one flag per signal, so a
//! storm of SIGHUP is one pending reload, and a signal that arrives before
//! [`Signals::next`] is called is still there then. One that arrives before
//! anybody listens is held back by the kernel from [`hold`] on. What a signal
//! leads to is decided by whoever asks.

use std::io;

use nix::sys::signal::{self as system, SigSet, SigmaskHow, sigprocmask};
use tokio::signal::unix::{SignalKind, signal};

/// A signal sent to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop in order; a second one: stop at once.
    Terminate,
    /// SIGINT, from a terminal: the same.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: write the state of things to the log.
    Dump,
    /// SIGUSR2: open log files again, where there are any.
    Reopen,
}

/// Holds back the signals of the list until [`Signals::listen`]. To be called
/// first in the program, so that every thread but the last to come holds them
/// back for good.
///
/// # Errors
/// The system refuses.
pub fn hold() -> io::Result<()> {
    let mut mask = SigSet::empty();
    for signal in [
        system::SIGTERM,
        system::SIGINT,
        system::SIGHUP,
        system::SIGUSR1,
        system::SIGUSR2,
    ] {
        mask.add(signal);
    }
    Ok(mask.thread_block()?)
}

/// The signals caught since the last look.
#[derive(Debug)]
pub struct Signals {
    reload: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    dump: tokio::signal::unix::Signal,
    reopen: tokio::signal::unix::Signal,
}

impl Signals {
    /// Catches all of them from now on. To be called inside the runtime and
    /// before READY: systemd 262 lets a start fail whose main process does not
    /// catch SIGHUP by then. SIGHUP comes first for the same reason.
    ///
    /// # Errors
    ///
    /// The handler could not be installed.
    pub fn listen() -> io::Result<Self> {
        let signals = Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            dump: signal(SignalKind::user_defined1())?,
            reopen: signal(SignalKind::user_defined2())?,
        };
        // This thread takes them from now on, whatever it was started with.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        Ok(signals)
    }

    /// Waits for the next signal. Any number of one kind that arrived
    /// meanwhile is reported once; an end comes before everything else, so
    /// that no storm can hide it. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.reload.recv() => Signal::Reload,
            Some(()) = self.dump.recv() => Signal::Dump,
            Some(()) = self.reopen.recv() => Signal::Reopen,
            // Only a runtime that is being taken down ends the streams, and it
            // does not poll this future any more.
            else => std::future::pending().await,
        }
    }
}
