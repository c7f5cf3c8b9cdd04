//! `queue`: what holds tasks back, lane by lane.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use hyper::Method;

use crate::api::hooks::{HookRule, QueueHooks};
use crate::api::queues::{AskedLimits, QueueInfo, QueueList};
use crate::client::Answer;
use crate::model::check::queue_name;
use crate::model::rate::Rate;

use super::text::{command, escape, table};
use super::{Failure, Outcome, Setting, hooks};

/// What to do about queues.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List queues
    List,
    /// Show one queue
    Show(Which),
    /// Set limits of a queue, and make it where there is none
    Set(SetArgs),
    /// Let it start nothing; what runs goes on
    Pause(Which),
    /// Let it start tasks and take new ones
    Resume(Which),
    /// Let it take no new tasks, and run those it has
    Drain(Which),
    /// Show what follows the end of each of its tasks, or change that (admins)
    Hooks(HookArgs),
    /// Forget it and its limits; it must have no unfinished tasks
    Remove(Which),
}

/// A queue.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Name of the queue
    #[arg(value_name = "QUEUE")]
    queue: String,
}

/// A queue and its new limits.
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    limits: LimitArgs,
}

/// A queue and its new hooks.
#[derive(Debug, Args)]
pub(super) struct HookArgs {
    #[command(flatten)]
    which: Which,
    /// Have these hooks instead: JSON as `--json` prints it; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["clear", "hook_args"])]
    set: Option<PathBuf>,
    /// Have none
    #[arg(long, conflicts_with = "hook_args")]
    clear: bool,
    #[command(flatten)]
    hooks: hooks::Args,
}

/// New limits.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct LimitArgs {
    /// Attempts at once; `none` for the daemon's setting `queue_concurrency`
    #[arg(long, value_name = "COUNT", value_parser = limit::<u32>)]
    concurrency: Option<Limit<u32>>,
    /// Starts in a time, as 10/1m; so many may follow at once after a rest; `none` for no limit
    #[arg(long, value_name = "RATE", value_parser = limit::<Rate>)]
    rate: Option<Limit<Rate>>,
    /// Attempts at once of tasks with the same `--group`; `none` for 1, the default
    #[arg(long, value_name = "COUNT", value_parser = limit::<u32>)]
    group_limit: Option<Limit<u32>>,
}

/// A limit, or `none`.
#[derive(Debug, Clone, Copy)]
struct Limit<T>(Option<T>);

fn limit<T>(text: &str) -> Result<Limit<T>, String>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if text == "none" {
        return Ok(Limit(None));
    }
    let value = text.parse().map_err(|error: T::Err| error.to_string())?;
    Ok(Limit(Some(value)))
}

/// `queue`.
pub(super) async fn queue(verb: Verb, setting: &Setting) -> Outcome {
    match verb {
        Verb::List => list(setting).await,
        Verb::Show(which) => {
            let answer = setting.client()?.get(&path(&which)?).await?;
            say(&answer, setting)
        }
        Verb::Set(args) => set(&args, setting).await,
        Verb::Pause(which) => change(&which, Method::POST, "/pause", setting).await,
        Verb::Resume(which) => change(&which, Method::POST, "/resume", setting).await,
        Verb::Drain(which) => change(&which, Method::POST, "/drain", setting).await,
        Verb::Hooks(args) => queue_hooks(&args, setting).await,
        Verb::Remove(which) => change(&which, Method::DELETE, "", setting).await,
    }
}

fn path(which: &Which) -> Result<String, Failure> {
    queue_name(&which.queue).map_err(|invalid| Failure::Usage(invalid.to_string()))?;
    Ok(format!("/v1/queues/{}", which.queue))
}

async fn list(setting: &Setting) -> Outcome {
    let answer = setting.client()?.get("/v1/queues").await?;
    let list: QueueList = answer.read()?;
    let mut out = io::stdout().lock();
    if setting.json {
        for queue in &list.queues {
            serde_json::to_writer(&mut out, queue).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    } else {
        out.write_all(rows(&list.queues).as_bytes())?;
    }
    Ok(0)
}

async fn set(args: &SetArgs, setting: &Setting) -> Outcome {
    let limits = &args.limits;
    let asked = AskedLimits {
        concurrency: limits.concurrency.map(|limit| limit.0),
        rate: limits.rate.map(|limit| limit.0),
        group_limit: limits.group_limit.map(|limit| limit.0),
    };
    let body = serde_json::to_vec(&asked).map_err(io::Error::from)?;
    let path = path(&args.which)?;
    let client = setting.client()?;
    let answer = client
        .change(Method::PATCH, &path, Some(body.into()))
        .await?;
    say(&answer, setting)
}

async fn change(which: &Which, method: Method, verb: &str, setting: &Setting) -> Outcome {
    let path = format!("{}{verb}", path(which)?);
    let answer = setting
        .client()?
        .change(method.clone(), &path, None)
        .await?;
    if method == Method::DELETE && !setting.json {
        let mut out = io::stdout().lock();
        writeln!(out, "queue {} is removed", escape(&which.queue))?;
        return Ok(0);
    }
    say(&answer, setting)
}

/// `queue hooks`.
async fn queue_hooks(args: &HookArgs, setting: &Setting) -> Outcome {
    let path = format!("{}/hooks", path(&args.which)?);
    let rules = args.hooks.rules();
    let body = match (&args.set, args.clear, rules) {
        (Some(file), ..) => Some(hooks_of(file)?),
        (None, true, _) => Some(br#"{"hooks": []}"#.to_vec()),
        (None, false, Some(rules)) => {
            let hooks = Some(rules);
            Some(serde_json::to_vec(&QueueHooks { hooks }).map_err(io::Error::from)?)
        }
        (None, false, None) => None,
    };
    let client = setting.client()?;
    let answer = match body {
        Some(body) => client.change(Method::PUT, &path, Some(body.into())).await?,
        None => client.get(&path).await?,
    };
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let hooks: QueueHooks = answer.read()?;
    for hook in hooks.hooks.unwrap_or_default() {
        writeln!(out, "{}", line(&hook))?;
    }
    Ok(0)
}

/// The hooks that a file holds, checked as far as that goes here.
fn hooks_of(file: &Path) -> Result<Vec<u8>, Failure> {
    let shown = escape(&file.display().to_string());
    let read = if file == Path::new("-") {
        io::read_to_string(io::stdin())
    } else {
        fs::read_to_string(file)
    };
    let text = read.map_err(|error| Failure::Usage(format!("cannot read {shown}: {error}")))?;
    serde_json::from_str::<QueueHooks>(&text).map_err(|error| {
        let wanted = r#"{"hooks": [{"on": ["failed"], "command": ["/usr/local/bin/tell"]}]}"#;
        Failure::Usage(format!("{shown}: {error}; it must look like {wanted}"))
    })?;
    Ok(text.into_bytes())
}

/// A hook in one line.
fn line(hook: &HookRule) -> String {
    let act = match (&hook.command, &hook.webhook) {
        (Some(words), _) => format!("command {}", command(words)),
        (None, Some(url)) => format!("webhook {}", escape(url)),
        (None, None) => "nothing".to_owned(),
    };
    let ends = hook.on.0.iter().map(|end| end.word());
    let ends: Vec<_> = ends.collect();
    match ends.as_slice() {
        [] => act,
        ends => format!("{act} when {}", ends.join(", ")),
    }
}

/// A queue as a table of one, or as it came.
fn say(answer: &Answer, setting: &Setting) -> Outcome {
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    let queue: QueueInfo = answer.read()?;
    out.write_all(rows(&[queue]).as_bytes())?;
    Ok(0)
}

fn rows(queues: &[QueueInfo]) -> String {
    let head = [
        "QUEUE",
        "STATE",
        "QUEUED",
        "RUNNING",
        "CONCURRENCY",
        "RATE",
        "GROUP LIMIT",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(queues.iter().map(row));
    table(&rows)
}

fn row(queue: &QueueInfo) -> Vec<String> {
    let state = match (queue.paused, queue.draining) {
        (false, false) => "open",
        (true, false) => "paused",
        (false, true) => "draining",
        (true, true) => "paused, draining",
    };
    let none = || "none".to_owned();
    let limit = |limit: Option<u32>| limit.map_or_else(none, |limit| limit.to_string());
    vec![
        escape(&queue.name),
        state.to_owned(),
        queue.queued.to_string(),
        queue.running.to_string(),
        limit(queue.concurrency),
        queue.rate.map_or_else(none, |rate| rate.to_string()),
        queue.group_limit.to_string(),
    ]
}
