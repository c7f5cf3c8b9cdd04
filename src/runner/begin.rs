//! How an attempt begins: taken from a message, started, watched until its
//! program runs. A beginning that fails is an end at once.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::capture::Capture;
use super::held::{Held, Live, Process, State};
use super::launch::{self, Launched, NotStarted};
use super::notices::{Notices, Said};
use super::poll::{Timer, Token};
use super::protocol::FromRunner;
use super::serve::{Door, Runner};
use super::spawn::{self, Step, Word};
use crate::model::attempt::{Ended, Exit, Launch, Started};

/// Longest time that the news of a start waits for the end or for company:
/// only the start of agents that come after it hangs on that, and a program
/// that runs needs the processor.
const LATE: Duration = Duration::from_millis(10);
/// Most attempts held at once, live or not acknowledged.
const HELD_MAX: usize = 65_536;

/// What comes with a launch beside its capture file.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) stdin: Option<OwnedFd>,
    /// The pipe of the commit that it waits for.
    pub(super) commit: Option<OwnedFd>,
}

impl Runner {
    /// Starts an attempt, unless it is held already. A failure is an end.
    pub(super) fn launch(&mut self, mut launch: Launch, fds: Vec<OwnedFd>) {
        let key = launch.key;
        if self.held.id(key).is_some() {
            tracing::warn!(task = %key.task, attempt = key.number, "launched twice: the first one counts");
            return;
        }
        self.served = true;
        failpoint!("runner/launch/before");
        match self.try_launch(&mut launch, fds) {
            Ok((launched, capture)) => {
                failpoint!("runner/launch/after");
                launch.lighten();
                self.adopt(launch, launched, capture);
            }
            Err((not, interrupted)) => {
                let error = not.why;
                tracing::info!(task = %key.task, attempt = key.number, %error, "not started");
                let exit = Exit::Spawn {
                    error,
                    scarce: not.scarce,
                    undecided: not.undecided,
                    denied: not.denied,
                };
                let ended = Ended {
                    exit,
                    interrupted,
                    ..Ended::lost((self.clock)())
                };
                let id = self.held.insert(Held {
                    key,
                    started: None,
                    state: State::Over(ended),
                });
                self.report(id);
            }
        }
    }

    fn try_launch(
        &mut self,
        launch: &mut Launch,
        fds: Vec<OwnedFd>,
    ) -> Result<(Launched, Capture), (NotStarted, bool)> {
        if self.stopping {
            return Err((NotStarted::from("the runner is stopping".to_owned()), true));
        }
        if self.held.len() >= HELD_MAX {
            let why = format!("the runner holds {HELD_MAX} attempts already");
            return Err((NotStarted::short(why), false));
        }
        let mut fds = fds.into_iter();
        let Some(capture) = fds.next() else {
            let why = "the launch came without its capture file".to_owned();
            return Err((why.into(), false));
        };
        let mut next = |wanted: bool, what: &str| match wanted.then(|| fds.next()) {
            Some(None) => Err((format!("the launch came without its {what}").into(), false)),
            file => Ok(file.flatten()),
        };
        let given = Files {
            stdin: next(launch.stdin, "standard input")?,
            commit: next(launch.after_commit, "commit")?,
        };
        let capture = Capture::create(capture, launch.output_cap).map_err(|error| {
            let why = format!("cannot use the capture file: {error}");
            (NotStarted::short(why), false)
        })?;
        let now = (self.clock)();
        let launched = match (&given.stdin, launch.own) {
            (Some(stdin), true) => self.call(launch, stdin, now),
            (None, true) => Err("the call came without its text".to_owned().into()),
            (_, false) => {
                let alone = self.held.is_empty();
                self.launcher.launch(launch, &given, now, alone)
            }
        };
        Ok((launched.map_err(|error| (error, false))?, capture))
    }

    /// Takes a child that was just started into the table and the loop.
    fn adopt(&mut self, launch: Launch, launched: Launched, capture: Capture) {
        let group = launched.group.as_ref();
        let group = group.or_else(|| self.callers.group(&launched.process));
        let cgroup = group.and_then(|name| {
            let base = self.launcher.base.as_ref()?;
            Some(base.shown(name))
        });
        let key = launch.key;
        let begun = Started {
            pid: launched.pid.cast_unsigned(),
            uid: launched.account.uid,
            user: launched.account.name.clone(),
            cgroup,
            at: (self.clock)(),
        };
        tracing::debug!(task = %key.task, attempt = key.number, pid = begun.pid, user = %begun.user, "started");
        let live = Live {
            launch,
            begun,
            process: launched.process,
            exec: launched.exec,
            fault: None,
            out: Some(File::from(launched.out)),
            err: Some(File::from(launched.err)),
            capture,
            notices: launched.ear.map(|ear| Notices::new(ear, Said::default())),
            group: launched.group,
            exit: None,
            empty: false,
            interrupted: false,
            unrecorded: false,
            used: super::cgroup::Counted::default(),
            looks: 0,
        };
        self.install(Held {
            key,
            started: None,
            state: State::Live(Box::new(live)),
        });
    }

    /// Watches everything of a live attempt.
    pub(super) fn install(&mut self, held: Held) {
        let key = held.key;
        let id = self.held.insert(held);
        let Some(live) = self.held.live(id) else {
            return;
        };
        // The program of a call runs already.
        let is_call = !live.is_alone();
        let mut wanted = Vec::with_capacity(4);
        if live.exit.is_none() {
            let process = match &live.process {
                Process::Own(pidfd) => Some(pidfd.as_fd()),
                Process::Shared { line, .. } => line.as_ref().map(AsFd::as_fd),
            };
            wanted.extend(process.map(|fd| (fd, Token::Exit(id))));
        }
        wanted.extend(live.exec.as_ref().map(|fd| (fd.as_fd(), Token::Exec(id))));
        wanted.extend(live.out.as_ref().map(|fd| (fd.as_fd(), Token::Out(id))));
        wanted.extend(live.err.as_ref().map(|fd| (fd.as_fd(), Token::Err(id))));
        for (fd, token) in wanted {
            if let Err(error) = self.poll.watch(fd, token) {
                tracing::error!(task = %key.task, attempt = key.number, %error, ?token, "cannot watch a task");
            }
        }
        self.watch_notices(id);
        if is_call {
            self.tell_started(id);
        }
        self.advance(id);
    }

    /// The child reached its program just now, or says why not.
    pub(super) fn on_exec(&mut self, id: u32) {
        let now = (self.clock)();
        // One that waited for its commit was born earlier than it began.
        if let Some(live) = self.held.live(id).filter(|live| live.launch.after_commit) {
            live.begun.at = now;
        }
        self.hear_exec(id);
    }

    /// Hears whether a child reached its program.
    pub(super) fn hear_exec(&mut self, id: u32) {
        let Some(held) = self.held.get(id) else {
            return;
        };
        let key = held.key;
        let Some(live) = held.live() else {
            return;
        };
        let Some(exec) = &mut live.exec else {
            return;
        };
        let word = spawn::hear(exec);
        if word == Word::Wait {
            return;
        }
        self.poll.forget(&*exec);
        live.exec = None;
        if let Word::Failed(fault) = word {
            let error = launch::explain(fault, &live.launch, &live.begun.user);
            tracing::info!(task = %key.task, attempt = key.number, %error, "not started");
            live.fault = Some((error, launch::is_scarce(fault.errno)));
            live.unrecorded = fault.step == Step::Commit;
            live.interrupted |= live.unrecorded;
            return;
        }
        self.tell_started(id);
    }

    /// Notes once that the program of an attempt runs, and tells it soon.
    fn tell_started(&mut self, id: u32) {
        let Some(held) = self.held.get(id).filter(|held| held.started.is_none()) else {
            return;
        };
        let key = held.key;
        if let Some(started) = held.live().map(|live| live.begun.clone()) {
            held.started = Some(started);
            self.begun.push(key);
            match self.door {
                // Daemons to come believe this runner by the record of the start.
                Door::Dial => self.tell_starts(),
                Door::Listener(_) if self.poll.armed(Timer::Starts) => {}
                Door::Listener(_) => self.poll.arm(Timer::Starts, LATE),
            }
        }
    }

    /// Tells which programs run. Nothing is said of those that are over by now:
    /// their end tells their start as well.
    pub(super) fn tell_starts(&mut self) {
        self.poll.disarm(Timer::Starts);
        for key in std::mem::take(&mut self.begun) {
            let held = self.held.id(key).and_then(|id| self.held.get(id));
            let started = held
                .filter(|held| held.over().is_none())
                .and_then(|held| held.started.clone());
            if let Some(started) = started {
                self.say(&FromRunner::Started { key, started });
            }
        }
    }
}
