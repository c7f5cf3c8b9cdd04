//! What becomes of each task of a submit before any is stored: which have been
//! made before, which give way to a task that has their unique key, and which
//! take its place.

use std::collections::{HashMap, HashSet};

use crate::model::depend::in_order;
use crate::model::event::Kind;
use crate::model::id::TaskId;
use crate::model::invalid::Invalid;
use crate::model::origin::Origin;
use crate::model::spec::{Conflict, NewTask, Parent, Wants};
use crate::model::task::{Event, State};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::command::{Caller, Error, Submitted};
use super::handle::Handle;
use super::reader::Query;

/// What becomes of the tasks of a submit, by place.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Answered with a task that is there.
    pub(super) known: HashMap<usize, Submitted>,
    /// Answered with an earlier one of the same submit.
    pub(super) same: HashMap<usize, usize>,
    /// Takes the place of another one.
    pub(super) replaces: HashMap<usize, Parent>,
}

impl Plan {
    /// Tasks that are not made.
    pub(super) fn spared(&self) -> usize {
        self.known.len() + self.same.len()
    }

    /// Whether tasks wait for themselves now that some of them are others.
    fn check(&self, tasks: &[NewTask]) -> Result<(), Error> {
        if self.same.is_empty() {
            return Ok(());
        }
        let made =
            |place: &usize| !self.known.contains_key(place) && !self.same.contains_key(place);
        let places = || (0..tasks.len()).filter(made);
        let mut pairs = Vec::new();
        for (child, task) in places().filter_map(|place| tasks.get(place).map(|new| (place, new))) {
            for link in &task.after {
                if let Parent::Member(parent) = link.parent {
                    pairs.push((child, *self.same.get(&parent).unwrap_or(&parent)));
                }
            }
        }
        let order = in_order(places(), &pairs);
        let order: HashSet<usize> = order.into_iter().collect();
        let Some(index) = places().find(|place| !order.contains(place)) else {
            return Ok(());
        };
        let reason = "goes round in a circle once tasks with one unique key are one task";
        Err(Error::Invalid {
            index: Some(index),
            invalid: Invalid {
                field: "after",
                reason: reason.to_owned(),
            },
        })
    }
}

impl<S: Store> Engine<S> {
    /// Looks at everything that can be refused before the first task is
    /// stored. A request that is repeated gets its tasks again, whatever has
    /// become of their unique keys and of what they waited for.
    pub(super) fn plan(
        &mut self,
        tasks: &[NewTask],
        known: HashMap<usize, Submitted>,
        now: Time,
    ) -> Result<Result<Plan, Error>, store::Error> {
        let mut plan = Plan {
            known,
            ..Plan::default()
        };
        if let Err(error) = self.parents_exist(tasks, &plan.known, now)? {
            return Ok(Err(error));
        }
        let mut held: HashMap<(u32, &str), Parent> = HashMap::new();
        for (index, task) in tasks.iter().enumerate() {
            let Some(unique) = &task.unique else { continue };
            if plan.known.contains_key(&index) {
                continue;
            }
            let place = (task.owner, unique.key.as_str());
            let holder = match held.get(&place) {
                Some(holder) => Some(*holder),
                None => self
                    .store
                    .unique_holder(task.owner, &unique.key)?
                    .map(Parent::Task),
            };
            match (holder, unique.on_conflict) {
                (None, _) => {}
                (Some(holder), Conflict::Reject) => {
                    let key = unique.key.clone();
                    let holder = match holder {
                        Parent::Task(id) => format!("task {id}"),
                        Parent::Member(first) => format!("tasks[{first}] of this request"),
                    };
                    return Ok(Err(Error::UniqueHeld { key, holder }));
                }
                (Some(Parent::Task(id)), Conflict::Return) => {
                    let state = self
                        .store
                        .task(id)?
                        .map_or(State::Queued, |task| task.state);
                    let created = false;
                    plan.known.insert(index, Submitted { id, state, created });
                    continue;
                }
                (Some(Parent::Member(first)), Conflict::Return) => {
                    plan.same.insert(index, first);
                    continue;
                }
                (Some(holder), Conflict::Replace) => {
                    plan.replaces.insert(index, holder);
                }
            }
            held.insert(place, Parent::Member(index));
        }
        Ok(plan.check(tasks).map(|()| plan))
    }

    /// Whether all tasks are there that new ones name, and may be named by
    /// their owner: those of others are not there.
    fn parents_exist(
        &mut self,
        tasks: &[NewTask],
        known: &HashMap<usize, Submitted>,
        now: Time,
    ) -> Result<Result<(), Error>, store::Error> {
        let mut seen: HashSet<(u32, TaskId)> = HashSet::new();
        for (index, task) in tasks.iter().enumerate() {
            if known.contains_key(&index) {
                continue;
            }
            let caller = as_owner(task.owner);
            let after = task.after.iter().map(|link| link.parent);
            for parent in after.chain(task.stdin_from) {
                let Parent::Task(id) = parent else {
                    continue;
                };
                if seen.insert((task.owner, id)) && self.find(caller, id, now)?.is_err() {
                    let reason = format!("there is no task {id} to wait for");
                    let field = "after";
                    return Ok(Err(Error::Invalid {
                        index: (tasks.len() > 1).then_some(index),
                        invalid: Invalid { field, reason },
                    }));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Cancels the holder of a unique key and takes the key from it. What must
    /// be over before another task takes its place: the holder while it still
    /// runs, or what the holder waited for in the same way.
    pub(super) fn replace(
        &mut self,
        holder: TaskId,
        mut behind: Vec<TaskId>,
        owner: u32,
        now: Time,
    ) -> Result<Vec<TaskId>, store::Error> {
        let Some(task) = self.sound(now, |store| store.task(holder))? else {
            return Ok(behind);
        };
        if task.state == State::Blocked {
            let links = self.store.parents(holder)?;
            let ending = links.iter().filter(|link| {
                link.wants == Wants::Any && !link.met && link.state == Some(State::Stopping)
            });
            behind.extend(ending.map(|link| link.parent));
        }
        let cancel = (Kind::CancelAsked, Event::Cancel);
        let moved = self.change(task, cancel, as_owner(owner), now)?;
        if moved.is_ok_and(|task| !task.state.is_terminal()) {
            self.store.release_unique(holder)?;
            behind.push(holder);
        }
        Ok(behind)
    }
}

impl Handle {
    /// Which of these idempotency keys of the caller have their task.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn known_keys(
        &self,
        caller: Caller,
        keys: Vec<String>,
    ) -> Result<HashSet<String>, Error> {
        self.read(|reply| Query::Keys {
            caller,
            keys,
            reply,
        })
        .await
    }
}

/// The owner of a task, asking about others. Root may do so for anyone's.
const fn as_owner(uid: u32) -> Caller {
    Caller {
        uid,
        admin: uid == 0,
        origin: Origin::NONE,
    }
}
