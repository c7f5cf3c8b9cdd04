//! The conformance suite of [`Calls`]: what every backend must keep of calls of models.

use std::path::Path;

use taskdaemon::model::attempt::{Attempt, AttemptKey, Class, Outcome, Usage};
use taskdaemon::model::budget::{Cap, Day, Name, Purse, Sum};
use taskdaemon::model::gauge::Gauge;
use taskdaemon::model::id::TaskId;
use taskdaemon::model::ledger::{Call, Over, Spent};
use taskdaemon::model::limit::{Limits, Tokens};
use taskdaemon::model::price::Money;
use taskdaemon::model::receipt::End;
use taskdaemon::model::time::Time;
use taskdaemon::store::Store;
use taskdaemon::store::sqlite::Sqlite;

use crate::store::{new_task, options};

fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

fn call(task: TaskId, seconds: i64) -> Call {
    Call {
        id: 0,
        relayed: false,
        key: AttemptKey { task, number: 1 },
        owner: 1001,
        model: "chat".to_owned(),
        gauge: "one/m-1".to_owned(),
        at: at(seconds),
        taken: Tokens {
            input: 10,
            output: 100,
        },
        estimate: Some(Money::from_micros(50)),
        held: 110,
        purses: vec![
            Name::of_user(1001, Day::of(at(seconds))),
            Name::of_task(task),
        ],
        over: None,
    }
}

fn over(seconds: i64, end: Option<End>, used: Option<Tokens>, cost: u64) -> Over {
    Over {
        at: at(seconds),
        end,
        used,
        cost: Some(Money::from_micros(cost)),
    }
}

/// A task with a live first attempt that makes a call.
fn begin(store: &mut impl Store, seconds: i64) -> Call {
    let task = store
        .insert(&new_task("true"), false, at(seconds))
        .expect("insert");
    let made = call(task.id, seconds);
    store
        .begin_attempt(&Attempt {
            key: made.key,
            runner: "runner".to_owned(),
            boot: "boot".to_owned(),
            claimed: at(seconds),
            started: None,
            ended: None,
            outcome: None,
            usage: Usage::default(),
        })
        .expect("begin an attempt");
    let id = store.begin_call(&made).expect("begin a call");
    Call { id, ..made }
}

/// Runs every check against one kind of store. `anew` opens the same data anew.
fn conforms<S: Store>(anew: impl Fn() -> S) {
    a_gauge_is_kept_under_its_name(&anew);
    a_call_is_kept_and_ends_once(&anew);
    only_calls_of_live_attempts_run(&anew);
    relayed_calls_run_until_they_are_ended(&anew);
    sums_are_by_model_since_a_time(&anew);
    old_calls_are_dropped_in_steps(&anew);
    purses_are_kept_with_their_limits(&anew);
}

fn a_gauge_is_kept_under_its_name<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    let limits = Limits {
        requests: serde_json::from_str("\"60/1m\"").expect("a quota"),
        ..Limits::default()
    };
    let mut gauge = Gauge::default();
    gauge.refill(&limits, at(5));
    store
        .save_gauge("one/m-1", &Gauge::default())
        .expect("save");
    store.save_gauge("one/m-1", &gauge).expect("save again");
    store.commit().expect("commit");
    let kept = anew().gauges().expect("read");
    assert_eq!(kept, [("one/m-1".to_owned(), gauge)]);
}

fn a_call_is_kept_and_ends_once<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    let made = begin(&mut store, 10);
    assert_eq!(store.call(made.key).expect("read"), Some(made.clone()));
    assert_eq!(
        store.call_numbered(made.id).expect("read"),
        Some(made.clone())
    );
    let used = Tokens {
        input: 7,
        output: 2,
    };
    let first = over(11, Some(End::Answered), Some(used), 9);
    store.end_call(made.id, &first).expect("end");
    store
        .end_call(made.id, &over(12, None, None, 50))
        .expect("again");
    store.commit().expect("commit");
    let expected = Call {
        over: Some(first),
        ..made.clone()
    };
    let mut store = anew();
    assert_eq!(store.call(made.key).expect("read"), Some(expected.clone()));
    assert_eq!(store.calls(made.key.task, 9).expect("read"), [expected]);
    assert_eq!(store.calls(TaskId(9_999), 9).expect("read"), []);
}

fn only_calls_of_live_attempts_run<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    let count = |store: &mut S, after| store.running_calls("one/m-1", after).expect("count");
    let before = count(&mut store, at(0)).calls;
    let (early, late) = (begin(&mut store, 20), begin(&mut store, 30));
    assert_eq!(count(&mut store, at(0)).calls, before + 2);
    let others = count(&mut store, early.at);
    assert_eq!((others.calls, others.tokens), (1, late.taken));
    assert_eq!(
        store.running_calls("two/m-1", at(0)).expect("count").calls,
        0
    );
    // Its attempt is over, though nobody has said what became of the call.
    let outcome = Outcome {
        class: Class::Lost,
        exit_code: None,
        signal: None,
        message: String::new(),
    };
    store
        .end_attempt(late.key, None, at(31), &outcome, &Usage::default())
        .expect("end");
    assert_eq!(count(&mut store, at(0)).calls, before + 1);
    store
        .end_call(early.id, &over(32, None, None, 50))
        .expect("end");
    assert_eq!(count(&mut store, at(0)).calls, before);
    store.commit().expect("commit");
}

fn relayed_calls_run_until_they_are_ended<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    let count = |store: &mut S| store.running_calls("relay/m", at(0)).expect("count").calls;
    let relayed = |seconds| Call {
        relayed: true,
        gauge: "relay/m".to_owned(),
        ..call(TaskId(7_777), seconds)
    };
    let ids: Vec<_> = (0..3)
        .map(|n| store.begin_call(&relayed(40 + n)).expect("begin"))
        .collect();
    assert_eq!(count(&mut store), 3, "its attempt need not be known");
    assert_eq!(
        store.call(relayed(40).key).expect("read"),
        None,
        "no call of its own"
    );
    let latest = store.calls(TaskId(7_777), 2).expect("read");
    let latest: Vec<_> = latest.iter().map(|call| call.id).collect();
    assert_eq!(latest, ids[1..]);
    let end = over(44, Some(End::Answered), None, 1);
    store.end_call(ids[0], &end).expect("end");
    assert_eq!(count(&mut store), 2);
    let open = store.open_relayed_calls().expect("read");
    let open: Vec<_> = open.iter().map(|call| call.id).collect();
    assert_eq!(open, ids[1..]);
    for id in open {
        store.end_call(id, &over(45, None, None, 50)).expect("end");
    }
    assert_eq!(count(&mut store), 0);
    store.commit().expect("commit");
}

fn sums_are_by_model_since_a_time<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    let used = Tokens {
        input: 7,
        output: 2,
    };
    for (seconds, end) in [
        (1_000, Some(over(1_001, Some(End::Answered), Some(used), 9))),
        (1_002, Some(over(1_003, None, None, 50))),
        (1_004, None),
    ] {
        let made = begin(&mut store, seconds);
        if let Some(end) = end {
            store.end_call(made.id, &end).expect("end");
        }
    }
    store.commit().expect("commit");
    let expected = Spent {
        model: "chat".to_owned(),
        calls: 3,
        tokens: used,
        cost: Money::from_micros(9 + 50 + 50),
        unknown: 1,
    };
    let mut store = anew();
    assert_eq!(store.spent_since(at(1_000)).expect("sum"), [expected]);
    assert_eq!(store.spent_since(at(2_000)).expect("sum"), []);
}

fn old_calls_are_dropped_in_steps<S: Store>(anew: impl Fn() -> S) {
    let mut store = anew();
    store.begin().expect("begin");
    let live = begin(&mut store, -100);
    let old: Vec<_> = (0..3).map(|n| begin(&mut store, n - 90)).collect();
    for call in &old {
        store
            .end_call(call.id, &over(-80, None, None, 1))
            .expect("end");
    }
    assert_eq!(store.drop_calls(at(-50), 2).expect("drop"), 2);
    assert_eq!(store.drop_calls(at(-50), 2).expect("drop"), 1);
    assert_eq!(store.drop_calls(at(-50), 2).expect("drop"), 0);
    assert!(
        store.call(live.key).expect("read").is_some(),
        "it is not over"
    );
    store.commit().expect("commit");
}

fn purses_are_kept_with_their_limits<S: Store>(anew: impl Fn() -> S) {
    let sum = |tokens, micros| Sum {
        tokens,
        cost: Money::from_micros(micros),
    };
    let purse = Purse {
        spent: sum(1, 2),
        held: sum(3, 4),
    };
    let cap = Cap {
        tokens: None,
        cost: Some(Money::from_micros(9)),
    };
    let (batch, user) = (Name::of_batch(7, "b"), Name::of_user(7, Day::of(at(0))));
    let mut store = anew();
    store.begin().expect("begin");
    let none = (Purse::default(), Cap::default());
    assert_eq!(store.purse(&batch).expect("read"), none);
    // In either order, and neither touches the other.
    store.cap_purse(&batch, cap, at(-200)).expect("limit");
    store.save_purse(&batch, &purse, at(-200)).expect("save");
    store.save_purse(&user, &purse, at(-200)).expect("save");
    store.commit().expect("commit");
    let mut store = anew();
    assert_eq!(store.purse(&batch).expect("read"), (purse, cap));
    assert_eq!(store.purse(&user).expect("read"), (purse, Cap::default()));
    store.begin().expect("begin");
    let more = Purse {
        spent: sum(4, 6),
        held: Sum::default(),
    };
    store.save_purse(&batch, &more, at(-200)).expect("save");
    assert_eq!(store.purse(&batch).expect("read"), (more, cap));
    // Those of a day go with the calls, the others a year later.
    assert_eq!(store.drop_calls(at(-150), 9).expect("drop"), 1);
    assert_eq!(store.purse(&user).expect("read"), none);
    assert_eq!(store.purse(&batch).expect("read"), (more, cap));
    let year = 366 * 24 * 3600;
    store.drop_calls(at(year - 201), 99).expect("drop");
    assert_eq!(store.purse(&batch).expect("read"), (more, cap));
    store.drop_calls(at(year - 199), 99).expect("drop");
    assert_eq!(store.purse(&batch).expect("read"), none);
    store.commit().expect("commit");
}

#[test]
fn sqlite_keeps_calls_as_every_backend_must() {
    let dir = tempfile::tempdir().expect("directory");
    let open = |dir: &Path| Sqlite::open(dir, &options()).expect("open");
    conforms(|| open(dir.path()));
}
