//! Renewal: this process becomes the program now installed, and its children
//! stay its children.
//!
//! The state goes as JSON into a memory file that stays open over `execve`
//! with the descriptors it names; everything else closes. Unknown fields are
//! ignored and new ones have defaults, so that neighbouring versions read each
//! other's state. When `execve` fails, nothing has changed.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::{Context, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::capture::{self, Capture};
use super::cgroup::{self, Base};
use super::held::{Held, Live, Process, State};
use super::launch::Launcher;
use super::line::Line;
use super::mailbox::Mailboxes;
use super::notices::{self, Notices};
use super::serve::{Door, Identity, Runner};
use super::{Options, calls, mark, sys};
use crate::model::attempt::{AttemptKey, Ended, Exit, Launch, Started};
use crate::model::time::Time;

/// Version of the state; raised when an older program would misread it.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct SavedRunner {
    version: u32,
    options: Options,
    instance: String,
    boot: String,
    program: PathBuf,
    listener: Option<RawFd>,
    files: (u64, u64),
    base: Option<cgroup::Saved>,
    /// Where the attempts' sockets lie.
    mailboxes: Option<PathBuf>,
    served: bool,
    held: Vec<SavedHeld>,
    #[serde(default)]
    callers: Vec<calls::Saved>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedHeld {
    key: AttemptKey,
    started: Option<Started>,
    over: Option<Ended>,
    live: Option<SavedLive>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedLive {
    launch: Launch,
    begun: Started,
    #[serde(flatten)]
    process: SavedProcess,
    exec: Option<RawFd>,
    fault: Option<String>,
    #[serde(default)]
    scarce: bool,
    out: Option<RawFd>,
    err: Option<RawFd>,
    capture_file: RawFd,
    capture: capture::Saved,
    notices: Option<notices::Saved>,
    group: Option<String>,
    exit: Option<(Exit, Time)>,
    interrupted: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum SavedProcess {
    Own { pidfd: RawFd },
    Shared { line: Option<RawFd>, caller: u32 },
}

/// Becomes the installed program. Comes back only to say why not.
pub(super) fn exec(runner: &Runner) -> anyhow::Error {
    match try_exec(runner) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_exec(runner: &Runner) -> anyhow::Result<std::convert::Infallible> {
    if runner.stopping {
        bail!("the runner is stopping");
    }
    let state = memfd_create(c"taskdaemon-runner", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(state);
    serde_json::to_writer(&mut file, &save(runner)).context("cannot write the state")?;
    file.flush()?;
    file.seek(SeekFrom::Start(0))?;
    let program = CString::new(runner.identity.program.as_os_str().as_bytes())?;
    let number = CString::new(file.as_raw_fd().to_string())?;
    let mut kept = kept(runner);
    kept.push(file.as_fd());
    tracing::info!(program = %runner.identity.program.display(), "renewing");
    let outcome = kept
        .iter()
        .try_for_each(|fd| keep_open(*fd, true))
        .and_then(|()| {
            nix::unistd::execv(
                &program,
                &[program.as_c_str(), c"runner", c"--resume", &number],
            )
        });
    for fd in kept {
        if let Err(error) = keep_open(fd, false) {
            tracing::error!(%error, "a descriptor stays open for children");
        }
    }
    outcome.with_context(|| format!("cannot execute {}", runner.identity.program.display()))
}

/// Every descriptor the state names.
fn kept(runner: &Runner) -> Vec<BorrowedFd<'_>> {
    let mut kept: Vec<_> = runner.callers.descriptors().collect();
    if let Door::Listener(listener) = &runner.door {
        kept.push(listener.as_fd());
    }
    for (_, held) in runner.held.iter() {
        let State::Live(live) = &held.state else {
            continue;
        };
        match &live.process {
            Process::Own(pidfd) => kept.push(pidfd.as_fd()),
            Process::Shared { line, .. } => kept.extend(line.as_ref().map(AsFd::as_fd)),
        }
        kept.push(live.capture.file().as_fd());
        let mailbox = live.notices.as_ref().and_then(Notices::mailbox);
        kept.extend(mailbox.map(AsFd::as_fd));
        for file in [&live.exec, &live.out, &live.err].into_iter().flatten() {
            kept.push(file.as_fd());
        }
    }
    kept
}

/// Whether a descriptor stays open for the program after `execve`.
fn keep_open(fd: impl AsFd, keep: bool) -> nix::Result<()> {
    let mut flags = FdFlag::empty();
    flags.set(FdFlag::FD_CLOEXEC, !keep);
    fcntl(fd, FcntlArg::F_SETFD(flags)).map(drop)
}

fn save(runner: &Runner) -> SavedRunner {
    let mailboxes = runner.launcher.mailboxes.as_ref();
    SavedRunner {
        version: VERSION,
        options: runner.options.clone(),
        instance: runner.identity.instance.clone(),
        boot: runner.identity.boot.clone(),
        program: runner.identity.program.clone(),
        listener: match &runner.door {
            Door::Listener(listener) => Some(listener.as_raw_fd()),
            Door::Dial => None,
        },
        files: runner.launcher.files(),
        base: runner.launcher.base.as_ref().map(Base::saved),
        mailboxes: mailboxes.map(|all| all.dir().to_owned()),
        served: runner.served,
        held: runner
            .held
            .iter()
            .map(|(_, held)| save_held(held))
            .collect(),
        callers: runner.callers.saved(),
    }
}

fn save_held(held: &Held) -> SavedHeld {
    let number = |file: &Option<File>| file.as_ref().map(AsRawFd::as_raw_fd);
    let live = match &held.state {
        State::Over(_) => None,
        State::Live(live) => Some(SavedLive {
            launch: live.launch.clone(),
            begun: live.begun.clone(),
            process: match &live.process {
                Process::Own(pidfd) => SavedProcess::Own {
                    pidfd: pidfd.as_raw_fd(),
                },
                Process::Shared { line, caller } => SavedProcess::Shared {
                    line: line.as_ref().map(|line| line.as_fd().as_raw_fd()),
                    caller: *caller,
                },
            },
            exec: number(&live.exec),
            fault: live.fault.as_ref().map(|(error, _)| error.clone()),
            scarce: live.fault.as_ref().is_some_and(|(_, scarce)| *scarce),
            out: number(&live.out),
            err: number(&live.err),
            capture_file: live.capture.file().as_raw_fd(),
            capture: live.capture.saved(),
            notices: live.notices.as_ref().map(Notices::saved),
            group: live.group.clone(),
            exit: live.exit.clone(),
            interrupted: live.interrupted,
        }),
    };
    SavedHeld {
        key: held.key,
        started: held.started.clone(),
        over: held.over().cloned(),
        live,
    }
}

/// Goes on as the program that was before.
pub(super) fn resume(state: RawFd, clock: fn() -> Time) -> anyhow::Result<Runner> {
    let mut text = String::new();
    let mut file = File::from(sys::adopt(state).context("the state to resume from is not open")?);
    file.read_to_string(&mut text)?;
    let saved: SavedRunner = serde_json::from_str(&text).context("cannot read the state")?;
    if saved.version != VERSION {
        bail!("the state is of version {}, not {VERSION}", saved.version);
    }
    let door = match saved.listener {
        Some(fd) => Door::Listener(UnixListener::from(sys::adopt(fd)?)),
        None => Door::Dial,
    };
    let base = saved.base.map(Base::reopen).transpose()?;
    let mailboxes = match saved.mailboxes {
        Some(dir) => Some(Mailboxes::at(dir)),
        None => Mailboxes::find(&door),
    };
    let mut launcher = Launcher::new(&saved.options, base, mailboxes, saved.files)?;
    if launcher.base.is_none() {
        launcher.mark = mark::of(&door);
    }
    let identity = Identity {
        instance: saved.instance,
        boot: saved.boot,
        program: saved.program,
    };
    let mut runner = Runner::assemble(saved.options, clock, launcher, identity, door)?;
    runner.served = saved.served;
    runner.restore_callers(saved.callers);
    for held in saved.held {
        let (key, started) = (held.key, held.started.clone());
        match restore(held) {
            Ok(held) => runner.install(held),
            Err(error) => {
                tracing::error!(task = %key.task, attempt = key.number, error = %format!("{error:#}"),
                    "an attempt did not survive the renewal");
                // Still held: this is the same life, and what it does not hold
                // the daemon takes for never begun, and launches again.
                runner.forsake(key, started);
            }
        }
    }
    tracing::info!(instance = %runner.identity.instance, held = runner.held.len(), "renewed");
    Ok(runner)
}

impl Runner {
    /// Holds an attempt that can only be ended.
    fn forsake(&mut self, key: AttemptKey, started: Option<Started>) {
        if let Some(base) = &self.launcher.base {
            base.kill(&cgroup::name(key));
        }
        let state = State::Over(Ended::lost((self.clock)()));
        self.held.insert(Held {
            key,
            started,
            state,
        });
    }
}

fn restore(saved: SavedHeld) -> anyhow::Result<Held> {
    let state = match (saved.live, saved.over) {
        (Some(live), _) => State::Live(Box::new(restore_live(live)?)),
        (None, Some(ended)) => State::Over(ended),
        (None, None) => bail!("it is neither live nor over"),
    };
    Ok(Held {
        key: saved.key,
        started: saved.started,
        state,
    })
}

fn restore_live(saved: SavedLive) -> anyhow::Result<Live> {
    let file = |fd: Option<RawFd>| fd.map(sys::adopt).transpose().map(|fd| fd.map(File::from));
    let capture_file: OwnedFd = sys::adopt(saved.capture_file)?;
    Ok(Live {
        launch: saved.launch,
        begun: saved.begun,
        process: match saved.process {
            SavedProcess::Own { pidfd } => Process::Own(sys::adopt(pidfd)?),
            SavedProcess::Shared { line, caller } => Process::Shared {
                line: line.map(sys::adopt).transpose()?.map(Line::from),
                caller,
            },
        },
        exec: file(saved.exec)?,
        fault: saved.fault.map(|error| (error, saved.scarce)),
        out: file(saved.out)?,
        err: file(saved.err)?,
        capture: Capture::restore(capture_file, saved.capture),
        notices: saved.notices.map(Notices::restore).transpose()?,
        group: saved.group,
        exit: saved.exit,
        empty: false,
        interrupted: saved.interrupted,
        unrecorded: false,
        used: cgroup::Counted::default(),
        looks: 0,
    })
}
