//! `GET /metrics`: what the daemon counts, in the words of
//! Prometheus. A page is made anew for each question from the engine's figures, so
//! nothing is kept twice; only requests are counted here (`requests`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use prometheus::TEXT_FORMAT;

use crate::clock;
use crate::engine::budgets::Share;
use crate::engine::command::{Caller, Error};
use crate::engine::snapshot::{Phase, Snapshot};
use crate::engine::spans::Intake;
use crate::model::health::{Level, Part, worst};
use crate::model::origin::Origin;
use crate::model::task::State as TaskState;
use crate::model::time::Time;
use crate::telemetry;

use super::problem::Problem;
use super::pulse::Beat;
use super::queues::QueueInfo;
use super::{Shared, health, vitals};

mod agents;
mod models;
mod page;

use agents::Usages;
use page::Page;

/// How long the database may take before the page is answered without what only
/// that knows. Below Prometheus' own default of ten seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Queues that have rows of their own, first by name; the others are one.
const QUEUES: usize = 100;
/// What that one is called, as no queue can be.
const OTHERS: &str = "(others)";

/// A figure of a queue.
type Count = fn(&QueueInfo) -> u64;

/// `GET /metrics`.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let stored = tokio::time::timeout(PATIENCE, stored(&shared)).await;
    let stored = stored.ok().and_then(Result::ok);
    let (beat, parts) = health::parts(&shared).await;
    let agents = Arc::clone(&shared.handle.snapshot().agents);
    let usages = tokio::task::spawn_blocking(move || agents::usages(&agents)).await;
    let usages = usages.unwrap_or_default();
    let text = page(&shared, stored.as_ref(), beat, &parts, &usages).map_err(|error| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(
            status,
            "internal",
            format!("cannot write down the figures: {error}"),
        )
    })?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}

/// A queue with the time since when its first in line is ready.
type Waiting = (QueueInfo, Option<Time>);

/// What only the database knows: queues, and the budgets of this day.
type Stored = (Vec<Waiting>, Vec<Share>);

async fn stored(shared: &Shared) -> Result<Stored, Error> {
    let everybody = Caller {
        uid: 0,
        admin: true,
        origin: Origin::default(),
    };
    let budgets = shared.handle.budgets(everybody, clock::now()).await?;
    Ok((lanes(shared).await?, budgets))
}

/// All queues, in the order of their names. Only those that get rows of their
/// own are looked at more closely.
async fn lanes(shared: &Shared) -> Result<Vec<Waiting>, Error> {
    let lanes = shared.handle.queues().await?;
    let rows = lanes
        .iter()
        .take(QUEUES)
        .map(|lane| lane.queue.id)
        .collect();
    let since = shared.handle.waits(rows).await?;
    let since = since.into_iter().chain(std::iter::repeat(None));
    Ok(lanes.iter().map(QueueInfo::from).zip(since).collect())
}

fn page(
    shared: &Shared,
    stored: Option<&Stored>,
    beat: Beat,
    parts: &[Part],
    usages: &Usages,
) -> prometheus::Result<String> {
    let snapshot = shared.handle.snapshot();
    let now = clock::now();
    let mut page = Page::new()?;
    page.gauge(
        "engine_answered",
        "Whether the engine answered at once when this page was made.",
        truth(matches!(beat, Beat::Answered(_))),
    );
    page.gauge(
        "engine_answer_seconds",
        "How long the engine took to answer, or has not answered for.",
        beat.wait().as_secs_f64(),
    );
    page.gauge(
        "reader_answered",
        "Whether the database was read in two seconds; without that, rows of queues and budgets are missing.",
        truth(stored.is_some()),
    );
    let levels = parts
        .iter()
        .map(|part| ([part.name.clone()], f64::from(part.level as u8)));
    page.gauges(
        "health",
        "How each part of the daemon is: 0 healthy, 1 degraded, 2 unhealthy.",
        ["part"],
        levels,
    );
    page.gauge(
        "degraded",
        "Whether the daemon is not healthy, as `GET /health` tells it.",
        truth(worst(parts) != Level::Healthy),
    );
    daemon(&mut page, shared, &snapshot);
    store(&mut page, &snapshot, now);
    tasks(&mut page, &snapshot);
    attempts(&mut page, &snapshot);
    if let Some((lanes, budgets)) = stored {
        queues(&mut page, lanes, now);
        models::budgets(&mut page, budgets);
    }
    agents::stand(&mut page, &snapshot, usages, now);
    models::stand(&mut page, &snapshot, now);
    models::used(&mut page, &snapshot);
    models::conventional(&mut page, &snapshot);
    page.write(&shared.requests)
}

fn daemon(page: &mut Page, shared: &Shared, snapshot: &Snapshot) {
    page.gauges(
        "build_info",
        "The program; always 1.",
        ["version"],
        [([shared.version.to_owned()], 1.0)],
    );
    page.gauge(
        "start_time_seconds",
        "When the daemon began to serve, since 1970.",
        seconds(shared.started),
    );
    page.gauge(
        "running",
        "Whether the daemon does its work: 0 while it starts, stops or has failed.",
        truth(snapshot.phase == Phase::Running),
    );
    page.gauge(
        "runtime_tasks",
        "Tasks of the daemon's runtime that are not over: connections, probes and the like.",
        count(vitals::runtime_tasks().unwrap_or_default()),
    );
    page.gauge(
        "runner_connected",
        "Whether there is a runner, without which nothing is started.",
        truth(snapshot.runner.is_some()),
    );
    page.gauge(
        "run_as_policy_unreadable",
        "Whether nothing is started because nobody can say as whom tasks may run.",
        truth(snapshot.closed.is_some()),
    );
    page.counter(
        "log_dropped_total",
        "Log lines that were dropped because nobody read them.",
        telemetry::dropped(),
    );
    let (sent, dropped) = shared
        .handle
        .intake()
        .map(Intake::counts)
        .unwrap_or_default();
    page.counter(
        "trace_spans_sent_total",
        "Spans of traces that the collector has.",
        sent,
    );
    page.counter(
        "trace_spans_dropped_total",
        "Spans of traces that nobody will see, since the collector did not take them.",
        dropped,
    );
}

fn store(page: &mut Page, snapshot: &Snapshot, now: Time) {
    page.counter(
        "commits_total",
        "Transactions that were committed.",
        snapshot.commits,
    );
    page.counter(
        "commands_total",
        "Commands that the engine carried out.",
        snapshot.commands,
    );
    page.gauge(
        "last_event",
        "Number of the last event.",
        count(u64::try_from(snapshot.last_event).unwrap_or_default()),
    );
    page.gauge(
        "disk_short",
        "Whether the disk has too little room for new tasks.",
        truth(snapshot.shortage.is_some()),
    );
    page.gauge(
        "disk_read_only",
        "Whether the file system of the state directory is read-only.",
        truth(snapshot.read_only),
    );
    page.gauge(
        "wal_bytes",
        "Length of the database's write-ahead log.",
        count(snapshot.log_bytes),
    );
    let late = snapshot.next_tick.map(|next| now.since(next));
    page.gauge(
        "schedule_lag_seconds",
        "How long the earliest schedule that is due has been so; 0 where none is.",
        late.unwrap_or_default().as_secs_f64(),
    );
}

fn tasks(page: &mut Page, snapshot: &Snapshot) {
    let counts = TaskState::ALL
        .into_iter()
        .map(|state| ([state.word().to_owned()], count(snapshot.count(state))));
    page.gauges(
        "tasks",
        "Tasks in each state that are kept.",
        ["state"],
        counts,
    );
    page.gauge(
        "slots",
        "Attempts that may run at once.",
        f64::from(snapshot.slots),
    );
    page.gauge(
        "slots_used",
        "Attempts that run, calls of models aside.",
        f64::from(snapshot.used),
    );
}

fn attempts(page: &mut Page, snapshot: &Snapshot) {
    let counted = &snapshot.counted;
    let ends = counted
        .by_class()
        .map(|(class, number)| ([class.word().to_owned()], count(number)));
    page.counters(
        "attempts_ended_total",
        "Attempts that ended, by the class of their end.",
        ["class"],
        ends,
    );
    page.spread(
        "attempt_duration_seconds",
        "From the start of an attempt's process to its end.",
        &counted.ran,
    );
    page.spread(
        "start_latency_seconds",
        "From when a task was ready until an attempt of it was given to the runner.",
        &counted.waited,
    );
}

fn queues(page: &mut Page, lanes: &[Waiting], now: Time) {
    let (own, others) = lanes.split_at(lanes.len().min(QUEUES));
    let states: [(&str, Count); 4] = [
        ("blocked", |queue| queue.blocked),
        ("scheduled", |queue| queue.scheduled),
        ("queued", |queue| queue.queued),
        ("running", |queue| queue.running),
    ];
    let mut rows = Vec::new();
    for (state, value) in states {
        let mut row = |queue: &str, value: u64| {
            rows.push(([queue.to_owned(), state.to_owned()], count(value)));
        };
        for (queue, _) in own {
            row(&queue.name, value(queue));
        }
        if !others.is_empty() {
            row(OTHERS, others.iter().map(|(queue, _)| value(queue)).sum());
        }
    }
    page.gauges(
        "queue_tasks",
        "Tasks of a queue that are open.",
        ["queue", "state"],
        rows,
    );
    let ages = own.iter().map(|(queue, since)| {
        let age = since.map_or(0.0, |since| now.since(since).as_secs_f64());
        ([queue.name.clone()], age)
    });
    page.gauges(
        "queue_oldest_seconds",
        "How long the task that is next in a queue has been ready; 0 where none waits.",
        ["queue"],
        ages,
    );
    let paused = own
        .iter()
        .map(|(queue, _)| ([queue.name.clone()], truth(queue.paused)));
    page.gauges(
        "queue_paused",
        "Whether a queue starts nothing, because somebody paused it.",
        ["queue"],
        paused,
    );
}

/// Prometheus has floating-point numbers only: above 2^53 the last digits go.
#[expect(
    clippy::cast_precision_loss,
    reason = "what is read here is plotted, not added up"
)]
const fn count(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "as for counts")]
const fn whole(value: i64) -> f64 {
    value as f64
}

fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn seconds(time: Time) -> f64 {
    whole(time.micros()) / 1e6
}
