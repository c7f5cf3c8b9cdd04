//! A small parent that starts the daemon again when it dies or falls silent,
//! for hosts where no service manager does.
//!
//! One thread and one `poll`: signals, what the daemon says, and the next
//! deadline. When to start again is for `model::restart` to say. Running tasks
//! belong to their runner and notice nothing; where the daemon has fewer rights
//! than this process, the runner is kept here too, on a thread that does
//! nothing else.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::clock;
use crate::model::quantity::format_duration;
use crate::model::restart::{Next, Policy, Restarts, Why};
use crate::model::time::Time;

use super::child::{Plan, STOP, Started};
use super::keeper::Keeper;
use super::monitor::{Event, Monitor};
use super::notify::Notify;
use super::record::{Phase, Record};
use super::words::Word;

/// The code of a refused configuration: another try cannot end better.
const REFUSED: u8 = 78;

/// The whole state.
struct Supervisor<'p> {
    plan: &'p Plan,
    policy: Policy,
    notify: Notify,
    monitor: Monitor,
    signals: SignalFd,
    begun: Instant,
    restarts: Restarts,
    life: Life,
    /// A daemon was ready once: from then on an end is an accident.
    proven: bool,
    /// Told to stop.
    stopping: bool,
    /// A reload was asked for that nobody could be told of yet.
    reload: bool,
    /// All is over, with this code and reason.
    done: Option<(u8, String)>,
}

/// The daemon, or the wait for the next one.
enum Life {
    Up(Box<Started>),
    Down(Next),
}

/// The signals that mean something here.
fn mask() -> SigSet {
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGCHLD,
    ] {
        mask.add(signal);
    }
    mask
}

/// Holds the signals back for [`supervise`]. To be called before any thread
/// exists.
///
/// # Errors
/// The system refuses.
pub fn block_signals() -> io::Result<()> {
    Ok(mask().thread_block()?)
}

/// Supervises until told to stop, or until it is of no use. Returns the exit
/// code, and why it is not 0.
///
/// # Errors
/// The system refuses at the very start.
pub fn supervise(plan: &Plan, notify: Notify, keeper: Option<Keeper>) -> io::Result<(u8, String)> {
    let mask = mask();
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let monitor = Monitor::start()?;
    let keeper = keeper.map(Keeper::start).transpose()?;
    let begun = clock::instant();
    let restarts = Restarts::default();
    let mut supervisor = Supervisor {
        policy: plan.options.policy(),
        life: Life::Up(Box::new(Started::start(plan, &restarts)?)),
        plan,
        notify,
        monitor,
        signals,
        begun,
        restarts,
        proven: false,
        stopping: false,
        reload: false,
        done: None,
    };
    supervisor.tell();
    let end = loop {
        if let Some(end) = supervisor.done.take() {
            break end;
        }
        supervisor.turn();
    };
    drop(keeper);
    Record::remove(&plan.record);
    Ok(end)
}

impl Supervisor<'_> {
    fn turn(&mut self) {
        self.wait();
        self.obey();
        self.hear();
        self.look_at_the_clock();
        self.reap();
    }

    /// Until there is something to do.
    fn wait(&self) {
        let (deadline, words) = match &self.life {
            Life::Up(up) => (up.deadline, up.words.as_ref()),
            Life::Down(next) => (self.at(next.at), None),
        };
        let left = deadline.saturating_duration_since(clock::instant());
        // A little more, or the deadline is just not over yet.
        let left = PollTimeout::try_from(left + Duration::from_millis(1));
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(words.map(|words| PollFd::new(words.as_fd(), PollFlags::POLLIN)));
        // Whatever it says, all is looked at.
        let _looked_at = poll(&mut fds, left.unwrap_or(PollTimeout::MAX)).is_ok();
    }

    fn obey(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            match Signal::try_from(number) {
                Ok(signal @ (Signal::SIGTERM | Signal::SIGINT)) => self.stop(signal),
                Ok(Signal::SIGHUP) => self.reload = true,
                Ok(Signal::SIGUSR1) => {
                    tracing::info!("{}", self.describe());
                    self.pass_on(Signal::SIGUSR1);
                }
                Ok(Signal::SIGUSR2) => {
                    match self.plan.output.open() {
                        Ok(()) => tracing::info!("opened the log files again"),
                        Err(error) => tracing::error!("{error}; going on with the old file"),
                    }
                    self.pass_on(Signal::SIGUSR2);
                }
                Ok(_) | Err(_) => {}
            }
        }
        if self.reload && matches!(&self.life, Life::Up(up) if up.ready) {
            self.reload = false;
            self.pass_on(Signal::SIGHUP);
        }
    }

    fn pass_on(&self, signal: Signal) {
        // A daemon that is not ready yet may not know the signal.
        if let Life::Up(up) = &self.life
            && up.ready
        {
            up.signal(signal);
        }
    }

    fn stop(&mut self, signal: Signal) {
        let again = std::mem::replace(&mut self.stopping, true);
        match &mut self.life {
            Life::Up(up) => {
                if !again {
                    tracing::info!("told to stop; running tasks go on");
                    up.deadline = clock::instant() + STOP;
                }
                // Told twice, the daemon hurries.
                up.signal(signal);
            }
            Life::Down(_) => self.done = Some((0, String::new())),
        }
    }

    fn hear(&mut self) {
        let Life::Up(up) = &mut self.life else { return };
        let Some(words) = &mut up.words else { return };
        let heard = words.heard();
        let now = clock::instant();
        let mut is_new = false;
        for word in heard.iter().flatten() {
            match word {
                Word::Ready => {
                    is_new |= !up.ready;
                    up.ready = true;
                    up.deadline = now + self.plan.options.heartbeat;
                }
                Word::Alive if !self.stopping => up.deadline = now + self.plan.options.heartbeat,
                Word::Extend(more) if !self.stopping => {
                    up.deadline = up.deadline.max(now + *more);
                }
                Word::Status(text) => up.said = Some(text.clone()),
                Word::Exit(_) => up.leaving = true,
                Word::Alive | Word::Extend(_) | Word::MainPid(_) => {}
            }
        }
        if self.stopping && is_new {
            up.deadline = now + STOP;
        }
        if heard.is_none() {
            up.words = None;
        }
        if is_new {
            self.restarts.ready(self.now());
            // Whoever called only waited for this.
            std::mem::take(&mut self.notify).ready("supervised");
            self.proven = true;
            self.tell();
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = clock::instant();
        match &mut self.life {
            Life::Up(up) if now >= up.deadline => {
                let options = &self.plan.options;
                let why = if self.stopping {
                    format!("the daemon has not stopped in {}", format_duration(STOP))
                } else if up.ready {
                    let silence = format_duration(options.heartbeat);
                    format!("nothing was heard of the daemon for {silence}")
                } else {
                    let limit = format_duration(options.start_timeout);
                    format!("the daemon was not ready in {limit}")
                };
                up.kill(why, now);
            }
            Life::Down(next) if self.begun + since_begin(next.at) <= now => self.start(),
            Life::Up(_) | Life::Down(_) => {}
        }
    }

    fn start(&mut self) {
        match Started::start(self.plan, &self.restarts) {
            Ok(up) => self.life = Life::Up(Box::new(up)),
            Err(error) => {
                let why = format!("cannot start {}: {error}", self.plan.program.display());
                self.again(&why);
            }
        }
        self.tell();
    }

    fn reap(&mut self) {
        let Life::Up(up) = &mut self.life else { return };
        let status = match up.child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => status,
            Err(error) => {
                self.done = Some((1, format!("cannot wait for the daemon: {error}")));
                return;
            }
        };
        // The last words may have come after the last look.
        self.hear();
        let Life::Up(up) = &mut self.life else { return };
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        let said = up
            .said
            .take()
            .filter(|_| code.is_some_and(|code| code != 0));
        let why = up
            .killed
            .take()
            .or(said)
            .unwrap_or_else(|| format!("the daemon ended: {status}"));
        if self.stopping {
            let code = code.unwrap_or(1);
            self.done = Some((code, if code == 0 { String::new() } else { why }));
        } else if !self.proven || code == Some(REFUSED) || !self.plan.heal {
            // A first start that fails is an answer to whoever asked for it.
            self.done = Some((code.filter(|code| *code != 0).unwrap_or(1), why));
        } else {
            self.again(&why);
            self.tell();
        }
    }

    /// Makes up when to start again.
    fn again(&mut self, why: &str) {
        let next = self.restarts.ended(&self.policy, self.now(), chance());
        let wait = format_duration(Duration::from_millis(
            u64::try_from(next.wait.as_millis()).unwrap_or(u64::MAX),
        ));
        match next.why {
            Why::Backoff(number) => {
                tracing::error!("{why}; restart {number} in a row, in {wait}");
            }
            Why::CoolOff => {
                tracing::error!(
                    "{why}; there were {} restarts in a row, the next is in {wait}",
                    self.policy.limit
                );
                let event = Event::RestartLimit(why.to_owned());
                self.monitor.tell(&self.plan.options, event);
            }
        }
        self.life = Life::Down(next);
    }

    fn describe(&self) -> String {
        let restarts = self.restarts.total();
        match &self.life {
            Life::Up(up) if up.ready => {
                format!("daemon {} is up, {restarts} restarts", up.child.id())
            }
            Life::Up(up) => format!("daemon {} starts, {restarts} restarts", up.child.id()),
            Life::Down(next) => format!("daemon is down, {:?}, {restarts} restarts", next.why),
        }
    }

    /// Writes down how things are, for `status`.
    fn tell(&self) {
        let phase = match &self.life {
            Life::Up(up) if up.ready => Phase::Running,
            Life::Up(_) => Phase::Starting,
            Life::Down(next) => Phase::Waiting {
                until: clock::now()
                    .after(self.at(next.at).saturating_duration_since(clock::instant())),
                cool_off: next.why == Why::CoolOff,
            },
        };
        let record = Record {
            pid: std::process::id(),
            heal: self.plan.heal,
            restarts: self.restarts.total(),
            phase,
        };
        if let Err(error) = record.write(&self.plan.record) {
            tracing::warn!("cannot write {}: {error}", self.plan.record.display());
        }
    }

    /// Time since the supervisor began, which no clock that is set moves.
    fn now(&self) -> Time {
        Time::from_micros(0).after(clock::instant() - self.begun)
    }

    fn at(&self, time: Time) -> Instant {
        self.begun + since_begin(time)
    }
}

fn since_begin(time: Time) -> Duration {
    time.since(Time::from_micros(0))
}

/// A draw, so that daemons that died together do not come back together.
fn chance() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
