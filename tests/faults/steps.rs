//! FI-17 and FI-18: the schema's steps, killed in their middle, and files of a newer program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;
use taskdaemon::failpoint::POINTS;
use taskdaemon::store::migrate::{APPLICATION_ID, VERSION};

use crate::host::{Host, was_killed};
use crate::journal::tell;
use crate::load::one;
use crate::points::{arm, order};

/// A file as version 1 wrote it, with a queued and a finished task.
const ROWS_OF_1: &str = "
    INSERT INTO queue (id, name) VALUES (1, 'default');
    INSERT INTO task (id, state, queue, priority, owner, created, due, wake, attempt, tries, spec)
    VALUES (1, 2, 1, 4, 0, 10, 20, NULL, 0, 0, '{\"argv\":[\"true\"]}'),
           (2, 6, 1, 0, 0, 10, 20, NULL, 1, 0, '{\"argv\":[\"true\"]}');
    INSERT INTO tally (state, tasks) VALUES (2, 1), (6, 1);
    UPDATE given SET number = 2 WHERE what = 'task';";

/// A host whose database is of an older version; 0 is none yet.
fn of_version(version: usize) -> Host {
    let mut host = Host::new();
    arm(&mut host);
    fs::create_dir_all(host.state()).expect("directory");
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(host.state(), mode(0o700)).expect("mode");
    if version == 0 {
        return host;
    }
    let file = Connection::open(host.database()).expect("make");
    fs::set_permissions(host.database(), mode(0o600)).expect("mode");
    for step in 1..=version {
        let name = format!("src/store/migrations/{step}.sql");
        let sql = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name));
        file.execute_batch(&sql.expect("a step")).expect("a step");
        if step == 1 {
            file.execute_batch(ROWS_OF_1).expect("rows");
        }
    }
    file.pragma_update(None, "application_id", APPLICATION_ID)
        .expect("ours");
    let number = i64::try_from(version).expect("small");
    file.pragma_update(None, "user_version", number)
        .expect("its version");
    host
}

/// Starts until nothing is left to be killed at, twice at most.
fn killed_twice_at(version: usize, point: &str) -> usize {
    let mut host = of_version(version);
    let mut kills = 0;
    for _ in 0..2 {
        order(&host, point, "kill");
        host.spawn();
        host.until("it is killed or ready", |host| {
            !host.path("points/order").exists() || host.is_ready()
        });
        if host.path("points/order").exists() {
            // The steps that have this point are behind it.
            fs::remove_file(host.path("points/order")).expect("withdraw");
            host.kill();
        } else {
            let status = host.ended();
            assert!(was_killed(status), "{point}: {status}");
            kills += 1;
        }
    }
    host.start();
    let file = Connection::open(host.database()).expect("open");
    let found: i64 = file
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .expect("read");
    assert_eq!(usize::try_from(found), Ok(VERSION), "{point}");
    if version > 0 {
        assert_eq!(host.wait(1)["state"], "succeeded", "{point}");
        assert_eq!(host.task(2)["state"], "succeeded", "{point}");
    }
    let id = host.submit(&one(&host, "new"));
    assert_eq!(host.wait(id)["state"], "succeeded");
    assert!(id > if version > 0 { 2 } else { 0 }, "no number twice");
    kills
}

#[test]
fn fi_17_a_step_of_the_schema_may_be_killed_anywhere() {
    let points: Vec<_> = POINTS
        .into_iter()
        .filter(|point| point.starts_with("store/migrate/"))
        .collect();
    assert!(points.len() >= 4, "{points:?}");
    let mut kills = 0;
    for version in 0..VERSION {
        for point in &points {
            let here = killed_twice_at(version, point);
            assert!(here > 0, "nothing comes by {point} from version {version}");
            kills += here;
        }
    }
    tell(&format!("kills at steps of the schema: {kills} survived"));
}

#[test]
fn fi_18_a_newer_file_is_refused_and_not_touched() {
    let mut host = Host::started();
    let id = host.submit(&one(&host, "kept"));
    assert_eq!(host.wait(id)["state"], "succeeded");
    host.kill_all();
    let file = Connection::open(host.database()).expect("open");
    file.pragma_update(None, "user_version", VERSION + 1)
        .expect("newer");
    drop(file);
    let before = fs::read(host.database()).expect("read");
    let status = host.run_to_end();
    assert_eq!(status.code(), Some(78), "{}", host.log());
    assert!(host.log().contains("install the newer taskdaemon again"));
    assert!(
        fs::read(host.database()).expect("read") == before,
        "the same bytes"
    );
    let file = Connection::open(host.database()).expect("open");
    file.pragma_update(None, "user_version", VERSION)
        .expect("as it was");
    drop(file);
    host.start();
    assert_eq!(host.task(id)["state"], Value::from("succeeded"));
}
