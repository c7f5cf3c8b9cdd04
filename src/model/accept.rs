//! How a task begins: the state in which it is accepted, or queued anew, and
//! when the clock first concerns it.

use std::sync::Arc;
use std::time::Duration;

use super::id::TaskId;
use super::spec::NewTask;
use super::task::{Delay, State, Task};
use super::time::Time;

/// A task as it is when it is accepted; `blocked` when a task that it waits
/// for is not over.
#[must_use]
pub fn accept(id: TaskId, new: &NewTask, blocked: bool, now: Time) -> Task {
    let mut task = Task {
        id,
        owner: new.owner,
        queue: new.queue.clone(),
        priority: new.priority,
        name: new.name.clone(),
        labels: new.labels.clone(),
        key: new.key.clone(),
        group: new.group.clone(),
        unique: new.unique.as_ref().map(|unique| unique.key.clone()),
        deadline: new.deadline,
        tick: new.tick,
        spec: Arc::new(new.spec.clone()),
        state: State::Blocked,
        created: now,
        due: new.run_at.unwrap_or(now).max(now),
        delay: None,
        wake: None,
        time_limit: None,
        beat: None,
        paused: None,
        attempt: 0,
        tries: 0,
        interruptions: Vec::new(),
        stop: None,
        ended: None,
        outcome: None,
    };
    if blocked {
        task.wake = next_wake(&task);
        task
    } else {
        let due = task.due;
        make_ready(task, due, Delay::Start, now)
    }
}

/// Lets a task wait for `due` for that reason, or for a slot if that is over.
pub(super) fn make_ready(mut task: Task, due: Time, delay: Delay, now: Time) -> Task {
    (task.state, task.delay) = if due > now {
        (State::Scheduled, Some(delay))
    } else {
        (State::Queued, None)
    };
    task.due = due;
    task.stop = None;
    task.time_limit = None;
    task.beat = None;
    task.wake = next_wake(&task);
    task
}

/// When the clock next concerns a task, as it stands.
pub(super) fn next_wake(task: &Task) -> Option<Time> {
    let after = |from: Time, ms: Option<u64>| ms.map(|ms| from.after(Duration::from_millis(ms)));
    let own = match task.state {
        State::Blocked => None,
        State::Scheduled => Some(task.due),
        State::Queued => after(task.due, task.spec.queue_ttl_ms),
        State::Running => {
            let silence = task
                .beat
                .and_then(|beat| after(beat, task.spec.heartbeat_ms));
            earlier(task.time_limit, silence)
        }
        // Set when it was asked to end.
        State::Stopping => return task.wake,
        // Its clocks stand still.
        State::Paused
        | State::Succeeded
        | State::Failed
        | State::Cancelled
        | State::Skipped
        | State::Expired => return None,
    };
    earlier(own, task.deadline)
}

/// The earlier of two times, where there are any.
fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
