//! The store's part of an edit, written against the trait.

use std::collections::BTreeMap;
use std::sync::Arc;

use taskdaemon::model::id::TaskId;
use taskdaemon::model::spec::NewTask;
use taskdaemon::model::task::{Delay, State, Task};
use taskdaemon::model::time::Time;
use taskdaemon::store::edit::Edits as _;
use taskdaemon::store::sqlite::Sqlite;
use taskdaemon::store::{Error, Store};

use crate::store::{new_task, options};

fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

fn queue_id(store: &mut impl Store, name: &str) -> i64 {
    let queues = store.queues().expect("queues");
    let found = queues.iter().find(|queue| queue.name == name);
    found.expect("a queue").id
}

fn everything_that_can_change_is_kept(store: &mut impl Store, task: &Task) {
    let mut edited = task.clone();
    edited.state = State::Scheduled;
    edited.queue = "other".to_owned();
    edited.priority = 7;
    edited.name = None;
    edited.labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    edited.due = at(900);
    edited.delay = Some(Delay::Start);
    edited.wake = Some(at(900));
    Arc::make_mut(&mut edited.spec).timeout_ms = Some(9);
    store.begin().expect("begin");
    store.save_edit(task, &edited).expect("save");
    store.commit().expect("commit");
    assert_eq!(store.task(task.id).expect("read"), Some(edited));
    let (from, to) = (queue_id(store, "default"), queue_id(store, "other"));
    let counts = |store: &mut dyn FnMut(i64, State) -> u64| {
        (store(from, State::Queued), store(to, State::Scheduled))
    };
    assert_eq!(
        counts(&mut |queue, state| store.count_of_queue(queue, state)),
        (1, 1),
        "the task moved, another one stayed"
    );
    assert_eq!(store.count_of_owner(1000, State::Scheduled), 1);
}

fn the_rank_follows_the_priority(store: &mut impl Store, first: TaskId, second: &Task) {
    let queue = queue_id(store, "default");
    assert_eq!(in_order(store, queue), [first, second.id]);
    let mut edited = second.clone();
    edited.priority = 1;
    store.begin().expect("begin");
    store.save_edit(second, &edited).expect("save");
    store.commit().expect("commit");
    assert_eq!(in_order(store, queue), [second.id, first]);
}

/// The ready tasks of a queue whose tasks have one owner.
fn in_order(store: &mut impl Store, queue: i64) -> Vec<TaskId> {
    let mut heads = store.heads(queue).expect("heads");
    while let Some(last) = heads.last()
        && let Some(next) = store.next_head(last).expect("next")
    {
        heads.push(next);
    }
    heads.iter().map(|head| head.task).collect()
}

#[test]
fn a_task_that_is_edited_keeps_its_group_in_order() {
    let dir = tempfile::tempdir().expect("directory");
    let mut store = Sqlite::open(dir.path(), &options()).expect("open");
    let add = |store: &mut Sqlite| {
        let new = NewTask {
            group: Some("g".to_owned()),
            ..new_task("true")
        };
        store.begin().expect("begin");
        let task = store
            .insert(&new, false, Time::from_micros(1))
            .expect("insert");
        store.commit().expect("commit");
        task
    };
    let (first, second) = (add(&mut store), add(&mut store));
    let queue = queue_id(&mut store, "default");
    assert_eq!(in_order(&mut store, queue), [first.id], "one at a time");
    let mut edited = second.clone();
    edited.priority = 1;
    store.begin().expect("begin");
    store.save_edit(&second, &edited).expect("save");
    store.commit().expect("commit");
    assert_eq!(in_order(&mut store, queue), [second.id]);
    let moved = Task {
        queue: "other".to_owned(),
        ..edited.clone()
    };
    store.begin().expect("begin");
    store.save_edit(&edited, &moved).expect("save");
    store.commit().expect("commit");
    assert_eq!(in_order(&mut store, queue), [first.id]);
    let other = queue_id(&mut store, "other");
    assert_eq!(in_order(&mut store, other), [second.id]);
}

fn what_was_claimed_meanwhile_is_fenced(store: &mut impl Store, task: &Task) {
    let mut claimed = task.clone();
    claimed.state = State::Running;
    claimed.attempt = 1;
    store.begin().expect("begin");
    store
        .save((task.state, task.attempt), &claimed)
        .expect("claim");
    let fenced = store.save_edit(task, task);
    assert!(matches!(fenced, Err(Error::Fenced(id)) if id == task.id));
}

#[test]
fn the_embedded_store_keeps_edits() {
    let open = |dir: &tempfile::TempDir| Sqlite::open(dir.path(), &options()).expect("open");
    let add = |store: &mut Sqlite, name: &str| {
        store.begin().expect("begin");
        let mut new = new_task("true");
        new.name = Some(name.to_owned());
        let task = store.insert(&new, false, at(100)).expect("insert");
        store.commit().expect("commit");
        task
    };
    let dir = tempfile::tempdir().expect("directory");
    let mut store = open(&dir);
    let (first, second) = (add(&mut store, "first"), add(&mut store, "second"));
    the_rank_follows_the_priority(&mut store, first.id, &second);
    everything_that_can_change_is_kept(&mut store, &first);
    let third = add(&mut store, "third");
    what_was_claimed_meanwhile_is_fenced(&mut store, &third);
}
