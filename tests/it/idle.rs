//! Idle costs nothing: a daemon and a runner with nothing to do sleep.
//!
//! The kernel counts how often each thread went to sleep of its own accord. A
//! thread that does that in twenty seconds was woken, and the only one with a
//! reason is the one that wakes for a deadline.

use std::fs;

use serde_json::json;

use crate::bed::Bed;

/// Sleeps allowed in a window of twenty seconds, of all threads of both
/// processes: a few for what the window has caught the end of.
const SLEEPS: u64 = 10;
/// CPU time allowed in it, in hundredths of a second.
const TICKS: u64 = 5;

/// What all threads of some processes have done so far: times they went to
/// sleep, and CPU time in hundredths of a second.
fn done(pids: &[i64]) -> (u64, u64) {
    let (mut sleeps, mut ticks) = (0, 0);
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("threads") {
            let dir = thread.expect("thread").path();
            let status = fs::read_to_string(dir.join("status")).expect("status");
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sleeps += number(line.expect("a count"));
            let stat = fs::read_to_string(dir.join("stat")).expect("stat");
            let fields = stat.rsplit(')').next().expect("fields");
            ticks += fields
                .split_whitespace()
                .skip(11)
                .take(2)
                .map(number)
                .sum::<u64>();
        }
    }
    (sleeps, ticks)
}

fn number(text: &str) -> u64 {
    text.trim().parse().expect("a number")
}

/// The processes of a bed: the daemon and its runner.
fn processes(bed: &Bed) -> [i64; 2] {
    let mut runner = 0;
    bed.until("there is a runner", |bed| {
        let (_, status) = bed.get("/v1/status").expect("status");
        runner = status["runner"]["pid"].as_i64().unwrap_or_default();
        runner != 0
    });
    [i64::from(bed.pid().as_raw()), runner]
}

/// Twenty seconds of nothing, after what was before has settled.
fn is_idle(bed: &Bed, what: &str) {
    let pids = processes(bed);
    std::thread::park_timeout(std::time::Duration::from_secs(3));
    let (sleeps, ticks) = done(&pids);
    std::thread::park_timeout(std::time::Duration::from_secs(20));
    let (sleeps, ticks) = {
        let (after, later) = done(&pids);
        (after - sleeps, later - ticks)
    };
    assert!(
        sleeps <= SLEEPS && ticks <= TICKS,
        "{what}: woken {sleeps} times in 20 s, {ticks}0 ms of CPU"
    );
}

#[test]
fn idle_costs_nothing() {
    let bed = Bed::start(&[]);
    is_idle(&bed, "with nothing to do");
    let day = json!({ "command": ["true"], "delay": "24h" });
    let tasks = json!({ "tasks": vec![day; 1_000] });
    let (status, answer) = bed.post("/v1/tasks", &tasks).expect("submit");
    assert_eq!(status, 201, "{answer}");
    is_idle(&bed, "with 1,000 tasks for tomorrow");
}

#[test]
fn the_engine_sleeps_until_the_clock_is_set() {
    let bed = Bed::start(&[]);
    let [daemon, _] = processes(&bed);
    let kept = |name: &str| {
        let dir = format!("/proc/{daemon}/{name}");
        fs::read_dir(dir)
            .expect("descriptors")
            .map(|entry| fs::read_to_string(entry.expect("one").path()).unwrap_or_default())
    };
    // Of the kernel's wall clock, for an absolute time, and cancelled when that clock is set.
    let watched = kept("fdinfo")
        .any(|info| info.contains("clockid: 0\n") && info.contains("settime flags: 03\n"));
    assert!(watched, "no timer of the daemon's watches the clock");
}
