//! Queues: list, show, and for admins limits, pause, resume, drain and remove.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::{Request, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::engine::command::{Caller, Error};
use crate::engine::queues::Change;
use crate::model::check::queue_name;
use crate::model::queue::{Lane, Limits};
use crate::model::rate::Rate;
use crate::model::task::State as TaskState;

use super::problem::{self, Problem};
use super::{Shared, body, head, json};

/// New limits of a queue: a value sets one, `null` takes it away, and what is
/// not there stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AskedLimits {
    /// Attempts at once.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Option<u32>>,
    /// Starts in a time, such as `"10/1m"`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub rate: Option<Option<Rate>>,
    /// Attempts at once of one group key.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub group_limit: Option<Option<u32>>,
}

/// What is there was given, be it `null`.
fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// Whether it starts nothing.
    pub paused: bool,
    /// Whether it takes nothing new.
    pub draining: bool,
    /// Its own limit of attempts at once.
    pub concurrency: Option<u32>,
    /// Its own limit of starts in a time.
    pub rate: Option<Rate>,
    /// Attempts at once of one group key.
    pub group_limit: u32,
    /// Tasks that wait for others.
    pub blocked: u64,
    /// Tasks that wait for a time.
    pub scheduled: u64,
    /// Ready tasks.
    pub queued: u64,
    /// Live attempts, paused and stopping ones included.
    pub running: u64,
}

/// All queues.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct QueueList {
    /// The queues, by name.
    pub queues: Vec<QueueInfo>,
}

impl From<&Lane> for QueueInfo {
    fn from(lane: &Lane) -> Self {
        let queue = &lane.queue;
        let counted = || TaskState::ALL.into_iter().zip(lane.counts);
        let count = |wanted: fn(TaskState) -> bool| {
            let found = counted().filter(|(state, _)| wanted(*state));
            found.map(|(_, count)| count).sum()
        };
        Self {
            name: queue.name.clone(),
            paused: queue.paused,
            draining: queue.draining,
            concurrency: queue.concurrency,
            rate: queue.rate,
            group_limit: queue.group_limit(),
            blocked: count(|state| state == TaskState::Blocked),
            scheduled: count(|state| state == TaskState::Scheduled),
            queued: count(|state| state == TaskState::Queued),
            running: count(TaskState::is_live),
        }
    }
}

/// `GET /v1/queues`.
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let lanes = shared.handle.queues().await?;
    let queues = lanes.iter().map(QueueInfo::from).collect();
    Ok(json::answer(StatusCode::OK, &QueueList { queues }))
}

/// `GET /v1/queues/{queue}`.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let name = known_form(name)?;
    let lanes = shared.handle.queues().await?;
    let lane = lanes.iter().find(|lane| lane.queue.name == name);
    let lane = lane.ok_or(Error::NoQueue(name))?;
    Ok(json::answer(StatusCode::OK, &QueueInfo::from(lane)))
}

/// `PATCH /v1/queues/{queue}`.
pub(super) async fn set(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    head::require_json(&parts.headers)?;
    let bytes = body::read(&shared, &parts.headers, body).await?;
    let asked: AskedLimits = json::parse(&bytes)?;
    let limits = Limits {
        concurrency: asked.concurrency,
        rate: asked.rate,
        group_limit: asked.group_limit,
    };
    ask(&shared, caller, name, Change::Set(limits)).await
}

/// `POST /v1/queues/{queue}/pause`, `resume` and `drain`.
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((name, verb)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let change = match verb.as_str() {
        "pause" => Change::Pause,
        "resume" => Change::Resume,
        "drain" => Change::Drain,
        _ => return Err(problem::no_route(&format!("/v1/queues/{name}/{verb}"))),
    };
    ask(&shared, caller, name, change).await
}

/// `DELETE /v1/queues/{queue}`.
pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    ask(&shared, caller, name, Change::Remove).await
}

async fn ask(
    shared: &Shared,
    caller: Caller,
    name: String,
    change: Change,
) -> Result<Response, Problem> {
    let name = known_form(name)?;
    let lane = shared.handle.change_queue(caller, name, change).await?;
    Ok(json::answer(StatusCode::OK, &QueueInfo::from(&lane)))
}

fn known_form(name: String) -> Result<String, Problem> {
    queue_name(&name).map_err(|invalid| problem::of_field(None, &invalid))?;
    Ok(name)
}
