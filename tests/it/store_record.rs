//! The conformance suite of the record's side of the store, written against
//! the trait: events, removal, walks by filter, and the repair of rows.

use std::path::Path;

use taskdaemon::model::attempt::{Attempt, AttemptKey, Class, Outcome, Usage};
use taskdaemon::model::event::{Event, Kind, Wanted};
use taskdaemon::model::filter::{Filter, Selection, Window};
use taskdaemon::model::id::TaskId;
use taskdaemon::model::spec::NewTask;
use taskdaemon::model::task::{State, Task};
use taskdaemon::model::time::Time;
use taskdaemon::store::record::{Over, Record as _};
use taskdaemon::store::sqlite::Sqlite;
use taskdaemon::store::{Error, Store};

use crate::store::{new_task, options};

const fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

const START: (Time, TaskId) = (Time::from_micros(i64::MIN), TaskId(0));

fn conforms<S: Store>(open: impl Fn() -> S) {
    events_come_in_order_and_filtered(&mut open());
    a_page_of_events_says_how_far_it_looked(&mut open());
    the_oldest_events_go_first_and_leave_no_hole(&mut open());
    what_is_over_comes_in_the_order_of_its_end(&mut open());
    a_task_goes_with_all_that_is_its_own(&open);
    output_is_counted_once_and_taken_away_once(&open);
    a_walk_by_filter_sees_each_task_once(&mut open());
}

fn outcome(class: Class) -> Outcome {
    Outcome {
        class,
        exit_code: Some(7),
        signal: None,
        message: "for a test".to_owned(),
    }
}

fn add(store: &mut impl Store, new: &NewTask) -> Task {
    store.insert(new, false, at(100)).expect("insert")
}

/// A task of this queue that ended then, with so much output.
pub(crate) fn ended(
    store: &mut impl Store,
    queue: &str,
    then: Time,
    state: State,
    output: u64,
) -> Task {
    let new = NewTask {
        queue: queue.to_owned(),
        ..new_task("true")
    };
    let task = add(store, &new);
    let key = AttemptKey {
        task: task.id,
        number: 1,
    };
    let attempt = Attempt {
        key,
        runner: "r".to_owned(),
        boot: "b".to_owned(),
        claimed: then,
        started: None,
        ended: None,
        outcome: None,
        usage: Usage::default(),
    };
    store.begin_attempt(&attempt).expect("begin attempt");
    let usage = Usage {
        output_kept: output,
        ..Usage::default()
    };
    let why = outcome(Class::Exit);
    store
        .end_attempt(key, None, then, &why, &usage)
        .expect("end attempt");
    let over = Task {
        state,
        attempt: 1,
        ended: Some(then),
        outcome: Some(why),
        ..task.clone()
    };
    store.save((task.state, 0), &over).expect("save");
    over
}

fn event(store: &mut impl Store, task: i64, owner: u32, queue: &str, kind: Kind, when: Time) {
    let event = Event {
        at: when,
        task: TaskId(task),
        attempt: 0,
        kind,
        actor: Some(owner),
        origin: taskdaemon::model::origin::Origin::NONE,
        owner,
        queue: queue.to_owned(),
        data: Some("{\"name\":\"n\"}".to_owned()),
    };
    store.record(&event).expect("record");
}

fn events_come_in_order_and_filtered(store: &mut impl Store) {
    store.begin().expect("begin");
    let before = store.last_event();
    event(store, 1, 10, "a", Kind::Submitted, at(1));
    event(store, 2, 20, "b%", Kind::Submitted, at(2));
    event(store, 1, 10, "a", Kind::Changed(State::Failed), at(3));
    store.commit().expect("commit");
    let mut seqs = |change: fn(&mut Wanted)| -> Vec<i64> {
        let mut wanted = Wanted {
            after: before,
            limit: 100,
            ..Wanted::default()
        };
        change(&mut wanted);
        let page = store.events(&wanted).expect("read");
        page.entries
            .iter()
            .map(|entry| entry.seq - before)
            .collect()
    };
    assert_eq!(seqs(|_| {}), [1, 2, 3]);
    assert_eq!(seqs(|wanted| wanted.after += 1), [2, 3]);
    assert_eq!(seqs(|wanted| wanted.limit = 2), [1, 2]);
    assert_eq!(seqs(|wanted| wanted.owner = Some(20)), [2]);
    assert_eq!(seqs(|wanted| wanted.owner = Some(30)), [0; 0]);
    assert_eq!(seqs(|wanted| wanted.task = Some(TaskId(1))), [1, 3]);
    assert_eq!(seqs(|wanted| wanted.queue = Some("b%".to_owned())), [2]);
    assert_eq!(seqs(|wanted| wanted.queue = Some("%".to_owned())), [0; 0]);
    assert_eq!(seqs(|wanted| wanted.kinds = vec!["failed".to_owned()]), [3]);
    assert_eq!(
        seqs(|wanted| wanted.kinds = vec!["' OR 1=1 --".to_owned()]),
        [0; 0]
    );
    assert_eq!(seqs(|wanted| wanted.actor = Some(20)), [2]);
    assert_eq!(seqs(|wanted| wanted.since = Some(at(2))), [2, 3]);
    assert_eq!(seqs(|wanted| wanted.request = Some("r".to_owned())), [0; 0]);
    let newest = |wanted: &mut Wanted| (wanted.before, wanted.limit) = (Some(i64::MAX), 2);
    assert_eq!(seqs(newest), [3, 2]);
    let page = store.events(&Wanted {
        after: before,
        limit: 1,
        ..Wanted::default()
    });
    let entry = page.expect("read").entries.remove(0);
    assert_eq!((entry.task, entry.at), (TaskId(1), at(1)));
    assert_eq!((entry.queue.as_deref(), entry.actor), (Some("a"), Some(10)));
    assert_eq!(entry.data.as_deref(), Some("{\"name\":\"n\"}"));
}

/// Unbounded answers are what takes readers of long records down.
fn a_page_of_events_says_how_far_it_looked(store: &mut impl Store) {
    store.begin().expect("begin");
    let before = store.last_event();
    for _ in 0..25_000 {
        event(store, 1, 10, "a", Kind::Submitted, at(1));
    }
    event(store, 77, 10, "a", Kind::Submitted, at(1));
    store.commit().expect("commit");
    let mut wanted = Wanted {
        after: before,
        task: Some(TaskId(77)),
        limit: 10,
        ..Wanted::default()
    };
    let mut pages = 0;
    let found = loop {
        let page = store.events(&wanted).expect("read");
        pages += 1;
        assert!(page.reached > wanted.after, "each page gets on");
        wanted.after = page.reached;
        if let Some(entry) = page.entries.first() {
            break entry.seq;
        }
    };
    assert_eq!(found, before + 25_001);
    assert!(pages > 1, "not all of it at once");
    let page = store.events(&wanted).expect("read");
    assert_eq!((page.entries.len(), page.reached), (0, page.last));
    // From the other end, what is far back is come to as well, and then the end.
    let mut wanted = Wanted {
        before: Some(i64::MAX),
        task: Some(TaskId(77)),
        limit: 10,
        ..Wanted::default()
    };
    let page = store.events(&wanted).expect("read");
    assert_eq!(page.entries.first().map(|entry| entry.seq), Some(found));
    wanted.before = Some(found);
    let mut pages = 0;
    loop {
        let page = store.events(&wanted).expect("read");
        pages += 1;
        assert!(page.entries.is_empty(), "{page:?}");
        assert!(Some(page.reached) < wanted.before, "each page gets on");
        if page.reached <= page.oldest {
            break;
        }
        wanted.before = Some(page.reached);
    }
    assert!(pages > 2, "not all of it at once: {pages}");
}

fn the_oldest_events_go_first_and_leave_no_hole(store: &mut impl Store) {
    store.begin().expect("begin");
    while store.drop_events(i64::MAX - 1, None, 10_000).expect("drop") > 0 {}
    let before = store.last_event();
    let page = store.events(&Wanted::default()).expect("read");
    assert_eq!(page.oldest, before + 1, "none is kept");
    // The clock was set back in the middle.
    for seconds in [10, 20, 5, 40, 1] {
        event(store, 1, 10, "a", Kind::Submitted, at(seconds));
    }
    assert_eq!(store.drop_events(0, Some(at(15)), 100).expect("drop"), 1);
    assert_eq!(
        store.drop_events(0, Some(at(15)), 100).expect("drop"),
        0,
        "what is behind a young one stays with it"
    );
    assert_eq!(store.drop_events(before + 3, None, 1).expect("drop"), 1);
    assert_eq!(store.drop_events(before + 3, None, 100).expect("drop"), 1);
    assert_eq!(store.drop_events(before + 3, None, 100).expect("drop"), 0);
    store.commit().expect("commit");
    let page = store.events(&Wanted {
        limit: 100,
        ..Wanted::default()
    });
    let page = page.expect("read");
    assert_eq!((page.oldest, page.last), (before + 4, before + 5));
    assert_eq!(page.entries.len(), 2);
}

fn what_is_over_comes_in_the_order_of_its_end(store: &mut impl Store) {
    store.begin().expect("begin");
    let late = ended(store, "o", at(900), State::Failed, 0);
    let early = ended(store, "o", at(800), State::Succeeded, 0);
    let same = ended(store, "o", at(800), State::Expired, 0);
    let live = add(store, &new_task("true"));
    let ids = |found: &[Over]| -> Vec<TaskId> {
        let mine = found.iter().map(|over| over.id);
        mine.filter(|id| [late.id, early.id, same.id, live.id].contains(id))
            .collect()
    };
    let all = store.over(START, 1_000).expect("read");
    assert_eq!(ids(&all), [early.id, same.id, late.id]);
    let behind = store.over((at(800), early.id), 1_000).expect("read");
    assert_eq!(ids(&behind), [same.id, late.id]);
    assert_eq!(store.over(START, 1).expect("read").len(), 1);
    assert_eq!(store.one_over(live.id).expect("read"), None);
    let one = store.one_over(late.id).expect("read").expect("is over");
    assert_eq!((one.ended, one.attempt, one.wanted), (at(900), 1, false));
    store.commit().expect("commit");
}

fn a_task_goes_with_all_that_is_its_own<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    store.begin().expect("begin");
    let over = ended(&mut store, "gone", at(10), State::Cancelled, 50);
    let live = add(
        &mut store,
        &NewTask {
            stdin: Some(b"in".to_vec()),
            ..new_task("true")
        },
    );
    store.commit().expect("commit");
    let (tally, output) = (store.tally(), store.output());
    store.begin().expect("begin");
    assert!(
        matches!(store.remove(live.id), Err(Error::Fenced(id)) if id == live.id),
        "never one that is not over"
    );
    store.remove(over.id).expect("remove");
    assert!(matches!(store.remove(over.id), Err(Error::Fenced(_))));
    store.commit().expect("commit");
    assert_eq!(store.task(over.id).expect("read"), None);
    assert_eq!(store.attempts(over.id).expect("read"), []);
    assert_eq!(store.output(), output - 50);
    let mut wanted = tally;
    wanted[8] -= 1;
    assert_eq!(store.tally(), wanted);
    let last = store.last_task();
    let mut store = open();
    assert_eq!(store.tally(), wanted, "and after reopening");
    store.begin().expect("begin");
    let next = add(&mut store, &new_task("true"));
    assert!(next.id > last, "a number is never given twice");
}

fn output_is_counted_once_and_taken_away_once<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    let before = store.output();
    store.begin().expect("begin");
    let task = ended(&mut store, "out", at(10), State::Failed, 300);
    store.commit().expect("commit");
    assert_eq!(open().output(), before + 300);
    let range = (task.id, task.id);
    let kept = store.attempts_with_output(range.0, range.1).expect("read");
    assert_eq!(kept, [(task.id, 1)]);
    store.begin().expect("begin");
    assert_eq!(store.remove_output(task.id).expect("remove"), [1]);
    assert!(store.remove_output(task.id).expect("again").is_empty());
    store.commit().expect("commit");
    assert_eq!(open().output(), before);
    let kept = store.attempts_with_output(range.0, range.1).expect("read");
    assert_eq!(kept, []);
    let usage = &store.attempts(task.id).expect("read")[0].usage;
    assert_eq!((usage.output_kept, usage.output_dropped), (0, 300));
}

fn a_walk_by_filter_sees_each_task_once(store: &mut impl Store) {
    store.begin().expect("begin");
    let first = store.last_task();
    for n in 0..30 {
        let state = if n % 3 == 0 {
            State::Failed
        } else {
            State::Succeeded
        };
        ended(store, "walk", at(n), state, 0);
    }
    let until = store.last_task();
    ended(store, "walk", at(1), State::Failed, 0);
    let mut walk = |selection: &Selection, look, take| {
        let (mut after, mut ids, mut steps) = (first, Vec::new(), 0);
        loop {
            let window = Window {
                after,
                until,
                look,
                take,
            };
            let found = store.matching(selection, window).expect("read");
            assert!(found.ids.len() <= usize::try_from(take).expect("small"));
            ids.extend(found.ids);
            steps += 1;
            match found.reached {
                Some(reached) => after = reached,
                None => return (ids, steps),
            }
        }
    };
    let failed = Selection {
        states: vec![State::Failed],
        ..Selection::default()
    };
    let all: Vec<TaskId> = (0..10).map(|n| TaskId(first.0 + 1 + n * 3)).collect();
    for (look, take) in [(100, 100), (4, 100), (1, 1), (100, 3), (30, 10), (29, 10)] {
        let (ids, steps) = walk(&failed, look, take);
        assert_eq!(ids, all, "{look} {take}");
        assert!(steps <= 32, "{steps}");
    }
    let by = Selection {
        by: Some(at(6)),
        ..failed.clone()
    };
    assert_eq!(walk(&by, 7, 7).0, all[..3]);
    let class = |class| Selection {
        classes: vec![class],
        ..failed.clone()
    };
    assert_eq!(walk(&class(Class::Exit), 9, 9).0, all);
    assert_eq!(walk(&class(Class::Timeout), 9, 9).0, []);
    let label = Selection {
        labels: vec![("a".to_owned(), "b".to_owned())],
        ..failed
    };
    assert_eq!(walk(&label, 9, 9).0, []);
    store.commit().expect("commit");
}

#[test]
fn sqlite_keeps_the_record() {
    let dir = tempfile::tempdir().expect("directory");
    conforms(|| Sqlite::open(dir.path(), &options()).expect("open"));
}

/// Tasks with one damaged row each, one that is sound, and one that is over and
/// whose attempt is damaged.
fn with_damage(dir: &Path) -> (Sqlite, Vec<TaskId>, TaskId) {
    let mut store = Sqlite::open(dir, &options()).expect("open");
    store.begin().expect("begin");
    let ids: Vec<_> = (0..10)
        .map(|_| add(&mut store, &new_task("true")).id)
        .collect();
    let over = ended(&mut store, "default", at(10), State::Failed, 0);
    store.commit().expect("commit");
    drop(store);
    let raw = rusqlite::Connection::open(dir.join("taskdaemon.db")).expect("open");
    raw.pragma_update(None, "foreign_keys", false)
        .expect("pragma");
    for (id, damage) in ids.iter().zip([
        "spec = '{'",
        "state = 99",
        "labels = 'x'",
        "interruptions = '[[['",
        "owner = -5",
        "queue = 4711",
        "priority = 99999999999",
        // Readable, and another command or another one's.
        "spec = replace(spec, 'true', 'trve')",
        "owner = owner + 1",
    ]) {
        let sql = format!("UPDATE task SET {damage} WHERE id = ?1");
        assert_eq!(raw.execute(&sql, [id.0]).expect("damage"), 1, "{damage}");
    }
    raw.execute("UPDATE attempt SET outcome = '{'", [])
        .expect("damage");
    drop(raw);
    let store = Sqlite::open(dir, &options()).expect("open");
    (store, ids, over.id)
}

/// FI-10: the other rows are listed, and the damaged one is named.
#[test]
fn a_damaged_row_fails_no_listing_and_can_be_mended() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut store, ids, over) = with_damage(dir.path());
    let mut filter = Filter {
        limit: 4,
        ..Filter::default()
    };
    let (mut shown, mut damaged) = (Vec::new(), Vec::new());
    loop {
        let page = store.page(&filter).expect("a page");
        shown.extend(page.tasks.iter().map(|task| task.id));
        damaged.extend(page.damaged);
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    damaged.reverse();
    assert_eq!(shown, [over, ids[9]]);
    assert_eq!(damaged, ids[..9]);
    let by_label = Filter {
        label: Some(("a".to_owned(), "b".to_owned())),
        limit: 9,
        ..Filter::default()
    };
    assert_eq!(store.page(&by_label).expect("a page").tasks, []);
    store.begin().expect("begin");
    let why = outcome(Class::Poison);
    for id in damaged {
        store
            .quarantine(id, State::Failed, &why, at(200))
            .expect("mend");
        let task = store.task(id).expect("readable").expect("there");
        assert_eq!(
            (task.state, task.outcome),
            (State::Failed, Some(why.clone()))
        );
    }
    assert!(store.attempts(over).is_err(), "still damaged");
    store
        .quarantine(over, State::Failed, &why, at(200))
        .expect("mend");
    let attempts = store.attempts(over).expect("readable");
    assert_eq!(attempts[0].outcome, Some(why));
    let kept = store.task(over).expect("readable").expect("there");
    assert_eq!(kept.ended, Some(at(10)), "it was over before");
    store.commit().expect("commit");
    let mut tally = [0_u64; State::ALL.len()];
    tally[2] = 1;
    tally[7] = 10;
    assert_eq!(store.tally(), tally, "the books are right again");
}
