//! `tend`: looks after an agent from beside it, as its user and in its cgroup.
//!
//! The process becomes the agent, so that its number, its end and its notify
//! socket are the agent's own; what looks after it is a process behind, which
//! is nobody's child and ends with the agent. It speaks as the agent would: it
//! says `READY=1` once the probe succeeds, `WATCHDOG=1` each time, and
//! `WATCHDOG=trigger` with a reason when it fails too often.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use sd_notify::NotifyState;

use crate::daemon::process;
use crate::model::agent::probe::{Finding, Look, Looks, Probe};
use crate::runner::pidfd::Process;

use super::{Failure, Outcome};

/// What to look at, and what to run.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The probe, as JSON
    probe: String,
    /// The agent: a program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// `tend`.
pub(super) fn tend(args: &Args) -> Outcome {
    let probe: Probe = serde_json::from_str(&args.probe)
        .map_err(|error| Failure::Usage(format!("the probe cannot be read: {error}")))?;
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(Failure::Usage("there is no command".to_owned()));
    };
    let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    // Taken before the fork: afterwards the number could be another's.
    let agent = Process::open(own)?;
    if process::leave_behind()? {
        process::close_standard_streams()?;
        watch(&agent, &probe)?;
        return Ok(0);
    }
    let error = Command::new(program).args(arguments).exec();
    let why = format!("cannot run {}: {error}", program.display());
    // As a shell says it.
    let code = if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    Err(Failure::Code(code, why))
}

/// Looks again and again, until the agent has ended.
fn watch(agent: &Process, probe: &Probe) -> io::Result<()> {
    let pause = Duration::from_millis(probe.interval_ms);
    // A new process is there: it has still to start up.
    let mut looks = Looks::of(false);
    let mut written = None;
    while !agent.ends_within(pause)? {
        let found = match &probe.look {
            Look::Command(command) => run(agent, command, probe)?,
            Look::File(path) => write_seen(path, &mut written),
            // The daemon looks at those.
            Look::Http(_) | Look::Tcp(_) => Ok(()),
        };
        let is_well = found.is_ok();
        let finding = looks.see(is_well, probe.threshold);
        let why = found.err().unwrap_or_default();
        let status = match finding {
            Finding::Down => format!("probe failed {} times: {why}", probe.threshold),
            Finding::Up | Finding::Nothing if why.is_empty() => String::new(),
            Finding::Up | Finding::Nothing => format!("probe: {why}"),
        };
        let status = NotifyState::Status(&status);
        let said = match finding {
            Finding::Down => sd_notify::notify(&[status, NotifyState::WatchdogTrigger]),
            Finding::Up | Finding::Nothing if is_well => {
                sd_notify::notify(&[NotifyState::Ready, NotifyState::Watchdog, status])
            }
            // It is this process that is alive: one that looks no more is
            // found by its silence.
            Finding::Up | Finding::Nothing => sd_notify::notify(&[NotifyState::Watchdog, status]),
        };
        // What was not heard is said again by the next look.
        drop(said);
    }
    Ok(())
}

/// Runs the probe's command, which has to end in time and with 0.
fn run(agent: &Process, command: &[String], probe: &Probe) -> io::Result<Result<(), String>> {
    let [program, arguments @ ..] = command else {
        return Ok(Err("there is no command".to_owned()));
    };
    let begun = Command::new(program)
        .args(arguments)
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let mut child = match begun {
        Ok(child) => child,
        Err(error) => return Ok(Err(format!("cannot run {program}: {error}"))),
    };
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let in_time = Process::open(pid)?.ends_within(Duration::from_millis(probe.timeout_ms))?;
    if !in_time {
        end_group(&mut child)?;
        let limit = probe.timeout_ms;
        return Ok(Err(format!("{program} has not ended within {limit} ms")));
    }
    let status = child.wait()?;
    // The agent may have taken it along.
    if status.success() || agent.ends_within(Duration::ZERO)? {
        return Ok(Ok(()));
    }
    Ok(Err(format!("{program}: {status}")))
}

fn end_group(child: &mut Child) -> io::Result<()> {
    let group = i32::try_from(child.id()).map_err(io::Error::other)?;
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), Signal::SIGKILL)?;
    child.wait().map(drop)
}

/// Whether a file was written to since it was looked at last: by its own
/// time, which no clock that is set can make old.
fn write_seen(path: &str, written: &mut Option<SystemTime>) -> Result<(), String> {
    let at = fs::metadata(path)
        .and_then(|meta| meta.modified())
        .map_err(|error| format!("cannot look at {path}: {error}"))?;
    // What was there before it began says nothing of this run.
    let before = written.replace(at);
    let is_written = before.is_some_and(|before| before != at);
    is_written
        .then_some(())
        .ok_or_else(|| format!("{path} was not written to"))
}
