//! No verb at all: how the house stands, and what to type next.

use std::io::{self, Write};

use crate::api::admin::Status;
use crate::api::health::Health;
use crate::api::schedules::{ScheduleInfo, SchedulePage};
use crate::client::Error;

use super::page::utc;
use super::status::agents_in_words;
use super::text::escape;
use super::{Failure, Outcome, Setting, complain, not_in_json, online};

/// A command, and what it is for.
type Next = (&'static str, &'static str);

/// Where nobody answers.
const ABSENT: [Next; 3] = [
    ("taskdaemon doctor", "what is wrong here, and what mends it"),
    (
        "systemctl start taskdaemon",
        "the system's daemon; `taskdaemon start` without systemd",
    ),
    ("taskdaemon demo", "see it work, in a directory of its own"),
];
/// Where the daemon's socket is closed to who asks.
const DENIED: [Next; 3] = [
    (
        "adduser USER taskdaemon",
        "as root, then log in again: lets USER hand in tasks",
    ),
    ("taskdaemon doctor", "what is wrong here, and what mends it"),
    (
        "taskdaemon start",
        "a daemon of your own, for your tasks alone",
    ),
];
/// Where there is no task yet.
const EMPTY: [Next; 3] = [
    (
        "taskdaemon submit --follow -- date",
        "run something, and see what it says",
    ),
    ("taskdaemon list", "what was run"),
    ("taskdaemon --help", "all there is"),
];
/// Where tasks have failed.
const FAILED: [Next; 3] = [
    ("taskdaemon list --state failed", "what failed"),
    (
        "taskdaemon show ID",
        "how, and how often; `logs ID` is what it wrote",
    ),
    ("taskdaemon retry ID", "run it again"),
];
/// Where there are tasks.
const USUAL: [Next; 3] = [
    ("taskdaemon list", "the latest tasks"),
    ("taskdaemon top", "watch queues and tasks"),
    ("taskdaemon web", "the same in a browser"),
];

/// The house.
pub(super) fn home(setting: &Setting) -> Outcome {
    not_in_json(setting, "taskdaemon")?;
    online(async {
        match look(setting).await {
            Ok((status, health, next)) => {
                let text = in_lines(&status, &health, next.as_ref());
                io::stdout().lock().write_all(text.as_bytes())?;
                Ok(0)
            }
            Err(Failure::Client(Error::Unreachable(why, kind))) => {
                let next = if kind == io::ErrorKind::PermissionDenied {
                    &DENIED
                } else {
                    &ABSENT
                };
                io::stdout().lock().write_all(rows(next).as_bytes())?;
                complain(&why);
                Ok(69)
            }
            Err(failure) => Err(failure),
        }
    })
}

async fn look(setting: &Setting) -> Result<(Status, Health, Option<ScheduleInfo>), Failure> {
    let client = setting.client()?;
    let status = client.get("/v1/status").await?.read()?;
    let health = client.health().await?;
    let page: SchedulePage = client.get("/v1/schedules?limit=1000").await?.read()?;
    let coming = page
        .schedules
        .into_iter()
        .filter(|one| one.next_at.is_some());
    Ok((status, health, coming.min_by_key(|one| one.next_at)))
}

fn in_lines(status: &Status, health: &Health, next: Option<&ScheduleInfo>) -> String {
    let (version, phase) = (escape(&status.version), escape(&status.phase));
    let count = |state: &str| status.tasks.get(state).copied().unwrap_or(0);
    let word = escape(&health.status);
    let mut text = format!("taskdaemon {version} is {phase}, and {word}\n");
    let (queued, running, failed) = (count("queued"), count("running"), count("failed"));
    text.push_str(&format!(
        "tasks     {queued} queued, {running} running, {failed} failed\n"
    ));
    if let Some(agents) = &status.agents {
        text.push_str(&format!("agents    {}\n", agents_in_words(agents)));
    }
    if let Some((at, name)) = next.and_then(|one| Some((one.next_at?, escape(&one.name)))) {
        text.push_str(&format!("next      {name} at {}\n", utc(at)));
    }
    for part in &health.parts {
        if let Some(why) = &part.why {
            text.push_str(&format!(
                "lacks     {}: {}\n",
                escape(&part.name),
                escape(why)
            ));
        }
    }
    let all: u64 = status.tasks.values().sum();
    let next = match (all, failed) {
        (0, _) => &EMPTY,
        (_, 1..) => &FAILED,
        (_, 0) => &USUAL,
    };
    text.push_str(&rows(next));
    text
}

fn rows(next: &[Next]) -> String {
    let mut text = "try\n".to_owned();
    for (command, what) in next {
        text.push_str(&format!("  {command:<34} {what}\n"));
    }
    text
}
