//! Why a task is not over: one reason for each state that is not final.

use crate::model::hook;
use crate::model::queue::Queue;
use crate::model::reason::Reason;
use crate::model::task::{Delay, State, Task};
use crate::store::queues::Crowd;

use super::accounts::Choice;
use super::snapshot::{Phase, Snapshot};

/// Why a task is not over: every state but the last ones has a reason.
#[must_use]
pub fn explain(task: &Task, crowd: &Crowd, snapshot: &Snapshot) -> Option<Reason> {
    match task.state {
        // Which, only the store knows.
        State::Blocked => Some(Reason::Dependency {
            first: None,
            more: 0,
        }),
        State::Scheduled => Some(why_scheduled(task)),
        State::Queued => Some(why_queued(task, crowd, snapshot)),
        State::Running => Some(why_running(task, snapshot)),
        State::Paused => Some(Reason::Resume),
        State::Stopping => Some(Reason::Stopping { until: task.wake }),
        State::Succeeded | State::Failed | State::Cancelled | State::Skipped | State::Expired => {
            None
        }
    }
}

/// A process that asked for a call of a model waits for what that waits for.
fn why_running(task: &Task, snapshot: &Snapshot) -> Reason {
    let call = snapshot.waits.get(&task.id).cloned();
    call.unwrap_or(Reason::Itself { until: task.wake })
}

fn why_scheduled(task: &Task) -> Reason {
    let until = task.due;
    let said = task.outcome.as_ref().map(|outcome| outcome.message.clone());
    let why = || said.unwrap_or_default();
    match task.delay {
        Some(Delay::Backoff) => Reason::Backoff {
            until,
            tries: task.tries,
            most: task.spec.retry.max_attempts,
        },
        Some(Delay::TurnedAway) => Reason::TurnedAway { until, why: why() },
        Some(Delay::Scarce) => Reason::Scarce { until, why: why() },
        Some(Delay::Undecided) => Reason::Undecided { until, why: why() },
        Some(Delay::Start) | None => Reason::StartTime { until },
    }
}

/// What stands in the way of a ready task, the thing that lasts longest first.
fn why_queued(task: &Task, crowd: &Crowd, snapshot: &Snapshot) -> Reason {
    if snapshot.phase == Phase::Stopping {
        return Reason::Shutdown;
    }
    if snapshot.runner.is_none() {
        return Reason::NoRunner;
    }
    if let Some(closed) = &snapshot.closed {
        return Reason::Undecided {
            until: closed.until,
            why: closed.why.clone(),
        };
    }
    let queue = crowd.queues.iter().find(|queue| queue.name == task.queue);
    if let Some(reason) = queue.and_then(|queue| why_in(queue, task, crowd, snapshot)) {
        return reason;
    }
    let hooks = crowd.queues.iter().find(|queue| queue.name == hook::QUEUE);
    let hooks = hooks.map(|queue| queue.id);
    let live = crowd.shares.of_owner_beside(task.owner, hooks);
    let limit = snapshot.user_running.filter(|_| may_be_bounded(task));
    if let Some(limit) = limit.filter(|limit| live >= *limit) {
        let owner = task.owner;
        return Reason::UserSlot { owner, limit };
    }
    if let Some(prompt) = &task.spec.prompt
        && let Choice::Wait(wait) = snapshot.calls.choose(prompt, None, snapshot.turned)
    {
        return wait.reason();
    }
    Reason::Slot {
        used: snapshot.used,
        total: snapshot.slots,
    }
}

/// Whether limits of its user are for a task: not for those that nobody hands in.
fn may_be_bounded(task: &Task) -> bool {
    task.queue != hook::QUEUE && task.spec.run.is_none()
}

/// What of its queue stands in a task's way.
fn why_in(queue: &Queue, task: &Task, crowd: &Crowd, snapshot: &Snapshot) -> Option<Reason> {
    let name = || queue.name.clone();
    if queue.paused {
        return Some(Reason::QueuePaused { queue: name() });
    }
    if crowd.shut.contains(&task.id) {
        return Some(Reason::Group {
            group: task.group.clone().unwrap_or_default(),
            limit: queue.group_limit(),
        });
    }
    if let Some(until) = queue.used_up(snapshot.turned) {
        let queue = name();
        return Some(Reason::Rate { queue, until });
    }
    let used = crowd.shares.of_queue(queue.id);
    let limit = queue.concurrency.or(snapshot.queue_concurrency);
    limit
        .filter(|total| used >= *total)
        .map(|total| Reason::QueueSlot {
            queue: name(),
            used,
            total,
        })
}
