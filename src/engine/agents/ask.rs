//! What is asked of agents, and what is seen of them.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::json;

use crate::model::agent::life::{Event, Life};
use crate::model::agent::plan::{Agent, NewAgent};
use crate::model::attempt::AttemptKey;
use crate::model::id::{AgentId, Run};
use crate::model::time::Time;
use crate::store::{self, Store};

use crate::clock;
use crate::engine::Engine;
use crate::engine::answer::Answer;
use crate::engine::called::Called;
use crate::engine::command::{Caller, Command, Error, Reply};
use crate::engine::handle::Handle;

/// Why what was asked of an agent is not done. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such agent, or none that this caller may know of.
    #[error("there is no agent {0}; `taskdaemon agent list` shows those there are")]
    NotFound(Called<AgentId>),
    /// The name is taken.
    #[error("there is an agent `{0}` already; remove it, or replace it with `--replace`")]
    Exists(String),
    /// The agent is being removed.
    #[error("agent `{0}` is being removed, and still stops; try again when it is gone")]
    Goes(String),
    /// The owner has as many as a user may have.
    #[error("you would have {has} agents, each instance counted, and may have {most}; remove some")]
    TooMany {
        /// How many there would be.
        has: u64,
        /// How many there may be.
        most: u64,
    },
    /// Agents would wait for each other.
    #[error("agent `{0}` would wait for itself, by way of `{1}`; change `after` of one of them")]
    Loop(String, String),
}

/// What can be asked of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Run, and keep running. Ends a wait after too many ends.
    Start,
    /// End it, and leave it so.
    Stop,
    /// End it, and start it anew.
    Restart,
    /// End it, and forget it.
    Remove,
}

impl Change {
    const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Remove => "remove",
        }
    }

    const fn event(self) -> Event {
        match self {
            Self::Start => Event::Start,
            Self::Stop | Self::Remove => Event::Stop,
            Self::Restart => Event::Restart,
        }
    }
}

/// How an agent is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// It takes the place of one of the same name.
    pub replace: bool,
    /// A new one is left stopped.
    pub stopped: bool,
}

/// What enters the engine about agents.
#[derive(Debug)]
pub enum Ask {
    /// Make one.
    Add {
        /// It.
        new: Box<NewAgent>,
        /// How.
        wish: Wish,
        /// It, as it is kept.
        reply: Reply<Arc<Agent>>,
    },
    /// Change one.
    Change {
        /// Who asks.
        caller: Caller,
        /// Which.
        called: Called<AgentId>,
        /// How.
        change: Change,
        /// It, afterwards.
        reply: Reply<Arc<Agent>>,
    },
    /// A run was looked at: since when it does nothing, or that it does
    /// something.
    Seen {
        /// Its attempt.
        key: AttemptKey,
        /// Since when.
        idle: Option<Time>,
    },
}

impl<S: Store> Engine<S> {
    pub(in crate::engine) fn about_agents(
        &mut self,
        ask: Ask,
        now: Time,
    ) -> Result<(), store::Error> {
        let (reply, result) = match ask {
            Ask::Add { new, wish, reply } => (reply, self.add_agent(*new, wish, now)?),
            Ask::Change {
                caller,
                called,
                change,
                reply,
            } => match self.agent_called(caller, &called) {
                Some(agent) => (reply, Ok(self.change_agent(&agent, change, caller, now)?)),
                None => (reply, Err(Refused::NotFound(called).into())),
            },
            Ask::Seen { key, idle } => {
                let event = idle.map_or(Event::Busy, Event::Idle);
                return self.agents_task_did(key, event, now);
            }
        };
        self.answers.push(Answer::Agent(reply, result));
        Ok(())
    }

    fn agent_called(&self, caller: Caller, called: &Called<AgentId>) -> Option<Arc<Agent>> {
        let agents = &self.snapshot.agents;
        let found = match called {
            Called::Number(id) => agents.all.get(id),
            Called::Name(name) => agents.named(caller.uid, name),
        };
        found.filter(|agent| caller.may_touch(agent.owner)).cloned()
    }

    fn change_agent(
        &mut self,
        agent: &Agent,
        change: Change,
        caller: Caller,
        now: Time,
    ) -> Result<Arc<Agent>, store::Error> {
        let data = json!({ "agent": agent.name, "change": change.word() });
        self.note_agent(agent, Some(caller.uid), data.to_string(), now)?;
        let mut gone = agent.clone();
        if change == Change::Remove {
            gone.removed = true;
            self.keep_agent(gone.clone())?;
        }
        // One that goes does not come back.
        if change == Change::Remove || !agent.removed {
            self.all_lives_do(agent.id, 0, &change.event(), Some(caller.uid), now)?;
        }
        self.forget_agent(agent.id)?;
        let after = self.snapshot.agents.all.get(&agent.id);
        Ok(after.map_or_else(|| Arc::new(gone), Arc::clone))
    }

    /// Has an event happen to all instances from this place on.
    fn all_lives_do(
        &mut self,
        id: AgentId,
        first: usize,
        event: &Event,
        actor: Option<u32>,
        now: Time,
    ) -> Result<(), store::Error> {
        let agent = self.snapshot.agents.all.get(&id);
        let count = agent.map_or(0, |agent| agent.lives.len());
        for index in first..count {
            let run = Run {
                agent: id,
                instance: u32::try_from(index + 1).unwrap_or(u32::MAX),
                clean_up: false,
            };
            self.agent_does(run, event.clone(), actor, now)?;
        }
        Ok(())
    }

    fn keep_agent(&mut self, agent: Agent) -> Result<(), store::Error> {
        self.store.save_agent(&agent)?;
        let agents = Arc::make_mut(&mut self.snapshot.agents);
        agents.all.insert(agent.id, Arc::new(agent));
        Ok(())
    }

    fn add_agent(
        &mut self,
        new: NewAgent,
        wish: Wish,
        now: Time,
    ) -> Result<Result<Arc<Agent>, Error>, store::Error> {
        let before = self.snapshot.agents.named(new.owner, &new.name).cloned();
        if let Err(error) = self.may_add(&new, before.as_deref(), wish.replace) {
            return Ok(Err(error));
        }
        let actor = Some(new.owner);
        let (agent, was, wanted) = match before {
            None => (self.store.add_agent(&new, now)?, None, !wish.stopped),
            Some(before) => {
                let mut agent = Agent::clone(&before);
                agent.plan = Arc::new(new.plan);
                let wanted = before.lives.first().is_some_and(|life| life.wanted);
                (agent, Some(before), wanted)
            }
        };
        let change = if was.is_some() { "replace" } else { "add" };
        let data = json!({ "agent": agent.name, "change": change });
        self.note_agent(&agent, actor, data.to_string(), now)?;
        let (id, plan) = (agent.id, Arc::clone(&agent.plan));
        // Those that were too many before may still stop: they start anew.
        let had = was.as_ref().map_or(0, |was| was.plan.instances);
        let had = usize::try_from(had).map_or(0, |had| had.min(agent.lives.len()));
        let instances = usize::try_from(plan.instances).unwrap_or(usize::MAX);
        self.keep_agent(agent.clone())?;
        for index in agent.lives.len()..instances {
            let life = Life::new(now);
            let instance = u32::try_from(index + 1).unwrap_or(u32::MAX);
            self.keep_life(&agent, instance, &life)?;
        }
        if wanted {
            self.all_lives_do(id, had, &Event::Start, actor, now)?;
        }
        self.all_lives_do(id, instances, &Event::Stop, actor, now)?;
        self.forget_agent(id)?;
        if was.is_some_and(|was| was.plan.runs_otherwise(&plan)) {
            for index in 0..had.min(instances) {
                self.anew(id, index, actor, now)?;
            }
        }
        // Others may wait for it, or it for others no more.
        self.release_agents(now)?;
        let kept = self.snapshot.agents.all.get(&id);
        Ok(Ok(kept.map_or_else(|| Arc::new(agent), Arc::clone)))
    }

    /// Starts an instance anew that is to run.
    fn anew(
        &mut self,
        agent: AgentId,
        index: usize,
        actor: Option<u32>,
        now: Time,
    ) -> Result<(), store::Error> {
        let found = self.snapshot.agents.all.get(&agent);
        let life = found.and_then(|agent| agent.lives.get(index));
        if life.is_none_or(|life| !life.wanted) {
            return Ok(());
        }
        let run = Run {
            agent,
            instance: u32::try_from(index + 1).unwrap_or(u32::MAX),
            clean_up: false,
        };
        self.agent_does(run, Event::Restart, actor, now)
    }

    fn may_add(
        &mut self,
        new: &NewAgent,
        before: Option<&Agent>,
        replace: bool,
    ) -> Result<(), Error> {
        self.prompts.check_template(&new.plan.task.spec)?;
        match before {
            Some(before) if before.removed => return Err(Refused::Goes(new.name.clone()).into()),
            Some(_) if !replace => return Err(Refused::Exists(new.name.clone()).into()),
            Some(_) | None => {}
        }
        let others = || {
            let all = self.snapshot.agents.all.values();
            all.filter(|agent| agent.owner == new.owner && agent.name != new.name)
        };
        let count = |agent: &Arc<Agent>| u64::from(agent.plan.instances);
        let has = others().map(count).sum::<u64>() + u64::from(new.plan.instances);
        let most = self.options.user_agents;
        if has > most {
            return Err(Refused::TooMany { has, most }.into());
        }
        // Whether the way back from those it waits for leads to it.
        let mut ahead: Vec<&str> = new.plan.after.iter().map(String::as_str).collect();
        let mut seen = HashSet::new();
        while let Some(name) = ahead.pop() {
            let Some(agent) = others().find(|agent| agent.name == name) else {
                continue;
            };
            if agent.plan.after.contains(&new.name) {
                return Err(Refused::Loop(new.name.clone(), name.to_owned()).into());
            }
            if seen.insert(name) {
                ahead.extend(agent.plan.after.iter().map(String::as_str));
            }
        }
        self.room(&[new.sample()], 0)
    }
}

impl Handle {
    /// Makes an agent, or gives one of that name another plan.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_agent(
        &self,
        caller: Caller,
        new: NewAgent,
        wish: Wish,
    ) -> Result<Arc<Agent>, Error> {
        let invalid = |invalid| Error::Invalid {
            index: None,
            invalid,
        };
        new.check(clock::now()).map_err(invalid)?;
        let new = Box::new(new);
        self.ask_as(caller, |reply| {
            Command::Agent(Ask::Add { new, wish, reply })
        })
        .await
    }

    /// Starts, stops, restarts or removes an agent.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change_agent(
        &self,
        caller: Caller,
        called: Called<AgentId>,
        change: Change,
    ) -> Result<Arc<Agent>, Error> {
        self.ask_as(caller, |reply| {
            Command::Agent(Ask::Change {
                caller,
                called,
                change,
                reply,
            })
        })
        .await
    }
}
