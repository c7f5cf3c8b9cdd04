//! Verbs about the daemon itself: status, health, reload.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::api::admin::{Health, Status};

use super::page::utc;
use super::text::escape;
use super::{Outcome, Setting};

/// `status`.
pub(super) async fn status(setting: &Setting) -> Outcome {
    let answer = setting.client()?.get("/v1/status").await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let status: Status = answer.read()?;
    let (version, pid, phase) = (escape(&status.version), status.pid, escape(&status.phase));
    writeln!(
        out,
        "taskdaemon {version}, pid {pid}: {phase} since {}",
        utc(status.started_at)
    )?;
    let tasks: Vec<String> = status
        .tasks
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {}", escape(state)))
        .collect();
    let tasks = if tasks.is_empty() {
        "none".to_owned()
    } else {
        tasks.join(", ")
    };
    writeln!(out, "tasks   {tasks}")?;
    writeln!(
        out,
        "slots   {} of {} in use",
        status.slots.used, status.slots.total
    )?;
    match status.runner {
        None => writeln!(out, "runner  none connected: tasks wait")?,
        Some(runner) => {
            writeln!(
                out,
                "runner  {}, pid {}",
                escape(&runner.version),
                runner.pid
            )?;
            let missing: Vec<String> = runner
                .enforces
                .iter()
                .filter(|(_, can)| !**can)
                .map(|(name, _)| escape(name))
                .collect();
            if !missing.is_empty() {
                writeln!(
                    out,
                    "        not enforced on this host: {}",
                    missing.join(", ")
                )?;
            }
        }
    }
    Ok(0)
}

/// `health`.
pub(super) async fn health(setting: &Setting) -> Outcome {
    let answer = setting.client()?.get("/health").await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
    } else {
        let health: Health = answer.read()?;
        writeln!(out, "{}", escape(&health.status))?;
    }
    Ok(0)
}

/// `reload`.
pub(super) async fn reload(setting: &Setting) -> Outcome {
    let answer = setting.client()?.post("/v1/reload").await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let changed: BTreeMap<String, Vec<String>> = answer.read()?;
    let changed = changed.get("changed").cloned().unwrap_or_default();
    if changed.is_empty() {
        writeln!(out, "reloaded: nothing changed")?;
    }
    for change in changed {
        writeln!(out, "reloaded: {}", escape(&change))?;
    }
    Ok(0)
}
