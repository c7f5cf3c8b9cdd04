//! How long `GET /health`, with all its parts, and `GET /metrics` take while
//! the daemon has as much to do as it can: clients that submit one task after
//! the other, and tasks that run.
//!
//! A program, not a test: it prints what it finds and ends with 0 whether the
//! goals are met or not.
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

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::Parser;
use taskdaemon::clock;

use daemon::{Daemon, Runs};
use http::{Client, Request};
use report::{Goal, Report, quantile};

/// The longest that `/health` may take, in milliseconds.
const LIMIT: f64 = 100.0;

/// Measures how fast the daemon says how it is.
#[derive(Debug, Parser)]
struct Args {
    /// Also writes everything to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the database goes, on the disk to be measured.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// How long, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Clients that submit.
    #[arg(long, default_value_t = 8)]
    clients: u32,
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
        .prefix("health-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot make a directory in {}", args.dir.display()))?;
    let daemon = Daemon::start(base.path(), Runs::AtOnce(8))?;
    let mut report = Report::new("health", ["taskdaemon", "yardstick"], 1);
    let quiet = ask(&mut daemon.client()?, Duration::from_secs(2))?;
    rows(&mut report, "idle", &quiet);
    eprintln!("{} clients submit for {} s", args.clients, args.seconds);
    let over = AtomicBool::new(false);
    let (busy, submitted) = std::thread::scope(|scope| {
        let clients: Vec<anyhow::Result<Client>> =
            (0..args.clients).map(|_| daemon.client()).collect();
        let work: Vec<_> = clients
            .into_iter()
            .map(|client| scope.spawn(|| submit(client?, &over)))
            .collect();
        let busy = ask(&mut daemon.client()?, Duration::from_secs(args.seconds));
        over.store(true, Ordering::Relaxed);
        let mut submitted = 0;
        for thread in work {
            submitted += thread.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        anyhow::Ok((busy?, submitted))
    })?;
    rows(&mut report, "at full load", &busy);
    ensure!(submitted > 0, "nothing was submitted");
    let rate = f64::from(submitted) / f64::from(u32::try_from(args.seconds)?);
    report.value("submits meanwhile", "1/s", rate, Goal::None);
    daemon.stop_all()?;
    report.print();
    if let Some(file) = &args.json {
        std::fs::write(file, report.json()?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn submit(mut client: Client, over: &AtomicBool) -> anyhow::Result<u32> {
    let submit = format!(r#"{{"command":["{}"]}}"#, process::TRUE);
    let submit = Request::post("/v1/tasks", &submit);
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        client.ask(&submit)?;
        count += 1;
    }
    Ok(count)
}

/// What was measured, in milliseconds.
#[derive(Debug, Default)]
struct Waits {
    health: Vec<f64>,
    metrics: Vec<f64>,
    /// Answers that were not the best word.
    less: u32,
}

/// Asks some thirty times a second, as no monitor would.
fn ask(client: &mut Client, time: Duration) -> anyhow::Result<Waits> {
    let (health, metrics) = (Request::get("/health"), Request::get("/metrics"));
    let mut waits = Waits::default();
    let begun = clock::instant();
    while begun.elapsed() < time {
        let start = clock::instant();
        let answer = client.json(&health)?;
        waits.health.push(start.elapsed().as_secs_f64() * 1e3);
        waits.less += u32::from(answer["status"] != "healthy");
        ensure!(answer["parts"].is_array(), "no parts: {answer}");
        let start = clock::instant();
        client.ask(&metrics)?;
        waits.metrics.push(start.elapsed().as_secs_f64() * 1e3);
        process::pause(Duration::from_millis(25));
    }
    Ok(waits)
}

fn rows(report: &mut Report, when: &str, waits: &Waits) {
    for (what, samples, goal) in [
        ("/health", &waits.health, Goal::AtMost(LIMIT)),
        ("/metrics", &waits.metrics, Goal::None),
    ] {
        for (name, part) in [("p50", 0.5), ("p99", 0.99), ("most", 1.0)] {
            let name = format!("{what} {when}, {name}");
            report.value(&name, "ms", quantile(samples, part), goal);
        }
    }
    let less = f64::from(waits.less);
    report.value(&format!("not healthy {when}"), "", less, Goal::None);
}
