//! SOAK-2: two hundred thousand tasks while the daemon is killed with SIGKILL
//! every few seconds, five hundred times and more.
//!
//! Clients submit one task at a time with a key, and repeat with the same key
//! until they are told a number. The journal of what they were told, and what
//! the tasks wrote themselves, are compared at the end: each acknowledged task
//! has run once. The runner is not killed, so nothing has a reason to run again.
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
#[path = "../million/marks.rs"]
mod marks;
#[path = "../../benches/spine/process.rs"]
#[expect(dead_code, reason = "the spine uses more of it")]
mod process;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::{Value, json};
use taskdaemon::clock;

use daemon::{Daemon, Runs};
use http::{Client, Request};
use marks::Marks;

/// Kills of the daemon under load; nothing acknowledged is lost or run twice.
#[derive(Debug, Parser)]
struct Args {
    /// Least number of tasks.
    #[arg(long, default_value_t = 200_000)]
    tasks: u64,
    /// Least number of kills.
    #[arg(long, default_value_t = 500)]
    kills: u32,
    /// Shortest and longest time between two kills, in milliseconds.
    #[arg(long, num_args = 2, default_values_t = [1_000, 3_000])]
    every: Vec<u64>,
    /// Ends after so many minutes, however many there were.
    #[arg(long)]
    minutes: Option<u64>,
    /// Chooses the moments of the kills.
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
/// Tasks that run at once.
const RUNS: Runs = Runs::AtOnce(8);
/// Clients pause while so many tasks wait.
const BACKLOG: u64 = 2_000;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(here) = std::env::var_os("SOAK_CALLED_FROM") {
        std::env::set_current_dir(here).context("cannot go back to where this was called")?;
    }
    let base = tempfile::Builder::new()
        .prefix("soak-kills-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot make a directory in {}", args.dir.display()))?;
    let marks = Marks::new(base.path());
    let mut daemon = Daemon::start(base.path(), RUNS)?;
    let runner = daemon.runner();
    let begun = clock::instant();
    let (kills, told) = under_fire(&args, &mut daemon, &marks)?;
    let mut client = daemon.client()?;
    while open_tasks(&mut client)? > 0 {
        process::pause(Duration::from_millis(20));
    }
    let took = begun.elapsed();
    ensure!(daemon.runner() == runner, "the runner is another one");
    let status = client.json(&Request::get("/v1/status"))?;
    daemon.stop_all()?;
    let ran = marks.read()?;
    let acknowledged = u64::try_from(told.len())?;
    let lost = ran.lost(told.iter().copied())?;
    let (tasks, doubled, again) = (ran.tasks(), ran.doubled(), ran.again);
    println!(
        "{kills} kills in {:.1} min: {acknowledged} tasks acknowledged, {tasks} ran; \
         {lost} lost, {doubled} run twice, {again} run again",
        took.as_secs_f64() / 60.0
    );
    if let Some(file) = &args.json {
        let figures = json!({
            "kills": kills, "seconds": took.as_secs_f64(), "acknowledged": acknowledged,
            "ran": tasks, "lost": lost, "doubled": doubled, "run_again": again,
        });
        std::fs::write(file, format!("{figures:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    ensure!(lost == 0, "{lost} tasks were acknowledged and never ran");
    ensure!(
        doubled == 0 && again == 0,
        "{doubled} tasks ran twice, {again} again"
    );
    let mut unique = told;
    unique.sort_unstable();
    unique.dedup();
    ensure!(
        unique.len() == usize::try_from(acknowledged)?,
        "one number for two keys"
    );
    // Of each client one task at most was accepted and not heard of.
    let unheard = u64::try_from(tasks)? - acknowledged;
    ensure!(unheard <= CLIENTS, "{unheard} tasks that nobody asked for");
    for bad in ["failed", "cancelled", "skipped", "expired"] {
        let count = status.pointer(&format!("/tasks/{bad}"));
        ensure!(
            count.and_then(Value::as_u64) == Some(0),
            "some are {bad}: {status}"
        );
    }
    Ok(())
}

/// Kills the daemon again and again while clients submit. Returns how often,
/// and the numbers that the clients were told.
fn under_fire(args: &Args, daemon: &mut Daemon, marks: &Marks) -> anyhow::Result<(u32, Vec<u64>)> {
    let socket = daemon.socket();
    let told = AtomicU64::new(0);
    let (full, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (socket, told, full, over) = (&socket, &told, &full, &over);
                scope.spawn(move || submit_all(socket, marks, client, told, full, over))
            })
            .collect();
        let kills = kill_all(args, daemon, &told, &full);
        over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for client in clients {
            all.extend(process::joined(client.join())?);
        }
        Ok((kills?, all))
    })
}

fn kill_all(
    args: &Args,
    daemon: &mut Daemon,
    told: &AtomicU64,
    full: &AtomicBool,
) -> anyhow::Result<u32> {
    let limit = args
        .minutes
        .map(|minutes| Duration::from_secs(minutes * 60));
    let [shortest, longest] = [0, 1].map(|place| args.every.get(place).copied().unwrap_or(1_000));
    let begun = clock::instant();
    let mut random = args.seed;
    let mut kills = 0;
    while kills < args.kills || told.load(Ordering::Relaxed) < args.tasks {
        // Knuth's multiplier; the upper bits are the random ones.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let span = longest.saturating_sub(shortest).max(1);
        let at = clock::instant() + Duration::from_millis(shortest + (random >> 33) % span);
        let mut client = daemon.client()?;
        while clock::instant() < at {
            full.store(open_tasks(&mut client)? > BACKLOG, Ordering::Relaxed);
            process::pause(Duration::from_millis(50).min(at - clock::instant().min(at)));
        }
        daemon.kill()?;
        kills += 1;
        daemon.start_again(RUNS)?;
        if kills % 50 == 0 {
            eprintln!(
                "{kills} kills, {} acknowledged",
                told.load(Ordering::Relaxed)
            );
        }
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            break;
        }
    }
    Ok(kills)
}

/// Submits one task after the other; each until there is an answer.
fn submit_all(
    socket: &Path,
    marks: &Marks,
    number: u64,
    count: &AtomicU64,
    full: &AtomicBool,
    over: &AtomicBool,
) -> anyhow::Result<Vec<u64>> {
    let mut told = Vec::new();
    let mut open: Option<Client> = None;
    for place in 0_u64.. {
        let body = json!({ "command": marks.command(), "priority": place % 10 }).to_string();
        let request = Request::post_with_key("/v1/tasks", &format!("{number}-{place}"), &body);
        loop {
            if over.load(Ordering::Relaxed) {
                return Ok(told);
            }
            if full.load(Ordering::Relaxed) {
                process::pause(Duration::from_millis(20));
                continue;
            }
            // An error says nothing of what has become of the request.
            let client = open.take().map_or_else(|| Client::connect(socket), Ok);
            let answered = client.and_then(|mut client| {
                let task = client.json(&request)?;
                Ok((client, task))
            });
            if let Ok((client, task)) = answered {
                open = Some(client);
                let id = task.pointer("/id").and_then(Value::as_u64);
                told.push(id.with_context(|| format!("no number: {task}"))?);
                count.fetch_add(1, Ordering::Relaxed);
                break;
            }
            process::pause(Duration::from_millis(2));
        }
    }
    Ok(told)
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
