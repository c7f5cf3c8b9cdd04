//! Hooks on the wire: those of tasks, and those of queues, which only an admin
//! sees and changes, since they concern everybody's tasks.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::{Request, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::command::Caller;
use crate::model::check;
use crate::model::hook::{Act, Ends, Hook};

use super::json::objects;
use super::problem::Problem;
use super::{Shared, body, head, json, problem};

/// What happens when a task is over: a command, or a webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HookRule {
    /// The final states at which it happens; all when empty.
    #[serde(skip_serializing_if = "Ends::is_empty")]
    pub on: Ends,
    /// Program and arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Address that a POST request is sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
}

impl From<&Hook> for HookRule {
    fn from(hook: &Hook) -> Self {
        let on = hook.on.clone();
        let (command, webhook) = match &hook.act {
            Act::Command(command) => (Some(command.clone()), None),
            Act::Webhook(url) => (None, Some(url.clone())),
        };
        Self {
            on,
            command,
            webhook,
        }
    }
}

/// Hooks in the model's terms.
pub(super) fn hooks(rules: Vec<HookRule>) -> Result<Vec<Hook>, Problem> {
    let one = |rule: HookRule| {
        let act = act(rule.command, rule.webhook)?;
        Ok(Hook { on: rule.on, act })
    };
    rules.into_iter().map(one).collect()
}

/// What a hook does: one of both.
pub(super) fn act(command: Option<Vec<String>>, webhook: Option<String>) -> Result<Act, Problem> {
    match (command, webhook) {
        (Some(command), None) => Ok(Act::Command(command)),
        (None, Some(url)) => Ok(Act::Webhook(url)),
        (None, None) | (Some(_), Some(_)) => {
            let detail = "each needs a command or a webhook, and not both";
            Err(Problem::invalid("hooks", detail))
        }
    }
}

/// The hooks of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueHooks {
    /// What happens whenever a task of it is over.
    #[serde(deserialize_with = "objects")]
    #[schemars(with = "Vec<HookRule>")]
    pub hooks: Option<Vec<HookRule>>,
}

fn answer(hooks: &[Hook]) -> Response {
    let hooks = Some(hooks.iter().map(HookRule::from).collect());
    json::answer(StatusCode::OK, &QueueHooks { hooks })
}

fn admin_only(caller: Caller) -> Result<(), Problem> {
    if caller.admin {
        return Ok(());
    }
    Err(Problem::forbidden(
        "only an admin may see and change the hooks of a queue",
    ))
}

/// `GET /v1/queues/{name}/hooks`.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(queue): Path<String>,
) -> Result<Response, Problem> {
    admin_only(caller)?;
    check::queue_name(&queue).map_err(|invalid| problem::of_field(None, &invalid))?;
    Ok(answer(&shared.handle.queue_hooks(queue).await?))
}

/// `PUT /v1/queues/{name}/hooks`.
pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(queue): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    admin_only(caller)?;
    let (parts, body) = request.into_parts();
    head::require_json(&parts.headers)?;
    let bytes = body::read(&shared, &parts.headers, body).await?;
    let asked: QueueHooks = json::parse(&bytes)?;
    let hooks = hooks(asked.hooks.unwrap_or_default())?;
    Ok(answer(
        &shared.handle.set_queue_hooks(caller, queue, hooks).await?,
    ))
}
