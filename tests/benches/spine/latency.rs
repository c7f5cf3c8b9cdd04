//! Part 3: one task on an idle system, from the submit to its result.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use taskdaemon::clock;

use crate::daemon::{Daemon, Runs};
use crate::http::{Client, Request};
use crate::process::{self, TRUE};
use crate::report::{Goal, Report, in_turn, quantile};

/// Tasks of one round, and those before them that do not count.
const TASKS: usize = 300;
const WARM_UP: usize = 10;

/// One round.
pub(crate) fn round(dir: &Path, round: u32, report: &mut Report) -> anyhow::Result<()> {
    let daemon = Daemon::start(&dir.join("latency"), Runs::AtOnce(16))?;
    let mut client = daemon.client()?;
    let ((acked, known), bare) = in_turn(round, || ours(&mut client), yardstick)?;
    for (half, goal) in [(0.5, Goal::AtMost(2.0)), (0.99, Goal::None)] {
        let name = format!("submit to result, p{}", half * 100.0);
        report.pair(
            &name,
            "ms",
            quantile(&known, half),
            quantile(&bare, half),
            goal,
        );
    }
    for half in [0.5, 0.99] {
        let name = format!("submit to answer, p{}", half * 100.0);
        report.value(&name, "ms", quantile(&acked, half), Goal::None);
    }
    daemon.stop_all()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Times to the answer and to the result.
fn ours(client: &mut Client) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let submit = Request::post("/v1/tasks", &format!(r#"{{"command":["{TRUE}"]}}"#));
    let (mut acked, mut known) = (Vec::new(), Vec::new());
    for turn in 0..WARM_UP + TASKS {
        let begun = clock::instant();
        let answer = client.json(&submit)?;
        let answered = begun.elapsed();
        let id = answer.pointer("/id").and_then(Value::as_i64);
        let id = id.context("an answer without a number")?;
        let task = client.json(&Request::get(&format!("/v1/tasks/{id}/wait")))?;
        let took = begun.elapsed();
        ensure!(
            task.pointer("/state").and_then(Value::as_str) == Some("succeeded"),
            "the task failed: {task}"
        );
        if turn >= WARM_UP {
            acked.push(millis(answered));
            known.push(millis(took));
        }
    }
    Ok((acked, known))
}

fn yardstick() -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..TASKS {
        let begun = clock::instant();
        process::bare_run()?;
        times.push(millis(begun.elapsed()));
    }
    Ok(times)
}
