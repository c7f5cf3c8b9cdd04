//! `start`, `stop`, `restart`: a daemon by hand, where no service manager
//! starts it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::config::{self, Config, Sources};
use crate::daemon::identity::Identity;
use crate::daemon::keeper::Keeper;
use crate::daemon::notify::Notify;
use crate::daemon::pidfile::{self, Found, PidFile};
use crate::daemon::process::{self, Output, Side, Surroundings};
use crate::daemon::record::Record;
use crate::daemon::supervisor::{self, Plan};
use crate::daemon::words::{Word, Words};
use crate::daemon::{self, Origin};
use crate::model::quantity::{format_duration, parse_duration};
use crate::run::own;
use crate::runner::pidfd::Process;
use crate::{clock, telemetry};

use super::process::Given;
use super::{Failure, Outcome};

/// Beyond the daemon's own limit: for the processes in between.
const MARGIN: Duration = Duration::from_secs(10);

/// How long the runner may take: its tasks have 10 seconds after SIGTERM.
const TASKS: Duration = Duration::from_secs(20);

/// How to start.
#[derive(Debug, Args)]
pub(super) struct StartArgs {
    #[command(flatten)]
    given: Given,
    /// Go to the background, and return when the daemon is ready
    #[arg(long)]
    fork: bool,
    /// Start the daemon again when it dies or falls silent
    #[arg(long)]
    supervised: bool,
    /// The pid file [default: /run/taskdaemon.pid as root, else
    /// $XDG_RUNTIME_DIR/taskdaemon.pid]
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// The user the daemon runs as; what starts its tasks stays root
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Its group [default: the user's]
    #[arg(long, value_name = "GROUP", requires = "user")]
    group: Option<String>,
    /// The directory it works in
    #[arg(long, value_name = "DIR", default_value = "/")]
    directory: PathBuf,
    /// Permissions that its files do not get
    #[arg(long, value_name = "OCTAL", default_value = "0077", value_parser = octal)]
    umask: u32,
}

/// Which daemon is meant, and how long it may take.
#[derive(Debug, Args)]
pub(super) struct StopArgs {
    #[command(flatten)]
    which: Which,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "40s", value_parser = parse_duration)]
    timeout: Duration,
    /// End running tasks too, and the runner that keeps them
    #[arg(long)]
    tasks: bool,
}

/// Which daemon is meant.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The pid file [default: /run/taskdaemon.pid as root, else
    /// $XDG_RUNTIME_DIR/taskdaemon.pid]
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| "must be an octal number up to 0777".to_owned())
}

impl Which {
    /// The settings of that daemon, as far as they can be known here.
    pub(super) fn settings(&self) -> Result<Config, config::error::Error> {
        Ok(config::load(&Sources::of_process(self.config.clone()))?.config)
    }

    /// Its pid file.
    pub(super) fn file(&self) -> Result<PathBuf, Failure> {
        match &self.pid_file {
            Some(path) => Ok(std::path::absolute(path)?),
            None => Ok(beside(&self.settings().map_err(refused)?)),
        }
    }
}

/// The pid file where none is named: beside the directory of the sockets,
/// which may be another user's.
fn beside(settings: &Config) -> PathBuf {
    settings.runtime_dir.with_extension("pid")
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::Config(error.to_string())
}

/// What a pid file's error means for the exit code: refused, or try again.
pub(super) fn pid_failure(error: &pidfile::Error) -> Failure {
    let code = match error {
        pidfile::Error::Held { .. } => 0,
        pidfile::Error::Unusable { .. } => 4,
        pidfile::Error::System { .. } => 1,
    };
    Failure::Code(code, daemon::explain(error))
}

/// Whether systemd runs this host.
fn host_has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether this process is a service of systemd: it does by itself what we
/// would do here, and would watch the wrong process.
fn is_service() -> bool {
    let own = std::process::id().to_string();
    std::env::var_os("NOTIFY_SOCKET").is_some()
        || std::env::var_os("SYSTEMD_EXEC_PID").is_some_and(|pid| pid.to_str() == Some(&own))
}

/// Refuses what is systemd's to do, and says how it is done.
fn leave_it_to_systemd(args: &StartArgs, verb: &str) -> Result<(), Failure> {
    if is_service() && (args.supervised || args.fork) {
        let flag = if args.supervised {
            "--supervised"
        } else {
            "--fork"
        };
        return Err(Failure::Code(
            4,
            format!(
                "{flag} is not for a service of systemd, which restarts and watches the daemon \
                 itself (Restart=, WatchdogSec=): write ExecStart=taskdaemon run"
            ),
        ));
    }
    if host_has_systemd() && !args.fork && !args.supervised {
        return Err(Failure::Code(
            4,
            format!(
                "systemd runs this host: `systemctl {verb} taskdaemon`, or --fork for a daemon of \
                 your own in the background"
            ),
        ));
    }
    Ok(())
}

/// `start`.
pub(super) fn start(args: StartArgs) -> Outcome {
    leave_it_to_systemd(&args, "start")?;
    let sources = args.given.sources()?;
    let settings = config::load(&sources).map_err(refused)?.config;
    let pid_file = match &args.pid_file {
        Some(path) => std::path::absolute(path)?,
        None => beside(&settings),
    };
    if let Found::Held(process) = pidfile::look(&pid_file).map_err(|error| pid_failure(&error))? {
        return already(process.pid());
    }
    let identity = identity(&args)?;
    let background = args.fork || !args.supervised;
    let launch = Launch {
        output: args.given.output(identity.as_ref())?,
        surroundings: Surroundings {
            directory: args.directory.clone(),
            umask: args.umask,
        },
        arguments: args.given.arguments()?,
        heal: args.supervised,
        sources,
        settings,
        pid_file,
        identity,
    };
    if !background {
        if let Some(code) = process::be_init()? {
            return Ok(code);
        }
        return launch.go(None);
    }
    match process::detach()? {
        Side::Caller(pipe) => launch.await_ready(pipe),
        Side::Daemon(pipe) => launch.go(Some(pipe)),
    }
}

fn already(pid: i32) -> Outcome {
    writeln!(io::stdout(), "taskdaemon already runs, pid {pid}")?;
    Ok(0)
}

fn identity(args: &StartArgs) -> Result<Option<Identity>, Failure> {
    let Some(user) = &args.user else {
        return Ok(None);
    };
    let identity = Identity::find(user, args.group.as_deref()).map_err(Failure::Usage)?;
    let own = nix::unistd::geteuid();
    if own.is_root() {
        return Ok(Some(identity));
    }
    if own == identity.uid && nix::unistd::getegid() == identity.gid {
        return Ok(None);
    }
    let why = format!("only root can start the daemon as {user}");
    Err(Failure::Code(4, why))
}

/// Everything that is decided before the first fork.
struct Launch {
    sources: Sources,
    settings: Config,
    pid_file: PathBuf,
    identity: Option<Identity>,
    output: Output,
    surroundings: Surroundings,
    /// For `run`.
    arguments: Vec<OsString>,
    heal: bool,
}

impl Launch {
    /// Waits until the daemon is ready or says why not.
    fn await_ready(&self, pipe: OwnedFd) -> Outcome {
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
    fn go(self, pipe: Option<OwnedFd>) -> Outcome {
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

/// `stop`.
pub(super) fn stop(args: &StopArgs) -> Outcome {
    let path = args.which.file()?;
    let found = pidfile::look(&path).map_err(|error| pid_failure(&error))?;
    let said = match found {
        Found::Held(process) => stop_process(&process, args.timeout)?,
        Found::Absent | Found::Unused if args.which.pid_file.is_none() && host_has_systemd() => {
            let why = "no daemon was started here by `taskdaemon start`; systemd's is stopped by \
                       `systemctl stop taskdaemon.service taskdaemon-api.socket`";
            return Err(Failure::Code(4, why.to_owned()));
        }
        Found::Absent | Found::Unused => "taskdaemon is not running".to_owned(),
        Found::Stale => {
            // Only under its lock may it be removed.
            match PidFile::acquire(&path) {
                Ok(stale) => stale.release(),
                Err(error) => return Err(pid_failure(&error)),
            }
            "taskdaemon is not running; it had not ended in order".to_owned()
        }
    };
    let tail = match args.which.settings() {
        Ok(settings) if args.tasks => end_tasks(&settings)?,
        Ok(settings) if own::lives(&settings.run.runner_socket) => {
            "; running tasks go on, their runner keeps how they end"
        }
        Err(error) if args.tasks => return Err(refused(error)),
        Ok(_) | Err(_) => "",
    };
    writeln!(io::stdout(), "{said}{tail}")?;
    Ok(0)
}

fn stop_process(process: &Process, limit: Duration) -> Result<String, Failure> {
    let pid = process.pid();
    process
        .signal(Signal::SIGTERM)
        .map_err(|error| Failure::Code(4, format!("cannot stop taskdaemon, pid {pid}: {error}")))?;
    if process.ends_within(limit)? {
        return Ok(format!("taskdaemon stopped, pid {pid}"));
    }
    let limit = format_duration(limit);
    let why =
        format!("taskdaemon, pid {pid}, has not stopped in {limit}; stop it again to hurry it");
    Err(Failure::Code(1, why))
}

/// Ends the runner, now that no daemon can start another one.
fn end_tasks(settings: &Config) -> Result<&'static str, Failure> {
    let failed = |why: String| Failure::Code(1, format!("cannot end running tasks: {why}"));
    match own::end(&settings.run.runner_socket, TASKS) {
        Ok(None) => Ok("; no task was running"),
        Ok(Some(true)) => Ok("; running tasks were ended"),
        Ok(Some(false)) => Err(failed(format!(
            "the runner lives after {}",
            format_duration(TASKS)
        ))),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// `restart`.
pub(super) fn restart(args: StartArgs) -> Outcome {
    leave_it_to_systemd(&args, "restart")?;
    let settings = config::load(&args.given.sources()?)
        .map_err(refused)?
        .config;
    let path = args.pid_file.clone().unwrap_or_else(|| beside(&settings));
    stop(&StopArgs {
        which: Which {
            pid_file: Some(path),
            config: args.given.config(),
        },
        timeout: Duration::from_secs(40),
        tasks: false,
    })?;
    start(args)
}
