//! Schedules in the engine: each nominal time makes one task, whatever happens to the clock and the process.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use taskdaemon::engine::command::{Caller, Command, Error};
use taskdaemon::engine::options::Options;
use taskdaemon::engine::schedules::{Ask, Called, Change, Changed};
use taskdaemon::engine::{Engine, Turned};
use taskdaemon::model::filter::Filter;
use taskdaemon::model::schedule::due::{Missed, Overlap};
use taskdaemon::model::schedule::plan::{NewSchedule, Rule, Schedule, Template};
use taskdaemon::model::spec::Spec;
use taskdaemon::model::task::{State, Task};
use taskdaemon::model::time::Time;
use taskdaemon::store::Store as _;
use taskdaemon::store::disk::{Room, Shortage};
use taskdaemon::store::schedules::Schedules as _;
use taskdaemon::store::sqlite::Sqlite;
use tokio::sync::oneshot;

use crate::store::options;

const CALLER: Caller = Caller {
    uid: 1000,
    admin: false,
    origin: taskdaemon::model::origin::Origin::NONE,
};
/// 2023-11-14 22:13:20 UTC.
const START: i64 = 1_700_000_000;

struct Bed {
    dir: tempfile::TempDir,
    engine: Engine<Sqlite>,
    now: Time,
    lead: i64,
}

fn open(dir: &Path, now: Time) -> Engine<Sqlite> {
    let store = Sqlite::open(dir, &options()).expect("open");
    let mut engine = Engine::new(store, Options::default(), "boot".to_owned());
    engine.recover(now).expect("recover");
    engine
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("directory");
        let now = Time::from_micros(START * 1_000_000);
        let engine = open(dir.path(), now);
        let mut bed = Self {
            dir,
            engine,
            now,
            lead: 7,
        };
        bed.turn(vec![]);
        bed
    }

    /// As after a crash.
    fn reopen(self) -> Self {
        let Self {
            dir,
            engine,
            now,
            lead,
        } = self;
        drop(engine);
        let engine = open(dir.path(), now);
        let mut bed = Self {
            dir,
            engine,
            now,
            lead,
        };
        bed.turn(vec![]);
        bed
    }

    /// One turn, and as many as it takes to do all that is due.
    fn turn(&mut self, commands: Vec<Command>) -> Turned {
        let mut all = vec![Command::ClockLead { lead: self.lead }];
        all.extend(commands);
        let mut turned = self.engine.turn(all, self.now).expect("turn");
        while turned.next.is_some_and(|next| next <= self.now) {
            turned = self.engine.turn(vec![], self.now).expect("turn");
        }
        turned
    }

    fn pass(&mut self, seconds: u64) -> Turned {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.turn(vec![])
    }

    /// Sets the clock.
    fn set(&mut self, seconds: i64) -> Turned {
        self.now = Time::from_micros(self.now.micros() + seconds * 1_000_000);
        self.lead += seconds * 1_000_000;
        self.turn(vec![])
    }

    fn add(&mut self, new: NewSchedule) -> Schedule {
        self.try_add(new, false).expect("added")
    }

    fn try_add(&mut self, new: NewSchedule, replace: bool) -> Result<Schedule, Error> {
        let (reply, mut answer) = oneshot::channel();
        let new = Box::new(new);
        self.turn(vec![Command::Schedule(Ask::Add {
            new,
            replace,
            reply,
        })]);
        let answer = answer.try_recv().expect("answered in its turn");
        answer.map(|changed| changed.schedule)
    }

    fn change(&mut self, name: &str, change: Change) -> Result<Changed, Error> {
        let (reply, mut answer) = oneshot::channel();
        self.turn(vec![Command::Schedule(Ask::Change {
            caller: CALLER,
            called: Called::Name(name.to_owned()),
            change,
            reply,
        })]);
        answer.try_recv().expect("answered in its turn")
    }

    fn tasks(&mut self) -> Vec<Task> {
        let filter = Filter {
            limit: u32::MAX,
            ..Filter::default()
        };
        self.engine.store().list(&filter).expect("list")
    }

    /// Nominal times that have a task, each once.
    fn ticks(&mut self) -> BTreeSet<Time> {
        let tasks = self.tasks();
        let ticks: BTreeSet<Time> = tasks
            .iter()
            .filter_map(|task| task.tick)
            .map(|tick| tick.nominal)
            .collect();
        assert_eq!(ticks.len(), tasks.len(), "a nominal time has one task");
        ticks
    }
}

fn rule(when: &str) -> Rule {
    Rule {
        when: when.parse().expect("when"),
        zone: "UTC".parse().expect("zone"),
        overlap: Overlap::Allow,
        missed: Missed::Last,
        jitter_ms: 0,
    }
}

fn new(name: &str, rule: Rule) -> NewSchedule {
    NewSchedule {
        owner: CALLER.uid,
        name: name.to_owned(),
        rule,
        task: Template {
            queue: "default".to_owned(),
            spec: Spec {
                argv: vec!["true".to_owned()],
                ..Spec::default()
            },
            ..Template::default()
        },
    }
}

#[test]
fn the_next_turn_is_due_at_the_next_nominal_time() {
    let mut bed = Bed::new();
    bed.add(new("hourly", rule("0 * * * *")));
    let turned = bed.turn(vec![]);
    let hour = Time::from_micros((START / 3600 + 1) * 3_600_000_000);
    assert_eq!(turned.next, Some(hour));
    bed.now = hour;
    bed.turn(vec![]);
    assert_eq!(bed.ticks(), BTreeSet::from([hour]));
    let task = bed.tasks().remove(0);
    assert_eq!(
        (task.state, task.name.as_deref()),
        (State::Queued, Some("hourly"))
    );
    assert_eq!((task.owner, task.due), (CALLER.uid, hour));
}

#[test]
fn no_history_of_clocks_and_crashes_doubles_or_forgets_a_nominal_time() {
    let seeds: Vec<u64> = match std::env::var("TASKDAEMON_SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => {
            let base = u64::from(std::process::id()) << 16;
            (0..20).map(|n| base + n).chain(0..10).collect()
        }
    };
    for seed in seeds {
        eprintln!("TASKDAEMON_SIM_SEED={seed}");
        history(seed);
    }
}

fn history(seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut below = |bound: u32| random.next_u32() % bound;
    let mut bed = Bed::new();
    let whens = ["*/7 * * * *", "*:0/13", "every 11m"];
    let when = whens[usize::try_from(below(3)).expect("small")];
    let schedule = bed.add(new(
        "s",
        Rule {
            missed: Missed::All { most: 1_000 },
            ..rule(when)
        },
    ));
    // Every time the clock has shown, without a gap of more than a minute.
    let mut shown: Vec<(Time, Time)> = Vec::new();
    for _ in 0..120 {
        let from = bed.now;
        match below(12) {
            0 => drop(bed.set(3_600)),
            1 => drop(bed.set(-3_600)),
            2 => bed = bed.reopen(),
            3 => {
                bed.now = bed.now.after(Duration::from_secs(below(3_000).into()));
                bed = bed.reopen();
                shown.push((from, bed.now));
            }
            _ => {
                bed.pass(below(900).into());
                shown.push((from, bed.now));
            }
        }
        let ticks = bed.ticks();
        let real = |time: &Time| {
            let before = Time::from_micros(time.micros() - 1);
            schedule.rule.when.next(&schedule.rule.zone, before) == Some(*time)
        };
        assert!(ticks.iter().all(real), "every tick is a nominal time");
    }
    let ticks = bed.ticks();
    let created = schedule.created;
    for (from, to) in shown {
        let mut at = from.max(created);
        while let Some(next) = schedule.rule.when.next(&schedule.rule.zone, at) {
            if next > to {
                break;
            }
            assert!(ticks.contains(&next), "{when}: {next:?} was forgotten");
            at = next;
        }
    }
}

#[test]
fn a_clock_ten_years_ahead_for_a_while_silences_no_schedule() {
    let mut bed = Bed::new();
    bed.add(new("m", rule("* * * * *")));
    bed.pass(60);
    assert_eq!(bed.ticks().len(), 1);
    bed.set(10 * 365 * 86_400);
    assert_eq!(bed.ticks().len(), 2, "missed times: the last one only");
    bed.set(-10 * 365 * 86_400);
    bed.pass(60);
    assert_eq!(bed.ticks().len(), 3);
}

#[test]
fn missed_times_follow_the_rule() {
    for (missed, made) in [
        (Missed::Skip, 0),
        (Missed::Last, 1),
        (Missed::All { most: 3 }, 3),
        (Missed::All { most: 100 }, 6),
    ] {
        let mut bed = Bed::new();
        bed.add(new(
            "h",
            Rule {
                missed,
                ..rule("0 * * * *")
            },
        ));
        bed.now = bed.now.after(Duration::from_secs(6 * 3_600));
        let mut bed = bed.reopen();
        assert_eq!(bed.ticks().len(), made, "{missed:?}");
    }
}

#[test]
fn overlap_skip_leaves_out_and_says_so() {
    let mut bed = Bed::new();
    let overlap = Overlap::Skip;
    bed.add(new(
        "m",
        Rule {
            overlap,
            ..rule("* * * * *")
        },
    ));
    for _ in 0..5 {
        bed.pass(60);
    }
    assert_eq!(
        bed.ticks().len(),
        1,
        "there is no runner, so the first is never over"
    );
    assert!(matches!(
        bed.change("m", Change::Trigger),
        Err(Error::StillRunning(_))
    ));
    let id = bed.tasks()[0].id;
    let (reply, _answer) = oneshot::channel();
    bed.turn(vec![Command::Cancel {
        caller: CALLER,
        id,
        reply,
    }]);
    bed.pass(60);
    assert_eq!(bed.ticks().len(), 2);
}

#[test]
fn overlap_replace_cancels_what_has_not_started() {
    let mut bed = Bed::new();
    let overlap = Overlap::Replace;
    bed.add(new(
        "m",
        Rule {
            overlap,
            ..rule("* * * * *")
        },
    ));
    for _ in 0..3 {
        bed.pass(60);
    }
    let states: Vec<State> = bed.tasks().iter().map(|task| task.state).collect();
    assert_eq!(states, [State::Queued, State::Cancelled, State::Cancelled]);
}

#[test]
fn a_paused_schedule_fires_at_no_time_and_makes_up_for_none() {
    let mut bed = Bed::new();
    bed.add(new("m", rule("* * * * *")));
    bed.change("m", Change::Pause).expect("paused");
    bed.pass(600);
    assert_eq!(bed.tasks(), []);
    let changed = bed.change("m", Change::Resume).expect("resumed");
    assert!(changed.schedule.wake.is_some_and(|at| at > bed.now));
    assert_eq!(bed.tasks(), []);
    let changed = bed.change("m", Change::Trigger).expect("triggered");
    assert_eq!(changed.task.expect("a task").state, State::Queued);
    bed.pass(60);
    assert_eq!(bed.tasks().len(), 2);
    bed.change("m", Change::Remove).expect("removed");
    bed.pass(600);
    assert_eq!(bed.tasks().len(), 2, "tasks it made stay");
    assert!(matches!(
        bed.change("m", Change::Pause),
        Err(Error::NoSchedule(_))
    ));
}

#[test]
fn jitter_moves_the_start_and_not_the_nominal_time() {
    let mut bed = Bed::new();
    bed.add(new(
        "m",
        Rule {
            jitter_ms: 30_000,
            ..rule("* * * * *")
        },
    ));
    // To a full minute.
    bed.pass(40);
    for _ in 0..30 {
        bed.pass(60);
    }
    let late: Vec<Duration> = bed
        .tasks()
        .iter()
        .map(|task| {
            let nominal = task.tick.expect("a tick").nominal;
            assert_eq!(nominal.micros() % 60_000_000, 0);
            task.due.since(nominal)
        })
        .collect();
    assert_eq!(late.len(), 31);
    let distinct: BTreeSet<_> = late.iter().collect();
    assert!(distinct.len() > 25, "{late:?}");
}

#[test]
fn bi_45_ten_thousand_schedules_of_one_minute_fire_once_each_in_bounded_turns() {
    let mut bed = Bed::new();
    let count = 10_000;
    bed.engine.store().begin().expect("begin");
    for number in 0..count {
        let new = new(&format!("s{number}"), rule("* * * * *"));
        let now = bed.now;
        bed.engine.store().add_schedule(&new, now).expect("add");
    }
    bed.engine.store().commit().expect("commit");
    let mut bed = bed.reopen();
    bed.now = bed.now.after(Duration::from_secs(60));
    let mut turns = 0;
    loop {
        let before = bed.engine.snapshot().count(State::Queued);
        let turned = bed.engine.turn(vec![], bed.now).expect("turn");
        turns += 1;
        let made = bed.engine.snapshot().count(State::Queued) - before;
        assert!(made <= 500, "{made} tasks in one turn");
        if turned.next.is_some_and(|next| next > bed.now) {
            break;
        }
    }
    assert!(turns >= 20, "{turns}");
    let tasks = bed.tasks();
    let schedules: BTreeSet<_> = tasks
        .iter()
        .map(|task| task.tick.expect("a tick").schedule)
        .collect();
    assert_eq!((tasks.len(), schedules.len()), (count, count));
    let over = bed.try_add(new("one-more", rule("@daily")), false);
    assert!(matches!(over, Err(Error::TooManySchedules(10_000))));
}

#[test]
fn bi_45_a_name_twice_is_refused_and_a_replaced_rule_keeps_the_cursor() {
    let mut bed = Bed::new();
    let first = bed.add(new("s", rule("* * * * *")));
    let twice = bed.try_add(new("s", rule("@daily")), false);
    assert!(matches!(twice, Err(Error::ScheduleExists(_))));
    bed.pass(60);
    let replaced = bed
        .try_add(new("s", rule("*/2 * * * *")), true)
        .expect("replaced");
    assert_eq!(replaced.id, first.id);
    bed.pass(60);
    bed.pass(60);
    let mut nominal: Vec<i64> = bed
        .ticks()
        .iter()
        .map(|at| at.micros() / 60_000_000)
        .collect();
    nominal.sort_unstable();
    assert_eq!(nominal.len(), 2);
    assert_eq!(nominal[1] % 2, 0, "by the new rule");
    // Another user's name is another schedule, and is not found under it.
    let other = NewSchedule {
        owner: 1001,
        ..new("theirs", rule("@daily"))
    };
    bed.add(other);
    assert!(matches!(
        bed.change("theirs", Change::Remove),
        Err(Error::NoSchedule(_))
    ));
}

#[test]
fn while_the_disk_is_low_no_schedule_makes_a_task() {
    let mut bed = Bed::new();
    bed.add(new("minutely", rule("* * * * *")));
    let mut all = rule("* * * * *");
    all.missed = Missed::All { most: 100 };
    bed.add(new("each", all));
    let shortage = Shortage { free: 1, mark: 2 };
    bed.engine.disk(Room::Low(shortage));
    for _ in 0..3 {
        let turned = bed.pass(60);
        assert_eq!(bed.tasks().len(), 0);
        let next = turned.next.expect("it looks again");
        assert!(next > bed.now && next <= bed.now.after(Duration::from_secs(1)));
    }
    let refused = bed.change("minutely", Change::Trigger);
    assert!(matches!(refused, Err(Error::DiskFull(_))), "{refused:?}");
    bed.engine.disk(Room::Ample);
    bed.turn(vec![]);
    // Times in between were missed: one makes up for the last, one for all.
    let made = |bed: &mut Bed| bed.tasks().len();
    assert_eq!(made(&mut bed), 1 + 3);
    bed.pass(60);
    assert_eq!(made(&mut bed), 2 + 4);
}
