//! The one function that moves a task between its states.
//!
//! [`step`] takes a task, an event and the time, and returns the task as it is
//! afterwards together with what has to be done in the world, or refuses.
//! It is total: every event in every state has an answer, and none panics.

use std::time::Duration;

use super::accept::{first_state, first_wake};
use super::attempt::{AttemptKey, Class, Ended, Exit, Outcome};
use super::spec::OnInterrupt;
use super::task::{Act, Event, Refusal, State, Step, StopCause, Task};
use super::time::Time;
use super::verdict::{judge, never_began};

/// Time between the request to end and the kill, where the task names none.
pub const GRACE: Duration = Duration::from_secs(10);
/// Pause before a kill that did not end an attempt is repeated.
pub const KILL_AGAIN: Duration = Duration::from_secs(5);
/// Pause before a task is tried again whose attempt was turned away unstarted.
pub const TURNED_AWAY: Duration = Duration::from_secs(1);
/// Pause before an attempt for which the host was short of something is made
/// again.
pub const SCARCE: Duration = Duration::from_secs(2);
/// Interruptions within [`POISON_WINDOW`] that quarantine a task.
pub const POISON_COUNT: usize = 3;
/// See [`POISON_COUNT`].
pub const POISON_WINDOW: Duration = Duration::from_secs(72 * 3600);

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
        Event::Ended { key, ended, .. } => end(task, key, &ended, now),
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
    let scarce = matches!(ended.exit, Exit::Spawn { scarce: true, .. });
    let task = match outcome.class {
        Class::Success => finish(task, State::Succeeded, outcome.clone(), now),
        Class::Cancelled => finish(task, State::Cancelled, outcome.clone(), now),
        Class::Interrupted if never_began(ended) => queue(task, now.after(TURNED_AWAY), now),
        Class::Spawn if scarce => queue(task, now.after(SCARCE), now),
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

/// Whether the runner turned the attempt away before anything of it ran. That
/// says nothing of the task, so it counts neither as a try nor as an
/// interruption, and there are no effects that `hold` would have to respect.
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

fn cancel(mut task: Task, now: Time) -> Result<Step, Refusal> {
    match task.state {
        State::Blocked | State::Scheduled | State::Queued => {
            let outcome = verdict(Class::Cancelled, "on request, before it started");
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::attempt::Usage;
    use crate::model::id::TaskId;
    use crate::model::retry::Retry;
    use crate::model::spec::Spec;

    fn task(spec: Spec) -> Task {
        Task {
            id: TaskId(1),
            owner: 0,
            queue: "q".to_owned(),
            priority: 0,
            name: None,
            labels: BTreeMap::new(),
            key: None,
            spec: Arc::new(spec),
            state: State::Queued,
            created: Time::default(),
            due: Time::default(),
            wake: None,
            left: None,
            attempt: 0,
            tries: 0,
            interruptions: Vec::new(),
            stop: None,
            ended: None,
            outcome: None,
        }
    }

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn ended(exit: Exit) -> Ended {
        Ended {
            exit,
            oom: false,
            interrupted: false,
            at: at(0),
            usage: Usage::default(),
        }
    }

    /// A task in a state it got into by legal steps.
    fn running(spec: Spec) -> Task {
        step(task(spec), Event::Claim, at(0)).expect("claim").task
    }

    fn end_of(task: &Task, exit: Exit) -> Event {
        Event::Ended {
            started: None,
            key: task.attempt_key(),
            ended: ended(exit),
        }
    }

    #[test]
    fn a_timeout_stays_a_timeout_however_the_task_then_exits() {
        let spec = Spec {
            timeout_ms: Some(1_000),
            grace_ms: Some(500),
            ..Spec::default()
        };
        let late = step(running(spec), Event::Wake, at(1)).expect("wake");
        assert_eq!(late.acts, [Act::Terminate]);
        assert_eq!(late.task.wake, Some(Time::from_micros(1_500_000)));
        let killed = step(late.task.clone(), Event::Wake, at(2)).expect("wake");
        assert_eq!(killed.acts, [Act::Kill]);
        let event = end_of(&late.task, Exit::Code { code: 0 });
        let over = step(late.task, event, at(3)).expect("end");
        assert_eq!(over.task.state, State::Failed);
        let verdict = over.verdict.expect("a verdict");
        assert_eq!(
            (verdict.class, verdict.exit_code),
            (Class::Timeout, Some(0))
        );
    }

    #[test]
    fn interruptions_cost_no_try_and_the_third_is_poison() {
        let mut task = task(Spec::default());
        for round in 1..=3 {
            task = step(task, Event::Claim, at(round)).expect("claim").task;
            let event = end_of(&task, Exit::Lost);
            task = step(task, event, at(round)).expect("end").task;
            assert_eq!(task.tries, 0);
        }
        assert_eq!(task.state, State::Failed);
        assert_eq!(task.outcome.expect("an outcome").class, Class::Poison);
    }

    #[test]
    fn an_attempt_that_was_turned_away_counts_as_nothing() {
        let spec = Spec {
            on_interrupt: OnInterrupt::Hold,
            ..Spec::default()
        };
        let mut task = task(spec);
        for round in 1..=10 {
            let now = at(round * 10);
            task = step(task, Event::Wake, now).expect("wake").task;
            task = step(task, Event::Claim, now).expect("claim").task;
            let exit = Exit::Spawn {
                error: "full".to_owned(),
                scarce: false,
            };
            let event = Event::Ended {
                started: None,
                key: task.attempt_key(),
                ended: Ended {
                    interrupted: true,
                    ..ended(exit)
                },
            };
            let over = step(task, event, now).expect("end");
            assert_eq!(over.verdict.expect("why").class, Class::Interrupted);
            task = over.task;
            assert_eq!((task.state, task.tries), (State::Scheduled, 0));
            assert_eq!(task.interruptions, []);
        }
    }

    #[test]
    fn a_start_that_the_host_was_too_short_for_costs_no_try() {
        let task = running(Spec::default());
        let event = end_of(
            &task,
            Exit::Spawn {
                error: "fork: Resource temporarily unavailable".to_owned(),
                scarce: true,
            },
        );
        let after = step(task, event, at(1)).expect("end").task;
        assert_eq!((after.state, after.tries), (State::Scheduled, 0));
        assert_eq!(after.wake, Some(at(1).after(SCARCE)));
    }

    #[test]
    fn old_interruptions_are_forgiven() {
        let mut task = task(Spec::default());
        for round in 0..10 {
            let now = at(round * 40 * 3600);
            task = step(task, Event::Claim, now).expect("claim").task;
            let event = end_of(&task, Exit::Lost);
            task = step(task, event, now).expect("end").task;
            assert_eq!(task.state, State::Queued, "round {round}");
        }
    }

    #[test]
    fn held_tasks_are_not_run_again() {
        let spec = Spec {
            on_interrupt: OnInterrupt::Hold,
            ..Spec::default()
        };
        let task = running(spec);
        let event = end_of(&task, Exit::Lost);
        let over = step(task, event, at(1)).expect("end").task;
        assert_eq!(
            (over.state, over.outcome.expect("why").class),
            (State::Failed, Class::Lost)
        );
    }

    #[test]
    fn paused_clocks_stop() {
        let spec = Spec {
            timeout_ms: Some(10_000),
            ..Spec::default()
        };
        let paused = step(running(spec), Event::Pause, at(4))
            .expect("pause")
            .task;
        assert_eq!((paused.state, paused.wake), (State::Paused, None));
        let resumed = step(paused, Event::Resume, at(100)).expect("resume").task;
        assert_eq!(
            (resumed.state, resumed.wake),
            (State::Running, Some(at(106)))
        );
    }

    #[test]
    fn a_report_about_another_attempt_is_fenced() {
        let task = running(Spec::default());
        let key = AttemptKey {
            number: 2,
            ..task.attempt_key()
        };
        let event = Event::Ended {
            started: None,
            key,
            ended: ended(Exit::Code { code: 0 }),
        };
        assert_eq!(step(task, event, at(1)), Err(Refusal::Fenced(key)));
    }

    fn any_event() -> impl Strategy<Value = (u8, i64)> {
        (0..14_u8, 0..30_i64)
    }

    fn event(task: &Task, kind: u8) -> Event {
        match kind {
            0 => Event::Wake,
            1 => Event::Unblock,
            2 => Event::Skip {
                why: "x".to_owned(),
            },
            3 | 4 => Event::Claim,
            5 => Event::Cancel,
            6 => Event::Retry,
            7 => Event::Pause,
            8 => Event::Resume,
            9 => end_of(task, Exit::Code { code: 0 }),
            10 => end_of(task, Exit::Code { code: 1 }),
            11 => end_of(task, Exit::Signal { signal: 9 }),
            12 => end_of(
                task,
                Exit::Spawn {
                    error: "x".to_owned(),
                    scarce: task.attempt.is_multiple_of(2),
                },
            ),
            _ => end_of(task, Exit::Lost),
        }
    }

    proptest! {
        #[test]
        fn no_sequence_of_events_leaves_the_state_table(
            blocked: bool,
            max_attempts in 1..4_u32,
            timeout_ms in proptest::option::of(1..20_000_u64),
            queue_ttl_ms in proptest::option::of(1..20_000_u64),
            events in proptest::collection::vec(any_event(), 0..60),
        ) {
            let retry = Retry { max_attempts, ..Retry::default() };
            let mut task = task(Spec { retry, timeout_ms, queue_ttl_ms, ..Spec::default() });
            if blocked {
                task.state = State::Blocked;
            }
            let mut now = at(0);
            for (kind, seconds) in events {
                now = now.after(Duration::from_secs(seconds.unsigned_abs()));
                let before = task.clone();
                let Ok(step) = step(task.clone(), event(&task, kind), now) else {
                    prop_assert_eq!(&task, &before);
                    continue;
                };
                task = step.task;
                prop_assert_eq!(step.verdict.is_some(), matches!(kind, 9..), "a verdict ends an attempt");
                prop_assert!(task.attempt == before.attempt || task.attempt == before.attempt + 1);
                prop_assert_eq!(task.attempt > before.attempt, step.acts.contains(&Act::Launch));
                prop_assert_eq!(task.ended.is_some(), task.state.is_terminal());
                prop_assert!(task.tries <= max_attempts);
                prop_assert_eq!(task.stop.is_some(), task.state == State::Stopping);
                if task.state == State::Scheduled || task.state == State::Stopping {
                    prop_assert!(task.wake.is_some(), "waits without a deadline");
                }
                if task.state.is_terminal() {
                    prop_assert!(task.wake.is_none() && task.outcome.is_some());
                }
            }
        }
    }
}
