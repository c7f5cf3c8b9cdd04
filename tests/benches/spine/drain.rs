//! Part 2: tasks a second, many waiting and 16 at once.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde_json::Value;
use taskdaemon::clock;

use crate::daemon::{Daemon, Runs};
use crate::disk;
use crate::http::{Client, Request};
use crate::process::{self, TRUE, count};
use crate::report::{Goal, Report, in_turn};

/// Tasks of one round.
const TASKS: u64 = 3_000;
/// Tasks at once.
const AT_ONCE: u32 = 16;

/// One round. The tasks are there before anything can run: a daemon without a
/// runner takes them, and the next daemon on the same state begins with all of
/// them.
pub(crate) fn round(dir: &Path, round: u32, report: &mut Report) -> anyhow::Result<()> {
    report.limit("files made", "/s", disk::files(dir)?);
    let ours = || drain(&dir.join("drain"));
    let (drained, bare) = in_turn(round, ours, || process::bare_drain(TASKS, AT_ONCE))?;
    let name = format!("tasks of true, {AT_ONCE} at once");
    report.pair(&name, "/s", drained.by_api, bare, Goal::Ratio(0.5));
    report.pair(
        "the same from outside",
        "/s",
        drained.by_wall,
        bare,
        Goal::None,
    );
    report.value(
        "daemon CPU for 1,000 tasks",
        "s",
        drained.daemon_cpu,
        Goal::None,
    );
    report.value(
        "runner CPU for 1,000 tasks",
        "s",
        drained.runner_cpu,
        Goal::None,
    );
    Ok(())
}

#[derive(Debug)]
struct Drained {
    /// From the first start to the last end, by the daemon's own figures.
    by_api: f64,
    /// From READY to the last answer.
    by_wall: f64,
    daemon_cpu: f64,
    runner_cpu: f64,
}

fn drain(dir: &Path) -> anyhow::Result<Drained> {
    let daemon = Daemon::start(dir, Runs::Nothing)?;
    let last = fill(&mut daemon.client()?, TASKS)?;
    daemon.stop_all()?;
    let daemon = Daemon::start(dir, Runs::AtOnce(AT_ONCE))?;
    let begun = clock::instant();
    let mut client = daemon.client()?;
    for id in (1..=last).rev().take(usize::try_from(AT_ONCE)? * 4) {
        client.ask(&Request::get(&format!("/v1/tasks/{id}/wait")))?;
    }
    let status = settled(&mut client)?;
    let took = begun.elapsed();
    let runner = daemon.runner().context("no runner")?;
    let (daemon_cpu, runner_cpu) = (process::cpu(daemon.pid())?, process::cpu(runner)?);
    let succeeded = status.pointer("/tasks/succeeded").and_then(Value::as_u64);
    ensure!(
        succeeded == Some(TASKS),
        "not all of {TASKS} tasks succeeded: {status}; the first is {}",
        client.json(&Request::get("/v1/tasks/1"))?
    );
    let edge = i64::from(AT_ONCE) * 4;
    let first = (1..=edge).map(|id| moment(&mut client, id, "started_at"));
    let first = first.collect::<anyhow::Result<Vec<_>>>()?.into_iter().min();
    let end = (last - edge..=last).map(|id| moment(&mut client, id, "ended_at"));
    let end = end.collect::<anyhow::Result<Vec<_>>>()?.into_iter().max();
    let span = end.context("no end")? - first.context("no start")?;
    daemon.stop_all()?;
    Ok(Drained {
        by_api: count(TASKS) / span.total(jiff::Unit::Second)?,
        by_wall: count(TASKS) / took.as_secs_f64(),
        daemon_cpu: daemon_cpu.as_secs_f64() * 1_000.0 / count(TASKS),
        runner_cpu: runner_cpu.as_secs_f64() * 1_000.0 / count(TASKS),
    })
}

/// The status when nothing waits and nothing runs.
fn settled(client: &mut Client) -> anyhow::Result<Value> {
    loop {
        let status = client.json(&Request::get("/v1/status"))?;
        let open = ["queued", "running"].map(|state| status.pointer(&format!("/tasks/{state}")));
        if open
            .iter()
            .all(|count| count.and_then(Value::as_u64) == Some(0))
        {
            return Ok(status);
        }
        process::pause(Duration::from_millis(2));
    }
}

/// Submits so many tasks, a thousand to a request; the number of the last one.
pub(crate) fn fill(client: &mut Client, tasks: u64) -> anyhow::Result<i64> {
    const LIST: u64 = 1_000;
    let one = format!(r#"{{"command":["{TRUE}"],"name":"spine"}}"#);
    let list = vec![one; usize::try_from(LIST)?].join(",");
    let request = Request::post("/v1/tasks", &format!(r#"{{"tasks":[{list}]}}"#));
    let mut last = 0;
    for _ in 0..tasks / LIST {
        let answer = client.json(&request)?;
        let ids = answer.pointer("/tasks").and_then(Value::as_array);
        last = ids
            .and_then(|ids| ids.last())
            .and_then(|task| task.pointer("/id"))
            .and_then(Value::as_i64)
            .context("an answer without numbers")?;
    }
    Ok(last)
}

/// When the only attempt of a task began or ended.
fn moment(client: &mut Client, id: i64, which: &str) -> anyhow::Result<Timestamp> {
    let task = client.json(&Request::get(&format!("/v1/tasks/{id}")))?;
    let stamp = task
        .pointer(&format!("/attempts/0/{which}"))
        .and_then(Value::as_str)
        .with_context(|| format!("no {which}: {task}"))?;
    Ok(stamp.parse()?)
}
