//! What a daemon says to the process that started it, read from the pipe.
//!
//! The words are those of `sd_notify`, one a line, as `notify.rs` sends them:
//! a parent of ours and a service manager are told the same.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Longest line that is kept; the rest of a longer one is no word of ours.
const LINE_MAX: usize = 4096;

/// One thing said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It serves.
    Ready,
    /// It lives, and its engine turns.
    Alive,
    /// It needs so much time from now.
    Extend(Duration),
    /// How it is doing.
    Status(String),
    /// Its process.
    MainPid(i32),
    /// It is about to end, with this code.
    Exit(u8),
}

/// The reading end of the pipe.
#[derive(Debug)]
pub struct Words {
    pipe: File,
    rest: Vec<u8>,
}

impl Words {
    /// Reads without waiting.
    ///
    /// # Errors
    /// It cannot be set so.
    pub fn new(pipe: OwnedFd) -> io::Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            pipe: File::from(pipe),
            rest: Vec::new(),
        })
    }

    /// All that was said since the last call; `None` when the other end is
    /// closed and everything was read.
    pub fn heard(&mut self) -> Option<Vec<Word>> {
        let mut words = Vec::new();
        let mut buffer = [0; LINE_MAX];
        loop {
            match self.pipe.read(&mut buffer) {
                Ok(length) if length > 0 => self.take(&buffer[..length], &mut words),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(words),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return (!words.is_empty()).then_some(words),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], words: &mut Vec<Word>) {
        for byte in bytes {
            if *byte != b'\n' {
                if self.rest.len() < LINE_MAX {
                    self.rest.push(*byte);
                }
                continue;
            }
            words.extend(word(&String::from_utf8_lossy(&self.rest)));
            self.rest.clear();
        }
    }
}

impl AsFd for Words {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

fn word(line: &str) -> Option<Word> {
    let (name, value) = line.split_once('=')?;
    match name {
        "READY" => Some(Word::Ready),
        "WATCHDOG" => Some(Word::Alive),
        "STATUS" => Some(Word::Status(value.to_owned())),
        "EXTEND_TIMEOUT_USEC" => value
            .parse()
            .ok()
            .map(|usec| Word::Extend(Duration::from_micros(usec))),
        "MAINPID" => value.parse().ok().map(Word::MainPid),
        "EXIT_STATUS" => value.parse().ok().map(Word::Exit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn words_are_heard_whole_however_they_come() {
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        let mut words = Words::new(reader).expect("nonblocking");
        let mut writer = File::from(writer);
        assert_eq!(words.heard(), Some(vec![]), "nothing yet");
        writer.write_all(b"REA").expect("write");
        assert_eq!(words.heard(), Some(vec![]));
        let long = "x".repeat(3 * LINE_MAX);
        write!(
            writer,
            "DY=1\nSTATUS=a = b\n{long}\nSTRANGE=1\nWATCHDOG=1\n"
        )
        .expect("write");
        let status = Word::Status("a = b".to_owned());
        assert_eq!(words.heard(), Some(vec![Word::Ready, status, Word::Alive]));
        write!(
            writer,
            "EXTEND_TIMEOUT_USEC=5\nMAINPID=7\nEXIT_STATUS=78\nEXIT_STATUS=999\n"
        )
        .expect("write");
        drop(writer);
        let extend = Word::Extend(Duration::from_micros(5));
        assert_eq!(
            words.heard(),
            Some(vec![extend, Word::MainPid(7), Word::Exit(78)])
        );
        assert_eq!(words.heard(), None);
    }
}
