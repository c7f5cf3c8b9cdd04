//! Files that are damaged, cut off, moved away, or held by others.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::draw::{Draws, seed};
use crate::host::Host;
use crate::load::one;

/// Tasks in a database that is damaged.
const TASKS: i64 = 40;

/// A host that has ended in order, with so many tasks that wait and some that are over.
fn filled() -> Host {
    let mut host = Host::new();
    host.start();
    for number in 0..5 {
        let id = host.submit(&one(&host, &format!("over-{number}")));
        assert_eq!(host.wait(id)["state"], "succeeded");
    }
    let year = 365 * 24 * 3600;
    let later = taskdaemon::clock::now().micros() / 1_000_000 + year;
    let later = jiff::Timestamp::from_second(later).expect("a time");
    for number in 5..TASKS {
        let body = json!({"key": format!("later-{number}"), "command": ["echo", format!("payload {number}")],
            "name": format!("name {number}"), "run_at": later.to_string(), "stdin": "x".repeat(3000)});
        host.submit(&body);
    }
    // A page that is free: what was removed.
    let (status, answer) = host
        .post("/v1/tasks/discard", &json!({"name": "nobody"}))
        .expect("an answer");
    assert_eq!(status, 200, "{answer}");
    host.signal(Signal::SIGTERM);
    assert!(host.ended().success());
    host.kill_all();
    // All of it into the one file.
    let file = Connection::open(host.database()).expect("open");
    file.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .expect("settle");
    drop(file);
    host
}

/// What a daemon makes of a damaged file: the word it ended with, or the tasks it still knows of.
enum Made {
    Refused(i32, String),
    Serves(BTreeSet<i64>, String),
}

fn start_on(host: &mut Host) -> Made {
    let from = host.log().len();
    host.spawn();
    let mut ended = None;
    let start = taskdaemon::clock::instant();
    while ended.is_none() && !host.is_ready() {
        ended = host.has_ended();
        assert!(start.elapsed() < crate::host::PATIENCE, "{}", host.log());
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    let said = |host: &Host| host.log()[from..].to_owned();
    if let Some(status) = ended {
        let code = status.code().expect("it ends by itself");
        return Made::Refused(code, said(host));
    }
    let mut known = BTreeSet::new();
    for id in 1..=TASKS {
        let Ok((status, task)) = host.get(&format!("/v1/tasks/{id}")) else {
            break;
        };
        if status == 200 || status >= 500 && task.to_string().contains("damaged") {
            known.insert(id);
        }
    }
    match host.has_ended() {
        Some(status) => Made::Refused(status.code().expect("by itself"), said(host)),
        None => Made::Serves(known, said(host)),
    }
}

/// Puts the sound file back, without what a daemon left beside it.
fn restore(host: &mut Host, sound: &[u8]) {
    host.kill_all();
    for end in ["-wal", "-shm"] {
        drop(fs::remove_file(format!(
            "{}{end}",
            host.database().display()
        )));
    }
    fs::write(host.database(), sound).expect("restore");
}

/// Where bytes are changed: the header, then whatever kind of page a seeded place is in.
fn places(sound: &[u8], draws: &mut Draws) -> Vec<usize> {
    let header = [0, 16, 18, 28, 44, 56, 60, 68, 100, 103, 105];
    let length = u64::try_from(sound.len()).expect("small");
    let page = |place: u64| usize::try_from(place).expect("small");
    let others = (0..24).map(|_| page(draws.below(length)));
    header.into_iter().chain(others).collect()
}

#[test]
fn fi_10_a_flipped_byte_is_refused_with_a_word_or_costs_no_task() {
    let mut draws = Draws::new(seed());
    let mut host = filled();
    let sound = fs::read(host.database()).expect("read");
    let (mut refused, mut served) = (0, 0);
    for place in places(&sound, &mut draws) {
        let mut damaged = sound.clone();
        damaged[place] ^= 0x80;
        fs::write(host.database(), &damaged).expect("damage");
        match start_on(&mut host) {
            Made::Refused(code, said) => {
                refused += 1;
                assert_eq!(code, 78, "byte {place}: not tried again\n{said}");
                assert!(said.contains("taskdaemon:"), "byte {place}: {said}");
                assert!(
                    said.contains("restore a backup")
                        || said.contains("move it away")
                        || said.contains("install the newer"),
                    "byte {place}: {said}"
                );
            }
            Made::Serves(known, said) => {
                served += 1;
                let all: BTreeSet<i64> = (1..=TASKS).collect();
                let missing: Vec<_> = all.difference(&known).collect();
                assert!(
                    missing.is_empty() || said.contains("damaged"),
                    "byte {place}: {missing:?} dropped without a word\n{said}"
                );
            }
        }
        restore(&mut host, &sound);
    }
    println!("flipped bytes: {refused} refused, {served} served");
    assert!(refused > 0 && served > 0);
    host.start();
    assert_eq!(host.task(TASKS)["state"], "scheduled");
}

/// What lies there after a daemon was killed with its log not written back.
fn killed_with_a_log(tasks: i64) -> Host {
    let mut host = Host::new();
    host.set("TASKDAEMON_RUN__START_RUNNER", "never");
    host.start();
    for number in 1..=tasks {
        assert_eq!(host.submit(&one(&host, &format!("kept-{number}"))), number);
    }
    host.kill();
    host
}

fn log_of(host: &Host) -> std::path::PathBuf {
    Path::new(&format!("{}-wal", host.database().display())).to_owned()
}

#[test]
fn fi_11_what_is_behind_the_last_commit_of_the_log_is_ignored() {
    let mut host = killed_with_a_log(20);
    let log = log_of(&host);
    let mut bytes = fs::read(&log).expect("a log");
    assert!(bytes.len() > 4096, "all of it is in the log");
    let mut draws = Draws::new(seed());
    bytes.extend((0..5_000).map(|_| u8::try_from(draws.below(256)).expect("a byte")));
    fs::write(&log, bytes).expect("garbage");
    let index = format!("{}-shm", host.database().display());
    fs::remove_file(index).expect("the index is made anew");
    host.start();
    for id in 1..=20 {
        assert_eq!(host.task(id)["state"], "queued", "task {id}");
    }
}

#[test]
fn fi_11_a_log_that_was_cut_off_is_read_up_to_its_last_whole_commit() {
    let mut host = killed_with_a_log(20);
    let (log, database) = (log_of(&host), host.database());
    let (bytes, file) = (
        fs::read(&log).expect("log"),
        fs::read(&database).expect("file"),
    );
    for part in [0, 1, 31, 32, 2_000, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&database, &file).expect("file");
        fs::write(&log, &bytes[..part]).expect("log");
        drop(fs::remove_file(format!("{}-shm", database.display())));
        host.start();
        let known: Vec<_> = (1..=20)
            .map(|id| host.get(&format!("/v1/tasks/{id}")).expect("an answer").0)
            .collect();
        let there = known.iter().take_while(|status| **status == 200).count();
        let rest = &known[there..];
        assert!(
            rest.iter().all(|status| *status == 404),
            "the first ones and no others: {known:?}"
        );
        // And it goes on from there.
        let next = i64::try_from(there).expect("small") + 1;
        assert_eq!(host.submit(&one(&host, &format!("new-{part}"))), next);
        host.kill();
    }
}

#[test]
fn fi_12_a_file_that_is_replaced_at_work_ends_the_daemon_with_a_word() {
    let mut host = Host::started();
    let id = host.submit(&one(&host, "before"));
    assert_eq!(host.wait(id)["state"], "succeeded");
    let away = host.path("away.db");
    fs::rename(host.database(), &away).expect("move");
    fs::write(host.database(), "another").expect("replace");
    let (status, answer) = host
        .post("/v1/tasks", &one(&host, "after"))
        .unwrap_or((0, Value::Null));
    assert!(status == 503 || status == 0, "not acknowledged: {answer}");
    assert_eq!(host.ended().code(), Some(78), "{}", host.log());
    assert!(host.log().contains("moved or replaced"), "{}", host.log());
    fs::rename(&away, host.database()).expect("back");
    host.start();
    assert_eq!(host.task(id)["state"], "succeeded");
}

#[test]
fn fi_13_a_lock_that_another_process_holds_delays_and_ends_nothing() {
    let host = Host::started();
    let pid = host.pid();
    let id = host.submit(&one(&host, "before"));
    assert_eq!(host.wait(id)["state"], "succeeded");
    let gate = host.path("gate");
    let line = format!(
        "until test -e {}; do sleep 0.05; done; exit 5",
        gate.display()
    );
    let held = host.submit(&json!({"command": ["sh", "-c", line]}));
    host.until("it runs", |host| host.task(held)["state"] == "running");
    let other = Connection::open(host.database()).expect("open");
    other.execute_batch("BEGIN IMMEDIATE").expect("hold");
    let start = taskdaemon::clock::instant();
    fs::write(gate, "").expect("open");
    let mut refused = 0;
    while start.elapsed() < std::time::Duration::from_secs(20) {
        let (status, answer) = host
            .post("/v1/tasks", &one(&host, "meanwhile"))
            .expect("answer");
        assert_eq!(status, 503, "{answer}");
        assert_eq!(answer["code"], "database_locked", "{answer}");
        refused += 1;
    }
    assert!(
        refused >= 2,
        "each waits five seconds and no longer: {refused}"
    );
    assert_eq!(
        host.task(held)["state"],
        "running",
        "its end waits to be recorded"
    );
    other.execute_batch("ROLLBACK").expect("let go");
    let task = host.wait(held);
    assert_eq!(task["attempts"][0]["exit_code"], 5, "{task}");
    let id = host.submit(&one(&host, "meanwhile"));
    assert_eq!(host.wait(id)["state"], "succeeded");
    assert_eq!(host.pid(), pid);
    let alive = nix::sys::signal::kill(pid, None).is_ok();
    assert!(alive, "the same process all along");
}

#[test]
fn fi_14_a_reader_that_stays_holds_up_nothing_is_told_and_the_log_shrinks_after_it() {
    let mut host = Host::new();
    host.set("TASKDAEMON_RUN__START_RUNNER", "never");
    host.set("TASKDAEMON_STORE__WAL_LIMIT", "4MiB");
    host.start();
    host.submit(&one(&host, "before"));
    let reader = Connection::open(host.database()).expect("open");
    reader.execute_batch("BEGIN").expect("begin");
    let count = |reader: &Connection| -> i64 {
        reader
            .query_row("SELECT count(*) FROM task", [], |row| row.get(0))
            .expect("read")
    };
    assert_eq!(count(&reader), 1);
    let big = |name: &str, number: u32| json!({"key": format!("{name}-{number}"), "command": ["true"], "stdin": "x".repeat(700_000)});
    for number in 0..40 {
        host.submit(&big("while", number));
    }
    for batch in 0..4 {
        let task = |number| json!({"key": format!("many-{batch}-{number}"), "command": ["true"]});
        let tasks: Vec<_> = (0..1_000).map(task).collect();
        let (status, answer) = host
            .post("/v1/tasks", &json!({"tasks": tasks}))
            .expect("an answer");
        assert_eq!(status, 201, "{answer}");
    }
    assert_eq!(count(&reader), 1, "its own picture");
    let size = |host: &Host| fs::metadata(log_of(host)).map_or(0, |meta| meta.len());
    let grown = size(&host);
    assert!(
        grown > 20 << 20,
        "the log keeps what the reader may still read: {grown}"
    );
    let said = |host: &Host| host.log().matches("log has grown to").count();
    assert_eq!(
        said(&host),
        1,
        "once, and not with each task\n{}",
        host.log()
    );
    reader.execute_batch("ROLLBACK").expect("end");
    let mut number = 0;
    host.until("the log is cut back", |host| {
        host.submit(&big("after", number));
        number += 1;
        size(host) < grown / 2 && host.log().contains("log was cut back")
    });
    assert_eq!(said(&host), 1);
    assert!(host.has_ended().is_none());
}

#[test]
fn fi_15_a_hundred_second_daemons_are_refused_and_the_first_does_not_notice() {
    let host = Host::started();
    let id = host.submit(&one(&host, "first"));
    let mut quickest = crate::host::PATIENCE;
    for _ in 0..10 {
        let start = taskdaemon::clock::instant();
        let crowd: Vec<_> = (0..10)
            .map(|_| host.command().spawn().expect("start"))
            .collect();
        for mut second in crowd {
            let status = second.wait().expect("wait");
            assert_eq!(status.code(), Some(78), "{}", host.log());
        }
        quickest = quickest.min(start.elapsed() / 10);
    }
    assert!(quickest < std::time::Duration::from_secs(1), "{quickest:?}");
    assert!(host.log().contains("another taskdaemon"));
    assert_eq!(host.wait(id)["state"], "succeeded");
    assert!(host.is_ready());
}

#[test]
fn fi_16_a_stopped_daemon_still_holds_its_directory() {
    let host = Host::started();
    host.signal(Signal::SIGSTOP);
    let status = host.command().status().expect("run");
    assert_eq!(status.code(), Some(78));
    host.signal(Signal::SIGCONT);
    let id = host.submit(&one(&host, "after"));
    assert_eq!(host.wait(id)["state"], "succeeded");
}
