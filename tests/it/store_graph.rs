//! What every store must do with edges and unique keys.

use taskdaemon::model::id::TaskId;
use taskdaemon::model::spec::{Conflict, NewTask, Unique, Wants};
use taskdaemon::model::task::{State, Task};
use taskdaemon::model::time::Time;
use taskdaemon::store::Store;
use taskdaemon::store::graph::Held;
use taskdaemon::store::sqlite::Sqlite;

use crate::store::{new_task, options};

const NOW: Time = Time::from_micros(1_000_000);

fn conforms<S: Store>(open: impl Fn() -> S) {
    edges_are_kept_and_counted(&open);
    only_what_is_blocked_and_not_met_is_waiting(&open);
    pitfall_unique_keys_have_no_gaps_in_states(&open);
}

fn add(store: &mut impl Store, blocked: bool) -> TaskId {
    let task = store.insert(&new_task("true"), blocked, NOW);
    task.expect("insert").id
}

fn to(store: &mut impl Store, id: TaskId, state: State) {
    let task = store.task(id).expect("read").expect("there");
    let after = Task {
        state,
        ..task.clone()
    };
    store
        .save((task.state, task.attempt), &after)
        .expect("save");
}

fn edges_are_kept_and_counted<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let parents: Vec<_> = (0..3).map(|_| add(&mut store, false)).collect();
    let child = add(&mut store, true);
    store
        .link(child, parents[2], Wants::Any, true)
        .expect("link");
    store
        .link(child, parents[0], Wants::Ok, false)
        .expect("link");
    store
        .link(child, parents[1], Wants::Any, false)
        .expect("link");
    assert!(
        store.link(child, parents[1], Wants::Ok, false).is_err(),
        "one edge between two"
    );
    to(&mut store, parents[0], State::Running);
    store.commit().expect("commit");
    let mut store = open();
    let links = store.parents(child).expect("read");
    let seen: Vec<_> = links
        .iter()
        .map(|link| (link.parent, link.wants, link.met))
        .collect();
    let wanted = [
        (parents[0], Wants::Ok, false),
        (parents[1], Wants::Any, false),
        (parents[2], Wants::Any, true),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(links[0].state, Some(State::Running));
    assert_eq!(store.children(parents[1], 9).expect("read"), [child]);
    assert_eq!(store.children(parents[1], 0).expect("read"), []);
    assert_eq!(store.count_children(parents[1]).expect("read"), 1);
    assert_eq!(store.count_children(child).expect("read"), 0);
    let held = Held {
        parent: parents[0],
        state: Some(State::Running),
        more: 1,
    };
    assert_eq!(store.held_by(child).expect("read"), Some(held));
    store.begin().expect("begin");
    for parent in &parents {
        assert!(store.is_held(child).expect("read") || *parent == parents[2]);
        store.set_met(child, *parent, true).expect("save");
    }
    assert!(!store.is_held(child).expect("read"));
    assert_eq!(store.held_by(child).expect("read"), None);
    store.set_met(child, parents[0], false).expect("save");
    assert!(store.is_held(child).expect("read"), "and it waits again");
    store.commit().expect("commit");
}

fn only_what_is_blocked_and_not_met_is_waiting<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let parent = add(&mut store, false);
    let children: Vec<_> = (0..4).map(|_| add(&mut store, true)).collect();
    for child in &children {
        store.link(*child, parent, Wants::Ok, false).expect("link");
    }
    store.set_met(children[1], parent, true).expect("save");
    to(&mut store, children[2], State::Cancelled);
    store.commit().expect("commit");
    let wanted = [(children[0], Wants::Ok), (children[3], Wants::Ok)];
    assert_eq!(store.waiting(parent).expect("read"), wanted);
    assert_eq!(store.waiting(children[0]).expect("read"), []);
}

fn pitfall_unique_keys_have_no_gaps_in_states<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let new = NewTask {
        unique: Some(Unique {
            key: "k".to_owned(),
            on_conflict: Conflict::Reject,
        }),
        ..new_task("true")
    };
    let first = store.insert(&new, false, NOW).expect("insert").id;
    let holder = |store: &mut S, owner| store.unique_holder(owner, "k").expect("read");
    assert_eq!(holder(&mut store, 1000), Some(first));
    assert_eq!(
        holder(&mut store, 2000),
        None,
        "each owner has keys of their own"
    );
    assert!(store.insert(&new, false, NOW).is_err(), "never two");
    // Others lost uniqueness in the states that their list had left out.
    for state in State::ALL {
        to(&mut store, first, state);
        let wanted = (!state.is_terminal()).then_some(first);
        assert_eq!(holder(&mut store, 1000), wanted, "{state}");
    }
    let second = store.insert(&new, false, NOW).expect("insert").id;
    assert_eq!(holder(&mut store, 1000), Some(second));
    store.release_unique(second).expect("release");
    assert_eq!(holder(&mut store, 1000), None);
    assert_eq!(
        store.task(second).expect("read").expect("there").unique,
        None
    );
    store.commit().expect("commit");
}

#[test]
fn sqlite_conforms_about_edges_and_unique_keys() {
    let dir = tempfile::tempdir().expect("directory");
    conforms(|| Sqlite::open(dir.path(), &options()).expect("open"));
}
