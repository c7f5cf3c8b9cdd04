//! What the engine tells the log about attempts, once it is committed.
//!
//! A failure is news by default; starts and successes, of which there may be
//! thousands a second, are at `debug`.

use std::time::Duration;

use crate::model::agent::phase::Phase;
use crate::model::attempt::{AttemptKey, Class, Outcome};
use crate::model::id::TaskId;
use crate::model::ledger::Over;
use crate::model::receipt::End;
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
        /// Trace of its task.
        trace: Option<String>,
    },
    /// It is over.
    Ended {
        /// Which.
        key: AttemptKey,
        /// Queue of its task.
        queue: String,
        /// What the request was called that asked for it.
        request: Option<String>,
        /// Trace of its task.
        trace: Option<String>,
        /// Where its task stands now.
        state: State,
        /// The verdict.
        verdict: Outcome,
    },
    /// A call of a model is over.
    Called {
        /// The attempt that it was made for.
        key: AttemptKey,
        /// Who serves the model.
        provider: String,
        /// What that one calls it.
        serves: String,
        /// What came of it.
        over: Over,
        /// How long it took.
        took: Duration,
        /// Trace of its task.
        trace: Option<String>,
    },
    /// Nominal times of a schedule passed while nobody looked, and make no
    /// task.
    Missed {
        /// Name of the schedule.
        schedule: String,
        /// How many, as far as they were counted.
        times: u64,
    },
    /// A schedule made no task, since its queue takes none.
    Drained {
        /// Name of the schedule.
        schedule: String,
        /// Name of the queue.
        queue: String,
    },
    /// An instance of an agent stands elsewhere.
    Agent {
        /// Its name.
        agent: String,
        /// Uid of its owner.
        owner: u32,
        /// Where.
        phase: Phase,
        /// How its run ended, where that is why.
        why: Option<String>,
        /// For how long, where the clock ends it.
        until: Option<Duration>,
    },
    /// A schedule made no task, since one of its tasks was not over.
    LeftOut {
        /// Name of the schedule.
        schedule: String,
        /// That task.
        task: TaskId,
    },
}

impl News {
    /// Says it.
    pub(super) fn log(&self) {
        match self {
            Self::Launched { key, queue, trace } => {
                let (task, attempt) = (key.task.0, key.number);
                tracing::debug!(
                    task,
                    attempt,
                    queue,
                    trace_id = trace,
                    "task {task}: attempt {attempt} starts"
                );
            }
            Self::Ended {
                key,
                queue,
                request,
                trace,
                state,
                verdict,
            } => ended(
                *key,
                queue,
                [request.as_deref(), trace.as_deref()],
                *state,
                verdict,
            ),
            Self::Called {
                key,
                provider,
                serves,
                over,
                took,
                trace,
            } => called(*key, (provider, serves), (over, *took), trace.as_deref()),
            Self::Agent {
                agent,
                owner,
                phase,
                why,
                until,
            } => stands(agent, *owner, *phase, why.as_deref(), *until),
            Self::Missed { schedule, times } => tracing::warn!(
                schedule,
                times,
                "schedule {schedule}: {times} times passed while it could not fire, and are left out"
            ),
            Self::Drained { schedule, queue } => tracing::info!(
                schedule,
                queue,
                "schedule {schedule}: made no task, since queue {queue} is draining"
            ),
            Self::LeftOut { schedule, task } => tracing::info!(
                schedule,
                task = task.0,
                "schedule {schedule}: made no task, since task {task} is not over"
            ),
        }
    }
}

/// In the words of OpenTelemetry's conventions. What was asked and answered is
/// none of the log's business.
fn called(
    key: AttemptKey,
    (provider, model): (&str, &str),
    (over, took): (&Over, Duration),
    trace_id: Option<&str>,
) {
    let (task, attempt) = (key.task.0, key.number);
    let (input, output) = over.used.map(|used| (used.input, used.output)).unzip();
    let end = over.end.map_or("unknown", End::word);
    let took = took.as_secs_f64();
    if over.end == Some(End::Answered) {
        tracing::debug!(
            task,
            attempt,
            trace_id,
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = provider,
            gen_ai.request.model = model,
            gen_ai.usage.input_tokens = input,
            gen_ai.usage.output_tokens = output,
            "task {task}: the call of attempt {attempt} was answered in {took:.3} s"
        );
        return;
    }
    tracing::info!(
        task,
        attempt,
        trace_id,
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = provider,
        gen_ai.request.model = model,
        gen_ai.usage.input_tokens = input,
        gen_ai.usage.output_tokens = output,
        error.type = end,
        "task {task}: the call of attempt {attempt} ended after {took:.3} s: {end}"
    );
}

fn stands(agent: &str, owner: u32, phase: Phase, why: Option<&str>, until: Option<Duration>) {
    let why = why.filter(|why| !why.is_empty());
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let until = until.filter(|_| phase != Phase::Starting);
    let wait = until.map(|wait| format!(" for {:.0} s", wait.as_secs_f64()));
    let wait = wait.unwrap_or_default();
    match phase {
        Phase::CoolingOff | Phase::Failed => tracing::warn!(
            agent,
            owner,
            message_id = id::AGENT_FAILED,
            "agent {agent}: {phase}{wait}{why}"
        ),
        Phase::BackingOff => tracing::info!(agent, owner, "agent {agent}: {phase}{wait}{why}"),
        Phase::Stopped
        | Phase::Waiting
        | Phase::Starting
        | Phase::Healthy
        | Phase::Idle
        | Phase::Stopping
        | Phase::CleaningUp
        | Phase::Completed => tracing::debug!(agent, owner, "agent {agent}: {phase}{wait}{why}"),
    }
}

fn ended(
    key: AttemptKey,
    queue: &str,
    [request, trace_id]: [Option<&str>; 2],
    state: State,
    verdict: &Outcome,
) {
    let (task, attempt) = (key.task.0, key.number);
    let why = &verdict.message;
    match verdict.class {
        Class::Success => {
            tracing::debug!(
                task,
                attempt,
                queue,
                request,
                trace_id,
                "task {task}: attempt {attempt} succeeded"
            );
        }
        Class::Cancelled => {
            tracing::info!(
                task,
                attempt,
                queue,
                request,
                trace_id,
                "task {task}: attempt {attempt} was cancelled"
            );
        }
        Class::Lost | Class::Interrupted | Class::Poison => tracing::warn!(
            task,
            attempt,
            queue,
            request,
            trace_id,
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
        | Class::Budget
        | Class::Provider => tracing::info!(
            task,
            attempt,
            queue,
            request,
            trace_id,
            // A failure that is tried again is not one for good.
            message_id = (state == State::Failed).then_some(id::TASK_FAILED),
            "task {task}: attempt {attempt} failed ({why}); the task is {state}"
        ),
    }
}
