//! A pretended terminal with a program of ours in it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::bed::Bed;

/// Longest wait for anything that must appear.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Terminal {
    child: Child,
    keys: File,
    slave: OwnedFd,
    pieces: Receiver<Vec<u8>>,
    /// All that has been written to it.
    pub(crate) seen: String,
}

impl Terminal {
    /// Runs the program with these arguments, so many columns wide.
    pub(crate) fn start(
        bed: &Bed,
        (columns, rows): (u16, u16),
        env: &[(&str, &str)],
        args: &[&str],
    ) -> Self {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("a terminal");
        let end = || Stdio::from(pty.slave.try_clone().expect("descriptor"));
        // With a session of its own, so that it is the program's terminal.
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_taskdaemon")])
            .args(args)
            .env(
                "TASKDAEMON_HOST",
                format!("unix:{}", bed.socket().display()),
            )
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .env_remove("VISUAL")
            .stdin(end())
            .stdout(end())
            .stderr(end());
        for (name, value) in env {
            command.env(name, value);
        }
        let child = command.spawn().expect("start");
        let mut output = File::from(pty.master.try_clone().expect("descriptor"));
        let (sender, pieces) = sync_channel(1024);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keys: File::from(pty.master),
            slave: pty.slave,
            pieces,
            seen: String::new(),
        }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys");
    }

    /// Takes the next piece of what is written; false when none comes.
    fn take(&mut self, wait: Duration) -> bool {
        let piece = self.pieces.recv_timeout(wait);
        if let Ok(bytes) = &piece {
            self.seen.push_str(&String::from_utf8_lossy(bytes));
        }
        piece.is_ok()
    }

    /// Waits until this is written, and forgets all up to its end.
    pub(crate) fn until(&mut self, text: &str) {
        let start = taskdaemon::clock::instant();
        while !self.seen.contains(text) {
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain for {text}: {}",
                self.seen.escape_debug()
            );
            self.take(Duration::from_millis(50));
        }
        let at = self.seen.find(text).expect("found") + text.len();
        self.seen.drain(..at);
    }

    /// Waits for the program's end and takes the rest.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let start = taskdaemon::clock::instant();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end: {}", self.seen);
            self.take(Duration::from_millis(20));
        };
        while self.take(Duration::from_millis(100)) {}
        status
    }

    /// Whether typing works as a shell expects it.
    pub(crate) fn is_as_before(&self) -> bool {
        let modes = tcgetattr(self.slave.as_fd()).expect("modes");
        modes
            .local_flags
            .contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }

    /// The process of the program itself, as the kernel shows it: `setsid`
    /// forks when it leads a process group.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        let own = self.child.id();
        let children = format!("/proc/{own}/task/{own}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let first = children.split(' ').next().and_then(|pid| pid.parse().ok());
        let own = i32::try_from(own).expect("pid");
        nix::unistd::Pid::from_raw(first.unwrap_or(own))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _gone = nix::sys::signal::kill(self.pid(), nix::sys::signal::SIGKILL).is_err();
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
