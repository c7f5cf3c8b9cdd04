//! The conformance suite of the store: what every backend must do, and what
//! the embedded one refuses to open.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use taskdaemon::model::attempt::{Attempt, AttemptKey, Class, Outcome, Started, Usage};
use taskdaemon::model::event::{Event, Kind};
use taskdaemon::model::filter::Filter;
use taskdaemon::model::id::TaskId;
use taskdaemon::model::spec::{NewTask, Spec};
use taskdaemon::model::task::{State, Task};
use taskdaemon::model::time::Time;
use taskdaemon::store::lock::Lock;
use taskdaemon::store::options::Options;
use taskdaemon::store::sqlite::Sqlite;
use taskdaemon::store::{Error, Store, ballast};

pub(crate) fn options() -> Options {
    Options::default()
}

pub(crate) fn new_task(command: &str) -> NewTask {
    NewTask {
        owner: 1000,
        queue: "default".to_owned(),
        body_hash: [7; 32],
        spec: Spec {
            argv: vec![command.to_owned()],
            ..Spec::default()
        },
        ..NewTask::default()
    }
}

fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

/// Runs every check against one kind of store. `open` opens the same data anew.
fn conforms<S: Store>(open: impl Fn() -> S) {
    what_is_committed_is_there_after_reopening(&open);
    what_is_not_committed_is_not_there(&open);
    a_transaction_that_is_open_goes_on(&open);
    ready_tasks_come_by_priority_due_and_id(&open);
    a_change_of_a_task_that_was_changed_meanwhile_is_fenced(&open);
    attempts_end_once(&open);
    keys_belong_to_owners(&open);
    timers_come_in_order(&open);
    lists_are_filtered_and_paged(&open);
    the_tally_is_exact(&open);
}

fn add(store: &mut impl Store, change: impl FnOnce(&mut NewTask)) -> Task {
    let mut new = new_task("true");
    change(&mut new);
    store.insert(&new, false, at(100)).expect("insert")
}

fn what_is_committed_is_there_after_reopening<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let task = add(&mut store, |new| {
        new.name = Some("näme \u{1F600}".to_owned());
        new.labels.insert("team".to_owned(), "a \"b\"".to_owned());
        new.stdin = Some(vec![0, 255, 10]);
        new.spec.env.insert("A".to_owned(), "b\nc".to_owned());
        new.spec.timeout_ms = Some(5);
    });
    store.commit().expect("commit");
    assert_eq!(store.task(task.id).expect("read"), Some(task.clone()));
    drop(store);
    let mut store = open();
    assert_eq!(store.task(task.id).expect("read"), Some(task.clone()));
    assert_eq!(store.input(task.id).expect("read"), Some(vec![0, 255, 10]));
}

fn what_is_not_committed_is_not_there<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let task = add(&mut store, |_| {});
    drop(store);
    let mut store = open();
    assert_eq!(store.task(task.id).expect("read"), None);
    assert!(
        !store
            .queues()
            .expect("read")
            .iter()
            .any(|queue| queue.name == "never")
    );
}

fn a_transaction_that_is_open_goes_on<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let first = add(&mut store, |_| {});
    store.begin().expect("it is open already");
    let second = add(&mut store, |_| {});
    store.commit().expect("commit");
    drop(store);
    let mut store = open();
    for task in [first, second] {
        assert_eq!(store.task(task.id).expect("read"), Some(task));
    }
}

fn ready_tasks_come_by_priority_due_and_id<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let mut ids = Vec::new();
    for (priority, due) in [(0, 100), (5, 300), (5, 200), (0, 100), (-3, 90)] {
        let new = NewTask {
            queue: "order".to_owned(),
            priority,
            ..new_task("true")
        };
        let task = store.insert(&new, false, at(due)).expect("insert");
        ids.push(task.id);
    }
    let later = NewTask {
        queue: "order".to_owned(),
        run_at: Some(at(999)),
        ..new_task("true")
    };
    store.insert(&later, false, at(1)).expect("insert");
    store.commit().expect("commit");
    let queue = store.queue_named("order").expect("read").expect("a queue");
    let mut ready = Vec::new();
    let mut head = store.heads(queue.id).expect("read").pop();
    while let Some(found) = head {
        ready.push(found.task);
        head = store.next_head(&found).expect("read");
    }
    assert_eq!(ready, [ids[2], ids[1], ids[0], ids[3], ids[4]]);
}

fn a_change_of_a_task_that_was_changed_meanwhile_is_fenced<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let task = add(&mut store, |_| {});
    let moved = Task {
        state: State::Running,
        attempt: 1,
        ..task.clone()
    };
    store
        .save((task.state, task.attempt), &moved)
        .expect("save");
    assert!(
        matches!(store.save((task.state, task.attempt), &moved), Err(Error::Fenced(id)) if id == task.id)
    );
    assert!(matches!(
        store.save((State::Running, 2), &moved),
        Err(Error::Fenced(_))
    ));
    store.commit().expect("commit");
}

fn attempts_end_once<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let task = add(&mut store, |_| {});
    let key = AttemptKey {
        task: task.id,
        number: 1,
    };
    let attempt = Attempt {
        key,
        runner: "r".to_owned(),
        boot: "b".to_owned(),
        claimed: at(5),
        started: None,
        ended: None,
        outcome: None,
        usage: Usage::default(),
    };
    store.begin_attempt(&attempt).expect("begin attempt");
    assert!(
        store.begin_attempt(&attempt).is_err(),
        "a number is used once"
    );
    assert!(store.live().expect("read").contains(&attempt));
    let started = Started {
        pid: 9,
        uid: 8,
        user: "u".to_owned(),
        cgroup: Some("/c".to_owned()),
        at: at(6),
    };
    store.start_attempt(key, &started).expect("start");
    let outcome = Outcome {
        class: Class::Exit,
        exit_code: Some(7),
        signal: None,
        message: "m".to_owned(),
    };
    let usage = Usage {
        cpu_micros: Some(1),
        memory_peak: None,
        output_kept: 2,
        output_dropped: 3,
    };
    store
        .end_attempt(key, None, at(7), &outcome, &usage)
        .expect("end");
    assert!(matches!(
        store.end_attempt(key, None, at(8), &outcome, &usage),
        Err(Error::Fenced(_))
    ));
    store
        .start_attempt(
            key,
            &Started {
                pid: 1,
                ..started.clone()
            },
        )
        .expect("left alone");
    store.commit().expect("commit");
    let ended = Attempt {
        started: Some(started),
        ended: Some(at(7)),
        outcome: Some(outcome),
        usage,
        ..attempt
    };
    assert_eq!(store.attempts(task.id).expect("read"), [ended]);
    assert!(store.live().expect("read").is_empty());
}

fn keys_belong_to_owners<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let mine = add(&mut store, |new| new.key = Some("k".to_owned()));
    let theirs = add(&mut store, |new| {
        new.key = Some("k".to_owned());
        new.owner = 2000;
    });
    store.commit().expect("commit");
    let found = |store: &mut S, owner| store.by_key(owner, "k").expect("read").map(|h| h.id);
    assert_eq!(found(&mut store, 1000), Some(mine.id));
    assert_eq!(found(&mut store, 2000), Some(theirs.id));
    assert_eq!(found(&mut store, 3000), None);
}

fn timers_come_in_order<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let late = add(&mut store, |new| new.run_at = Some(at(50_002)));
    let early = add(&mut store, |new| new.run_at = Some(at(50_001)));
    store.commit().expect("commit");
    let due = |store: &mut S, now, limit| -> Vec<TaskId> {
        let awake = store.awake(now, limit).expect("read");
        awake
            .iter()
            .map(|task| task.id)
            .filter(|id| [late.id, early.id].contains(id))
            .collect()
    };
    assert_eq!(due(&mut store, at(50_000), 100), []);
    assert_eq!(due(&mut store, at(50_002), 100), [early.id, late.id]);
    assert!(
        store
            .next_wake()
            .expect("read")
            .is_some_and(|next| next <= at(50_001))
    );
}

fn lists_are_filtered_and_paged<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let mut ids: Vec<_> = (0..5)
        .map(|n| {
            let task = add(&mut store, |new| {
                new.queue = "listed".to_owned();
                new.name = Some(format!("100%_{n}"));
                new.labels.insert("n".to_owned(), n.to_string());
            });
            task.id
        })
        .collect();
    store.commit().expect("commit");
    ids.reverse();
    let list = |store: &mut S, change: fn(&mut Filter)| -> Vec<TaskId> {
        let mut filter = Filter {
            queue: Some("listed".to_owned()),
            limit: 100,
            ..Filter::default()
        };
        change(&mut filter);
        store
            .list(&filter)
            .expect("read")
            .iter()
            .map(|task| task.id)
            .collect()
    };
    assert_eq!(list(&mut store, |_| {}), ids);
    assert_eq!(list(&mut store, |f| f.limit = 2), ids[..2]);
    assert_eq!(
        list(&mut store, |f| f.name = Some("%_3".to_owned())),
        [ids[1]]
    );
    assert_eq!(list(&mut store, |f| f.name = Some("'; --".to_owned())), []);
    assert_eq!(
        list(&mut store, |f| f.label =
            Some(("n".to_owned(), "4".to_owned()))),
        [ids[0]]
    );
    assert_eq!(list(&mut store, |f| f.states = vec![State::Failed]), []);
    assert_eq!(
        list(&mut store, |f| f.states =
            vec![State::Failed, State::Queued]),
        ids
    );
    assert_eq!(list(&mut store, |f| f.owner = Some(1)), []);
    let before = Filter {
        queue: Some("listed".to_owned()),
        before: Some(ids[2]),
        limit: 9,
        ..Filter::default()
    };
    let page: Vec<_> = store
        .list(&before)
        .expect("read")
        .iter()
        .map(|t| t.id)
        .collect();
    assert_eq!(page, ids[3..]);
}

fn the_tally_is_exact<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    let before = store.tally();
    store.begin().expect("begin");
    let task = add(&mut store, |_| {});
    add(&mut store, |_| {});
    let moved = Task {
        state: State::Failed,
        ..task.clone()
    };
    store.save((task.state, 0), &moved).expect("save");
    let event = Event {
        at: at(1),
        task: task.id,
        attempt: 0,
        kind: Kind::Submitted,
        actor: None,
        origin: taskdaemon::model::origin::Origin::NONE,
        owner: task.owner,
        queue: task.queue.clone(),
        data: None,
    };
    store.record(&event).expect("record");
    store.commit().expect("commit");
    let mut wanted = before;
    wanted[2] += 1;
    wanted[7] += 1;
    assert_eq!(store.tally(), wanted);
    assert_eq!(open().tally(), wanted, "and after reopening");
}

#[test]
fn sqlite_conforms() {
    let dir = tempfile::tempdir().expect("directory");
    conforms(|| Sqlite::open(dir.path(), &options()).expect("open"));
}

/// What opening a state directory says, with the sum of its file before and after.
fn refusal(dir: &Path) -> String {
    let file = dir.join("taskdaemon.db");
    let before = fs::read(&file).expect("read");
    let error = Sqlite::open(dir, &options()).expect_err("must be refused");
    assert_eq!(
        fs::read(&file).expect("read"),
        before,
        "the file is untouched"
    );
    assert!(error.is_permanent(), "{error}");
    error.to_string()
}

#[test]
fn files_that_are_not_ours_are_refused_untouched() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("taskdaemon.db");
    let write = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
    };
    write(&[b'x'; 5000]);
    assert!(
        refusal(dir.path()).contains("not a"),
        "{}",
        refusal(dir.path())
    );

    fs::remove_file(&file).expect("remove");
    drop(Sqlite::open(dir.path(), &options()).expect("open"));
    let good = fs::read(&file).expect("read");

    write(&good[..good.len() / 2]);
    assert!(
        Sqlite::open(dir.path(), &options()).is_err(),
        "a truncated file is refused"
    );

    write(&good);
    let connection = rusqlite::Connection::open(&file).expect("open");
    connection
        .pragma_update(None, "user_version", 99)
        .expect("pragma");
    drop(connection);
    assert!(refusal(dir.path()).contains("schema version 99"));

    write(&good);
    let connection = rusqlite::Connection::open(&file).expect("open");
    connection
        .pragma_update(None, "application_id", 1)
        .expect("pragma");
    drop(connection);
    assert!(refusal(dir.path()).contains("another program"));

    write(&good);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("mode");
    assert!(refusal(dir.path()).contains("0600"));

    write(&good);
    fs::hard_link(&file, dir.path().join("other")).expect("link");
    assert!(refusal(dir.path()).contains("hard link"));
}

#[test]
fn damaged_rows_are_named_and_the_others_stay_readable() {
    let dir = tempfile::tempdir().expect("directory");
    let mut store = Sqlite::open(dir.path(), &options()).expect("open");
    store.begin().expect("begin");
    let bad = add(&mut store, |_| {});
    let good = add(&mut store, |_| {});
    store.commit().expect("commit");
    drop(store);
    let raw = rusqlite::Connection::open(dir.path().join("taskdaemon.db")).expect("open");
    raw.execute("UPDATE task SET spec = '{' WHERE id = ?1", [bad.id.0])
        .expect("damage");
    drop(raw);
    let mut store = Sqlite::open(dir.path(), &options()).expect("open");
    let error = store.task(bad.id).expect_err("damaged").to_string();
    assert!(error.contains(&format!("task {}", bad.id)), "{error}");
    assert_eq!(store.task(good.id).expect("read"), Some(good));
}

#[test]
fn a_second_daemon_is_kept_out_at_once() {
    let dir = tempfile::tempdir().expect("directory");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(dir.path(), mode).expect("mode");
    let first = Lock::take(dir.path()).expect("first");
    let error = Lock::take(dir.path()).expect_err("second").to_string();
    assert!(
        error.contains(&format!("pid {}", std::process::id())),
        "{error}"
    );
    drop(first);
    drop(Lock::take(dir.path()).expect("free again"));
}

#[test]
fn ballast_is_kept_once_and_released_once() {
    let dir = tempfile::tempdir().expect("directory");
    ballast::keep(dir.path(), 1 << 20).expect("keep");
    let size = || {
        fs::metadata(dir.path().join("ballast"))
            .map(|meta| meta.len())
            .unwrap_or(0)
    };
    assert_eq!(size(), 1 << 20);
    ballast::keep(dir.path(), 1 << 20).expect("keep again");
    assert!(ballast::release(dir.path()));
    assert_eq!(size(), 0);
    assert!(!ballast::release(dir.path()));
    ballast::keep(dir.path(), u64::MAX >> 1).expect("more than the disk has is left alone");
    assert_eq!(size(), 0);
}

#[test]
fn a_commit_into_a_file_that_was_moved_away_is_none() {
    let dir = tempfile::tempdir().expect("directory");
    let mut store = Sqlite::open(dir.path(), &options()).expect("open");
    store.begin().expect("begin");
    store.commit().expect("commit");
    let path = dir.path().join("taskdaemon.db");
    fs::rename(&path, dir.path().join("moved")).expect("move");
    store.begin().expect("begin");
    add(&mut store, |_| {});
    let error = store.commit().expect_err("nobody would find it again");
    assert!(error.is_permanent(), "{error}");
    drop(store);
    fs::copy(dir.path().join("moved"), &path).expect("copy");
    let mut store = Sqlite::open(&dir.path().join("."), &options());
    drop(store.as_mut().map(|store| store.begin()));
    fs::rename(&path, dir.path().join("first")).expect("move");
    fs::copy(dir.path().join("first"), &path).expect("replace");
    assert!(store.expect("open").commit().is_err(), "replaced");
}
