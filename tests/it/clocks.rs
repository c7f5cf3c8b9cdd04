//! A host whose clock is set: durations go on as they were, over restarts of the daemon too, and times stay times.

use std::path::Path;
use std::time::Duration;

use taskdaemon::engine::Engine;
use taskdaemon::engine::command::Command;
use taskdaemon::engine::effect::Effect;
use taskdaemon::engine::options::Options;
use taskdaemon::engine::runner::{Abilities, RunnerUp};
use taskdaemon::model::id::TaskId;
use taskdaemon::model::spec::NewTask;
use taskdaemon::model::task::State;
use taskdaemon::model::time::Time;
use taskdaemon::store::Store as _;
use taskdaemon::store::sqlite::Sqlite;
use tokio::sync::oneshot;

use crate::store::{new_task, options};

const HOUR: i64 = 3_600_000_000;
const YEARS: i64 = 10 * 365 * 24 * HOUR;

fn open(dir: &Path, boot: &str, now: Time) -> Engine<Sqlite> {
    let store = Sqlite::open(dir, &options()).expect("open");
    let mut engine = Engine::new(store, Options::default(), boot.to_owned());
    engine.recover(now).expect("recover");
    engine
}

fn at(micros: i64) -> Time {
    Time::from_micros(1_700_000_000_000_000 + micros)
}

fn runner_up(held: &[TaskId]) -> Command {
    let key = |task: &TaskId| taskdaemon::model::attempt::AttemptKey {
        task: *task,
        number: 1,
    };
    Command::RunnerUp(RunnerUp {
        instance: "one".to_owned(),
        boot: "boot".to_owned(),
        version: "1".to_owned(),
        pid: 1,
        abilities: Abilities::default(),
        policy: None,
        held: held.iter().map(key).collect(),
    })
}

/// A running task with a time limit of ten seconds.
fn running(engine: &mut Engine<Sqlite>) -> TaskId {
    let (reply, mut answer) = oneshot::channel();
    let mut new: NewTask = new_task("sleep");
    new.spec.timeout_ms = Some(10_000);
    let commands = vec![
        Command::ClockLead { lead: 500 },
        runner_up(&[]),
        Command::Submit {
            tasks: vec![new],
            reply,
        },
    ];
    engine.turn(commands, at(0)).expect("turn");
    answer.try_recv().expect("answered").expect("accepted")[0].id
}

fn state(engine: &mut Engine<Sqlite>, id: TaskId) -> State {
    engine.store().task(id).expect("read").expect("there").state
}

#[test]
fn fi_38_a_clock_that_is_set_moves_no_time_limit() {
    for by in [HOUR, -HOUR, YEARS, -YEARS, -1_500_000] {
        let dir = tempfile::tempdir().expect("directory");
        let mut engine = open(dir.path(), "boot", at(0));
        let id = running(&mut engine);
        let set = Command::ClockLead { lead: 500 + by };
        let turned = engine.turn(vec![set], at(9_000_000 + by)).expect("turn");
        assert_eq!(state(&mut engine, id), State::Running, "by {by}");
        let due = turned.next.expect("a deadline").since(at(9_000_000 + by));
        assert_eq!(due, Duration::from_secs(1), "by {by}");
        let turned = engine.turn(vec![], at(10_000_000 + by)).expect("turn");
        assert!(
            matches!(turned.effects[..], [Effect::Terminate(_)]),
            "by {by}: {:?}",
            turned.effects
        );
    }
}

#[test]
fn a_clock_that_was_set_while_no_daemon_ran_moves_no_time_limit() {
    let dir = tempfile::tempdir().expect("directory");
    let mut engine = open(dir.path(), "boot", at(0));
    let id = running(&mut engine);
    drop(engine);
    let now = at(5_000_000 + HOUR);
    let mut engine = open(dir.path(), "boot", now);
    let commands = vec![Command::ClockLead { lead: 500 + HOUR }, runner_up(&[id])];
    let turned = engine.turn(commands, now).expect("turn");
    assert_eq!(state(&mut engine, id), State::Running);
    let due = turned.next.expect("a deadline").since(now);
    assert_eq!(due, Duration::from_secs(5));
}

#[test]
fn another_boot_says_nothing_of_the_clock() {
    let dir = tempfile::tempdir().expect("directory");
    let mut engine = open(dir.path(), "boot", at(0));
    let (reply, mut answer) = oneshot::channel();
    let mut new = new_task("true");
    new.run_at = Some(at(HOUR));
    let submit = Command::Submit {
        tasks: vec![new],
        reply,
    };
    let commands = vec![Command::ClockLead { lead: 500 }, submit];
    engine.turn(commands, at(0)).expect("turn");
    let id = answer.try_recv().expect("answered").expect("accepted")[0].id;
    drop(engine);
    let mut engine = open(dir.path(), "another", at(1));
    let lead = 500 + YEARS;
    let turned = engine
        .turn(vec![Command::ClockLead { lead }], at(1))
        .expect("turn");
    assert_eq!(turned.next, Some(at(HOUR)));
    let set = Command::ClockLead { lead: lead - HOUR };
    let turned = engine.turn(vec![set], at(2)).expect("turn");
    assert_eq!(turned.next, Some(at(HOUR)), "a start time is a time");
    assert_eq!(state(&mut engine, id), State::Scheduled);
}
