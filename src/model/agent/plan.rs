//! An agent as it is asked for and kept.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::QUEUE;
use super::hook::Hook;
use super::life::Life;
use super::probe::{Probe, patience};
use crate::model::budget::Allowance;
use crate::model::id::{AgentId, Run};
use crate::model::restart::Policy;
use crate::model::schedule::plan::Template;
use crate::model::spec::{DEFAULT_QUEUE, NewTask, OnInterrupt, Spec};
use crate::model::time::Time;

/// Most instances of one agent.
pub const INSTANCES_MAX: u32 = 1_000;
/// Waits of the restart rule that double, before the longest one.
const DOUBLINGS: u32 = 5;
/// The most that chance adds to a wait, in percent of it.
const JITTER_PERCENT: u32 = 10;
/// Time limit of a clean-up that names none, in milliseconds.
const CLEAN_UP_MS: u64 = 30_000;

/// Shortest silence of what looks after an agent that counts as its end.
const SILENCE_MIN: Duration = Duration::from_secs(10);
/// Verb of our own program that looks after an agent from beside it.
pub const TEND: &str = "tend";

/// After which ends an agent is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// After every end.
    #[default]
    Always,
    /// After every end but exit code 0.
    OnFailure,
    /// After none, but those that are no fault of its own.
    No,
}

impl Restart {
    /// The word used in JSON and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::No => "no",
        }
    }
}

/// What follows an end for want of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnOom {
    /// What follows other ends.
    #[default]
    Restart,
    /// Nothing: it has failed.
    Stop,
}

/// A command that puts things right after each end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanUp {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its time limit, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What is asked of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// After which ends it is started again.
    pub restart: Restart,
    /// Exit codes after which it is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_restart_on: Vec<i32>,
    /// What follows when it is killed for want of memory.
    pub on_oom: OnOom,
    /// Restarts in a row before the long pause.
    pub max_restarts: u32,
    /// The wait before the first restart in a row, in milliseconds; each next
    /// one is twice as long.
    pub backoff_ms: u64,
    /// The longest of these waits, in milliseconds.
    pub backoff_max_ms: u64,
    /// The long pause, in milliseconds.
    pub cool_off_ms: u64,
    /// How long it has to be up until what was before is forgotten, in
    /// milliseconds.
    pub healthy_after_ms: u64,
    /// It says itself, by `READY=1`, when it has started up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// Longest start-up, where something tells its end; in milliseconds.
    pub start_timeout_ms: u64,
    /// Time without output and with hardly any use of CPU after which it is
    /// idle, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_after_ms: Option<u64>,
    /// So many of it at once.
    pub instances: u32,
    /// Agents of the same owner that have to be up before it starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// How it is found out whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// What is run after each of its ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_stop: Option<CleanUp>,
    /// What happens when an instance comes to stand somewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// What its calls of models may come to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Allowance>,
    /// What it runs.
    pub task: Template,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            restart: Restart::default(),
            no_restart_on: Vec::new(),
            on_oom: OnOom::default(),
            max_restarts: 5,
            backoff_ms: 1_000,
            backoff_max_ms: 60_000,
            cool_off_ms: 300_000,
            healthy_after_ms: 60_000,
            notify: false,
            start_timeout_ms: 90_000,
            idle_after_ms: None,
            instances: 1,
            after: Vec::new(),
            probe: None,
            on_stop: None,
            hooks: Vec::new(),
            budget: None,
            task: Template::default(),
        }
    }
}

impl Plan {
    /// The restart rule.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let first = Duration::from_millis(self.backoff_ms);
        let most = Duration::from_millis(self.backoff_max_ms);
        let doubled = (0..DOUBLINGS).map(|step| first.saturating_mul(1 << step).min(most));
        Policy {
            steps: doubled.chain(std::iter::once(most)).collect(),
            jitter_percent: JITTER_PERCENT,
            limit: self.max_restarts,
            cool_off: Duration::from_millis(self.cool_off_ms),
            healthy: Duration::from_millis(self.healthy_after_ms),
        }
    }

    /// Whether something tells when it has started up; without, it has at once.
    #[must_use]
    pub const fn tells_ready(&self) -> bool {
        self.notify || self.probe.is_some()
    }

    /// Whether a run by this plan differs from one by another.
    #[must_use]
    pub fn runs_otherwise(&self, other: &Self) -> bool {
        let inside = |plan: &Self| plan.probe.clone().filter(Probe::is_inside);
        self.task != other.task || inside(self) != inside(other)
    }

    /// Whether an end of its own is followed by a start.
    #[must_use]
    pub fn starts_again(&self, exit_code: Option<i32>) -> bool {
        if exit_code.is_some_and(|code| self.no_restart_on.contains(&code)) {
            return false;
        }
        match self.restart {
            Restart::Always => true,
            Restart::OnFailure => exit_code != Some(0),
            Restart::No => false,
        }
    }
}

/// An agent as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAgent {
    /// Uid of whoever asks.
    pub owner: u32,
    /// Its name, unique for the owner.
    pub name: String,
    /// What is asked.
    pub plan: Plan,
}

impl NewAgent {
    /// A task like those that it makes, of somebody who asks for it.
    #[must_use]
    pub fn sample(&self) -> NewTask {
        let task = self.plan.task.clone();
        NewTask {
            owner: self.owner,
            labels: task.labels,
            stdin: task.stdin,
            queue: DEFAULT_QUEUE.to_owned(),
            spec: task.spec,
            ..NewTask::default()
        }
    }
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its number.
    pub id: AgentId,
    /// Uid of its owner.
    pub owner: u32,
    /// Its name, unique for the owner.
    pub name: String,
    /// When it was made.
    pub created: Time,
    /// It is forgotten as soon as all of it is stopped.
    pub removed: bool,
    /// What is asked of it.
    pub plan: std::sync::Arc<Plan>,
    /// Its instances, the first one first; those that are too many are still to
    /// be stopped.
    pub lives: Vec<Life>,
}

impl Agent {
    /// The task that is the next run of an instance, counted from 1. `program`
    /// is our own, which looks after those that are looked at from beside them.
    #[must_use]
    pub fn run(&self, instance: u32, program: &str) -> NewTask {
        let mut new = self.task(instance, Part::Run);
        new.stdin.clone_from(&self.plan.task.stdin);
        new.spec = Spec {
            on_interrupt: OnInterrupt::Hold,
            run: new.spec.run,
            ..self.plan.task.spec.clone()
        };
        new.spec.env.extend(self.variables(instance));
        if let Some(budget) = &self.plan.budget {
            new.spec.budget.get_or_insert_default().agent = Some(Allowance {
                name: self.name.clone(),
                ..budget.clone()
            });
        }
        if let Some(probe) = self.plan.probe.as_ref().filter(|probe| probe.is_inside()) {
            let order = serde_json::to_string(probe).unwrap_or_default();
            let own = [program, TEND, &order, "--"].map(str::to_owned);
            new.spec.argv.splice(0..0, own);
            // Whoever looks says each time that he does.
            let silence = patience(probe).max(SILENCE_MIN).as_millis();
            new.spec.heartbeat_ms = Some(u64::try_from(silence).unwrap_or(u64::MAX));
        }
        new
    }

    /// The task that puts things right after an end of an instance.
    #[must_use]
    pub fn clean_up(&self, clean_up: &CleanUp, instance: u32) -> NewTask {
        let own = &self.plan.task.spec;
        let mut new = self.task(instance, Part::CleanUp);
        new.spec.argv.clone_from(&clean_up.command);
        new.spec.env.clone_from(&own.env);
        new.spec.env.extend(self.variables(instance));
        new.spec.cwd.clone_from(&own.cwd);
        new.spec.user.clone_from(&own.user);
        new.spec.profile.clone_from(&own.profile);
        new.spec.timeout_ms = Some(clean_up.timeout_ms.unwrap_or(CLEAN_UP_MS));
        new
    }

    fn task(&self, instance: u32, part: Part) -> NewTask {
        let mut labels = self.plan.task.labels.clone();
        labels.insert("agent".to_owned(), self.name.clone());
        NewTask {
            owner: self.owner,
            queue: QUEUE.to_owned(),
            name: Some(match part {
                Part::Run => self.called(instance),
                Part::CleanUp => format!("clean-up of {}", self.called(instance)),
            }),
            labels,
            spec: Spec {
                run: Some(Run {
                    agent: self.id,
                    instance,
                    clean_up: part == Part::CleanUp,
                }),
                ..Spec::default()
            },
            ..NewTask::default()
        }
    }

    /// The name of an instance: the agent's, where it has only one.
    #[must_use]
    pub fn called(&self, instance: u32) -> String {
        if self.plan.instances == 1 {
            self.name.clone()
        } else {
            format!("{}@{instance}", self.name)
        }
    }

    fn variables(&self, instance: u32) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("TASKDAEMON_AGENT".to_owned(), self.name.clone()),
            ("TASKDAEMON_INSTANCE".to_owned(), instance.to_string()),
        ])
    }
}

/// What a task is of an agent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Run,
    CleanUp,
}
