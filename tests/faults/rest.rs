//! The other faults: panics, a thread that hangs, clients that leave, races, signals at bad times.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use taskdaemon::clock;

use crate::draw::{Draws, seed};
use crate::host::Host;
use crate::journal::{Fate, acknowledged, judge};
use crate::load::one;
use crate::points::{arm, order};

fn armed() -> Host {
    let mut host = Host::new();
    arm(&mut host);
    host.start();
    host
}

#[test]
fn fi_24_a_task_that_ignores_its_time_limit_is_killed_at_the_grace() {
    let host = Host::started();
    let id = host.submit(
        &json!({"command": ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"],
        "timeout": "1s", "grace": "1s"}),
    );
    let task = host.wait(id);
    assert_eq!(task["state"], "failed", "{task}");
    assert_eq!(task["attempts"][0]["outcome"], "timeout", "{task}");
}

#[test]
fn fi_31_a_cancel_at_the_moment_of_the_end_leaves_one_end() {
    let host = Host::started();
    let mut draws = Draws::new(seed());
    let mut ends = [0, 0];
    for number in 0..100 {
        let key = format!("race-{number}");
        let id = host.submit(&one(&host, &key));
        std::thread::park_timeout(Duration::from_millis(draws.below(12)));
        let (status, answer) = host
            .post(&format!("/v1/tasks/{id}/cancel"), &json!({}))
            .expect("an answer");
        assert!(matches!(status, 200..=202 | 409), "{status} {answer}");
        let task = host.wait(id);
        let cancelled = task["state"] == "cancelled";
        assert!(cancelled || task["state"] == "succeeded", "{task}");
        // Who was told that it is over already must find it so.
        assert!(!(cancelled && status == 409), "{answer} {task}");
        ends[usize::from(cancelled)] += 1;
        // And it stays so.
        let (_, events) = host
            .get(&format!(
                "/v1/events?task={id}&kind=succeeded,cancelled,failed"
            ))
            .expect("an answer");
        assert_eq!(
            events["events"].as_array().map(Vec::len),
            Some(1),
            "{events}"
        );
    }
    println!(
        "races of end and cancel: {} ended, {} cancelled",
        ends[0], ends[1]
    );
}

#[test]
fn fi_40_a_daemon_that_stood_still_catches_up_at_once() {
    let host = Host::started();
    host.runner();
    let soon = clock::now().micros() / 1_000_000 + 2;
    let soon = jiff::Timestamp::from_second(soon).expect("a time");
    let id = host.submit(&json!({"command": ["true"], "run_at": soon.to_string()}));
    host.signal(Signal::SIGSTOP);
    std::thread::park_timeout(Duration::from_secs(4));
    host.signal(Signal::SIGCONT);
    let start = clock::instant();
    assert_eq!(host.wait(id)["state"], "succeeded");
    let late = start.elapsed();
    assert!(late < Duration::from_secs(10), "{late:?}");
}

#[test]
fn fi_46_an_engine_that_hangs_is_not_vouched_for() {
    let mut host = Host::new();
    arm(&mut host);
    let manager = UnixDatagram::bind(host.path("notify")).expect("bind");
    manager
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("set");
    let address = host.path("notify").display().to_string();
    host.set("NOTIFY_SOCKET", &address);
    host.set("WATCHDOG_USEC", "1500000");
    host.start();
    let fed = |within: Duration| {
        let (start, mut times) = (clock::instant(), 0);
        let mut message = [0; 1024];
        while start.elapsed() < within {
            if let Ok(length) = manager.recv(&mut message) {
                times += usize::from(message[..length].starts_with(b"WATCHDOG=1"));
            }
        }
        times
    };
    assert!(
        fed(Duration::from_secs(4)) > 0,
        "it is fed while all is well"
    );
    order(&host, "engine/commit/before", "pause");
    host.until("the engine hangs", |host| {
        !host.path("points/order").exists()
    });
    // What was on its way when it began to hang.
    fed(Duration::from_secs(1));
    assert_eq!(
        fed(Duration::from_secs(3)),
        0,
        "longer than twice the watchdog's time"
    );
    host.until("it is fed again", |_| fed(Duration::from_millis(200)) > 0);
}

#[test]
fn fi_50_a_signal_at_any_time_is_one_orderly_stop() {
    let mut draws = Draws::new(seed());
    let mut host = Host::new();
    let mut keys = Vec::new();
    for round in 0..12 {
        host.spawn();
        match round % 3 {
            // While it starts: before it catches signals it ends by them, and has nothing to lose.
            0 => std::thread::park_timeout(Duration::from_millis(draws.below(60))),
            1 => {
                host.until("it is ready", Host::is_ready);
                let key = format!("kept-{round}");
                let id = host.submit(&one(&host, &key));
                acknowledged(&host, &key, id, Fate::Succeeds);
                keys.push(key);
                host.signal(Signal::SIGHUP);
            }
            _ => host.until("it is ready", Host::is_ready),
        }
        host.signal(Signal::SIGTERM);
        host.signal(Signal::SIGTERM);
        let status = host.ended();
        let early = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGTERM);
        assert!(
            status.success() || round % 3 == 0 && early,
            "{round}: {status}\n{}",
            host.log()
        );
    }
    host.start();
    host.settle();
    judge(&host).hold(12, "stops at bad times");
    assert_eq!(keys.len(), 4);
}

#[test]
fn fi_53_a_client_that_leaves_at_once_finds_its_task_by_the_key() {
    let host = Host::started();
    for number in 0..60 {
        let key = format!("left-{number}");
        let body = one(&host, &key).to_string();
        let mut stream = UnixStream::connect(host.socket()).expect("connect");
        write!(
            stream,
            "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("ask");
        // Gone, at various times, without having read anything.
        std::thread::park_timeout(Duration::from_micros(number * 50));
        drop(stream);
        let id = host.submit(&one(&host, &key));
        acknowledged(&host, &key, id, Fate::Succeeds);
    }
    host.settle();
    let verdict = judge(&host);
    verdict.hold(60, "clients that left");
    assert_eq!(verdict.attempts, 60, "each ran once, under one number");
}

#[test]
fn fi_57_tasks_that_take_all_processors_leave_answers_and_starts() {
    let host = Host::started();
    let spin = json!({"command": ["sh", "-c", "while :; do :; done"], "timeout": "60s"});
    let spinners: Vec<_> = (0..4).map(|_| host.submit(&spin)).collect();
    host.until("all spin", |host| {
        spinners
            .iter()
            .all(|id| host.task(*id)["state"] == "running")
    });
    let mut quickest = crate::host::PATIENCE;
    for number in 0..10 {
        let start = clock::instant();
        let id = host.submit(&one(&host, &format!("beside-{number}")));
        assert_eq!(host.wait(id)["state"], "succeeded");
        assert_eq!(host.get("/health").expect("an answer").0, 200);
        quickest = quickest.min(start.elapsed());
    }
    assert!(quickest < Duration::from_secs(5), "{quickest:?} at best");
    for id in spinners {
        let path = format!("/v1/tasks/{id}/cancel");
        assert_eq!(host.post(&path, &json!({})).expect("an answer").0 / 100, 2);
        assert_eq!(host.wait(id)["state"], "cancelled");
    }
}

#[test]
fn fi_58_a_panic_in_a_request_is_an_answer_and_ends_nothing() {
    let mut host = armed();
    order(&host, "api/submit/before", "panic");
    let (status, answer) = host
        .post("/v1/tasks", &one(&host, "unlucky"))
        .expect("answer");
    assert_eq!(status, 500, "{answer}");
    let id = host.submit(&one(&host, "unlucky"));
    assert_eq!(host.wait(id)["state"], "succeeded");
    assert!(host.has_ended().is_none());
}

#[test]
fn fi_58_a_panic_of_the_engine_ends_the_daemon_and_loses_nothing() {
    for point in [
        "engine/commit/before",
        "engine/commit/after",
        "engine/claim/after",
    ] {
        let mut host = armed();
        let kept = host.submit(&one(&host, "kept"));
        acknowledged(&host, "kept", kept, Fate::Succeeds);
        assert_eq!(host.wait(kept)["state"], "succeeded");
        order(&host, point, "panic");
        let (status, answer) = host
            .post("/v1/tasks", &one(&host, "unlucky"))
            .unwrap_or((0, Value::Null));
        let taken = matches!(status, 200 | 201);
        assert!(taken || status == 0 || status >= 500, "{status} {answer}");
        let status = host.ended();
        assert_eq!(status.code(), Some(75), "{point}\n{}", host.log());
        host.start();
        let id = host.submit(&one(&host, "unlucky"));
        acknowledged(&host, "unlucky", id, Fate::Succeeds);
        host.settle();
        judge(&host).hold(1, &format!("a panic at {point}"));
        fs::remove_dir_all(host.path("points")).expect("remove");
    }
}
