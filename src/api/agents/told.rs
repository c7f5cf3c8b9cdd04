//! Agents as they are told in JSON.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::dto::Verdict;
use crate::api::number::Stamp;
use crate::api::usage;
use crate::engine::agents::{Agents, Process};
use crate::engine::snapshot::Snapshot;
use crate::model::agent::life::Life;
use crate::model::agent::phase::Phase;
use crate::model::agent::plan::{Agent, NewAgent, Plan, Restart};

/// An instance of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceInfo {
    /// Its number, from 1.
    pub instance: u32,
    /// Whether it is to run.
    pub wanted: bool,
    /// Where it stands, in one word.
    pub phase: String,
    /// Since when.
    pub since: Stamp,
    /// Why it stands there, where the word does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Until when at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Stamp>,
    /// The task that is its latest run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<i64>,
    /// The process that runs, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// CPU time of the run that is live; told of one agent, not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Memory that this run takes; told of one agent, not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Restarts in all.
    pub restarts: u64,
    /// Restarts in a row.
    pub in_row: u32,
    /// The line of status that it last gave of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// When it last gave a sign of life, where it gives any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beat_at: Option<Stamp>,
    /// When its latest run ended, where one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Stamp>,
    /// How.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Verdict>,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentInfo {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Uid of its owner.
    pub owner: u32,
    /// When it was made.
    pub created_at: Stamp,
    /// Whether it is forgotten as soon as it has stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// What it runs.
    pub command: Vec<String>,
    /// After which ends it is started again.
    pub restart: Restart,
    /// Agents that have to be up before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// All that is asked of it, in milliseconds where it is a time.
    pub plan: Value,
    /// Its instances.
    pub instances: Vec<InstanceInfo>,
}

/// A page of agents.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AgentPage {
    /// The agents, in the order of their numbers.
    pub agents: Vec<AgentInfo>,
    /// Where the next page begins; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// What a request would change.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The agent's name.
    pub name: String,
    /// `add`, `replace` or `none`.
    pub change: String,
    /// The fields that would change: what they are now, and would be.
    pub fields: Vec<(String, Value, Value)>,
}

impl AgentInfo {
    /// An agent as it stands.
    #[must_use]
    pub fn of(agent: &Agent, snapshot: &Snapshot) -> Self {
        let lives = (1..).zip(&agent.lives);
        Self {
            id: agent.id.0,
            name: agent.name.clone(),
            owner: agent.owner,
            created_at: Stamp(agent.created),
            removed: agent.removed,
            command: agent.plan.task.spec.argv.clone(),
            restart: agent.plan.restart,
            after: agent.plan.after.clone(),
            plan: serde_json::to_value(&*agent.plan).unwrap_or_default(),
            instances: lives
                .map(|(number, life)| instance(number, life, agent, snapshot))
                .collect(),
        }
    }

    /// The same with what its runs take. Reads files for each of them.
    pub(super) fn with_usage(mut self, agent: &Agent, agents: &Agents) -> Self {
        for (one, life) in self.instances.iter_mut().zip(&agent.lives) {
            let Some(process) = process_of(life, agents) else {
                continue;
            };
            let usage = usage::of(process);
            one.cpu_seconds = usage
                .cpu
                .map(|micros| Duration::from_micros(micros).as_secs_f64());
            one.memory_bytes = usage.memory;
        }
        self
    }
}

fn instance(number: u32, life: &Life, agent: &Agent, snapshot: &Snapshot) -> InstanceInfo {
    let sign = life.task.and_then(|task| snapshot.signs.get(&task));
    let status = sign.and_then(|sign| sign.notice.status.clone());
    InstanceInfo {
        instance: number,
        wanted: life.wanted,
        phase: life.phase.word().to_owned(),
        since: Stamp(life.since),
        why: why(life, agent, &snapshot.agents),
        until: life.wake.map(Stamp),
        task: life.latest.map(|task| task.0),
        pid: process_of(life, &snapshot.agents)
            .map(|process| process.pid)
            .filter(|pid| *pid > 0),
        cpu_seconds: None,
        memory_bytes: None,
        restarts: life.restarts.total(),
        in_row: life.restarts.in_row(),
        status: status.filter(|status| !status.is_empty()),
        beat_at: sign.and_then(|sign| sign.beat).map(Stamp),
        ended_at: life.ended.map(Stamp),
        outcome: life.outcome.as_ref().map(Verdict::from),
    }
}

/// The process of an instance's live run.
fn process_of<'a>(life: &Life, agents: &'a Agents) -> Option<&'a Process> {
    let run = life.task.filter(|task| life.latest == Some(*task))?;
    agents.tasks.get(&run)?.process.as_ref()
}

/// Why an instance stands where it does.
fn why(life: &Life, agent: &Agent, agents: &Agents) -> Option<String> {
    let ended = || life.outcome.as_ref().map(|outcome| outcome.message.clone());
    let ended = || ended().filter(|message| !message.is_empty());
    match life.phase {
        Phase::Waiting => {
            let first = agents.first_down(agent)?;
            Some(match agents.named(agent.owner, first) {
                Some(_) => format!("agent {first} is not up"),
                None => format!("there is no agent {first}"),
            })
        }
        Phase::Starting => {
            let held = life.task.and_then(|task| agents.tasks.get(&task))?;
            Some(match &held.process {
                None => {
                    let task = life.task.map_or(0, |task| task.0);
                    format!("its run has not begun; `taskdaemon show {task}` says why")
                }
                Some(_) => "has not said that it is up".to_owned(),
            })
        }
        Phase::BackingOff => ended(),
        Phase::CoolingOff => {
            let count = agent.plan.max_restarts;
            let last = ended().map(|message| format!("; last: {message}"));
            let last = last.unwrap_or_default();
            Some(format!("ended {} times in a row{last}", count + 1))
        }
        Phase::Completed | Phase::Failed => ended(),
        Phase::CleaningUp => life.task.map(|task| format!("by task {task}")),
        Phase::Stopped | Phase::Healthy | Phase::Idle | Phase::Stopping => None,
    }
}

/// What taking up a plan would change.
pub(super) fn difference(new: &NewAgent, now: Option<&Arc<Agent>>) -> Difference {
    let value = |plan: &Plan| serde_json::to_value(plan).unwrap_or_default();
    let (change, before) = match now {
        None => ("add", Value::Null),
        Some(agent) if *agent.plan == new.plan => ("none", Value::Null),
        Some(agent) => ("replace", value(&agent.plan)),
    };
    let mut fields = Vec::new();
    if change == "replace" {
        compare("", &before, &value(&new.plan), &mut fields);
    }
    Difference {
        name: new.name.clone(),
        change: change.to_owned(),
        fields,
    }
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<(String, Value, Value)>) {
    if before == after {
        return;
    }
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else {
        found.push((path.to_owned(), before.clone(), after.clone()));
        return;
    };
    let new_names = new.keys().filter(|name| !old.contains_key(*name));
    for name in old.keys().chain(new_names) {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let side = |side: &Map<String, Value>| side.get(name).cloned();
        let (old, new) = (side(old), side(new));
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        compare(&path, &old, &new, found);
    }
}
