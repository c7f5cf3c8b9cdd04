//! Floor 2: the engine, the one owner of all state.
//!
//! A turn takes the commands that are waiting, applies them to the store in
//! one transaction, lets the clock and the free slots have their say in the
//! same transaction, commits once, and only then answers and sends effects.
//! There is no lock and no await in it; [`actor`] is the thread that turns it,
//! and tests turn it by hand with an invented clock.

pub mod accounts;
pub mod actor;
mod admit;
pub mod agents;
mod answer;
mod apply;
pub mod budgets;
pub mod bulk;
pub mod called;
pub mod calls;
pub mod clocks;
pub mod closed;
pub mod command;
pub mod counted;
mod damage;
pub mod edit;
pub mod effect;
mod feed;
pub mod graph;
pub mod handle;
pub mod health;
pub mod hooks;
mod launch;
mod lot;
mod news;
pub mod options;
mod overlap;
pub mod picture;
mod profile;
pub mod promise;
pub mod prompts;
pub mod queues;
mod quota;
pub mod reader;
pub mod record;
pub mod refuse;
pub mod relay;
pub mod retention;
pub mod runner;
pub mod schedules;
mod shift;
pub mod signs;
pub mod snapshot;
pub mod spans;
mod storm;
mod unique;
mod waiters;
mod wal;
pub mod why;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use crate::model::admit::Served;
use crate::model::attempt::AttemptKey;
use crate::model::id::TaskId;
use crate::model::origin::Origin;
use crate::model::task::{Event, Task};
use crate::model::time::Time;
use crate::store::disk::Shortage;
use crate::store::{self, Store};

use answer::Answer;
use command::{Command, Reply, View};
use effect::Effect;
use graph::Over;
use hooks::Hooks;
use news::News;
use options::Options;
use promise::Promise;
use prompts::Prompts;
use quota::Submits;
use runner::RunnerUp;
use snapshot::{Phase, Snapshot};
use spans::Spans;

/// Timers handled between two looks at the database.
const WAKES: u32 = 1_000;

/// What a turn leads to outside, once it is committed.
#[derive(Debug, Default)]
pub struct Turned {
    /// To be done, in order.
    pub effects: Vec<Effect>,
    /// When the next turn is due if no command comes before.
    pub next: Option<Time>,
    /// Whether the engine was told to end.
    pub over: bool,
}

/// Owner of the store and of everything decided from it.
#[derive(Debug)]
pub struct Engine<S> {
    store: S,
    options: Options,
    hooks: Hooks,
    prompts: Prompts,
    boot: String,
    runner: Option<Arc<RunnerUp>>,
    /// Held by the runner and not live here. Their numbers are taken until it
    /// has let go of them: it would take a launch for one it has carried out.
    strangers: HashSet<AttemptKey>,
    waiters: HashMap<TaskId, Vec<Reply<View>>>,
    line: relay::Line,
    /// What asked for the change that is being made.
    origin: Origin,
    answers: Vec<Answer>,
    over: Vec<Task>,
    /// Those that ended, and whose dependants have not been told yet.
    fallen: VecDeque<Over>,
    news: Vec<News>,
    spans: Spans,
    turned: Turned,
    jobs: bulk::Jobs,
    walk: retention::Walk,
    /// Set while the disk has too little room for new tasks.
    shortage: Option<Shortage>,
    /// Whether something may have become startable since the last look.
    hungry: bool,
    /// When a rate next lets something start that waits for it.
    next_start: Option<Time>,
    /// Whether groups have still to follow a new group limit.
    regrouping: bool,
    served: Served,
    submits: Submits,
    /// The next nominal time of all schedules.
    next_tick: Option<Time>,
    snapshot: Snapshot,
    told: watch::Sender<Snapshot>,
}

impl<S: Store> Engine<S> {
    /// An engine over a store. `boot` is the kernel's boot id: attempts of
    /// another boot are over, and are settled in the first turn.
    pub fn new(store: S, options: Options, boot: String) -> Self {
        Self {
            store,
            options,
            hooks: Hooks::default(),
            prompts: Prompts::default(),
            boot,
            runner: None,
            strangers: HashSet::new(),
            waiters: HashMap::new(),
            line: relay::Line::new(),
            origin: Origin::NONE,
            answers: Vec::new(),
            over: Vec::new(),
            fallen: VecDeque::new(),
            news: Vec::new(),
            spans: Spans::default(),
            turned: Turned::default(),
            jobs: bulk::Jobs::new(),
            walk: retention::Walk::new(),
            shortage: None,
            hungry: true,
            next_start: None,
            regrouping: true,
            served: Served::default(),
            submits: Submits::default(),
            next_tick: None,
            snapshot: Snapshot::default(),
            told: watch::Sender::default(),
        }
    }

    /// Settles what another boot of the host left behind, and has the runners
    /// of single attempts looked for; the first turn's effects say which.
    ///
    /// # Errors
    /// The store failed.
    pub fn recover(&mut self, now: Time) -> Result<(), store::Error> {
        self.store.begin()?;
        self.open_accounts()?;
        self.open_agents(now)?;
        self.lose_relayed(now)?;
        for attempt in self.sound(now, S::live)? {
            if attempt.boot != self.boot {
                self.lose(attempt.key, now)?;
            } else if attempt.is_alone() {
                self.seek(attempt);
            }
        }
        self.fall_back(now)?;
        failpoint!("engine/recover/before");
        self.store.commit()?;
        self.spans.send();
        self.snapshot.phase = Phase::Running;
        self.publish(now);
        Ok(())
    }

    /// One turn. Whoever waits for an answer has it when this returns.
    ///
    /// # Errors
    /// The store failed: every answer of this turn was "unknown", and the
    /// engine must not be used any more.
    pub fn turn(&mut self, commands: Vec<Command>, now: Time) -> Result<Turned, store::Error> {
        self.turn_ahead(commands, now, |_| None)
    }

    /// The same. `ahead` sees what will follow just before the commit, and may
    /// take it.
    ///
    /// # Errors
    /// As [`Engine::turn`]; what `ahead` took must not be done.
    pub fn turn_ahead(
        &mut self,
        commands: Vec<Command>,
        now: Time,
        ahead: impl FnOnce(&mut Vec<Effect>) -> Option<Promise>,
    ) -> Result<Turned, store::Error> {
        let count = commands.len();
        let result = self.work(commands, now).and_then(|()| {
            let promised = ahead(&mut self.turned.effects);
            failpoint!("engine/commit/before");
            self.store.commit()?;
            failpoint!("engine/commit/after");
            promised.into_iter().for_each(Promise::keep);
            Ok(())
        });
        let answers = std::mem::take(&mut self.answers);
        let news = std::mem::take(&mut self.news);
        match &result {
            Ok(()) => {
                self.snapshot.commits += 1;
                self.snapshot.commands += u64::try_from(count).unwrap_or(u64::MAX);
                // First, so that whoever has an answer finds it in the figures.
                self.publish(now);
                self.spans.send();
                answers.into_iter().for_each(Answer::send);
                failpoint!("engine/answers/after");
                news.iter().for_each(News::log);
            }
            Err(_) => {
                self.snapshot.phase = Phase::Failed;
                self.tell(now);
                answers.into_iter().for_each(Answer::send_unknown);
            }
        }
        result.map(|()| std::mem::take(&mut self.turned))
    }

    /// The store, for tests that look behind the engine's back.
    pub const fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// All of a turn but its commit.
    fn work(&mut self, commands: Vec<Command>, now: Time) -> Result<(), store::Error> {
        self.store.begin()?;
        let over = ends(&commands);
        for command in commands {
            if !matches!(&command, Command::Started { key, .. } if over.contains(key)) {
                self.apply(command, now)?;
            }
        }
        self.wake(now)?;
        self.wake_agents(now)?;
        self.step_bulk(now)?;
        self.remove_old(now)?;
        if !self.turned.over && self.tick_due(now).is_some_and(|at| at <= now) {
            self.tick(now)?;
        }
        let is_due = self.next_start.is_some_and(|at| at <= now);
        if (self.hungry || is_due) && !self.turned.over {
            self.start(now)?;
        }
        self.tell_waiters(now)?;
        let wake = self.store.next_wake()?;
        let more = (!self.jobs.is_empty()).then_some(now);
        let due = self.retention_due();
        let agents = self.snapshot.agents.next;
        let next = [wake, self.tick_due(now), self.next_start, more, due, agents];
        self.turned.next = next.into_iter().flatten().min();
        Ok(())
    }

    fn wake(&mut self, now: Time) -> Result<(), store::Error> {
        loop {
            let due = self.sound(now, |store| store.awake(now, WAKES))?;
            let full = due.len() >= usize::try_from(WAKES).unwrap_or(usize::MAX);
            for task in due {
                let task = self.refreshed(task, now)?;
                // Refused by no state, so there is nobody to tell. Those behind
                // it come later: some of them may be in this very list.
                let _step = self.shift(task, Event::Wake, None, now)?;
            }
            self.release(now)?;
            if !full {
                return Ok(());
            }
        }
    }
}

/// Attempts whose end is among these commands: that tells their start as well.
fn ends(commands: &[Command]) -> HashSet<AttemptKey> {
    let ended = |command: &Command| {
        let Command::Ended {
            key,
            started: Some(_),
            ..
        } = command
        else {
            return None;
        };
        Some(*key)
    };
    commands.iter().filter_map(ended).collect()
}
