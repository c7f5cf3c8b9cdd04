//! A crowd of idle connections and clients that dribble: honest requests are still answered, shutdown is not delayed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::bed::Bed;
use crate::doors::{Connection, Door, Request, submission};
use crate::on_both_releases;

on_both_releases!(a_crowd_delays_neither_answers_nor_shutdown);

const CROWD: usize = 10_000;
const DRIBBLERS: usize = 200;

fn a_crowd_delays_neither_answers_nor_shutdown(bed: &Bed) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("more open files");
    let door = Door::unix(bed);
    let before = bed.memory_kib("taskdaemon.service");
    // A connection over the daemon's own cap may be turned away, but only by an orderly close, later.
    let crowd: Vec<Connection> = (0..CROWD)
        .map(|_| door.connect().expect("an idle connection"))
        .collect();
    let mut dribblers: Vec<Connection> = (0..DRIBBLERS)
        .map(|_| door.connect().expect("a slow client"))
        .collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let head =
                b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nX-Slow: ";
            for byte in head.iter().chain(std::iter::repeat(&b'x')) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                for client in &mut dribblers {
                    // The daemon is right to lose patience with it.
                    let _sent = client.send_raw(std::slice::from_ref(byte));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let outcome = std::panic::catch_unwind(|| honest_clients_are_served(&door, before, bed));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    drop(crowd);
}

fn honest_clients_are_served(door: &Door, before: u64, bed: &Bed) {
    let body = submission(&["true"]);
    for number in 0..40 {
        let asked = Instant::now();
        let request = Request {
            method: "POST",
            path: "/v1/tasks",
            key: None,
            body: Some(&body),
        };
        let answer = door
            .connect()
            .and_then(|mut connection| connection.ask(request));
        let taken = asked.elapsed();
        assert!(
            answer
                .as_ref()
                .is_ok_and(|answer| (200..300).contains(&answer.status)),
            "honest request {number}: {answer:?}"
        );
        assert!(
            taken < Duration::from_secs(2),
            "honest request {number} took {taken:?}"
        );
    }
    let grown = bed.memory_kib("taskdaemon.service").saturating_sub(before);
    assert!(
        grown < 128 * 1024,
        "{CROWD} idle connections cost {grown} KiB"
    );

    let asked = Instant::now();
    bed.ok(&["systemctl", "restart", "taskdaemon.service"]);
    let taken = asked.elapsed();
    println!("a restart with {CROWD} idle connections took {taken:?}");
    // Nobody of the crowd has asked for anything, so nobody of it is waited for.
    assert!(taken < Duration::from_secs(2), "the restart took {taken:?}");
    let answer = door
        .connect()
        .and_then(|mut connection| connection.ask(Request::get("/v1/status")));
    assert!(
        answer.as_ref().is_ok_and(|answer| answer.status == 200),
        "{answer:?}"
    );
}
