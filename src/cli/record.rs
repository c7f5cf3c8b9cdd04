//! Verbs about the record: events, backup, and changes of many tasks (prune,
//! and what `retry` and `cancel` do with a filter).

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use serde::Serialize;

use crate::api::bulk::{Bulk, Counted};
use crate::api::events::{EventInfo, EventPage};
use crate::api::number::{Pairs, Span};
use crate::api::progress::ProgressInfo;
use crate::client::events::{Gap, Heard};
use crate::store::backup as store_backup;

use super::health::Place;
use super::page::utc;
use super::text::escape;
use super::{Failure, Outcome, Setting, complain, graph, several, tasks};

/// Most events asked for at once.
const PAGE: u32 = 1000;

/// Which events.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Go on with what happens
    #[arg(short, long)]
    follow: bool,
    /// Only events behind this one [default: all that are kept, with --follow none]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
    /// Only events of this task
    #[arg(long, value_parser = tasks::number)]
    task: Option<i64>,
    /// Only events of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only these kinds, such as submitted,failed; with --follow also progress
    #[arg(long, value_name = "KINDS")]
    kind: Option<String>,
}

impl EventsArgs {
    fn path(&self, after: Option<i64>) -> String {
        let mut path = format!("/v1/events?limit={PAGE}");
        let number = |number: Option<i64>| number.map(|number| number.to_string());
        let parameters = [
            ("after", number(after)),
            ("task", number(self.task)),
            ("queue", self.queue.clone()),
            ("kind", self.kind.clone()),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                tasks::parameter(&mut path, name, &value);
            }
        }
        path
    }
}

/// `events`.
pub(super) async fn events(args: &EventsArgs, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    let mut out = io::stdout();
    if args.follow {
        let mut path = args.path(args.after);
        tasks::parameter(&mut path, "follow", "true");
        let following = client.follow_events(&path, |heard| match heard {
            Heard::Event(event) => print(&mut out, &*event, line, setting.json),
            Heard::Progress(told) => print(&mut out, &told, progress, setting.json),
            Heard::Gap(Gap { from, to }) => {
                complain(&format!("the events {from} to {to} are not kept any more"));
                Ok(())
            }
        });
        tokio::select! {
            ended = following => ended?,
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
        return Ok(0);
    }
    let mut after = args.after.unwrap_or(0);
    loop {
        let answer = client.get(&args.path(Some(after))).await?;
        let page: EventPage = answer.read()?;
        if args
            .after
            .is_some_and(|asked| asked == after && asked + 1 < page.oldest)
        {
            complain(&format!(
                "the events {} to {} are not kept any more",
                after + 1,
                page.oldest - 1
            ));
        }
        for event in &page.events {
            print(&mut out, event, line, setting.json)?;
        }
        if page.next >= page.last || page.next <= after {
            return Ok(0);
        }
        after = page.next;
    }
}

/// Prints an event.
pub(super) fn print_event(
    out: &mut impl Write,
    event: &EventInfo,
    setting: &Setting,
) -> io::Result<()> {
    print(out, event, line, setting.json)
}

fn print<T: Serialize>(
    out: &mut impl Write,
    told: &T,
    line: impl Fn(&T) -> String,
    json: bool,
) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, told).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", line(told))?;
    }
    out.flush()
}

/// How far a task is, in one line. It has no number, since it is not kept.
fn progress(told: &ProgressInfo) -> String {
    let at = utc(told.at);
    let mut line = format!("- {at} task {} progress", told.task);
    line.push_str(&format!(
        " (attempt {}) queue {}",
        told.attempt,
        escape(&told.queue)
    ));
    let percent = told.progress.map(|percent| format!("{percent} %"));
    let ready = told.ready.then(|| "ready".to_owned());
    let status = told.status.as_deref().map(escape);
    let says: Vec<_> = [percent, status.or(ready)].into_iter().flatten().collect();
    if !says.is_empty() {
        line.push_str(&format!(": {}", says.join(", ")));
    }
    line
}

/// An event in one line.
fn line(event: &EventInfo) -> String {
    let at = utc(event.at);
    let mut line = format!("{} {at} task {} {}", event.seq, event.task, event.kind);
    if event.attempt > 0 {
        line.push_str(&format!(" (attempt {})", event.attempt));
    }
    if let Some(queue) = &event.queue {
        line.push_str(&format!(" queue {}", escape(queue)));
    }
    let text = |name: &str| event.data.get(name).and_then(|value| value.as_str());
    if let Some(name) = text("name") {
        line.push_str(&format!(" name {}", escape(name)));
    }
    if let Some(message) = text("message").filter(|message| !message.is_empty()) {
        line.push_str(&format!(": {}", escape(message)));
    }
    if let Some(actor) = event.actor {
        line.push_str(&format!(" by uid {actor}"));
    }
    line
}

/// Which tasks a change is for.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").multiple(true))]
pub(super) struct Filter {
    /// Only these states, such as failed,expired
    #[arg(long, value_name = "STATES", value_delimiter = ',', group = "which")]
    state: Vec<String>,
    /// Only this queue
    #[arg(long, group = "which")]
    queue: Option<String>,
    /// Only names that contain this
    #[arg(long, group = "which")]
    name: Option<String>,
    /// Only these labels; all of them, where there are several
    #[arg(long, value_name = "NAME=VALUE", value_parser = label, group = "which")]
    label: Vec<(String, String)>,
    /// Only these classes of outcome, such as timeout,oom
    #[arg(long, value_name = "CLASSES", value_delimiter = ',', group = "which")]
    class: Vec<String>,
    /// Only tasks that have been over, or waiting, for so long, such as 7d
    #[arg(long, value_name = "AGE", group = "which")]
    older_than: Option<Span>,
    /// Only tasks of this user (admins)
    #[arg(long, value_name = "USER", group = "which")]
    owner: Option<String>,
    /// All that can be meant, where there is no condition
    #[arg(long, conflicts_with = "which")]
    all: bool,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Some tasks, or all that a filter selects.
#[derive(Debug, Args)]
pub(super) struct Meant {
    /// Numbers of the tasks
    #[arg(value_name = "ID", value_parser = tasks::number, conflicts_with_all = ["which", "all", "dry_run", "yes"])]
    ids: Vec<i64>,
    /// Also those that wait for them, directly or through others: `cancel` takes all that are not
    /// over, `retry` those that were skipped
    #[arg(long, requires = "ids")]
    dependants: bool,
    #[command(flatten)]
    filter: Filter,
}

/// `retry` and `cancel`.
pub(super) async fn change(args: &Meant, action: &str, setting: &Setting) -> Outcome {
    if args.ids.is_empty() {
        return bulk(&args.filter, action, setting).await;
    }
    let one = async |id| {
        if args.dependants {
            graph::change(id, action, setting).await
        } else {
            tasks::change(id, action, setting).await
        }
    };
    several::each(&args.ids, one).await
}

/// `prune`, and the others with a filter.
pub(super) async fn bulk(args: &Filter, action: &str, setting: &Setting) -> Outcome {
    let asked = Bulk {
        state: args.state.clone(),
        queue: args.queue.clone(),
        name: args.name.clone(),
        labels: Pairs(args.label.iter().cloned().collect()),
        class: args.class.clone(),
        older_than: args.older_than,
        owner: args.owner.clone(),
        all: args.all,
        dry_run: args.dry_run,
    };
    if asked
        == (Bulk {
            dry_run: args.dry_run,
            ..Bulk::default()
        })
    {
        let usage = "say which tasks: a number, a condition such as --state failed, or --all";
        return Err(Failure::Usage(usage.to_owned()));
    }
    let path = format!("/v1/tasks/{action}");
    let client = setting.client()?;
    let send = async |bulk: &Bulk| -> Result<Counted, Failure> {
        let body = serde_json::to_vec(bulk).map_err(io::Error::from)?;
        Ok(client.bulk(&path, body.into()).await?.read()?)
    };
    if !args.yes && !args.dry_run && io::stdin().is_terminal() {
        let dry = Bulk {
            dry_run: true,
            ..asked.clone()
        };
        let count = send(&dry).await?.matched;
        if !agreed(action, count)? {
            return Ok(1);
        }
    }
    let counted = send(&asked).await?;
    let mut out = io::stdout();
    if setting.json {
        serde_json::to_writer(&mut out, &counted).map_err(io::Error::from)?;
        writeln!(out)?;
    } else if args.dry_run {
        writeln!(out, "{} tasks would be meant", counted.matched)?;
    } else {
        writeln!(
            out,
            "{action}: {} of {} tasks",
            counted.changed, counted.matched
        )?;
    }
    if counted.refused > 0 && !setting.json {
        complain(&format!(
            "{} tasks could not be changed as they are",
            counted.refused
        ));
    }
    Ok(0)
}

/// Asks whoever sits there.
fn agreed(action: &str, count: u64) -> io::Result<bool> {
    let mut err = io::stderr();
    write!(err, "{action} {count} tasks? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Where the copy goes, and of what.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The file to be made
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// `backup`.
pub(super) fn backup(args: &BackupArgs, setting: &Setting) -> Outcome {
    let dir = args.place.state_dir()?;
    let copied = store_backup::copy(&dir, &args.file).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let code = if error.is_permanent() { 4 } else { 1 };
        Failure::Code(code, format!("{error}{}", cause.unwrap_or_default()))
    })?;
    let mut out = io::stdout();
    if setting.json {
        let json = serde_json::json!({
            "file": args.file.display().to_string(),
            "bytes": copied.bytes,
            "schema": copied.version,
            "tasks": copied.tasks,
            "attempts": copied.attempts,
            "events": copied.events,
        });
        writeln!(out, "{json}")?;
    } else {
        writeln!(
            out,
            "{}: {} tasks, {} attempts, {} events, {} bytes, checked; output is not in it",
            args.file.display(),
            copied.tasks,
            copied.attempts,
            copied.events,
            copied.bytes
        )?;
    }
    Ok(0)
}
