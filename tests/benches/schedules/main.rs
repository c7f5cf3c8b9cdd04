//! Ten thousand schedules that fire at the same moment: that each makes its
//! one task, and how long the API lets others wait meanwhile.
//!
//! A program, not a test: it prints what it finds and ends with 0 whether the
//! goals are met or not, but with an error when a task is missing or doubled.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

#[path = "../spine/daemon.rs"]
#[expect(dead_code, reason = "shared with the other benchmarks")]
mod daemon;
#[path = "../spine/http.rs"]
#[expect(dead_code, reason = "the plans use more of it")]
mod http;
#[path = "../spine/process.rs"]
#[expect(dead_code, reason = "shared with the other benchmarks")]
mod process;
#[path = "../spine/report.rs"]
#[expect(dead_code, reason = "shared with the other benchmarks")]
mod report;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use jiff::Timestamp;
use serde_json::{Value, json};
use taskdaemon::clock;
use taskdaemon::model::time::Time;

use daemon::{Daemon, Runs};
use http::{Client, Request};
use report::{Goal, Report, quantile};

/// Measures the API while many schedules fire at once.
#[derive(Debug, Parser)]
struct Args {
    /// Also writes everything to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the database goes, on the disk to be measured.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// How many schedules.
    #[arg(long, default_value_t = 10_000)]
    schedules: u32,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(here) = std::env::var_os("BENCH_CALLED_FROM") {
        std::env::set_current_dir(here).context("cannot go back to where this was called")?;
    }
    let base = tempfile::Builder::new()
        .prefix("schedules-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot make a directory in {}", args.dir.display()))?;
    let daemon = Daemon::start(base.path(), Runs::Storm(16))?;
    let mut client = daemon.client()?;
    // Time enough to make them all.
    let lead = Duration::from_secs(5) + Duration::from_millis(5) * args.schedules;
    let moment = clock::now().after(lead);
    let moment = Time::from_micros(moment.micros() / 1_000_000 * 1_000_000);
    eprintln!("making {} schedules", args.schedules);
    make(&mut client, args.schedules, moment)?;
    let mut report = Report::new("schedules", ["taskdaemon", "yardstick"], 1);
    let quiet = ask_until(&mut client, clock::now().after(Duration::from_secs(2)))?;
    rows(&mut report, "before it", &quiet, false);
    ensure!(clock::now() < moment, "making the schedules took too long");
    let others = quiet.len() + ask_until(&mut client, moment)?.len();
    eprintln!("they fire");
    let begun = clock::instant();
    let busy = ask_until_all(&mut client, args.schedules, others)?;
    let took = begun.elapsed();
    rows(&mut report, "while they fire and run", &busy, true);
    report.value(
        "until all tasks are over",
        "s",
        took.as_secs_f64(),
        Goal::None,
    );
    each_once(&mut client, args.schedules, moment)?;
    daemon.stop_all()?;
    report.print();
    if let Some(file) = &args.json {
        std::fs::write(file, report.json()?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// All with the same nominal time, and then not for a day: an interval fires
/// first when it has passed once.
fn make(client: &mut Client, count: u32, moment: Time) -> anyhow::Result<()> {
    let at = Timestamp::from_microsecond(moment.before(Duration::from_hours(24)).micros())?;
    for number in 0..count {
        let body = json!({
            "name": format!("s{number}"),
            "when": format!("every 1d from {at}"),
            "task": {"command": [process::TRUE]},
        });
        client.ask(&Request::post("/v1/schedules", &body.to_string()))?;
    }
    Ok(())
}

/// Asks like a user: a listing and a submit in turn, a few milliseconds apart.
fn ask(client: &mut Client) -> anyhow::Result<f64> {
    let list = Request::get("/v1/tasks?limit=20");
    let submit = format!(r#"{{"command":["{}"],"queue":"other"}}"#, process::TRUE);
    let submit = Request::post("/v1/tasks", &submit);
    let mut longest = Duration::ZERO;
    for request in [list, submit] {
        let begun = clock::instant();
        client.ask(&request)?;
        longest = longest.max(begun.elapsed());
    }
    process::pause(Duration::from_millis(5));
    Ok(longest.as_secs_f64() * 1e3)
}

fn ask_until(client: &mut Client, end: Time) -> anyhow::Result<Vec<f64>> {
    let mut waits = Vec::new();
    while clock::now() < end {
        waits.push(ask(client)?);
    }
    Ok(waits)
}

/// Until the tasks of all schedules are over, beside those that were asked for.
fn ask_until_all(client: &mut Client, count: u32, others: usize) -> anyhow::Result<Vec<f64>> {
    let mut waits = Vec::new();
    let end = clock::now().after(Duration::from_secs(120));
    loop {
        for _ in 0..10 {
            waits.push(ask(client)?);
        }
        let status = client.json(&Request::get("/v1/status"))?;
        let of = |state: &str| status["tasks"][state].as_u64().unwrap_or_default();
        let open = of("queued") + of("running") + of("scheduled");
        let all = u64::from(count) + u64::try_from(others + waits.len())?;
        if of("succeeded") + 5 >= all && open < 5 {
            return Ok(waits);
        }
        ensure!(clock::now() < end, "not over after two minutes: {status}");
    }
}

fn rows(report: &mut Report, when: &str, waits: &[f64], judged: bool) {
    report.value(
        &format!("API, slower of list and submit, p50 {when}"),
        "ms",
        quantile(waits, 0.5),
        Goal::None,
    );
    let goal = if judged {
        Goal::AtMost(250.0)
    } else {
        Goal::None
    };
    report.value(
        &format!("the same, p99 {when}"),
        "ms",
        quantile(waits, 0.99),
        goal,
    );
    report.value(
        &format!("the same, longest {when}"),
        "ms",
        quantile(waits, 1.0),
        Goal::None,
    );
}

/// Each schedule has made its task, once, for that moment.
fn each_once(client: &mut Client, count: u32, moment: Time) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    let mut tasks = 0_u32;
    let mut path = "/v1/tasks?limit=1000".to_owned();
    loop {
        let page = client.json(&Request::get(&path))?;
        let list = page["tasks"].as_array().context("a page without tasks")?;
        for task in list {
            let Some(schedule) = task["schedule"].as_i64() else {
                continue;
            };
            let nominal: Timestamp = text(&task["nominal_at"])?.parse()?;
            ensure!(
                nominal.as_microsecond() == moment.micros(),
                "another time: {task}"
            );
            ensure!(seen.insert(schedule), "a second task: {task}");
            tasks += 1;
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/tasks?limit=1000&cursor={next}"),
            None => break,
        }
    }
    ensure!(tasks == count, "{tasks} tasks of {count} schedules");
    eprintln!("each of {count} schedules made its task once");
    Ok(())
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().context("not a text")
}
