//! The first step of the ladder with a real file: a database that the program
//! of schema 1 left behind, and what this program makes of it.
//!
//! `schemas/1.db` was written by that program under root: two tasks that
//! succeeded, one that failed after two attempts, one cancelled, one for the
//! year 2036, one that backs off until 2030, three queued with a key each, one
//! queued with limits of time, and one that ran when daemon and runner ended.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use serde_json::{Value, json};
use taskdaemon::store::migrate;

use crate::bed::{Bed, request};
use crate::runner::root;

/// Puts the file where a daemon finds it.
fn place(dir: &Path) {
    fs::create_dir_all(dir).expect("directory");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("mode");
    let file = dir.join("taskdaemon.db");
    fs::write(&file, include_bytes!("schemas/1.db")).expect("file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
}

/// A bed whose daemon finds the old file.
fn old(settings: &[(&str, &str)]) -> (tempfile::TempDir, Bed) {
    let dir = tempfile::tempdir().expect("directory");
    place(&dir.path().join("state"));
    let mut bed = Bed::start(settings);
    bed.end(Signal::SIGTERM);
    bed.place_state(&dir.path().join("state"));
    bed.restart();
    (dir, bed)
}

fn task(bed: &Bed, id: i64) -> Value {
    let (status, task) = bed.get(&format!("/v1/tasks/{id}")).expect("ask");
    assert_eq!(status, 200, "{task}");
    task
}

#[test]
fn a_database_of_the_first_program_goes_on_where_it_was() {
    if !root() {
        // The tasks in the file are root's.
        return;
    }
    let keep = ("RETENTION__TASK_AGE", "none");
    let (_dir, bed) = old(&[keep]);
    for (id, state, attempts) in [
        (1, "succeeded", 1),
        (2, "failed", 2),
        (3, "scheduled", 0),
        (4, "succeeded", 1),
        (5, "cancelled", 0),
        (6, "scheduled", 1),
    ] {
        let task = task(&bed, id);
        assert_eq!(task["state"], state, "{task}");
        let number = task["attempts"].as_array().map(Vec::len);
        assert_eq!(number, Some(attempts), "{task}");
    }
    assert_eq!(task(&bed, 1)["name"], "done");
    assert_eq!(task(&bed, 1)["labels"]["kind"], "invoice");
    assert_eq!(task(&bed, 2)["attempts"][1]["exit_code"], 3);
    assert_eq!(task(&bed, 6)["reason_code"], "backoff");
    // What ran under a runner that is gone was interrupted, and runs again.
    let live = bed.wait(7);
    assert_eq!(live["state"], "succeeded", "{live}");
    let outcomes: Vec<_> = live["attempts"]
        .as_array()
        .expect("attempts")
        .iter()
        .collect();
    assert_eq!(outcomes.len(), 2, "{live}");
    assert_eq!(outcomes[0]["outcome"], "lost", "{live}");
    // What waited runs, with what it was given.
    for id in 8..=11 {
        let done = bed.wait(id);
        assert_eq!(done["state"], "succeeded", "{done}");
    }
    assert_eq!(bed.output(9), b"2\n");
    // A key of then still names its task: the same command again is told its number.
    let again = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .arg("--host")
        .arg(format!("unix:{}", bed.socket().display()))
        .args([
            "submit",
            "--name",
            "waits",
            "--priority",
            "2",
            "--queue",
            "other",
        ])
        .args([
            "--key", "waits-2", "--env", "X=2", "--", "sh", "-c", "echo $X",
        ])
        .output()
        .expect("submit");
    assert!(again.status.success(), "{again:?}");
    assert_eq!(again.stdout, b"9\n", "{again:?}");
    let (_, other) = bed
        .post("/v1/tasks", &json!({ "command": ["true"] }))
        .expect("submit");
    assert_eq!(other["id"], 12, "no number is given twice: {other}");
}

/// The database and its log, as they are.
fn files(bed: &Bed) -> [Vec<u8>; 2] {
    ["taskdaemon.db", "taskdaemon.db-wal"]
        .map(|name| fs::read(bed.path("state").join(name)).expect(name))
}

#[test]
fn a_newer_schema_is_refused_untouched_and_the_reason_says_what_to_do() {
    let mut bed = Bed::start(&[]);
    let id = bed.submit(&json!({ "command": ["true"] }));
    bed.wait(id);
    bed.end(Signal::SIGTERM);
    // What a newer program wrote last is in its log, as after any crash.
    let database = Connection::open(bed.path("state/taskdaemon.db")).expect("open");
    database
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .expect("keep the log");
    let newer = i64::try_from(migrate::VERSION).expect("small") + 1;
    database
        .pragma_update(None, "user_version", newer)
        .expect("newer");
    database.close().expect("close");
    let before = files(&bed);
    assert!(!before[1].is_empty(), "there is a log");
    let done = bed
        .command()
        .stderr(Stdio::piped())
        .output()
        .expect("start");
    assert_eq!(done.status.code(), Some(78), "{done:?}");
    let said = String::from_utf8_lossy(&done.stderr);
    for part in [
        "taskdaemon.db",
        "schema version",
        "install the newer taskdaemon again",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert!(!said.contains("being saved"), "nothing was: {said}");
    assert!(
        files(&bed) == before,
        "both are as they were, byte for byte"
    );
    let asked = request(&bed.socket(), "GET", "/live", None);
    assert!(asked.is_err(), "it serves nobody: {asked:?}");
}
