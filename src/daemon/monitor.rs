//! Programs that are run when the state of the daemon changes.
//!
//! They are told on a thread of their own, one after the other, each with its
//! time; nobody waits for them, and what does not fit in the queue is dropped
//! with a line in the log.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::config::daemon::Options;
use crate::runner::pidfd::Process;

use super::process::unblock_signals;

/// Programs that may wait for their turn.
const QUEUE: usize = 16;

/// A change that somebody may want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It serves, or is well again.
    Ready,
    /// It works, and something is missing.
    Degraded(String),
    /// A new configuration was refused.
    ReloadFailed(String),
    /// There were as many restarts in a row as the limit allows.
    RestartLimit(String),
}

impl Event {
    const fn word(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded(_) => "degraded",
            Self::ReloadFailed(_) => "reload_failed",
            Self::RestartLimit(_) => "restart_limit",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Ready => "",
            Self::Degraded(why) | Self::ReloadFailed(why) | Self::RestartLimit(why) => why,
        }
    }

    const fn command<'a>(&self, options: &'a Options) -> &'a Vec<String> {
        match self {
            Self::Ready => &options.on_ready,
            Self::Degraded(_) => &options.on_degraded,
            Self::ReloadFailed(_) => &options.on_reload_failed,
            Self::RestartLimit(_) => &options.on_restart_limit,
        }
    }
}

struct Call {
    event: Event,
    command: Vec<String>,
    limit: Duration,
}

/// The way to those programs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Monitor(SyncSender<Call>);

impl Monitor {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start() -> io::Result<Self> {
        let (calls, waiting) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || work(&waiting))?;
        Ok(Self(calls))
    }

    /// Has the program for this event run, if the settings name one.
    pub fn tell(&self, options: &Options, event: Event) {
        let command = event.command(options).clone();
        if command.is_empty() {
            return;
        }
        let word = event.word();
        let call = Call {
            event,
            command,
            limit: options.hook_timeout,
        };
        if self.0.try_send(call).is_err() {
            tracing::warn!("the program for {word} is not run: too many wait already");
        }
    }
}

fn work(calls: &Receiver<Call>) {
    while let Ok(call) = calls.recv() {
        let word = call.event.word();
        let program = call.command.first().map_or("", String::as_str);
        match run(&call) {
            Ok(Some(status)) if status.success() => {
                tracing::debug!("the program for {word}, {program}, is done");
            }
            Ok(Some(status)) => tracing::warn!("the program for {word}, {program}: {status}"),
            Ok(None) => tracing::warn!(
                "the program for {word}, {program}, took longer than {:?} and was killed",
                call.limit
            ),
            Err(error) => tracing::warn!("cannot run the program for {word}, {program}: {error}"),
        }
    }
}

/// Runs one to its end; `None` when it was killed.
fn run(call: &Call) -> io::Result<Option<ExitStatus>> {
    let [program, arguments @ ..] = &call.command[..] else {
        return Ok(None);
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("TASKDAEMON_EVENT", call.event.word())
        .env("TASKDAEMON_DETAIL", call.event.detail().replace('\0', " "))
        .env("TASKDAEMON_PID", std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // So that what it started is killed with it.
        .process_group(0);
    unblock_signals(&mut command);
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let in_time = Process::open(pid)?.ends_within(call.limit)?;
    if !in_time {
        // Not reaped yet: the number cannot mean another group.
        let _gone = killpg(Pid::from_raw(pid), Signal::SIGKILL).is_err();
    }
    let status = child.wait()?;
    Ok(in_time.then_some(status))
}
