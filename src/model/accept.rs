//! How a task begins: the state in which it is accepted, or queued anew, and
//! when the clock first concerns it.

use std::sync::Arc;
use std::time::Duration;

use super::id::TaskId;
use super::spec::{NewTask, Spec};
use super::task::{State, Task};
use super::time::Time;

/// A task as it is when it is accepted.
#[must_use]
pub fn accept(id: TaskId, new: &NewTask, now: Time) -> Task {
    let state = first_state(new.run_at, now);
    let due = new.run_at.unwrap_or(now).max(now);
    Task {
        id,
        owner: new.owner,
        queue: new.queue.clone(),
        priority: new.priority,
        name: new.name.clone(),
        labels: new.labels.clone(),
        key: new.key.clone(),
        spec: Arc::new(new.spec.clone()),
        state,
        created: now,
        due,
        wake: first_wake(&new.spec, state, due),
        left: None,
        attempt: 0,
        tries: 0,
        interruptions: Vec::new(),
        stop: None,
        ended: None,
        outcome: None,
    }
}

/// The state of a task that has just become ready or is to wait for its time.
pub(super) fn first_state(run_at: Option<Time>, now: Time) -> State {
    if run_at.is_some_and(|at| at > now) {
        State::Scheduled
    } else {
        State::Queued
    }
}

/// When the clock next concerns a task that enters `state` now, due at `due`.
pub(super) fn first_wake(spec: &Spec, state: State, due: Time) -> Option<Time> {
    match state {
        State::Scheduled => Some(due),
        State::Queued => spec
            .queue_ttl_ms
            .map(|ms| due.after(Duration::from_millis(ms))),
        State::Running => spec
            .timeout_ms
            .map(|ms| due.after(Duration::from_millis(ms))),
        State::Blocked
        | State::Paused
        | State::Stopping
        | State::Succeeded
        | State::Failed
        | State::Cancelled
        | State::Skipped
        | State::Expired => None,
    }
}
