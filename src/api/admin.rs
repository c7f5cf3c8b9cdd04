//! The daemon itself: status, reload, and two of the questions that monitors
//! ask without a token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::engine::agents::Agents;
use crate::engine::command::Caller;
use crate::engine::snapshot::{Phase as Doing, Snapshot};
use crate::model::agent::phase::Phase;
use crate::model::task::State as TaskState;

use super::Shared;
use super::json;
use super::number::Stamp;
use super::problem::Problem;

/// How long a reload may take.
const RELOAD: Duration = Duration::from_secs(30);

/// A request to read the configuration again.
#[derive(Debug)]
pub struct Reload {
    /// Who asks.
    pub caller: Caller,
    /// Answered with the names of the settings that changed, or with the reason
    /// why nothing did.
    pub reply: oneshot::Sender<Result<Vec<String>, String>>,
}

/// What the daemon is doing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// What it is doing, in one word.
    pub phase: String,
    /// When it began to serve.
    pub started_at: Stamp,
    /// Tasks in each state.
    pub tasks: BTreeMap<String, u64>,
    /// Slots in use and in all.
    pub slots: Slots,
    /// Instances of agents in each phase that some are in, and until when those
    /// wait that cool off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentCount>,
    /// The process that owns the tasks' processes.
    pub runner: Option<Runner>,
    /// Who starts the daemon again when it dies, where that is a process of
    /// ours and not a service manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<Supervisor>,
    /// Commits since start.
    pub commits: u64,
    /// Commands since start.
    pub commands: u64,
}

/// Agents, each instance counted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AgentCount {
    /// In each phase, in the order in which they are told.
    pub phases: Vec<(String, u64)>,
    /// When the first starts again of those that cool off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooling_until: Option<Stamp>,
}

impl AgentCount {
    /// What there is; nothing without agents.
    #[must_use]
    pub fn of(agents: &Agents) -> Option<Self> {
        let phases = Phase::ALL.into_iter().zip(agents.tally());
        let phases: Vec<_> = phases
            .filter(|(_, count)| *count > 0)
            .map(|(phase, count)| (phase.word().to_owned(), count))
            .collect();
        let lives = agents.all.values().flat_map(|agent| &agent.lives);
        let cooling = lives.filter(|life| life.phase == Phase::CoolingOff);
        (!phases.is_empty()).then(|| Self {
            phases,
            cooling_until: cooling.filter_map(|life| life.wake).min().map(Stamp),
        })
    }
}

/// Attempts at once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub struct Slots {
    /// In use.
    pub used: u32,
    /// In all.
    pub total: u32,
}

/// The connected runner.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Runner {
    /// Version of its program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// What it can enforce.
    pub enforces: BTreeMap<String, bool>,
}

/// The process that starts the daemon again when it dies.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub struct Supervisor {
    /// Its number.
    pub pid: u32,
    /// How often it has done so.
    pub restarts: u64,
}

/// What a reload changed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// The settings that are different now.
    pub changed: Vec<String>,
}

/// That all is well, in one word.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Word {
    /// `ok`.
    pub status: String,
}

/// `GET /v1/status`.
pub(super) async fn status(State(shared): State<Arc<Shared>>) -> Response {
    let snapshot = shared.handle.snapshot();
    let tasks = TaskState::ALL
        .into_iter()
        .map(|state| (state.word().to_owned(), snapshot.count(state)))
        .collect();
    let agents = AgentCount::of(&snapshot.agents);
    let runner = snapshot.runner.map(|runner| {
        let can = runner.abilities;
        let enforces = [
            ("cgroup", can.cgroup),
            ("memory", can.memory),
            ("cpu", can.cpu),
            ("pids", can.pids),
            ("switch_user", can.switch_user),
            ("freeze", can.freeze),
        ];
        Runner {
            version: runner.version.clone(),
            pid: runner.pid,
            enforces: enforces.map(|(name, can)| (name.to_owned(), can)).into(),
        }
    });
    let status = Status {
        version: shared.version.to_owned(),
        pid: std::process::id(),
        phase: phase(snapshot.phase).to_owned(),
        started_at: Stamp(shared.started),
        tasks,
        slots: Slots {
            used: snapshot.used,
            total: snapshot.slots,
        },
        agents,
        runner,
        supervisor: shared.supervisor,
        commits: snapshot.commits,
        commands: snapshot.commands,
    };
    json::answer(StatusCode::OK, &status)
}

pub(super) const fn phase(phase: Doing) -> &'static str {
    match phase {
        Doing::Starting => "starting",
        Doing::Running => "running",
        Doing::Stopping => "stopping",
        Doing::Failed => "failed",
    }
}

/// `POST /v1/reload`.
pub(super) async fn reload(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let (reply, answer) = oneshot::channel();
    shared
        .reload
        .try_send(Reload { caller, reply })
        .map_err(|_| Problem::from(crate::engine::command::Error::Busy))?;
    match tokio::time::timeout(RELOAD, answer).await {
        Ok(Ok(Ok(changed))) => Ok(json::answer(StatusCode::OK, &Reloaded { changed })),
        Ok(Ok(Err(message))) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Err(Problem::new(status, "config_refused", message))
        }
        Ok(Err(_)) => Err(Problem::stopping()),
        Err(_) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let detail = "the reload takes unusually long; `taskdaemon status` tells more";
            Err(Problem::new(status, "reload_slow", detail).after(5))
        }
    }
}

/// `GET /live`: this program answers.
pub(super) async fn live() -> Response {
    ok()
}

/// `GET /ready`: the daemon does its work.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    readiness(&shared.handle.snapshot())
}

fn readiness(snapshot: &Snapshot) -> Response {
    match snapshot.phase {
        Doing::Running => ok(),
        Doing::Starting | Doing::Stopping | Doing::Failed => {
            let detail = format!("the daemon is {}", phase(snapshot.phase));
            unwell(detail)
        }
    }
}

fn ok() -> Response {
    let status = "ok".to_owned();
    json::answer(StatusCode::OK, &Word { status })
}

fn unwell(detail: impl Into<String>) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Problem::new(status, "not_ready", detail)
        .after(1)
        .into_response()
}
