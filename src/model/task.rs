//! A task, its states, and the one function that moves it between them.
//!
//! [`step`] takes a task, an event and the time, and returns the task as it is
//! afterwards together with what has to be done in the world, or refuses.
//! It is total: every event in every state has an answer, and none panics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attempt::{AttemptKey, Class, Ended, Exit, Outcome};
use super::spec::{OnInterrupt, Spec};
use super::time::Time;

/// Time between the request to end and the kill, where the task names none.
pub const GRACE: Duration = Duration::from_secs(10);
/// Pause before a kill that did not end an attempt is repeated.
pub const KILL_AGAIN: Duration = Duration::from_secs(5);
/// Interruptions within [`POISON_WINDOW`] that quarantine a task.
pub const POISON_COUNT: usize = 3;
/// See [`POISON_COUNT`].
pub const POISON_WINDOW: Duration = Duration::from_secs(72 * 3600);

/// Number of a task: positive, unique for ever on one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub i64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for tasks it depends on.
    Blocked,
    /// Waits for its start time or the end of a backoff.
    Scheduled,
    /// Ready; waits for a slot.
    Queued,
    /// An attempt is live.
    Running,
    /// An attempt is live and frozen.
    Paused,
    /// An attempt is live and asked to end.
    Stopping,
    /// Over: exit code 0.
    Succeeded,
    /// Over: every attempt failed. Also the dead list.
    Failed,
    /// Over: cancelled.
    Cancelled,
    /// Over: a task it depends on failed.
    Skipped,
    /// Over: not started within its queue time.
    Expired,
}

impl State {
    /// Every state, in storage order.
    pub const ALL: [Self; 11] = [
        Self::Blocked,
        Self::Scheduled,
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
        Self::Expired,
    ];

    /// The word used in JSON, logs and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Expired => "expired",
        }
    }

    /// The state a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether nothing happens any more without an explicit retry.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped | Self::Expired => {
                true
            }
            Self::Blocked
            | Self::Scheduled
            | Self::Queued
            | Self::Running
            | Self::Paused
            | Self::Stopping => false,
        }
    }

    /// Whether an attempt is live.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Stopping)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a live attempt is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// Someone cancelled the task.
    Cancel,
    /// The attempt is over its time limit.
    Timeout,
}

/// A task: what was asked, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// Uid of the submitter.
    pub owner: u32,
    /// Queue it waits in.
    pub queue: String,
    /// Higher starts first.
    pub priority: i32,
    /// Name for people.
    pub name: Option<String>,
    /// Labels for filters.
    pub labels: BTreeMap<String, String>,
    /// Idempotency key.
    pub key: Option<String>,
    /// The command and its conditions.
    pub spec: Arc<Spec>,
    /// Where it stands.
    pub state: State,
    /// When it was accepted.
    pub created: Time,
    /// When it became, or becomes, ready to start; start order within a priority.
    pub due: Time,
    /// When the clock next has something to say about it, if ever.
    pub wake: Option<Time>,
    /// What was left of its time limit when it was paused.
    pub left: Option<Duration>,
    /// Number of its latest attempt; 0 before the first.
    pub attempt: u32,
    /// Attempts that count against its budget.
    pub tries: u32,
    /// When attempts were interrupted, the latest [`POISON_COUNT`] of them.
    pub interruptions: Vec<Time>,
    /// Why its live attempt is being ended.
    pub stop: Option<StopCause>,
    /// When it was over.
    pub ended: Option<Time>,
    /// The verdict on its latest attempt, or on the task when it had none.
    pub outcome: Option<Outcome>,
}

impl Task {
    /// Names the latest attempt.
    #[must_use]
    pub const fn attempt_key(&self) -> AttemptKey {
        AttemptKey {
            task: self.id,
            number: self.attempt,
        }
    }
}

/// Something that happens to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The time in [`Task::wake`] has come.
    Wake,
    /// The last task it depended on ended well enough.
    Unblock,
    /// A task it depended on did not.
    Skip {
        /// Which, and how it ended, in words.
        why: String,
    },
    /// It gets a slot.
    Claim,
    /// An attempt is over.
    Ended {
        /// Which.
        key: AttemptKey,
        /// How.
        ended: Ended,
    },
    /// Someone cancels it.
    Cancel,
    /// Someone wants it run again.
    Retry,
    /// Someone freezes it.
    Pause,
    /// Someone thaws it.
    Resume,
}

/// What has to be done in the world about a step, once it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Start the attempt just claimed.
    Launch,
    /// Ask every process of the attempt to end.
    Terminate,
    /// End every process of the attempt.
    Kill,
    /// Freeze every process of the attempt.
    Freeze,
    /// Thaw every process of the attempt.
    Thaw,
    /// The attempt's end is recorded: its runner may forget it.
    Acknowledge,
}

/// The result of an event that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The task afterwards.
    pub task: Task,
    /// The verdict on the attempt that this event ended, if it ended one.
    pub verdict: Option<Outcome>,
    /// What to do, in order.
    pub acts: Vec<Act>,
}

/// An event that this state does not allow. The task is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The report is not about the live attempt.
    #[error("attempt {0} is not the live attempt of its task; its report changes nothing")]
    Fenced(AttemptKey),
    /// The task is over.
    #[error("cannot {act} task {task}: it is already {state}")]
    Over {
        /// What was attempted.
        act: &'static str,
        /// On what.
        task: TaskId,
        /// How it ended.
        state: State,
    },
    /// The task is not over.
    #[error("cannot {act} task {task}: it is {state}; {hint}")]
    Unfit {
        /// What was attempted.
        act: &'static str,
        /// On what.
        task: TaskId,
        /// Where it stands.
        state: State,
        /// What to do instead.
        hint: &'static str,
    },
}

/// Moves a task by one event.
///
/// # Errors
/// The state does not allow the event.
pub fn step(task: Task, event: Event, now: Time) -> Result<Step, Refusal> {
    match event {
        Event::Wake => Ok(wake(task, now)),
        Event::Unblock => unblock(task, now),
        Event::Skip { why } => skip(task, why, now),
        Event::Claim => claim(task, now),
        Event::Ended { key, ended } => end(task, key, &ended, now),
        Event::Cancel => cancel(task, now),
        Event::Retry => retry(task, now),
        Event::Pause => pause(task, now),
        Event::Resume => resume(task, now),
    }
}

fn done(task: Task, acts: Vec<Act>) -> Step {
    Step {
        task,
        verdict: None,
        acts,
    }
}

/// The state of a task that has just become ready or is to wait for its time.
#[must_use]
pub fn first_state(run_at: Option<Time>, now: Time) -> State {
    if run_at.is_some_and(|at| at > now) {
        State::Scheduled
    } else {
        State::Queued
    }
}

/// When the clock next concerns a task that enters `state` now, due at `due`.
#[must_use]
pub fn first_wake(spec: &Spec, state: State, due: Time) -> Option<Time> {
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

/// Puts a task into a waiting state, ready at `due`.
fn queue(mut task: Task, due: Time, now: Time) -> Task {
    task.state = first_state(Some(due), now);
    task.due = due;
    task.wake = first_wake(&task.spec, task.state, due);
    task.stop = None;
    task.left = None;
    task
}

/// Puts a task to rest.
fn finish(mut task: Task, state: State, outcome: Outcome, now: Time) -> Task {
    task.state = state;
    task.wake = None;
    task.stop = None;
    task.left = None;
    task.ended = Some(now);
    task.outcome = Some(outcome);
    task
}

/// An outcome without a process: `class` and why.
fn verdict(class: Class, message: impl Into<String>) -> Outcome {
    Outcome {
        class,
        exit_code: None,
        signal: None,
        message: message.into(),
    }
}

fn wake(mut task: Task, now: Time) -> Step {
    if task.wake.is_none_or(|at| at > now) {
        return done(task, vec![]);
    }
    match task.state {
        State::Scheduled => {
            let due = task.due;
            done(queue(task, due, now), vec![])
        }
        State::Queued => {
            let outcome = verdict(Class::Cancelled, "not started within its queue time");
            done(finish(task, State::Expired, outcome, now), vec![])
        }
        State::Running => terminate(task, StopCause::Timeout, now),
        State::Stopping => {
            task.wake = Some(now.after(KILL_AGAIN));
            done(task, vec![Act::Kill])
        }
        State::Blocked
        | State::Paused
        | State::Succeeded
        | State::Failed
        | State::Cancelled
        | State::Skipped
        | State::Expired => {
            task.wake = None;
            done(task, vec![])
        }
    }
}

fn terminate(mut task: Task, cause: StopCause, now: Time) -> Step {
    let grace = task.spec.grace_ms.map_or(GRACE, Duration::from_millis);
    // A frozen process cannot act on a signal before it is thawed.
    let acts = if task.state == State::Paused {
        vec![Act::Terminate, Act::Thaw]
    } else {
        vec![Act::Terminate]
    };
    task.state = State::Stopping;
    task.stop = Some(cause);
    task.left = None;
    task.wake = Some(now.after(grace));
    done(task, acts)
}

fn unblock(task: Task, now: Time) -> Result<Step, Refusal> {
    if task.state == State::Blocked {
        let due = task.due.max(now);
        return Ok(done(queue(task, due, now), vec![]));
    }
    Err(unfit(
        "unblock",
        &task,
        "only a blocked task can be unblocked",
    ))
}

fn skip(task: Task, why: String, now: Time) -> Result<Step, Refusal> {
    if task.state == State::Blocked {
        let outcome = verdict(Class::Cancelled, why);
        return Ok(done(finish(task, State::Skipped, outcome, now), vec![]));
    }
    Err(unfit("skip", &task, "only a blocked task can be skipped"))
}

fn claim(mut task: Task, now: Time) -> Result<Step, Refusal> {
    if task.state != State::Queued {
        return Err(unfit("start", &task, "only a queued task can be started"));
    }
    task.state = State::Running;
    task.attempt += 1;
    task.wake = first_wake(&task.spec, State::Running, now);
    Ok(done(task, vec![Act::Launch]))
}

fn end(task: Task, key: AttemptKey, ended: &Ended, now: Time) -> Result<Step, Refusal> {
    if !task.state.is_live() || key != task.attempt_key() {
        return Err(Refusal::Fenced(key));
    }
    let outcome = judge(ended, task.stop);
    let mut task = task;
    task.outcome = Some(outcome.clone());
    let task = match outcome.class {
        Class::Success => finish(task, State::Succeeded, outcome.clone(), now),
        Class::Cancelled => finish(task, State::Cancelled, outcome.clone(), now),
        Class::Lost | Class::Interrupted => interrupted(task, &outcome, now),
        Class::Exit
        | Class::Signal
        | Class::Oom
        | Class::Timeout
        | Class::Spawn
        | Class::Provider
        | Class::Poison => failed(task, &outcome, now),
    };
    Ok(Step {
        task,
        verdict: Some(outcome),
        acts: vec![Act::Acknowledge],
    })
}

fn failed(mut task: Task, outcome: &Outcome, now: Time) -> Task {
    task.tries += 1;
    if task.spec.retry.allows(outcome.class, task.tries) {
        let due = now.after(task.spec.retry.wait(task.id, task.tries));
        return queue(task, due, now);
    }
    finish(task, State::Failed, outcome.clone(), now)
}

/// An interruption is not the task's fault and costs none of its attempts, but
/// a task that is there whenever things break is put aside.
fn interrupted(mut task: Task, outcome: &Outcome, now: Time) -> Task {
    if task.spec.on_interrupt == OnInterrupt::Hold {
        return finish(task, State::Failed, outcome.clone(), now);
    }
    task.interruptions
        .retain(|at| now.since(*at) < POISON_WINDOW);
    task.interruptions.push(now);
    if task.interruptions.len() >= POISON_COUNT {
        let message = format!(
            "{POISON_COUNT} interruptions within 72 h; last: {}",
            outcome.message
        );
        return finish(task, State::Failed, verdict(Class::Poison, message), now);
    }
    queue(task, now, now)
}

/// The verdict on an attempt: what happened, seen in the light of what was
/// wanted. A cancelled or timed-out attempt stays that however it then exits.
fn judge(ended: &Ended, stop: Option<StopCause>) -> Outcome {
    let (class, message) = match (stop, &ended.exit) {
        (Some(StopCause::Cancel), _) => (Class::Cancelled, "cancelled".to_owned()),
        (Some(StopCause::Timeout), _) => (Class::Timeout, "over its time limit".to_owned()),
        (None, Exit::Spawn { error }) => (Class::Spawn, error.clone()),
        (None, Exit::Lost) => (Class::Lost, "its runner ended before it did".to_owned()),
        (None, _) if ended.oom => (Class::Oom, "over its memory limit".to_owned()),
        (None, _) if ended.interrupted => {
            (Class::Interrupted, "its runner was told to stop".to_owned())
        }
        (None, Exit::Code { code: 0 }) => (Class::Success, String::new()),
        (None, Exit::Code { code }) => (Class::Exit, format!("exit code {code}")),
        (None, Exit::Signal { signal }) => (Class::Signal, format!("ended by signal {signal}")),
    };
    let (exit_code, signal) = match ended.exit {
        Exit::Code { code } => (Some(code), None),
        Exit::Signal { signal } => (None, Some(signal)),
        Exit::Spawn { .. } | Exit::Lost => (None, None),
    };
    Outcome {
        class,
        exit_code,
        signal,
        message,
    }
}

fn cancel(mut task: Task, now: Time) -> Result<Step, Refusal> {
    match task.state {
        State::Blocked | State::Scheduled | State::Queued => {
            let outcome = verdict(Class::Cancelled, "cancelled before it started");
            Ok(done(finish(task, State::Cancelled, outcome, now), vec![]))
        }
        State::Running | State::Paused => Ok(terminate(task, StopCause::Cancel, now)),
        State::Stopping => {
            task.stop = Some(StopCause::Cancel);
            Ok(done(task, vec![]))
        }
        State::Cancelled => Ok(done(task, vec![])),
        State::Succeeded | State::Failed | State::Skipped | State::Expired => Err(Refusal::Over {
            act: "cancel",
            task: task.id,
            state: task.state,
        }),
    }
}

fn retry(mut task: Task, now: Time) -> Result<Step, Refusal> {
    if !task.state.is_terminal() {
        return Err(unfit(
            "retry",
            &task,
            "cancel it first, or wait until it is over",
        ));
    }
    task.tries = 0;
    task.interruptions.clear();
    task.ended = None;
    task.outcome = None;
    Ok(done(queue(task, now, now), vec![]))
}

fn pause(mut task: Task, now: Time) -> Result<Step, Refusal> {
    match task.state {
        State::Running => {
            task.left = task.wake.map(|at| at.since(now));
            task.wake = None;
            task.state = State::Paused;
            Ok(done(task, vec![Act::Freeze]))
        }
        State::Paused => Ok(done(task, vec![])),
        State::Blocked
        | State::Scheduled
        | State::Queued
        | State::Stopping
        | State::Succeeded
        | State::Failed
        | State::Cancelled
        | State::Skipped
        | State::Expired => Err(unfit("pause", &task, "only a running task can be paused")),
    }
}

fn resume(mut task: Task, now: Time) -> Result<Step, Refusal> {
    match task.state {
        State::Paused => {
            task.wake = task.left.take().map(|left| now.after(left));
            task.state = State::Running;
            Ok(done(task, vec![Act::Thaw]))
        }
        State::Running => Ok(done(task, vec![])),
        State::Blocked
        | State::Scheduled
        | State::Queued
        | State::Stopping
        | State::Succeeded
        | State::Failed
        | State::Cancelled
        | State::Skipped
        | State::Expired => Err(unfit("resume", &task, "only a paused task can be resumed")),
    }
}

const fn unfit(act: &'static str, task: &Task, hint: &'static str) -> Refusal {
    if task.state.is_terminal() {
        return Refusal::Over {
            act,
            task: task.id,
            state: task.state,
        };
    }
    Refusal::Unfit {
        act,
        task: task.id,
        state: task.state,
        hint,
    }
}
