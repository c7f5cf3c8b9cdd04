//! The engine's figures: one value that status, health, metrics and `STATUS=`
//! all read.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::model::id::TaskId;
use crate::model::reason::Reason;
use crate::model::task::State;
use crate::model::time::Time;
use crate::store::Store;
use crate::store::disk::{Room, Shortage};

use super::Engine;
use super::accounts::Accounts;
use super::agents::Agents;
use super::closed::Closed;
use super::counted::Counted;
use super::runner::RunnerUp;
use super::signs::Signs;

/// What the engine is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Opening and recovering.
    #[default]
    Starting,
    /// At work.
    Running,
    /// Starting nothing more.
    Stopping,
    /// Storage failed; the process is about to end.
    Failed,
}

/// Figures as of one turn of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is doing.
    pub phase: Phase,
    /// Tasks in each state, in the order of [`State::ALL`].
    pub counts: [u64; State::ALL.len()],
    /// Slots there are.
    pub slots: u32,
    /// Attempts at once in a queue that has no limit of its own.
    pub queue_concurrency: Option<u32>,
    /// Attempts at once of one user.
    pub user_running: Option<u32>,
    /// Slots in use.
    pub used: u32,
    /// The connected runner.
    pub runner: Option<Arc<RunnerUp>>,
    /// What live attempts say of themselves.
    pub signs: Signs,
    /// What was counted since start.
    pub counted: Counted,
    /// Commits since start.
    pub commits: u64,
    /// Commands carried out since start.
    pub commands: u64,
    /// Number of the last event.
    pub last_event: i64,
    /// Set while the disk has too little room for new tasks.
    pub shortage: Option<Shortage>,
    /// Whether that is so little that nothing is written.
    pub full: bool,
    /// Whether the file system of the state directory is read-only.
    pub read_only: bool,
    /// Whether another process holds the database's lock.
    pub locked: bool,
    /// Bytes of the database's write-ahead log.
    pub log_bytes: u64,
    /// Whether that is much longer than it should be.
    pub long_log: bool,
    /// Set while nobody can say as whom tasks may run, so that none is started.
    pub closed: Option<Closed>,
    /// Models, and how the accounts behind them stand.
    pub calls: Arc<Accounts>,
    /// What running tasks wait for that want a call of a model.
    pub waits: Arc<BTreeMap<TaskId, Reason>>,
    /// Agents, and where their instances stand.
    pub agents: Arc<Agents>,
    /// The next nominal time of all schedules; those that are past are due.
    pub next_tick: Option<Time>,
    /// When the engine's last turn ended.
    pub turned: Time,
    /// Since when it lacks what it lacks.
    pub since: Since,
}

/// Since when something is not as it should be; none where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Since {
    /// There is too little room on the disk.
    pub shortage: Option<Time>,
    /// The disk is read-only.
    pub read_only: Option<Time>,
    /// Another process holds the database's lock.
    pub locked: Option<Time>,
    /// The database's log is too long.
    pub long_log: Option<Time>,
    /// There is no runner.
    pub no_runner: Option<Time>,
    /// Nobody can say as whom tasks may run.
    pub closed: Option<Time>,
}

impl Snapshot {
    /// Tasks in one state.
    #[must_use]
    pub fn count(&self, state: State) -> u64 {
        State::ALL
            .iter()
            .position(|other| *other == state)
            .map_or(0, |index| self.counts[index])
    }

    /// Notes since when it lacks what it lacks now.
    pub(super) fn mark(&mut self, now: Time) {
        let since = &mut self.since;
        for (lacks, slot) in [
            (self.shortage.is_some(), &mut since.shortage),
            (self.read_only, &mut since.read_only),
            (self.locked, &mut since.locked),
            (self.long_log, &mut since.long_log),
            (self.runner.is_none(), &mut since.no_runner),
            (self.closed.is_some(), &mut since.closed),
        ] {
            *slot = lacks.then(|| slot.unwrap_or(now));
        }
    }
}

impl<S: Store> Engine<S> {
    /// Figures as of the last turn.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// A receiver that wakes when the figures change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.told.subscribe()
    }

    /// Brings the figures up to date, and tells them.
    pub(super) fn publish(&mut self, now: Time) {
        self.snapshot.counts = self.store.tally();
        self.snapshot.last_event = self.store.last_event();
        let live = State::ALL.into_iter().filter(|state| state.is_live());
        let used: u64 = live.map(|state| self.snapshot.count(state)).sum();
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        // Calls of models take no slots, nor do agents.
        let free = self.snapshot.calls.own.saturating_add(self.live_agents());
        self.snapshot.used = used.saturating_sub(free);
        self.snapshot.slots = self.options.slots;
        self.snapshot.queue_concurrency = self.options.queue_concurrency;
        self.snapshot.user_running = self.options.user_running;
        self.snapshot.runner.clone_from(&self.runner);
        self.snapshot.next_tick = self.next_tick;
        self.snapshot.turned = now;
        self.tell(now);
    }

    /// Tells the figures as they are.
    pub(super) fn tell(&mut self, now: Time) {
        self.snapshot.shortage = self.shortage;
        self.snapshot.mark(now);
        self.told.send_replace(self.snapshot.clone());
    }

    /// Learns what the disk has room for; new tasks are refused while that is
    /// too little.
    pub const fn disk(&mut self, room: Room) {
        self.shortage = match room {
            Room::Low(shortage) | Room::None(shortage) => Some(shortage),
            Room::Ample | Room::ReadOnly => None,
        };
        self.snapshot.full = matches!(room, Room::None(_));
        self.snapshot.read_only = matches!(room, Room::ReadOnly);
    }

    /// Learns how long the database's log is, and whether that is too long.
    pub const fn log_length(&mut self, bytes: u64, is_long: bool) {
        self.snapshot.log_bytes = bytes;
        self.snapshot.long_log = is_long;
    }

    /// Learns whether another process holds the database's lock.
    pub(super) const fn locked(&mut self, locked: bool) {
        self.snapshot.locked = locked;
    }
}
