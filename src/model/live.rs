//! What happens to a task while an attempt of it is live: its clocks strike,
//! stand still or are moved, and it is asked to end.

use std::time::Duration;

use super::accept::next_wake;
use super::task::{Act, Delay, Refusal, State, Step, StopCause, Task};
use super::time::Time;

/// Time between the request to end and the kill, where the task names none.
pub const GRACE: Duration = Duration::from_secs(10);
/// Pause before a kill that did not end an attempt is repeated.
pub const KILL_AGAIN: Duration = Duration::from_secs(5);

/// The earliest clock of a live attempt has come.
pub(super) fn strike(mut task: Task, now: Time) -> Step {
    let over = |at: Option<Time>| at.is_some_and(|at| at <= now);
    match task.state {
        State::Stopping => {
            task.wake = Some(now.after(KILL_AGAIN));
            return Step::to(task, vec![Act::Kill]);
        }
        State::Running if over(task.deadline) => return terminate(task, StopCause::Deadline, now),
        State::Running if over(task.time_limit) => return terminate(task, StopCause::Timeout, now),
        State::Running if task.beat.is_some() => return terminate(task, StopCause::Silence, now),
        State::Running
        | State::Paused
        | State::Blocked
        | State::Scheduled
        | State::Queued
        | State::Succeeded
        | State::Failed
        | State::Cancelled
        | State::Skipped
        | State::Expired => {}
    }
    task.wake = next_wake(&task);
    Step::to(task, vec![])
}

/// Asks every process of the live attempt to end.
pub(super) fn terminate(mut task: Task, cause: StopCause, now: Time) -> Step {
    let grace = task.spec.grace_ms.map_or(GRACE, Duration::from_millis);
    // A frozen process cannot act on a signal before it is thawed.
    let acts = if task.state == State::Paused {
        vec![Act::Terminate, Act::Thaw]
    } else {
        vec![Act::Terminate]
    };
    task.state = State::Stopping;
    task.stop = Some(cause);
    task.paused = None;
    task.wake = Some(now.after(grace));
    Step::to(task, acts)
}

/// Freezes the live attempt; its clocks stand still meanwhile.
pub(super) fn pause(mut task: Task, now: Time) -> Result<Step, Refusal> {
    match task.state {
        State::Running => {
            task.paused = Some(now);
            task.state = State::Paused;
            task.wake = None;
            Ok(Step::to(task, vec![Act::Freeze]))
        }
        State::Paused => Ok(Step::to(task, vec![])),
        State::Blocked
        | State::Scheduled
        | State::Queued
        | State::Stopping
        | State::Succeeded
        | State::Failed
        | State::Cancelled
        | State::Skipped
        | State::Expired => Err(Refusal::of(
            "pause",
            &task,
            "only a running task can be paused",
        )),
    }
}

/// Thaws the live attempt; its clocks go on where they stopped.
pub(super) fn resume(mut task: Task, now: Time) -> Result<Step, Refusal> {
    match task.state {
        State::Paused => {
            let stood = task
                .paused
                .take()
                .map_or(Duration::ZERO, |at| now.since(at));
            task.time_limit = task.time_limit.map(|at| at.after(stood));
            task.deadline = task.deadline.map(|at| at.after(stood));
            task.beat = task.beat.map(|at| at.after(stood));
            task.state = State::Running;
            task.wake = next_wake(&task);
            Ok(Step::to(task, vec![Act::Thaw]))
        }
        State::Running => Ok(Step::to(task, vec![])),
        State::Blocked
        | State::Scheduled
        | State::Queued
        | State::Stopping
        | State::Succeeded
        | State::Failed
        | State::Cancelled
        | State::Skipped
        | State::Expired => Err(Refusal::of(
            "resume",
            &task,
            "only a paused task can be resumed",
        )),
    }
}

/// The live attempt gave a sign of life. One that need not give any, or is not
/// running, is left as it is.
pub(super) fn beat(mut task: Task, at: Time) -> Step {
    if task.state == State::Running && task.beat.is_some_and(|last| last < at) {
        task.beat = Some(at);
        task.wake = next_wake(&task);
    }
    Step::to(task, vec![])
}

/// The live attempt asks for more time. It gets it where it has a time limit;
/// a time that it has already does not become less.
pub(super) fn extend(mut task: Task, until: Time) -> Step {
    if task.state == State::Running && task.time_limit.is_some_and(|limit| limit < until) {
        task.time_limit = Some(until);
        task.wake = next_wake(&task);
    }
    Step::to(task, vec![])
}

/// The live attempt says that it has gone wrong, as a watchdog would find.
pub(super) fn give_up(task: Task, now: Time) -> Step {
    if task.state == State::Running {
        return terminate(task, StopCause::Silence, now);
    }
    Step::to(task, vec![])
}

/// The clock was set by so many microseconds. What was meant as a duration
/// moves along: time limits, heartbeats, pauses and waits after a failure.
/// Start times, deadlines and queue times are times of the clock, and stay.
pub(super) fn clock_set(mut task: Task, by: i64) -> Step {
    let moved = |at: Time| Time::from_micros(at.micros().saturating_add(by));
    match task.state {
        State::Running | State::Paused => {
            task.time_limit = task.time_limit.map(moved);
            task.beat = task.beat.map(moved);
            task.paused = task.paused.map(moved);
        }
        State::Stopping => task.wake = task.wake.map(moved),
        State::Scheduled if task.delay.is_some_and(|delay| delay != Delay::Start) => {
            task.due = moved(task.due);
        }
        State::Blocked
        | State::Scheduled
        | State::Queued
        | State::Succeeded
        | State::Failed
        | State::Cancelled
        | State::Skipped
        | State::Expired => return Step::to(task, vec![]),
    }
    task.wake = next_wake(&task);
    Step::to(task, vec![])
}
