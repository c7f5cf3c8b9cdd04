//! Retention turn by turn, with invented time: what a step may cost, what
//! stays, and when the next one is due.

use std::time::Duration;

use taskdaemon::engine::Engine;
use taskdaemon::engine::options::Options;
use taskdaemon::engine::retention;
use taskdaemon::model::bound::{Age, Bound};
use taskdaemon::model::task::State;
use taskdaemon::model::time::Time;
use taskdaemon::store::Store as _;
use taskdaemon::store::record::Record as _;
use taskdaemon::store::sqlite::Sqlite;

use crate::store::{new_task, options};
use crate::store_record::ended;

const fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

const NOW: Time = at(1_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// An engine over so many tasks that are over, one a second, oldest first.
fn engine(dir: &std::path::Path, over: i64) -> Engine<Sqlite> {
    let mut store = Sqlite::open(dir, &options()).expect("open");
    store.begin().expect("begin");
    for n in 0..over {
        ended(&mut store, "q", at(n), State::Succeeded, 10);
    }
    store
        .insert(&new_task("true"), false, at(1))
        .expect("insert");
    store.commit().expect("commit");
    Engine::new(store, Options::default(), "boot".to_owned())
}

fn left(engine: &mut Engine<Sqlite>) -> u64 {
    engine.store().tally()[6]
}

/// Cleaners that take a large table in one go time out, and then never get
/// anywhere: one step is small, whatever is behind it, and the next one follows
/// at once.
#[test]
fn cleaners_of_big_tables_go_in_small_steps_one_after_the_other() {
    let dir = tempfile::tempdir().expect("directory");
    let mut engine = engine(dir.path(), 2_300);
    engine.retain(retention::Options {
        task_count: Bound::Most(100),
        ..retention::Options::keep_all()
    });
    let (mut before, mut turns) = (left(&mut engine), 0);
    loop {
        let turned = engine.turn(Vec::new(), NOW).expect("turn");
        let now_left = left(&mut engine);
        assert!(before - now_left <= 500, "{before} to {now_left}");
        assert_eq!(turned.effects.len() as u64, before - now_left, "files too");
        (before, turns) = (now_left, turns + 1);
        let next = turned.next.expect("retention goes on");
        if next > NOW {
            assert_eq!(next, NOW.after(MINUTE), "and then it rests");
            break;
        }
    }
    assert_eq!((left(&mut engine), turns), (100, 5));
    assert_eq!(
        engine.store().tally()[2],
        1,
        "what waits is no business of it"
    );
}

/// A walk that looks at the same rows again because it may not touch them
/// never gets to those that it may.
#[test]
fn rows_that_have_to_stay_do_not_starve_the_walk() {
    let dir = tempfile::tempdir().expect("directory");
    let mut engine = engine(dir.path(), 1_250);
    let raw = rusqlite::Connection::open(dir.path().join("taskdaemon.db")).expect("open");
    // The task behind them waits for the oldest 1200.
    let sql = "INSERT INTO edge (child, parent, wants) \
               SELECT (SELECT max(id) FROM task), id, 1 FROM task ORDER BY id LIMIT 1200";
    assert_eq!(raw.execute(sql, []).expect("edges"), 1_200);
    drop(raw);
    engine.retain(retention::Options {
        task_age: Bound::Most(Age(Duration::from_secs(60))),
        ..retention::Options::keep_all()
    });
    for _ in 0..10 {
        drop(engine.turn(Vec::new(), NOW).expect("turn"));
    }
    assert_eq!(left(&mut engine), 1_200, "those that a task depends on");
    let raw = rusqlite::Connection::open(dir.path().join("taskdaemon.db")).expect("open");
    raw.execute("DELETE FROM edge", []).expect("no edges");
    drop(raw);
    let soon = NOW.after(MINUTE);
    for _ in 0..10 {
        drop(engine.turn(Vec::new(), soon).expect("turn"));
    }
    assert_eq!(left(&mut engine), 0, "and nothing is forgotten");
}

#[test]
fn age_counts_from_the_end_and_a_clock_set_back_puts_nothing_off() {
    let dir = tempfile::tempdir().expect("directory");
    let mut engine = engine(dir.path(), 20);
    engine.retain(retention::Options {
        task_age: Bound::Most(Age(Duration::from_secs(100))),
        ..retention::Options::keep_all()
    });
    // A day ahead of what follows: nothing is younger than that.
    let day = Duration::from_secs(86_400);
    engine.retain(retention::Options {
        task_age: Bound::Most(Age(day * 2)),
        ..retention::Options::keep_all()
    });
    drop(engine.turn(Vec::new(), at(86_400)).expect("turn"));
    assert_eq!(left(&mut engine), 20);
    let turned = engine.turn(Vec::new(), at(110)).expect("turn");
    assert_eq!(
        turned.next,
        Some(at(110).after(MINUTE)),
        "a minute, not a day"
    );
    engine.retain(retention::Options {
        task_age: Bound::Most(Age(Duration::from_secs(100))),
        ..retention::Options::keep_all()
    });
    drop(engine.turn(Vec::new(), at(110)).expect("turn"));
    assert_eq!(left(&mut engine), 10, "those that ended before second 10");
}

#[test]
fn output_goes_by_its_own_age_and_the_task_stays() {
    let dir = tempfile::tempdir().expect("directory");
    let mut engine = engine(dir.path(), 700);
    assert_eq!(engine.store().output(), 7_000);
    engine.retain(retention::Options {
        output_age: Bound::Most(Age(Duration::from_secs(100))),
        ..retention::Options::keep_all()
    });
    let mut erased = 0;
    for _ in 0..3 {
        let turned = engine.turn(Vec::new(), at(800)).expect("turn");
        assert!(turned.effects.len() <= 500);
        erased += turned.effects.len();
    }
    assert_eq!(erased, 700);
    assert_eq!(engine.store().output(), 0);
    assert_eq!(left(&mut engine), 700);
}

#[test]
fn what_is_kept_for_ever_costs_no_turn() {
    let dir = tempfile::tempdir().expect("directory");
    let mut engine = engine(dir.path(), 3);
    let turned = engine.turn(Vec::new(), NOW).expect("turn");
    assert_eq!(turned.next, None, "nothing is due");
    assert_eq!(left(&mut engine), 3);
}
