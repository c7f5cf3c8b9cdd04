//! The child between fork and exec: it becomes the task, or says why not.
//!
//! Only raw kernel calls on what the parent prepared, in the order that never
//! leaves the child with more rights than the task may have: session,
//! descriptors, groups, group, user, capabilities, directory, program.
#![expect(
    unsafe_code,
    reason = "a child between fork and exec may only make raw kernel calls; each block states why it is sound"
)]

use std::convert::Infallible;
use std::ffi::{CStr, c_long};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use nix::errno::Errno;

use super::spawn::{Become, FAULT_LEN, Fault, Plan, Prepared, Step};

/// The child's whole life before the program.
pub(super) fn child(prepared: &Prepared<'_>) -> ! {
    let fault = match become_program(prepared) {
        Ok(never) => match never {},
        Err(fault) => fault,
    };
    let mut bytes = [fault.step as u8; FAULT_LEN];
    if let Some(errno) = bytes.last_chunk_mut::<4>() {
        *errno = (fault.errno as i32).to_ne_bytes();
    }
    // SAFETY: writes a local buffer into an open pipe and ends the process
    // without running anything of the parent's.
    unsafe {
        libc::write(prepared.fault, bytes.as_ptr().cast(), FAULT_LEN);
        libc::_exit(127)
    }
}

/// Turns a kernel call's answer into the fault it means.
fn check(step: Step, answer: c_long) -> Result<c_long, Fault> {
    if answer < 0 {
        return Err(Fault {
            step,
            errno: Errno::last(),
        });
    }
    Ok(answer)
}

fn become_program(prepared: &Prepared<'_>) -> Result<Infallible, Fault> {
    let plan = prepared.plan;
    if let Some(group) = prepared.join {
        join_group(group)?;
    }
    if plan.reset_oom {
        reset_oom();
    }
    own_session()?;
    own_descriptors(plan)?;
    match &plan.become_user {
        Some(target) => {
            own_keyring()?;
            become_user(target)?;
        }
        None => stay_oneself()?,
    }
    last_settings(plan)?;
    if let Some(commit) = plan.commit {
        await_commit(commit.as_raw_fd())?;
    }
    run(prepared)
}

/// Sleeps until the commit that records this attempt is on disk. When the
/// daemon ends before, however it does, the pipe ends with it.
fn await_commit(pipe: RawFd) -> Result<(), Fault> {
    let mut seen = libc::pollfd {
        fd: pipe,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, which lives on this stack.
    while unsafe { libc::poll(&raw mut seen, 1, -1) } < 0 {
        if Errno::last() != Errno::EINTR {
            check(Step::Commit, -1)?;
        }
    }
    // A byte counts also when its writer is gone.
    if seen.revents & libc::POLLIN == 0 {
        return Err(Fault {
            step: Step::Commit,
            errno: Errno::EPIPE,
        });
    }
    Ok(())
}

/// Writes the child into its cgroup, for kernels where it is not born there.
fn join_group(group: RawFd) -> Result<(), Fault> {
    // SAFETY: constant strings ending in NUL, an open directory descriptor,
    // and a descriptor that only this child has.
    unsafe {
        let procs = libc::openat(
            group,
            c"cgroup.procs".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        check(Step::Cgroup, procs.into())?;
        let written = libc::write(procs, c"0".as_ptr().cast(), 1);
        check(Step::Cgroup, written as c_long)?;
        libc::close(procs);
    }
    Ok(())
}

/// Gives the task the kernel's default standing with the OOM killer. Not
/// fatal: what fails here leaves the task protected, not privileged.
fn reset_oom() {
    // SAFETY: constant strings ending in NUL and a descriptor of this child.
    unsafe {
        let file = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if file >= 0 {
            libc::write(file, c"0".as_ptr().cast(), 1);
            libc::close(file);
        }
    }
}

/// A session of its own, and signals as a fresh login has them.
fn own_session() -> Result<(), Fault> {
    // SAFETY: kernel calls on local data; an empty signal set is all zeroes,
    // and the runner handles no signal that exec does not reset.
    unsafe {
        check(Step::Session, libc::setsid().into())?;
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        let set = libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        check(Step::Session, set.into())?;
    }
    Ok(())
}

/// A session keyring of its own: tasks of different users would otherwise
/// share the runner's, and could read each other's keys. Made before the user
/// switch, so that it counts towards root's quota and not towards the user's.
/// A kernel or a filter without keyrings refuses this as it refuses the task.
fn own_keyring() -> Result<(), Fault> {
    // SAFETY: a number, and no name.
    let joined = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<libc::c_char>(),
        )
    };
    match check(Step::Session, joined) {
        Err(fault) if !matches!(fault.errno, Errno::ENOSYS | Errno::EPERM) => Err(fault),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Exactly descriptors 0 to 2, and the usual number of more to open.
fn own_descriptors(plan: &Plan<'_>) -> Result<(), Fault> {
    for (number, fd) in (0..).zip(&plan.stdio) {
        // SAFETY: the source is open and above 2, so no target overwrites a
        // later source.
        let copied = unsafe { libc::dup2(fd.as_raw_fd(), number) };
        check(Step::Stdio, copied.into())?;
    }
    let (soft, hard) = plan.files;
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: marks descriptors to be closed by exec, closes none now; the
    // limit is a local value. Older kernels than close_range have only the
    // runner's own care that every descriptor is opened so.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        check(
            Step::Files,
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit).into(),
        )?;
    }
    Ok(())
}

/// Groups, group, user, capabilities, in the one order that works, by raw
/// calls (libc's would look for other threads), and checked at the end.
fn become_user(target: &Become<'_>) -> Result<(), Fault> {
    // SAFETY: numbers, and a slice given with its own length.
    unsafe {
        check(
            Step::Groups,
            libc::syscall(
                libc::SYS_setgroups,
                target.groups.len(),
                target.groups.as_ptr(),
            ),
        )?;
        let gid = target.gid;
        check(Step::Gid, libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        for capability in 0..64 {
            if target.drop_bounding & (1 << capability) != 0 {
                let dropped = libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
                check(Step::Capabilities, dropped.into())?;
            }
        }
        let uid = target.uid;
        check(Step::Uid, libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    if target.uid == 0 {
        return Ok(());
    }
    drop_capabilities()
}

/// The runner's own user: root keeps what root has (it was started by hand for
/// that), anybody else keeps nothing beside the uid.
fn stay_oneself() -> Result<(), Fault> {
    // SAFETY: asks for a number.
    if unsafe { libc::getuid() } == 0 {
        return Ok(());
    }
    drop_capabilities()
}

/// Capabilities as the kernel reads them: version and process, then two
/// halves of three sets.
#[repr(C)]
struct CapHead {
    version: u32,
    pid: i32,
}

/// Empties every capability set, and makes sure that root is out of reach.
fn drop_capabilities() -> Result<(), Fault> {
    const VERSION_3: u32 = 0x2008_0522;
    let mut head = CapHead {
        version: VERSION_3,
        pid: 0,
    };
    let none = [0_u32; 6];
    // SAFETY: the layouts are the kernel's for version 3: a head, and two
    // blocks of three numbers; prctl and setresuid take numbers only.
    unsafe {
        // Kernels without ambient capabilities (before 4.3) are not served.
        let cleared = libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        );
        check(Step::Capabilities, cleared.into())?;
        // A sandbox may forbid the call that has nothing left to do.
        let mut held = [u32::MAX; 6];
        let got = libc::syscall(libc::SYS_capget, &raw mut head, held.as_mut_ptr());
        if got != 0 || held != none {
            check(
                Step::Capabilities,
                libc::syscall(libc::SYS_capset, &raw const head, none.as_ptr()),
            )?;
        }
        if libc::syscall(libc::SYS_setresuid, 0, 0, 0) == 0 {
            return Err(Fault {
                step: Step::StillRoot,
                errno: Errno::EPERM,
            });
        }
    }
    Ok(())
}

/// Mask, directory, no new privileges, and the tie to the parent where no
/// cgroup ends the task; after the user switch, which resets the last one.
fn last_settings(plan: &Plan<'_>) -> Result<(), Fault> {
    // SAFETY: strings end in NUL by their type; the rest are numbers.
    unsafe {
        libc::umask(plan.umask);
        if libc::chdir(plan.cwd.as_ptr()) < 0 {
            let fault = Fault {
                step: Step::Chdir,
                errno: Errno::last(),
            };
            if !plan.cwd_optional || libc::chdir(c"/".as_ptr()) < 0 {
                return Err(fault);
            }
        }
        let fixed = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        check(Step::NoNewPrivs, fixed.into())?;
        if let Some(parent) = plan.die_with {
            let tied = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            check(Step::ParentGone, tied.into())?;
            if libc::getppid() != parent {
                return Err(Fault {
                    step: Step::ParentGone,
                    errno: Errno::ESRCH,
                });
            }
        }
    }
    Ok(())
}

/// Tries the programs in order, as a shell's lookup does: what is not there is
/// passed over, what may not be run is remembered.
fn run(prepared: &Prepared<'_>) -> Result<Infallible, Fault> {
    let mut worst = Errno::ENOENT;
    let mut step = Step::Exec;
    for path in prepared.plan.paths.iter() {
        let errno = try_exec(path, prepared);
        if errno == Errno::ENOENT && there(path) {
            step = Step::Interpreter;
            break;
        }
        if errno == Errno::ENOENT || errno == Errno::ENOTDIR {
            continue;
        }
        worst = errno;
        if errno != Errno::EACCES {
            break;
        }
    }
    Err(Fault { step, errno: worst })
}

fn try_exec(path: &CStr, prepared: &Prepared<'_>) -> Errno {
    // SAFETY: path, arguments and environment end in NUL, the lists in a null
    // pointer, and all of them live in the parent's copied memory.
    unsafe { libc::execve(path.as_ptr(), prepared.argv.as_ptr(), prepared.env.as_ptr()) };
    Errno::last()
}

/// Whether the file itself exists, so that what is missing is its interpreter.
fn there(path: &CStr) -> bool {
    // SAFETY: the path ends in NUL by its type.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}
