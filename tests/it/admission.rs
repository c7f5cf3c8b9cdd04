//! Admission in the engine: who is next, how many, and what `show` says about
//! it; with invented owners, an invented clock and a runner that does nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use taskdaemon::engine::command::{Caller, Command, Error, Submitted};
use taskdaemon::engine::options::Options;
use taskdaemon::engine::queues::{Ask, Change};
use taskdaemon::engine::runner::{Abilities, RunnerUp};
use taskdaemon::engine::why::explain;
use taskdaemon::engine::{Engine, Turned};
use taskdaemon::model::attempt::{AttemptKey, Ended, Exit, Started, Usage};
use taskdaemon::model::filter::Filter;
use taskdaemon::model::hook::{Act, Ends, Hook};
use taskdaemon::model::id::TaskId;
use taskdaemon::model::queue::{Lane, Limits};
use taskdaemon::model::reason::Reason;
use taskdaemon::model::spec::NewTask;
use taskdaemon::model::step::UNDECIDED;
use taskdaemon::model::task::{AGEING, State, Task};
use taskdaemon::model::time::Time;
use taskdaemon::store::Store as _;
use taskdaemon::store::queues::Queues as _;
use taskdaemon::store::sqlite::Sqlite;
use tokio::sync::oneshot;

use crate::store::{new_task, options};

const ADMIN: Caller = Caller {
    uid: 0,
    admin: true,
    origin: taskdaemon::model::origin::Origin::NONE,
};
const ALICE: u32 = 1001;
const BOB: u32 = 1002;

struct Bed {
    dir: tempfile::TempDir,
    engine: Engine<Sqlite>,
    limits: Options,
    now: Time,
}

fn engine(dir: &tempfile::TempDir, limits: &Options, now: Time) -> Engine<Sqlite> {
    let store = Sqlite::open(dir.path(), &options()).expect("open");
    let mut engine = Engine::new(store, limits.clone(), "boot".to_owned());
    engine.recover(now).expect("recover");
    engine
}

impl Bed {
    fn new(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("directory");
        let mut limits = Options::default();
        change(&mut limits);
        let now = Time::from_micros(1_700_000_000_000_000);
        let engine = engine(&dir, &limits, now);
        let mut bed = Self {
            dir,
            engine,
            limits,
            now,
        };
        bed.connect();
        bed
    }

    fn connect(&mut self) {
        let held = self.live().iter().map(Task::attempt_key).collect();
        self.turn(vec![Command::RunnerUp(RunnerUp {
            instance: "runner".to_owned(),
            boot: "boot".to_owned(),
            version: "1".to_owned(),
            pid: 1,
            abilities: Abilities::default(),
            policy: None,
            held,
        })]);
    }

    /// As after a crash of the daemon.
    fn reopen(self) -> Self {
        let Self {
            dir,
            engine: old,
            limits,
            now,
        } = self;
        drop(old);
        let engine = engine(&dir, &limits, now);
        let mut bed = Self {
            dir,
            engine,
            limits,
            now,
        };
        bed.connect();
        bed
    }

    fn turn(&mut self, commands: Vec<Command>) -> Turned {
        self.engine.turn(commands, self.now).expect("turn")
    }

    fn pass(&mut self, wait: Duration) -> Turned {
        self.now = self.now.after(wait);
        self.turn(vec![])
    }

    fn try_submit(&mut self, tasks: Vec<NewTask>) -> Result<Vec<Submitted>, Error> {
        let (reply, mut answer) = oneshot::channel();
        self.turn(vec![Command::Submit { tasks, reply }]);
        answer.try_recv().expect("answered in its turn")
    }

    /// So many tasks of a user, each a millisecond after the one before.
    fn submit(&mut self, count: usize, change: impl Fn(&mut NewTask)) -> Vec<TaskId> {
        let mut task = new_task("true");
        change(&mut task);
        self.now = self.now.after(Duration::from_millis(1));
        let submitted = self.try_submit(vec![task; count]).expect("accepted");
        submitted.iter().map(|one| one.id).collect()
    }

    fn change(&mut self, name: &str, change: Change) -> Result<Lane, Error> {
        self.change_as(ADMIN, name, change)
    }

    fn change_as(&mut self, caller: Caller, name: &str, change: Change) -> Result<Lane, Error> {
        let (reply, mut answer) = oneshot::channel();
        let name = name.to_owned();
        self.turn(vec![Command::Queue(Ask {
            caller,
            name,
            change,
            reply,
        })]);
        answer.try_recv().expect("answered in its turn")
    }

    fn set(&mut self, name: &str, change: impl FnOnce(&mut Limits)) {
        let mut limits = Limits::default();
        change(&mut limits);
        self.change(name, Change::Set(limits)).expect("set");
    }

    fn live(&mut self) -> Vec<Task> {
        let filter = Filter {
            states: vec![State::Running, State::Stopping],
            limit: u32::MAX,
            ..Filter::default()
        };
        self.engine.store().list(&filter).expect("list")
    }

    /// Live tasks, oldest attempt first.
    fn running(&mut self) -> Vec<TaskId> {
        let live = self.engine.store().live().expect("live");
        live.iter().map(|attempt| attempt.key.task).collect()
    }

    fn end(&mut self, id: TaskId) {
        let command = Command::Ended {
            key: AttemptKey {
                task: id,
                number: 1,
            },
            started: None,
            ended: Ended {
                exit: Exit::Code { code: 0 },
                oom: false,
                interrupted: false,
                unrecorded: false,
                at: self.now,
                usage: Usage::default(),
                receipt: None,
            },
        };
        self.turn(vec![command]);
    }

    fn why(&mut self, id: TaskId) -> Reason {
        let snapshot = self.engine.snapshot().clone();
        let store = self.engine.store();
        let task = store.task(id).expect("read").expect("there");
        let crowd = store.crowd(std::slice::from_ref(&task)).expect("read");
        explain(&task, &crowd, &snapshot).expect("a reason")
    }

    /// Ends whatever runs, in the order of its start, until nothing does. The
    /// owners of tasks in the order of their ends.
    fn drain(&mut self) -> Vec<(TaskId, u32)> {
        let mut order = Vec::new();
        let mut queue: Vec<TaskId> = Vec::new();
        loop {
            for id in self.running() {
                if !queue.contains(&id) {
                    queue.push(id);
                }
            }
            if queue.is_empty() {
                return order;
            }
            let id = queue.remove(0);
            let task = self.engine.store().task(id).expect("read").expect("there");
            order.push((id, task.owner));
            self.end(id);
        }
    }
}

fn of(owner: u32) -> impl Fn(&mut NewTask) {
    move |new| new.owner = owner
}

#[test]
fn a_flooding_user_does_not_delay_another_beyond_twice_the_fair_share() {
    for slots in [1_u32, 2, 4, 16] {
        for spread in [false, true] {
            let mut bed = Bed::new(|options| options.slots = slots);
            for part in 0..10 {
                // A thousand tasks, in one queue or in ten.
                bed.submit(100, |new| {
                    new.owner = ALICE;
                    if spread {
                        new.queue = format!("a{part}");
                    }
                });
            }
            bed.submit(10, of(BOB));
            let order = bed.drain();
            assert_eq!(order.len(), 1_010);
            let last = order.iter().rposition(|(_, owner)| *owner == BOB);
            let last = last.expect("bob's tasks ended");
            // Alone with half of the slots, his ten would be over after the
            // twentieth end, and what ran already when he came.
            let fair = 20 + usize::try_from(slots).expect("small");
            assert!(
                last < 2 * fair,
                "{slots} slots: the last of ten was end {last}"
            );
        }
    }
}

#[test]
fn users_share_a_queue_with_less_room_than_the_host() {
    let mut bed = Bed::new(|options| options.slots = 100);
    bed.set("q", |limits| limits.concurrency = Some(Some(2)));
    // What alice runs elsewhere is not bob's, and does not count in this queue.
    bed.submit(50, of(ALICE));
    let in_q = |owner| {
        move |new: &mut NewTask| {
            new.owner = owner;
            new.queue = "q".to_owned();
        }
    };
    bed.submit(100, in_q(BOB));
    bed.submit(5, in_q(ALICE));
    assert_eq!(bed.running().len(), 52);
    let mut ends = Vec::new();
    let mut fifo: Vec<(TaskId, u32)> = Vec::new();
    for _ in 0..14 {
        for task in bed.live().iter().filter(|task| task.queue == "q") {
            if !fifo.contains(&(task.id, task.owner)) {
                fifo.push((task.id, task.owner));
            }
        }
        let (id, owner) = fifo.remove(0);
        ends.push(owner);
        bed.end(id);
    }
    let alice = ends.iter().filter(|owner| **owner == ALICE).count();
    assert_eq!(alice, 5, "{ends:?}");
}

#[test]
fn ageing_lets_no_priority_starve_another() {
    let mut bed = Bed::new(|options| options.slots = 1);
    bed.submit(1, of(ALICE));
    let low = bed.submit(1, |new| {
        new.owner = ALICE;
        new.priority = -2;
    })[0];
    let mut rounds = 0;
    // A task of priority 0 comes for each that ends, for ever.
    while !bed.running().contains(&low) {
        bed.submit(2, of(ALICE));
        bed.now = bed.now.after(AGEING / 4);
        let id = bed.running()[0];
        bed.end(id);
        rounds += 1;
        assert!(rounds < 50, "starved");
    }
    assert!(rounds >= 8, "priority counts until the wait outweighs it");
}

#[test]
fn a_rate_is_a_deadline_of_the_engine_and_is_never_exceeded() {
    let mut bed = Bed::new(|options| options.slots = 100);
    bed.set("q", |limits| {
        limits.rate = Some(Some("3/1s".parse().expect("rate")))
    });
    let ids = bed.submit(10, |new| new.queue = "q".to_owned());
    assert_eq!(bed.running().len(), 3);
    let mut starts = BTreeMap::from([(bed.now, 3)]);
    for more in 4..=10 {
        let turned = bed.turn(vec![]);
        let next = turned.next.expect("a deadline, not a poll");
        assert_eq!(
            bed.why(ids[9]),
            Reason::Rate {
                queue: "q".to_owned(),
                until: next
            }
        );
        bed.now = next.before(Duration::from_micros(1));
        bed.turn(vec![]);
        assert_eq!(bed.running().len(), more - 1, "not before its time");
        bed.now = next;
        bed.turn(vec![]);
        assert_eq!(bed.running().len(), more);
        starts.insert(next, 1);
    }
    for from in starts.keys() {
        let second = *from..from.after(Duration::from_secs(1));
        let within: u32 = starts.range(second).map(|(_, count)| count).sum();
        // A full bucket, and what has become free meanwhile.
        assert!(within <= 6, "{starts:?}");
    }
    let turned = bed.turn(vec![]);
    assert_ne!(turned.next, Some(bed.now), "nothing waits, nothing turns");
}

#[test]
fn a_used_up_rate_survives_a_crash_and_a_clock_set_back() {
    let mut bed = Bed::new(|options| options.slots = 100);
    bed.set("q", |limits| {
        limits.rate = Some(Some("2/1m".parse().expect("rate")))
    });
    bed.submit(5, |new| new.queue = "q".to_owned());
    assert_eq!(bed.running().len(), 2);
    let mut bed = bed.reopen();
    assert_eq!(bed.running().len(), 2, "a restart is no new bucket");
    bed.now = bed.now.before(Duration::from_secs(3_600));
    bed.turn(vec![Command::ClockLead { lead: 0 }]);
    bed.turn(vec![Command::ClockLead {
        lead: -3_600_000_000,
    }]);
    assert_eq!(bed.running().len(), 2);
    bed.pass(Duration::from_secs(60));
    assert!(bed.running().len() > 2, "an hour back costs no hour");
}

#[test]
fn group_keys_exclude_each_other_within_a_queue_only() {
    let mut bed = Bed::new(|options| options.slots = 100);
    let grouped = |queue: &'static str| {
        move |new: &mut NewTask| {
            new.queue = queue.to_owned();
            new.group = Some("db".to_owned());
        }
    };
    let ids = bed.submit(3, grouped("q"));
    let other = bed.submit(1, grouped("r"))[0];
    assert_eq!(bed.running(), [ids[0], other]);
    assert_eq!(
        bed.why(ids[2]),
        Reason::Group {
            group: "db".to_owned(),
            limit: 1
        }
    );
    bed.end(ids[0]);
    assert_eq!(bed.running(), [ids[1], other]);
    bed.set("q", |limits| limits.group_limit = Some(Some(2)));
    assert_eq!(bed.running(), [ids[1], ids[2], other], "at once");
    bed.set("q", |limits| limits.group_limit = Some(None));
    assert_eq!(bed.running(), [ids[1], ids[2], other], "none is ended");
    let last = bed.submit(1, grouped("q"))[0];
    bed.end(ids[1]);
    assert!(!bed.running().contains(&last));
    bed.end(ids[2]);
    assert!(bed.running().contains(&last));
}

#[test]
fn a_queue_can_be_paused_drained_resumed_and_removed() {
    let mut bed = Bed::new(|options| options.slots = 1);
    let in_q = |new: &mut NewTask| new.queue = "q".to_owned();
    let ids = bed.submit(2, in_q);
    bed.change("q", Change::Pause).expect("pause");
    bed.end(ids[0]);
    assert!(bed.running().is_empty());
    let queue = "q".to_owned();
    assert_eq!(bed.why(ids[1]), Reason::QueuePaused { queue });
    let mut bed = bed.reopen();
    assert!(bed.running().is_empty(), "still paused");
    bed.change("q", Change::Drain).expect("drain");
    let mut new = new_task("true");
    in_q(&mut new);
    let mixed = vec![new_task("true"), new.clone()];
    assert!(matches!(bed.try_submit(mixed), Err(Error::Draining(_))));
    bed.change("q", Change::Resume).expect("resume");
    assert_eq!(bed.running(), [ids[1]]);
    bed.change("q", Change::Drain).expect("drain");
    let refused = bed.change("q", Change::Remove);
    assert!(matches!(refused, Err(Error::QueueInUse { tasks: 1, .. })));
    bed.end(ids[1]);
    bed.change("q", Change::Remove).expect("remove");
    let gone = bed.change("q", Change::Pause);
    assert!(matches!(gone, Err(Error::NoQueue(_))));
    bed.try_submit(vec![new]).expect("made anew, and open");
}

#[test]
fn only_admins_change_queues() {
    let mut bed = Bed::new(|_| {});
    let user = Caller {
        uid: ALICE,
        admin: false,
        origin: taskdaemon::model::origin::Origin::NONE,
    };
    for change in [
        Change::Set(Limits::default()),
        Change::Pause,
        Change::Resume,
        Change::Drain,
        Change::Remove,
    ] {
        let refused = bed.change_as(user, "q", change);
        assert!(matches!(refused, Err(Error::AdminOnly(_))), "{change:?}");
    }
    assert_eq!(bed.engine.store().queue_named("q").expect("read"), None);
}

#[test]
fn a_lowered_limit_ends_nothing_and_a_raised_one_counts_at_once() {
    let mut bed = Bed::new(|options| options.slots = 100);
    let ids = bed.submit(10, |new| new.queue = "q".to_owned());
    assert_eq!(bed.running().len(), 10);
    let more = bed.submit(10, |new| new.queue = "r".to_owned()).len();
    assert_eq!(bed.running().len(), 10 + more);
    bed.set("q", |limits| limits.concurrency = Some(Some(3)));
    assert_eq!(bed.running().len(), 20);
    let waiting = bed.submit(5, |new| new.queue = "q".to_owned());
    for id in &ids[..7] {
        bed.end(*id);
        assert!(!bed.running().contains(&waiting[0]));
    }
    let queue = "q".to_owned();
    let (used, total) = (3, 3);
    assert_eq!(
        bed.why(waiting[0]),
        Reason::QueueSlot { queue, used, total }
    );
    bed.set("q", |limits| limits.concurrency = Some(None));
    assert!(waiting.iter().all(|id| bed.running().contains(id)));
}

#[test]
fn a_user_has_as_many_attempts_as_one_may() {
    let mut bed = Bed::new(|options| {
        options.slots = 10;
        options.user_running = Some(2);
    });
    let ids = bed.submit(5, of(ALICE));
    let other = bed.submit(1, of(BOB))[0];
    assert_eq!(bed.running(), [ids[0], ids[1], other]);
    let (owner, limit) = (ALICE, 2);
    assert_eq!(bed.why(ids[4]), Reason::UserSlot { owner, limit });
    bed.end(ids[0]);
    assert_eq!(bed.running(), [ids[1], ids[2], other]);
}

#[test]
fn a_user_hands_in_no_more_than_one_may() {
    let mut bed = Bed::new(|options| {
        options.slots = 1;
        options.user_waiting = Some(3);
        options.user_submits = Some("2/10s".parse().expect("rate"));
    });
    let task = || {
        let mut new = new_task("true");
        new.owner = ALICE;
        new
    };
    bed.try_submit(vec![task()])
        .expect("it runs, and waits no more");
    let refused = bed.try_submit(vec![task(); 4]);
    assert!(
        matches!(
            refused,
            Err(Error::Quota {
                waiting: 0,
                most: 3
            })
        ),
        "{refused:?}"
    );
    let keyed = NewTask {
        key: Some("k".to_owned()),
        ..task()
    };
    bed.try_submit(vec![keyed.clone()]).expect("accepted");
    let refused = bed.try_submit(vec![task()]);
    let wait = Duration::from_secs(5);
    assert!(
        matches!(refused, Err(Error::TooFast { wait: found, .. }) if found == wait),
        "{refused:?}"
    );
    let again = bed.try_submit(vec![keyed]).expect("a repetition is free");
    assert!(!again[0].created);
    bed.submit(1, of(BOB));
    bed.pass(wait);
    bed.try_submit(vec![task()]).expect("in time again");
}

/// Counters of slots that are raised and lowered drift with every path that
/// forgets one of the two; here slots are rows.
#[test]
fn concurrency_semaphore_leaks() {
    let mut bed = Bed::new(|options| options.slots = 3);
    bed.set("q", |limits| limits.concurrency = Some(Some(2)));
    let grouped = |new: &mut NewTask| {
        new.queue = "q".to_owned();
        new.group = Some("g".to_owned());
    };
    for _ in 0..5 {
        let ids = bed.submit(3, grouped);
        assert_eq!(bed.running().len(), 1);
        bed = bed.reopen();
        assert_eq!(bed.running().len(), 1, "a crash takes and gives no slot");
        // One ends, one is lost with its runner, one is cancelled unstarted.
        bed.end(ids[0]);
        let (reply, _) = oneshot::channel();
        let id = ids[2];
        bed.turn(vec![Command::Cancel {
            caller: ADMIN,
            id,
            reply,
        }]);
        assert_eq!(bed.running(), [ids[1]]);
        bed.end(ids[1]);
        assert!(bed.running().is_empty());
    }
    let ids = bed.submit(3, |new| new.queue = "q".to_owned());
    assert_eq!(bed.running(), ids[..2], "all room is there");
}

/// What is claimed starts now: no task is taken ahead and waits invisibly.
#[test]
fn prefetch_hides_work_in_a_dead_worker() {
    let mut bed = Bed::new(|options| options.slots = 2);
    let ids = bed.submit(50, of(ALICE));
    assert_eq!(bed.running(), ids[..2]);
    let count = bed.engine.snapshot().count(State::Queued);
    assert_eq!(count, 48, "the rest is queued, and shown as such");
}

/// A full page of tasks that may not start does not hide one that may.
#[test]
fn rescuer_starved_by_rows_it_may_not_touch() {
    let mut bed = Bed::new(|options| options.slots = 10);
    bed.submit(1_500, |new| {
        new.priority = 1000;
        new.group = Some("full".to_owned());
    });
    bed.change("default", Change::Pause).expect("pause");
    bed.submit(1_500, |new| new.priority = 1000);
    bed.set("used-up", |limits| {
        limits.rate = Some(Some("1/1d".parse().expect("rate")));
    });
    bed.submit(1_500, |new| new.queue = "used-up".to_owned());
    let free = bed.submit(1, |new| {
        new.queue = "free".to_owned();
        new.priority = -1000;
    })[0];
    assert!(bed.running().contains(&free));
}

/// Hooks follow from tasks: nobody has asked for them, and so they take nothing
/// of what one user may have.
#[test]
fn hooks_count_as_nobodys_in_a_users_quota() {
    let mut bed = Bed::new(|options| {
        options.slots = 10;
        options.user_running = Some(1);
        options.user_waiting = Some(2);
    });
    let hook = Hook {
        on: Ends(Vec::new()),
        act: Act::Command(vec!["true".to_owned()]),
    };
    bed.change("hooks", Change::Pause).expect("pause");
    let hooked = bed.submit(1, |new| {
        new.owner = ALICE;
        new.spec.hooks = vec![hook.clone(), hook.clone(), hook.clone()];
    })[0];
    bed.end(hooked);
    // Three hooks wait, and two more tasks may.
    let ids = bed.submit(2, of(ALICE));
    bed.change("hooks", Change::Resume).expect("resume");
    let running = bed.running();
    assert_eq!(running.len(), 4, "three hooks beside one task: {running:?}");
    assert!(running.contains(&ids[0]));
    let (owner, limit) = (ALICE, 1);
    assert_eq!(bed.why(ids[1]), Reason::UserSlot { owner, limit });
    bed.end(ids[0]);
    assert!(
        bed.running().contains(&ids[1]),
        "hooks that run hold up none"
    );
}

/// While nobody can say as whom tasks may run, they wait with that reason: one
/// attempt now and then finds out whether that has been mended.
#[test]
fn sec_05_while_the_policy_cannot_be_read_tasks_wait_and_one_tries() {
    let mut bed = Bed::new(|options| options.slots = 4);
    let ids = bed.submit(6, of(ALICE));
    assert_eq!(bed.running(), ids[..4]);
    let why = "run-as.toml:3: unknown field `alow`";
    let undecided = |bed: &Bed, id: TaskId, number: u32| Command::Ended {
        key: AttemptKey { task: id, number },
        started: None,
        ended: Ended {
            exit: Exit::Spawn {
                error: why.to_owned(),
                scarce: false,
                undecided: true,
                denied: false,
            },
            oom: false,
            interrupted: false,
            unrecorded: false,
            at: bed.now,
            usage: Usage::default(),
            receipt: None,
        },
    };
    let ends = ids[..4].iter().map(|id| undecided(&bed, *id, 1));
    let ends = ends.collect();
    bed.turn(ends);
    assert_eq!(bed.running(), [], "nothing is started");
    for id in [ids[0], ids[5]] {
        let reason = bed.why(id);
        assert_eq!(reason.code(), "undecided");
        assert!(reason.to_string().contains(why), "{reason}");
        assert_eq!(reason.until(), Some(bed.now.after(UNDECIDED)));
    }
    // Whoever comes now waits, too.
    let late = bed.submit(1, of(BOB))[0];
    assert_eq!(bed.running(), []);
    for _ in 0..3 {
        let turned = bed.pass(UNDECIDED);
        let tries = bed.running();
        assert_eq!(tries.len(), 1, "one finds out: {tries:?}");
        assert!(
            turned.next.is_some_and(|at| at > bed.now),
            "not at once again"
        );
        let attempt = bed.live()[0].attempt_key();
        let end = undecided(&bed, attempt.task, attempt.number);
        bed.turn(vec![end]);
        assert_eq!(bed.running(), []);
    }
    bed.pass(UNDECIDED);
    let key = bed.live()[0].attempt_key();
    let started = Started {
        pid: 1,
        uid: ALICE,
        user: "alice".to_owned(),
        cgroup: None,
        at: bed.now,
    };
    bed.turn(vec![Command::Started { key, started }]);
    assert_eq!(bed.running().len(), 4, "it can be read again");
    for id in ids.into_iter().chain([late]) {
        let task = bed.engine.store().task(id).expect("read").expect("there");
        assert!(!task.state.is_terminal() && task.tries == 0, "{task:?}");
    }
}
