//! What has gone wrong in other task queues, and the tests that show that it
//! does not here.
//!
//! [`PITFALLS`] names each with its tests; those that no other file holds are
//! here.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use taskdaemon::clock;
use taskdaemon::engine::Engine;
use taskdaemon::engine::command::Command;
use taskdaemon::engine::effect::Effect;
use taskdaemon::engine::options::Options;
use taskdaemon::engine::runner::{Abilities, RunnerUp};
use taskdaemon::model::attempt::{AttemptKey, Started};
use taskdaemon::model::id::TaskId;
use taskdaemon::model::task::State;
use taskdaemon::model::time::Time;
use taskdaemon::store::Store as _;
use taskdaemon::store::sqlite::Sqlite;
use tokio::sync::oneshot;

use crate::bed::Bed;
use crate::store::{new_task, options};
use crate::tidy::tests_exist;

/// What has gone wrong elsewhere, what keeps it from going wrong here, and the
/// tests of that.
const PITFALLS: &[(&str, &str, &[&str])] = &[
    (
        "stuck `running` for months",
        "each state has an exit, and a runner that is gone is a fact",
        &[
            "no_sequence_of_events_leaves_the_state_table",
            "a_task_whose_runner_is_killed_is_lost_at_once_and_run_again",
            "no_history_loses_or_doubles_a_task",
        ],
    ),
    (
        "a live task rescued, and so run twice",
        "no time-out says that a task is dead",
        &[
            "pitfall_a_stopped_runner_is_not_a_dead_one",
            "a_report_about_another_attempt_is_fenced",
        ],
    ),
    (
        "no time limit taken for one that is over",
        "a limit that is not set is none, and not zero",
        &["pitfall_no_time_limit_is_not_one_that_has_passed"],
    ),
    (
        "a rescuer starved by rows that it may not touch",
        "walks go by key and not by page",
        &[
            "rescuer_starved_by_rows_it_may_not_touch",
            "rows_that_have_to_stay_do_not_starve_the_walk",
        ],
    ),
    (
        "a semaphore that leaks",
        "rows are counted where an attempt is claimed",
        &[
            "concurrency_semaphore_leaks",
            "no_history_loses_or_doubles_a_task",
        ],
    ),
    (
        "bloat behind a held snapshot",
        "no reader holds one over its page",
        &["pitfall_a_follower_that_does_not_read_holds_up_no_checkpoint"],
    ),
    (
        "cleaners that time out on big tables",
        "retention goes in steps that do not grow",
        &[
            "cleaners_of_big_tables_go_in_small_steps_one_after_the_other",
            "no_step_of_retention_or_of_a_change_by_filter_scans_a_table",
        ],
    ),
    (
        "a stampede of pollers",
        "nothing polls: those who wait are woken",
        &["pitfall_a_hundred_waiting_clients_cause_no_turn"],
    ),
    (
        "notifications that make commits wait for each other",
        "news is told by one value after the commit, and nobody is waited for",
        &[
            "a_follower_that_is_too_slow_is_cut_off_with_a_clear_end",
            "a_flood_holds_up_nobody_else",
        ],
    ),
    (
        "one stalled call to the database that hangs a loop for ever",
        "the watchdog is fed by the engine's turns, and a lock is waited for only so long",
        &["pitfall_a_stalled_database_stops_the_watchdogs_food"],
    ),
    (
        "rows that grow without end",
        "output is outside of rows and capped, as is all that tasks say",
        &[
            "a_flood_is_capped_with_head_tail_and_gap",
            "whatever_comes_stays_within_the_limits",
            "bi_21_to_35_tasks_that_cannot_be",
        ],
    ),
    (
        "uniqueness with gaps between states",
        "a key is held by every task that is not over",
        &[
            "a_unique_key_lets_one_unfinished_task_be",
            "unique_keys_hold_within_one_request",
            "no_history_loses_or_doubles_a_task",
        ],
    ),
    (
        "cron that fires twice, or not, or by the hour that is left out",
        "each nominal time has one row, and the next is counted from the last",
        &[
            "no_history_of_clocks_and_crashes_doubles_or_forgets_a_nominal_time",
            "daylight_saving_time_is_as_documented",
            "missed_times_follow_the_rule",
        ],
    ),
    (
        "prefetched work hidden in a dead worker",
        "only what can start now is claimed",
        &["prefetch_hides_work_in_a_dead_worker"],
    ),
    (
        "an upgrade that wipes or blocks",
        "schemas go forward with everything in them, and running tasks do not notice",
        &[
            "a_file_of_version_1_keeps_its_tasks_clocks_counts_and_numbers",
            "files_that_are_not_ours_are_refused_untouched",
            "tasks_live_through_all_that_happens_to_the_daemon",
        ],
    ),
    (
        "an error that nobody sees after a restart",
        "why a task waits, and how its attempts went, are rows",
        &["pitfall_what_went_wrong_is_shown_after_a_restart"],
    ),
];

#[test]
fn every_pitfall_names_tests_that_exist() {
    assert_eq!(PITFALLS.len(), 16);
    for (what, how, tests) in PITFALLS {
        assert!(!tests.is_empty(), "{what} ({how}) has no test");
        tests_exist(what, tests);
    }
}

fn show(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("an answer").1
}

#[test]
fn pitfall_a_stopped_runner_is_not_a_dead_one() {
    let mut bed = Bed::start(&[]);
    let (gate, count) = (bed.path("gate"), bed.path("count"));
    let line = format!(
        "echo x >>{}; until [ -e {} ]; do sleep 0.05; done",
        count.display(),
        gate.display()
    );
    let id = bed.submit(&json!({"command": ["sh", "-c", line]}));
    bed.until("it runs", |bed| {
        bed.path("count").exists() && show(bed, id)["state"] == "running"
    });
    let (_, status) = bed.get("/v1/status").expect("status");
    let pid = status["runner"]["pid"].as_i64().expect("a pid");
    let runner = Pid::from_raw(i32::try_from(pid).expect("small"));
    // In this order: a stopped process that loses its parent is let go on.
    bed.kill();
    kill(runner, Signal::SIGSTOP).expect("signal");
    // It cannot answer the new daemon, which must not take it for dead, nor
    // run the task elsewhere.
    bed.start_again();
    let other = bed.submit(&json!({"command": ["true"]}));
    for _ in 0..20 {
        let task = show(&bed, id);
        assert_eq!(task["state"], "running", "{task}");
        assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert_ne!(
        show(&bed, other)["state"],
        "succeeded",
        "nobody could run it"
    );
    kill(runner, Signal::SIGCONT).expect("signal");
    std::fs::write(&gate, "").expect("open the gate");
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
    assert_eq!(bed.wait(other)["state"], "succeeded");
    let count = std::fs::read_to_string(count).expect("read");
    assert_eq!(count, "x\n", "it ran once");
}

fn runner() -> Command {
    Command::RunnerUp(RunnerUp {
        instance: "1".to_owned(),
        boot: "boot".to_owned(),
        version: "1".to_owned(),
        pid: 1,
        abilities: Abilities::default(),
        policy: None,
        held: Vec::new(),
    })
}

#[test]
fn pitfall_no_time_limit_is_not_one_that_has_passed() {
    let dir = tempfile::tempdir().expect("directory");
    let store = Sqlite::open(dir.path(), &options()).expect("open");
    let mut engine = Engine::new(store, Options::default(), "boot".to_owned());
    let begin = Time::from_micros(1_700_000_000_000_000);
    engine.recover(begin).expect("recover");
    let (reply, _answer) = oneshot::channel();
    let tasks = vec![new_task("true"), new_task("true")];
    let submit = Command::Submit { tasks, reply };
    let turned = engine.turn(vec![runner(), submit], begin).expect("turn");
    let launches = |effects: &[Effect]| {
        let launch = |effect: &&Effect| matches!(effect, Effect::Launch(_));
        effects.iter().filter(launch).count()
    };
    assert_eq!(launches(&turned.effects), 2);
    let key = AttemptKey {
        task: TaskId(1),
        number: 1,
    };
    let started = Started {
        pid: 1,
        uid: 0,
        user: "root".to_owned(),
        cgroup: None,
        at: begin,
    };
    engine
        .turn(vec![Command::Started { key, started }], begin)
        .expect("turn");
    // Nine years: nothing has a time limit, a deadline, a heartbeat or a time
    // in the queue, so nothing may happen to it.
    for years in 1..10 {
        let now = begin.after(Duration::from_secs(years * 365 * 24 * 3600));
        let turned = engine.turn(Vec::new(), now).expect("turn");
        assert_eq!(turned.effects, Vec::new(), "after {years} years");
    }
    for id in [1, 2] {
        let task = engine
            .store()
            .task(TaskId(id))
            .expect("read")
            .expect("there");
        assert_eq!((task.state, task.wake), (State::Running, None));
    }
}

#[test]
fn pitfall_a_follower_that_does_not_read_holds_up_no_checkpoint() {
    let bed = Bed::start(&[]);
    let mut deaf = UnixStream::connect(bed.socket()).expect("connect");
    write!(
        deaf,
        "GET /v1/events?after=0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
    )
    .expect("ask");
    let mut first = [0; 1];
    deaf.read_exact(&mut first).expect("the stream has begun");
    // Twelve megabytes at a time: five of these are far more than the log may
    // have before it is written back, and were a snapshot held, it would have
    // all of them.
    let one = json!({"command": ["true"], "stdin": "x".repeat(1 << 16), "delay": "1h"});
    let body = json!({ "tasks": vec![one; 190] });
    let mut sizes = Vec::new();
    for _ in 0..5 {
        let (status, answer) = bed.post("/v1/tasks", &body).expect("submit");
        assert_eq!(status, 201, "{answer}");
        let log = std::fs::metadata(bed.path("state/taskdaemon.db-wal"));
        sizes.push(log.map_or(0, |log| log.len() >> 20));
    }
    let most = sizes.iter().max().expect("sizes");
    assert!(*most < 45, "MiB of the log: {sizes:?}");
}

#[test]
fn pitfall_a_hundred_waiting_clients_cause_no_turn() {
    let bed = Bed::start(&[]);
    let id = bed.submit(&json!({"command": ["sleep", "600"]}));
    bed.until("it runs", |bed| !show(bed, id)["started_at"].is_null());
    let commits = |bed: &Bed| {
        let (_, status) = bed.get("/v1/status").expect("status");
        status["commits"].as_u64().expect("a number")
    };
    let before = commits(&bed);
    let mut waiting = Vec::new();
    for path in [
        format!("/v1/tasks/{id}/wait"),
        format!("/v1/tasks/{id}/log?follow=true"),
        "/v1/events?follow=true".to_owned(),
    ] {
        for _ in 0..40 {
            let mut stream = UnixStream::connect(bed.socket()).expect("connect");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("ask");
            waiting.push(stream);
        }
    }
    // All of them have been seen to once the figure stands still.
    let mut last = 0;
    bed.until("all are waiting", |bed| {
        let before = std::mem::replace(&mut last, commits(bed));
        std::thread::park_timeout(Duration::from_millis(300));
        before == last
    });
    std::thread::park_timeout(Duration::from_secs(2));
    // Each client that polled would have caused some.
    let more = commits(&bed) - last;
    assert!(more < 5, "{more} turns for nothing");
    let since = commits(&bed) - before;
    assert!(since < 20, "{since} turns because forty began to wait");
    let (status, _) = bed
        .post(&format!("/v1/tasks/{id}/cancel"), &Value::Null)
        .expect("cancel");
    assert_eq!(status, 200);
    for stream in waiting.iter_mut().take(40) {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("timeout");
        let mut piece = [0; 12];
        stream.read_exact(&mut piece).expect("an answer");
        assert_eq!(&piece, b"HTTP/1.1 200");
    }
}

/// Ends what it holds.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn pitfall_a_stalled_database_stops_the_watchdogs_food() {
    let mut bed = Bed::start(&[]);
    bed.end(Signal::SIGTERM);
    let manager = UnixDatagram::bind(bed.path("notify")).expect("bind");
    let mut command = bed.command();
    command
        .env("NOTIFY_SOCKET", bed.path("notify"))
        .env("WATCHDOG_USEC", "900000");
    let _daemon = Ended(command.spawn().expect("start"));
    let fed = |within: Duration| {
        let end = clock::instant() + within;
        let mut message = [0; 4096];
        loop {
            let left = end.saturating_duration_since(clock::instant());
            if left.is_zero() {
                return false;
            }
            manager.set_read_timeout(Some(left)).expect("timeout");
            if let Ok(len) = manager.recv(&mut message)
                && message[..len].starts_with(b"WATCHDOG=1")
            {
                return true;
            }
        }
    };
    let long = Duration::from_secs(20);
    assert!(fed(long) && fed(long), "it feeds the watchdog");
    let file = bed.path("state").join("taskdaemon.db");
    let other = rusqlite::Connection::open(file).expect("open");
    other.busy_timeout(long).expect("patience");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    // One may be on its way.
    fed(Duration::from_millis(500));
    assert!(
        !fed(Duration::from_secs(2)),
        "no turn, and yet a sign of life"
    );
    other.execute_batch("ROLLBACK").expect("let go");
    assert!(fed(long), "it goes on");
}

#[test]
fn pitfall_what_went_wrong_is_shown_after_a_restart() {
    let mut bed = Bed::start(&[]);
    let failed = bed.submit(&json!({"command": ["sh", "-c", "exit 3"], "name": "broken"}));
    bed.wait(failed);
    let retry = json!({"max_attempts": 3, "backoff": "1h"});
    let waiting = bed.submit(&json!({"command": ["false"], "retry": retry}));
    bed.until("it waits to be tried again", |bed| {
        show(bed, waiting)["reason_code"] == "backoff"
    });
    let behind = bed.submit(&json!({"command": ["true"], "after": [failed.to_string()]}));
    let before: Vec<Value> = [failed, waiting, behind].map(|id| show(&bed, id)).to_vec();
    bed.kill();
    bed.restart();
    let after: Vec<Value> = [failed, waiting, behind].map(|id| show(&bed, id)).to_vec();
    assert_eq!(before, after);
    assert_eq!(after[0]["attempts"][0]["message"], "exit code 3");
    assert_eq!(after[1]["attempts"][0]["outcome"], "exit");
    assert!(!after[1]["until"].is_null(), "until when: {}", after[1]);
    assert_eq!(after[2]["state"], "skipped");
    let (_, dead) = bed.get("/v1/tasks?state=failed").expect("list");
    assert_eq!(dead["tasks"][0]["outcome"]["exit_code"], 3, "{dead}");
}
