//! What becomes of `start`: the caller, who waits, and in the background the
//! daemon or its supervisor.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::{Config, Sources};
use crate::daemon::child::Plan;
use crate::daemon::identity::Identity;
use crate::daemon::keeper::Keeper;
use crate::daemon::notify::Notify;
use crate::daemon::pidfile::PidFile;
use crate::daemon::process::{self, Output, Surroundings};
use crate::daemon::record::Record;
use crate::daemon::supervisor;
use crate::daemon::words::{Word, Words};
use crate::daemon::{self, Origin};
use crate::model::quantity::format_duration;
use crate::{clock, telemetry};

use super::start::pid_failure;
use super::{Failure, Outcome};

/// Beyond the daemon's own limit: for the processes in between.
const MARGIN: Duration = Duration::from_secs(10);

/// Everything that is decided before the first fork.
pub(super) struct Launch {
    pub(super) sources: Sources,
    pub(super) settings: Config,
    pub(super) pid_file: PathBuf,
    pub(super) identity: Option<Identity>,
    pub(super) output: Output,
    pub(super) surroundings: Surroundings,
    /// For `run`.
    pub(super) arguments: Vec<OsString>,
    pub(super) heal: bool,
}

impl Launch {
    /// Waits until the daemon is ready or says why not.
    pub(super) fn await_ready(&self, pipe: OwnedFd) -> Outcome {
        let mut words = Words::new(pipe)?;
        let limit = self.settings.daemon.start_timeout + MARGIN;
        let end = clock::instant() + limit;
        let (mut pid, mut said, mut code) = (None, String::new(), 1);
        loop {
            let left = end.saturating_duration_since(clock::instant());
            if left.is_zero() {
                let limit = format_duration(limit);
                let why = format!("not ready after {limit}; it goes on trying, see its log");
                return Err(Failure::Code(75, why));
            }
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(words.as_fd(), PollFlags::POLLIN)];
            // Interrupted or not: all is looked at again.
            let _looked_at = poll(&mut fds, left).is_ok();
            let Some(heard) = words.heard() else { break };
            for word in heard {
                match word {
                    Word::MainPid(number) => pid = Some(number),
                    Word::Status(text) => said = text,
                    Word::Exit(number) => code = number,
                    Word::Ready => {
                        let pid = pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
                        writeln!(io::stdout(), "taskdaemon started{pid}")?;
                        return Ok(0);
                    }
                    Word::Alive | Word::Extend(_) => {}
                }
            }
        }
        if code == 0 {
            writeln!(io::stdout(), "{said}")?;
            return Ok(0);
        }
        if said.is_empty() {
            "it ended without a word; see its log".clone_into(&mut said);
        }
        Err(Failure::Code(code, said))
    }

    /// Is the daemon, or its supervisor.
    pub(super) fn go(self, pipe: Option<OwnedFd>) -> Outcome {
        let detached = pipe.is_some();
        let notify = match pipe {
            Some(pipe) => Notify::to_parent(pipe)?,
            None => Notify::default(),
        };
        let result = self.enter(detached).and_then(|()| {
            if self.heal || self.identity.is_some() {
                self.supervise(notify.clone())
            } else {
                self.run(notify.clone())
            }
        });
        if let Err(failure) = &result {
            // Whoever called may have gone; the log has it too.
            notify.exit(failure.code(), &failure.to_string());
        }
        result
    }

    fn enter(&self, detached: bool) -> Result<(), Failure> {
        self.surroundings.enter()?;
        if detached {
            process::close_standard_streams()?;
        }
        Ok(self.output.open()?)
    }

    fn run(&self, notify: Notify) -> Outcome {
        let pid_file = self.take_pid_file()?;
        notify.main_pid();
        let origin = Origin {
            caller: Some(notify),
            output: self.output.clone(),
            ..Origin::default()
        };
        let ended = daemon::run(self.sources.clone(), origin);
        pid_file.release();
        match ended {
            Ok(()) => Ok(0),
            Err(error) => Err(Failure::Code(error.exit_code(), daemon::explain(&error))),
        }
    }

    fn take_pid_file(&self) -> Result<PidFile, Failure> {
        PidFile::acquire(&self.pid_file).map_err(|error| pid_failure(&error))
    }

    fn supervise(&self, notify: Notify) -> Outcome {
        let pid_file = self.take_pid_file()?;
        notify.main_pid();
        let ended = self.supervise_under(notify);
        pid_file.release();
        match ended? {
            (0, _) => Ok(0),
            (code, why) => Err(Failure::Code(code, why)),
        }
    }

    fn supervise_under(&self, notify: Notify) -> Result<(u8, String), Failure> {
        supervisor::block_signals()?;
        let mut variables = Vec::new();
        let mut keeper = None;
        if let Some(identity) = &self.identity {
            identity.own_directories(&self.settings)?;
            // The host's places, although it is not root.
            variables.push((
                "STATE_DIRECTORY".into(),
                self.settings.state_dir.clone().into(),
            ));
            variables.push(("TASKDAEMON_RUN__START_RUNNER".into(), "never".into()));
            keeper = Some(Keeper {
                socket: self.settings.run.runner_socket.clone(),
                users: self.settings.run.users,
                peer: identity.peer(),
            });
        }
        let plan = Plan {
            program: daemon::program()?,
            arguments: self.arguments.clone(),
            variables,
            options: self.settings.daemon.clone(),
            heal: self.heal,
            identity: self.identity.clone(),
            output: self.output.clone(),
            record: Record::beside(&self.pid_file),
        };
        let log = telemetry::init(&telemetry::Options {
            filter: self.settings.log.clone(),
            now: Some(|| clock::now().micros()),
        })?;
        let ended = supervisor::supervise(&plan, notify, keeper)?;
        drop(log);
        Ok(ended)
    }
}
