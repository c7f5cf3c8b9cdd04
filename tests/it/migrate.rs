//! Files of earlier schema versions, brought up to date with what is in them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;
use taskdaemon::model::attempt::AttemptKey;
use taskdaemon::model::budget::{Cap, Name, Purse};
use taskdaemon::model::id::TaskId;
use taskdaemon::model::price::Money;
use taskdaemon::model::task::{Delay, State};
use taskdaemon::model::time::Time;
use taskdaemon::store::Store as _;
use taskdaemon::store::calls::Calls as _;
use taskdaemon::store::migrate::APPLICATION_ID;
use taskdaemon::store::queues::Queues as _;
use taskdaemon::store::sqlite::Sqlite;

use crate::store::{new_task, options};

/// A file as version 1 wrote it: a queued, a backed-off, a running and a finished task.
pub(crate) fn version_1(dir: &Path) {
    let path = dir.join("taskdaemon.db");
    let file = Connection::open(&path).expect("make");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, mode).expect("mode");
    file.execute_batch(include_str!("../../src/store/migrations/1.sql"))
        .expect("version 1");
    file.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = 1;
         INSERT INTO queue (id, name, concurrency) VALUES (1, 'default', 3), (2, 'other', NULL);
         INSERT INTO task (id, state, queue, priority, owner, created, due, wake, attempt, tries, spec)
         VALUES (1, 2, 1, 4, 1000, 10, 2000000000, NULL, 0, 0, '{{\"argv\":[\"true\"]}}'),
                (2, 1, 1, 0, 1000, 10, 5000, 5000, 1, 1, '{{\"argv\":[\"true\"]}}'),
                (3, 3, 2, 0, 0, 10, 20, 9000, 1, 0, '{{\"argv\":[\"true\"],\"timeout_ms\":8}}'),
                (4, 6, 1, 0, 1000, 10, 20, NULL, 1, 0, '{{\"argv\":[\"true\"]}}');
         INSERT INTO attempt (task, number, runner, boot, claimed) VALUES (3, 1, 'r', 'b', 30);
         INSERT INTO event (seq, at, task, attempt, kind) VALUES (8, 10, 3, 0, 'submitted');
         INSERT INTO tally (state, tasks) VALUES (1, 1), (2, 1), (3, 1), (6, 1);
         UPDATE given SET number = 7 WHERE what = 'task';
         UPDATE given SET number = 8 WHERE what = 'event';"
    ))
    .expect("rows");
}

#[test]
fn a_file_of_version_1_keeps_its_tasks_clocks_counts_and_numbers() {
    let dir = tempfile::tempdir().expect("directory");
    version_1(dir.path());
    let mut store = Sqlite::open(dir.path(), &options()).expect("open");
    let task = |store: &mut Sqlite, id| store.task(TaskId(id)).expect("read").expect("there");
    let heads = store.heads(1).expect("heads");
    let places: Vec<_> = heads.iter().map(|head| (head.rank, head.task.0)).collect();
    assert_eq!(places, [(2_000_000_000 - 4 * 300_000_000, 1)]);
    let queue = store.queue_named("default").expect("read").expect("there");
    assert_eq!((queue.concurrency, queue.group_limit()), (Some(3), 1));
    assert_eq!(task(&mut store, 2).delay, Some(Delay::Backoff));
    assert_eq!(task(&mut store, 2).wake, Some(Time::from_micros(5_000)));
    let running = task(&mut store, 3);
    assert_eq!(running.time_limit, Some(Time::from_micros(9_000)));
    let live: Vec<AttemptKey> = store.live().expect("live").iter().map(|a| a.key).collect();
    assert_eq!(live, [running.attempt_key()]);
    assert_eq!(store.tally()[..7], [0, 1, 1, 1, 0, 0, 1]);
    assert_eq!(store.count_of_owner(1000, State::Scheduled), 1);
    assert_eq!(store.count_of_queue(2, State::Running), 1);
    assert_eq!(store.last_event(), 8);
    store.begin().expect("begin");
    let new = store
        .insert(&new_task("true"), false, Time::from_micros(40))
        .expect("insert");
    store.commit().expect("commit");
    assert_eq!(new.id, TaskId(8), "no number is given twice");
    drop(store);
    // And as the rows have it, by the database's own sort.
    let file = Connection::open(dir.path().join("taskdaemon.db")).expect("open");
    let (rank, owner): (i64, i64) = file
        .query_row(
            "SELECT (SELECT rank FROM task WHERE id = 1), (SELECT owner FROM event WHERE seq = 8)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("read");
    assert_eq!((rank, owner), (800_000_000, 0));
}

#[test]
fn a_file_of_version_6_keeps_its_calls_which_hold_nothing_of_budgets() {
    let dir = tempfile::tempdir().expect("directory");
    version_1(dir.path());
    let file = Connection::open(dir.path().join("taskdaemon.db")).expect("open");
    for step in [
        include_str!("../../src/store/migrations/2.sql"),
        include_str!("../../src/store/migrations/3.sql"),
        include_str!("../../src/store/migrations/4.sql"),
        include_str!("../../src/store/migrations/5.sql"),
        include_str!("../../src/store/migrations/6.sql"),
    ] {
        file.execute_batch(step).expect("a step");
    }
    file.execute_batch(
        "PRAGMA user_version = 6;
         INSERT INTO call (id, task, number, relayed, owner, model, gauge, at, input_max, output_max, cost_max)
         VALUES (5, 3, 1, 0, 1000, 'chat', 'one/m-1', 30, 10, 100, 50);",
    )
    .expect("rows");
    drop(file);
    let mut store = Sqlite::open(dir.path(), &options()).expect("open");
    let call = store.call_numbered(5).expect("read").expect("there");
    assert_eq!((call.held, call.purses.len()), (0, 0), "{call:?}");
    assert_eq!(call.estimate, Some(Money::from_micros(50)));
    let name = Name::of_task(TaskId(3));
    store.begin().expect("begin");
    let purse = Purse::default().hold(call.holds());
    store
        .save_purse(&name, &purse, Time::from_micros(40))
        .expect("save");
    store.commit().expect("commit");
    assert_eq!(store.purse(&name).expect("read"), (purse, Cap::default()));
}
