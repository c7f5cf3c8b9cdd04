//! The engine under random histories: submits, cancels, retries, reports, late
//! reports, clock jumps, runners that come and go, runners of single attempts
//! that are lost or come back, and crashes between any two
//! commits, with invented time and a real store that is opened again.
//!
//! What a client was told and what a pretended runner did are written down
//! outside and are the only judge; that no task starts before those it waits
//! for are over is read from the record of events. The seed is printed on failure;
//! `TASKDAEMON_SIM_SEED=N` replays one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use taskdaemon::engine::bulk::{Action, Count, Order};
use taskdaemon::engine::command::{Caller, Command, Error, Submitted};
use taskdaemon::engine::edit;
use taskdaemon::engine::effect::{Effect, Verdict};
use taskdaemon::engine::graph::{Affected, Ask};
use taskdaemon::engine::hooks::{self, Hooks};
use taskdaemon::engine::options::Options;
use taskdaemon::engine::queues::{self, Change};
use taskdaemon::engine::runner::{Abilities, RunnerUp};
use taskdaemon::engine::spans::Intake;
use taskdaemon::engine::why::explain;
use taskdaemon::engine::{Engine, Turned, record, retention};
use taskdaemon::model::attempt::{Attempt, AttemptKey, Ended, Exit, Usage};
use taskdaemon::model::bound::{Age, Bound};
use taskdaemon::model::depend::Link;
use taskdaemon::model::edit::Edit;
use taskdaemon::model::event::Wanted;
use taskdaemon::model::filter::{Filter, Selection};
use taskdaemon::model::hook::{Act, End, Ends, Hook};
use taskdaemon::model::id::TaskId;
use taskdaemon::model::queue::{Lane, Limits, Queue};
use taskdaemon::model::rate::Rate;
use taskdaemon::model::retry::Retry;
use taskdaemon::model::span::{Fact, Span};
use taskdaemon::model::spec::{After, Conflict, NewTask, Parent, Unique, Wants};
use taskdaemon::model::task::{State, Task};
use taskdaemon::model::time::Time;
use taskdaemon::model::trace::{Share, SpanId};
use taskdaemon::store::Store as _;
use taskdaemon::store::graph::Graph as _;
use taskdaemon::store::queues::Queues as _;
use taskdaemon::store::record::Record as _;
use taskdaemon::store::sqlite::Sqlite;
use tokio::sync::oneshot;

use crate::store::{new_task, options};

const SLOTS: u32 = 4;
/// Attempts at once of one user.
const OF_USER: u32 = 3;
/// Attempts at once in a queue that says nothing else.
const OF_QUEUE: u32 = 2;
const CALLER: Caller = Caller {
    uid: 1000,
    admin: true,
    origin: taskdaemon::model::origin::Origin::NONE,
};

/// A runner as the engine sees it: what it holds, and what has ended.
#[derive(Default)]
struct Runner {
    instance: u32,
    live: BTreeSet<AttemptKey>,
    ended: BTreeMap<AttemptKey, Ended>,
}

struct World {
    random: TestRng,
    now: Time,
    boot: u32,
    runner: Runner,
    connected: bool,
    /// All runners of single attempts, as if they were one.
    alone: Runner,
    /// Those of them that the daemon talks to.
    met: BTreeSet<AttemptKey>,
    sought: BTreeSet<AttemptKey>,
    /// What was acknowledged to clients.
    acknowledged: BTreeSet<TaskId>,
    /// Tasks that may have been removed, since someone asked for it or
    /// retention is on.
    removable: bool,
    /// Tasks that were over at the end of the last turn.
    over: BTreeSet<TaskId>,
    last_event: i64,
    /// Tasks that were removed.
    gone: BTreeSet<TaskId>,
    /// Attempts whose output was removed.
    erased: BTreeSet<AttemptKey>,
    /// Every launch that reached a runner, by attempt.
    launched: HashMap<AttemptKey, u32>,
    keys: u32,
    /// The runner is not told to stop any more.
    steady: bool,
    /// Attempts whose end was reported once and may be reported again, late.
    old: Vec<AttemptKey>,
    /// Queues as they were answered to be.
    queues: BTreeMap<String, Queue>,
    /// Attempts that were live after the turn before.
    live: HashSet<AttemptKey>,
    /// Tasks as they were after the turn before.
    there: BTreeMap<TaskId, Task>,
    hooks: Ledger,
    spans: Spans,
}

/// The spans of all tasks, by whose records they are made.
struct Spans {
    intake: Intake,
    sent: tokio::sync::mpsc::Receiver<Span>,
    /// All of them, and what is above each.
    seen: BTreeMap<[u8; 8], Option<SpanId>>,
    /// How many each task has of its own.
    tasks: BTreeMap<TaskId, usize>,
    attempts: BTreeSet<AttemptKey>,
    waits: BTreeSet<AttemptKey>,
}

/// Ends and hooks of all tasks, also of those that were removed since.
#[derive(Default)]
struct Ledger {
    /// Events up to here are in it.
    reached: i64,
    /// Events were removed before they could be seen.
    torn: bool,
    /// Each task's own hooks.
    own: BTreeMap<TaskId, Vec<Hook>>,
    /// How each ended, and in which queue.
    ends: BTreeMap<TaskId, Vec<(End, String)>>,
    /// The hooks that were made for each.
    made: BTreeMap<TaskId, BTreeSet<TaskId>>,
}

/// What has to come of a submit, if its queues are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    Held,
    Invalid,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            random: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
            now: Time::from_micros(1_700_000_000_000_000),
            boot: 1,
            runner: Runner::default(),
            connected: false,
            alone: Runner::default(),
            met: BTreeSet::new(),
            sought: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            removable: seed.is_multiple_of(2),
            over: BTreeSet::new(),
            last_event: 0,
            gone: BTreeSet::new(),
            erased: BTreeSet::new(),
            launched: HashMap::new(),
            keys: 0,
            old: Vec::new(),
            // Made with the schema.
            queues: BTreeMap::from([(
                "hooks".to_owned(),
                Queue {
                    concurrency: Some(4),
                    ..Queue::default()
                },
            )]),
            live: HashSet::new(),
            there: BTreeMap::new(),
            hooks: Ledger::default(),
            spans: Spans::new(),
            steady: false,
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.below(one_in) == 0
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.next_u32() % bound
    }

    fn open(&self, dir: &Path) -> Engine<Sqlite> {
        let store = Sqlite::open(dir, &options()).expect("open");
        let limits = Options {
            slots: SLOTS,
            queue_concurrency: Some(OF_QUEUE),
            user_running: Some(OF_USER),
            ..Options::default()
        };
        let mut engine = Engine::new(store, limits, format!("boot-{}", self.boot));
        engine.set_hooks(Hooks {
            host: vec![host_hook()],
            ..Hooks::default()
        });
        if self.removable {
            engine.retain(retention::Options {
                task_count: Bound::Most(12),
                event_count: Bound::Most(200),
                output_age: Bound::Most(Age(Duration::from_secs(600))),
                ..retention::Options::keep_all()
            });
        }
        engine.set_intake(Some(self.spans.intake.clone()));
        engine.recover(self.now).expect("recover");
        engine
    }

    fn exit(&mut self) -> Ended {
        let exit = match self.below(6) {
            0..=2 => Exit::Code { code: 0 },
            3 => Exit::Code { code: 7 },
            4 => Exit::Signal { signal: 9 },
            _ => Exit::Spawn {
                error: "no such program".to_owned(),
                scarce: self.chance(3),
                undecided: self.chance(6),
                denied: self.chance(6),
            },
        };
        let interrupted = !self.steady && self.chance(10);
        Ended {
            exit,
            oom: false,
            interrupted,
            unrecorded: false,
            at: self.now,
            usage: Usage::default(),
            receipt: None,
        }
    }

    /// What the runners do with the engine's effects.
    fn carry_out(&mut self, turned: Turned) {
        for effect in turned.effects {
            match effect {
                Effect::Attach => {}
                Effect::Launch(order) => {
                    let alone = order.spec.profile.is_some();
                    // Without a connection nothing arrives.
                    if alone || self.connected {
                        self.launch(order.key, alone);
                    }
                }
                Effect::Kill(key) => self.end(key, Some(Exit::Signal { signal: 9 })),
                Effect::Terminate(key) => {
                    if self.chance(2) {
                        self.end(key, None);
                    }
                }
                Effect::Freeze(_) | Effect::Thaw(_) => {}
                Effect::Acknowledge(key) => {
                    if let Some(runner) = self.runner_of(key) {
                        runner.ended.remove(&key);
                    }
                }
                Effect::Erase(key) => {
                    self.erased.insert(key);
                }
                Effect::Seek { key, .. } => {
                    self.sought.insert(key);
                }
                Effect::Met { verdict, .. } => match verdict {
                    Verdict::Adopt(key) => {
                        assert!(self.sought.remove(&key), "adopted unsought: {key}");
                        self.met.insert(key);
                    }
                    Verdict::End(key) => {
                        self.alone.live.remove(&key);
                        self.alone.ended.remove(&key);
                    }
                    Verdict::Away => unreachable!("an honest runner was turned away"),
                },
            }
        }
    }

    fn launch(&mut self, key: AttemptKey, alone: bool) {
        let overlap = [&self.runner, &self.alone]
            .iter()
            .flat_map(|runner| &runner.live)
            .any(|live| live.task == key.task && *live != key);
        let runner = if alone {
            self.met.insert(key);
            &mut self.alone
        } else {
            &mut self.runner
        };
        if runner.live.contains(&key) || runner.ended.contains_key(&key) {
            return;
        }
        runner.live.insert(key);
        *self.launched.entry(key).or_default() += 1;
        assert!(!overlap, "two live attempts of task {}", key.task);
    }

    /// The runner that hears of this attempt, if one does.
    fn runner_of(&mut self, key: AttemptKey) -> Option<&mut Runner> {
        if self.met.contains(&key) {
            return Some(&mut self.alone);
        }
        self.connected.then_some(&mut self.runner)
    }

    fn end(&mut self, key: AttemptKey, exit: Option<Exit>) {
        let mut ended = self.exit();
        ended.exit = exit.unwrap_or(ended.exit);
        if let Some(runner) = self.runner_of(key)
            && runner.live.remove(&key)
        {
            runner.ended.insert(key, ended);
        }
    }

    /// What runners of single attempts do by themselves: they end, are lost,
    /// and come back to a daemon that does not know them.
    fn commands_alone(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        let held = |alone: &Runner| -> BTreeSet<_> {
            alone
                .live
                .iter()
                .chain(alone.ended.keys())
                .copied()
                .collect()
        };
        for key in held(&self.alone) {
            match self.below(8) {
                0 if self.met.contains(&key) => self.end(key, None),
                1 if self.met.remove(&key) => {
                    self.alone.live.remove(&key);
                    self.alone.ended.remove(&key);
                    // Had its end been told, this would be one report too many.
                    commands.push(lost(key, self.now));
                }
                2..=4 if !self.met.contains(&key) => commands.push(Command::Dialled {
                    visit: 1,
                    key,
                    uid: 0,
                    trusted: true,
                }),
                _ => {}
            }
        }
        for key in self.sought.difference(&held(&self.alone)) {
            commands.push(lost(*key, self.now));
        }
        let there = held(&self.alone);
        self.sought.retain(|key| there.contains(key));
        for (key, ended) in &self.alone.ended {
            if self.met.contains(key) {
                commands.push(Command::Ended {
                    key: *key,
                    started: None,
                    ended: ended.clone(),
                });
            }
        }
        commands
    }

    /// The daemon is gone, and perhaps its runner, or the whole host.
    fn crash(&mut self) {
        self.connected = false;
        self.met.clear();
        self.sought.clear();
        match self.below(6) {
            0 => {
                self.boot += 1;
                self.alone = Runner::default();
                self.runner = Runner {
                    instance: self.runner.instance + 1,
                    ..Runner::default()
                };
            }
            1 => {
                self.runner = Runner {
                    instance: self.runner.instance + 1,
                    ..Runner::default()
                }
            }
            _ => {}
        }
    }

    fn introduction(&self) -> Command {
        let held = self
            .runner
            .live
            .iter()
            .chain(self.runner.ended.keys())
            .copied()
            .collect();
        Command::RunnerUp(RunnerUp {
            instance: format!("runner-{}", self.runner.instance),
            // A runner in another mount namespace can be shown another boot id.
            boot: format!("boot-{}, as the runner sees it", self.boot),
            version: "1".to_owned(),
            pid: 1,
            abilities: Abilities::default(),
            policy: None,
            held,
        })
    }

    fn reports(&self) -> Vec<Command> {
        let report = |(key, ended): (&AttemptKey, &Ended)| Command::Ended {
            key: *key,
            started: None,
            ended: ended.clone(),
        };
        self.runner.ended.iter().map(report).collect()
    }

    fn some_task(&mut self) -> TaskId {
        let most = self.acknowledged.iter().next_back().map_or(1, |id| id.0);
        TaskId(1 + i64::from(self.below(u32::try_from(most + 2).expect("small"))))
    }

    /// What happens next, and what to look at once it was answered.
    fn commands(&mut self, answers: &mut Vec<Asked>) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut tied = false;
        for _ in 0..self.below(4) {
            match self.below(13) {
                12 => commands.push(self.edit(answers)),
                0..=3 => commands.push(self.submit(answers)),
                // First of all, so that it meets what is known to be there.
                8 | 9 if !tied => {
                    tied = true;
                    let submit = self.submit_graph(answers);
                    commands.insert(0, submit);
                    // Answers are judged in the order of what they answer.
                    answers.rotate_right(1);
                }
                10 => commands.push(self.tree(answers)),
                4 => commands.push(self.cancel(answers)),
                11 => commands.push(self.change_queue(answers)),
                5 if self.chance(4) => commands.push(self.bulk(answers)),
                5 => {
                    let (reply, answer) = oneshot::channel();
                    let id = self.some_task();
                    answers.push(Asked::Other(answer));
                    commands.push(Command::Retry {
                        caller: CALLER,
                        id,
                        reply,
                    });
                }
                _ if self.connected => {
                    if let Some(key) = self.runner.live.iter().next().copied() {
                        self.runner.live.remove(&key);
                        let ended = self.exit();
                        self.runner.ended.insert(key, ended.clone());
                        commands.push(Command::Ended {
                            key,
                            started: None,
                            ended,
                        });
                    }
                }
                _ => {}
            }
        }
        if self.connected && self.chance(5) {
            commands.extend(self.reports());
            self.old.extend(self.runner.ended.keys());
        }
        if self.connected && !self.old.is_empty() && self.chance(5) {
            let most = u32::try_from(self.old.len()).expect("small");
            let place = usize::try_from(self.below(most)).expect("small");
            let key = self.old[place];
            let live = |runner: &Runner| runner.live.contains(&key);
            if !live(&self.runner) && !live(&self.alone) {
                let ended = self.exit();
                commands.push(Command::Ended {
                    key,
                    started: None,
                    ended,
                });
            }
        }
        commands.extend(self.commands_alone());
        if self.connected && self.chance(15) {
            self.connected = false;
            commands.push(Command::RunnerDown);
        } else if !self.connected && self.chance(3) {
            self.connected = true;
            commands.push(self.introduction());
            commands.extend(self.reports());
        }
        commands
    }

    fn cancel(&mut self, answers: &mut Vec<Asked>) -> Command {
        let (reply, answer) = oneshot::channel();
        answers.push(Asked::Other(answer));
        Command::Cancel {
            caller: CALLER,
            id: self.some_task(),
            reply,
        }
    }

    fn edit(&mut self, answers: &mut Vec<Asked>) -> Command {
        let (reply, answer) = oneshot::channel();
        let mut edit = Edit {
            priority: Some(i32::try_from(self.below(3)).expect("small")),
            ..Edit::default()
        };
        if self.chance(2) {
            edit.queue = Some(format!("q{}", self.below(3)));
        }
        if self.chance(2) {
            let later = Duration::from_millis(self.below(9_000).into());
            edit.run_at = Some(self.chance(2).then(|| self.now.after(later)));
        }
        answers.push(Asked::Other(answer));
        Command::Edit(edit::Ask {
            caller: CALLER,
            id: self.some_task(),
            edit: Box::new(edit),
            reply,
        })
    }

    /// A change by filter; nothing is discarded where nothing may be removed.
    fn bulk(&mut self, answers: &mut Vec<Asked>) -> Command {
        let (reply, answer) = oneshot::channel();
        let action = match self.below(3) {
            0 if self.removable => Action::Discard,
            1 => Action::Cancel,
            _ => Action::Retry,
        };
        let states = State::ALL
            .into_iter()
            .filter(|state| action.implies(*state));
        answers.push(Asked::Bulk(answer));
        Command::Record(record::Ask::Bulk(Order {
            caller: CALLER,
            action,
            selection: Selection {
                owner: Some(CALLER.uid),
                states: states.collect(),
                queue: Some(format!("q{}", self.below(3))),
                ..Selection::default()
            },
            dry_run: self.chance(5),
            reply,
        }))
    }

    fn tree(&mut self, answers: &mut Vec<Asked>) -> Command {
        let (reply, answer) = oneshot::channel();
        let id = self.some_task();
        let caller = CALLER;
        answers.push(Asked::Tree(answer));
        Command::Graph(if self.chance(3) {
            Ask::Cancel { caller, id, reply }
        } else {
            Ask::Retry { caller, id, reply }
        })
    }

    fn submit(&mut self, answers: &mut Vec<Asked>) -> Command {
        let (reply, answer) = oneshot::channel();
        let mut new = new_task("true");
        new.queue = format!("q{}", self.below(3));
        new.owner += self.below(2);
        new.priority = i32::try_from(self.below(3)).expect("small");
        if self.chance(2) {
            new.group = Some(format!("g{}", self.below(2)));
        }
        new.spec.retry = Retry {
            max_attempts: 1 + self.below(3),
            ..Retry::default()
        };
        if self.chance(4) {
            new.spec.profile = Some("strict".to_owned());
        }
        if self.chance(3) {
            new.spec.timeout_ms = Some(u64::from(1 + self.below(5_000)));
        }
        if self.chance(3) {
            let on = [
                vec![],
                vec![End::Succeeded],
                vec![End::Failed, End::Expired],
            ];
            let most = u32::try_from(on.len()).expect("small");
            let place = usize::try_from(self.below(most)).expect("small");
            new.spec.hooks = vec![hook(&on[place])];
        }
        if self.chance(4) {
            new.run_at = Some(
                self.now
                    .after(Duration::from_millis(self.below(9_000).into())),
            );
        }
        if self.chance(4) {
            new.spec.queue_ttl_ms = Some(u64::from(1 + self.below(20_000)));
        }
        if self.chance(3) {
            // A repeated key is the same request again.
            if self.chance(2) {
                self.keys += 1;
            }
            new.key = Some(format!("k{}", self.keys));
            new = NewTask {
                key: new.key.clone(),
                ..new_task("true")
            };
        }
        let queues = vec![new.queue.clone()];
        let repeated = new.key.is_some();
        answers.push(Asked::Submit(queues, repeated, Fate::Fine, answer));
        Command::Submit {
            tasks: vec![new],
            reply,
        }
    }

    fn change_queue(&mut self, answers: &mut Vec<Asked>) -> Command {
        let (reply, answer) = oneshot::channel();
        let mut some = |most: u32| (self.below(4) > 0).then(|| 1 + self.below(most));
        let (concurrency, group_limit, starts) = (some(4), some(3), some(3));
        let period = Duration::from_millis(1 + u64::from(self.below(3_000)));
        let change = match self.below(8) {
            0 => Change::Pause,
            1 => Change::Drain,
            2 => Change::Remove,
            3 | 4 => Change::Resume,
            5 => Change::Set(Limits {
                rate: Some(starts.and_then(|count| Rate::new(count, period))),
                ..Limits::default()
            }),
            6 => Change::Set(Limits {
                group_limit: Some(group_limit),
                ..Limits::default()
            }),
            _ => Change::Set(Limits {
                concurrency: Some(concurrency),
                ..Limits::default()
            }),
        };
        let name = format!("q{}", self.below(3));
        answers.push(Asked::Queue(name.clone(), change, answer));
        ask(name, change, reply)
    }

    /// What was answered about a queue is how it is.
    fn changed(&mut self, name: String, change: Change, answer: Result<Lane, Error>) {
        match answer {
            Ok(_) if change == Change::Remove => drop(self.queues.remove(&name)),
            Ok(lane) => drop(self.queues.insert(name, lane.queue)),
            Err(error) => {
                let fits = matches!(error, Error::NoQueue(_) | Error::QueueInUse { .. });
                assert!(fits, "{name}: {change:?}: {error}");
            }
        }
    }

    /// What has to come of a graph, by what is there.
    fn fate(&self, tasks: &[NewTask]) -> Fate {
        let parents = || tasks.iter().flat_map(|new| &new.after);
        let strange = |after: &After| match after.parent {
            Parent::Task(id) => self.there.get(&id).is_none_or(|task| task.owner != 1000),
            Parent::Member(_) => false,
        };
        if parents().any(strange) {
            return Fate::Invalid;
        }
        let unfinished = self.there.values().filter(|task| !task.state.is_terminal());
        let keys = unfinished.filter(|task| task.owner == 1000);
        let mut held: BTreeMap<&str, Option<usize>> = keys
            .filter_map(|task| Some((task.unique.as_deref()?, None)))
            .collect();
        // Whose place each member takes: a member's, or none where it is a task
        // that was there before.
        let mut same: BTreeMap<usize, Option<usize>> = BTreeMap::new();
        for (place, new) in tasks.iter().enumerate() {
            let Some(unique) = &new.unique else { continue };
            match (held.get(unique.key.as_str()), unique.on_conflict) {
                (Some(_), Conflict::Reject) => return Fate::Held,
                (Some(holder), Conflict::Return) => {
                    same.insert(place, *holder);
                }
                (None, _) | (Some(_), Conflict::Replace) => {
                    held.insert(&unique.key, Some(place));
                }
            }
        }
        // Lets go, again and again, whoever waits for nobody in the request.
        let mut left: BTreeSet<usize> = (0..tasks.len())
            .filter(|place| !same.contains_key(place))
            .collect();
        loop {
            let waits = |after: &After| match after.parent {
                Parent::Member(parent) => match same.get(&parent) {
                    Some(holder) => holder.is_some_and(|holder| left.contains(&holder)),
                    None => left.contains(&parent),
                },
                Parent::Task(_) => false,
            };
            let free = |place: &usize| !tasks[*place].after.iter().any(waits);
            let free: Vec<usize> = left.iter().copied().filter(free).collect();
            if free.is_empty() {
                break;
            }
            left.retain(|place| !free.contains(place));
        }
        if left.is_empty() {
            Fate::Fine
        } else {
            Fate::Invalid
        }
    }

    fn submitted(
        &mut self,
        queues: &[String],
        repeated: bool,
        fate: Fate,
        answer: Result<Vec<Submitted>, Error>,
    ) {
        let drains = |name: &String| self.queues.get(name).is_some_and(|queue| queue.draining);
        let found = match &answer {
            Ok(_) | Err(Error::Draining(_)) => Fate::Fine,
            Err(Error::UniqueHeld { .. }) => Fate::Held,
            Err(Error::Invalid { .. }) => Fate::Invalid,
            Err(error) => unreachable!("a good task was refused: {error}"),
        };
        assert_eq!(found, fate, "{answer:?}");
        match answer {
            Ok(submitted) => {
                let open = repeated || !queues.iter().any(drains);
                assert!(open, "taken by a draining queue: {queues:?}");
                let ids = submitted.iter().map(|one| one.id);
                self.acknowledged.extend(ids);
            }
            Err(Error::Draining(name)) => assert!(drains(&name), "{name} is open"),
            Err(_) => {}
        }
    }

    /// Tasks that wait for each other and for others that are there, some with
    /// a unique key.
    fn submit_graph(&mut self, answers: &mut Vec<Asked>) -> Command {
        let (reply, answer) = oneshot::channel();
        let count = 1 + self.below(6);
        let there: Vec<_> = self.acknowledged.iter().copied().collect();
        // Members wait for later ones or for earlier ones, so in no circle.
        let forth = self.chance(2);
        let mut tasks = Vec::new();
        for place in 0..count {
            let mut new = new_task("true");
            new.queue = format!("q{}", self.below(3));
            new.spec.retry.max_attempts = 1 + self.below(2);
            let mut parents = BTreeMap::new();
            for _ in 0..self.below(4) {
                let wants = if self.chance(3) {
                    Wants::Any
                } else {
                    Wants::Ok
                };
                let others = if forth { count - 1 - place } else { place };
                if others > 0 && self.chance(2) {
                    let other = self.below(others);
                    let other = if forth { place + 1 + other } else { other };
                    let other = usize::try_from(other).expect("small");
                    let place = i64::try_from(other).expect("small");
                    parents.insert((0, place), (Parent::Member(other), wants));
                } else if !there.is_empty() {
                    let most = u32::try_from(there.len()).expect("small");
                    // Rather the latest, which are not over yet.
                    let back = self.below(most).min(self.below(most));
                    let id = there[there.len() - 1 - usize::try_from(back).expect("small")];
                    parents.insert((1, id.0), (Parent::Task(id), wants));
                }
            }
            let after = parents.into_values();
            new.after = after
                .map(|(parent, wants)| After { parent, wants })
                .collect();
            if self.chance(4) {
                new.run_at = Some(
                    self.now
                        .after(Duration::from_millis(self.below(5_000).into())),
                );
            }
            if self.chance(6) {
                new.deadline = Some(self.now.after(Duration::from_secs(self.below(30).into())));
            }
            if self.chance(2) {
                let on_conflict = match self.below(3) {
                    0 => Conflict::Reject,
                    1 => Conflict::Return,
                    _ => Conflict::Replace,
                };
                let key = format!("u{}", self.below(3));
                new.unique = Some(Unique { key, on_conflict });
            }
            tasks.push(new);
        }
        let queues = tasks.iter().map(|task| task.queue.clone()).collect();
        let fate = self.fate(&tasks);
        answers.push(Asked::Submit(queues, true, fate, answer));
        Command::Submit { tasks, reply }
    }

    fn advance(&mut self) {
        let step = Duration::from_millis(self.below(2_000).into());
        // Now and then the clock is set, forth or back.
        self.now = match self.below(40) {
            0 => self.now.after(Duration::from_secs(3_600)),
            1 => self.now.before(Duration::from_secs(3_600)),
            _ => self.now.after(step),
        };
    }
}

fn hook(on: &[End]) -> Hook {
    Hook {
        on: Ends(on.to_vec()),
        act: Act::Command(vec!["true".to_owned()]),
    }
}

/// The hook of every task of this host.
fn host_hook() -> Hook {
    hook(&[End::Failed])
}

/// The hook of every task of queue `q0`.
fn queue_hook() -> Hook {
    hook(&[End::Cancelled, End::Succeeded])
}

impl Ledger {
    /// Takes in what happened in a turn, before retention can have removed it.
    fn take(&mut self, store: &mut Sqlite, all: &[Task]) {
        let wanted = Wanted {
            after: self.reached,
            limit: u32::MAX,
            ..Wanted::default()
        };
        let page = store.events(&wanted).expect("read");
        self.torn |= page.oldest > self.reached + 1;
        for entry in &page.entries {
            if let Ok(Ends(ends)) = entry.kind.parse() {
                let queue = entry.queue.clone().unwrap_or_default();
                let ends = ends.into_iter().map(|end| (end, queue.clone()));
                self.ends.entry(entry.task).or_default().extend(ends);
            }
        }
        self.reached = page.last;
        for task in all {
            if let Some(of) = task.spec.hook_of {
                self.made.entry(of).or_default().insert(task.id);
            }
            self.own
                .entry(task.id)
                .or_insert_with(|| task.spec.hooks.clone());
        }
    }

    /// Whatever happened in between, each end of a task has its hooks once, and
    /// hooks have none.
    fn check(&self) {
        // What was removed in the turn in which it came was never seen.
        if self.torn {
            return;
        }
        let (host, queue) = (host_hook(), queue_hook());
        let hooks: BTreeSet<TaskId> = self.made.values().flatten().copied().collect();
        for (task, ends) in &self.ends {
            let Some(own) = self.own.get(task) else {
                continue;
            };
            let all: Vec<_> = own.iter().chain([&host]).collect();
            // Of the queue that it was in then: it may have been moved since.
            let due = |(end, at): &(End, String)| {
                let own = (at == "q0").then_some(&queue);
                let hooks = all.iter().copied().chain(own);
                hooks.filter(|hook| hook.on.include(*end)).count()
            };
            let due = if hooks.contains(task) {
                0
            } else {
                ends.iter().map(due).sum()
            };
            let made = self.made.get(task).map_or(0, BTreeSet::len);
            assert_eq!(made, due, "hooks of {task}: {ends:?}");
        }
    }
}

impl Spans {
    fn new() -> Self {
        let (intake, sent) = Intake::new([1; 32], Share::ALL);
        Self {
            intake,
            sent,
            seen: BTreeMap::new(),
            tasks: BTreeMap::new(),
            attempts: BTreeSet::new(),
            waits: BTreeSet::new(),
        }
    }

    /// Takes in what was sent; none is sent twice.
    fn take(&mut self) {
        while let Ok(span) = self.sent.try_recv() {
            let number = |name: &str| {
                let found = span.facts.iter().find(|(known, _)| *known == name);
                match found {
                    Some((_, Fact::Number(number))) => *number,
                    _ => 0,
                }
            };
            let key = AttemptKey {
                task: TaskId(number("taskdaemon.task.id")),
                number: u32::try_from(number("taskdaemon.attempt")).expect("small"),
            };
            let is_new = self.seen.insert(span.id.bytes(), span.parent).is_none();
            assert!(is_new, "twice: {span:?}");
            assert!(span.begun <= span.ended, "{span:?}");
            let (kind, _) = span.name.split_once(' ').expect("two words");
            match kind {
                "task" => *self.tasks.entry(key.task).or_default() += 1,
                "attempt" => assert!(self.attempts.insert(key), "twice: {span:?}"),
                "wait" => assert!(self.waits.insert(key), "twice: {span:?}"),
                _ => unreachable!("{span:?}"),
            }
        }
        assert_eq!(self.intake.counts().1, 0, "none is dropped");
    }

    /// Each attempt has its spans: of the wait before it, and when it is over.
    fn are_of(&self, attempts: &[Attempt]) {
        for attempt in attempts {
            let told = self.attempts.contains(&attempt.key);
            assert_eq!(told, attempt.outcome.is_some(), "{attempt:?}");
            assert!(self.waits.contains(&attempt.key), "{attempt:?}");
        }
    }

    /// Each end of a task has its span.
    fn check(&self, ledger: &Ledger) {
        for (task, ends) in ledger.ends.iter().filter(|_| !ledger.torn) {
            let told = self.tasks.get(task).copied();
            assert_eq!(told, Some(ends.len()), "task {task}: {ends:?}");
        }
    }

    /// Nothing is below what there is not, once all is over.
    fn whole(&self) {
        let parents = self.seen.values().flatten();
        let orphans = parents.filter(|parent| !self.seen.contains_key(&parent.bytes()));
        assert_eq!(orphans.count(), 0, "spans below nothing");
    }
}

fn lost(key: AttemptKey, at: Time) -> Command {
    let ended = Ended {
        exit: Exit::Lost,
        oom: false,
        interrupted: false,
        unrecorded: false,
        at,
        usage: Usage::default(),
        receipt: None,
    };
    Command::Ended {
        key,
        started: None,
        ended,
    }
}

type Answer<T> = oneshot::Receiver<Result<T, Error>>;

enum Asked {
    /// To which queues, and whether it may have been a repetition.
    Submit(Vec<String>, bool, Fate, Answer<Vec<Submitted>>),
    Queue(String, Change, Answer<Lane>),
    Bulk(Answer<Count>),
    Tree(Answer<Affected>),
    Other(Answer<Task>),
}

fn ask(name: String, change: Change, reply: oneshot::Sender<Result<Lane, Error>>) -> Command {
    Command::Queue(queues::Ask {
        caller: CALLER,
        name,
        change,
        reply,
    })
}

/// What may be at once: of queues, groups, users and the host, each with how
/// many are live and how many may be.
fn limits(world: &World, live: &[&Task]) -> BTreeMap<String, (u32, u32)> {
    let mut found = BTreeMap::new();
    let mut count = |what: String, most: u32| {
        let (now, _) = found.entry(what).or_insert((0, most));
        *now += 1;
    };
    for task in live {
        let queue = world.queues.get(&task.queue).cloned().unwrap_or_default();
        let most = queue.concurrency.unwrap_or(OF_QUEUE);
        count("host".to_owned(), SLOTS);
        if task.queue != "hooks" {
            count(format!("user {}", task.owner), OF_USER);
        }
        count(format!("queue {}", task.queue), most);
        if let Some(group) = &task.group {
            count(
                format!("group {group} of {}", task.queue),
                queue.group_limit(),
            );
        }
    }
    found
}

/// Whenever an attempt began, nothing that it counts for had too many; and
/// lowering a limit ended none.
fn check_limits(world: &mut World, all: &[Task]) {
    let live: Vec<&Task> = all.iter().filter(|task| task.state.is_live()).collect();
    let begun = live
        .iter()
        .filter(|task| !world.live.contains(&task.attempt_key()));
    let begun: Vec<&Task> = begun.copied().collect();
    let touched = limits(world, &begun);
    for (what, (now, most)) in limits(world, &live) {
        assert!(
            !touched.contains_key(&what) || now <= most,
            "{what}: {now} of {most}"
        );
    }
    for task in begun {
        let queue = world.queues.get(&task.queue).cloned().unwrap_or_default();
        assert!(!queue.paused, "task {} began in a paused queue", task.id);
    }
    world.live = live.iter().map(|task| task.attempt_key()).collect();
}

/// Of a group's ready tasks, the first are open, as many as may run.
fn check_groups(world: &World, all: &[Task], shut: &HashSet<TaskId>) {
    let mut groups: BTreeMap<(&String, &String), Vec<&Task>> = BTreeMap::new();
    for task in all {
        if let Some(group) = &task.group {
            groups.entry((&task.queue, group)).or_default().push(task);
        }
    }
    for ((queue, group), tasks) in groups {
        let limit = world.queues.get(queue).map_or(1, Queue::group_limit);
        let live = tasks.iter().filter(|task| task.state.is_live()).count();
        let room = usize::try_from(limit).expect("small").saturating_sub(live);
        let mut ready: Vec<_> = tasks
            .into_iter()
            .filter(|task| task.state == State::Queued)
            .collect();
        ready.sort_by_key(|task| (task.rank(), task.id));
        for (place, task) in ready.iter().enumerate() {
            let is_shut = shut.contains(&task.id);
            assert_eq!(
                is_shut,
                place >= room,
                "{group} of {queue}: {place} of {room}"
            );
        }
    }
}

/// Numbers of events are never given again.
fn grows(world: &mut World, store: &mut Sqlite) {
    let page = store.events(&Wanted::default()).expect("read");
    assert!(page.last >= world.last_event, "numbers of events only grow");
    world.last_event = page.last;
}

/// The last state that the record has of a task.
fn last_state(store: &mut Sqlite, id: TaskId) -> Option<State> {
    let wanted = Wanted {
        task: Some(id),
        limit: 1_000,
        ..Wanted::default()
    };
    let entries = store.events(&wanted).expect("read").entries;
    let mut states = entries.iter().rev();
    states.find_map(|entry| State::from_word(&entry.kind))
}

/// The books by queue say what is there.
fn booked(store: &mut Sqlite, all: &[Task]) {
    for queue in store.queues().expect("read") {
        for state in State::ALL {
            let there = |task: &&Task| task.queue == queue.name && task.state == state;
            let there = u64::try_from(all.iter().filter(there).count()).expect("small");
            let booked = store.count_of_queue(queue.id, state);
            assert_eq!(booked, there, "queue {}, {state}", queue.name);
        }
    }
}

fn unique_keys_are_unique(all: &[Task]) {
    let mut held = BTreeSet::new();
    for task in all.iter().filter(|task| !task.state.is_terminal()) {
        if let Some(key) = &task.unique {
            assert!(held.insert((task.owner, key)), "unique key {key} twice");
        }
    }
}

/// Everything acknowledged is there, attempts have no gaps, nothing waits
/// without a reason, and no more runs than may.
fn check(world: &mut World, engine: &mut Engine<Sqlite>) {
    let snapshot = engine.snapshot().clone();
    world.spans.take();
    let store = engine.store();
    let all = store
        .list(&Filter {
            limit: u32::MAX,
            ..Filter::default()
        })
        .expect("read");
    let crowd = store.crowd(&all).expect("read");
    let present: BTreeSet<_> = all.iter().map(|task| task.id).collect();
    let lost: BTreeSet<_> = world.acknowledged.difference(&present).copied().collect();
    assert!(
        world.removable || lost.is_empty(),
        "acknowledged and lost: {lost:?}"
    );
    // Over when the turn began, or ended in it by what the record says.
    for id in lost.difference(&world.gone) {
        assert!(
            world.over.contains(id) || last_state(store, *id).is_some_and(State::is_terminal),
            "removed and not over: {id}"
        );
    }
    let again: Vec<_> = present.intersection(&world.gone).collect();
    assert!(again.is_empty(), "a number was given twice: {again:?}");
    world.gone.extend(&lost);
    let over = all.iter().filter(|task| task.state.is_terminal());
    world.over = over.map(|task| task.id).collect();
    let mut tally = [0_u64; State::ALL.len()];
    for task in &all {
        let place = State::ALL
            .iter()
            .position(|state| *state == task.state)
            .expect("listed");
        tally[place] += 1;
        let attempts = store.attempts(task.id).expect("read");
        let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.key.number).collect();
        assert_eq!(
            numbers,
            (1..=task.attempt).collect::<Vec<_>>(),
            "attempts of {}",
            task.id
        );
        let live = attempts
            .iter()
            .filter(|attempt| attempt.outcome.is_none())
            .count();
        assert_eq!(
            live,
            usize::from(task.state.is_live()),
            "live attempts of {}",
            task.id
        );
        world.spans.are_of(&attempts);
        assert_eq!(
            explain(task, &crowd, &snapshot).is_none(),
            task.state.is_terminal()
        );
        assert_eq!(task.ended.is_some(), task.state.is_terminal());
        assert!(task.tries <= task.spec.retry.max_attempts);
        tied(store, task);
    }
    unique_keys_are_unique(&all);
    assert_eq!(store.tally(), tally, "the tally is what is there");
    booked(store, &all);
    grows(world, store);
    check_limits(world, &all);
    check_groups(world, &all, &crowd.shut);
    ends_have_what_follows(world, store, &all);
    world.there = all.into_iter().map(|task| (task.id, task)).collect();
}

/// Each end has its hooks and its span.
fn ends_have_what_follows(world: &mut World, store: &mut Sqlite, all: &[Task]) {
    world.hooks.take(store, all);
    world.hooks.check();
    world.spans.check(&world.hooks);
}

/// What is blocked waits for something that can still come, and what is not
/// blocked has nothing left to wait for.
fn tied(store: &mut Sqlite, task: &Task) {
    if task.state.is_terminal() && task.state != State::Skipped {
        return;
    }
    let links = store.parents(task.id).expect("read");
    let unmet: Vec<_> = links.iter().filter(|link| !link.met).collect();
    match task.state {
        State::Blocked => {
            let held = store.held_by(task.id).expect("read").expect("a reason");
            assert_eq!(
                (held.parent, held.more),
                (unmet[0].parent, unmet.len() as u64 - 1),
                "{task:?}"
            );
            for link in unmet {
                let state = link.state.expect("nothing is pruned here");
                assert!(
                    !state.is_terminal(),
                    "blocked by what is over: {task:?} {link:?}"
                );
            }
        }
        State::Skipped => {
            let why = &task.outcome.as_ref().expect("why").message;
            assert!(why.starts_with("task "), "{why}");
        }
        State::Succeeded | State::Failed | State::Cancelled | State::Expired => {}
        State::Scheduled | State::Queued | State::Running | State::Paused | State::Stopping => {
            assert_eq!(unmet, Vec::<&Link>::new(), "not blocked: {task:?}");
        }
    }
}

/// By the record of events, no task ran before all it waits for had ended as
/// it has to.
fn in_turn(dir: &Path) -> usize {
    let raw = rusqlite::Connection::open(dir.join("taskdaemon.db")).expect("open");
    let mut sql = raw
        .prepare(
            "SELECT count(*), coalesce(sum(NOT EXISTS (SELECT 1 FROM event AS o \
             WHERE o.task = e.parent AND o.seq < r.seq AND (o.kind = 'succeeded' OR (e.wants = 1 \
             AND o.kind IN ('failed', 'cancelled', 'skipped', 'expired'))))), 0) \
             FROM edge AS e JOIN event AS r ON r.task = e.child AND r.kind = 'running'",
        )
        .expect("prepare");
    let (ran, early): (usize, usize) = sql
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("count");
    assert_eq!(early, 0, "ran too early");
    ran
}

/// Launches repeated to one runner are ignored by it; a new runner never gets
/// an old attempt.
fn run(seed: u64, turns: u32) -> usize {
    // Crashes here are of the process, not of the machine: memory will do.
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("directory");
    let mut world = World::new(seed);
    let mut engine = world.open(dir.path());
    let (reply, _) = oneshot::channel();
    let ask = hooks::Ask::SetOfQueue {
        actor: 0,
        queue: "q0".to_owned(),
        hooks: vec![queue_hook()],
        reply,
    };
    let turned = engine.turn(vec![Command::Hook(ask)], world.now);
    world.carry_out(turned.expect("turn"));
    for _ in 0..turns {
        world.advance();
        let mut asked = Vec::new();
        let mut bulks = Vec::new();
        let commands = world.commands(&mut asked);
        let turned = engine.turn(commands, world.now).expect("turn");
        for answer in asked {
            match answer {
                Asked::Submit(queues, repeated, fate, mut answer) => {
                    let answer = answer.try_recv().expect("answered in its turn");
                    world.submitted(&queues, repeated, fate, answer);
                }
                Asked::Queue(name, change, mut answer) => {
                    let answer = answer.try_recv().expect("answered in its turn");
                    world.changed(name, change, answer);
                }
                // Several turns may pass; a crash forgets the question.
                Asked::Bulk(answer) => bulks.push(answer),
                Asked::Tree(mut answer) => drop(answer.try_recv().expect("answered in its turn")),
                Asked::Other(mut answer) => drop(answer.try_recv().expect("answered in its turn")),
            }
        }
        // The daemon dies: before its effects went out, or after.
        if world.chance(25) {
            if world.chance(2) {
                world.carry_out(turned);
            }
            drop(engine);
            world.crash();
            engine = world.open(dir.path());
        } else {
            world.carry_out(turned);
        }
        check(&mut world, &mut engine);
        for mut answer in bulks {
            if let Ok(count) = answer.try_recv() {
                let count = count.expect("a good filter");
                assert!(count.changed + count.refused <= count.matched);
            }
        }
    }
    let twice: Vec<_> = world
        .launched
        .iter()
        .filter(|(_, count)| **count > 1)
        .collect();
    assert!(twice.is_empty(), "launched twice: {twice:?}");
    settle(&mut world, &mut engine);
    in_turn(dir.path())
}

/// A runner that was told to stop gets nothing more; this one was not.
fn stay(runner: &mut Runner) {
    for ended in runner.ended.values_mut() {
        ended.interrupted = false;
    }
}

fn retention_keeps_its_bounds(world: &mut World, engine: &mut Engine<Sqlite>) {
    for _ in 0..20 {
        world.now = world.now.after(Duration::from_secs(61));
        drop(engine.turn(Vec::new(), world.now).expect("turn"));
    }
    let over: u64 = engine.store().tally().iter().sum();
    assert!(over <= 12, "retention leaves {over}");
    let page = engine.store().events(&Wanted::default()).expect("read");
    assert!(
        page.last - page.oldest < 200,
        "{} to {}",
        page.oldest,
        page.last
    );
}

/// Left alone with a runner, everything comes to an end.
fn settle(world: &mut World, engine: &mut Engine<Sqlite>) {
    stay(&mut world.runner);
    world.steady = true;
    world.connected = true;
    let mut commands = vec![Command::RunnerDown, world.introduction()];
    for name in ["q0", "q1", "q2"] {
        let (reply, _) = oneshot::channel();
        commands.push(ask(name.to_owned(), Change::Resume, reply));
        if let Some(queue) = world.queues.get_mut(name) {
            (queue.paused, queue.draining) = (false, false);
        }
    }
    commands.extend(world.reports());
    let turned = engine.turn(commands, world.now).expect("turn");
    world.carry_out(turned);
    // After every turn: what this one makes can be over, and removed, in the next.
    check(world, engine);
    for _ in 0..2_000 {
        let counts = engine.snapshot().counts;
        let unfinished: u64 = State::ALL
            .iter()
            .zip(counts)
            .filter(|(state, _)| !state.is_terminal())
            .map(|(_, count)| count)
            .sum();
        let told = world.runner.ended.is_empty() && world.alone.ended.is_empty();
        if unfinished == 0 && told {
            break;
        }
        world.now = world.now.after(Duration::from_secs(3_600));
        let live: Vec<_> = world.runner.live.iter().copied().collect();
        for key in live {
            world.runner.live.remove(&key);
            let mut ended = world.exit();
            ended.interrupted = false;
            world.runner.ended.insert(key, ended);
        }
        stay(&mut world.runner);
        let mut commands = world.reports();
        commands.extend(world.commands_alone());
        let turned = engine.turn(commands, world.now).expect("turn");
        world.carry_out(turned);
        check(world, engine);
    }
    check(world, engine);
    let all = engine
        .store()
        .list(&Filter {
            limit: u32::MAX,
            ..Filter::default()
        })
        .expect("read");
    if world.removable {
        retention_keeps_its_bounds(world, engine);
    }
    world.spans.whole();
    let open: Vec<_> = all
        .iter()
        .filter(|task| !task.state.is_terminal())
        .collect();
    assert!(open.is_empty(), "never ended: {open:?}");
    assert!(
        world.runner.ended.is_empty() && world.alone.ended.is_empty(),
        "never acknowledged: {:?} {:?}",
        world.runner.ended.keys(),
        world.alone.ended.keys()
    );
}

/// Seeds of histories that once found something.
const ONCE_FAILED: [u64; 1] = [648_151_066];

#[test]
fn no_history_loses_or_doubles_a_task() {
    let seeds: Vec<u64> = match std::env::var("TASKDAEMON_SIM_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => {
            let base = u64::from(std::process::id()) << 16;
            let fresh = (0..30).map(|n| base + n);
            fresh.chain(0..10).chain(ONCE_FAILED).collect()
        }
    };
    let replayed = seeds.len() == 1;
    let mut ran = 0;
    for seed in seeds {
        eprintln!("TASKDAEMON_SIM_SEED={seed}");
        ran += run(seed, 150);
    }
    assert!(replayed || ran > 0, "nothing waited and ran");
}
