//! Where what a call says goes: to this process's own streams and notify socket,
//! or to those of one call among several.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

use sd_notify::NotifyState;

use crate::model::receipt::Receipt;
use crate::runner::line::Line;

use super::super::complaint;

/// The streams of a call.
#[derive(Debug)]
pub(super) struct Voice {
    out: File,
    err: File,
    line: Option<Rc<Line>>,
}

impl Voice {
    /// This process's own.
    pub(super) fn own() -> io::Result<Self> {
        Ok(Self {
            out: io::stdout().as_fd().try_clone_to_owned()?.into(),
            err: io::stderr().as_fd().try_clone_to_owned()?.into(),
            line: None,
        })
    }

    /// Those of one call among several.
    pub(super) fn of(out: OwnedFd, err: OwnedFd, line: Rc<Line>) -> Self {
        Self {
            out: out.into(),
            err: err.into(),
            line: Some(line),
        }
    }

    /// Prints a part of the answer.
    pub(super) fn print(&self, words: &str) -> io::Result<()> {
        (&self.out).write_all(words.as_bytes())
    }

    /// One line on standard error; when even that is closed, nobody is
    /// listening.
    pub(super) fn complain(&self, message: &str) {
        drop((&self.err).write_all(complaint(message).as_bytes()));
    }

    /// Says how it stands, where it can.
    pub(super) fn status(&self, text: &str) {
        self.say(&format!("STATUS={text}"));
    }

    /// Tells the daemon what the call came to.
    pub(super) fn hand_over(&self, receipt: &Receipt) {
        let text = serde_json::to_string(receipt).unwrap_or_default();
        self.say(&format!("X_RECEIPT={text}"));
    }

    /// Says a word of `sd_notify`.
    pub(super) fn say(&self, word: &str) {
        let said = match &self.line {
            Some(line) => line.say(word),
            None => sd_notify::notify(&[NotifyState::Custom(word)]),
        };
        if let Err(error) = said {
            tracing::debug!(%error, "a call cannot say how it stands");
        }
    }
}
