//! Reads for the rooms above, on a thread and a read-only connection of their
//! own, so that a long listing never holds up a commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};

use tokio::sync::watch;

use crate::model::event::{Entries, Wanted};
use crate::model::filter::Filter;
use crate::model::hook::Hook;
use crate::model::id::{ScheduleId, TaskId};
use crate::model::ledger::Spent;
use crate::model::queue::Lane;
use crate::model::reason::Reason;
use crate::model::schedule::plan::{Schedule, Shown};
use crate::model::task::{State, Task};
use crate::model::time::Time;
use crate::store::queues::Crowd;
use crate::store::{self, Store};

use super::accounts::Accounts;
use super::budgets::{self, Share};
use super::called::Called;
use super::calls;
use super::command::{Caller, Error, Reply, View};
use super::picture::{self, Picture};
use super::signs::Sign;
use super::snapshot::Snapshot;
use super::why::explain;

/// Reads that may wait before new ones are turned away.
const QUERIES: usize = 1_024;

/// Tasks shown with a schedule.
const LATEST: u32 = 10;

/// A schedule with what came of it.
#[derive(Debug, Clone)]
pub struct ScheduleView {
    /// It.
    pub schedule: Schedule,
    /// The latest tasks it made, newest first.
    pub latest: Vec<Task>,
}

/// What can be asked without changing anything.
#[derive(Debug)]
pub enum Query {
    /// One task.
    Show {
        /// Who asks.
        caller: Caller,
        /// Which.
        id: TaskId,
        /// The task.
        reply: Reply<View>,
    },
    /// The graph around a task.
    Graph {
        /// Who asks.
        caller: Caller,
        /// Which.
        id: TaskId,
        /// At most so many tasks.
        limit: usize,
        /// What hangs together with it.
        reply: Reply<Picture>,
    },
    /// One schedule.
    Schedule {
        /// Who asks.
        caller: Caller,
        /// Which.
        called: Called<ScheduleId>,
        /// It, and the latest tasks it made.
        reply: Reply<ScheduleView>,
    },
    /// A page of schedules.
    Schedules {
        /// Which.
        shown: Shown,
        /// The schedules, in the order of their numbers.
        reply: Reply<Vec<Schedule>>,
    },
    /// Every queue.
    Queues {
        /// The queues, by name.
        reply: Reply<Vec<Lane>>,
    },
    /// Since when the first in line of some queues is ready.
    Waits {
        /// The queues, by their rows.
        queues: Vec<i64>,
        /// The time of each, in their order; none where nothing is ready.
        reply: Reply<Vec<Option<Time>>>,
    },
    /// The hooks of a queue.
    QueueHooks {
        /// Which.
        queue: String,
        /// They.
        reply: Reply<Vec<Hook>>,
    },
    /// What models were used for.
    Spent {
        /// From when on.
        since: Time,
        /// By model.
        reply: Reply<Vec<Spent>>,
    },
    /// Budgets of a day.
    Budgets {
        /// Who asks.
        caller: Caller,
        /// Of the day of this time.
        now: Time,
        /// Those that the caller may know of.
        reply: Reply<Vec<Share>>,
    },
    /// Which idempotency keys of the caller have their task.
    Keys {
        /// Who asks.
        caller: Caller,
        /// The keys.
        keys: Vec<String>,
        /// Those that have.
        reply: Reply<HashSet<String>>,
    },
    /// A page of tasks.
    List {
        /// Which.
        filter: Filter,
        /// The tasks, without their attempts.
        reply: Reply<Listed>,
    },
    /// A page of events.
    Events {
        /// Which.
        wanted: Wanted,
        /// The events.
        reply: Reply<Entries>,
    },
}

/// A page of tasks.
#[derive(Debug)]
pub struct Listed {
    /// The tasks, newest first.
    pub views: Vec<View>,
    /// Tasks of this page whose rows are damaged.
    pub damaged: Vec<TaskId>,
    /// The next page is before this one; absent on the last page.
    pub next: Option<TaskId>,
}

/// Starts the reader; it ends when nobody can ask any more.
pub(super) fn start<S: Store + Send + 'static>(
    store: S,
    snapshot: watch::Receiver<Snapshot>,
) -> Result<SyncSender<Query>, store::Error> {
    let (queries, inbox) = mpsc::sync_channel(QUERIES);
    std::thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || answer_all(Reader { store, snapshot }, &inbox))
        .map_err(|source| store::Error::File {
            act: "start a thread for",
            path: "the database".into(),
            source,
        })?;
    Ok(queries)
}

fn answer_all<S: Store>(mut reader: Reader<S>, inbox: &Receiver<Query>) {
    for query in inbox {
        match query {
            Query::Show { caller, id, reply } => drop(reply.send(reader.show(caller, id))),
            Query::Graph {
                caller,
                id,
                limit,
                reply,
            } => drop(reply.send(reader.graph(caller, id, limit))),
            Query::Schedule {
                caller,
                called,
                reply,
            } => drop(reply.send(reader.schedule(caller, called))),
            Query::Schedules { shown, reply } => {
                drop(reply.send(reader.store.schedules(shown).map_err(storage)));
            }
            Query::Queues { reply } => drop(reply.send(reader.store.lanes().map_err(storage))),
            Query::Waits { queues, reply } => drop(reply.send(reader.waits(&queues))),
            Query::QueueHooks { queue, reply } => {
                drop(reply.send(reader.store.queue_hooks(&queue).map_err(storage)));
            }
            Query::Spent { since, reply } => {
                drop(reply.send(reader.store.spent_since(since).map_err(storage)));
            }
            Query::Budgets { caller, now, reply } => {
                let (accounts, _) = reader.accounts();
                let rules = &accounts.budgets;
                let found = budgets::of_today(&mut reader.store, rules, caller, now);
                drop(reply.send(found.map_err(storage)));
            }
            Query::Keys {
                caller,
                keys,
                reply,
            } => drop(reply.send(reader.known(caller, keys))),
            Query::List { filter, reply } => drop(reply.send(reader.list(&filter))),
            Query::Events { wanted, reply } => {
                drop(reply.send(reader.store.events(&wanted).map_err(storage)));
            }
        }
    }
}

struct Reader<S> {
    store: S,
    snapshot: watch::Receiver<Snapshot>,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn storage(error: store::Error) -> Error {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    Error::Storage(format!("{error}{}", cause.unwrap_or_default()))
}

impl<S: Store> Reader<S> {
    fn show(&mut self, caller: Caller, id: TaskId) -> Result<View, Error> {
        let found = self.store.task(id).map_err(storage)?;
        let task = found
            .filter(|task| caller.may_touch(task.owner))
            .ok_or(Error::NotFound(id))?;
        let attempts = self.store.attempts(id).map_err(storage)?;
        let calls = calls::of_task(&mut self.store, &task).map_err(storage)?;
        let (accounts, now) = self.accounts();
        let budgets = budgets::of_task(&mut self.store, &accounts.budgets, &task, now);
        let budgets = budgets.map_err(storage)?;
        let after = self.store.parents(id).map_err(storage)?;
        let dependants = self.store.count_children(id).map_err(storage)?;
        let crowd = self.store.crowd(std::slice::from_ref(&task));
        let reason = self.why(&task, &crowd.map_err(storage)?)?;
        let snapshot = self.snapshot.borrow();
        Ok(View {
            sign: sign(&task, &snapshot),
            task,
            attempts,
            calls,
            budgets,
            after,
            dependants,
            reason,
        })
    }

    /// Looks at the first of each user, by an index: no more than there are
    /// users, however much waits.
    fn waits(&mut self, queues: &[i64]) -> Result<Vec<Option<Time>>, Error> {
        let mut since = Vec::with_capacity(queues.len());
        for queue in queues {
            let heads = self.store.heads(*queue).map_err(storage)?;
            let first = heads.iter().min_by_key(|head| head.rank);
            since.push(match first {
                Some(head) => {
                    let task = self.store.task(head.task).map_err(storage)?;
                    task.map(|task| task.due)
                }
                None => None,
            });
        }
        Ok(since)
    }

    fn graph(&mut self, caller: Caller, id: TaskId, limit: usize) -> Result<Picture, Error> {
        let picture = picture::draw(&mut self.store, caller, id, limit);
        picture.map_err(storage)?.ok_or(Error::NotFound(id))
    }

    /// Why a task is not over, with what only the store knows.
    fn why(&mut self, task: &Task, crowd: &Crowd) -> Result<Option<Reason>, Error> {
        if task.state == State::Blocked
            && let Some(held) = self.store.held_by(task.id).map_err(storage)?
        {
            return Ok(Some(Reason::Dependency {
                first: Some((held.parent, held.state)),
                more: held.more,
            }));
        }
        let reason = explain(task, crowd, &self.snapshot.borrow());
        if !matches!(reason, Some(Reason::Slot { .. })) {
            return Ok(reason);
        }
        let (accounts, now) = self.accounts();
        let budget = budgets::spend::why(&mut self.store, task, &accounts, now);
        Ok(budget.map_err(storage)?.or(reason))
    }

    /// The accounts, and when they were so.
    fn accounts(&self) -> (Arc<Accounts>, Time) {
        let snapshot = self.snapshot.borrow();
        (Arc::clone(&snapshot.calls), snapshot.turned)
    }

    fn schedule(
        &mut self,
        caller: Caller,
        called: Called<ScheduleId>,
    ) -> Result<ScheduleView, Error> {
        let found = match &called {
            Called::Number(id) => self.store.schedule(*id),
            Called::Name(name) => self.store.schedule_named(caller.uid, name),
        };
        let schedule = found
            .map_err(storage)?
            .filter(|schedule| caller.may_touch(schedule.owner))
            .ok_or(Error::NoSchedule(called))?;
        let latest = self.store.latest_of(schedule.id, LATEST).map_err(storage)?;
        Ok(ScheduleView { schedule, latest })
    }

    fn known(&mut self, caller: Caller, keys: Vec<String>) -> Result<HashSet<String>, Error> {
        let mut known = HashSet::new();
        for key in keys {
            if self
                .store
                .by_key(caller.uid, &key)
                .map_err(storage)?
                .is_some()
            {
                known.insert(key);
            }
        }
        Ok(known)
    }

    fn list(&mut self, filter: &Filter) -> Result<Listed, Error> {
        let page = self.store.page(filter).map_err(storage)?;
        let crowd = self.store.crowd(&page.tasks).map_err(storage)?;
        let mut live = HashMap::new();
        if page.tasks.iter().any(|task| task.state.is_live()) {
            let attempts = self.store.live().map_err(storage)?;
            live.extend(attempts.into_iter().map(|attempt| (attempt.key, attempt)));
        }
        let mut views = Vec::with_capacity(page.tasks.len());
        for task in page.tasks {
            views.push(View {
                reason: self.why(&task, &crowd)?,
                sign: sign(&task, &self.snapshot.borrow()),
                attempts: live.remove(&task.attempt_key()).into_iter().collect(),
                task,
                calls: Vec::new(),
                budgets: Vec::new(),
                after: Vec::new(),
                dependants: 0,
            });
        }
        Ok(Listed {
            views,
            damaged: page.damaged,
            next: page.next,
        })
    }
}

/// What the live attempt of a task says of itself.
fn sign(task: &Task, snapshot: &Snapshot) -> Option<Sign> {
    let sign = snapshot.signs.get(&task.id)?;
    let own = task.state.is_live() && sign.attempt == task.attempt;
    own.then(|| sign.clone())
}
