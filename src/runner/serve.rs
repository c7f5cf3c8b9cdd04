//! The runner's loop: who connects, what they say, when to go.
//!
//! One thread, one epoll set; every event is handled to its end before the
//! next. What happens to attempts is in `children.rs`.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::calls::Callers;
use super::held::{State, Table};
use super::launch::Launcher;
use super::link::Link;
use super::mailbox::Mailboxes;
use super::poll::{Poll, Timer, Token};
use super::protocol::FromRunner;
use super::{Options, mark, place, renew, start, sys};
use crate::model::attempt::AttemptKey;
use crate::model::capture::Stream;
use crate::model::time::Time;

/// Bytes of output read at once.
const SHARE: usize = 64 * 1024;
/// Shortest and longest wait before the daemon is looked for again.
pub(super) const DIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long a stopping runner waits for its last reports to be acknowledged.
const LINGER: Duration = Duration::from_secs(5);

/// How daemons and this runner meet.
#[derive(Debug)]
pub(super) enum Door {
    /// They connect here.
    Listener(UnixListener),
    /// It connects to them.
    Dial,
}

/// What makes this runner this runner, over renewals too.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) instance: String,
    pub(super) boot: String,
    /// Program to become at a renewal.
    pub(super) program: PathBuf,
}

/// Buffers every attempt uses in turn.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) read: Box<[u8]>,
    pub(super) write: Vec<u8>,
}

/// The whole state.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) options: Options,
    pub(super) clock: fn() -> Time,
    pub(super) poll: Poll,
    pub(super) launcher: Launcher,
    pub(super) identity: Identity,
    pub(super) door: Door,
    pub(super) held: Table,
    pub(super) callers: Callers,
    /// Whose programs run, which is still to be told.
    pub(super) begun: Vec<AttemptKey>,
    /// Attempts that are over, with their files and sockets: somebody waits for
    /// the report, and nobody for these to be closed.
    pub(super) spent: Vec<State>,
    pub(super) room: Room,
    /// At least one attempt was launched.
    pub(super) served: bool,
    /// Told to stop: nothing new, and out when the last report is delivered.
    pub(super) stopping: bool,
    pub(super) link: Option<Link>,
    signals: SignalFd,
    pub(super) dial_wait: Duration,
    /// To be replaced by the installed program after this turn.
    pub(super) renew: bool,
    done: bool,
}

impl Runner {
    /// Begins on descriptor 0.
    pub(super) fn start(options: Options, clock: fn() -> Time) -> anyhow::Result<Self> {
        let (door, stream) = start::take_standard_input()?;
        let identity = start::identity(&door)?;
        let base = place::find(options.cgroup).context("cgroups are required")?;
        sys::reset_dispositions();
        let files = start::raise_open_files()?;
        let mailboxes = Mailboxes::find(&door);
        let mut launcher = Launcher::new(&options, base, mailboxes, files)?;
        if launcher.base.is_none() {
            launcher.mark = mark::of(&door);
            if let Some(mark) = &launcher.mark {
                mark::end_bearers(mark);
            }
        }
        let mut runner = Self::assemble(options, clock, launcher, identity, door)?;
        tracing::info!(
            instance = %runner.identity.instance,
            abilities = ?runner.launcher.abilities,
            "runner ready"
        );
        if let Some(stream) = stream {
            runner.connect(stream);
        }
        Ok(runner)
    }

    /// Everything that a renewed runner sets up too.
    pub(super) fn assemble(
        options: Options,
        clock: fn() -> Time,
        launcher: Launcher,
        identity: Identity,
        door: Door,
    ) -> anyhow::Result<Self> {
        prctl::set_dumpable(false).context("cannot forbid core dumps")?;
        // Where cgroups do not end what is left over, orphans come here.
        let subreaper = launcher.base.is_none();
        prctl::set_child_subreaper(subreaper).context("cannot become the subreaper")?;
        let mut mask = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGCHLD,
        ] {
            mask.add(signal);
        }
        mask.thread_block()?;
        if !subreaper && std::process::id() != 1 {
            // First processes are reaped by descriptor; nobody else comes.
            mask.remove(Signal::SIGCHLD);
        }
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let poll = Poll::new()?;
        poll.watch(&signals, Token::Signals)?;
        if let Door::Listener(listener) = &door {
            listener.set_nonblocking(true)?;
            poll.watch(listener, Token::Listener)?;
        }
        Ok(Self {
            options,
            clock,
            poll,
            launcher,
            identity,
            door,
            held: Table::default(),
            callers: Callers::default(),
            begun: Vec::new(),
            spent: Vec::new(),
            room: Room {
                read: vec![0; SHARE].into(),
                write: Vec::new(),
            },
            served: false,
            stopping: false,
            link: None,
            signals,
            dial_wait: DIAL.0,
            renew: false,
            done: false,
        })
    }

    /// Serves until there is nothing left to do.
    pub(super) fn run(&mut self) -> anyhow::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.settle();
            if self.done {
                break;
            }
            self.poll.wait(&mut ready)?;
            for token in &ready {
                self.handle(*token);
            }
            if self.renew {
                self.renew = false;
                self.spent.clear();
                if let Some(mailboxes) = &mut self.launcher.mailboxes {
                    mailboxes.forget();
                }
                self.drain_link();
                let failed = renew::exec(self);
                tracing::error!(error = %format!("{failed:#}"), "cannot renew: going on as before");
            }
        }
        if let Some(base) = &self.launcher.base {
            self.callers.leave(base);
            base.leave();
        }
        self.spent.clear();
        if let Some(mailboxes) = &mut self.launcher.mailboxes {
            mailboxes.leave();
        }
        tracing::info!(instance = %self.identity.instance, "runner done");
        Ok(())
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Listener => self.accept(),
            Token::Link => self.hear(),
            Token::Signals => self.on_signals(),
            Token::Exit(id) => self.on_exit(id),
            Token::Exec(id) => self.on_exec(id),
            Token::Out(id) => {
                self.on_output(id, Stream::Out);
            }
            Token::Err(id) => {
                self.on_output(id, Stream::Err);
            }
            Token::Timer(Timer::Drain(id)) => self.on_drained(id),
            Token::Timer(Timer::Retry(id)) => self.advance(id),
            Token::Notice(id) => self.on_notice(id),
            Token::Timer(Timer::Notices(id)) => self.on_window(id),
            Token::Caller(id) => self.on_caller_exit(id),
            Token::Timer(Timer::Caller(id)) => self.callers.retire(id),
            Token::Timer(Timer::Starts) => self.tell_starts(),
            Token::Timer(Timer::Dial) => self.dial(),
            Token::Timer(Timer::Grace) => self.end_all(libc::SIGKILL),
            Token::Timer(Timer::Linger) => self.done = true,
            Token::Timer(Timer::Idle) => self.done = self.link.is_none() && self.held.is_empty(),
        }
    }

    /// Writes what was said in this turn, and sees whether it is time to go,
    /// to wait, or to look for the daemon.
    fn settle(&mut self) {
        self.flush();
        // An end was told: nobody waits now. After a launch its program does,
        // for the processor.
        if !self.spent.is_empty() {
            self.spent.clear();
            if let Some(mailboxes) = &mut self.launcher.mailboxes {
                mailboxes.make_ahead();
            }
        }
        if self.stopping {
            self.settle_stopping();
            return;
        }
        let idle = self.held.is_empty() && self.link.is_none();
        match self.door {
            Door::Listener(_) if !idle => self.poll.disarm(Timer::Idle),
            Door::Listener(_) => {
                if !self.poll.armed(Timer::Idle) {
                    self.poll.arm(Timer::Idle, self.options.idle);
                }
            }
            Door::Dial => {
                let served = self.served && self.held.is_empty() && !self.options.stay;
                self.done |= idle || served;
                if !self.done && self.link.is_none() && !self.poll.armed(Timer::Dial) {
                    self.poll.arm(Timer::Dial, self.dial_wait);
                    self.dial_wait = (self.dial_wait * 2).min(DIAL.1);
                }
            }
        }
    }

    fn settle_stopping(&mut self) {
        if !self.held.live_ids().is_empty() {
            return;
        }
        if self.held.is_empty() || self.link.is_none() {
            self.done = true;
        } else if !self.poll.armed(Timer::Linger) {
            self.poll.arm(Timer::Linger, LINGER);
        }
    }

    fn on_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or_default()) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => self.stop(),
                Ok(Signal::SIGCHLD) => self.reap(),
                // A terminal that goes away, or a habit from other daemons.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Told to stop; told twice: at once.
    fn stop(&mut self) {
        let live = self.held.live_ids();
        tracing::info!(live = live.len(), again = self.stopping, "told to stop");
        if self.stopping {
            self.end_all(libc::SIGKILL);
            return;
        }
        self.stopping = true;
        // Before the ends that follow from it: what ends now must not be started here again.
        self.say(&FromRunner::Leaving);
        for id in live {
            if let Some(live) = self.held.live(id) {
                // One whose first process ended by itself was not interrupted.
                live.interrupted = live.exit.is_none();
            }
        }
        self.end_all(libc::SIGTERM);
        self.thaw_all();
        self.poll.arm(Timer::Grace, self.options.grace);
    }

    fn end_all(&mut self, signal: i32) {
        for id in self.held.live_ids() {
            self.signal(id, signal);
        }
    }
}
