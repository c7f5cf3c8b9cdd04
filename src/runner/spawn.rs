//! Fork, become someone else, exec: what happens between a launch and the
//! task's first instruction.
//!
//! The parent's half: every string and number is prepared here before the
//! fork, and the pipe is read by which the child (`child.rs`) says what failed.
//! Decides nothing: `launch.rs` fills in the [`Plan`].
#![expect(
    unsafe_code,
    reason = "no safe wrapper forks into a cgroup; the block states why it is sound"
)]

use std::ffi::{CString, c_char, c_long};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::stat::{Mode, fchmod};

use super::words::Words;
use super::{child, sys};

/// A child to be, as plain data.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) argv: Words,
    pub(super) env: Words,
    /// Programs to try, in order.
    pub(super) paths: Words,
    pub(super) cwd: CString,
    /// Go to `/` when `cwd` cannot be entered.
    pub(super) cwd_optional: bool,
    /// Standard input, output and error; numbers above 2.
    pub(super) stdio: [BorrowedFd<'a>; 3],
    /// Directory of the cgroup to be born in.
    pub(super) cgroup: Option<BorrowedFd<'a>>,
    /// Whom to become; who the runner is when absent.
    pub(super) become_user: Option<Become<'a>>,
    pub(super) umask: u32,
    /// Soft and hard limit of open files to give back.
    pub(super) files: (u64, u64),
    /// Undo the runner's own protection from the OOM killer.
    pub(super) reset_oom: bool,
    /// End with the parent, whose pid this is.
    pub(super) die_with: Option<i32>,
    /// The pipe of the commit that the program must not begin before.
    pub(super) commit: Option<BorrowedFd<'a>>,
    /// The parent has no other: it may wait for this one to reach its program.
    pub(super) alone: bool,
}

/// The numbers of a user.
#[derive(Debug, Clone, Copy)]
pub(super) struct Become<'a> {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: &'a [u32],
    /// Capabilities to take out of the bounding set, as bits.
    pub(super) drop_bounding: u64,
}

/// A child that is on its way to `exec`.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// Closed by a successful `exec`; otherwise brings a [`Fault`].
    pub(super) exec: File,
}

/// Steps that can fail in the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Cgroup = 1,
    Session,
    Stdio,
    Files,
    Groups,
    Gid,
    Uid,
    Capabilities,
    StillRoot,
    Chdir,
    NoNewPrivs,
    ParentGone,
    Exec,
    Interpreter,
    Commit,
}

/// Why a child never became the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) step: Step,
    pub(super) errno: Errno,
}

/// Bytes of a fault on the pipe: the step, and the error's number.
pub(super) const FAULT_LEN: usize = 5;

impl Step {
    const ALL: [Self; 15] = [
        Self::Cgroup,
        Self::Session,
        Self::Stdio,
        Self::Files,
        Self::Groups,
        Self::Gid,
        Self::Uid,
        Self::Capabilities,
        Self::StillRoot,
        Self::Chdir,
        Self::NoNewPrivs,
        Self::ParentGone,
        Self::Exec,
        Self::Interpreter,
        Self::Commit,
    ];
}

/// What the pipe of a child says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Not there yet.
    Wait,
    /// The program runs.
    Runs,
    /// It never will.
    Failed(Fault),
}

/// Reads a child's pipe.
pub(super) fn hear(exec: &mut File) -> Word {
    let mut bytes = [0; FAULT_LEN];
    match exec.read(&mut bytes) {
        Ok(FAULT_LEN) => {
            let [step, errno @ ..] = bytes;
            let step = Step::ALL.into_iter().find(|known| *known as u8 == step);
            Word::Failed(Fault {
                step: step.unwrap_or(Step::Exec),
                errno: Errno::from_raw(i32::from_ne_bytes(errno)),
            })
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Word::Wait,
        Ok(_) | Err(_) => Word::Runs,
    }
}

/// Everything the child touches, fixed before the fork.
pub(super) struct Prepared<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) argv: Vec<*const c_char>,
    pub(super) env: Vec<*const c_char>,
    pub(super) fault: RawFd,
    /// Where to write oneself into the cgroup, when not born in it.
    pub(super) join: Option<RawFd>,
}

/// A pipe whose reading end never blocks the runner.
pub(super) fn pipe(for_others: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let made = nix::unistd::pipe2(OFlag::O_CLOEXEC).and_then(|(read, write)| {
        nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        if for_others {
            // It belongs to the runner's user; without this the task could not
            // open /dev/stdout, which names it again.
            fchmod(&write, Mode::from_bits_truncate(0o622))?;
        }
        Ok((read, write))
    });
    made.map_err(io::Error::from)
}

/// Starts the child. It is born in its cgroup where the kernel can do that,
/// and joins it before anything else where not.
pub(super) fn spawn(plan: &Plan<'_>) -> io::Result<Child> {
    let (exec, fault) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let mut prepared = Prepared {
        plan,
        argv: plan.argv.pointers(),
        env: plan.env.pointers(),
        fault: fault.as_raw_fd(),
        join: None,
    };
    let born = match clone_into(&prepared, plan.cgroup) {
        Err(error) if plan.cgroup.is_some() && cannot(&error) => {
            prepared.join = plan.cgroup.map(|group| group.as_raw_fd());
            clone_into(&prepared, None)
        }
        other => other,
    };
    let (pid, pidfd) = born?;
    drop(fault);
    if plan.alone {
        give_way(&exec);
    }
    Ok(Child {
        pid,
        pidfd,
        exec: File::from(exec),
    })
}

/// Longest time in milliseconds that a child is waited for.
const WAY: u16 = 1;

/// Sleeps until a child has reached its program or failed, and no longer than
/// that short time, since its directory or program may be on a disk that does
/// not answer. Each page that is written to meanwhile would be copied first,
/// and the child would wait for this process's processor.
fn give_way(exec: &OwnedFd) {
    let mut fds = [PollFd::new(exec.as_fd(), PollFlags::POLLIN)];
    // However this ends, the loop reads the pipe when its turn comes.
    poll(&mut fds, WAY).ok();
}

/// Whether an error means that the kernel does not know the call or the flag.
fn cannot(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::EINVAL | libc::E2BIG | libc::EPERM)
    )
}

/// Forks. Without a cgroup this is the older call, which more kernels and
/// system call filters allow.
fn clone_into(
    prepared: &Prepared<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    // SAFETY: no memory is shared with the child (no CLONE_VM), so it is a
    // plain fork: it gets a copy of this thread and never returns from
    // `child`. The argument block lives until the call is over, and pidfd
    // points to a variable of the size the kernel writes.
    let pid = unsafe {
        match cgroup {
            Some(group) => {
                let mut args: libc::clone_args = std::mem::zeroed();
                args.flags = (libc::CLONE_PIDFD as u64) | 0x2_0000_0000;
                args.pidfd = (&raw mut pidfd) as u64;
                args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
                args.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
                libc::syscall(
                    libc::SYS_clone3,
                    &raw mut args,
                    size_of::<libc::clone_args>(),
                )
            }
            None => libc::syscall(
                libc::SYS_clone,
                c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD),
                0,
                &raw mut pidfd,
                0,
                0,
            ),
        }
    };
    match i32::try_from(pid) {
        Ok(0) => child::child(prepared),
        Ok(pid) if pid > 0 => Ok((pid, sys::owned(c_long::from(pidfd))?)),
        _ => Err(io::Error::last_os_error()),
    }
}
