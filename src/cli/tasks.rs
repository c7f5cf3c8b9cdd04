//! Verbs about one task that is there: show; and what those about several share.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;

use crate::api::dto::{AfterInfo, AttemptInfo, TaskInfo};
use crate::model::quantity::format_duration;
use crate::model::schema::REPAIRS;

use super::page::{Users, utc};
use super::providers::budgets;
use super::text::{command, escape, table};
use super::{Outcome, Setting, complain};

/// A task.
#[derive(Debug, Args)]
pub(super) struct IdArgs {
    /// Number of the task
    #[arg(value_parser = number)]
    pub(super) id: i64,
}

/// The number of a task, from 1.
pub(super) fn number(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("a task has a number, such as 17; `taskdaemon list` shows them".to_owned()),
    }
}

/// Appends a parameter to an address that has one already.
pub(super) fn parameter(path: &mut String, name: &str, value: &str) {
    path.push_str(&format!("&{name}="));
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// What a task waits for or does, with what it says of itself.
pub(super) fn said(task: &TaskInfo) -> String {
    let progress = task.progress.map(|percent| format!("{percent} %"));
    let parts = [task.reason.clone(), progress, task.status.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `show`.
pub(super) async fn show(id: i64, setting: &Setting) -> Outcome {
    let path = format!("/v1/tasks/{id}");
    let answer = setting.client()?.get(&path).await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    out.write_all(describe(&answer.read()?).as_bytes())?;
    Ok(0)
}

/// A task in words.
fn describe(task: &TaskInfo) -> String {
    let mut out = String::new();
    for (name, value) in facts(task) {
        if let Some(value) = value {
            out.push_str(&format!("{name:<9} {}\n", escape(&value)));
        }
    }
    let words = command(&task.run.words());
    out.push_str(&format!("{:<9} {words}\n", "command"));
    if let Some(attempts) = task
        .attempts
        .as_ref()
        .filter(|attempts| !attempts.is_empty())
    {
        out.push('\n');
        out.push_str(&attempt_table(attempts));
        out.push_str(&calls(attempts));
    }
    out.push_str(&budgets::rows(&task.budgets));
    out
}

/// What there is to say about a task, name by name.
fn facts(task: &TaskInfo) -> Vec<(&'static str, Option<String>)> {
    let run = &task.run;
    let until = task
        .until
        .map(|until| format!(", until {}", utc(until)))
        .unwrap_or_default();
    let reason = task
        .reason
        .as_ref()
        .map(|reason| format!("{reason}{until}"));
    let labels: Vec<String> = task
        .labels
        .0
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    vec![
        ("task", Some(task.id.to_string())),
        ("state", Some(task.state.clone())),
        ("reason", reason),
        (
            "progress",
            task.progress.map(|percent| format!("{percent} %")),
        ),
        ("status", task.status.clone()),
        ("name", task.name.clone()),
        ("queue", Some(task.queue.clone())),
        (
            "priority",
            (task.priority != 0).then(|| task.priority.to_string()),
        ),
        ("labels", (!labels.is_empty()).then(|| labels.join(" "))),
        ("owner", Some(owner(task.owner))),
        ("schema", schema(task)),
        ("batch", batch(task)),
        ("user", run.user.clone()),
        ("cwd", run.cwd.clone()),
        ("key", task.key.clone()),
        ("unique", task.unique.clone()),
        ("after", after(task)),
        ("behind", behind(task)),
        (
            "stdin",
            run.stdin_from.map(|id| format!("output of task {id}")),
        ),
        ("group", task.group.clone()),
        ("schedule", task.schedule.map(|id| id.to_string())),
        ("nominal", task.nominal_at.map(utc)),
        ("timeout", run.timeout.clone()),
        ("heartbeat", run.heartbeat.clone()),
        ("deadline", task.deadline.map(utc)),
        ("memory", run.memory.clone()),
        ("cpu", run.cpu.map(|cores| format!("{cores} cores"))),
        ("pids", run.pids.map(|pids| pids.to_string())),
        ("trace", run.trace.clone()),
        ("created", Some(utc(task.created_at))),
        ("due", Some(utc(task.due_at))),
        ("ended", task.ended_at.map(utc)),
        ("outcome", outcome(task)),
        (
            "attempts",
            Some(format!("{} of {} failed", run.tries, run.max_attempts)),
        ),
    ]
}

/// That its answer has to be as a schema has it.
fn schema(task: &TaskInfo) -> Option<String> {
    let prompt = task.run.prompt.as_ref()?;
    let size = prompt.schema.as_ref()?.to_string().len();
    let size = u64::try_from(size).unwrap_or(u64::MAX);
    Some(format!(
        "{size} bytes, up to {} repairs",
        prompt.repairs.unwrap_or(REPAIRS)
    ))
}

/// Its provider's batch.
fn batch(task: &TaskInfo) -> Option<String> {
    let lot = task.run.prompt.as_ref()?.lot.as_ref()?;
    let name = lot.batch.as_deref().unwrap_or("not there yet");
    Some(match lot.cancels {
        Some(_) => format!("{name}, to be cancelled"),
        None => format!("{name}, {} prompts", lot.rows),
    })
}

/// How it ended.
fn outcome(task: &TaskInfo) -> Option<String> {
    let outcome = task.outcome.as_ref()?;
    Some(match outcome.message.as_str() {
        "" => outcome.class.clone(),
        message => message.to_owned(),
    })
}

/// A user by name and number.
fn owner(uid: u32) -> String {
    let number = format!("uid {uid}");
    match Users::default().name(uid) {
        name if name == uid.to_string() => number,
        name => format!("{name} ({number})"),
    }
}

/// What it was told to wait for; the first few.
fn after(task: &TaskInfo) -> Option<String> {
    let links = task.after.as_ref().filter(|links| !links.is_empty())?;
    let word = |link: &AfterInfo| {
        let any = if link.wants == "any" { ":any" } else { "" };
        let state = link.state.as_deref().unwrap_or("gone");
        format!("{}{any} ({state})", link.task)
    };
    let mut words: Vec<_> = links.iter().take(5).map(word).collect();
    if links.len() > words.len() {
        words.push(format!("and {} more", links.len() - words.len()));
    }
    Some(words.join(", "))
}

/// How many were told to wait for it.
fn behind(task: &TaskInfo) -> Option<String> {
    let count = task.dependants.filter(|count| *count > 0)?;
    let tasks = if count == 1 {
        "task waits"
    } else {
        "tasks wait"
    };
    Some(format!("{count} {tasks} for it; see `show --graph`"))
}

/// Attempts as a table that fits a terminal of 80 columns.
fn attempt_table(attempts: &[AttemptInfo]) -> String {
    let head = [
        "#", "OUTCOME", "STARTED", "TOOK", "USER", "CPU", "MEMORY", "OUTPUT",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let span = |span: Duration| format_duration(Duration::from_millis(millis(span)));
    for attempt in attempts {
        let outcome = match (
            attempt.outcome.as_deref(),
            attempt.exit_code,
            attempt.signal,
        ) {
            (None, ..) => "live".to_owned(),
            (Some("success"), ..) => "success".to_owned(),
            (Some(class), Some(code), _) => format!("{class} {code}"),
            (Some(class), None, Some(signal)) => format!("{class} {signal}"),
            (Some(class), None, None) => class.to_owned(),
        };
        let dropped = match attempt.output_dropped_bytes {
            0 => String::new(),
            dropped => format!(" (+{dropped} dropped)"),
        };
        let took = attempt.started_at.zip(attempt.ended_at);
        let took = took.map(|(started, ended)| span(ended.0.since(started.0)));
        let cpu = attempt
            .cpu_seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        rows.push(vec![
            attempt.number.to_string(),
            outcome,
            or_dash(attempt.started_at.map(utc)),
            or_dash(took),
            escape(&or_dash(attempt.user.clone())),
            or_dash(cpu.map(span)),
            or_dash(attempt.memory_peak_bytes.map(|bytes| bytes.to_string())),
            format!("{}{dropped}", attempt.output_bytes),
        ]);
    }
    table(&rows)
}

/// What the attempts asked of models, and what that cost.
fn calls(attempts: &[AttemptInfo]) -> String {
    let each = |attempt: &AttemptInfo| {
        let all = attempt.call.iter().chain(&attempt.relayed);
        let number = attempt.number;
        all.map(move |call| (number, call.clone()))
            .collect::<Vec<_>>()
    };
    let calls = attempts.iter().flat_map(each).map(|(number, call)| {
        let count = |used: Option<u64>, most: u64| {
            used.map_or_else(|| format!("at most {most}"), |used| used.to_string())
        };
        vec![
            number.to_string(),
            escape(&call.model),
            call.end.clone().unwrap_or_else(|| "live".to_owned()),
            count(call.input_tokens, call.input_tokens_reserved),
            count(call.output_tokens, call.output_tokens_reserved),
            call.cost
                .map_or_else(|| "-".to_owned(), |cost| format!("{cost:.6}")),
        ]
    });
    let mut rows = vec![
        ["#", "MODEL", "CALL", "TOKENS IN", "TOKENS OUT", "COST"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(calls);
    if rows.len() == 1 {
        return String::new();
    }
    format!("\n{}", table(&rows))
}

/// Milliseconds, to people's measure: whole seconds from a minute on.
fn millis(span: Duration) -> u64 {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if millis < 60_000 {
        millis
    } else {
        millis / 1000 * 1000
    }
}

/// Says how a task ended, and ends likewise.
pub(super) fn finish(task: &TaskInfo, setting: &Setting, mut out: impl Write) -> Outcome {
    if setting.json {
        serde_json::to_writer(&mut out, task).map_err(io::Error::from)?;
        writeln!(out)?;
    } else if task.state != "succeeded" {
        let message = task.outcome.as_ref().map_or("", |outcome| &outcome.message);
        complain(&format!("task {} {}: {message}", task.id, task.state));
    }
    Ok(own_code(task))
}

/// The exit code that stands for a task's end.
fn own_code(task: &TaskInfo) -> u8 {
    if task.state == "succeeded" {
        return 0;
    }
    let code = task.outcome.as_ref().and_then(|outcome| {
        outcome
            .exit_code
            .or_else(|| outcome.signal.map(|signal| 128 + signal))
    });
    code.and_then(|code| u8::try_from(code).ok())
        .filter(|code| *code != 0)
        .unwrap_or(1)
}

/// `cancel`, `retry`, `pause` and `resume` of one task.
pub(super) async fn change(id: i64, verb: &str, setting: &Setting) -> Outcome {
    let path = format!("/v1/tasks/{id}/{verb}");
    let answer = setting.client()?.post(&path).await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
    } else {
        let task: TaskInfo = answer.read()?;
        writeln!(out, "task {} {}", task.id, task.state)?;
    }
    Ok(0)
}
