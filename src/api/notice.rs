//! Files and directories that are watched, by inotify.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

/// Wakes when files change.
pub(super) struct Watch {
    inotify: Inotify,
    /// The same descriptor once more, as something that can be waited for. It
    /// is no pipe, but is waited for and read like one.
    events: Receiver,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let twin = inotify.as_fd().try_clone_to_owned()?;
        let events = Receiver::from_owned_fd_unchecked(twin)?;
        Ok(Self { inotify, events })
    }

    /// Watches a file or directory too; false when it is not there.
    pub(super) fn add(&self, path: &Path, flags: AddWatchFlags) -> bool {
        self.inotify.add_watch(path, flags).is_ok()
    }

    /// Returns when something changed since the last call.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            self.events.readable().await?;
            // What changed is found out by looking, not from the event.
            match self.events.try_read(&mut [0; 4096]) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
