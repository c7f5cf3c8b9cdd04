//! `GET /metrics`: what the daemon counts, in the words of
//! Prometheus. A page is made anew for each question from the engine's figures, so
//! nothing is kept twice; only requests are counted here (`requests`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use prometheus::process_collector::ProcessCollector;
use prometheus::{GaugeVec, IntCounter, Opts, Registry, TEXT_FORMAT, TextEncoder};

use crate::clock;
use crate::engine::snapshot::{Phase, Snapshot};
use crate::model::health::{Level, Part, worst};
use crate::model::queue::Lane;
use crate::model::task::State as TaskState;
use crate::model::time::Time;
use crate::telemetry;

use super::problem::Problem;
use super::pulse::Beat;
use super::queues::QueueInfo;
use super::requests::Requests;
use super::{Shared, health};

/// How long the database may take before the page is answered without what only
/// that knows. Below Prometheus' own default of ten seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Queues that have rows of their own, first by name; the others are one,
/// which is called so.
const QUEUES: usize = 100;
const OTHERS: &str = "(others)";

/// A figure of a queue.
type Count = fn(&QueueInfo) -> u64;

/// A page that is being made. What is wrong with a name or a label is wrong for
/// every page, so a test finds it.
struct Page {
    registry: Registry,
    broken: prometheus::Result<()>,
}

impl Page {
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            registry: Registry::new_custom(Some("taskdaemon".to_owned()), None)?,
            broken: Ok(()),
        })
    }

    fn note(&mut self, done: prometheus::Result<()>) {
        if self.broken.is_ok() {
            self.broken = done;
        }
    }

    /// One figure with several rows, each with a value of each label.
    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([String; N], f64)>,
    ) {
        let done = GaugeVec::new(Opts::new(name, help), &labels).and_then(|family| {
            for (values, value) in rows {
                family.get_metric_with_label_values(&values)?.set(value);
            }
            self.registry.register(Box::new(family))
        });
        self.note(done);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [], [([], value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let done = IntCounter::new(name, help).and_then(|counter| {
            counter.inc_by(value);
            self.registry.register(Box::new(counter))
        });
        self.note(done);
    }

    /// The page as text, with what all programs tell of their process.
    fn write(mut self, requests: &Requests) -> prometheus::Result<String> {
        let done = requests.show(&self.registry);
        self.note(done);
        self.broken?;
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        let mut families = process.gather();
        families.extend(self.registry.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let lanes = tokio::time::timeout(PATIENCE, shared.handle.queues()).await;
    let lanes = lanes.ok().and_then(Result::ok);
    let (beat, parts) = health::parts(&shared).await;
    let text = page(&shared, lanes.as_deref(), beat, &parts).map_err(|error| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(
            status,
            "internal",
            format!("cannot write down the figures: {error}"),
        )
    })?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}

fn page(
    shared: &Shared,
    lanes: Option<&[Lane]>,
    beat: Beat,
    parts: &[Part],
) -> prometheus::Result<String> {
    let snapshot = shared.handle.snapshot();
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
        "Whether the database was read in two seconds; without that, rows of queues are missing.",
        truth(lanes.is_some()),
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
    store(&mut page, &snapshot);
    tasks(&mut page, &snapshot);
    queues(&mut page, lanes.unwrap_or_default());
    models(&mut page, &snapshot, clock::now());
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
}

fn store(page: &mut Page, snapshot: &Snapshot) {
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
        "long_log_bytes",
        "Length of the database's log while it is much longer than it should be, otherwise 0.",
        count(snapshot.long_log.unwrap_or_default()),
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

fn queues(page: &mut Page, lanes: &[Lane]) {
    let infos: Vec<QueueInfo> = lanes.iter().map(QueueInfo::from).collect();
    let (own, others) = infos.split_at(infos.len().min(QUEUES));
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
        for queue in own {
            row(&queue.name, value(queue));
        }
        if !others.is_empty() {
            row(OTHERS, others.iter().map(value).sum());
        }
    }
    page.gauges(
        "queue_tasks",
        "Tasks of a queue that are open.",
        ["queue", "state"],
        rows,
    );
    let paused = own
        .iter()
        .map(|queue| ([queue.name.clone()], truth(queue.paused)));
    page.gauges(
        "queue_paused",
        "Whether a queue starts nothing, because somebody paused it.",
        ["queue"],
        paused,
    );
}

fn models(page: &mut Page, snapshot: &Snapshot, now: Time) {
    let accounts = &snapshot.calls;
    let (mut running, mut open, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for (name, route) in &accounts.routes {
        let Some(account) = accounts.accounts.get(&route.account) else {
            continue;
        };
        let labels = || [name.clone(), route.provider.clone()];
        let (gauge, shut) = account.now(now);
        running.push((labels(), f64::from(account.running)));
        open.push((labels(), truth(shut.is_none())));
        for limit in gauge.left(&account.limits) {
            let [model, provider] = labels();
            let what = limit.dimension.words().to_owned();
            let labels = [model, provider, limit.quota.to_string(), what];
            left.push((labels, whole(limit.now)));
        }
    }
    let two = ["model", "provider"];
    page.gauges(
        "model_calls",
        "Calls of a model's account that are made now.",
        two,
        running,
    );
    page.gauges(
        "model_open",
        "Whether a small prompt would be sent to a model now.",
        two,
        open,
    );
    page.gauges(
        "model_limit_left",
        "What is left of a limit of a model's account; negative is a debt.",
        ["model", "provider", "limit", "what"],
        left,
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
