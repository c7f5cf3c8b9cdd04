//! `submit`: a command and its conditions, handed in exactly once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{ArgGroup, Args as ClapArgs};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::api::asked::{RetryRule, Submit, UniqueRule};
use crate::api::budgets::BudgetRule;
use crate::api::number::{Cores, Pairs, Span, Word};
use crate::client;
use crate::clock;
use crate::model::check::STDIN_MAX;
use crate::model::price::Money;
use crate::model::quantity::ByteSize;
use crate::model::retry::Failure as Failed;
use crate::model::spec::{Conflict, OnInterrupt};

use super::hand_in::{Waiting, hand_in};
use super::providers::budgets::money;
use super::{Failure, Outcome, Setting, batch, hooks};

/// What to run, and how.
#[derive(Debug, ClapArgs)]
// All that a file says of its tasks itself.
#[command(group = ArgGroup::new("one").multiple(true).args([
    "queue", "name", "priority", "at", "delay", "deadline", "group", "after", "unique", "user",
    "cwd", "env", "label", "timeout", "grace", "queue_ttl", "heartbeat", "memory", "cpu", "pids",
    "output_cap", "retries", "on_interrupt", "profile", "llm", "stdin", "stdin_from", "command",
]))]
pub(super) struct Args {
    /// Queue to wait in [default: default]
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Name for people
    #[arg(long)]
    name: Option<String>,
    /// Higher starts first (-1000 to 1000)
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Not before this time: 2026-01-31T09:00 here, or with an offset
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    at: Option<String>,
    /// Not before so much time has passed: 90s, 1h30m
    #[arg(long = "in", value_name = "DURATION", allow_hyphen_values = true)]
    delay: Option<Span>,
    /// Must be over by this time, or after so much time: 2026-01-31T18:00, 2h
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// Group key: of those with the same one in a queue only so many run at once
    #[arg(long, value_name = "KEY")]
    group: Option<String>,
    /// Start when this task has succeeded, or is just over: 12, 12:any; several with commas
    #[arg(long, value_name = "ID[:ok|:any]", value_delimiter = ',')]
    after: Vec<String>,
    /// Unique key: no other unfinished task of yours has it
    #[arg(long, value_name = "KEY")]
    unique: Option<String>,
    /// When one has: reject, return (answer with it), or replace (cancel it) [default: reject]
    #[arg(long, value_name = "WHAT", requires = "unique", value_parser = on_conflict)]
    on_conflict: Option<Conflict>,
    /// Idempotency key: the same key never makes a second task
    #[arg(long)]
    key: Option<String>,
    /// User to run as, if /etc/taskdaemon/run-as.toml allows it [default: as it says there]
    #[arg(long)]
    user: Option<String>,
    /// Working directory [default: the home of the user it runs as, not this directory]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Variable for the command, once for each; it inherits none of yours
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Label to find it by, once for each
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Time limit of each attempt
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// Time between the request to end and the kill
    #[arg(long, value_name = "DURATION")]
    grace: Option<Span>,
    /// Longest wait in the queue
    #[arg(long, value_name = "DURATION")]
    queue_ttl: Option<Span>,
    /// Longest silence on its notify socket (WATCHDOG=1) before it counts as stuck
    #[arg(long, value_name = "DURATION")]
    heartbeat: Option<Span>,
    /// Memory limit: 512MiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// CPU limit: 1.5 cores, or 150%
    #[arg(long, value_name = "CORES")]
    cpu: Option<Cores>,
    /// Limit on processes and threads
    #[arg(long, value_name = "COUNT")]
    pids: Option<u32>,
    /// Output kept of each attempt
    #[arg(long, value_name = "SIZE")]
    output_cap: Option<ByteSize>,
    #[arg(
        long,
        help = "Let its programs ask models, by OPENAI_BASE_URL or ANTHROPIC_BASE_URL"
    )]
    llm: bool,
    /// The most that those calls of models may cost together, in the currency of the prices
    #[arg(long, value_name = "AMOUNT", requires = "llm", value_parser = money)]
    max_cost: Option<Money>,
    /// Attempts after the first, when it fails
    #[arg(
        long,
        value_name = "COUNT",
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(..1000)
    )]
    retries: Option<u32>,
    /// Longest wait before the first retry; it doubles from there
    #[arg(long, value_name = "DURATION", requires = "retries")]
    backoff: Option<Span>,
    /// Exit codes and classes to try again: 75,timeout [default: all but oom and spawn]
    #[arg(long, value_name = "LIST", requires = "retries", value_delimiter = ',')]
    retry_on: Vec<Failed>,
    /// Exit codes and classes not to try again: 2,spawn
    #[arg(long, value_name = "LIST", requires = "retries", value_delimiter = ',')]
    no_retry_on: Vec<Failed>,
    /// When the runner or the host dies under it: retry, or hold (failed until `retry`)
    #[arg(long, value_name = "WHAT", value_parser = on_interrupt)]
    on_interrupt: Option<OnInterrupt>,
    #[command(flatten)]
    hooks: hooks::Args,
    /// Sandbox profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Pass standard input on to the command, at most 1MiB
    #[arg(long)]
    stdin: bool,
    /// Pass the standard output of this task on to the command, once it has succeeded
    #[arg(long, value_name = "ID", conflicts_with = "stdin")]
    stdin_from: Option<String>,
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["one", "follow"],
        help = "Hand in the tasks of a file (- is standard input): JSON lines, or a TOML or YAML \
                job file. With --key NAME, or else by its content, the same file is handed in once"
    )]
    file: Option<PathBuf>,
    /// Wait until it is over, and end with its exit code
    #[arg(long)]
    wait: bool,
    /// Show its output meanwhile, and end with its exit code
    #[arg(long, conflicts_with = "json")]
    follow: bool,
    /// The command: a program and its arguments
    #[arg(last = true, required_unless_present = "file", value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn on_conflict(word: &str) -> Result<Conflict, String> {
    match word {
        "reject" => Ok(Conflict::Reject),
        "return" => Ok(Conflict::Return),
        "replace" => Ok(Conflict::Replace),
        _ => Err("must be `reject`, `return` or `replace`".to_owned()),
    }
}

fn on_interrupt(word: &str) -> Result<OnInterrupt, String> {
    match word {
        "retry" => Ok(OnInterrupt::Retry),
        "hold" => Ok(OnInterrupt::Hold),
        _ => Err("must be `retry` or `hold`".to_owned()),
    }
}

impl Args {
    /// What has been said of how to wait for the task.
    pub(super) const fn waits(&self) -> bool {
        self.wait || self.follow
    }

    /// Whether an idempotency key was given.
    pub(super) const fn has_key(&self) -> bool {
        self.key.is_some()
    }
}

/// `submit`.
pub(super) async fn submit(args: &Args, setting: &Setting) -> Outcome {
    if let Some(path) = &args.file {
        let client = setting.client()?;
        return batch::submit(&client, path, args.key.as_deref(), args.wait, setting).await;
    }
    let how = Waiting {
        wait: args.wait,
        follow: args.follow,
    };
    hand_in(&order(args)?, how, setting).await
}

/// The request that the arguments stand for.
pub(super) fn order(args: &Args) -> Result<Submit, Failure> {
    let (stdin, stdin_base64) = if args.stdin { input()? } else { (None, None) };
    let cwd = match &args.cwd {
        Some(dir) => Some(utf8(std::path::absolute(dir)?.into_os_string(), "--cwd")?),
        None => None,
    };
    let command: Result<Vec<String>, Failure> = args
        .command
        .iter()
        .enumerate()
        .map(|(place, word)| utf8(word.clone(), &format!("argument {place} of the command")))
        .collect();
    let retry = args.retries.map(|retries| RetryRule {
        max_attempts: Some(retries.saturating_add(1)),
        backoff: args.backoff,
        retry_on: words(&args.retry_on),
        no_retry_on: words(&args.no_retry_on),
        ..RetryRule::default()
    });
    Ok(Submit {
        command: command?,
        env: pairs(&args.env, "--env")?,
        cwd,
        user: args.user.clone(),
        umask: None,
        stdin,
        stdin_base64,
        stdin_from: args.stdin_from.clone().map(Word),
        queue: args.queue.clone(),
        name: args.name.clone(),
        priority: args.priority,
        labels: pairs(&args.label, "--label")?,
        run_at: args.at.as_deref().map(|at| time("--at", at)).transpose()?,
        delay: args.delay,
        deadline: args.deadline.as_deref().map(deadline).transpose()?,
        group: args.group.clone(),
        after: args.after.iter().cloned().map(Word).collect(),
        refer: None,
        unique: args.unique.clone().map(|key| UniqueRule {
            key,
            on_conflict: args.on_conflict.unwrap_or_default(),
        }),
        heartbeat: args.heartbeat,
        key: Some(match &args.key {
            Some(key) => key.clone(),
            // Ours, so that a lost reply can be asked for again.
            None => client::random_key()?,
        }),
        timeout: args.timeout,
        grace: args.grace,
        queue_ttl: args.queue_ttl,
        memory: args.memory,
        cpu: args.cpu,
        pids: args.pids,
        output_cap: args.output_cap,
        llm: args.llm,
        budget: args.max_cost.map(BudgetRule::of_money),
        profile: args.profile.clone(),
        on_interrupt: args.on_interrupt,
        retry,
        hooks: args.hooks.rules(),
        tasks: None,
        prompt: None,
    })
}

pub(super) fn utf8(word: OsString, what: &str) -> Result<String, Failure> {
    word.into_string().map_err(|word| {
        let shown = word.display();
        Failure::Usage(format!("{what} is not UTF-8 and cannot be sent: {shown}"))
    })
}

pub(super) fn pairs(texts: &[String], flag: &str) -> Result<Pairs, Failure> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Failure::Usage(format!("{flag} {text}: write NAME=VALUE")));
        };
        match pairs.entry(name.to_owned()) {
            Entry::Vacant(place) => {
                place.insert(value.to_owned());
            }
            Entry::Occupied(_) => {
                return Err(Failure::Usage(format!("{flag} {name}: given twice")));
            }
        }
    }
    Ok(Pairs(pairs))
}

/// Standard input, as text where it is text.
fn input() -> Result<(Option<String>, Option<String>), Failure> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(STDIN_MAX).unwrap_or(u64::MAX);
    io::stdin().lock().take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() > STDIN_MAX {
        return Err(Failure::Usage(format!(
            "--stdin: more than {}; put it in a file that the command reads",
            ByteSize(limit)
        )));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((Some(text), None)),
        Err(error) => Ok((None, Some(BASE64_STANDARD.encode(error.as_bytes())))),
    }
}

/// A time with an offset, or one of this host's time zone.
pub(super) fn time(flag: &str, text: &str) -> Result<String, Failure> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.to_string());
    }
    let local = text
        .parse::<DateTime>()
        .and_then(|time| time.to_zoned(TimeZone::system()));
    match local {
        Ok(time) => Ok(time.timestamp().to_string()),
        Err(_) => Err(Failure::Usage(format!(
            "{flag} {text}: write 2026-01-31T09:00, or 2026-01-31T09:00:00+01:00"
        ))),
    }
}

/// A time, or how long from now.
fn deadline(text: &str) -> Result<String, Failure> {
    let Ok(span) = text.parse::<Span>() else {
        return time("--deadline", text);
    };
    let micros = clock::now().after(span.0).micros();
    Timestamp::from_microsecond(micros)
        .map(|time| time.to_string())
        .map_err(|_| Failure::Usage(format!("--deadline {text}: is too far away")))
}

fn words(failures: &[Failed]) -> Vec<Word> {
    let word = |failed: &Failed| Word(failed.to_string());
    failures.iter().map(word).collect()
}
