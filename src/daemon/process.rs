//! What a process does to become a daemon by itself: leave its terminal, go to
//! the background, write to files, and be the first process of a container.
//!
//! All of it happens before any thread exists, since `fork` copies one thread
//! only. Where a service manager starts the daemon nothing of this is used.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, chown, pipe2, setsid};

use crate::clock;

/// How long a container's first process waits, when the daemon has ended, for
/// the others to end after SIGTERM.
const LAST: Duration = Duration::from_secs(5);
/// What `kill(2)` was not used for: the terminal's own signals.
const FROM_KERNEL: i32 = 0x80;

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    /// The one that was called; it reads what the daemon says.
    Caller(OwnedFd),
    /// The one in the background; it says it here.
    Daemon(OwnedFd),
}

/// Goes to the background: a process of a session of its own that can never
/// have a terminal, whose parent is the first process.
///
/// # Errors
/// The system refuses, or threads exist already.
pub fn detach() -> io::Result<Side> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    if let Some(between) = fork()? {
        drop(writer);
        // It ends at once; what it leaves behind is not ours to wait for.
        wait_for(between)?;
        return Ok(Side::Caller(reader));
    }
    drop(reader);
    setsid()?;
    // Only the leader of a session can be given a terminal: it goes.
    if fork()?.is_some() {
        end(0);
    }
    close_all_but(writer.as_fd())?;
    Ok(Side::Daemon(writer))
}

/// Leaves a process behind that is nobody's child here: true in that one. The
/// caller stays what it is, and may become another program.
///
/// # Errors
/// The system refuses, or threads exist already.
pub fn leave_behind() -> io::Result<bool> {
    if let Some(between) = fork()? {
        wait_for(between)?;
        return Ok(false);
    }
    if fork()?.is_some() {
        end(0);
    }
    Ok(true)
}

/// Closes what the caller had open and handed down by mistake, such as the
/// lock of an installation that started us: it would be held for ever.
#[expect(unsafe_code, reason = "close_range is not in std")]
fn close_all_but(kept: BorrowedFd<'_>) -> io::Result<()> {
    const FIRST: u32 = 3;
    let kept = kept.as_raw_fd().cast_unsigned();
    for (first, last) in [(FIRST, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        // SAFETY: takes numbers. This process has opened nothing yet but the
        // pipe, so no descriptor that it owns is closed.
        if first <= last && unsafe { libc::close_range(first, last, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Forks; the child's number in the parent.
#[expect(unsafe_code, reason = "fork is unsafe where threads exist")]
fn fork() -> io::Result<Option<Pid>> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("threads exist already"));
    }
    // SAFETY: this is the only thread, so the child has all that the parent has
    // and no lock is held by a thread that it lacks.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Ends a process that was only needed in between, without the exit handlers
/// and buffers that belong to the one it was copied from.
#[expect(unsafe_code, reason = "_exit is not in std")]
fn end(code: i32) -> ! {
    // SAFETY: ends the process, touches no memory.
    unsafe { libc::_exit(code) }
}

/// Has a program begin with no signal blocked, however this thread has it.
#[expect(unsafe_code, reason = "std hands the mask of the thread down")]
pub(super) fn unblock_signals(command: &mut Command) {
    let clear = || {
        let none = SigSet::empty();
        Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&none), None)?)
    };
    // SAFETY: between fork and exec it makes one system call, allocates nothing
    // and takes no lock.
    unsafe { command.pre_exec(clear) };
}

fn wait_for(child: Pid) -> io::Result<()> {
    loop {
        match waitpid(child, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a daemon does not take over from whoever started it.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The directory that it keeps busy.
    pub directory: PathBuf,
    /// Permissions that new files do not get.
    pub umask: u32,
}

impl Surroundings {
    /// Puts them in place of the caller's.
    ///
    /// # Errors
    /// There is no such directory, or it is closed to this user.
    pub fn enter(&self) -> io::Result<()> {
        umask(Mode::from_bits_truncate(self.umask));
        std::env::set_current_dir(&self.directory)
            .map_err(|error| named(&self.directory, "enter", &error))
    }
}

/// The files that standard output and standard error go to.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// For standard output.
    pub stdout: Option<PathBuf>,
    /// For standard error, where the log goes.
    pub stderr: Option<PathBuf>,
    /// The user that has to write there too.
    pub owner: Option<Uid>,
}

impl Output {
    /// Whether there is a file.
    #[must_use]
    pub const fn is_some(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    /// Opens the files, and what they were opened before under the same names
    /// is left behind: whoever moved them away gets new ones.
    ///
    /// # Errors
    /// A file cannot be opened; then that stream stays as it is.
    pub fn open(&self) -> io::Result<()> {
        if let Some(path) = &self.stdout {
            nix::unistd::dup2_stdout(&self.append(path)?)?;
        }
        if let Some(path) = &self.stderr {
            nix::unistd::dup2_stderr(&self.append(path)?)?;
        }
        Ok(())
    }

    /// Its directory may belong to a user that is not to be trusted with what
    /// this one can write to: no link is followed.
    fn append(&self, path: &Path) -> io::Result<File> {
        let open = || -> io::Result<File> {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o640)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path)?;
            let meta = file.metadata()?;
            if meta.is_file() && meta.nlink() > 1 {
                return Err(io::Error::other("it has another name (hard link)"));
            }
            if let Some(owner) = self.owner
                && meta.is_file()
                && meta.uid() != owner.as_raw()
                && meta.len() == 0
            {
                chown(path, Some(owner), None)?;
            }
            Ok(file)
        };
        open().map_err(|error| named(path, "open", &error))
    }
}

fn named(path: &Path, act: &str, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot {act} {}: {error}", path.display()),
    )
}

/// Leaves the three standard streams to nobody: what was there may be a
/// terminal or a pipe that somebody waits for the end of.
///
/// # Errors
/// There is no `/dev/null`.
pub fn close_standard_streams() -> io::Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Takes the pipe to the parent from where it was put: standard output, which
/// then goes to nobody.
///
/// # Errors
/// Standard output is no pipe.
pub fn take_pipe() -> io::Result<OwnedFd> {
    let stdout = io::stdout();
    let kind = nix::sys::stat::fstat(&stdout)?.st_mode & libc::S_IFMT;
    if kind != libc::S_IFIFO {
        return Err(io::Error::other("standard output is no pipe"));
    }
    let pipe = stdout.as_fd().try_clone_to_owned()?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(pipe)
}

/// Leaves the daemon to a child where this is a container's first process.
///
/// The parent then does what only a first process can: it passes signals on and
/// reaps whoever was left over. Returns the daemon's exit code when all is
/// over; `None` in the child, and wherever this is no first process.
///
/// # Errors
/// The system refuses.
pub fn be_init() -> io::Result<Option<u8>> {
    if std::process::id() != 1 {
        return Ok(None);
    }
    let all = SigSet::all();
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before))?;
    let Some(daemon) = fork()? else {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        return Ok(None);
    };
    let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    loop {
        if let Some(code) = reap(daemon) {
            let told = kill(Pid::from_raw(-1), Signal::SIGTERM);
            if told.is_ok() {
                see_out(&signals);
            }
            return Ok(Some(code));
        }
        wait(&signals, PollTimeout::NONE);
        while let Ok(Some(info)) = signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            // The terminal tells the whole group, the daemon among it.
            if number != libc::SIGCHLD && info.ssi_code != FROM_KERNEL {
                let signal = Signal::try_from(number).ok();
                // One that has just ended is reaped next.
                let _gone = kill(daemon, signal).is_err();
            }
        }
    }
}

/// Reaps all that have ended. The daemon's code, if it is among them; a signal
/// counts as a shell counts it.
fn reap(daemon: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == daemon => {
                code = Some(u8::try_from(status).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == daemon => {
                code = Some(128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or(127)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
            Ok(_) | Err(_) => {}
        }
    }
}

/// Gives those that remain a moment to end; the kernel ends them with us.
fn see_out(signals: &SignalFd) {
    let end = clock::instant() + LAST;
    loop {
        let left = end.saturating_duration_since(clock::instant());
        let any = waitpid(None, Some(WaitPidFlag::WNOHANG));
        match any {
            Err(Errno::ECHILD) => return,
            Ok(WaitStatus::StillAlive) if left.is_zero() => return,
            Ok(WaitStatus::StillAlive) => {
                wait(
                    signals,
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
                );
                while let Ok(Some(_)) = signals.read_signal() {}
            }
            Ok(_) | Err(_) => {}
        }
    }
}

fn wait(signals: &SignalFd, limit: PollTimeout) {
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    // Interrupted or not: whoever asked looks again.
    let _looked_at = poll(&mut fds, limit).is_ok();
}
