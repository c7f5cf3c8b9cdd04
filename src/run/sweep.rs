//! Capture files go after the rows that spoke of them: removed by a thread of
//! its own, so that no launch waits for it.
//!
//! What is lost between a commit and the removal, by a crash or because too
//! much waited here, is found by the look through the whole directory at the
//! next start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};

use tokio::sync::oneshot;

use crate::engine::command::Command;
use crate::engine::record::Ask;
use crate::model::attempt::AttemptKey;
use crate::model::capture::file_name;
use crate::model::id::TaskId;

/// Files that may wait for their removal.
const WAITING: usize = 100_000;

/// Takes files to be removed.
pub(super) struct Sweeper(SyncSender<AttemptKey>);

impl Sweeper {
    /// Starts the thread over the directory of capture files.
    pub(super) fn start(output: PathBuf, commands: SyncSender<Command>) -> std::io::Result<Self> {
        let (files, waiting) = mpsc::sync_channel(WAITING);
        std::thread::Builder::new()
            .name("sweep".to_owned())
            .spawn(move || {
                if let Err(error) = look_through(&output, &commands) {
                    tracing::warn!("cannot look through {}: {error}", output.display());
                }
                drop(commands);
                for key in waiting {
                    failpoint!("run/erase/before");
                    remove(&output.join(file_name(key)));
                }
            })?;
        Ok(Self(files))
    }

    /// One that removes nothing.
    #[cfg(test)]
    pub(super) fn idle() -> Self {
        Self(mpsc::sync_channel(1).0)
    }

    /// Removes an attempt's file, soon.
    pub(super) fn erase(&self, key: AttemptKey) {
        if self.0.try_send(key).is_err() {
            tracing::debug!("the output of {key} is removed at the next start");
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        // Never made, or gone already.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => {
            tracing::warn!("cannot remove {}: {error}", path.display());
            return;
        }
    }
    // The last one of a thousand tasks takes their directory along; it stays
    // while there is anything in it.
    if let Some(dir) = path.parent() {
        let _stays = fs::remove_dir(dir).is_err();
    }
}

/// Removes every file whose attempt is not known, or is known to have none.
fn look_through(output: &Path, commands: &SyncSender<Command>) -> std::io::Result<()> {
    for dir in fs::read_dir(output)? {
        let dir = dir?.path();
        let Some(first) = number(&dir) else { continue };
        let mut files = Vec::new();
        for file in fs::read_dir(&dir)? {
            let file = file?.path();
            files.extend(attempt(&file).map(|attempt| (attempt, file)));
        }
        // Asked after the files were seen: a task is known before its file is.
        let Some(known) = known(commands, first) else {
            return Ok(());
        };
        let gone = files
            .iter()
            .filter(|(attempt, _)| known.binary_search(attempt).is_err());
        for (_, file) in gone {
            failpoint!("run/sweep/before");
            remove(file);
        }
    }
    Ok(())
}

/// The attempts of a thousand tasks whose output is kept; none when the engine
/// has ended.
fn known(commands: &SyncSender<Command>, first: i64) -> Option<Vec<(TaskId, u32)>> {
    let (reply, answer) = oneshot::channel();
    let ask = Ask::WithOutput {
        first: TaskId(first),
        last: TaskId(first + 999),
        reply,
    };
    commands.send(Command::Record(ask)).ok()?;
    answer.blocking_recv().ok()?.ok()
}

fn number(path: &Path) -> Option<i64> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The attempt that a file is named after.
fn attempt(path: &Path) -> Option<(TaskId, u32)> {
    let (task, number) = path.file_name()?.to_str()?.split_once('.')?;
    Some((TaskId(task.parse().ok()?), number.parse().ok()?))
}
