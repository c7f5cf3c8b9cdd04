//! How agents are shown.

use std::io::{self, Write};

use crate::api::agents::told::{AgentInfo, InstanceInfo};
use crate::clock;
use crate::model::quantity::ByteSize;
use crate::model::time::Time;

use crate::cli::page::{ago, utc};
use crate::cli::text::{command, escape, shorten, table};
use crate::cli::{Outcome, Setting};

/// Agents in a table, a line for each instance.
pub(super) fn table_of(agents: &[AgentInfo], now: Time) -> String {
    let head = [
        "AGENT", "STATE", "SINCE", "TASK", "RESTARTS", "WHY", "COMMAND",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for agent in agents {
        for one in &agent.instances {
            let name = match agent.instances.len() {
                1 => escape(&agent.name),
                _ => format!("{}@{}", escape(&agent.name), one.instance),
            };
            rows.push(vec![
                name,
                phase(one),
                ago(one.since.0, now),
                one.task
                    .map_or_else(|| "-".to_owned(), |task| task.to_string()),
                one.restarts.to_string(),
                shorten(&why(one, now), 40),
                shorten(&command(&agent.command), 40),
            ]);
        }
    }
    table(&rows)
}

fn phase(one: &InstanceInfo) -> String {
    escape(&one.phase).replace('_', " ")
}

/// Why it stands there and until when; else what it says of itself.
fn why(one: &InstanceInfo, now: Time) -> String {
    let until = one.until.map(|until| match one.phase.as_str() {
        "starting" => format!("at most until {}", utc(until)),
        _ => format!("starts {}", ago(until.0, now)),
    });
    let said = [one.why.as_ref(), one.status.as_ref(), until.as_ref()];
    let said: Vec<_> = said
        .into_iter()
        .flatten()
        .map(|text| escape(text))
        .collect();
    match said.is_empty() {
        true => "-".to_owned(),
        false => said.join("; "),
    }
}

/// Where an agent stands, in words.
pub(super) fn standing(agent: &AgentInfo, now: Time) -> String {
    let each = |one: &InstanceInfo| {
        let why = why(one, now);
        let why = if why == "-" {
            String::new()
        } else {
            format!(" ({why})")
        };
        format!("{}{why}", phase(one))
    };
    if let [one] = agent.instances.as_slice() {
        let task = one.task.map(|task| format!(", task {task}"));
        return each(one) + &task.unwrap_or_default();
    }
    let mut counts: Vec<(String, usize)> = Vec::new();
    for one in &agent.instances {
        match counts.iter_mut().find(|(word, _)| *word == phase(one)) {
            Some((_, count)) => *count += 1,
            None => counts.push((phase(one), 1)),
        }
    }
    let counts = counts.iter().map(|(word, count)| format!("{count} {word}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// What its live run takes.
fn usage(one: &InstanceInfo) -> Option<String> {
    let pid = one.pid.map(|pid| format!("process {pid}"));
    let cpu = one.cpu_seconds.map(|cpu| format!("{cpu:.2} s of CPU"));
    let memory = one.memory_bytes.map(|bytes| ByteSize::kib(bytes >> 10));
    let memory = memory.map(|size| format!("{size} of memory"));
    let known: Vec<_> = [pid, cpu, memory].into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.join(", "))
}

/// `agent show`.
pub(super) async fn show(path: &str, setting: &Setting) -> Outcome {
    let answer = setting.client()?.get(path).await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let agent: AgentInfo = answer.read()?;
    let now = clock::now();
    let plan = |name: &str| agent.plan.get(name);
    let ms = |name: &str| {
        let ms = plan(name).and_then(serde_json::Value::as_u64)?;
        Some(crate::model::quantity::format_duration(
            std::time::Duration::from_millis(ms),
        ))
    };
    let rule = format!(
        "{}; {} in a row, then a pause of {}",
        agent.restart.word(),
        plan("max_restarts").map_or_else(String::new, ToString::to_string),
        ms("cool_off_ms").unwrap_or_default()
    );
    let after = (!agent.after.is_empty()).then(|| agent.after.join(", "));
    let state = agent.removed.then(|| "is being removed".to_owned());
    let facts = [
        ("agent", Some(agent.name.clone())),
        ("number", Some(agent.id.to_string())),
        (
            "state",
            Some(state.unwrap_or_else(|| standing(&agent, now))),
        ),
        ("owner", Some(format!("uid {}", agent.owner))),
        ("created", Some(utc(agent.created_at))),
        ("restart", Some(rule)),
        ("after", after),
        ("probe", plan("probe").map(ToString::to_string)),
        ("idle", ms("idle_after_ms").map(|ms| format!("after {ms}"))),
        ("hooks", plan("hooks").map(ToString::to_string)),
        ("budget", plan("budget").map(ToString::to_string)),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            writeln!(out, "{name:<9} {}", escape(&value))?;
        }
    }
    writeln!(out, "{:<9} {}", "command", command(&agent.command))?;
    writeln!(out)?;
    out.write_all(table_of(std::slice::from_ref(&agent), now).as_bytes())?;
    for one in &agent.instances {
        if let Some(usage) = usage(one) {
            writeln!(out, "\ninstance {}: {usage}", one.instance)?;
        }
        let Some(outcome) = &one.outcome else {
            continue;
        };
        let ended = one.ended_at.map(utc).unwrap_or_default();
        let why = match outcome.message.as_str() {
            "" => "exit code 0".to_owned(),
            message => escape(message),
        };
        writeln!(
            out,
            "\ninstance {} last ended at {ended}: {why}",
            one.instance
        )?;
    }
    Ok(0)
}
