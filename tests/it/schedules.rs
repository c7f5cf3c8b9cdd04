//! Schedules in the engine: each nominal time makes one task, whatever happens to the clock and the process.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use taskdaemon::engine::called::Called;
use taskdaemon::engine::command::{Caller, Command, Error};
use taskdaemon::engine::hooks::Hooks;
use taskdaemon::engine::options::Options;
use taskdaemon::engine::prompts::Prompts;
use taskdaemon::engine::schedules::{Ask, Change, Changed};
use taskdaemon::engine::why::explain;
use taskdaemon::engine::{Engine, Turned};
use taskdaemon::model::bound::Bound;
use taskdaemon::model::filter::Filter;
use taskdaemon::model::rate::Rate;
use taskdaemon::model::schedule::due::{Missed, Overlap, jitter};
use taskdaemon::model::schedule::plan::{NewSchedule, Rule, Schedule, Template};
use taskdaemon::model::spec::{NewTask, Spec};
use taskdaemon::model::task::{State, Task};
use taskdaemon::model::time::Time;
use taskdaemon::store::Store as _;
use taskdaemon::store::disk::{Room, Shortage};
use taskdaemon::store::queues::Crowd;
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
    boot: &'static str,
}

fn open(dir: &Path, boot: &str, now: Time) -> Engine<Sqlite> {
    let store = Sqlite::open(dir, &options()).expect("open");
    let mut engine = Engine::new(store, Options::default(), boot.to_owned());
    engine.recover(now).expect("recover");
    engine
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("directory");
        let now = Time::from_micros(START * 1_000_000);
        let boot = "boot";
        let engine = open(dir.path(), boot, now);
        let mut bed = Self {
            dir,
            engine,
            now,
            lead: 7,
            boot,
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
            boot,
        } = self;
        drop(engine);
        let engine = open(dir.path(), boot, now);
        let mut bed = Self {
            dir,
            engine,
            now,
            lead,
            boot,
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
        let count = |bed: &Bed| {
            let snapshot = bed.engine.snapshot();
            snapshot.count(State::Queued) + snapshot.count(State::Scheduled)
        };
        let before = count(&bed);
        let turned = bed.engine.turn(vec![], bed.now).expect("turn");
        turns += 1;
        let made = count(&bed) - before;
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
    // Fifty at once, and fifty in each second after.
    let last = tasks.iter().map(|task| task.due).max().expect("tasks");
    assert_eq!(
        last.since(bed.now),
        Duration::from_millis((10_000 - 50) * 20)
    );
    let over = bed.try_add(new("one-more", rule("@daily")), false);
    assert!(matches!(over, Err(Error::TooManySchedules(10_000))));
}

/// So many schedules of the next full minute, all alike.
fn crowd(bed: &mut Bed, count: u32, each: &Rule) {
    bed.engine.store().begin().expect("begin");
    for number in 0..count {
        let new = new(&format!("s{number}"), each.clone());
        let now = bed.now;
        bed.engine.store().add_schedule(&new, now).expect("add");
    }
    bed.engine.store().commit().expect("commit");
    // Who looks at the next time is told when a schedule changes.
    bed.add(new("last", rule("@yearly")));
}

/// When tasks start, in milliseconds from `from`, in order.
fn starts(bed: &mut Bed, from: Time) -> Vec<u64> {
    let tasks = bed.tasks();
    let late = |task: &Task| u64::try_from(task.due.since(from).as_millis()).expect("soon");
    let mut starts: Vec<u64> = tasks.iter().map(late).collect();
    starts.sort_unstable();
    starts
}

/// What a rested bucket of fifty a second gives to `count` at once.
fn in_turn(count: u64) -> Vec<u64> {
    let late = |number: u64| number.saturating_sub(49) * 20;
    (0..count).map(late).collect()
}

fn configure(bed: &mut Bed, rate: Bound<Rate>) {
    bed.turn(vec![Command::Configure {
        options: Options {
            schedule_rate: rate,
            ..Options::default()
        },
        hooks: Hooks::default(),
        prompts: Prompts::default(),
    }]);
}

#[test]
fn sec_36_schedules_of_one_moment_start_fifty_a_second_and_say_until_when_they_wait() {
    let mut bed = Bed::new();
    crowd(&mut bed, 300, &rule("* * * * *"));
    bed.pass(40);
    let now = bed.now;
    assert_eq!(starts(&mut bed, now), in_turn(300));
    for task in bed.tasks() {
        assert_eq!(task.tick.expect("a tick").nominal, now);
        if task.due == now {
            assert_eq!(task.state, State::Queued);
            continue;
        }
        assert_eq!(task.state, State::Scheduled);
        let snapshot = bed.engine.snapshot();
        let reason = explain(&task, &Crowd::default(), snapshot).expect("a reason");
        assert_eq!(
            (reason.code(), reason.until()),
            ("start_time", Some(task.due))
        );
    }
    // Of any second but the first.
    for second in 1..5 {
        let in_it = |at: &&u64| (second * 1_000..(second + 1) * 1_000).contains(*at);
        let starts = starts(&mut bed, now);
        assert!(starts.iter().filter(in_it).count() <= 50, "{second}");
    }
    bed.pass(10);
    assert_eq!(bed.engine.snapshot().count(State::Queued), 300);
    assert_eq!(bed.engine.snapshot().count(State::Scheduled), 0);
}

#[test]
fn sec_36_a_crash_in_the_middle_of_a_storm_gives_no_start_twice() {
    let mut bed = Bed::new();
    crowd(&mut bed, 1_200, &rule("* * * * *"));
    bed.now = bed.now.after(Duration::from_secs(40));
    let now = bed.now;
    bed.engine.turn(vec![], now).expect("turn");
    let made = bed.tasks().len();
    assert!(made > 0 && made < 1_200, "{made} in the first turn");
    let mut bed = bed.reopen();
    assert_eq!(starts(&mut bed, now), in_turn(1_200));
}

#[test]
fn sec_36_what_somebody_hands_in_or_triggers_waits_for_no_storm() {
    let mut bed = Bed::new();
    crowd(&mut bed, 300, &rule("* * * * *"));
    bed.pass(40);
    bed.pass(1);
    let changed = bed.change("s7", Change::Trigger).expect("triggered");
    assert_eq!(changed.task.expect("a task").state, State::Queued);
    let (reply, mut answer) = oneshot::channel();
    let task = NewTask {
        owner: CALLER.uid,
        queue: "default".to_owned(),
        ..NewTask::default()
    };
    bed.turn(vec![Command::Submit {
        tasks: vec![task],
        reply,
    }]);
    let submitted = answer.try_recv().expect("answered").expect("accepted");
    assert_eq!(submitted[0].state, State::Queued);
    // They have taken nothing: the last of the storm is one that it booked.
    let from = bed.now.before(Duration::from_secs(1));
    assert_eq!(starts(&mut bed, from).last(), in_turn(300).last());
    bed.pass(59);
    let now = bed.now;
    let tasks = bed.tasks();
    let second: Vec<&Task> = tasks
        .iter()
        .filter(|task| task.tick.is_some_and(|tick| tick.nominal == now))
        .collect();
    let at_once = second.iter().filter(|task| task.due == now).count();
    assert_eq!((second.len(), at_once), (300, 50));
}

#[test]
fn sec_36_a_clock_that_is_set_or_a_reboot_delays_no_schedule_beyond_what_is_owed() {
    for (seconds, boot) in [(-7_200, "boot"), (7_200, "boot"), (-7_200, "next boot")] {
        let mut bed = Bed::new();
        crowd(&mut bed, 300, &rule("* * * * *"));
        bed.pass(40);
        if boot == "boot" {
            bed.set(seconds);
        } else {
            bed.boot = boot;
            bed.now = Time::from_micros(bed.now.micros() + seconds * 1_000_000);
            bed = bed.reopen();
        }
        bed.add(new("later", rule("every 1s")));
        bed.pass(1);
        let tasks = bed.tasks();
        let later: Vec<&Task> = tasks
            .iter()
            .filter(|task| task.name.as_deref() == Some("later"))
            .collect();
        let [task] = later[..] else {
            panic!("one task, not {}", later.len());
        };
        // What the storm still owes are five seconds, and by a clock set
        // forth there is another one.
        let late = task.due.since(bed.now);
        assert!(
            late <= Duration::from_secs(11),
            "{seconds} {boot}: {late:?}"
        );
    }
}

#[test]
fn sec_36_the_rate_follows_a_reload_and_can_be_taken_off() {
    let mut bed = Bed::new();
    crowd(&mut bed, 300, &rule("* * * * *"));
    bed.pass(40);
    let last = |bed: &mut Bed| {
        let from = bed.now;
        *starts(bed, from).last().expect("tasks")
    };
    assert_eq!(last(&mut bed), 5_000);
    configure(&mut bed, Bound::Most("1000/1s".parse().expect("a rate")));
    bed.pass(60);
    // It has filled since: none of them waits.
    assert_eq!(last(&mut bed), 0);
    configure(&mut bed, Bound::Most("1/1m".parse().expect("a rate")));
    bed.pass(60);
    assert_eq!(last(&mut bed), 299 * 60_000);
    configure(&mut bed, Bound::Unbounded);
    bed.pass(60);
    let now = bed.now;
    let mut tasks = bed.tasks();
    tasks.retain(|task| task.created == now);
    assert_eq!(tasks.len(), 300);
    assert!(tasks.iter().all(|task| task.due == now));
}

#[test]
fn sec_36_times_that_were_missed_are_made_up_for_in_turn() {
    let mut bed = Bed::new();
    let missed = Missed::All { most: 100 };
    bed.add(new(
        "m",
        Rule {
            missed,
            ..rule("* * * * *")
        },
    ));
    bed.now = bed.now.after(Duration::from_secs(6_000));
    let mut bed = bed.reopen();
    let now = bed.now;
    assert_eq!(starts(&mut bed, now), in_turn(100));
    let tasks = bed.tasks();
    let mut pairs: Vec<_> = tasks
        .iter()
        .map(|task| (task.tick.expect("a tick").nominal, task.due))
        .collect();
    pairs.sort_unstable();
    assert!(pairs.is_sorted_by_key(|(_, due)| *due), "in their order");
}

#[test]
fn sec_36_waiting_for_the_turn_is_no_waiting_in_the_queue_and_jitter_comes_on_top() {
    let mut bed = Bed::new();
    configure(&mut bed, Bound::Most("1/10s".parse().expect("a rate")));
    let mut short = new("a", rule("* * * * *"));
    short.task.spec.queue_ttl_ms = Some(1_000);
    bed.add(short.clone());
    bed.add(NewSchedule {
        name: "b".to_owned(),
        ..short
    });
    let jitter_ms = 30_000;
    bed.add(new(
        "c",
        Rule {
            jitter_ms,
            ..rule("* * * * *")
        },
    ));
    bed.pass(40);
    let now = bed.now;
    let of = |bed: &mut Bed, name: &str| {
        let mut tasks = bed.tasks();
        tasks.retain(|task| task.name.as_deref() == Some(name));
        tasks.remove(0)
    };
    let third = of(&mut bed, "c");
    let own = jitter(
        third.tick.expect("a tick").schedule.0,
        now,
        Duration::from_millis(jitter_ms),
    );
    assert_eq!(third.due, now.after(own + Duration::from_secs(20)));
    bed.pass(5);
    assert_eq!(of(&mut bed, "a").state, State::Expired, "by its queue time");
    assert_eq!(
        of(&mut bed, "b").state,
        State::Scheduled,
        "not its turn yet"
    );
    bed.pass(5);
    assert_eq!(of(&mut bed, "b").state, State::Queued);
}

#[test]
fn sec_36_more_schedules_than_the_rate_allows_replace_each_other_and_still_start() {
    let mut bed = Bed::new();
    configure(&mut bed, Bound::Most("1/1s".parse().expect("a rate")));
    let overlap = Overlap::Replace;
    let each = Rule {
        overlap,
        ..rule("* * * * *")
    };
    // A hundred a minute, where sixty can start.
    crowd(&mut bed, 100, &each);
    bed.pass(40);
    let mut started = 0;
    for _ in 0..300 {
        bed.pass(1);
        let ready = |task: &Task| task.state == State::Queued;
        let ready: Vec<_> = bed.tasks().into_iter().filter(ready).collect();
        for task in ready {
            started += 1;
            let (reply, _answer) = oneshot::channel();
            let id = task.id;
            bed.turn(vec![Command::Cancel {
                caller: CALLER,
                id,
                reply,
            }]);
        }
    }
    // Of those that are ready at the full minute one is replaced before it is seen here.
    assert!((290..=300).contains(&started), "{started} in five minutes");
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
