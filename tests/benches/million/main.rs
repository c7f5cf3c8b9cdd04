//! A million queued tasks: what the length of the queue costs whoever submits,
//! lists and shows, and what it costs the next start.
//!
//! A program, not a test: it prints what it finds and ends with 0 whether the
//! goals are met or not. The same questions are asked of an empty queue and of
//! a full one, on the same disk. Half of the tasks, and the half that would go
//! first, are of one group key of which one runs at a time.
#![expect(
    clippy::print_stderr,
    reason = "a program for people; the table is printed by the report"
)]

mod claim;
#[path = "../spine/daemon.rs"]
#[expect(dead_code, reason = "the spine uses more of it")]
mod daemon;
#[path = "../spine/http.rs"]
#[expect(dead_code, reason = "the plans use more of it")]
mod http;
#[path = "../spine/process.rs"]
#[expect(dead_code, reason = "the spine uses more of it")]
mod process;
#[path = "../spine/report.rs"]
#[expect(
    dead_code,
    clippy::print_stdout,
    reason = "the spine uses more of it; it prints the table"
)]
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::Value;
use taskdaemon::clock;

use daemon::{Daemon, Runs};
use http::{Client, Request};
use report::{Goal, Report, quantile};

/// Tasks in one request.
const BATCH: u64 = 10_000;
/// Questions of each kind.
const QUESTIONS: u32 = 1_000;

/// Measures what a long queue costs.
#[derive(Debug, Parser)]
struct Args {
    /// Also writes everything to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the databases go, on the disk to be measured.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Tasks in the full queue.
    #[arg(long, default_value_t = 1_000_000)]
    tasks: u64,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // `tests/bench` says where it was called; cargo itself moves to the package.
    if let Some(here) = std::env::var_os("BENCH_CALLED_FROM") {
        std::env::set_current_dir(here).context("cannot go back to where this was called")?;
    }
    let base = tempfile::Builder::new()
        .prefix("million-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot make a directory in {}", args.dir.display()))?;
    let mut report = Report::new("million", ["full queue", "empty queue"], 1);
    let dir = |name: &str| base.path().join(name);
    eprintln!("an empty queue");
    let empty = Asked::of(&dir("empty"), 0, &mut report)?;
    eprintln!("a queue of {}", args.tasks);
    let full = Asked::of(&dir("full"), args.tasks, &mut report)?;
    for (name, full, empty) in [
        ("submit to answer", &full.submit, &empty.submit),
        ("list, 100 tasks", &full.list, &empty.list),
        ("list, 100 of a state", &full.list_state, &empty.list_state),
        ("show", &full.show, &empty.show),
    ] {
        both(&mut report, name, full, empty, Goal::RatioAtMost(2.0));
    }
    eprintln!("claims");
    let empty = claim::times(&dir("empty"))?;
    let full = claim::times(&dir("full"))?;
    both(
        &mut report,
        "end and next claim, on disk",
        &full,
        &empty,
        Goal::RatioAtMost(2.0),
    );
    let p99 = quantile(&full, 0.99);
    report.value("the same, p99, in full", "ms", p99, Goal::AtMost(5.0));
    report.print();
    if let Some(file) = &args.json {
        std::fs::write(file, report.json()?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn both(report: &mut Report, name: &str, full: &[f64], empty: &[f64], goal: Goal) {
    for part in [0.5, 0.99] {
        let name = format!("{name}, p{}", part * 100.0);
        report.pair(
            &name,
            "ms",
            quantile(full, part),
            quantile(empty, part),
            goal,
        );
    }
}

/// Times of questions to a daemon, in milliseconds.
struct Asked {
    submit: Vec<f64>,
    list: Vec<f64>,
    list_state: Vec<f64>,
    show: Vec<f64>,
}

impl Asked {
    fn of(dir: &Path, tasks: u64, report: &mut Report) -> anyhow::Result<Self> {
        let daemon = Daemon::start(dir, Runs::Nothing)?;
        let mut client = daemon.client()?;
        fill(&mut client, tasks, report)?;
        // What lists and shows find in the empty queue, too.
        let submit = Request::post("/v1/tasks", r#"{"command":["/bin/true"],"name":"million"}"#);
        let submitted = timed(&mut client, |_| submit.clone())?;
        let last = client.json(&submit)?;
        let last = last.pointer("/id").and_then(Value::as_u64);
        let last = last.context("an answer without a number")?;
        let most = u32::try_from(last)?;
        let asked = Self {
            submit: submitted,
            list: timed(&mut client, |_| Request::get("/v1/tasks?limit=100"))?,
            list_state: timed(&mut client, |_| {
                Request::get("/v1/tasks?state=queued&limit=100")
            })?,
            // All over the queue, the same at every run.
            show: timed(&mut client, |turn| {
                let id = 1 + turn.wrapping_mul(2_654_435_761) % most;
                Request::get(&format!("/v1/tasks/{id}"))
            })?,
        };
        if tasks > 0 {
            let (all, own) = process::memory(daemon.pid())?;
            report.value("daemon's memory", "MiB", all, Goal::None);
            report.value("of it its own, not files'", "MiB", own, Goal::AtMost(64.0));
        }
        daemon.stop_all()?;
        if tasks > 0 {
            let daemon = Daemon::start(dir, Runs::Nothing)?;
            let ready = daemon.ready.as_secs_f64() * 1e3;
            report.value("exec to READY", "ms", ready, Goal::AtMost(200.0));
            daemon.stop_all()?;
        }
        Ok(asked)
    }
}

fn fill(client: &mut Client, tasks: u64, report: &mut Report) -> anyhow::Result<()> {
    if tasks == 0 {
        return Ok(());
    }
    let list = |task: &str| {
        let tasks = vec![task; usize::try_from(BATCH).unwrap_or(usize::MAX)].join(",");
        Request::post("/v1/tasks", &format!("{{\"tasks\":[{tasks}]}}"))
    };
    let grouped = list(r#"{"command":["/bin/true"],"group":"one","priority":100}"#);
    let plain = list(r#"{"command":["/bin/true"]}"#);
    let begun = clock::instant();
    for batch in 0..tasks.div_ceil(BATCH) {
        let request = if batch % 2 == 0 { &grouped } else { &plain };
        client.ask(request)?;
    }
    let rate = process::count(tasks) / begun.elapsed().as_secs_f64();
    report.value(
        "tasks submitted 10,000 to a request",
        "/s",
        rate,
        Goal::None,
    );
    // The figures of the last turn are there once another one has begun.
    client.ask(&Request::get("/health"))?;
    let status = client.json(&Request::get("/v1/status"))?;
    let queued = status.pointer("/tasks/queued").and_then(Value::as_u64);
    ensure!(queued >= Some(tasks), "{tasks} tasks should wait: {status}");
    Ok(())
}

fn timed(client: &mut Client, request: impl Fn(u32) -> Request) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for turn in 0..QUESTIONS + QUESTIONS / 10 {
        let request = request(turn);
        let begun = clock::instant();
        client.ask(&request)?;
        let took = begun.elapsed();
        // The first tenth warms up.
        if turn >= QUESTIONS / 10 {
            times.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok(times)
}
