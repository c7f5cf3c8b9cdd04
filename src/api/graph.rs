//! What hangs together: the graph around a task, and the answer to a change of
//! a task together with those behind it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::command::Caller;
use crate::engine::graph::Affected;
use crate::engine::picture::{Picture, TASKS_MAX};
use crate::model::depend::Link;
use crate::model::task::Task;

use super::dto::TaskInfo;
use super::problem::Problem;
use super::query::{Pairs, Params, task_id};
use super::{Shared, json};

/// A task that was changed together with those behind it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ChangedInfo {
    /// The task.
    #[serde(flatten)]
    pub task: TaskInfo,
    /// How many of those behind it were changed as well.
    pub dependants_changed: u64,
}

/// What hangs together with a task.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct GraphInfo {
    /// The task that was asked about.
    pub task: i64,
    /// Everything that waits for it or that it waits for, directly or through
    /// others, and itself; by number.
    pub nodes: Vec<NodeInfo>,
    /// Which of them waits for which.
    pub edges: Vec<EdgeInfo>,
    /// Whether there is more than is listed here.
    pub cut: bool,
}

/// A task of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeInfo {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: Option<String>,
    /// Its queue.
    pub queue: String,
    /// Where it stands.
    pub state: String,
    /// Why it ended, in one line.
    pub message: Option<String>,
    /// The first words of its command.
    pub command: Vec<String>,
}

/// One task waits for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeInfo {
    /// The one that waits.
    pub task: i64,
    /// What it waits for.
    pub after: i64,
    /// How that has to end: `ok` or `any`.
    pub wants: String,
    /// Whether it has.
    pub met: bool,
}

impl From<&Task> for NodeInfo {
    fn from(task: &Task) -> Self {
        let outcome = task.outcome.as_ref().filter(|_| task.state.is_terminal());
        Self {
            id: task.id.0,
            name: task.name.clone(),
            queue: task.queue.clone(),
            state: task.state.word().to_owned(),
            message: outcome.map(|outcome| outcome.message.clone()),
            command: match &task.spec.prompt {
                None => first_words(&task.spec.argv),
                Some(prompt) => prompt.words(),
            },
        }
    }
}

/// Some words of a command, each of some letters: enough to know it by, and
/// ten thousand of them are not too much.
fn first_words(command: &[String]) -> Vec<String> {
    let short = |word: &String| word.chars().take(80).collect();
    command.iter().take(4).map(short).collect()
}

impl From<&Link> for EdgeInfo {
    fn from(link: &Link) -> Self {
        Self {
            task: link.child.0,
            after: link.parent.0,
            wants: link.wants.word().to_owned(),
            met: link.met,
        }
    }
}

/// `GET /v1/tasks/{id}/graph`.
pub(super) async fn graph(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    let most = u32::try_from(TASKS_MAX).unwrap_or(u32::MAX);
    let limit = Params::new(pairs, &["limit"])?.number("limit", 1..=most)?;
    let limit = limit.unwrap_or(most) as usize;
    let Picture { tasks, links, cut } = shared.handle.graph(caller, id, limit).await?;
    let info = GraphInfo {
        task: id.0,
        nodes: tasks.iter().map(NodeInfo::from).collect(),
        edges: links.iter().map(EdgeInfo::from).collect(),
        cut,
    };
    Ok(json::answer(StatusCode::OK, &info))
}

/// The answer to a change of a task together with those behind it.
pub(super) fn changed(changed: &Affected) -> Response {
    let info = ChangedInfo {
        task: TaskInfo::of_task(&changed.task),
        dependants_changed: changed.dependants,
    };
    json::answer(StatusCode::OK, &info)
}
