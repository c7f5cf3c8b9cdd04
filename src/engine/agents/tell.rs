//! What is told when an instance of an agent comes to stand elsewhere: an
//! event, news for the journal, and the tasks of its hooks. All that is kept is
//! in the transaction that moves the instance.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::engine::hooks::{Word, hook, stamp};
use crate::engine::news::News;
use crate::model::agent::life::Life;
use crate::model::agent::plan::Agent;
use crate::model::spec::NewTask;
use crate::model::time::Time;
use crate::store::{self, Store};

impl<S: Store> Engine<S> {
    /// Writes down that an instance stands elsewhere now.
    pub(super) fn tell_phase(
        &mut self,
        agent: &Agent,
        instance: u32,
        life: &Life,
        actor: Option<u32>,
        now: Time,
    ) -> Result<(), store::Error> {
        let outcome = life.outcome.as_ref().filter(|_| life.ended == Some(now));
        let until = life.wake.map(Time::micros);
        let data = json!({
            "agent": agent.name,
            "instance": instance,
            "phase": life.phase,
            "until_us": until,
            "class": outcome.map(|outcome| outcome.class),
            "why": outcome.map(|outcome| &outcome.message),
        });
        self.note_agent(agent, actor, data.to_string(), now)?;
        self.news.push(News::Agent {
            agent: agent.called(instance),
            owner: agent.owner,
            phase: life.phase,
            why: outcome.map(|outcome| outcome.message.clone()),
            until: life.wake.map(|at| at.since(now)),
        });
        self.fire_agents_hooks(agent, instance, life, now)
    }

    /// Makes the tasks that say so.
    fn fire_agents_hooks(
        &mut self,
        agent: &Agent,
        instance: u32,
        life: &Life,
        now: Time,
    ) -> Result<(), store::Error> {
        let hooks = agent.plan.hooks.iter();
        let hooks = hooks.filter(|hook| hook.on.contains(&life.phase));
        // No two changes have the same number.
        let event = self.store.last_event();
        let all: Vec<_> = hooks
            .enumerate()
            .map(|(place, hook)| {
                let word = Word {
                    event: format!("agent.{}", life.phase),
                    body: told(agent, instance, life).to_string(),
                    delivery: format!("agent-{}-{event}-{place}", agent.id),
                    variables: facts(agent, instance, life),
                    profile: agent.plan.task.spec.profile.clone(),
                };
                self.hooks
                    .make(follower(agent, instance, life), &hook.act, word, now)
            })
            .collect();
        for new in all {
            self.make(&new, now)?;
        }
        Ok(())
    }
}

/// What all hooks of an instance have in common.
fn follower(agent: &Agent, instance: u32, life: &Life) -> NewTask {
    let user = agent.plan.task.spec.user.clone();
    let mut new = hook(agent.owner, user, life.task.or(life.latest));
    new.name = Some(format!("hook of agent {}", agent.called(instance)));
    new.labels = BTreeMap::from([("hook-of-agent".to_owned(), agent.name.clone())]);
    new
}

/// The facts that a command gets.
fn facts(agent: &Agent, instance: u32, life: &Life) -> Vec<(&'static str, String)> {
    let outcome = life.outcome.as_ref();
    let task = life.latest.map(|task| task.to_string());
    let class = outcome.map(|outcome| outcome.class.word().to_owned());
    let code = outcome.and_then(|outcome| outcome.exit_code);
    let some = [
        ("AGENT", Some(agent.name.clone())),
        ("INSTANCE", Some(instance.to_string())),
        ("PHASE", Some(life.phase.word().to_owned())),
        ("TASK", task),
        ("CLASS", class),
        ("EXIT_CODE", code.map(|code| code.to_string())),
    ];
    let some = some.into_iter();
    some.filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// What is told of an instance, in the words of the API.
fn told(agent: &Agent, instance: u32, life: &Life) -> Value {
    json!({
        "event": format!("agent.{}", life.phase),
        "id": agent.id,
        "agent": agent.name,
        "owner": agent.owner,
        "instance": instance,
        "phase": life.phase,
        "since": stamp(life.since),
        "until": life.wake.map(stamp),
        "restarts": life.restarts.total(),
        "in_row": life.restarts.in_row(),
        "task": life.latest,
        "outcome": life.outcome,
    })
}
