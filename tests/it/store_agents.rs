//! What any store has to do with agents.

use std::sync::Arc;

use taskdaemon::model::agent::life::Life;
use taskdaemon::model::agent::plan::{NewAgent, Plan};
use taskdaemon::model::time::Time;
use taskdaemon::store::Store;
use taskdaemon::store::agents::Agents as _;
use taskdaemon::store::sqlite::Sqlite;

use crate::store::options;

fn new(owner: u32, name: &str) -> NewAgent {
    NewAgent {
        owner,
        name: name.to_owned(),
        plan: Plan {
            max_restarts: 9,
            ..Plan::default()
        },
    }
}

/// Agents are kept with their instances in order, over a reopened store.
fn conforms<S: Store>(open: impl Fn() -> S) {
    let now = Time::from_micros(5);
    let mut store = open();
    store.begin().expect("begin");
    let mut first = store.add_agent(&new(1, "a"), now).expect("add");
    let second = store.add_agent(&new(2, "a"), now).expect("another owner's");
    assert!(first.id < second.id);
    let lives: Vec<_> = (0..12).map(|n| Life::new(Time::from_micros(n))).collect();
    for (instance, life) in (1..=12).rev().zip(lives.iter().rev()) {
        store.save_life(first.id, instance, life).expect("save");
    }
    store.save_life(first.id, 3, &lives[2]).expect("again");
    store.commit().expect("commit");
    drop(store);

    let mut store = open();
    first.lives.clone_from(&lives);
    let (agents, faults) = store.agents().expect("agents");
    assert!(faults.is_empty());
    assert_eq!(agents, [first.clone(), second.clone()]);
    store.begin().expect("begin");
    assert!(store.add_agent(&new(1, "a"), now).is_err(), "a name twice");
    first.removed = true;
    first.plan = Arc::new(Plan::default());
    store.save_agent(&first).expect("save");
    store.drop_life(first.id, 12).expect("drop");
    first.lives.pop();
    store.drop_agent(second.id).expect("drop");
    store.commit().expect("commit");
    assert_eq!(store.agents().expect("agents").0, [first.clone()]);
    store.begin().expect("begin");
    store.drop_agent(first.id).expect("drop");
    let third = store.add_agent(&new(1, "a"), now).expect("add");
    assert!(third.id > second.id, "no number twice");
    store.commit().expect("commit");
    assert_eq!(store.agents().expect("agents").0, [third]);
}

#[test]
fn sqlite_keeps_agents_as_every_backend_must() {
    let dir = tempfile::tempdir().expect("directory");
    conforms(|| Sqlite::open(dir.path(), &options()).expect("open"));
}

#[test]
fn a_damaged_agent_is_told_of_and_the_others_are_read() {
    let dir = tempfile::tempdir().expect("directory");
    let mut store = Sqlite::open(dir.path(), &options()).expect("open");
    let now = Time::from_micros(5);
    store.begin().expect("begin");
    for name in ["a", "b", "c"] {
        let agent = store.add_agent(&new(1, name), now).expect("add");
        store.save_life(agent.id, 1, &Life::new(now)).expect("save");
        store.save_life(agent.id, 2, &Life::new(now)).expect("save");
    }
    store.commit().expect("commit");
    drop(store);
    let file = rusqlite::Connection::open(dir.path().join("taskdaemon.db")).expect("open");
    let damage = "UPDATE agent SET plan = '{' WHERE name = 'b'; \
                  UPDATE life SET state = 'x' WHERE agent = 3 AND instance = 1";
    file.execute_batch(damage).expect("damage");
    drop(file);
    let mut store = Sqlite::open(dir.path(), &options()).expect("open");
    let (agents, faults) = store.agents().expect("agents");
    let names: Vec<_> = agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(agents[1].lives, [Life::default(), Life::new(now)]);
    let said: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("agent 2"), "{said:?}");
}
