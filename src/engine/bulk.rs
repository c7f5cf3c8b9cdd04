//! One change for many tasks: retry, cancel or discard what a filter selects.
//!
//! The walk over all tasks goes by number, a bounded number of them a turn and
//! each turn a transaction of its own, so that a million tasks hold nobody up.
//! Tasks accepted after it began are not touched. When it is through, whoever
//! asked is told how many tasks were changed; a change that was begun is
//! finished whether or not anyone still listens.

use std::collections::VecDeque;

use crate::model::agent;
use crate::model::event::Kind;
use crate::model::filter::{Selection, Window};
use crate::model::id::TaskId;
use crate::model::origin::Origin;
use crate::model::task::{Event, State};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::command::{Caller, Error, Reply};

/// Most tasks changed in one turn.
const STEP: u32 = 500;
/// Most tasks looked at in one turn.
const LOOK: u32 = 2_000;
/// Most changes that may wait for each other.
const WAITING: usize = 64;

/// What is done to each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is run again.
    Retry,
    /// It is cancelled.
    Cancel,
    /// It is removed with all that is known of it but the events.
    Discard,
}

impl Action {
    /// The word used in paths and messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Discard => "discard",
        }
    }

    /// Whether tasks in this state can be meant.
    #[must_use]
    pub const fn fits(self, state: State) -> bool {
        match self {
            Self::Retry | Self::Discard => state.is_terminal(),
            Self::Cancel => !state.is_terminal(),
        }
    }

    /// Whether tasks in this state are meant where no state is named.
    #[must_use]
    pub const fn implies(self, state: State) -> bool {
        match self {
            Self::Retry => matches!(state, State::Failed),
            Self::Cancel | Self::Discard => self.fits(state),
        }
    }
}

/// What became of the tasks that were selected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Tasks that the filter selects.
    pub matched: u64,
    /// Those that were changed.
    pub changed: u64,
    /// Those that were not, because they may not be as they are.
    pub refused: u64,
}

/// A change that is asked for.
#[derive(Debug)]
pub struct Order {
    /// Who asks.
    pub caller: Caller,
    /// What is to be done.
    pub action: Action,
    /// To which tasks.
    pub selection: Selection,
    /// Only count them.
    pub dry_run: bool,
    /// How it went.
    pub reply: Reply<Count>,
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Job {
    order: Order,
    after: TaskId,
    until: TaskId,
    count: Count,
}

/// Changes under way and waiting, first to last.
pub(super) type Jobs = VecDeque<Job>;

impl<S: Store> Engine<S> {
    /// Takes a change in.
    pub(super) fn begin_bulk(&mut self, order: Order) {
        if self.jobs.len() >= WAITING {
            let busy = Answer::Counted(order.reply, Err(Error::Busy));
            self.answers.push(busy);
            return;
        }
        self.jobs.push_back(Job {
            order,
            after: TaskId(0),
            until: self.store.last_task(),
            count: Count::default(),
        });
    }

    /// One step of the first change.
    pub(super) fn step_bulk(&mut self, now: Time) -> Result<(), store::Error> {
        let Some(mut job) = self.jobs.pop_front() else {
            return Ok(());
        };
        let window = Window {
            after: job.after,
            until: job.until,
            look: LOOK,
            take: STEP,
        };
        self.origin = job.order.caller.origin;
        let found = self.store.matching(&job.order.selection, window)?;
        failpoint!("engine/bulk/found");
        for id in found.ids {
            job.count.matched += 1;
            if job.order.dry_run {
                continue;
            }
            if self.change_one(&job.order, id, now)? {
                job.count.changed += 1;
            } else {
                job.count.refused += 1;
            }
        }
        self.origin = Origin::NONE;
        match found.reached {
            Some(reached) if reached < job.until => {
                job.after = reached;
                self.jobs.push_front(job);
            }
            _ => {
                let answer = Answer::Counted(job.order.reply, Ok(job.count));
                self.answers.push(answer);
            }
        }
        Ok(())
    }

    /// Whether the task could be changed.
    fn change_one(&mut self, order: &Order, id: TaskId, now: Time) -> Result<bool, store::Error> {
        let caller = order.caller;
        if order.action == Action::Discard {
            return self.discard(id, Some(caller.uid), now);
        }
        let Some(task) = self.sound(now, |store| store.task(id))? else {
            return Ok(false);
        };
        // A run that is cancelled starts anew: only who names their queue means
        // runs of agents.
        let queue = order.selection.queue.as_deref();
        if task.spec.run.is_some() && queue != Some(agent::QUEUE) {
            return Ok(false);
        }
        let asked = match order.action {
            Action::Retry => self.again(task, caller, now)?,
            Action::Cancel | Action::Discard => {
                self.change(task, (Kind::CancelAsked, Event::Cancel), caller, now)?
            }
        };
        Ok(asked.is_ok())
    }

    fn discard(&mut self, id: TaskId, actor: Option<u32>, now: Time) -> Result<bool, store::Error> {
        let over = self.store.one_over(id)?;
        let Some(over) = over.filter(|over| !over.wanted) else {
            return Ok(false);
        };
        if let Some(task) = self.sound(now, |store| store.task(id))? {
            self.record(&task, Kind::Removed, actor, now)?;
        }
        self.remove_task(&over)?;
        Ok(true)
    }
}
