//! `start`, `stop`, `restart`: a daemon by hand, where no service manager
//! starts it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nix::sys::signal::Signal;

use crate::config::{self, Config, Sources};
use crate::daemon;
use crate::daemon::identity::Identity;
use crate::daemon::pidfile::{self, Found, PidFile};
use crate::daemon::process::{self, Side, Surroundings};
use crate::model::quantity::{format_duration, parse_duration};
use crate::run::own;
use crate::runner::pidfd::Process;

use super::launch::Launch;
use super::process::Given;
use super::{Failure, Outcome};

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
    /// The pid file [default: beside the directory of the sockets, as in
    /// /run/taskdaemon.pid]
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
    /// The pid file [default: beside the directory of the sockets, as in
    /// /run/taskdaemon.pid]
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
