//! What each command does.

use std::collections::HashMap;

use crate::model::attempt::{AttemptKey, Ended, Started};
use crate::model::event::Kind;
use crate::model::hook;
use crate::model::id::TaskId;
use crate::model::origin::Origin;
use crate::model::spec::{NewTask, Parent};
use crate::model::task::{Event, Refusal, State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::closed::Word;
use super::command::{Caller, Command, Error, Reply, Submitted};
use super::effect::Effect;
use super::feed::numbered;
use super::graph::Tie;
use super::runner::RunnerUp;
use super::snapshot::Phase;
use super::unique::Plan;

impl<S: Store> Engine<S> {
    pub(super) fn apply(&mut self, command: Command, now: Time) -> Result<(), store::Error> {
        match command {
            Command::Asked { origin, command } => {
                self.origin = origin;
                let done = self.apply(*command, now);
                self.origin = Origin::NONE;
                done
            }
            Command::Submit { tasks, reply } => self.submit(tasks, reply, now),
            Command::Cancel { caller, id, reply } => {
                self.ask(caller, id, (Kind::CancelAsked, Event::Cancel), reply, now)
            }
            Command::Retry { caller, id, reply } => self.retry(caller, id, reply, now),
            Command::Wait { caller, id, reply } => self.wait(caller, id, reply, now),
            Command::Graph(ask) => self.graph(ask, now),
            Command::Pause { caller, id, reply } => {
                self.ask(caller, id, (Kind::PauseAsked, Event::Pause), reply, now)
            }
            Command::Resume { caller, id, reply } => {
                self.ask(caller, id, (Kind::ResumeAsked, Event::Resume), reply, now)
            }
            Command::Edit(ask) => self.edit(ask, now),
            Command::Hook(ask) => self.about_hooks(ask, now),
            Command::Schedule(ask) => self.about_schedule(ask, now),
            Command::Agent(ask) => self.about_agents(ask, now),
            Command::Queue(ask) => self.about_queue(ask, now),
            Command::Relay(ask) => self.about_calls(ask, now),
            Command::Ping { reply } => {
                self.answers.push(Answer::Pong(reply, now));
                Ok(())
            }
            Command::Configure {
                options,
                hooks,
                prompts,
            } => self.configure(options, hooks, prompts, now),
            Command::Record(ask) => self.ask_record(ask, now),
            Command::ClockLead { lead } => self.clock_lead(lead, now),
            Command::RunnerUp(runner) => self.runner_up(runner, now),
            Command::RunnerDown => {
                self.runner = None;
                Ok(())
            }
            Command::Dialled {
                visit,
                key,
                uid,
                trusted,
            } => self.dialled(visit, key, uid, trusted, now),
            Command::Notified { key, notice, at } => self.notified(key, notice, at, now),
            Command::Started { key, started } => {
                self.open();
                self.store.start_attempt(key, &started)?;
                self.agents_task_runs(key, Some(&started), now)
            }
            Command::Ended {
                key,
                started,
                ended,
            } => self.ended(key, started, ended, now),
            Command::Shutdown { reply } => {
                self.turned.over = true;
                self.snapshot.phase = Phase::Stopping;
                self.answers.push(Answer::Done(reply));
                Ok(())
            }
        }
    }

    fn retry(
        &mut self,
        caller: Caller,
        id: TaskId,
        reply: Reply<Task>,
        now: Time,
    ) -> Result<(), store::Error> {
        let result = match self.find(caller, id, now)? {
            Err(error) => Err(error),
            Ok(task) => self.again(task, caller, now)?,
        };
        self.answers.push(Answer::Task(reply, result.map(Box::new)));
        Ok(())
    }

    /// All tasks of a submit or none: everything that can be refused is
    /// looked at before the first one is stored.
    fn submit(
        &mut self,
        mut tasks: Vec<NewTask>,
        reply: Reply<Vec<Submitted>>,
        now: Time,
    ) -> Result<(), store::Error> {
        let known = self.known(&tasks, now)?.and_then(|known| {
            self.prompts.settle(&mut tasks, &known)?;
            Ok(known)
        });
        let result = match known {
            Err(error) => Err(error),
            Ok(known) => match self.plan(&tasks, known, now)? {
                Err(error) => Err(error),
                Ok(plan) => match self.may_enter(&tasks, &plan, now)? {
                    Err(error) => Err(error),
                    Ok(()) => Ok(self.accept(&tasks, &plan, now)?),
                },
            },
        };
        self.answers.push(Answer::Submitted(reply, result));
        Ok(())
    }

    /// Tasks of a submit that an earlier one has already made, by position.
    fn known(
        &mut self,
        tasks: &[NewTask],
        now: Time,
    ) -> Result<Result<HashMap<usize, Submitted>, Error>, store::Error> {
        let mut known = HashMap::new();
        for (index, task) in tasks.iter().enumerate() {
            let Some(key) = &task.key else { continue };
            let holder = self.sound(now, |store| store.by_key(task.owner, key))?;
            let Some(holder) = holder else {
                continue;
            };
            if holder.body_hash != task.body_hash {
                return Ok(Err(Error::KeyReused {
                    key: key.clone(),
                    task: holder.id,
                }));
            }
            let (id, state, created) = (holder.id, holder.state, false);
            known.insert(index, Submitted { id, state, created });
        }
        Ok(Ok(known))
    }

    /// Whether the host, the queues and the user's quota have room for a submit.
    fn may_enter(
        &mut self,
        tasks: &[NewTask],
        plan: &Plan,
        now: Time,
    ) -> Result<Result<(), Error>, store::Error> {
        let new = |(index, _): &(usize, &NewTask)| {
            !plan.known.contains_key(index) && !plan.same.contains_key(index)
        };
        let new = tasks.iter().enumerate().filter(new);
        if let Err(error) = self.open_to(new.map(|(_, task)| task.queue.as_str()))? {
            return Ok(Err(error));
        }
        let new = u64::try_from(tasks.len() - plan.spared()).unwrap_or(u64::MAX);
        let room = self.room(tasks, plan.spared());
        let hooks = match self.options.user_waiting {
            Some(_) => self.store.queue_named(hook::QUEUE)?.map(|queue| queue.id),
            None => None,
        };
        Ok(room.and_then(|()| self.quota(tasks, new, hooks, now)))
    }

    pub(super) fn room(&self, tasks: &[NewTask], known: usize) -> Result<(), Error> {
        if let Some(shortage) = self.shortage.filter(|_| known < tasks.len()) {
            return Err(Error::DiskFull(shortage.into()));
        }
        let tally = self.store.tally();
        let unfinished: u64 = State::ALL
            .iter()
            .zip(tally)
            .filter(|(state, _)| !state.is_terminal())
            .map(|(_, count)| count)
            .sum();
        let new = u64::try_from(tasks.len() - known).unwrap_or(u64::MAX);
        if unfinished.saturating_add(new) > self.options.backlog {
            return Err(Error::BacklogFull(unfinished));
        }
        let Some(runner) = &self.runner else {
            return Ok(());
        };
        let can = runner.abilities;
        // A profile has limits of its own making; its runner says what it can.
        let shared = |task: &&NewTask| task.spec.profile.is_none();
        let limits = || tasks.iter().filter(shared).map(|task| &task.spec.limits);
        if !can.memory && limits().any(|limits| limits.memory.is_some()) {
            return Err(Error::Unenforceable("a memory limit"));
        }
        if !can.cpu && limits().any(|limits| limits.cpu_milli.is_some()) {
            return Err(Error::Unenforceable("a CPU limit"));
        }
        if !can.pids && limits().any(|limits| limits.pids.is_some()) {
            return Err(Error::Unenforceable("a limit on processes"));
        }
        Ok(())
    }

    fn accept(
        &mut self,
        tasks: &[NewTask],
        plan: &Plan,
        now: Time,
    ) -> Result<Vec<Submitted>, store::Error> {
        let mut all: Vec<Submitted> = Vec::with_capacity(tasks.len());
        let mut ties: Vec<Tie> = Vec::new();
        for (index, new) in tasks.iter().enumerate() {
            let same = plan.same.get(&index).and_then(|first| all.get(*first));
            if let Some(earlier) = plan.known.get(&index).or(same) {
                all.push(Submitted {
                    created: false,
                    ..earlier.clone()
                });
                continue;
            }
            let behind = match plan.replaces.get(&index) {
                None => Vec::new(),
                Some(Parent::Task(id)) => self.replace(*id, Vec::new(), new.owner, now)?,
                Some(Parent::Member(first)) => {
                    let tie = ties.iter().find(|tie| tie.index == *first);
                    let behind = tie.map(|tie| tie.behind.clone()).unwrap_or_default();
                    match all.get(*first).map(|one| one.id) {
                        Some(id) => self.replace(id, behind, new.owner, now)?,
                        None => behind,
                    }
                }
            };
            let blocked = !new.after.is_empty() || !behind.is_empty();
            if blocked {
                ties.push(Tie { index, behind });
            }
            let new = self.traced(numbered(new, &all));
            let task = self.store.insert(&new, blocked, now)?;
            self.record(&task, Kind::Submitted, Some(new.owner), now)?;
            self.hungry |= task.state == State::Queued;
            all.push(Submitted {
                id: task.id,
                state: task.state,
                created: true,
            });
        }
        self.tie(tasks, &ties, &mut all, now)?;
        self.fund(tasks, now)?;
        Ok(all)
    }

    /// A task that this caller may know of.
    pub(super) fn find(
        &mut self,
        caller: Caller,
        id: TaskId,
        now: Time,
    ) -> Result<Result<Task, Error>, store::Error> {
        let task = self
            .sound(now, |store| store.task(id))?
            .filter(|task| caller.may_touch(task.owner));
        Ok(task.ok_or(Error::NotFound(id)))
    }

    fn ask(
        &mut self,
        caller: Caller,
        id: TaskId,
        (kind, event): (Kind, Event),
        reply: Reply<Task>,
        now: Time,
    ) -> Result<(), store::Error> {
        let result = match self.find(caller, id, now)? {
            Err(error) => Err(error),
            Ok(task) if event == Event::Pause && !self.can_pause(&task) => {
                Err(match task.spec.profile.clone() {
                    Some(profile) => Error::NoPauseIn { id, profile },
                    None => Error::Unenforceable("a pause"),
                })
            }
            Ok(task) => self.change(task, (kind, event), caller, now)?,
        };
        self.answers.push(Answer::Task(reply, result.map(Box::new)));
        Ok(())
    }

    /// Whether a live attempt could be frozen. A runner of a single attempt
    /// has not said what it can, so its attempts are not.
    fn can_pause(&self, task: &Task) -> bool {
        let shared = task.spec.profile.is_none();
        let can = |runner: &RunnerUp| runner.abilities.freeze;
        task.state != State::Running || (shared && self.runner.as_deref().is_some_and(can))
    }

    fn ended(
        &mut self,
        key: AttemptKey,
        started: Option<Started>,
        ended: Ended,
        now: Time,
    ) -> Result<(), store::Error> {
        if self.strangers.remove(&key) {
            self.hungry = true;
            self.turned.effects.push(Effect::Acknowledge(key));
            return Ok(());
        }
        let Some(task) = self.sound(now, |store| store.task(key.task))? else {
            self.turned.effects.push(Effect::Acknowledge(key));
            return Ok(());
        };
        if ended.unrecorded && task.state == State::Running && task.attempt_key() == key {
            // It is on disk, and its daemon could not say so any more.
            let launch = self.launch(&task, now)?;
            self.turned
                .effects
                .extend([Effect::Acknowledge(key), launch]);
            return Ok(());
        }
        let word = Word::of(&ended);
        match self.advance(
            task,
            Event::Ended {
                key,
                started,
                ended,
            },
            None,
            now,
        )? {
            Ok(_) => self.learn(word, now),
            // A report that was recorded before, or that came too late. The
            // runner may forget it either way.
            Err(
                Refusal::Fenced(_)
                | Refusal::Over { .. }
                | Refusal::OfAgent { .. }
                | Refusal::Unfit { .. },
            ) => {
                self.turned.effects.push(Effect::Acknowledge(key));
            }
        }
        Ok(())
    }
}
