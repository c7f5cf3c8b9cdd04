//! What tasks say themselves: each appends one line to a file when it runs.
//!
//! The daemon has no part in this; it is what its own figures are judged by.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

/// The file of all lines.
#[derive(Debug)]
pub(crate) struct Marks(PathBuf);

/// What the lines say.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How often each task ran, by its number.
    times: Vec<u8>,
    /// Lines of an attempt that was not a task's first.
    pub(crate) again: u64,
}

impl Marks {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.join("marks"))
    }

    /// A command that writes its line and ends. A write of so few bytes to a
    /// file that is only appended to is whole or not there.
    pub(crate) fn command(&self) -> Value {
        let line = format!(
            "echo $TASKDAEMON_TASK_ID $TASKDAEMON_ATTEMPT >>'{}'",
            self.0.display()
        );
        json!(["/bin/sh", "-c", line])
    }

    /// All that was written.
    pub(crate) fn read(&self) -> anyhow::Result<Ran> {
        let file = std::fs::File::open(&self.0).context("no task has left a mark")?;
        let mut ran = Ran {
            times: Vec::new(),
            again: 0,
        };
        for line in std::io::BufReader::new(file).lines() {
            let line = line?;
            let (id, attempt) = line.split_once(' ').with_context(|| odd(&line))?;
            let id: usize = id.parse().with_context(|| odd(&line))?;
            let attempt: u32 = attempt.parse().with_context(|| odd(&line))?;
            if ran.times.len() <= id {
                ran.times.resize(id + 1, 0);
            }
            if let Some(times) = ran.times.get_mut(id) {
                *times = times.saturating_add(1);
            }
            ran.again += u64::from(attempt != 1);
        }
        Ok(ran)
    }
}

fn odd(line: &str) -> String {
    format!("not a line of a task: {line:?}")
}

impl Ran {
    /// Tasks that ran.
    pub(crate) fn tasks(&self) -> usize {
        self.times.iter().filter(|times| **times > 0).count()
    }

    /// Tasks that ran more than once.
    pub(crate) fn doubled(&self) -> usize {
        self.times.iter().filter(|times| **times > 1).count()
    }

    /// How many of these never ran.
    pub(crate) fn lost(&self, told: impl Iterator<Item = u64>) -> anyhow::Result<u64> {
        let mut lost = 0;
        for id in told {
            let times = self.times.get(usize::try_from(id)?).copied();
            lost += u64::from(times.unwrap_or_default() == 0);
        }
        ensure!(self.tasks() > 0, "nothing ran");
        Ok(lost)
    }
}
