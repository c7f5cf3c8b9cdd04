//! What every backend must do with the hooks of queues.

use taskdaemon::model::hook::{Act, End, Ends, Hook};
use taskdaemon::store::Store;
use taskdaemon::store::sqlite::Sqlite;

use crate::store::options;

fn some() -> Vec<Hook> {
    let command = Act::Command(vec!["notify".to_owned(), "a b".to_owned()]);
    let webhook = Act::Webhook("https://example.org/x".to_owned());
    let on = Ends(vec![End::Failed]);
    vec![
        Hook { on, act: command },
        Hook {
            on: Ends::default(),
            act: webhook,
        },
    ]
}

fn conforms<S: Store>(open: impl Fn() -> S) {
    let mut store = open();
    assert_eq!(store.queue_hooks("q").expect("read"), []);
    store.begin().expect("begin");
    store.set_queue_hooks("q", &some()).expect("save");
    drop(store);
    let mut store = open();
    assert_eq!(store.queue_hooks("q").expect("read"), [], "not committed");
    store.begin().expect("begin");
    store.set_queue_hooks("q", &some()).expect("save");
    store.commit().expect("commit");
    drop(store);
    let mut store = open();
    assert_eq!(store.queue_hooks("q").expect("read"), some());
    assert_eq!(store.queue_hooks("other").expect("read"), []);
    store.begin().expect("begin");
    store.set_queue_hooks("q", &[]).expect("save");
    store.commit().expect("commit");
    assert_eq!(store.queue_hooks("q").expect("read"), []);
}

#[test]
fn the_embedded_store_keeps_hooks_of_queues() {
    let dir = tempfile::tempdir().expect("directory");
    conforms(|| Sqlite::open(dir.path(), &options()).expect("open"));
}

#[test]
fn hooks_of_a_queue_are_found_by_its_name() {
    let dir = tempfile::tempdir().expect("directory");
    drop(Sqlite::open(dir.path(), &options()).expect("open"));
    let file = rusqlite::Connection::open(dir.path().join("taskdaemon.db")).expect("open");
    let sql = "EXPLAIN QUERY PLAN SELECT id, hooks FROM queue WHERE name = 'q'";
    let plan: String = file
        .query_row(sql, [], |row| row.get("detail"))
        .expect("a plan");
    assert!(plan.starts_with("SEARCH queue USING INDEX"), "{plan}");
}
