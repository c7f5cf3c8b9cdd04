//! What the engine tells the log about attempts, once it is committed.
//!
//! A failure is news by default; starts and successes, of which there may be
//! thousands a second, are at `debug`.

use crate::model::attempt::{AttemptKey, Class, Outcome};
use crate::model::task::State;
use crate::telemetry::id;

/// Something that happened to an attempt.
#[derive(Debug)]
pub(super) enum News {
    /// It was given to the runner.
    Launched {
        /// Which.
        key: AttemptKey,
        /// Queue of its task.
        queue: String,
    },
    /// It is over.
    Ended {
        /// Which.
        key: AttemptKey,
        /// Queue of its task.
        queue: String,
        /// Where its task stands now.
        state: State,
        /// The verdict.
        verdict: Outcome,
    },
}

impl News {
    /// Says it.
    pub(super) fn log(&self) {
        match self {
            Self::Launched { key, queue } => {
                let (task, attempt) = (key.task.0, key.number);
                tracing::debug!(
                    task,
                    attempt,
                    queue,
                    "task {task}: attempt {attempt} starts"
                );
            }
            Self::Ended {
                key,
                queue,
                state,
                verdict,
            } => ended(*key, queue, *state, verdict),
        }
    }
}

fn ended(key: AttemptKey, queue: &str, state: State, verdict: &Outcome) {
    let (task, attempt) = (key.task.0, key.number);
    let why = &verdict.message;
    match verdict.class {
        Class::Success => {
            tracing::debug!(
                task,
                attempt,
                queue,
                "task {task}: attempt {attempt} succeeded"
            );
        }
        Class::Cancelled => {
            tracing::info!(
                task,
                attempt,
                queue,
                "task {task}: attempt {attempt} was cancelled"
            );
        }
        Class::Lost | Class::Interrupted | Class::Poison => tracing::warn!(
            task,
            attempt,
            queue,
            message_id = if state == State::Failed {
                id::TASK_FAILED
            } else {
                id::ATTEMPT_LOST
            },
            "task {task}: attempt {attempt} was cut short ({why}); the task is {state}"
        ),
        Class::Exit
        | Class::Signal
        | Class::Oom
        | Class::Timeout
        | Class::Spawn
        | Class::Skipped
        | Class::Expired
        | Class::Provider => tracing::info!(
            task,
            attempt,
            queue,
            // A failure that is tried again is not one for good.
            message_id = (state == State::Failed).then_some(id::TASK_FAILED),
            "task {task}: attempt {attempt} failed ({why}); the task is {state}"
        ),
    }
}
