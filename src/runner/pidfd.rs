//! A process held by a descriptor, so that its number cannot come to mean
//! another one meanwhile.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::sys;

/// A process of this host, alive or not.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    fd: OwnedFd,
}

impl Process {
    /// The process that has this number now.
    ///
    /// # Errors
    /// There is none, or the kernel refuses.
    pub fn open(pid: i32) -> io::Result<Self> {
        let fd = sys::pidfd_open(pid)?;
        Ok(Self { pid, fd })
    }

    /// The number it has or had.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends it a signal. One that has ended gets none, without an error.
    ///
    /// # Errors
    /// This user may not.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match sys::pidfd_signal(self.fd.as_fd(), signal as i32) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            sent => sent,
        }
    }

    /// Waits until it has ended, and tells whether it did so in time.
    ///
    /// # Errors
    /// The kernel cannot wait.
    pub fn ends_within(&self, limit: Duration) -> io::Result<bool> {
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, limit) {
                Ok(ended) => return Ok(ended > 0),
                // Only a stop and a continue of this process come this way.
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
