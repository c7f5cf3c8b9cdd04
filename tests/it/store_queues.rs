//! The conformance suite of [`Queues`]: what every backend must do about
//! queues, the next tasks and group keys; and that SQLite does it by index.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;
use taskdaemon::model::admit::{Head, Live};
use taskdaemon::model::id::TaskId;
use taskdaemon::model::queue::Queue;
use taskdaemon::model::spec::NewTask;
use taskdaemon::model::task::{State, Task};
use taskdaemon::model::time::Time;
use taskdaemon::store::Store;
use taskdaemon::store::sqlite::Sqlite;

use crate::store::{new_task, options};

fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

/// A ready task of a queue, due at a time.
fn add(store: &mut impl Store, queue: &str, due: i64, change: impl FnOnce(&mut NewTask)) -> Task {
    let mut new = new_task("true");
    new.queue = queue.to_owned();
    change(&mut new);
    store.insert(&new, false, at(due)).expect("insert")
}

fn grouped(store: &mut impl Store, queue: &str, due: i64) -> Task {
    add(store, queue, due, |new| new.group = Some("g".to_owned()))
}

/// Moves a task as the engine would.
fn to(store: &mut impl Store, task: &Task, state: State) -> Task {
    let after = Task {
        state,
        ..task.clone()
    };
    store
        .save((task.state, task.attempt), &after)
        .expect("save");
    after
}

fn row(store: &mut impl Store, name: &str) -> Queue {
    store.queue_named(name).expect("read").expect("a queue")
}

/// Every open ready task of a queue, as heads and those behind them have it.
fn open(store: &mut impl Store, queue: &str) -> BTreeSet<TaskId> {
    let queue = row(store, queue).id;
    let mut found = BTreeSet::new();
    for head in store.heads(queue).expect("read") {
        let mut next = Some(head);
        while let Some(head) = next {
            found.insert(head.task);
            next = store.next_head(&head).expect("read");
        }
    }
    found
}

/// Runs every check against one kind of store. `anew` opens the same data anew.
fn conforms<S: Store>(anew: impl Fn() -> S) {
    queues_keep_what_they_are_given(&anew);
    a_removed_queue_is_gone_until_a_task_comes(&anew);
    heads_are_the_first_of_each_owner(&anew);
    live_attempts_are_counted_by_queue_and_owner(&anew);
    of_a_group_only_the_first_are_open(&anew);
    a_new_limit_reaches_every_group_in_steps(&anew);
    lanes_count_what_is_there(&anew);
}

fn queues_keep_what_they_are_given<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    assert_eq!(store.queue_named("kept").expect("read"), None);
    let made = store.make_queue("kept").expect("make");
    assert_eq!(made.group_limit(), 1);
    let queue = Queue {
        concurrency: Some(7),
        rate: Some("10/1m30s".parse().expect("a rate")),
        rate_until: at(5),
        group_limit: Some(3),
        paused: true,
        draining: true,
        ..made
    };
    store.save_queue(&queue).expect("save");
    store.commit().expect("commit");
    let mut store = anew();
    assert_eq!(row(&mut store, "kept"), queue);
    assert!(store.is_draining("kept").expect("read"));
    assert!(!store.is_draining("unknown").expect("read"));
    assert!(store.queues().expect("read").contains(&queue));
}

fn a_removed_queue_is_gone_until_a_task_comes<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    let task = add(&mut store, "removed", 1, |_| {});
    let over = to(&mut store, &task, State::Cancelled);
    let queue = Queue {
        concurrency: Some(1),
        ..row(&mut store, "removed")
    };
    store.save_queue(&queue).expect("save");
    store.remove_queue(&queue).expect("remove");
    store.commit().expect("commit");
    let mut store = anew();
    assert_eq!(store.queue_named("removed").expect("read"), None);
    let queues = store.queues().expect("read");
    assert!(queues.iter().all(|queue| queue.name != "removed"));
    let read = store.task(over.id).expect("read").expect("the task stays");
    assert_eq!(read.queue, "removed");
    store.begin().expect("begin");
    add(&mut store, "removed", 2, |_| {});
    store.commit().expect("commit");
    assert_eq!(row(&mut store, "removed").concurrency, None);
}

fn heads_are_the_first_of_each_owner<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    let mut ids = Vec::new();
    for (owner, due, priority) in [
        (0, 9, 0),
        (0, 8, 0),
        (7, 900, 5),
        (7, 5, 0),
        (u32::MAX, 1, 0),
    ] {
        let task = add(&mut store, "heads", due, |new| {
            new.owner = owner;
            new.priority = priority;
        });
        ids.push(task.id);
    }
    add(&mut store, "heads", 1, |new| new.run_at = Some(at(99)));
    let queue = row(&mut store, "heads").id;
    let heads = store.heads(queue).expect("read");
    let found: Vec<_> = heads.iter().map(|head| (head.owner, head.task)).collect();
    assert_eq!(found, [(0, ids[1]), (7, ids[2]), (u32::MAX, ids[4])]);
    let behind = |store: &mut S, head: &Head| store.next_head(head).expect("read");
    let second = behind(&mut store, &heads[0]).expect("one more");
    assert_eq!(second.task, ids[0]);
    assert_eq!(behind(&mut store, &second), None);
    let ready = store.ready_queues().expect("read");
    assert!(ready.iter().any(|ready| ready.id == queue));
    store.commit().expect("commit");
}

fn live_attempts_are_counted_by_queue_and_owner<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    for (owner, state) in [
        (5, State::Running),
        (5, State::Paused),
        (6, State::Stopping),
        (6, State::Succeeded),
    ] {
        let task = add(&mut store, "live", 1, |new| new.owner = owner);
        to(&mut store, &task, state);
    }
    let queue = row(&mut store, "live").id;
    let live = store.live_by_owner().expect("read");
    let found: Vec<Live> = live
        .into_iter()
        .filter(|live| live.queue == queue)
        .collect();
    let of = |owner, count| Live {
        queue,
        owner,
        count,
    };
    assert_eq!(found, [of(5, 2), of(6, 1)]);
    store.commit().expect("commit");
}

fn of_a_group_only_the_first_are_open<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    let opened = |store: &mut S| open(store, "grouped");
    let second = grouped(&mut store, "grouped", 20);
    let third = grouped(&mut store, "grouped", 30);
    assert_eq!(opened(&mut store), BTreeSet::from([second.id]));
    let first = grouped(&mut store, "grouped", 10);
    assert_eq!(
        opened(&mut store),
        BTreeSet::from([first.id]),
        "it goes first"
    );
    let running = to(&mut store, &first, State::Running);
    assert_eq!(opened(&mut store), BTreeSet::new());
    let again = to(&mut store, &running, State::Queued);
    assert_eq!(
        opened(&mut store),
        BTreeSet::from([first.id]),
        "interrupted"
    );
    to(&mut store, &again, State::Cancelled);
    assert_eq!(opened(&mut store), BTreeSet::from([second.id]));
    to(&mut store, &second, State::Expired);
    assert_eq!(opened(&mut store), BTreeSet::from([third.id]));
    let other = add(&mut store, "grouped", 1, |new| {
        new.group = Some("h".to_owned())
    });
    let free = add(&mut store, "grouped", 1, |_| {});
    let all = BTreeSet::from([third.id, other.id, free.id]);
    assert_eq!(opened(&mut store), all);
    let elsewhere = grouped(&mut store, "grouped-too", 1);
    let there = open(&mut store, "grouped-too");
    assert_eq!(
        there,
        BTreeSet::from([elsewhere.id]),
        "a group is of one queue"
    );
    store.commit().expect("commit");
}

fn a_new_limit_reaches_every_group_in_steps<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    for group in 0..10 {
        for due in 0..3 {
            let group = Some(format!("g{group}"));
            add(&mut store, "regrouped", due, |new| new.group = group);
        }
    }
    let queue = row(&mut store, "regrouped");
    assert!(
        !store.regroup(100).expect("regroup"),
        "those of other queues"
    );
    assert_eq!(open(&mut store, "regrouped").len(), 10);
    let limited = |limit| Queue {
        group_limit: limit,
        ..queue.clone()
    };
    store.save_queue(&limited(Some(2))).expect("save");
    assert!(store.regroup(4).expect("regroup"), "there is more");
    assert_eq!(open(&mut store, "regrouped").len(), 14);
    store.commit().expect("commit");
    drop(store);
    let mut store = anew();
    store.begin().expect("begin");
    assert!(
        !store.regroup(100).expect("regroup"),
        "goes on after a restart"
    );
    assert_eq!(open(&mut store, "regrouped").len(), 20);
    store.save_queue(&limited(None)).expect("save");
    assert!(!store.regroup(100).expect("regroup"));
    assert_eq!(open(&mut store, "regrouped").len(), 10);
    store.commit().expect("commit");
}

fn lanes_count_what_is_there<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    for state in [State::Queued, State::Queued, State::Running, State::Failed] {
        let owner = if state == State::Running { 1 } else { 2 };
        let task = add(&mut store, "counted", 1, |new| new.owner = owner);
        if state != State::Queued {
            to(&mut store, &task, state);
        }
    }
    store.commit().expect("commit");
    let lanes = anew().lanes().expect("read");
    let lane = lanes.iter().find(|lane| lane.queue.name == "counted");
    let counts = lane.expect("a lane").counts;
    assert_eq!(counts, [0, 0, 2, 1, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn sqlite_conforms() {
    let dir = tempfile::tempdir().expect("directory");
    conforms(|| Sqlite::open(dir.path(), &options()).expect("open"));
}

/// The statements of a source file that look at tasks.
fn statements(source: &str) -> Vec<String> {
    let code =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(source)).expect("read");
    let literals = code.split('"').skip(1).step_by(2);
    let whole = literals.map(|text| text.replace("\\\n", ""));
    let about = |text: &String| text.contains("task INDEXED") || text.contains("FROM task");
    whole.filter(about).collect()
}

#[test]
fn no_question_of_admission_reads_the_whole_backlog() {
    let dir = tempfile::tempdir().expect("directory");
    drop(Sqlite::open(dir.path(), &options()).expect("open"));
    let file = Connection::open(dir.path().join("taskdaemon.db")).expect("open");
    let statements = statements("src/store/sqlite/queues.rs");
    assert!(statements.len() >= 11, "{statements:?}");
    for sql in statements {
        let mut plan = file
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let values = vec![1; plan.parameter_count()];
        let lines: Vec<String> = plan
            .query_map(rusqlite::params_from_iter(values), |row| row.get(3))
            .expect("explain")
            .collect::<Result<_, _>>()
            .expect("read");
        assert!(!lines.is_empty(), "{sql}");
        for line in lines {
            // The index of live tasks has as many entries as there are slots in use.
            let scan = line.contains("SCAN") && !line.contains("task_live");
            assert!(!scan && !line.contains("TEMP B-TREE"), "{sql}: {line}");
        }
    }
}
