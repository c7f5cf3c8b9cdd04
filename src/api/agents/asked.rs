//! An agent as it is asked for in JSON, and in files of agents.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::asked::Submit;
use crate::api::budgets::AgentRule;
use crate::api::hooks::act;
use crate::api::json::{object, objects};
use crate::api::number::Span;
use crate::api::problem::Problem;
use crate::api::schedules::{in_task, template};
use crate::api::submit;
use crate::clock;
use crate::model::agent::hook::{self, Hook};
use crate::model::agent::phase::Phase;
use crate::model::agent::plan::{CleanUp, NewAgent, OnOom, Plan, Restart};
use crate::model::agent::probe::{Look, Probe};
use crate::model::budget::Allowance;

/// Pause between two looks of a probe that names none.
const INTERVAL: Duration = Duration::from_secs(10);
/// Longest wait for an answer of a probe that names none.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Failures in a row that a probe takes, that names no number.
const THRESHOLD: u32 = 3;

/// How it is found out whether an agent is well: one of the first four.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AskedProbe {
    /// An address that has to answer with a status from 200 to 399.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// An address that has to take a connection, as HOST:PORT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// A command that has to exit with 0, run beside the agent as its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// A file that has to be written to within the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Pause between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// Longest wait for an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Failures in a row after which it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
}

/// What happens when an instance comes to stand somewhere: a command, or a
/// webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PhaseRule {
    /// Where; `cooling_off` and `failed` when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<Phase>>,
    /// Program and arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Address that a POST request is sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
}

/// An agent to be made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AskedAgent {
    /// Its name.
    pub name: String,
    /// After which ends it is started again: `always`, `on-failure` or `no`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Exit codes after which it is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_restart_on: Vec<i32>,
    /// What follows when it is killed for want of memory: `restart`, as after
    /// other ends, or `stop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_oom: Option<OnOom>,
    /// Restarts in a row before the long pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// The wait before the first restart in a row; each next one is twice as long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Span>,
    /// The longest of these waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_max: Option<Span>,
    /// The long pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cool_off: Option<Span>,
    /// How long it has to be up until what was before is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_after: Option<Span>,
    /// It says itself, by `READY=1`, when it has started up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// Longest start-up, where something tells its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<Span>,
    /// Time without output and with hardly any use of CPU after which it is idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<Span>,
    /// So many of it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Agents that have to be up before it starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// How it is found out whether it is well.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AskedProbe")]
    pub probe: Option<AskedProbe>,
    /// A command that is run after each of its ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_stop: Vec<String>,
    /// Its time limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_stop_timeout: Option<Span>,
    /// What happens when an instance comes to stand somewhere.
    #[serde(deserialize_with = "objects", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<PhaseRule>")]
    pub hooks: Option<Vec<PhaseRule>>,
    /// What its calls of models may come to.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AgentRule")]
    pub budget: Option<AgentRule>,
    /// Take the place of an agent of the same name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Leave a new one stopped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Change nothing, and say what would be changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What it runs, as a task.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Submit")]
    pub task: Option<Submit>,
}

/// What is asked for, in the model's words.
pub(super) fn new_agent(asked: AskedAgent, owner: u32) -> Result<NewAgent, Problem> {
    let now = clock::now();
    let detail = "is missing: say what it runs, as for a task";
    let task = asked.task.ok_or_else(|| Problem::invalid("task", detail))?;
    let detail = "has no meaning for an agent, which has a queue of its own and runs for ever";
    let odd = [
        ("queue", task.queue.is_some()),
        ("priority", task.priority.is_some()),
        ("group", task.group.is_some()),
        ("name", task.name.is_some()),
    ];
    let odd = odd.into_iter().find(|(_, there)| *there);
    if let Some(field) = odd.map(|(field, _)| field).or_else(|| task.names_others()) {
        return Err(in_task(Problem::invalid(field, detail)));
    }
    let task = template(submit::new_task(task, owner, now).map_err(in_task)?, now)?;
    let usual = Plan::default();
    let ms = |span: Option<Span>, usual: u64| span.map_or(usual, Span::millis);
    let timeout_ms = asked.on_stop_timeout.map(Span::millis);
    if timeout_ms.is_some() && asked.on_stop.is_empty() {
        return Err(Problem::invalid(
            "on_stop_timeout",
            "goes with on_stop only",
        ));
    }
    let on_stop = (!asked.on_stop.is_empty()).then_some(CleanUp {
        command: asked.on_stop,
        timeout_ms,
    });
    Ok(NewAgent {
        owner,
        name: asked.name,
        plan: Plan {
            restart: asked.restart.unwrap_or_default(),
            no_restart_on: asked.no_restart_on,
            on_oom: asked.on_oom.unwrap_or_default(),
            max_restarts: asked.max_restarts.unwrap_or(usual.max_restarts),
            backoff_ms: ms(asked.backoff, usual.backoff_ms),
            backoff_max_ms: ms(asked.backoff_max, usual.backoff_max_ms),
            cool_off_ms: ms(asked.cool_off, usual.cool_off_ms),
            healthy_after_ms: ms(asked.healthy_after, usual.healthy_after_ms),
            notify: asked.notify,
            start_timeout_ms: ms(asked.start_timeout, usual.start_timeout_ms),
            idle_after_ms: asked.idle_after.map(Span::millis),
            instances: asked.instances.unwrap_or(usual.instances),
            after: asked.after,
            probe: asked.probe.map(probe).transpose()?,
            on_stop,
            hooks: hooks(asked.hooks.unwrap_or_default())?,
            budget: asked.budget.map(Allowance::from),
            task,
        },
    })
}

fn hooks(rules: Vec<PhaseRule>) -> Result<Vec<Hook>, Problem> {
    let one = |rule: PhaseRule| {
        let on = rule.on.unwrap_or_else(hook::usual);
        let act = act(rule.command, rule.webhook)?;
        Ok(Hook { on, act })
    };
    rules.into_iter().map(one).collect()
}

fn probe(asked: AskedProbe) -> Result<Probe, Problem> {
    let looks = [
        asked.http.map(Look::Http),
        asked.tcp.map(Look::Tcp),
        asked.command.map(Look::Command),
        asked.file.map(Look::File),
    ];
    let mut looks = looks.into_iter().flatten();
    let (Some(look), None) = (looks.next(), looks.next()) else {
        let detail = "must have one of http, tcp, command and file";
        return Err(Problem::invalid("probe", detail));
    };
    let ms = |span: Option<Span>, usual: Duration| span.map_or(Span(usual), |span| span).millis();
    Ok(Probe {
        look,
        interval_ms: ms(asked.interval, INTERVAL),
        timeout_ms: ms(asked.timeout, TIMEOUT),
        threshold: asked.threshold.unwrap_or(THRESHOLD),
    })
}
