//! Floor 5: boot and shutdown in order.
//!
//! [`run`] is the whole daemon as a list of steps. What must happen before any
//! thread exists comes first: taking what the service manager handed over and
//! clearing it from the environment. READY comes last, when requests are
//! answered.
//!
//! Where no service manager does it, `process` goes to the background,
//! `pidfile` says who the daemon is, and `supervisor` starts it again.

mod agents;
pub mod child;
mod door;
mod hooks;
pub mod identity;
pub mod keeper;
pub mod lifecycle;
pub mod listen;
pub mod memory;
pub mod monitor;
pub mod notify;
pub mod passed;
pub mod pidfile;
pub mod process;
mod prompts;
pub mod record;
mod relay;
pub mod reload;
mod secrets;
pub mod service;
pub mod signals;
pub mod supervisor;
pub mod traces;
mod unit;
mod wellbeing;
pub mod words;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::num::NonZero;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::prctl;
use tokio::runtime::{Builder, Runtime};

use crate::api;
use crate::api::options::BadOptions;
use crate::config::{self, Sources};
use crate::engine::actor;
use crate::engine::prompts::Door;
use crate::store::{self, ballast, disk::Disk, lock::Lock, sqlite::Sqlite};
use crate::{clock, run as work, telemetry};

use service::Systemd;
use traces::Exporter;

/// Why the daemon did not start, or did not stay.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings.
    #[error("{0}")]
    Config(#[from] config::error::Error),
    /// The settings of the API, on this host.
    #[error("cannot set up the API: {0}")]
    Api(#[from] BadOptions),
    /// The sockets the service manager passed.
    #[error("cannot use the passed sockets: {0}; see the unit files")]
    Sockets(#[from] passed::Error),
    /// A TCP socket, and nobody who may use it.
    #[error(
        "{0} would be open to everyone: add a token to api.tokens (`taskdaemon token new`), or ask \
         for client certificates, or close the socket"
    )]
    OpenTcp(String),
    /// A socket that the daemon was to bind itself.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The store, at start or later.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// Something of the system.
    #[error("cannot {act}")]
    System {
        /// What was attempted.
        act: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// The exit status: 78 keeps the service manager from trying again what
    /// only a person can mend, 75 is worth another try.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Api(_) | Self::Sockets(_) | Self::OpenTcp(_) => 78,
            Self::Listen { .. } | Self::System { .. } => 75,
            Self::Store(error) if error.is_permanent() => 78,
            Self::Store(_) => 75,
        }
    }
}

/// What was attempted, for an error of the system.
fn system(act: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System {
        act: act.into(),
        source,
    }
}

/// How this process came to be the daemon, where no service manager started
/// it.
#[derive(Debug, Default)]
pub struct Origin {
    /// Whoever called, and waits until the daemon is ready; then it is gone.
    pub caller: Option<notify::Notify>,
    /// The supervisor that hears us, and how often it has started us again.
    pub supervisor: Option<(notify::Notify, u64)>,
    /// The files of the log.
    pub output: process::Output,
}

/// An error with what led to it, on one line.
#[must_use]
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut advice = None;
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        advice = advice.or_else(|| unit::advice(cause));
        source = cause.source();
    }
    text.push_str(advice.unwrap_or_default());
    text
}

/// Our own program's file, for a process of its own.
///
/// # Errors
/// The system does not say.
pub fn program() -> io::Result<PathBuf> {
    hooks::program().map(PathBuf::from)
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Why it could not start, or had to end.
pub fn run(sources: Sources, origin: Origin) -> Result<(), Error> {
    // Whatever comes from now on waits until it is listened for.
    signals::hold().map_err(system("hold signals"))?;
    let mut systemd = Systemd::take()?;
    let supervisor = origin.supervisor.as_ref();
    let parent = supervisor
        .map(|(parent, _)| parent)
        .or(origin.caller.as_ref());
    if let Some(parent) = parent.cloned() {
        systemd.notify = parent;
    }
    let told = systemd.notify.clone();
    api::memory::keep_little();
    let ended = boot_up(sources, systemd, origin);
    if let Err(error) = &ended {
        told.exit(error.exit_code(), &explain(error));
    }
    ended
}

fn boot_up(sources: Sources, mut systemd: Systemd, origin: Origin) -> Result<(), Error> {
    memory::keep().map_err(system("keep the process's memory to itself"))?;
    let loaded = config::load(&sources)?;
    let settings = loaded.config.clone();
    api::check(settings.api.clone())?;
    if origin.supervisor.is_some() {
        supervised(&mut systemd, &settings)?;
    }
    let log = telemetry::init(&telemetry::Options {
        filter: settings.log.clone(),
        now: Some(|| clock::now().micros()),
    })
    .map_err(system("start logging"))?;
    warn(&loaded.notes, &systemd.warnings, &settings);
    let runtime = runtime().map_err(system("start the runtime"))?;
    let signals = {
        let _inside = runtime.enter();
        signals::Signals::listen().map_err(system("catch signals"))?
    };
    let output = prepare(&settings.state_dir, &settings.runtime_dir)?;
    let lock = Lock::take(&settings.state_dir)?;
    ballast::keep(&settings.state_dir, settings.store.ballast.bytes())?;
    let store = Sqlite::open(&settings.state_dir, &settings.store)
        .inspect_err(|error| give_way(error, "", &settings.state_dir))?;
    let reader = Sqlite::open_reader(&settings.state_dir)?;
    // Before anything is said to a runner: a daemon that cannot have its sockets
    // must not take the runner, and end the tasks, of one that has them.
    let passed = std::mem::take(&mut systemd.listeners);
    let listeners = listen::listeners(passed, &settings.api)?;
    let (relay, door) = door::open(&settings.llm, &settings.state_dir)?.unzip();
    let program = hooks::program().map_err(system("find our own program"))?;
    let exporter = traces::start(&settings.traces, &runtime)?;
    let begin = beginning(&settings, &program, door.clone(), exporter.as_ref())?;
    let engine = actor::start(store, reader, begin, boot()?)?;
    failpoint!("daemon/boot/recovered");
    work::start(
        settings.run.clone(),
        output.clone(),
        engine.effects,
        engine.handle.commands(),
    )
    .map_err(system("start a thread"))?;
    let served = runtime.block_on(lifecycle::serve(lifecycle::Parts {
        sources,
        settings: settings.clone(),
        systemd,
        origin,
        monitor: monitor::Monitor::start().map_err(system("start a thread"))?,
        listeners,
        relay,
        door,
        log: &log,
        signals,
        handle: engine.handle,
        program,
        output,
    }));
    if let Some(exporter) = exporter {
        runtime.block_on(exporter.finish());
    }
    runtime.shutdown_background();
    let ended = engine.thread.join();
    drop(lock);
    served?;
    // The engine has ended, by order, by failure or by a defect.
    let panicked = || io::Error::other("its thread panicked; see the log");
    let ended = ended.map_err(|_| system("keep the engine running")(panicked()))?;
    Ok(ended.inspect_err(|error| give_way(error, UNKNOWN, &settings.state_dir))?)
}

/// What the engine begins with.
fn beginning(
    settings: &config::Config,
    program: &str,
    door: Option<Door>,
    exporter: Option<&Exporter>,
) -> Result<actor::Settings, Error> {
    Ok(actor::Settings {
        engine: settings.engine.clone(),
        hooks: hooks::resolve(&settings.hooks, program)?,
        prompts: prompts::resolve(&settings.llm, program, door)?,
        retention: settings.retention.clone(),
        disk: Disk::open(&settings.state_dir, &settings.store)?,
        intake: exporter.map(Exporter::intake),
    })
}

/// Logs what was odd and survived, now that there is a log.
fn warn(notes: &[String], warnings: &[String], settings: &config::Config) {
    let hidden = unit::hidden(settings);
    for note in notes.iter().chain(warnings).chain(&hidden) {
        tracing::warn!("{note}");
    }
}

/// The engine is one thread, and has a core of its own where there are several:
/// those who serve would only take it away, and each other's work from hand to
/// hand.
fn runtime() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .enable_all()
        .thread_name("serve")
        .build()
}

/// What a daemon owes its supervisor: a sign of life, and an end when it is
/// gone, since nobody else could start another one beside it.
fn supervised(systemd: &mut Systemd, settings: &config::Config) -> Result<(), Error> {
    systemd.watch(settings.daemon.heartbeat);
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)
        .map_err(|errno| system("be told of the supervisor's end")(errno.into()))?;
    if systemd.notify.main_pid() {
        return Ok(());
    }
    let gone = io::Error::other("it has ended meanwhile");
    Err(system("speak to the supervisor")(gone))
}

/// The kernel's name for the time since it was booted.
fn boot() -> Result<String, Error> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    Ok(id
        .map_err(system("read the kernel's boot id"))?
        .trim()
        .to_owned())
}

/// What a store that fails at work leaves open.
const UNKNOWN: &str = "; what was being saved is unknown, and the next start finds out";

/// Logs why the store failed, and what that means; makes room where that was
/// the reason.
fn give_way(error: &store::Error, meaning: &str, state: &Path) {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    tracing::error!(
        message_id = telemetry::id::STORE_FAILED,
        "{error}{}{meaning}",
        cause.unwrap_or_default()
    );
    if error.is_full() && ballast::release(state) {
        tracing::warn!("the disk is full: gave up the ballast so that work can be recorded");
    }
}

/// Makes the directories, and says where output goes.
fn prepare(state: &Path, runtime: &Path) -> Result<PathBuf, Error> {
    let output = state.join("output");
    for (dir, mode) in [(state, 0o700), (&output, 0o700), (runtime, 0o755)] {
        let is_new = !dir.exists();
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(dir)
            .and_then(|()| {
                // A strict umask is for files; who may come in is said here.
                let mode = Permissions::from_mode(mode);
                if is_new {
                    fs::set_permissions(dir, mode)
                } else {
                    Ok(())
                }
            })
            .map_err(system(format!("make the directory {}", dir.display())))?;
    }
    Ok(output)
}
