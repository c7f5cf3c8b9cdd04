//! Zero refused connections: clients of every kind go on asking while the daemon restarts under them.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::bed::Bed;
use crate::doors::{Answer, Connection, Door, Request, submission};
use crate::on_both_releases;

on_both_releases!(
    no_request_fails_across_eight_restarts,
    twenty_restarts_in_half_a_minute
);

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    answered: AtomicU64,
    reopened: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, what: &str, answer: io::Result<Answer>) {
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => self.fail(format!("{what}: {} {}", answer.status, answer.body)),
            Err(error) => self.fail(format!("{what}: {error}")),
        }
    }

    fn fail(&self, what: String) {
        self.failures.lock().expect("failures").push(what);
    }
}

/// Between two requests of one client: steady load, not a contest for the machine's two cores.
const PAUSE: Duration = Duration::from_millis(1);

/// A new connection for each request.
fn one_by_one(door: &Door, tally: &Tally, request: Request<'_>) {
    while !tally.stop.load(Ordering::Relaxed) {
        tally.count(
            "new connection",
            door.connect()
                .and_then(|mut connection| connection.ask(request)),
        );
        std::thread::sleep(PAUSE);
    }
}

/// One connection for as many requests as it bears. A server may close a connection that waits for its next request; a
/// request that meets this unanswered is sent again on a new one (RFC 9112, 9.5), where it must succeed.
fn kept_alive(door: &Door, tally: &Tally, request: Request<'_>) {
    let mut open: Option<Connection> = None;
    while !tally.stop.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
        if let Some(connection) = open.as_mut() {
            match connection.ask(request) {
                Ok(answer) => {
                    let last = answer.last;
                    tally.count("kept connection", Ok(answer));
                    if last {
                        open = None;
                    }
                    continue;
                }
                Err(error) if closed(&error) => {
                    tally.reopened.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => tally.fail(format!("kept connection: {error}")),
            }
        }
        match door.connect() {
            Ok(mut connection) => {
                let answer = connection.ask(request);
                let last = answer.as_ref().is_ok_and(|answer| answer.last);
                let usable = answer.is_ok() && !last;
                tally.count("first on a kept connection", answer);
                open = usable.then_some(connection);
            }
            Err(error) => tally.fail(format!("connect: {error}")),
        }
    }
}

fn closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn no_request_fails_across_eight_restarts(bed: &Bed) {
    let doors = [Door::tcp(bed), Door::unix(bed)];
    let tally = Tally::default();
    let body = submission(&["true"]);
    std::thread::scope(|scope| {
        for door in &doors {
            let tally = &tally;
            let body = &body;
            scope.spawn(move || one_by_one(door, tally, Request::get("/v1/status")));
            scope.spawn(move || one_by_one(door, tally, Request::get("/v1/tasks")));
            scope.spawn(move || kept_alive(door, tally, Request::get("/v1/status")));
            scope.spawn(move || submit_steadily(door, tally, body));
        }
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(700));
            bed.ok(&["systemctl", "restart", "taskdaemon.service"]);
        }
        std::thread::sleep(Duration::from_millis(500));
        tally.stop.store(true, Ordering::Relaxed);
    });
    let failures = tally.failures.into_inner().expect("failures");
    let answered = tally.answered.into_inner();
    println!(
        "{answered} answered, {} kept connections reopened",
        tally.reopened.into_inner()
    );
    assert!(
        failures.is_empty(),
        "{} of {answered} failed: {:?}",
        failures.len(),
        &failures[..failures.len().min(10)]
    );
    assert!(answered > 500, "only {answered} requests: this was no load");
}

fn submit_steadily(door: &Door, tally: &Tally, body: &serde_json::Value) {
    let mut number = 0;
    while !tally.stop.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("{:?}-{number}", std::thread::current().id());
        let request = Request {
            method: "POST",
            path: "/v1/tasks",
            key: Some(&key),
            body: Some(body),
        };
        tally.count(
            "submit",
            door.connect()
                .and_then(|mut connection| connection.ask(request)),
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn twenty_restarts_in_half_a_minute(bed: &Bed) {
    let door = Door::unix(bed);
    let start = Instant::now();
    for number in 0..20 {
        bed.ok(&["systemctl", "restart", "taskdaemon.service"]);
        let answer = door
            .connect()
            .and_then(|mut connection| connection.ask(Request::get("/v1/status")));
        assert!(
            answer.as_ref().is_ok_and(|answer| answer.status == 200),
            "after restart {number}: {answer:?}"
        );
    }
    let taken = start.elapsed();
    assert!(
        taken < Duration::from_secs(30),
        "20 restarts took {taken:?}"
    );
    for unit in [
        "taskdaemon.service",
        "taskdaemon-api.socket",
        "taskdaemon-runner.socket",
    ] {
        assert!(bed.active(unit), "{unit}");
    }
}
