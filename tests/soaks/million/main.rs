//! SOAK-1 and the short form of SOAK-5: a million tasks of mixed priority from
//! four clients, on a daemon run by hand. None may be lost, none may run twice,
//! and when all is over nothing may be left of them: no zombie, no descriptor,
//! no thread.
//!
//! What ran is judged by what the tasks wrote themselves. Meanwhile memory,
//! descriptors, threads and the write-ahead log are looked at; the trend of the
//! memory is given as the median of the slopes between all pairs of samples.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

#[path = "../../benches/spine/daemon.rs"]
#[expect(dead_code, reason = "the spine uses more of it")]
mod daemon;
#[path = "../../benches/spine/http.rs"]
#[expect(dead_code, reason = "others use more of it")]
mod http;
mod marks;
#[path = "../../benches/spine/process.rs"]
#[expect(dead_code, reason = "the spine uses more of it")]
mod process;
mod samples;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::{Value, json};
use taskdaemon::clock;

use daemon::{Daemon, Runs};
use http::{Client, Request};
use marks::Marks;
use samples::{Samples, State};

/// A million tasks: none lost, none twice, nothing left behind.
#[derive(Debug, Parser)]
struct Args {
    /// How many tasks.
    #[arg(long, default_value_t = 1_000_000)]
    tasks: u64,
    /// How many of them run at once.
    #[arg(long, default_value_t = 16)]
    slots: u32,
    /// Submits no more after so many minutes, however many tasks there are.
    #[arg(long)]
    minutes: Option<u64>,
    /// Where the database goes.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Also writes the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Clients that submit.
const CLIENTS: u64 = 4;
/// Tasks in one request.
const BATCH: u64 = 100;
/// Clients pause while so many tasks wait, so that the queue is neither empty
/// nor all there is.
const BACKLOG: u64 = 20_000;
/// Time between two looks at processes and queue.
const LOOK: Duration = Duration::from_millis(500);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(here) = std::env::var_os("SOAK_CALLED_FROM") {
        std::env::set_current_dir(here).context("cannot go back to where this was called")?;
    }
    let base = tempfile::Builder::new()
        .prefix("soak-million-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot make a directory in {}", args.dir.display()))?;
    let marks = Marks::new(base.path());
    let daemon = Daemon::start(base.path(), Runs::AtOnce(args.slots))?;
    let submitted = warm_up(&daemon, &marks, args.slots)?;
    let before = State::of(&daemon, base.path())?;
    let begun = clock::instant();
    let (told, samples) = work(&args, &daemon, &marks, base.path())?;
    let took = begun.elapsed();
    let after = settled(&daemon, base.path(), &before)?;
    let status = daemon.client()?.json(&Request::get("/v1/status"))?;
    daemon.stop_all()?;
    let ran = marks.read()?;
    let tasks = u64::try_from(told.len())?;
    let lost = ran.lost(told.into_iter().chain(submitted))?;
    let rate = process::count(tasks) / took.as_secs_f64();
    let (doubled, again) = (ran.doubled(), ran.again);
    println!(
        "{tasks} tasks in {:.1} s: {rate:.0} tasks/s; {lost} lost, {doubled} run twice, {again} run again",
        took.as_secs_f64()
    );
    println!("{before}, before");
    println!("{after}, after");
    println!("{samples}");
    if let Some(file) = &args.json {
        let figures = json!({
            "tasks": tasks, "seconds": took.as_secs_f64(), "tasks_per_second": rate, "lost": lost,
            "doubled": doubled, "run_again": again, "before": before.json(), "after": after.json(),
            "memory_slope_kib_per_hour": samples.slope(),
        });
        std::fs::write(file, format!("{figures:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    ensure!(lost == 0, "{lost} tasks were acknowledged and never ran");
    ensure!(doubled == 0 && again == 0, "{doubled} tasks ran twice");
    for bad in ["failed", "cancelled", "skipped", "expired"] {
        let count = status.pointer(&format!("/tasks/{bad}"));
        ensure!(
            count.and_then(Value::as_u64) == Some(0),
            "some are {bad}: {status}"
        );
    }
    ensure!(after.is_no_more_than(&before), "something is left behind");
    Ok(())
}

/// Some tasks before it counts: what is made once is made then. Returns their
/// numbers.
fn warm_up(daemon: &Daemon, marks: &Marks, slots: u32) -> anyhow::Result<Vec<u64>> {
    let mut told = Vec::new();
    let mut client = daemon.client()?;
    for _ in 0..10 {
        told.extend(submit(&mut client, marks, 0, u64::from(slots) * 10)?);
    }
    wait_until_done(&mut client)?;
    Ok(told)
}

/// All clients at work, until the last task is over.
fn work(
    args: &Args,
    daemon: &Daemon,
    marks: &Marks,
    base: &std::path::Path,
) -> anyhow::Result<(Vec<u64>, Samples)> {
    let left = AtomicU64::new(args.tasks);
    let (full, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let limit = args
        .minutes
        .map(|minutes| Duration::from_secs(minutes * 60));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (left, full, over) = (&left, &full, &over);
                scope.spawn(move || submit_all(daemon, marks, number, left, full, over))
            })
            .collect();
        let samples = watch(daemon, base, &left, &full, &over, limit);
        // Whatever the watch has met, the clients end.
        over.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for client in clients {
            told.extend(process::joined(client.join())?);
        }
        Ok((told, samples?))
    })
}

fn submit_all(
    daemon: &Daemon,
    marks: &Marks,
    number: u64,
    left: &AtomicU64,
    full: &AtomicBool,
    over: &AtomicBool,
) -> anyhow::Result<Vec<u64>> {
    let mut client = daemon.client()?;
    let mut told = Vec::new();
    while !over.load(Ordering::Relaxed) {
        if full.load(Ordering::Relaxed) {
            process::pause(Duration::from_millis(20));
            continue;
        }
        let take = |left: u64| left.checked_sub(BATCH.min(left)).filter(|_| left > 0);
        let Ok(before) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
            break;
        };
        told.extend(submit(&mut client, marks, number, BATCH.min(before))?);
    }
    Ok(told)
}

/// Hands in some tasks in one request, of different priorities.
fn submit(client: &mut Client, marks: &Marks, seed: u64, tasks: u64) -> anyhow::Result<Vec<u64>> {
    let command = marks.command();
    let one = |place: u64| json!({ "command": command, "priority": (place + seed) % 10 });
    let tasks: Vec<Value> = (0..tasks).map(one).collect();
    let body = json!({ "tasks": tasks }).to_string();
    let answer = client.json(&Request::post("/v1/tasks", &body))?;
    let told = answer.pointer("/tasks").and_then(Value::as_array);
    let told = told.context("an answer without tasks")?;
    let id = |task: &Value| task.pointer("/id").and_then(Value::as_u64);
    told.iter()
        .map(|task| id(task).with_context(|| format!("no number: {task}")))
        .collect()
}

/// Looks at everything until all is submitted and over.
fn watch(
    daemon: &Daemon,
    base: &std::path::Path,
    left: &AtomicU64,
    full: &AtomicBool,
    over: &AtomicBool,
    limit: Option<Duration>,
) -> anyhow::Result<Samples> {
    let mut client = daemon.client()?;
    let mut samples = Samples::default();
    let begun = clock::instant();
    let mut told = begun;
    loop {
        process::pause(LOOK);
        let open = open_tasks(&mut client)?;
        full.store(open > BACKLOG, Ordering::Relaxed);
        let state = State::of(daemon, base)?;
        if told.elapsed() > Duration::from_secs(30) {
            told = clock::instant();
            let left = left.load(Ordering::Relaxed);
            eprintln!("{left} to submit, {open} open; {state}");
        }
        samples.push(begun.elapsed(), state);
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            over.store(true, Ordering::Relaxed);
        }
        let submitted = left.load(Ordering::Relaxed) == 0 || over.load(Ordering::Relaxed);
        if submitted && open_tasks(&mut client)? == 0 {
            return Ok(samples);
        }
    }
}

/// Tasks that are not over.
fn open_tasks(client: &mut Client) -> anyhow::Result<u64> {
    let status = client.json(&Request::get("/v1/status"))?;
    let states = [
        "blocked",
        "scheduled",
        "queued",
        "running",
        "paused",
        "stopping",
    ];
    let count = |state| {
        let count = status.pointer(&format!("/tasks/{state}"));
        count.and_then(Value::as_u64).unwrap_or_default()
    };
    Ok(states.into_iter().map(count).sum())
}

fn wait_until_done(client: &mut Client) -> anyhow::Result<()> {
    while open_tasks(client)? > 0 {
        process::pause(Duration::from_millis(20));
    }
    Ok(())
}

/// The state of things once what was done last is done with.
fn settled(daemon: &Daemon, base: &std::path::Path, before: &State) -> anyhow::Result<State> {
    let limit = clock::instant() + Duration::from_secs(10);
    loop {
        let state = State::of(daemon, base)?;
        if state.is_no_more_than(before) || clock::instant() > limit {
            return Ok(state);
        }
        process::pause(Duration::from_millis(50));
    }
}
