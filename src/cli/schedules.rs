//! `schedule`: tasks made at set times.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use hyper::Method;

use crate::api::number::Span;
use crate::api::schedules::{AskedSchedule, Coming, ScheduleInfo, SchedulePage};
use crate::model::schedule::due::Overlap;

use super::page::utc;
use super::text::{command, escape, shorten, table};
use super::{Failure, Outcome, Setting, submit};

/// What to do about schedules.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a schedule
    Add(Box<AddArgs>),
    /// List schedules
    List,
    /// Show one schedule, and the latest tasks it made
    Show(Which),
    /// Show the coming times
    Next(NextArgs),
    /// Let it fire at no time
    Pause(Which),
    /// Let it fire again; times in between are left out
    Resume(Which),
    /// Make its task now
    Trigger(Which),
    /// Forget it; tasks it made stay
    Remove(Which),
}

/// A schedule.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Name or number of the schedule
    #[arg(value_name = "SCHEDULE")]
    schedule: String,
}

/// Which schedule, and how far ahead.
#[derive(Debug, Args)]
pub(super) struct NextArgs {
    #[command(flatten)]
    which: Which,
    /// So many times
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
}

/// A schedule to be made.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Name of the schedule
    #[arg(value_name = "SCHEDULE")]
    schedule: String,
    /// Cron (`0 5 * * 1-5`, `@daily`), calendar (`Mon..Fri 05:00`) or interval (`every 90s`)
    #[arg(value_name = "WHEN")]
    when: String,
    /// Time zone, as Europe/Berlin [default: the host's]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// When the task before is not over: skip, queue, replace, allow [default: skip]
    #[arg(long, value_name = "RULE", value_parser = overlap)]
    overlap: Option<Overlap>,
    /// Times missed while nobody looked: skip, last, all [default: last]
    #[arg(long, value_name = "RULE")]
    missed: Option<String>,
    /// With `--missed all`, at most so many tasks
    #[arg(long, value_name = "COUNT", requires = "missed")]
    missed_most: Option<u32>,
    /// Start up to so much later, to spread the load
    #[arg(long, value_name = "DURATION")]
    jitter: Option<Span>,
    /// Take the place of your schedule of that name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    task: submit::Args,
}

fn overlap(word: &str) -> Result<Overlap, String> {
    match word {
        "skip" => Ok(Overlap::Skip),
        "queue" => Ok(Overlap::Queue),
        "replace" => Ok(Overlap::Replace),
        "allow" => Ok(Overlap::Allow),
        _ => Err("must be skip, queue, replace or allow".to_owned()),
    }
}

/// `schedule`.
pub(super) async fn schedule(verb: Verb, setting: &Setting) -> Outcome {
    match verb {
        Verb::Add(args) => add(*args, setting).await,
        Verb::List => list(setting).await,
        Verb::Show(which) => show(&which, setting).await,
        Verb::Next(args) => next(&args, setting).await,
        Verb::Pause(which) => change(&which, "pause", setting).await,
        Verb::Resume(which) => change(&which, "resume", setting).await,
        Verb::Trigger(which) => change(&which, "trigger", setting).await,
        Verb::Remove(which) => remove(&which, setting).await,
    }
}

fn path(which: &Which) -> Result<String, Failure> {
    let name = &which.schedule;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(Failure::Usage(format!(
            "`{name}` is no name of a schedule; `taskdaemon schedule list` shows them"
        )));
    }
    Ok(format!("/v1/schedules/{name}"))
}

async fn add(args: AddArgs, setting: &Setting) -> Outcome {
    if args.task.waits() {
        let message = "--wait and --follow are for one task; a schedule makes many";
        return Err(Failure::Usage(message.to_owned()));
    }
    let mut task = submit::order(&args.task)?;
    if !args.task.has_key() {
        // `submit` gives each task one of its own.
        task.key = None;
    }
    let asked = AskedSchedule {
        name: args.schedule,
        when: args.when,
        zone: args.zone,
        overlap: args.overlap,
        missed: args.missed,
        missed_most: args.missed_most,
        jitter: args.jitter,
        replace: args.replace,
        task: Some(task),
    };
    let body = serde_json::to_vec(&asked).map_err(io::Error::from)?;
    let client = setting.client()?;
    let answer = client
        .change(Method::POST, "/v1/schedules", Some(body.into()))
        .await?;
    say(&answer, setting)
}

/// A schedule in a line, or as it came.
fn say(answer: &crate::client::Answer, setting: &Setting) -> Outcome {
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let schedule: ScheduleInfo = answer.read()?;
    let name = escape(&schedule.name);
    writeln!(out, "schedule {name} {}", standing(&schedule))?;
    Ok(0)
}

/// Where a schedule stands, in words.
fn standing(schedule: &ScheduleInfo) -> String {
    match (schedule.paused, schedule.next_at) {
        (true, _) => "is paused".to_owned(),
        (false, Some(next)) => format!("fires next at {}", utc(next)),
        (false, None) => "never fires again".to_owned(),
    }
}

async fn list(setting: &Setting) -> Outcome {
    let client = setting.client()?;
    let mut out = io::stdout().lock();
    let head = ["ID", "NAME", "WHEN", "ZONE", "NEXT", "QUEUE", "COMMAND"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut cursor = None;
    loop {
        let path = match cursor {
            None => "/v1/schedules?limit=1000".to_owned(),
            Some(cursor) => format!("/v1/schedules?limit=1000&cursor={cursor}"),
        };
        let page: SchedulePage = client.get(&path).await?.read()?;
        for schedule in &page.schedules {
            if setting.json {
                serde_json::to_writer(&mut out, schedule).map_err(io::Error::from)?;
                writeln!(out)?;
            } else {
                rows.push(row(schedule));
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if !setting.json {
        out.write_all(table(&rows).as_bytes())?;
    }
    Ok(0)
}

fn row(schedule: &ScheduleInfo) -> Vec<String> {
    let next = match (schedule.paused, schedule.next_at) {
        (true, _) => "paused".to_owned(),
        (false, Some(next)) => utc(next),
        (false, None) => "never".to_owned(),
    };
    vec![
        schedule.id.to_string(),
        escape(&schedule.name),
        escape(&schedule.when),
        escape(&schedule.zone),
        next,
        escape(&schedule.queue),
        shorten(&command(&schedule.command), 48),
    ]
}

async fn show(which: &Which, setting: &Setting) -> Outcome {
    let answer = setting.client()?.get(&path(which)?).await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let schedule: ScheduleInfo = answer.read()?;
    let missed = match schedule.missed_most {
        Some(most) => format!("{}, at most {most}", schedule.missed),
        None => schedule.missed.clone(),
    };
    let facts = [
        ("schedule", Some(schedule.name.clone())),
        ("number", Some(schedule.id.to_string())),
        ("when", Some(schedule.when.clone())),
        ("zone", Some(schedule.zone.clone())),
        ("state", Some(standing(&schedule))),
        ("overlap", Some(schedule.overlap.word().to_owned())),
        ("missed", Some(missed)),
        ("jitter", schedule.jitter.clone()),
        ("owner", Some(format!("uid {}", schedule.owner))),
        ("queue", Some(schedule.queue.clone())),
        ("created", Some(utc(schedule.created_at))),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            writeln!(out, "{name:<9} {}", escape(&value))?;
        }
    }
    writeln!(out, "{:<9} {}", "command", command(&schedule.command))?;
    let tasks = schedule.tasks.unwrap_or_default();
    if !tasks.is_empty() {
        let head = ["TASK", "STATE", "DUE", "ENDED"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for task in tasks {
            rows.push(vec![
                task.id.to_string(),
                task.state.clone(),
                utc(task.due_at),
                task.ended_at.map_or_else(|| "-".to_owned(), utc),
            ]);
        }
        writeln!(out)?;
        out.write_all(table(&rows).as_bytes())?;
    }
    Ok(0)
}

async fn next(args: &NextArgs, setting: &Setting) -> Outcome {
    let path = format!("{}/next?count={}", path(&args.which)?, args.count);
    let answer = setting.client()?.get(&path).await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let coming: Coming = answer.read()?;
    for time in &coming.next {
        writeln!(out, "{time}  {}", local(&time.to_string(), &coming.zone))?;
    }
    Ok(0)
}

/// A time as the schedule's zone tells it.
fn local(time: &str, zone: &str) -> String {
    let told = time
        .parse::<jiff::Timestamp>()
        .and_then(|time| time.in_tz(zone));
    told.map_or_else(|_| String::new(), |time| time.to_string())
}

async fn change(which: &Which, verb: &str, setting: &Setting) -> Outcome {
    let path = format!("{}/{verb}", path(which)?);
    let answer = setting.client()?.post(&path).await?;
    if verb == "trigger" && !setting.json {
        let task: crate::api::dto::TaskInfo = answer.read()?;
        writeln!(io::stdout().lock(), "task {} {}", task.id, task.state)?;
        return Ok(0);
    }
    say(&answer, setting)
}

async fn remove(which: &Which, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    let answer = client.change(Method::DELETE, &path(which)?, None).await?;
    if setting.json {
        return say(&answer, setting);
    }
    let schedule: ScheduleInfo = answer.read()?;
    let name = escape(&schedule.name);
    writeln!(io::stdout().lock(), "schedule {name} removed")?;
    Ok(0)
}
