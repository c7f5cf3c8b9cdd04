//! The daemon as its supervisor sees it: how it is started, what is known of
//! it, how it is signalled.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;
use crate::config::daemon::Options;
use crate::model::restart::Restarts;

use super::identity::Identity;
use super::process::Output;
use super::words::Words;

/// Time for a stop, as the unit of systemd grants it.
pub(super) const STOP: Duration = Duration::from_secs(30);

/// What is to be supervised, and how.
#[derive(Debug)]
pub struct Plan {
    /// Our own program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables it finds besides our own.
    pub variables: Vec<(OsString, OsString)>,
    /// The settings.
    pub options: Options,
    /// Whether a daemon that ends is started again.
    pub heal: bool,
    /// The user it runs as, if not ours.
    pub identity: Option<Identity>,
    /// Where our own log goes.
    pub output: Output,
    /// Where it is written how things are.
    pub record: PathBuf,
}

/// A daemon that was started.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) words: Option<Words>,
    pub(super) ready: bool,
    /// When it has to have been ready, heard of, or gone.
    pub(super) deadline: Instant,
    /// The last that it said of itself.
    pub(super) said: Option<String>,
    /// That was why it ends.
    pub(super) leaving: bool,
    /// Why we killed it, if we did.
    pub(super) killed: Option<String>,
}

impl Started {
    pub(super) fn start(plan: &Plan, restarts: &Restarts) -> io::Result<Self> {
        let mut command = Command::new(&plan.program);
        command
            .args(&plan.arguments)
            .arg(format!("--restarts={}", restarts.total()))
            .envs(plan.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C is for us; we pass it on.
            .process_group(0);
        if let Some(identity) = &plan.identity {
            command
                .uid(identity.uid.as_raw())
                .gid(identity.gid.as_raw());
        }
        let mut child = command.spawn()?;
        let words = child.stdout.take().map(OwnedFd::from).map(Words::new);
        tracing::info!("started the daemon, pid {}", child.id());
        Ok(Self {
            words: words.transpose()?,
            child,
            ready: false,
            deadline: clock::instant() + plan.options.start_timeout,
            said: None,
            leaving: false,
            killed: None,
        })
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // Not reaped yet, so the number is its own.
            let _gone = kill(Pid::from_raw(pid), signal).is_err();
        }
    }

    pub(super) fn kill(&mut self, why: String, now: Instant) {
        tracing::warn!("{why}: killing it");
        self.killed = Some(why);
        // It cannot refuse; this is only to be woken again.
        self.deadline = now + STOP;
        self.signal(Signal::SIGKILL);
    }
}
