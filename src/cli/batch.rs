//! Handing in many tasks from a file, exactly once, and waiting for all of
//! them.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::task::{JoinSet, LocalSet};

use crate::api::asked::{Accepted, Submit};
use crate::api::dto::TaskInfo;
use crate::client::{self, Client};

use super::interrupt::Interrupt;
use super::jobs::{self, Job};
use super::{Failure, Outcome, Setting, complain};

/// Most tasks of one call.
const CALL_MAX: usize = 10_000;
/// Bytes after which another call is made, where that may be: half of what the
/// daemon takes by default.
const CALL_BYTES: usize = 8 * 1024 * 1024;
/// Largest file.
const FILE_MAX: u64 = 1 << 30;
/// Questions asked at once while waiting.
const WAITS: usize = 16;
/// Failures named one by one.
const NAMED: usize = 10;

#[derive(Deserialize)]
struct AcceptedList {
    tasks: Vec<Accepted>,
}

/// `submit --file`.
pub(super) async fn submit(
    client: &Client,
    path: &Path,
    key: Option<&str>,
    wait: bool,
    setting: &Setting,
) -> Outcome {
    let bytes = contents(path)?;
    let mut jobs = jobs::read(path, &bytes).map_err(Failure::Usage)?;
    let prefix = match key {
        Some(key) => key.to_owned(),
        None => hash(&bytes),
    };
    drop(bytes);
    for (place, job) in jobs.iter_mut().enumerate() {
        let key = &mut job.task.key;
        key.get_or_insert_with(|| format!("{prefix}/{place}"));
    }
    let mut accepted: Vec<Accepted> = Vec::with_capacity(jobs.len());
    for call in calls(&jobs, path)? {
        let first = accepted.len();
        let answer = client.submit(call).await.map_err(|error| {
            if first > 0 {
                let all = jobs.len();
                complain(&format!(
                    "{first} of {all} tasks are handed in; the same command again hands in the \
                     rest, each once"
                ));
            }
            placed(error, &jobs, first, path)
        })?;
        let list: AcceptedList = answer.read()?;
        if !wait {
            print(&list.tasks, setting)?;
        }
        accepted.extend(list.tasks);
    }
    say(&accepted, path);
    if wait {
        let waiting = wait_for_all(client, &accepted, setting);
        return LocalSet::new().run_until(waiting).await;
    }
    Ok(0)
}

fn contents(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin()
            .lock()
            .take(FILE_MAX + 1)
            .read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
    };
    let name = path.display();
    read.map_err(|error| Failure::Usage(format!("cannot read {name}: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_MAX {
        return Err(Failure::Usage(format!("{name}: is larger than 1GiB")));
    }
    Ok(bytes)
}

/// What names a file by what is in it.
fn hash(bytes: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    let short = hash.iter().take(16);
    short.map(|byte| format!("{byte:02x}")).collect()
}

/// The bodies of the calls that hand the tasks in. One call is all or nothing,
/// and only tasks of one call can name each other.
fn calls(jobs: &[Job], path: &Path) -> Result<Vec<Bytes>, Failure> {
    let together = jobs.iter().any(|job| job.task.refer.is_some());
    if together && jobs.len() > CALL_MAX {
        let (name, count) = (path.display(), jobs.len());
        return Err(Failure::Usage(format!(
            "{name}: {count} tasks; a file with `ref` is handed in as a whole, and then \
             {CALL_MAX} are allowed"
        )));
    }
    let mut calls = Vec::new();
    let mut body: Vec<u8> = Vec::new();
    let mut count = 0;
    for job in jobs {
        let task = serde_json::to_vec::<Submit>(&job.task).map_err(io::Error::from)?;
        let full = !together && body.len() + task.len() > CALL_BYTES;
        if count == CALL_MAX || (full && count > 0) {
            body.extend_from_slice(b"]}");
            calls.push(std::mem::take(&mut body).into());
            count = 0;
        }
        body.extend_from_slice(if count == 0 { b"{\"tasks\":[" } else { b"," });
        body.extend_from_slice(&task);
        count += 1;
    }
    body.extend_from_slice(b"]}");
    calls.push(body.into());
    Ok(calls)
}

/// A refusal with the place in the file of the task that it is about; `first`
/// is the place of the call's first task among all.
fn placed(error: client::Error, jobs: &[Job], first: usize, path: &Path) -> Failure {
    let client::Error::Refused(mut wire, after) = error else {
        return error.into();
    };
    let field = wire.field.as_deref().unwrap_or_default();
    let number = field
        .strip_prefix("tasks[")
        .and_then(|rest| rest.split(']').next());
    let job = number
        .and_then(|number| number.parse::<usize>().ok())
        .and_then(|number| jobs.get(first + number));
    let name = path.display();
    wire.detail = match job.and_then(|job| job.line) {
        Some(line) => format!("{name}:{line}: {}", wire.detail),
        None => format!("{name}: {}", wire.detail),
    };
    client::Error::Refused(wire, after).into()
}

/// One task a line: as JSON, or its number alone where nobody reads.
pub(super) fn print(tasks: &[Accepted], setting: &Setting) -> io::Result<()> {
    let out = io::stdout();
    let people = out.is_terminal();
    let mut out = io::BufWriter::new(out.lock());
    for task in tasks {
        if setting.json {
            serde_json::to_writer(&mut out, task)?;
            writeln!(out)?;
        } else if !people {
            writeln!(out, "{}", task.id)?;
        }
    }
    out.flush()
}

/// What has become of the file.
fn say(tasks: &[Accepted], path: &Path) {
    let created = tasks.iter().filter(|task| task.created).count();
    let known = tasks.len() - created;
    let ids = || tasks.iter().map(|task| task.id);
    let (low, high) = (ids().min().unwrap_or(0), ids().max().unwrap_or(0));
    let name = path.display();
    if created == 0 {
        complain(&format!(
            "nothing new: all {known} tasks of {name} are there already ({low} to {high}); \
             --key NAME makes them another time"
        ));
    } else if known > 0 {
        complain(&format!(
            "{created} tasks accepted, {known} were there already ({low} to {high})"
        ));
    } else if io::stderr().is_terminal() {
        complain(&format!("{created} tasks accepted ({low} to {high})"));
    }
}

/// Waits until all are over; ends with 0 when all succeeded.
async fn wait_for_all(client: &Client, tasks: &[Accepted], setting: &Setting) -> Outcome {
    let all = tasks.len();
    let mut left = tasks.iter().map(|task| task.id);
    let mut waits: JoinSet<Result<TaskInfo, client::Error>> = JoinSet::new();
    let mut progress = Progress::new(all);
    let mut interrupt = Interrupt::listen()?;
    loop {
        while waits.len() < WAITS
            && let Some(id) = left.next()
        {
            let client = client.clone();
            waits.spawn_local(async move { client.wait(id).await });
        }
        let told = "the tasks go on; the same command waits again";
        let over = interrupt.unless(told, async { Ok(waits.join_next().await) });
        let over = over.await.inspect_err(|_| progress.clear())?;
        let Some(over) = over else { break };
        let task = over.map_err(io::Error::from)??;
        progress.count(&task);
        if setting.json {
            let mut out = io::stdout().lock();
            serde_json::to_writer(&mut out, &task).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(progress.end(setting))
}

/// How many are over, on one line of a terminal.
struct Progress {
    all: usize,
    done: usize,
    failed: usize,
    named: Vec<String>,
    terminal: bool,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self {
            all,
            done: 0,
            failed: 0,
            named: Vec::new(),
            terminal: io::stderr().is_terminal(),
        }
    }

    fn count(&mut self, task: &TaskInfo) {
        self.done += 1;
        if task.state != "succeeded" {
            self.failed += 1;
            if self.named.len() < NAMED {
                let message = task.outcome.as_ref().map_or("", |outcome| &outcome.message);
                let line = format!("task {} {}: {message}", task.id, task.state);
                self.named.push(line);
            }
        }
        if self.terminal {
            let line = self.line();
            drop(write!(io::stderr(), "\r\x1b[K{line}"));
        }
    }

    fn line(&self) -> String {
        let (done, all, failed) = (self.done, self.all, self.failed);
        format!("{done} of {all} done, {failed} failed")
    }

    fn clear(&self) {
        if self.terminal {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }

    /// Says how it went, and gives the exit code.
    fn end(&self, setting: &Setting) -> u8 {
        self.clear();
        if !setting.json {
            self.named.iter().for_each(|line| complain(line));
            if self.failed > self.named.len() {
                let more = self.failed - self.named.len();
                complain(&format!("and {more} more that did not succeed"));
            }
            complain(&self.line());
        }
        u8::from(self.failed > 0)
    }
}
