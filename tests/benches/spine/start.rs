//! Part 4: how fast it starts and what it takes, with nothing and with much
//! waiting.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use taskdaemon::clock;

use crate::daemon::{Daemon, Runs};
use crate::drain;
use crate::http::Request;
use crate::process::{self, count, pause};
use crate::report::{Goal, Report};

/// Tasks that wait.
const TASKS: u64 = 100_000;
/// Time for things to settle before memory is looked at.
const SETTLE: Duration = Duration::from_millis(300);

/// All rounds.
pub(crate) fn measure(base: &Path, rounds: u32, report: &mut Report) -> anyhow::Result<()> {
    let empty = base.join("empty");
    let full = base.join("full");
    // The first start makes the database; that is not what is measured.
    Daemon::start(&empty, Runs::Nothing)?.stop_all()?;
    fill(&full, rounds, report)?;
    let bytes = count(on_disk(&full) - on_disk(&empty)) / count(TASKS);
    report.value("bytes on disk for a queued task", "B", bytes, Goal::None);
    for _ in 0..rounds {
        once(&empty, "0 queued", report)?;
        once(&full, "100,000 queued", report)?;
    }
    Ok(())
}

/// A hundred thousand tasks behind one that has the only slot for itself, so
/// that there is a runner and nothing moves. One for each round, since a task
/// whose runner was stopped a few times under it is given up.
fn fill(dir: &Path, rounds: u32, report: &mut Report) -> anyhow::Result<()> {
    let daemon = Daemon::start(dir, Runs::Nothing)?;
    let mut client = daemon.client()?;
    let blocker = r#"{"command":["/bin/sleep","300"],"priority":1000}"#;
    for _ in 0..rounds {
        client.ask(&Request::post("/v1/tasks", blocker))?;
    }
    let begun = clock::instant();
    drain::fill(&mut client, TASKS)?;
    let rate = count(TASKS) / begun.elapsed().as_secs_f64();
    report.value("tasks submitted 1,000 to a request", "/s", rate, Goal::None);
    daemon.stop_all()
}

fn once(dir: &Path, what: &str, report: &mut Report) -> anyhow::Result<()> {
    let daemon = Daemon::start(dir, Runs::AtOnce(1))?;
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let mut value = |name: &str, unit, number, goal| {
        report.value(&format!("{name}, {what}"), unit, number, goal);
    };
    value(
        "exec to READY",
        "ms",
        millis(daemon.ready),
        Goal::AtMost(200.0),
    );
    value(
        "exec to the first answer",
        "ms",
        millis(daemon.answered),
        Goal::None,
    );
    pause(SETTLE);
    let runner = daemon.runner().context("no runner")?;
    let (all, own) = process::memory(daemon.pid())?;
    value("daemon's memory", "MiB", all, Goal::AtMost(64.0));
    value("of it its own, not files'", "MiB", own, Goal::None);
    value(
        "runner's memory",
        "MiB",
        process::memory(runner)?.0,
        Goal::None,
    );
    let status = daemon.client()?.json(&Request::get("/v1/status"))?;
    let queued = status.pointer("/tasks/queued").and_then(Value::as_u64);
    let least = if what.starts_with('0') { 0 } else { TASKS };
    anyhow::ensure!(queued >= Some(least), "{least} tasks should wait: {status}");
    daemon.stop_all()
}

/// Bytes of the database and its log.
fn on_disk(dir: &Path) -> u64 {
    let names = ["taskdaemon.db", "taskdaemon.db-wal"];
    let sizes = names.map(|name| process::size(&dir.join("state").join(name)));
    sizes.iter().sum()
}
