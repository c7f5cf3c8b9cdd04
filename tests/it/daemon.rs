//! The whole daemon, started by hand with a runner of its own: what restarts,
//! kills and a failing machine do to tasks. The tasks' own marks in files are
//! the judge, not what the daemon says of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::bed::{Bed, request};

/// What must be noticed, is noticed within this time.
pub(crate) const NOTICED: Duration = Duration::from_secs(1);

/// The shortest of three times. A loaded machine makes any one of them longer,
/// a time-out in the way makes all of them longer.
pub(crate) fn quickest(measure: impl FnMut(u32) -> Duration) -> Duration {
    (0..3).map(measure).min().expect("three")
}

/// A shell line as a task that leaves `mark` in a file when it starts.
fn marking(bed: &Bed, mark: &str, then: &str) -> Value {
    let marks = bed.path("marks");
    json!({"command": ["sh", "-c", format!("echo {mark} >> {}; {then}", marks.display())]})
}

fn marks(bed: &Bed) -> Vec<String> {
    let text = fs::read_to_string(bed.path("marks")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_running_task_does_not_notice_restart_kill_or_stop_of_the_daemon() {
    let mut bed = Bed::start(&[]);
    let line = "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.3; done; exit 7";
    let id = bed.submit(&marking(&bed, "ran", line));
    bed.until("it runs", |bed| marks(bed) == ["ran"]);
    assert_eq!(bed.end(Signal::SIGTERM), Some(0), "an orderly stop");
    bed.restart();
    bed.kill();
    bed.restart();
    bed.kill();
    std::thread::park_timeout(Duration::from_millis(100));
    bed.restart();
    let task = bed.wait(id);
    assert_eq!(task["state"], "failed");
    assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
    assert_eq!(task["attempts"][0]["exit_code"], 7, "{task}");
    let wanted: String = (1..=8).map(|n| format!("line {n}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&bed.output(id)), wanted);
    assert_eq!(marks(&bed), ["ran"], "ran once");
}

#[test]
fn the_end_of_a_task_is_recorded_that_ended_while_no_daemon_ran() {
    let mut bed = Bed::start(&[]);
    let id = bed.submit(&marking(&bed, "ran", "sleep 0.5; echo done; exit 7"));
    bed.until("it runs", |bed| marks(bed) == ["ran"]);
    bed.kill();
    std::thread::park_timeout(Duration::from_secs(1));
    bed.restart();
    let task = bed.wait(id);
    assert_eq!(task["attempts"][0]["exit_code"], 7, "{task}");
    assert_eq!(String::from_utf8_lossy(&bed.output(id)), "done\n");
    assert_eq!(marks(&bed), ["ran"]);
}

#[test]
fn a_task_whose_runner_is_killed_is_lost_at_once_and_run_again() {
    let bed = Bed::start(&[]);
    let noticed = quickest(|round| {
        let mark = format!("ran {round}");
        let ran = |bed: &Bed| marks(bed).iter().filter(|line| **line == mark).count();
        let id = bed.submit(&marking(&bed, &mark, "sleep 0.8"));
        bed.until("it runs", |bed| ran(bed) == 1);
        let (_, status) = bed.get("/v1/status").expect("status");
        let pid = i32::try_from(status["runner"]["pid"].as_i64().expect("pid")).expect("pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
        let killed = taskdaemon::clock::instant();
        bed.until("it is lost", |bed| {
            let (_, task) = bed.get(&format!("/v1/tasks/{id}")).expect("show");
            task["attempts"][0]["outcome"] == "lost"
        });
        let noticed = killed.elapsed();
        let task = bed.wait(id);
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(ran(&bed), 2, "run again, once");
        noticed
    });
    assert!(noticed < NOTICED, "{noticed:?} at best");
}

#[test]
fn a_runner_that_is_told_to_stop_fails_none_of_the_waiting_tasks() {
    let bed = Bed::start(&[("ENGINE__SLOTS", "2")]);
    // The first task makes the runner stop slowly, the second frees a slot.
    let stubborn = bed.submit(&marking(
        &bed,
        "stubborn",
        "trap '' TERM; sleep 3 & wait; wait",
    ));
    bed.submit(&marking(&bed, "short", "sleep 0.5"));
    bed.until("both run", |bed| marks(bed).len() == 2);
    let ids: Vec<_> = (0..20)
        .map(|n| bed.submit(&marking(&bed, &format!("waiting {n}"), "true")))
        .collect();
    let (_, status) = bed.get("/v1/status").expect("status");
    let pid = i32::try_from(status["runner"]["pid"].as_i64().expect("pid")).expect("pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).expect("stop");
    for id in ids {
        let task = bed.wait(id);
        assert_eq!(task["state"], "succeeded", "{task}");
    }
    assert_eq!(bed.wait(stubborn)["state"], "succeeded");
    let ran = marks(&bed);
    let waiting = ran.iter().filter(|mark| mark.starts_with("waiting"));
    assert_eq!(waiting.count(), 20, "each ran once: {ran:?}");
}

/// A database as it lies there. An orderly stop may or may not leave a log.
fn copy_database(bed: &Bed, from: &str, to: &str) {
    for end in ["", "-wal", "-shm"] {
        let (from, to) = (
            bed.path(&format!("{from}{end}")),
            bed.path(&format!("{to}{end}")),
        );
        drop(fs::remove_file(&to));
        if from.exists() {
            fs::copy(from, to).expect("copy");
        }
    }
}

#[test]
fn an_attempt_of_a_store_that_is_no_more_is_not_taken_for_one_of_the_restored_store() {
    let mut bed = Bed::start(&[("RUN__START_RUNNER", "never")]);
    let id = bed.submit(&marking(&bed, "ran", "sleep 0.5; exit 7"));
    bed.end(Signal::SIGTERM);
    copy_database(&bed, "state/taskdaemon.db", "backup");
    bed.change("RUN__START_RUNNER", "auto");
    bed.restart();
    bed.until("it runs", |bed| marks(bed).len() == 1);
    bed.kill();
    copy_database(&bed, "backup", "state/taskdaemon.db");
    bed.restart();
    let task = bed.wait(id);
    assert_eq!(task["attempts"][0]["exit_code"], 7, "{task}");
    assert_eq!(marks(&bed).len(), 2, "what the restored store says is done");
}

#[test]
fn a_runner_whose_socket_was_removed_is_not_replaced_while_it_has_tasks() {
    let mut bed = Bed::start(&[]);
    let id = bed.submit(&marking(&bed, "begins", "sleep 2"));
    bed.until("it runs", |bed| marks(bed).len() == 1);
    let (_, status) = bed.get("/v1/status").expect("status");
    let runner = i32::try_from(status["runner"]["pid"].as_i64().expect("pid")).expect("pid");
    fs::remove_file(bed.path("run/runner.sock")).expect("remove");
    bed.kill();
    bed.restart();
    std::thread::park_timeout(Duration::from_millis(2500));
    assert_eq!(marks(&bed), ["begins"], "not beside itself");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(runner), Signal::SIGTERM).expect("stop");
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["attempts"][0]["outcome"], "lost", "{task}");
}

#[test]
fn an_interrupt_from_the_terminal_does_not_reach_running_tasks() {
    let mut bed = Bed::start(&[]);
    let id = bed.submit(&marking(&bed, "ran", "sleep 1; exit 7"));
    bed.until("it runs", |bed| marks(bed).len() == 1);
    let (_, status) = bed.get("/v1/status").expect("status");
    let runner = i32::try_from(status["runner"]["pid"].as_i64().expect("pid")).expect("pid");
    let runner = nix::unistd::Pid::from_raw(runner);
    let group = |pid| nix::unistd::getpgid(Some(pid)).expect("a group");
    assert_ne!(group(runner), group(bed.pid()));
    bed.end(Signal::SIGINT);
    bed.restart();
    assert_eq!(bed.wait(id)["attempts"][0]["exit_code"], 7);
    assert_eq!(marks(&bed), ["ran"]);
}

#[test]
fn a_runner_short_of_descriptors_fails_no_task() {
    let bed = Bed::start(&[("ENGINE__SLOTS", "16")]);
    bed.until("there is a runner", |bed| {
        bed.get("/v1/status")
            .is_ok_and(|(_, status)| !status["runner"].is_null())
    });
    let (_, status) = bed.get("/v1/status").expect("status");
    let limited = std::process::Command::new("prlimit")
        .arg(format!("--pid={}", status["runner"]["pid"]))
        .arg("--nofile=30:")
        .status();
    if !limited.is_ok_and(|status| status.success()) {
        println!("skipped: no prlimit here");
        return;
    }
    let ids: Vec<_> = (0..20)
        .map(|_| bed.submit(&marking(&bed, "ran", "sleep 0.3")))
        .collect();
    for id in ids {
        let task = bed.wait(id);
        assert_eq!(task["state"], "succeeded", "{task}");
    }
    assert_eq!(marks(&bed).len(), 20);
}

#[test]
fn a_second_daemon_on_one_directory_is_refused_at_once() {
    let bed = Bed::start(&[]);
    let refused = quickest(|_| {
        let start = taskdaemon::clock::instant();
        let status = bed.command().status().expect("run");
        assert_eq!(status.code(), Some(78));
        start.elapsed()
    });
    assert!(refused < NOTICED, "{refused:?} at best");
    assert_eq!(bed.get("/ready").expect("the first is untouched").0, 200);
}

/// What one client was told: idempotency key and task number.
type Told = Vec<(String, i64)>;

/// What clients share with whoever set them to work.
#[derive(Default)]
struct Work {
    stop: AtomicBool,
    /// Answers of all of them.
    told: AtomicU64,
}

/// Submits until told to stop, one task after the other. A lost answer is
/// repeated with the same key until there is one.
fn submit_on(client: u32, socket: &Path, marks: &Path, work: &Work) -> Told {
    let mut told = Vec::new();
    for number in 0.. {
        let key = format!("{client}-{number}");
        let line = format!("echo {key} >> {}", marks.display());
        let body = json!({"command": ["sh", "-c", line], "key": key});
        let id = loop {
            if work.stop.load(Ordering::Relaxed) {
                return told;
            }
            match request(socket, "POST", "/v1/tasks", Some(&body)) {
                Ok((200 | 201, answer)) => break answer["id"].as_i64().expect("id"),
                Ok((status, answer)) => assert!(status >= 500, "{status} {answer}"),
                Err(_) => {}
            }
            std::thread::park_timeout(Duration::from_millis(2));
        };
        told.push((key, id));
        work.told.fetch_add(1, Ordering::Relaxed);
        std::thread::park_timeout(Duration::from_millis(20));
    }
    told
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_runs_twice_over_fifty_kills() {
    let mut bed = Bed::start(&[("ENGINE__SLOTS", "16")]);
    let work = Arc::new(Work::default());
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let (work, socket, marks) = (Arc::clone(&work), bed.socket(), bed.path("marks"));
            std::thread::spawn(move || submit_on(client, &socket, &marks, &work))
        })
        .collect();
    for kill in 0..50_u64 {
        // Each daemon has time to be told something, however slow the machine is.
        bed.until("clients are answered", |_| {
            work.told.load(Ordering::Relaxed) > kill * 5
        });
        std::thread::park_timeout(Duration::from_millis(20 + kill * 7 % 90));
        bed.kill();
        bed.restart();
    }
    work.stop.store(true, Ordering::Relaxed);
    let told: Told = clients
        .into_iter()
        .flat_map(|client| client.join().expect("client"))
        .collect();
    bed.until("nothing is unfinished", |bed| {
        let (_, status) = bed.get("/v1/status").expect("status");
        let tasks = &status["tasks"];
        ["queued", "running", "scheduled", "stopping"]
            .iter()
            .all(|state| tasks[*state] == 0)
    });
    let ran = marks(&bed);
    let once: BTreeSet<_> = ran.iter().cloned().collect();
    assert_eq!(once.len(), ran.len(), "something ran twice");
    let lost: Vec<_> = told.iter().filter(|(key, _)| !once.contains(key)).collect();
    assert!(lost.is_empty(), "acknowledged and never run: {lost:?}");
    assert!(told.len() > 200, "only {} submits got through", told.len());
    for (_, id) in &told {
        let (_, task) = bed.get(&format!("/v1/tasks/{id}")).expect("show");
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
    }
    println!("{} acknowledged, {} ran, 50 kills", told.len(), ran.len());
}
