//! What the page says of agents: where their instances stand, and of each of
//! the first of them what one looks for when it misbehaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::api::usage::{self, Usage};
use crate::engine::agents::Agents;
use crate::engine::snapshot::Snapshot;
use crate::model::agent::life::Life;
use crate::model::agent::phase::Phase;
use crate::model::agent::plan::Agent;
use crate::model::id::TaskId;
use crate::model::time::Time;

use super::page::Page;
use super::{OTHERS, count};

/// Agents that have rows of their own, first by number; the others are one.
const AGENTS: usize = 100;
/// Most processes that are looked at for one page.
const PROCESSES: usize = 1_000;
const LABELS: [&str; 2] = ["agent", "owner"];

/// What is told of an agent.
#[derive(Default)]
struct Row {
    up: u64,
    restarts: u64,
    /// Since when the instance is up that came up last.
    latest: Option<Time>,
    /// Since when the instance is idle that is so for longest.
    idle: Option<Time>,
    /// The oldest last sign of life.
    beat: Option<Time>,
    /// CPU time of the live runs, in microseconds.
    cpu: u64,
    /// Memory that they take, in bytes.
    memory: u64,
}

/// What runs of agents take, by their tasks.
pub(super) type Usages = BTreeMap<TaskId, Usage>;

/// What the runs take of agents that have rows of their own. Reads files.
pub(super) fn usages(agents: &Agents) -> Usages {
    let shown: BTreeSet<_> = agents.all.keys().take(AGENTS).collect();
    let runs = agents.tasks.iter();
    let runs = runs.filter(|(_, held)| !held.run.clean_up && shown.contains(&held.run.agent));
    runs.filter_map(|(task, held)| Some((*task, usage::of(held.process.as_ref()?))))
        .take(PROCESSES)
        .collect()
}

pub(super) fn stand(page: &mut Page, snapshot: &Snapshot, usages: &Usages, now: Time) {
    let agents = &snapshot.agents;
    let phases = Phase::ALL.into_iter().zip(agents.tally());
    page.gauges(
        "agents",
        "Instances of agents, by where they stand.",
        ["phase"],
        phases.map(|(phase, number)| ([phase.word().to_owned()], count(number))),
    );
    let mut others = Row::default();
    let mut rows: Vec<([String; 2], Row)> = Vec::new();
    for agent in agents.all.values() {
        if rows.len() < AGENTS {
            let labels = [agent.name.clone(), agent.owner.to_string()];
            let mut row = Row::default();
            row.add(agent, snapshot, usages);
            rows.push((labels, row));
        } else {
            others.add(agent, snapshot, usages);
        }
    }
    if agents.all.len() > AGENTS {
        rows.push(([OTHERS.to_owned(), String::new()], others));
    }
    let of = |pick: fn(&Row) -> u64| {
        let row = move |(labels, row): &([String; 2], Row)| (labels.clone(), count(pick(row)));
        rows.iter().map(row).collect::<Vec<_>>()
    };
    let age = |pick: fn(&Row) -> Option<Time>| {
        let row = move |(labels, row): &([String; 2], Row)| {
            let age = pick(row).map_or(0.0, |since| now.since(since).as_secs_f64());
            (labels.clone(), age)
        };
        rows.iter().map(row).collect::<Vec<_>>()
    };
    page.gauges(
        "agent_up",
        "Instances of an agent that are up.",
        LABELS,
        of(|row| row.up),
    );
    page.counters(
        "agent_restarts_total",
        "Restarts of an agent since it was made.",
        LABELS,
        of(|row| row.restarts),
    );
    page.gauges(
        "agent_up_seconds",
        "How long the instance is up that came up last; 0 while none is.",
        LABELS,
        age(|row| row.latest),
    );
    page.gauges(
        "agent_idle_seconds",
        "How long the instance is idle that is so for longest; 0 while none is.",
        LABELS,
        age(|row| row.idle),
    );
    page.gauges(
        "agent_heartbeat_age_seconds",
        "How long the instance is silent that is so for longest, of those that give signs of life.",
        LABELS,
        age(|row| row.beat),
    );
    takes(page, &rows);
}

fn takes(page: &mut Page, rows: &[([String; 2], Row)]) {
    let cpu = |(labels, row): &([String; 2], Row)| {
        let cpu = Duration::from_micros(row.cpu).as_secs_f64();
        (labels.clone(), cpu)
    };
    page.gauges(
        "agent_cpu_seconds",
        "CPU time of the runs of an agent that are live; begins anew with each run.",
        LABELS,
        rows.iter().map(cpu).collect::<Vec<_>>(),
    );
    let memory = |(labels, row): &([String; 2], Row)| (labels.clone(), count(row.memory));
    page.gauges(
        "agent_memory_bytes",
        "Memory that the live runs of an agent take.",
        LABELS,
        rows.iter().map(memory).collect::<Vec<_>>(),
    );
}

impl Row {
    fn add(&mut self, agent: &Agent, snapshot: &Snapshot, usages: &Usages) {
        for life in &agent.lives {
            self.add_one(life, snapshot);
            let usage = life.task.and_then(|task| usages.get(&task));
            self.cpu += usage.and_then(|usage| usage.cpu).unwrap_or_default();
            self.memory += usage.and_then(|usage| usage.memory).unwrap_or_default();
        }
    }

    fn add_one(&mut self, life: &Life, snapshot: &Snapshot) {
        self.restarts += life.restarts.total();
        if !life.phase.is_up() {
            return;
        }
        self.up += 1;
        self.latest = self.latest.max(life.restarts.well_since());
        let first = |one: Option<Time>, other: Option<Time>| one.into_iter().chain(other).min();
        let idle = (life.phase == Phase::Idle).then_some(life.since);
        self.idle = first(self.idle, idle);
        let sign = life.task.and_then(|task| snapshot.signs.get(&task));
        self.beat = first(self.beat, sign.and_then(|sign| sign.beat));
    }
}
