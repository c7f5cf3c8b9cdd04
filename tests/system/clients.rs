//! Clients that go on asking, whatever happens to the daemon, and the count of what became of each request.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::doors::{Answer, Connection, Door, Request};

/// What became of all requests.
#[derive(Default)]
pub(crate) struct Tally {
    /// Clients ask until this is set.
    pub(crate) stop: AtomicBool,
    /// Answers that said they were the connection's last.
    pub(crate) announced: AtomicU64,
    /// When each answered request was sent, and how long its answer took.
    pub(crate) waits: Mutex<Vec<(Instant, Duration)>>,
    answered: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, what: &'static str, asked: Instant, answer: &io::Result<Answer>) {
        let taken = asked.elapsed();
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                *self
                    .answered
                    .lock()
                    .expect("answered")
                    .entry(what)
                    .or_default() += 1;
                self.waits.lock().expect("waits").push((asked, taken));
            }
            Ok(answer) => self.fail(format!("{what}: {} {}", answer.status, answer.body)),
            Err(error) => self.fail(format!("{what}: {error} after {taken:?}")),
        }
    }

    fn fail(&self, what: String) {
        self.failures.lock().expect("failures").push(what);
    }

    /// Answered requests by the kind of client.
    pub(crate) fn answered(&self) -> BTreeMap<&'static str, u64> {
        self.answered.lock().expect("answered").clone()
    }

    /// Requests that were refused, reset, not answered in time, or not answered with success.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("failures").clone()
    }

    /// No request has failed; returns how many were answered.
    pub(crate) fn flawless(&self) -> u64 {
        let failures = self.failures();
        let answered = self.answered().values().sum();
        assert!(
            failures.is_empty(),
            "{} of {answered} failed: {:?}",
            failures.len(),
            &failures[..failures.len().min(10)]
        );
        answered
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// When a client sends its next request.
pub(crate) enum Pace {
    /// So long after the last answer.
    Pause(Duration),
    /// At fixed times; one that was held up sends at once what it has missed.
    Every(Duration, Instant),
}

impl Pace {
    /// A request each such time, from now on.
    pub(crate) fn every(time: Duration) -> Self {
        Self::Every(time, Instant::now())
    }

    fn wait(&mut self) {
        match self {
            Self::Pause(time) => std::thread::sleep(*time),
            Self::Every(time, due) => {
                *due += *time;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
    }
}

/// A new connection for each request.
pub(crate) fn one_by_one(
    what: &'static str,
    door: &Door,
    tally: &Tally,
    request: Request<'_>,
    mut pace: Pace,
) {
    while !tally.stopped() {
        once(what, door, tally, request);
        pace.wait();
    }
}

fn once(what: &'static str, door: &Door, tally: &Tally, request: Request<'_>) -> Option<Answer> {
    let asked = Instant::now();
    let answer = door
        .connect()
        .and_then(|mut connection| connection.ask(request));
    tally.count(what, asked, &answer);
    answer.ok()
}

/// One connection for as many requests as it bears: until an answer says that it is the last one. Any other end of the
/// connection is a failure, and no request is sent twice.
pub(crate) fn kept_alive(
    what: &'static str,
    door: &Door,
    tally: &Tally,
    request: Request<'_>,
    mut pace: Pace,
) {
    let mut open: Option<Connection> = None;
    while !tally.stopped() {
        let asked = Instant::now();
        let connected = open.take().map_or_else(|| door.connect(), Ok);
        let answer = connected.and_then(|mut connection| {
            let answer = connection.ask(request)?;
            if answer.last {
                tally.announced.fetch_add(1, Ordering::Relaxed);
            } else {
                open = Some(connection);
            }
            Ok(answer)
        });
        tally.count(what, asked, &answer);
        pace.wait();
    }
}

/// Submits one task after the other, each with a key of its own; returns the numbers of the tasks.
pub(crate) fn submit_steadily(
    what: &'static str,
    door: &Door,
    tally: &Tally,
    body: &Value,
    mut pace: Pace,
) -> Vec<u64> {
    let mut told = Vec::new();
    for number in 0.. {
        if tally.stopped() {
            break;
        }
        let key = format!("{:?}-{number}", std::thread::current().id());
        let request = Request {
            method: "POST",
            path: "/v1/tasks",
            key: Some(&key),
            body: Some(body),
        };
        let task = once(what, door, tally, request)
            .and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
        told.extend(task.and_then(|task| task["id"].as_u64()));
        pace.wait();
    }
    told
}

/// Clients at each socket in [`while_asked`].
const CLIENTS: u32 = 5;

/// Does something while clients of every kind, on both sockets, ask and submit, all together `rate` times a second.
/// Returns what came of their requests, and the numbers of the tasks that they were told.
pub(crate) fn while_asked(
    [unix, tcp]: &[Door; 2],
    rate: u32,
    body: &Value,
    act: impl FnOnce(&Tally),
) -> (Tally, Vec<u64>) {
    let tally = Tally::default();
    let each = Duration::from_secs(1) * CLIENTS * 2 / rate.max(1);
    let told = std::thread::scope(|scope| {
        let mut submitters = Vec::new();
        for (door, [new, kept, submit]) in [
            (
                unix,
                ["unix, new connections", "unix, kept", "unix, submits"],
            ),
            (tcp, ["TCP, new connections", "TCP, kept", "TCP, submits"]),
        ] {
            let tally = &tally;
            for path in ["/v1/status", "/v1/tasks?limit=10"] {
                let request = Request::get(path);
                scope.spawn(move || one_by_one(new, door, tally, request, Pace::every(each)));
                scope.spawn(move || kept_alive(kept, door, tally, request, Pace::every(each)));
            }
            let submitter = move || submit_steadily(submit, door, tally, body, Pace::every(each));
            submitters.push(scope.spawn(submitter));
        }
        act(&tally);
        tally.stop.store(true, Ordering::Relaxed);
        let told = submitters
            .into_iter()
            .flat_map(|submitter| submitter.join().expect("a client"));
        told.collect()
    });
    (tally, told)
}

/// Waits until each of these tasks is over; each has succeeded in its only attempt.
pub(crate) fn all_succeeded_once(door: &Door, told: &[u64]) {
    let mut open: Option<Connection> = None;
    for id in told {
        let mut connection = open
            .take()
            .map_or_else(|| door.connect(), Ok)
            .expect("connect");
        let path = format!("/v1/tasks/{id}/wait");
        let answer = connection.ask(Request::get(&path)).expect("an answer");
        let task: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
        if !answer.last {
            open = Some(connection);
        }
    }
}
