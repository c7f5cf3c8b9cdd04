//! Agents: what keeps them running.
//!
//! Where each instance stands is a row that is saved in the transaction of what
//! moves it; all rows are in memory as well, with the figures, so that whoever
//! asks reads them there. A run is a task in a queue of its own; its end and
//! what the agent does about it are one transaction, as with hooks.

pub mod ask;
mod keep;
mod start;
mod tell;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::agent::life::{Act, Event, Life, chance, step};
use crate::model::agent::phase::Phase;
use crate::model::agent::plan::Agent;
use crate::model::attempt::{AttemptKey, Class, Outcome, Started};
use crate::model::id::{AgentId, Run, TaskId};
use crate::model::task::{self, State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;

/// Agents by number, and the tasks that they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agents {
    /// Every agent.
    pub all: BTreeMap<AgentId, Arc<Agent>>,
    /// The tasks that instances have: runs and clean-ups that are not over.
    pub tasks: BTreeMap<TaskId, Held>,
    /// When the clock next has something to say about one of them.
    pub next: Option<Time>,
    /// Row of the queue that has these tasks, once there is one.
    pub queue: Option<i64>,
}

/// A task that an instance has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whose it is.
    pub run: Run,
    /// Its live attempt, once that has a process.
    pub process: Option<Process>,
}

/// The process of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Names its attempt.
    pub key: AttemptKey,
    /// Its number; 0 where that is not known.
    pub pid: u32,
    /// Its cgroup below the cgroup root, where it has one.
    pub cgroup: Option<String>,
}

impl Agents {
    /// An owner's agent of this name.
    #[must_use]
    pub fn named(&self, owner: u32, name: &str) -> Option<&Arc<Agent>> {
        let mut all = self.all.values();
        all.find(|agent| agent.owner == owner && agent.name == name)
    }

    /// Instances in each phase, in the order of [`Phase::ALL`].
    #[must_use]
    pub fn tally(&self) -> [u64; Phase::ALL.len()] {
        let lives = || self.all.values().flat_map(|agent| &agent.lives);
        Phase::ALL.map(|phase| {
            let count = lives().filter(|life| life.phase == phase).count();
            u64::try_from(count).unwrap_or(u64::MAX)
        })
    }

    /// Whether all are up that an agent starts behind: of each at least one
    /// instance.
    #[must_use]
    pub fn may_begin(&self, agent: &Agent) -> bool {
        self.first_down(agent).is_none()
    }

    /// The first agent that has to be up before this one, and is not.
    #[must_use]
    pub fn first_down<'a>(&self, agent: &'a Agent) -> Option<&'a str> {
        let is_up = |name: &str| {
            let before = self.named(agent.owner, name);
            before.is_some_and(|before| before.lives.iter().any(|life| life.phase.is_up()))
        };
        let mut names = agent.plan.after.iter().map(String::as_str);
        names.find(|name| !is_up(name))
    }

    fn look_ahead(&mut self) {
        let lives = self.all.values().flat_map(|agent| &agent.lives);
        self.next = lives.filter_map(|life| life.wake).min();
    }
}

impl<S: Store> Engine<S> {
    /// Knows the agents there are. What became of their tasks while nobody
    /// looked, by damage or an older copy of the store, is an end as any other.
    pub(super) fn open_agents(&mut self, now: Time) -> Result<(), store::Error> {
        let mut agents = Agents::default();
        let (found, faults) = self.store.agents()?;
        for fault in faults {
            tracing::error!("{fault}; until then it does not run");
        }
        for agent in found {
            for (index, life) in agent.lives.iter().enumerate() {
                let Some(task) = life.task else { continue };
                let held = Held {
                    run: run_of(&agent, index, life),
                    process: None,
                };
                agents.tasks.insert(task, held);
            }
            agents.all.insert(agent.id, Arc::new(agent));
        }
        agents.look_ahead();
        let tasks: Vec<_> = agents.tasks.keys().copied().collect();
        self.snapshot.agents = Arc::new(agents);
        self.agents_queue()?;
        for id in tasks {
            let task = self.sound(now, |store| store.task(id))?;
            if task.as_ref().is_none_or(|task| task.state.is_terminal()) {
                self.agents_task_ended(id, task.and_then(|task| task.outcome), now)?;
            }
        }
        Ok(())
    }

    /// Lets the clock have its say about agents.
    pub(super) fn wake_agents(&mut self, now: Time) -> Result<(), store::Error> {
        while self.snapshot.agents.next.is_some_and(|at| at <= now) {
            let is_due = |life: &Life| life.wake.is_some_and(|at| at <= now);
            for run in self.lives_that(is_due) {
                self.agent_does(run, Event::Wake, None, now)?;
            }
        }
        Ok(())
    }

    /// The clock was set by so many microseconds.
    pub(super) fn agents_clock_set(&mut self, by: i64, now: Time) -> Result<(), store::Error> {
        for run in self.lives_that(|life| !life.phase.is_over()) {
            self.agent_does(run, Event::ClockSet(by), None, now)?;
        }
        Ok(())
    }

    /// A task is over: perhaps an instance had it.
    pub(super) fn agents_task_over(&mut self, task: &Task, now: Time) -> Result<(), store::Error> {
        if !self.snapshot.agents.tasks.contains_key(&task.id) {
            return Ok(());
        }
        self.agents_task_ended(task.id, task.outcome.clone(), now)
    }

    fn agents_task_ended(
        &mut self,
        id: TaskId,
        outcome: Option<Outcome>,
        now: Time,
    ) -> Result<(), store::Error> {
        let agents = Arc::make_mut(&mut self.snapshot.agents);
        let Some(held) = agents.tasks.remove(&id) else {
            return Ok(());
        };
        let outcome = outcome.unwrap_or_else(|| Outcome {
            class: Class::Lost,
            exit_code: None,
            signal: None,
            message: format!("task {id} is not there any more"),
        });
        self.agent_does(held.run, Event::Ended(outcome), None, now)
    }

    /// An attempt has a process: perhaps it is a run.
    pub(super) fn agents_task_runs(
        &mut self,
        key: AttemptKey,
        started: Option<&Started>,
        now: Time,
    ) -> Result<(), store::Error> {
        if !self.snapshot.agents.tasks.contains_key(&key.task) {
            return Ok(());
        }
        if let Some(held) = Arc::make_mut(&mut self.snapshot.agents)
            .tasks
            .get_mut(&key.task)
        {
            held.process = Some(Process {
                key,
                pid: started.map_or(0, |started| started.pid),
                cgroup: started.and_then(|started| started.cgroup.clone()),
            });
        }
        self.agents_task_did(key, Event::Up, now)
    }

    /// Something was learnt of a run's live attempt.
    pub(super) fn agents_task_did(
        &mut self,
        key: AttemptKey,
        event: Event,
        now: Time,
    ) -> Result<(), store::Error> {
        let held = self.snapshot.agents.tasks.get(&key.task);
        match held.map(|held| held.run) {
            Some(run) if !run.clean_up => self.agent_does(run, event, None, now),
            Some(_) | None => Ok(()),
        }
    }

    /// Instances that something is true of, in order.
    fn lives_that(&self, holds: impl Fn(&Life) -> bool) -> Vec<Run> {
        let all = self.snapshot.agents.all.values();
        let lives = all.flat_map(|agent| {
            let lives = agent.lives.iter().enumerate();
            let lives = lives.filter(|(_, life)| holds(life));
            lives.map(|(index, life)| run_of(agent, index, life))
        });
        lives.collect()
    }

    /// Moves an instance by an event, with all that follows.
    fn agent_does(
        &mut self,
        run: Run,
        event: Event,
        actor: Option<u32>,
        now: Time,
    ) -> Result<(), store::Error> {
        let Some(agent) = self.snapshot.agents.all.get(&run.agent).map(Arc::clone) else {
            return Ok(());
        };
        let index = usize::try_from(run.instance - 1).unwrap_or(usize::MAX);
        let Some(before) = agent.lives.get(index) else {
            return Ok(());
        };
        let draw = chance(run, before);
        let (life, act) = step(before.clone(), &agent.plan, event, draw, now);
        if life != *before {
            self.keep_life(&agent, run.instance, &life)?;
        }
        if life.phase != before.phase {
            self.tell_phase(&agent, run.instance, &life, actor, now)?;
        }
        match act {
            None => {}
            Some(Act::Run) => self.make_run(run, &agent, now)?,
            Some(Act::CleanUp) => self.make_clean_up(run, &agent, now)?,
            Some(Act::End(id)) => self.end_run(id, task::Event::Cancel, actor, now)?,
            Some(Act::GiveUp(id)) => self.end_run(id, task::Event::GiveUp, None, now)?,
        }
        if life.phase == Phase::Waiting {
            self.release_agents(now)?;
        }
        if life.phase.is_up() && !before.phase.is_up() {
            self.release_agents(now)?;
        }
        if life.phase.is_over() {
            self.forget_agent(run.agent)?;
        }
        Ok(())
    }

    /// Saves where an instance stands.
    fn keep_life(&mut self, agent: &Agent, instance: u32, life: &Life) -> Result<(), store::Error> {
        self.store.save_life(agent.id, instance, life)?;
        let agents = Arc::make_mut(&mut self.snapshot.agents);
        if let Some(agent) = agents.all.get_mut(&agent.id) {
            let lives = &mut Arc::make_mut(agent).lives;
            let index = usize::try_from(instance - 1).unwrap_or(usize::MAX);
            match lives.get_mut(index) {
                Some(place) => *place = life.clone(),
                None => lives.push(life.clone()),
            }
        }
        agents.look_ahead();
        Ok(())
    }

    fn make_run(&mut self, run: Run, agent: &Agent, now: Time) -> Result<(), store::Error> {
        failpoint!("engine/agent/run");
        let new = agent.run(run.instance, &self.hooks.program);
        let task = self.make(&new, now)?;
        let run = Run {
            clean_up: false,
            ..run
        };
        self.keep_task(run, task.id, now)
    }

    fn make_clean_up(&mut self, run: Run, agent: &Agent, now: Time) -> Result<(), store::Error> {
        let Some(clean_up) = &agent.plan.on_stop else {
            return Ok(());
        };
        let task = self.make(&agent.clean_up(clean_up, run.instance), now)?;
        let run = Run {
            clean_up: true,
            ..run
        };
        self.keep_task(run, task.id, now)
    }

    fn keep_task(&mut self, run: Run, id: TaskId, now: Time) -> Result<(), store::Error> {
        let held = Held { run, process: None };
        let agents = Arc::make_mut(&mut self.snapshot.agents);
        agents.tasks.insert(id, held);
        self.agent_does(run, Event::Made(id), None, now)
    }

    fn end_run(
        &mut self,
        id: TaskId,
        event: task::Event,
        actor: Option<u32>,
        now: Time,
    ) -> Result<(), store::Error> {
        if let Some(task) = self.sound(now, |store| store.task(id))? {
            // One that is over has told so already.
            let _moved = self.advance(task, event, actor, now)?;
        }
        Ok(())
    }

    /// Lets those begin that waited for others which are up now.
    fn release_agents(&mut self, now: Time) -> Result<(), store::Error> {
        for run in self.lives_that(|life| life.phase == Phase::Waiting) {
            let agents = &self.snapshot.agents;
            let agent = agents.all.get(&run.agent);
            if agent.is_some_and(|agent| agents.may_begin(agent)) {
                self.agent_does(run, Event::Released, None, now)?;
            }
        }
        Ok(())
    }

    /// Live attempts that are runs or clean-ups of agents.
    pub(super) fn live_agents(&self) -> u32 {
        let Some(queue) = self.snapshot.agents.queue else {
            return 0;
        };
        let live = State::ALL.into_iter().filter(|state| state.is_live());
        let count: u64 = live
            .map(|state| self.store.count_of_queue(queue, state))
            .sum();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

fn run_of(agent: &Agent, index: usize, life: &Life) -> Run {
    Run {
        agent: agent.id,
        instance: u32::try_from(index + 1).unwrap_or(u32::MAX),
        clean_up: life.phase == Phase::CleaningUp,
    }
}
