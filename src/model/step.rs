//! The one function that moves a task between its states.
//!
//! [`step`] takes a task, an event and the time, and returns the task as it is
//! afterwards together with what has to be done in the world, or refuses.
//! It is total: every event in every state has an answer, and none panics.
//! What concerns a live attempt alone is in [`super::live`].

use std::time::Duration;

use super::accept::{make_ready, next_wake};
use super::attempt::{AttemptKey, Class, Ended, Exit, Outcome};
use super::live::{beat, clock_set, extend, give_up, pause, resume, strike, terminate};
use super::spec::OnInterrupt;
use super::task::{Act, Delay, Event, Refusal, State, Step, StopCause, Task};
use super::time::Time;
use super::verdict::{is_denied, is_undecided, judge, never_began};

/// Pause before a task is tried again whose attempt was turned away unstarted.
pub const TURNED_AWAY: Duration = Duration::from_secs(1);
/// Pause before an attempt for which the host was short of something is made
/// again.
pub const SCARCE: Duration = Duration::from_secs(2);
/// Pause before an attempt is made again for which nobody could say as whom it
/// may run.
pub const UNDECIDED: Duration = Duration::from_secs(10);
/// Pause before an attempt is made again that the run-as policy did not allow:
/// each one costs a row, and administrators who give the right back can start
/// the task at once by an edit.
pub const DENIED: Duration = Duration::from_secs(300);
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
        Event::Refuse { why } => refuse(task, why, now),
        Event::Claim => claim(task, now),
        Event::Ended { key, ended, .. } => end(task, key, &ended, now),
        Event::Cancel => cancel(task, now),
        Event::Retry { blocked } => retry(task, blocked, now),
        Event::Pause => pause(task, now),
        Event::Resume => resume(task, now),
        Event::Beat { at } => Ok(beat(task, at)),
        Event::Extend { until } => Ok(extend(task, until)),
        Event::GiveUp => Ok(give_up(task, now)),
        Event::ClockSet { by } => Ok(clock_set(task, by)),
    }
}

/// Puts a task to rest.
fn finish(mut task: Task, state: State, outcome: Outcome, now: Time) -> Task {
    task.state = state;
    task.wake = None;
    task.delay = None;
    task.time_limit = None;
    task.beat = None;
    task.paused = None;
    task.stop = None;
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
        return Step::to(task, vec![]);
    }
    if task.state.is_live() {
        return strike(task, now);
    }
    let expired = |task, why: &str| {
        let outcome = verdict(Class::Expired, why);
        Step::to(finish(task, State::Expired, outcome, now), vec![])
    };
    if !task.state.is_terminal() && task.deadline.is_some_and(|at| at <= now) {
        return expired(task, "not over by its deadline");
    }
    match task.state {
        State::Scheduled if task.due <= now => {
            let due = task.due;
            Step::to(make_ready(task, due, Delay::Start, now), vec![])
        }
        State::Queued => expired(task, "not started within its queue time"),
        State::Blocked
        | State::Scheduled
        | State::Running
        | State::Paused
        | State::Stopping
        | State::Succeeded
        | State::Failed
        | State::Cancelled
        | State::Skipped
        | State::Expired => {
            task.wake = next_wake(&task);
            Step::to(task, vec![])
        }
    }
}

fn unblock(task: Task, now: Time) -> Result<Step, Refusal> {
    if task.state == State::Blocked {
        let due = task.due.max(now);
        return Ok(Step::to(make_ready(task, due, Delay::Start, now), vec![]));
    }
    Err(Refusal::of(
        "unblock",
        &task,
        "only a blocked task can be unblocked",
    ))
}

fn skip(task: Task, why: String, now: Time) -> Result<Step, Refusal> {
    if task.state == State::Blocked {
        let outcome = verdict(Class::Skipped, why);
        return Ok(Step::to(finish(task, State::Skipped, outcome, now), vec![]));
    }
    Err(Refusal::of(
        "skip",
        &task,
        "only a blocked task can be skipped",
    ))
}

/// For good: the next attempt would be refused as well.
fn refuse(task: Task, why: String, now: Time) -> Result<Step, Refusal> {
    if task.state == State::Queued {
        let outcome = verdict(Class::Budget, why);
        return Ok(Step::to(finish(task, State::Failed, outcome, now), vec![]));
    }
    Err(Refusal::of(
        "refuse",
        &task,
        "only a queued task can be refused",
    ))
}

fn claim(mut task: Task, now: Time) -> Result<Step, Refusal> {
    if task.state != State::Queued {
        return Err(Refusal::of(
            "start",
            &task,
            "only a queued task can be started",
        ));
    }
    let after = |ms: u64| now.after(Duration::from_millis(ms));
    task.state = State::Running;
    task.attempt += 1;
    task.time_limit = task.spec.timeout_ms.map(after);
    task.beat = task.spec.heartbeat_ms.map(|_| now);
    task.wake = next_wake(&task);
    Ok(Step::to(task, vec![Act::Launch]))
}

fn end(task: Task, key: AttemptKey, ended: &Ended, now: Time) -> Result<Step, Refusal> {
    if !task.state.is_live() || key != task.attempt_key() {
        return Err(Refusal::Fenced(key));
    }
    let limited = task.spec.limits.memory.is_some();
    let outcome = judge(ended, task.stop, limited);
    let mut task = task;
    task.outcome = Some(outcome.clone());
    task.paused = None;
    let scarce = matches!(ended.exit, Exit::Spawn { scarce: true, .. });
    let undecided = outcome.class == Class::Spawn && is_undecided(ended);
    let task = match outcome.class {
        Class::Success => finish(task, State::Succeeded, outcome.clone(), now),
        Class::Cancelled => finish(task, State::Cancelled, outcome.clone(), now),
        Class::Interrupted if never_began(ended) => {
            make_ready(task, now.after(TURNED_AWAY), Delay::TurnedAway, now)
        }
        Class::Spawn if undecided => make_ready(task, now.after(UNDECIDED), Delay::Undecided, now),
        Class::Spawn if is_denied(ended) => {
            make_ready(task, now.after(DENIED), Delay::Undecided, now)
        }
        Class::Spawn if scarce => make_ready(task, now.after(SCARCE), Delay::Scarce, now),
        Class::Lost | Class::Interrupted => interrupted(task, &outcome, now),
        // When its model can be asked, admission knows; it keeps its place.
        Class::Provider if ended.turned_away().is_some() => {
            let due = task.due;
            make_ready(task, due, Delay::Start, now)
        }
        Class::Exit
        | Class::Signal
        | Class::Oom
        | Class::Timeout
        | Class::Spawn
        | Class::Skipped
        | Class::Expired
        | Class::Provider
        | Class::Poison
        | Class::Budget => failed(task, &outcome, now),
    };
    Ok(Step {
        task,
        verdict: Some(outcome),
        acts: vec![Act::Acknowledge],
    })
}

/// Tries again if the task's rule says so and its deadline leaves time for it.
fn failed(mut task: Task, outcome: &Outcome, now: Time) -> Task {
    task.tries += 1;
    let due = now.after(task.spec.retry.wait(task.id, task.tries));
    let in_time = task.deadline.is_none_or(|deadline| due < deadline);
    if in_time && task.spec.retry.allows(outcome, task.tries) {
        return make_ready(task, due, Delay::Backoff, now);
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
    make_ready(task, now, Delay::Start, now)
}

fn cancel(mut task: Task, now: Time) -> Result<Step, Refusal> {
    match task.state {
        State::Blocked | State::Scheduled | State::Queued => {
            let outcome = verdict(Class::Cancelled, "on request, before it started");
            Ok(Step::to(
                finish(task, State::Cancelled, outcome, now),
                vec![],
            ))
        }
        State::Running | State::Paused => Ok(terminate(task, StopCause::Cancel, now)),
        State::Stopping => {
            task.stop = Some(StopCause::Cancel);
            Ok(Step::to(task, vec![]))
        }
        State::Cancelled => Ok(Step::to(task, vec![])),
        State::Succeeded | State::Failed | State::Skipped | State::Expired => Err(Refusal::Over {
            act: "cancel",
            task: task.id,
            state: task.state,
        }),
    }
}

fn retry(mut task: Task, blocked: bool, now: Time) -> Result<Step, Refusal> {
    if task.spec.run.is_some() {
        return Err(Refusal::OfAgent {
            act: "retry",
            task: task.id,
        });
    }
    if !task.state.is_terminal() {
        return Err(Refusal::of(
            "retry",
            &task,
            "cancel it first, or wait until it is over",
        ));
    }
    task.tries = 0;
    task.interruptions.clear();
    task.ended = None;
    task.outcome = None;
    // It was for the first run; another one has been asked for since.
    task.deadline = None;
    if blocked {
        task.state = State::Blocked;
        return Ok(Step::to(task, vec![]));
    }
    Ok(Step::to(make_ready(task, now, Delay::Start, now), vec![]))
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
            group: None,
            unique: None,
            deadline: None,
            tick: None,
            spec: Arc::new(spec),
            state: State::Queued,
            created: Time::default(),
            due: Time::default(),
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
            unrecorded: false,
            at: at(0),
            usage: Usage::default(),
            receipt: None,
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
                undecided: false,
                denied: false,
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
                undecided: false,
                denied: false,
            },
        );
        let after = step(task, event, at(1)).expect("end").task;
        assert_eq!((after.state, after.tries), (State::Scheduled, 0));
        assert_eq!(after.wake, Some(at(1).after(SCARCE)));
    }

    #[test]
    fn sec_05_a_start_that_the_policy_denies_waits_and_costs_no_try() {
        let task = running(Spec::default());
        let exit = Exit::Spawn {
            error: "user alice may not run tasks as bob".to_owned(),
            scarce: false,
            undecided: false,
            denied: true,
        };
        let event = end_of(&task, exit);
        let over = step(task, event, at(1)).expect("end");
        assert_eq!(over.verdict.expect("why").class, Class::Spawn);
        let after = over.task;
        assert_eq!((after.state, after.tries), (State::Scheduled, 0));
        assert_eq!(after.wake, Some(at(1).after(DENIED)));
    }

    #[test]
    fn sec_05_a_start_that_nobody_could_judge_waits_and_costs_no_try() {
        let task = running(Spec::default());
        let event = end_of(
            &task,
            Exit::Spawn {
                error: "run-as.toml:3: not understood".to_owned(),
                scarce: false,
                undecided: true,
                denied: false,
            },
        );
        let after = step(task, event, at(1)).expect("end").task;
        assert_eq!((after.state, after.tries), (State::Scheduled, 0));
        assert_eq!(after.delay, Some(Delay::Undecided));
        assert_eq!(after.wake, Some(at(1).after(UNDECIDED)));
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
    fn silence_longer_than_the_heartbeat_ends_an_attempt() {
        let spec = Spec {
            heartbeat_ms: Some(10_000),
            ..Spec::default()
        };
        let task = step(running(spec), Event::Beat { at: at(8) }, at(8))
            .expect("beat")
            .task;
        assert_eq!(task.wake, Some(at(18)));
        let silent = step(task, Event::Wake, at(18)).expect("wake").task;
        assert_eq!(silent.stop, Some(StopCause::Silence));
        let event = end_of(&silent, Exit::Signal { signal: 15 });
        let over = step(silent, event, at(19)).expect("end");
        let verdict = over.verdict.expect("a verdict");
        assert_eq!(verdict.class, Class::Timeout);
        assert!(verdict.message.contains("sign of life"), "{verdict:?}");
    }

    #[test]
    fn a_time_limit_can_be_extended_and_not_shortened() {
        let spec = Spec {
            timeout_ms: Some(10_000),
            ..Spec::default()
        };
        let more = step(running(spec), Event::Extend { until: at(30) }, at(5)).expect("extend");
        assert_eq!(more.task.wake, Some(at(30)));
        let less = step(more.task, Event::Extend { until: at(7) }, at(6)).expect("extend");
        assert_eq!(less.task.wake, Some(at(30)));
    }

    #[test]
    fn a_deadline_holds_for_waits_and_attempts_together() {
        let spec = Spec {
            retry: Retry {
                max_attempts: 5,
                base_ms: 60_000,
                cap_ms: 60_000,
                ..Retry::default()
            },
            ..Spec::default()
        };
        let waiting = Task {
            deadline: Some(at(10)),
            wake: Some(at(10)),
            ..task(spec)
        };
        let over = step(waiting.clone(), Event::Wake, at(10))
            .expect("wake")
            .task;
        assert_eq!(over.state, State::Expired);
        let running = step(waiting, Event::Claim, at(9)).expect("claim").task;
        assert_eq!(running.wake, Some(at(10)));
        let late = step(running, Event::Wake, at(10)).expect("wake").task;
        let event = end_of(&late, Exit::Signal { signal: 15 });
        let over = step(late, event, at(11)).expect("end").task;
        assert_eq!(over.state, State::Failed, "there is no time for a retry");
        let outcome = over.outcome.expect("an outcome");
        assert!(outcome.message.contains("deadline"), "{outcome:?}");
    }

    #[test]
    fn a_clock_that_is_set_moves_durations_and_not_times() {
        let spec = Spec {
            timeout_ms: Some(10_000),
            ..Spec::default()
        };
        let hour = Event::ClockSet { by: 3_600_000_000 };
        let live = step(running(spec), hour.clone(), at(3_605)).expect("set");
        assert_eq!(live.task.wake, Some(at(3_610)));
        let scheduled = Task {
            state: State::Scheduled,
            delay: Some(Delay::Start),
            due: at(50),
            wake: Some(at(50)),
            ..task(Spec::default())
        };
        let still = step(scheduled.clone(), hour, at(3_605)).expect("set");
        assert_eq!(still.task, scheduled);
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
        (0..21_u8, 0..30_i64)
    }

    fn event(task: &Task, kind: u8) -> Event {
        match kind {
            0 => Event::Wake,
            1 => Event::Unblock,
            2 => Event::Skip {
                why: "x".to_owned(),
            },
            20 => Event::Refuse {
                why: "x".to_owned(),
            },
            3 | 4 => Event::Claim,
            5 => Event::Cancel,
            6 => Event::Retry { blocked: false },
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
                    undecided: task.attempt.is_multiple_of(3),
                    denied: task.attempt.is_multiple_of(5),
                },
            ),
            13 => end_of(task, Exit::Lost),
            14 => Event::Beat {
                at: task.created.after(Duration::from_secs(task.attempt.into())),
            },
            15 => Event::Extend { until: at(500) },
            16 => Event::GiveUp,
            17 => Event::ClockSet { by: 3_600_000_000 },
            18 => Event::ClockSet { by: -3_600_000_000 },
            _ => Event::Retry { blocked: true },
        }
    }

    proptest! {
        #[test]
        fn no_sequence_of_events_leaves_the_state_table(
            blocked: bool,
            max_attempts in 1..4_u32,
            timeout_ms in proptest::option::of(1..20_000_u64),
            queue_ttl_ms in proptest::option::of(1..20_000_u64),
            heartbeat_ms in proptest::option::of(1..20_000_u64),
            deadline in proptest::option::of(1..600_i64),
            events in proptest::collection::vec(any_event(), 0..60),
        ) {
            let retry = Retry { max_attempts, ..Retry::default() };
            let mut task = task(Spec { retry, timeout_ms, queue_ttl_ms, heartbeat_ms, ..Spec::default() });
            task.deadline = deadline.map(at);
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
                prop_assert_eq!(step.verdict.is_some(), matches!(kind, 9..14), "a verdict ends an attempt");
                prop_assert!(task.attempt == before.attempt || task.attempt == before.attempt + 1);
                prop_assert_eq!(task.attempt > before.attempt, step.acts.contains(&Act::Launch));
                prop_assert_eq!(task.ended.is_some(), task.state.is_terminal());
                prop_assert!(task.tries <= max_attempts);
                prop_assert_eq!(task.stop.is_some(), task.state == State::Stopping);
                prop_assert_eq!(task.paused.is_some(), task.state == State::Paused);
                prop_assert_eq!(task.delay.is_some(), task.state == State::Scheduled);
                prop_assert!(task.state.is_live() || task.time_limit.is_none() && task.beat.is_none());
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
