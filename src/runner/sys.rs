//! Kernel calls that no safe wrapper offers: descriptors beside messages,
//! signals and waiting by pidfd, and taking over descriptors after `execve`.
//!
//! With `spawn.rs` the only place of `unsafe` in this room; each call here is
//! a thin, safe function. Nothing is decided.
#![expect(
    unsafe_code,
    reason = "raw kernel interfaces without a safe wrapper; each block states why it is sound"
)]

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, recvmsg};

/// Most descriptors one message brings.
const FDS_MAX: usize = 8;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Code(i32),
    Signal(i32),
}

/// What one read from a stream brought.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) bytes: usize,
    pub(super) fds: Vec<OwnedFd>,
    /// Descriptors were lost: this process has too many open.
    pub(super) lost: bool,
}

/// Reads bytes and the descriptors that came with them.
pub(super) fn receive(stream: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = nix::cmsg_space!([RawFd; FDS_MAX]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message: RecvMsg<'_, '_, ()> = recvmsg(
        stream.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
    )?;
    let mut received = Received {
        bytes: message.bytes,
        fds: Vec::new(),
        lost: message.flags.contains(MsgFlags::MSG_CTRUNC),
    };
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just made these descriptors for this
            // process, so nothing else owns them.
            let owned = fds
                .into_iter()
                .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            received.fds.extend(owned);
        }
    }
    Ok(received)
}

/// A message of a datagram socket, as it was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagram {
    /// How much of it is in the buffer.
    pub(super) bytes: usize,
    /// Who sent it, by the kernel's word; 0 for a process that has no number
    /// here.
    pub(super) pid: i32,
    pub(super) uid: u32,
    /// It brings descriptors.
    pub(super) descriptors: bool,
}

/// Looks at the next message of a datagram socket that asked for credentials,
/// and leaves it there with the descriptors it brings.
pub(super) fn look_at_datagram(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    // Room for the credentials, which come first, and not for one descriptor:
    // the kernel says that there was more, and keeps it.
    let mut beside = [0_u64; 4];
    // SAFETY: a header of zeroes is empty; it is made to point to the two local
    // buffers with their own lengths, which live until the call is over. What
    // the kernel wrote beside the message is read through its own macros, and
    // only if it says that it wrote credentials.
    unsafe {
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        let mut head: libc::msghdr = std::mem::zeroed();
        head.msg_iov = &raw mut part;
        head.msg_iovlen = 1;
        head.msg_control = beside.as_mut_ptr().cast();
        head.msg_controllen = size_of_val(&beside);
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let bytes = libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut head, flags);
        let Ok(bytes) = usize::try_from(bytes) else {
            return Err(io::Error::last_os_error());
        };
        let first = libc::CMSG_FIRSTHDR(&raw const head);
        let is_known = !first.is_null()
            && (*first).cmsg_level == libc::SOL_SOCKET
            && (*first).cmsg_type == libc::SCM_CREDENTIALS;
        if !is_known {
            return Err(io::Error::other("a message without its sender"));
        }
        let sender: libc::ucred = std::ptr::read_unaligned(libc::CMSG_DATA(first).cast());
        Ok(Datagram {
            bytes,
            pid: sender.pid,
            uid: sender.uid,
            descriptors: head.msg_flags & libc::MSG_CTRUNC != 0,
        })
    }
}

/// Takes over a descriptor that was left open for this program across
/// `execve`, and closes it to the next one.
pub(super) fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on a number is sound whatever the number; a closed one is
    // an error.
    let done = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the caller names each number once, from the
    // list the program before `execve` gave up ownership of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a descriptor that names a process for good.
pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers and returns a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(fd)
}

/// Sends a signal to the process a descriptor names.
pub(super) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open by its type, no signal information is
    // passed, and the kernel checks the rest.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends a signal to a process group whose leader is not reaped yet, so that
/// its number cannot mean a stranger.
pub(super) fn signal_group(leader: i32, signal: i32) {
    if leader > 1 {
        // SAFETY: sends a signal, touches no memory. That the group is gone is
        // what the caller wants, so the answer says nothing.
        unsafe { libc::kill(-leader, signal) };
    }
}

/// Reaps the child a descriptor names, if it has ended.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<Status>> {
    let id = libc::id_t::try_from(pidfd.as_raw_fd()).unwrap_or(libc::id_t::MAX);
    Ok(wait(libc::P_PIDFD, id, libc::WEXITED)?.map(|(_, status)| status))
}

/// Names a child that has ended, without reaping it.
pub(super) fn ended_child() -> io::Result<Option<i32>> {
    let seen = wait(libc::P_ALL, 0, libc::WEXITED | libc::WNOWAIT)?;
    Ok(seen.map(|(pid, _)| pid))
}

/// Reaps a child by number.
pub(super) fn reap_pid(pid: i32) -> io::Result<()> {
    let id = libc::id_t::try_from(pid).unwrap_or_default();
    wait(libc::P_PID, id, libc::WEXITED).map(drop)
}

fn wait(
    kind: libc::idtype_t,
    id: libc::id_t,
    options: libc::c_int,
) -> io::Result<Option<(i32, Status)>> {
    // SAFETY: siginfo_t is plain data for which zeroes are valid; the kernel
    // fills it, or leaves it as it is when no child has ended.
    let info = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(kind, id, &raw mut info, options | libc::WNOHANG) < 0 {
            return Err(io::Error::last_os_error());
        }
        info
    };
    // SAFETY: waitid filled the fields of a child's end, or all are zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let status = if info.si_code == libc::CLD_EXITED {
        Status::Code(status)
    } else {
        Status::Signal(status)
    };
    Ok(Some((pid, status)))
}

/// Reads an extended attribute of a few bytes.
pub(super) fn attribute(path: &std::ffi::CStr, name: &std::ffi::CStr) -> Option<Vec<u8>> {
    let mut value = [0_u8; 16];
    // SAFETY: both names end in NUL by their type, and the kernel writes at
    // most the given length into a buffer of that length.
    let len = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    usize::try_from(len)
        .ok()
        .and_then(|len| value.get(..len))
        .map(<[u8]>::to_vec)
}

/// Sets every signal that this process was told to ignore back to its default,
/// but for the ones its own runtime uses, so that children need not.
pub(super) fn reset_dispositions() {
    for signal in 1..=libc::SIGRTMAX() {
        if matches!(
            signal,
            libc::SIGKILL | libc::SIGSTOP | libc::SIGSEGV | libc::SIGBUS | libc::SIGPIPE
        ) {
            continue;
        }
        let default = [0_u64; 4];
        // SAFETY: a kernel sigaction of all zeroes is the default action; the
        // raw call reaches the two signals that libc keeps for threads, of
        // which there are none. A refusal changes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8,
            )
        };
    }
}

/// Owns the descriptor a raw call returned, or reads its error.
pub(super) fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just made it for this process.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
