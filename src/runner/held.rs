//! What the runner knows of one attempt, from launch to acknowledgement.
//!
//! State only; `children.rs` moves it on.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::capture::Capture;
use super::line::Line;
use super::notices::Notices;
use super::tree;
use crate::model::attempt::{AttemptKey, Ended, Exit, Launch, Started};
use crate::model::time::Time;

/// Wait before the first second look at what is left of an attempt.
const RETRY_FIRST: Duration = Duration::from_millis(1);
/// Longest wait between two looks.
const RETRY_LAST: Duration = Duration::from_secs(1);

/// An attempt that is live, or over and not acknowledged.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: AttemptKey,
    /// Where and as whom; absent until `exec`, and for ever if it failed.
    pub(super) started: Option<Started>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Live(Box<Live>),
    Over(Ended),
}

/// An attempt of which something may still run.
#[derive(Debug)]
pub(super) struct Live {
    /// What was asked, without the environment.
    pub(super) launch: Launch,
    pub(super) begun: Started,
    pub(super) process: Process,
    /// Where the child says that `exec` failed; gone once it was heard.
    pub(super) exec: Option<File>,
    /// What it said.
    pub(super) fault: Option<(String, bool)>,
    pub(super) out: Option<File>,
    pub(super) err: Option<File>,
    pub(super) capture: Capture,
    /// What it says about itself; absent where it has no socket for that.
    pub(super) notices: Option<Notices>,
    /// Name of its cgroup.
    pub(super) group: Option<String>,
    /// How the first process ended, and when.
    pub(super) exit: Option<(Exit, Time)>,
    /// Nothing of the attempt runs any more.
    pub(super) empty: bool,
    pub(super) interrupted: bool,
    /// Its daemon ended before it began.
    pub(super) unrecorded: bool,
    pub(super) used: super::cgroup::Counted,
    pub(super) looks: u32,
}

/// What an attempt runs in.
#[derive(Debug)]
pub(super) enum Process {
    /// A first process of its own.
    Own(OwnedFd),
    /// The process of several calls.
    Shared {
        /// The way to it; gone when the call is over.
        line: Option<Line>,
        /// Which of them it is.
        caller: u32,
    },
}

/// All attempts, by a number that is theirs in this process only.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<u32, Held>,
    ids: HashMap<AttemptKey, u32>,
    last: u32,
}

impl Table {
    /// Adds an attempt; its key is not in the table yet.
    pub(super) fn insert(&mut self, held: Held) -> u32 {
        // A number comes again after four thousand million attempts; by then
        // its first owner is long acknowledged.
        self.last = self.last.wrapping_add(1);
        self.ids.insert(held.key, self.last);
        self.rows.insert(self.last, held);
        self.last
    }

    pub(super) fn id(&self, key: AttemptKey) -> Option<u32> {
        self.ids.get(&key).copied()
    }

    pub(super) fn get(&mut self, id: u32) -> Option<&mut Held> {
        self.rows.get_mut(&id)
    }

    pub(super) fn live(&mut self, id: u32) -> Option<&mut Live> {
        self.rows.get_mut(&id).and_then(Held::live)
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Some(held) = self.rows.remove(&id) {
            self.ids.remove(&held.key);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Held)> {
        self.rows.iter().map(|(id, held)| (*id, held))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Numbers of the attempts of which something may still run.
    pub(super) fn live_ids(&self) -> Vec<u32> {
        self.iter()
            .filter(|(_, held)| held.over().is_none())
            .map(|(id, _)| id)
            .collect()
    }

    /// First processes that are not reaped.
    pub(super) fn leaders(&self) -> Vec<i32> {
        self.rows.values().filter_map(Held::leader).collect()
    }
}

impl Held {
    pub(super) fn live(&mut self) -> Option<&mut Live> {
        match &mut self.state {
            State::Live(live) => Some(live),
            State::Over(_) => None,
        }
    }

    pub(super) const fn over(&self) -> Option<&Ended> {
        match &self.state {
            State::Live(_) => None,
            State::Over(ended) => Some(ended),
        }
    }

    /// First process, as long as it is not reaped.
    pub(super) fn leader(&self) -> Option<i32> {
        match &self.state {
            State::Live(live) if live.exit.is_none() && live.is_alone() => Some(live.pid()),
            State::Live(_) | State::Over(_) => None,
        }
    }
}

impl Live {
    /// Whether its process is its own.
    pub(super) const fn is_alone(&self) -> bool {
        matches!(self.process, Process::Own(_))
    }

    pub(super) const fn pid(&self) -> i32 {
        self.begun.pid.cast_signed()
    }

    /// The number of its first process, as long as it means nobody else.
    pub(super) fn number(&self) -> Option<i32> {
        let pid = self.pid();
        (self.exit.is_none() || !tree::is_used_again(pid)).then_some(pid)
    }

    /// How long to wait before the next look at what is left.
    pub(super) fn next_look(&mut self) -> Duration {
        let wait = RETRY_FIRST.saturating_mul(1 << self.looks.min(10));
        self.looks += 1;
        wait.min(RETRY_LAST)
    }
}
