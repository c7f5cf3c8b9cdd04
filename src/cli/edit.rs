//! `edit`: a task that waits, changed by options or in an editor.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args as ClapArgs;
use hyper::Method;
use serde_json::{Map, Value};

use crate::api::dto::TaskInfo;
use crate::api::edit::{Change, PairChanges};
use crate::api::number::Span;
use crate::client::{self, Client};

use super::submit::{pairs, time, utf8};
use super::{Failure, Outcome, Setting, complain, tasks};

/// What to change.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Number of the task
    #[arg(value_parser = tasks::number)]
    id: i64,
    /// Queue to wait in
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Name for people; an empty one takes it away
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
    /// Time limit of each attempt
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// Label to add or to change, once for each
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Another command: a program and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// `edit`.
pub(super) async fn edit(args: &Args, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    let change = change(args)?;
    let task = if change == Change::default() {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            let told = "say what to change, such as --priority 5; \
                        without an option `edit` opens an editor, and needs a terminal";
            return Err(Failure::Usage(told.to_owned()));
        }
        match in_editor(&client, args.id).await? {
            Some(task) => task,
            None => return Ok(0),
        }
    } else {
        let body = serde_json::to_value(&change).map_err(io::Error::from)?;
        send(&client, args.id, &body).await?
    };
    let mut out = io::stdout().lock();
    if setting.json {
        serde_json::to_writer(&mut out, &task).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "task {} changed, {}", task.id, task.state)?;
    }
    Ok(0)
}

async fn send(client: &Client, id: i64, body: &Value) -> Result<TaskInfo, client::Error> {
    let path = format!("/v1/tasks/{id}");
    let body = body.to_string().into();
    client
        .change(Method::PATCH, &path, Some(body))
        .await?
        .read()
}

/// The change that the options stand for.
fn change(args: &Args) -> Result<Change, Failure> {
    let words = args.command.iter().enumerate();
    let words: Result<Vec<String>, Failure> = words
        .map(|(place, word)| utf8(word.clone(), &format!("argument {place} of the command")))
        .collect();
    let labels = pairs(&args.label, "--label")?.0;
    let at = args.at.as_deref().map(|at| time("--at", at)).transpose()?;
    Ok(Change {
        command: Some(words?).filter(|words| !words.is_empty()),
        env: PairChanges::default(),
        cwd: None,
        name: args
            .name
            .clone()
            .map(|name| Some(name).filter(|name| !name.is_empty())),
        queue: args.queue.clone(),
        priority: args.priority,
        labels: PairChanges(
            labels
                .into_iter()
                .map(|(name, value)| (name, Some(value)))
                .collect(),
        ),
        timeout: args.timeout.map(Some),
        run_at: at.map(Some),
        delay: args.delay,
    })
}

/// Lets a person change the task's fields until the daemon takes them, or they
/// give up. None when nothing was changed.
async fn in_editor(client: &Client, id: i64) -> Result<Option<TaskInfo>, Failure> {
    let task: TaskInfo = client.get(&format!("/v1/tasks/{id}")).await?.read()?;
    let before = fields(&task);
    let draft = Draft::new(&before)?;
    loop {
        edited(&draft.0)?;
        let text = fs::read(&draft.0)?;
        let problem = match serde_json::from_slice::<Map<String, Value>>(&text) {
            Ok(after) if missing(&after).is_some() => {
                let name = missing(&after).unwrap_or_default();
                format!("`{name}` is missing, and a task cannot be without it")
            }
            Ok(after) => {
                let patch = difference(&before, &after);
                if patch.is_empty() {
                    complain("nothing was changed");
                    return Ok(None);
                }
                match send(client, id, &Value::Object(patch)).await {
                    Ok(task) => return Ok(Some(task)),
                    Err(client::Error::Refused(wire, _)) if wire.status == 400 => wire.detail,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => format!("that is not JSON: {error}"),
        };
        complain(&problem);
        if !again()? {
            let told = format!("task {id} was not changed");
            return Err(Failure::Code(1, told));
        }
    }
}

/// The fields that can be changed, as a submit has them.
fn fields(task: &TaskInfo) -> Map<String, Value> {
    let run = &task.run;
    let start = (task.state == "scheduled").then(|| task.due_at.to_string());
    let texts = |pairs: &BTreeMap<String, String>| {
        let pairs = pairs.iter();
        Value::Object(
            pairs
                .map(|(name, value)| (name.clone(), value.clone().into()))
                .collect(),
        )
    };
    let all: [(&str, Value); 9] = [
        ("command", run.command.clone().into()),
        ("name", task.name.clone().into()),
        ("queue", task.queue.clone().into()),
        ("priority", task.priority.into()),
        ("labels", texts(&task.labels.0)),
        ("timeout", run.timeout.clone().into()),
        ("run_at", start.into()),
        ("cwd", run.cwd.clone().into()),
        ("env", texts(&run.env.0)),
    ];
    all.map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// The first field that has to be there and is not.
fn missing(after: &Map<String, Value>) -> Option<&'static str> {
    let needed = ["command", "queue", "priority"];
    needed
        .into_iter()
        .find(|name| after.get(*name).is_none_or(Value::is_null))
}

/// What leads from one to the other: new values, and `null` for what is gone.
fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (name, value) in after {
        match (before.get(name), value) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                patch.insert(name.clone(), difference(old, new).into());
            }
            (_, new) => drop(patch.insert(name.clone(), new.clone())),
        }
    }
    for (name, old) in before {
        if after.contains_key(name) || old.is_null() {
            continue;
        }
        let gone = if let Value::Object(old) = old {
            difference(old, &Map::new()).into()
        } else {
            Value::Null
        };
        patch.insert(name.clone(), gone);
    }
    patch
}

/// A file that only its owner can read, and that is gone in the end.
struct Draft(PathBuf);

impl Draft {
    fn new(fields: &Map<String, Value>) -> io::Result<Self> {
        let name = format!("taskdaemon-{}.json", client::random_key()?);
        let path = std::env::temp_dir().join(name);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let draft = Self(path);
        serde_json::to_writer_pretty(&mut file, fields)?;
        writeln!(file)?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// Opens the editor of the environment, which may be a command with options,
/// and waits for its end.
fn edited(path: &Path) -> Result<(), Failure> {
    let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR"));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(path)
        .status()?;
    if status.success() {
        return Ok(());
    }
    let told = format!("the editor `{editor}` failed ({status}); nothing was changed");
    Err(Failure::Code(1, told))
}

fn again() -> io::Result<bool> {
    write!(io::stderr(), "Edit it again? [Y/n] ")?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer)?;
    Ok(read > 0 && !answer.trim_start().to_lowercase().starts_with('n'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_says_what_is_new_and_what_is_gone() {
        let before =
            json!({"a": 1, "b": "x", "c": null, "l": {"p": "1", "q": "2"}, "m": {"r": "3"}});
        for (after, patch) in [
            (before.clone(), json!({})),
            (
                json!({"a": 2, "c": null, "l": {"p": "1", "s": "4"}, "m": {"r": "3"}}),
                json!({"a": 2, "b": null, "l": {"q": null, "s": "4"}}),
            ),
            (
                json!({"a": 1, "b": "x", "new": true, "l": {"p": "1", "q": "2"}}),
                json!({"new": true, "m": {"r": null}}),
            ),
        ] {
            let (Value::Object(before), Value::Object(after)) = (&before, &after) else {
                panic!("objects");
            };
            assert_eq!(Value::Object(difference(before, after)), patch);
        }
    }
}
