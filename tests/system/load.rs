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
    no_request_waits_long_for_a_restart,
    twenty_restarts_in_half_a_minute
);

const RESTARTS: u64 = 8;

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    answered: AtomicU64,
    announced: AtomicU64,
    waits: Mutex<Vec<(Instant, Duration)>>,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, what: &str, asked: Instant, answer: io::Result<Answer>) {
        let taken = asked.elapsed();
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                self.waits.lock().expect("waits").push((asked, taken));
            }
            Ok(answer) => self.fail(format!("{what}: {} {}", answer.status, answer.body)),
            Err(error) => self.fail(format!("{what}: {error} after {taken:?}")),
        }
    }

    fn fail(&self, what: String) {
        self.failures.lock().expect("failures").push(what);
    }

    /// No request has failed; returns how many were answered.
    fn flawless(&self) -> u64 {
        let failures = self.failures.lock().expect("failures");
        let answered = self.answered.load(Ordering::Relaxed);
        assert!(
            failures.is_empty(),
            "{} of {answered} failed: {:?}",
            failures.len(),
            &failures[..failures.len().min(10)]
        );
        answered
    }
}

/// Between two requests of one client: steady load, not a contest for the machine's two cores.
const PAUSE: Duration = Duration::from_millis(1);

/// Pauses of clients that keep their connection; the longest is well below what `api/serve.rs` promises to wait.
const KEPT_PAUSES: [Duration; 3] = [
    PAUSE,
    Duration::from_millis(100),
    Duration::from_millis(200),
];

/// A new connection for each request.
fn one_by_one(door: &Door, tally: &Tally, request: Request<'_>, pause: Duration) {
    while !tally.stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let answer = door
            .connect()
            .and_then(|mut connection| connection.ask(request));
        tally.count("new connection", asked, answer);
        std::thread::sleep(pause);
    }
}

/// One connection for as many requests as it bears: until an answer says that it is the last one. Any other end of the
/// connection is a failure, and no request is sent twice.
fn kept_alive(door: &Door, tally: &Tally, request: Request<'_>, pause: Duration) {
    let mut open: Option<Connection> = None;
    while !tally.stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let mut connection = match open.take().map_or_else(|| door.connect(), Ok) {
            Ok(connection) => connection,
            Err(error) => {
                tally.fail(format!("connect: {error}"));
                continue;
            }
        };
        let answer = connection.ask(request);
        match &answer {
            Ok(answer) if answer.last => {
                tally.announced.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => open = Some(connection),
            Err(_) => {}
        }
        tally.count(&format!("kept, {pause:?} pause"), asked, answer);
        std::thread::sleep(pause);
    }
}

fn no_request_fails_across_eight_restarts(bed: &Bed) {
    let doors = [Door::tcp(bed), Door::unix(bed)];
    let tally = Tally::default();
    let body = submission(&["true"]);
    std::thread::scope(|scope| {
        for door in &doors {
            let tally = &tally;
            let body = &body;
            scope.spawn(move || one_by_one(door, tally, Request::get("/v1/status"), PAUSE));
            scope.spawn(move || one_by_one(door, tally, Request::get("/v1/tasks"), PAUSE));
            for pause in KEPT_PAUSES {
                scope.spawn(move || kept_alive(door, tally, Request::get("/v1/status"), pause));
            }
            scope.spawn(move || submit_steadily(door, tally, body));
        }
        for _ in 0..RESTARTS {
            std::thread::sleep(Duration::from_millis(700));
            bed.ok(&["systemctl", "restart", "taskdaemon.service"]);
        }
        std::thread::sleep(Duration::from_millis(500));
        tally.stop.store(true, Ordering::Relaxed);
    });
    let announced = tally.announced.load(Ordering::Relaxed);
    let answered = tally.flawless();
    println!("{answered} answered, none failed, {announced} connections closed as announced");
    assert!(answered > 500, "only {answered} requests: this was no load");
    // Each kept connection was open at each restart, so each was told each time.
    let kept = u64::try_from(doors.len() * KEPT_PAUSES.len()).expect("few");
    assert!(
        announced >= RESTARTS * kept,
        "only {announced} ends announced, for {kept} connections"
    );
}

/// 200 requests a second: so many clients, each of which asks, pauses, and asks again.
const STEADY: u32 = 8;
const STEADY_PAUSE: Duration = Duration::from_millis(40);

fn no_request_waits_long_for_a_restart(bed: &Bed) {
    let door = Door::unix(bed);
    let tally = Tally::default();
    let mut restarts = Vec::new();
    std::thread::scope(|scope| {
        for number in 0..STEADY {
            let client = if number % 2 == 0 {
                one_by_one
            } else {
                kept_alive
            };
            let (door, tally) = (&door, &tally);
            scope.spawn(move || client(door, tally, Request::get("/v1/status"), STEADY_PAUSE));
        }
        for _ in 0..RESTARTS {
            std::thread::sleep(Duration::from_millis(700));
            let begun = Instant::now();
            bed.ok(&["systemctl", "restart", "taskdaemon.service"]);
            restarts.push((begun, begun.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(700));
        tally.stop.store(true, Ordering::Relaxed);
    });
    let answered = tally.flawless();
    let mut waits = tally.waits.into_inner().expect("waits");
    waits.sort_by_key(|(asked, _)| *asked);
    let longest = |from: Instant, to: Instant| {
        let during = waits.iter().filter(|(asked, _)| (from..to).contains(asked));
        during.map(|(_, taken)| *taken).max().unwrap_or_default()
    };
    for (number, (begun, taken)) in restarts.iter().enumerate() {
        let worst = longest(*begun, *begun + *taken + Duration::from_millis(500));
        println!("restart {number}: took {taken:?}, the longest wait was {worst:?}");
    }
    let worst = waits
        .iter()
        .map(|(_, taken)| *taken)
        .max()
        .unwrap_or_default();
    println!("{answered} answered across {RESTARTS} restarts, the longest wait was {worst:?}");
    assert!(worst < Duration::from_secs(5), "somebody waited {worst:?}");
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
        let asked = Instant::now();
        let answer = door
            .connect()
            .and_then(|mut connection| connection.ask(request));
        tally.count("submit", asked, answer);
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
