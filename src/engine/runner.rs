//! A runner, and what is true of live attempts when it comes.
//!
//! The runner names every attempt it holds. Whatever else the store thinks is
//! live either never reached this very runner, and is launched again under the
//! same number, or was held by one that is gone, and is lost. Attempts with a
//! runner of their own are none of its business: see `profile.rs`.

use std::collections::HashSet;

use crate::model::attempt::{AttemptKey, Ended};
use crate::model::task::{Event, State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::effect::Effect;

/// A runner as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerUp {
    /// Name of the runner's life.
    pub instance: String,
    /// The kernel's boot id.
    pub boot: String,
    /// Version of its program.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// What it can enforce.
    pub abilities: Abilities,
    /// The file by which it judges as whom tasks may run, where it does.
    pub policy: Option<String>,
    /// Attempts it holds, live or waiting for acknowledgement.
    pub held: Vec<AttemptKey>,
}

/// What the connected runner can enforce.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one answer per kernel feature"
)]
pub struct Abilities {
    /// A cgroup per attempt.
    pub cgroup: bool,
    /// Memory limits.
    pub memory: bool,
    /// CPU limits.
    pub cpu: bool,
    /// Process number limits.
    pub pids: bool,
    /// Tasks as other users.
    pub switch_user: bool,
    /// Attempts can be frozen and thawed.
    pub freeze: bool,
}

impl<S: Store> Engine<S> {
    pub(super) fn runner_up(&mut self, runner: RunnerUp, now: Time) -> Result<(), store::Error> {
        self.turned.effects.push(Effect::Attach);
        failpoint!("engine/runner/up");
        let mut strangers: HashSet<AttemptKey> = runner.held.iter().copied().collect();
        for attempt in self.sound(now, S::live)? {
            if attempt.is_alone() {
                continue;
            }
            let held = strangers.remove(&attempt.key);
            let Some(task) = self.sound(now, |store| store.task(attempt.key.task))? else {
                continue;
            };
            if held {
                self.ask_again(&task);
                self.agents_task_runs(attempt.key, attempt.started.as_ref(), now)?;
            } else if attempt.runner != runner.instance {
                self.lose(attempt.key, now)?;
            } else if task.state == State::Stopping {
                // Never launched, and not wanted any more.
                self.lose(attempt.key, now)?;
            } else {
                let launch = self.launch(&task, now)?;
                self.turned.effects.push(launch);
            }
        }
        // Held by the runner and not live here: ended and recorded, or of a
        // store that is no more. Its report follows and is acknowledged; what
        // still runs must not.
        for key in &strangers {
            self.turned.effects.push(Effect::Kill(*key));
        }
        self.strangers = strangers;
        self.runner = Some(std::sync::Arc::new(runner));
        self.hungry = true;
        Ok(())
    }

    /// Asks a runner for what may have been asked while no one was listening.
    /// All of it may be asked twice.
    pub(super) fn ask_again(&mut self, task: &Task) {
        let key = task.attempt_key();
        self.turned.effects.extend(match task.state {
            State::Stopping => vec![Effect::Terminate(key), Effect::Thaw(key)],
            State::Paused => vec![Effect::Freeze(key)],
            State::Running => vec![Effect::Thaw(key)],
            State::Blocked
            | State::Scheduled
            | State::Queued
            | State::Succeeded
            | State::Failed
            | State::Cancelled
            | State::Skipped
            | State::Expired => vec![],
        });
    }

    /// Ends a live attempt that nobody holds any more.
    pub(super) fn lose(&mut self, key: AttemptKey, now: Time) -> Result<(), store::Error> {
        let Some(task) = self.sound(now, |store| store.task(key.task))? else {
            return Ok(());
        };
        // An attempt that is live in its own row and not in its task's cannot
        // be: both change in one transaction. Should it be, it stays visible.
        let _moved = self.advance(
            task,
            Event::Ended {
                key,
                started: None,
                ended: Ended::lost(now),
            },
            None,
            now,
        )?;
        Ok(())
    }
}
