//! Zero refused connections: clients of every kind go on asking while the daemon restarts under them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::bed::Bed;
use crate::clients::{Pace, Tally, kept_alive, one_by_one, submit_steadily};
use crate::doors::{Door, Request, submission};
use crate::on_both_releases;

on_both_releases!(
    no_request_fails_across_eight_restarts,
    no_request_waits_long_for_a_restart,
    twenty_restarts_in_half_a_minute
);

const RESTARTS: u64 = 8;

/// Between two requests of one client: steady load, not a contest for the machine's two cores.
const PAUSE: Duration = Duration::from_millis(1);

/// Pauses of clients that keep their connection; the longest is well below what `api/serve.rs` promises to wait.
const KEPT_PAUSES: [Duration; 3] = [
    PAUSE,
    Duration::from_millis(100),
    Duration::from_millis(200),
];

fn no_request_fails_across_eight_restarts(bed: &Bed) {
    let doors = [Door::tcp(bed), Door::unix(bed)];
    let tally = Tally::default();
    let body = submission(&["true"]);
    std::thread::scope(|scope| {
        for door in &doors {
            let tally = &tally;
            let body = &body;
            for path in ["/v1/status", "/v1/tasks"] {
                let pace = Pace::Pause(PAUSE);
                scope.spawn(move || one_by_one("new", door, tally, Request::get(path), pace));
            }
            for pause in KEPT_PAUSES {
                let request = Request::get("/v1/status");
                scope.spawn(move || kept_alive("kept", door, tally, request, Pace::Pause(pause)));
            }
            let pace = Pace::Pause(SUBMIT_PAUSE);
            scope.spawn(move || submit_steadily("submit", door, tally, body, pace));
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

const SUBMIT_PAUSE: Duration = Duration::from_millis(20);

/// 200 requests a second: so many clients, each of which asks each so often.
const STEADY: u32 = 8;
const STEADY_EVERY: Duration = Duration::from_millis(40);

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
            let (request, pace) = (Request::get("/v1/status"), Pace::every(STEADY_EVERY));
            scope.spawn(move || client("steady", door, tally, request, pace));
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
