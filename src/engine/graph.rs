//! Tasks that wait for others: how they are tied together when they come, let
//! go or skipped when what they wait for ends, and run again or cancelled
//! with those that hang on them.
//!
//! The end of a task and what it means for everyone behind it are one
//! transaction. That goes step by step and not by recursion, so a long chain
//! costs time and no stack.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::attempt::Outcome;
use crate::model::depend::{in_order, why_skipped};
use crate::model::event::Kind;
use crate::model::id::TaskId;
use crate::model::spec::{NewTask, Parent, Wants};
use crate::model::task::{Event, State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::command::{Caller, Error, Reply, Submitted};

/// What can be asked about a task together with those that hang on it.
#[derive(Debug)]
pub enum Ask {
    /// Cancel it and everything behind it that is not over.
    Cancel {
        /// Who asks.
        caller: Caller,
        /// Which.
        id: TaskId,
        /// What was changed.
        reply: Reply<Affected>,
    },
    /// Run it again, and those behind it that were skipped.
    Retry {
        /// Who asks.
        caller: Caller,
        /// Which.
        id: TaskId,
        /// What was changed.
        reply: Reply<Affected>,
    },
}

/// A task, and what happened to those behind it.
#[derive(Debug, Clone)]
pub struct Affected {
    /// The task.
    pub task: Task,
    /// How many of those behind it were changed as well.
    pub dependants: u64,
}

/// A task that has ended, as far as those that wait for it are concerned.
#[derive(Debug)]
pub(super) struct Over {
    id: TaskId,
    state: State,
    outcome: Option<Outcome>,
}

impl Over {
    pub(super) fn of(task: &Task) -> Self {
        Self {
            id: task.id,
            state: task.state,
            outcome: task.outcome.clone(),
        }
    }

    fn why(&self) -> String {
        why_skipped(self.id, self.state, self.outcome.as_ref())
    }
}

/// A new task and what it waits for.
#[derive(Debug)]
pub(super) struct Tie {
    /// Its place in the request.
    pub(super) index: usize,
    /// What has to be over because it takes the place of another task.
    pub(super) behind: Vec<TaskId>,
}

/// What a tied task is in for.
enum Fate {
    Waits,
    Free,
    Skipped(String),
}

impl<S: Store> Engine<S> {
    pub(super) fn graph(&mut self, ask: Ask, now: Time) -> Result<(), store::Error> {
        let (reply, result) = match ask {
            Ask::Cancel { caller, id, reply } => (reply, self.cancel_tree(caller, id, now)?),
            Ask::Retry { caller, id, reply } => (reply, self.retry_tree(caller, id, now)?),
        };
        self.answers
            .push(Answer::Affected(reply, result.map(Box::new)));
        Ok(())
    }

    /// Lets those go that waited for tasks which have ended, or skips them,
    /// and so on, until nobody is left whom that concerns.
    pub(super) fn release(&mut self, now: Time) -> Result<(), store::Error> {
        while let Some(parent) = self.fallen.pop_front() {
            failpoint!("engine/release/before");
            for (child, wants) in self.store.waiting(parent.id)? {
                let event = match wants.met_by(parent.state) {
                    Some(true) => {
                        self.store.set_met(child, parent.id, true)?;
                        if self.store.is_held(child)? {
                            continue;
                        }
                        Event::Unblock
                    }
                    Some(false) => Event::Skip { why: parent.why() },
                    None => continue,
                };
                if let Some(task) = self.sound(now, |store| store.task(child))? {
                    // It is blocked, says the query, so it is not refused.
                    let _moved = self.shift(task, event, None, now)?;
                }
            }
        }
        Ok(())
    }

    /// Ties new tasks to what they wait for, now that all have numbers, and
    /// settles those for which everything is over already.
    pub(super) fn tie(
        &mut self,
        tasks: &[NewTask],
        ties: &[Tie],
        all: &mut [Submitted],
        now: Time,
    ) -> Result<(), store::Error> {
        let mut known: HashMap<TaskId, Option<Over>> = HashMap::new();
        let mut fates = Vec::new();
        for tie in ties {
            let Some((new, own)) = tasks.get(tie.index).zip(all.get(tie.index)) else {
                continue;
            };
            let fate = self.tie_one(own.id, &parents(new, tie, all), &mut known, now)?;
            if !matches!(fate, Fate::Waits) {
                fates.push((own.id, fate));
            }
        }
        let settled = !fates.is_empty();
        for (child, fate) in fates {
            let event = match fate {
                Fate::Waits => continue,
                Fate::Free => Event::Unblock,
                Fate::Skipped(why) => Event::Skip { why },
            };
            // It may have been cancelled or skipped in the meantime, by another
            // of this request.
            if let Some(task) = self.sound(now, |store| store.task(child))?
                && task.state == State::Blocked
            {
                let _moved = self.advance(task, event, None, now)?;
            }
        }
        for one in all.iter_mut().filter(|one| settled && one.created) {
            if let Some(task) = self.sound(now, |store| store.task(one.id))? {
                one.state = task.state;
            }
        }
        Ok(())
    }

    /// Ties a single new task.
    pub(super) fn tie_alone(
        &mut self,
        new: &NewTask,
        task: Task,
        now: Time,
    ) -> Result<Task, store::Error> {
        let behind = Vec::new();
        let mut all = [Submitted {
            id: task.id,
            state: task.state,
            created: true,
        }];
        let ties = [Tie { index: 0, behind }];
        self.tie(std::slice::from_ref(new), &ties, &mut all, now)?;
        Ok(self
            .sound(now, |store| store.task(task.id))?
            .unwrap_or(task))
    }

    fn tie_one(
        &mut self,
        child: TaskId,
        parents: &BTreeMap<TaskId, Wants>,
        known: &mut HashMap<TaskId, Option<Over>>,
        now: Time,
    ) -> Result<Fate, store::Error> {
        let mut fate = Fate::Free;
        for (parent, wants) in parents {
            if !known.contains_key(parent) {
                let task = self.sound(now, |store| store.task(*parent))?;
                known.insert(*parent, task.as_ref().map(Over::of));
            }
            let over = known.get(parent).and_then(Option::as_ref);
            let met = over.and_then(|over| wants.met_by(over.state));
            self.store.link(child, *parent, *wants, met == Some(true))?;
            fate = match (fate, met, over) {
                (Fate::Skipped(why), ..) => Fate::Skipped(why),
                (_, Some(false), Some(over)) => Fate::Skipped(over.why()),
                (Fate::Free, Some(true), _) => Fate::Free,
                (Fate::Free | Fate::Waits, ..) => Fate::Waits,
            };
        }
        Ok(fate)
    }

    /// Runs a task again that is over; it waits once more for those that are
    /// not over, and is refused while one of them did not end as it has to.
    pub(super) fn again(
        &mut self,
        task: Task,
        caller: Caller,
        now: Time,
    ) -> Result<Result<Task, Error>, store::Error> {
        let mut blocked = false;
        if task.state.is_terminal() {
            if let Some(key) = task.unique.clone()
                && let Some(holder) = self.store.unique_holder(task.owner, &key)?
            {
                let holder = format!("task {holder}");
                return Ok(Err(Error::UniqueHeld { key, holder }));
            }
            let links = self.store.parents(task.id)?;
            for link in &links {
                let met = link
                    .state
                    .map_or(Some(link.met), |state| link.wants.met_by(state));
                if met == Some(false) {
                    return Ok(Err(Error::ParentFailed {
                        task: task.id,
                        parent: link.parent,
                        state: link.state,
                    }));
                }
                blocked |= met.is_none();
            }
            for link in links {
                let over = link.state.is_none_or(State::is_terminal);
                if over != link.met {
                    self.store.set_met(task.id, link.parent, over)?;
                }
            }
        }
        let retry = (Kind::RetryAsked, Event::Retry { blocked });
        match self.change(task, retry, caller, now)? {
            Ok(task) => self.trace_round(task, now).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Moves a task on somebody's behalf, and records that it was asked for.
    pub(super) fn change(
        &mut self,
        task: Task,
        (kind, event): (Kind, Event),
        caller: Caller,
        now: Time,
    ) -> Result<Result<Task, Error>, store::Error> {
        let asked = task.clone();
        let moved = self.advance(task, event, Some(caller.uid), now)?;
        if moved.is_ok() {
            self.record(&asked, kind, Some(caller.uid), now)?;
        }
        Ok(moved.map_err(Error::from))
    }

    /// Everything behind a task, each behind what it waits for. `through` says
    /// behind which of them to look.
    fn behind(
        &mut self,
        root: TaskId,
        caller: Caller,
        through: impl Fn(State) -> bool,
        now: Time,
    ) -> Result<Vec<TaskId>, store::Error> {
        let mut found = BTreeSet::from([root]);
        let mut pairs = Vec::new();
        let mut next = vec![root];
        while let Some(parent) = next.pop() {
            for child in self.store.children(parent, u32::MAX)? {
                let known = found.contains(&child);
                if !known {
                    let task = self.sound(now, |store| store.task(child))?;
                    let fits = |task: &Task| caller.may_touch(task.owner) && through(task.state);
                    if !task.as_ref().is_some_and(fits) {
                        continue;
                    }
                    found.insert(child);
                    next.push(child);
                }
                pairs.push((child, parent));
            }
        }
        let mut order = in_order(found.into_iter(), &pairs);
        order.retain(|id| *id != root);
        Ok(order)
    }

    /// Those that hang on the others come first, so that nobody is let go or
    /// skipped on the way.
    fn cancel_tree(
        &mut self,
        caller: Caller,
        id: TaskId,
        now: Time,
    ) -> Result<Result<Affected, Error>, store::Error> {
        let root = match self.find(caller, id, now)? {
            Ok(root) => root,
            Err(error) => return Ok(Err(error)),
        };
        let mut dependants = 0;
        let cancel = || (Kind::CancelAsked, Event::Cancel);
        for child in self.behind(id, caller, |_| true, now)?.into_iter().rev() {
            if let Some(task) = self.sound(now, |store| store.task(child))?
                && !task.state.is_terminal()
            {
                let moved = self.change(task, cancel(), caller, now)?;
                dependants += u64::from(moved.is_ok());
            }
        }
        if root.state.is_terminal() && dependants > 0 {
            let task = root;
            return Ok(Ok(Affected { task, dependants }));
        }
        let moved = self.change(root, cancel(), caller, now)?;
        Ok(moved.map(|task| Affected { task, dependants }))
    }

    /// The task itself first: those behind it then find it not over, and wait.
    /// One that hangs on another failure as well stays skipped.
    fn retry_tree(
        &mut self,
        caller: Caller,
        id: TaskId,
        now: Time,
    ) -> Result<Result<Affected, Error>, store::Error> {
        let root = match self.find(caller, id, now)? {
            Ok(root) => root,
            Err(error) => return Ok(Err(error)),
        };
        let task = match self.again(root, caller, now)? {
            Ok(task) => task,
            Err(error) => return Ok(Err(error)),
        };
        let mut dependants = 0;
        for child in self.behind(id, caller, |state| state == State::Skipped, now)? {
            if let Some(task) = self.sound(now, |store| store.task(child))? {
                let moved = self.again(task, caller, now)?;
                dependants += u64::from(moved.is_ok());
            }
        }
        Ok(Ok(Affected { task, dependants }))
    }
}

/// What a new task waits for, by number; whoever is named twice has to satisfy
/// the stricter wish.
fn parents(new: &NewTask, tie: &Tie, all: &[Submitted]) -> BTreeMap<TaskId, Wants> {
    let behind = tie.behind.iter().map(|id| (*id, Wants::Any));
    let mut parents: BTreeMap<_, _> = behind.collect();
    for link in &new.after {
        let id = match link.parent {
            Parent::Task(id) => Some(id),
            Parent::Member(place) => all.get(place).map(|one| one.id),
        };
        let Some(id) = id else { continue };
        let wants = parents.entry(id).or_insert(link.wants);
        if link.wants == Wants::Ok {
            *wants = Wants::Ok;
        }
    }
    parents
}
