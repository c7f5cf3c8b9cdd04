//! SOAK-12: a daemon that is killed with a million tasks queued and a hundred
//! running comes back: how long until it is ready, until it starts the next
//! task, and whether all that ran is still its own.
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
#[expect(dead_code, reason = "others use more of it")]
mod marks;
#[path = "../../benches/spine/process.rs"]
#[expect(dead_code, reason = "the spine uses more of it")]
mod process;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use taskdaemon::clock;

use daemon::{Daemon, Runs};
use http::{Client, Request};
use marks::Marks;

/// Recovery with many rows.
#[derive(Debug, Parser)]
struct Args {
    /// Tasks that are queued.
    #[arg(long, default_value_t = 1_000_000)]
    tasks: u64,
    /// Tasks that run.
    #[arg(long, default_value_t = 100)]
    running: u32,
    /// How often the daemon is killed.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
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

/// Tasks in one request.
const BATCH: u64 = 10_000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What SOAK-12 asks for.
const READY: Duration = Duration::from_secs(2);
const CLAIM: Duration = Duration::from_millis(2_500);

/// Times of one recovery, from `exec` on.
#[derive(Debug)]
struct Times {
    ready: Duration,
    adopted: Duration,
    claimed: Duration,
    /// Bytes of the write-ahead log that it found.
    log: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(here) = std::env::var_os("SOAK_CALLED_FROM") {
        std::env::set_current_dir(here).context("cannot go back to where this was called")?;
    }
    let base = tempfile::Builder::new()
        .prefix("soak-recovery-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("cannot make a directory in {}", args.dir.display()))?;
    let gate = base.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU)?;
    let mut daemon = Daemon::start(base.path(), Runs::AtOnce(args.running))?;
    let mut client = daemon.client()?;
    let held = hold(&mut client, &gate, args.running)?;
    eprintln!("{} tasks run", held.len());
    fill(&mut client, args.tasks)?;
    eprintln!("{} tasks wait", args.tasks);
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        let times = recover(&mut daemon, base.path(), args.running, round)?;
        println!(
            "READY {:.1?}, all {} running tasks adopted {:.1?}, next task started {:.1?}, \
             with {:.1} MiB of log",
            times.ready,
            args.running,
            times.adopted,
            times.claimed,
            process::count(times.log) / 1024.0 / 1024.0
        );
        rounds.push(times);
    }
    release(&mut daemon, &gate, &held)?;
    daemon.stop_all()?;
    let median = |of: fn(&Times) -> Duration| {
        let mut all: Vec<_> = rounds.iter().map(of).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let ready = median(|times| times.ready);
    let adopted = median(|times| times.adopted);
    let claimed = median(|times| times.claimed);
    println!(
        "{} queued, {} running, {} kills: READY {ready:.1?}, adopted {adopted:.1?}, \
         next task {claimed:.1?} (medians); all {} were adopted each time and ran once",
        args.tasks, args.running, args.rounds, args.running
    );
    if let Some(file) = &args.json {
        let figures = json!({
            "queued": args.tasks, "running": args.running, "kills": args.rounds,
            "ready_seconds": ready.as_secs_f64(), "adopted_seconds": adopted.as_secs_f64(),
            "next_task_seconds": claimed.as_secs_f64(),
        });
        std::fs::write(file, format!("{figures:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    ensure!(ready < READY, "READY took {ready:?}");
    ensure!(claimed < CLAIM, "the next task took {claimed:?}");
    Ok(())
}

/// Starts tasks that run until the gate is opened.
fn hold(client: &mut Client, gate: &Path, tasks: u32) -> anyhow::Result<Vec<u64>> {
    let command = json!(["/bin/sh", "-c", format!("read x <'{}'", gate.display())]);
    let mut held = Vec::new();
    for _ in 0..tasks {
        let body = json!({ "command": command }).to_string();
        let task = client.json(&Request::post("/v1/tasks", &body))?;
        held.push(
            task.pointer("/id")
                .and_then(Value::as_u64)
                .context("no number")?,
        );
    }
    until("all of them run", || {
        Ok(running(client)? == u64::from(tasks))
    })?;
    Ok(held)
}

fn fill(client: &mut Client, tasks: u64) -> anyhow::Result<()> {
    let one = r#"{"command":["/bin/true"]}"#;
    let list = vec![one; usize::try_from(BATCH)?].join(",");
    let request = Request::post("/v1/tasks", &format!("{{\"tasks\":[{list}]}}"));
    for _ in 0..tasks.div_ceil(BATCH) {
        client.ask(&request)?;
    }
    Ok(())
}

/// Kills the daemon while it is at work, and starts it with one slot more.
fn recover(
    daemon: &mut Daemon,
    base: &Path,
    running_tasks: u32,
    round: u32,
) -> anyhow::Result<Times> {
    let runner = daemon.runner();
    // One that is to go first, and that tells when it runs.
    let dir = base.join(format!("round-{round}"));
    std::fs::create_dir(&dir)?;
    let command = Marks::new(&dir).command();
    let body = json!({ "command": command, "priority": 1000 }).to_string();
    daemon.client()?.ask(&Request::post("/v1/tasks", &body))?;
    daemon.kill()?;
    let log = process::size(&base.join("state/taskdaemon.db-wal"));
    let begun = clock::instant();
    daemon.start_again(Runs::AtOnce(running_tasks + 1))?;
    let adopted = begun.elapsed();
    until("the next task runs", || {
        Ok(process::size(&dir.join("marks")) > 0)
    })?;
    let claimed = begun.elapsed();
    ensure!(daemon.runner() == runner, "the runner is another one");
    let times = Times {
        ready: daemon.ready,
        adopted,
        claimed,
        log,
    };
    // With one slot less nothing but the held ones runs at the next kill.
    daemon.kill()?;
    daemon.start_again(Runs::AtOnce(running_tasks))?;
    let mut client = daemon.client()?;
    until("only the held ones run", || {
        Ok(running(&mut client)? == u64::from(running_tasks))
    })?;
    Ok(times)
}

/// Opens the gate; each task that was held ends well, in its only attempt.
fn release(daemon: &mut Daemon, gate: &Path, held: &[u64]) -> anyhow::Result<()> {
    let mut file = std::fs::File::options().read(true).write(true).open(gate)?;
    file.write_all("\n".repeat(held.len()).as_bytes())?;
    let mut client = daemon.client()?;
    for id in held {
        let task = client.json(&Request::get(&format!("/v1/tasks/{id}/wait")))?;
        let attempts = task.pointer("/attempts").and_then(Value::as_array);
        let state = task.pointer("/state").and_then(Value::as_str);
        ensure!(
            state == Some("succeeded") && attempts.map(Vec::len) == Some(1),
            "it should have run once: {task}"
        );
    }
    Ok(())
}

fn running(client: &mut Client) -> anyhow::Result<u64> {
    let status = client.json(&Request::get("/v1/status"))?;
    let running = status.pointer("/tasks/running").and_then(Value::as_u64);
    running.with_context(|| format!("no count: {status}"))
}

fn until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let limit = clock::instant() + PATIENCE;
    while !holds()? {
        if clock::instant() > limit {
            bail!("waited in vain until {what}");
        }
        process::pause(Duration::from_millis(2));
    }
    Ok(())
}
