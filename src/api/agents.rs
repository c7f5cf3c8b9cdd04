//! Agents: make, list, show, start, stop, restart, remove.

pub mod asked;
pub mod told;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::{Request, StatusCode};

use crate::clock;
use crate::engine::agents::ask::{Change, Refused, Wish};
use crate::engine::called::Called;
use crate::engine::command::{Caller, Error};
use crate::model::id::AgentId;

use super::problem::{self, Problem};
use super::query::{Pairs, Params};
use super::{Shared, body, head, json, run_as};
use asked::{AskedAgent, new_agent};
use told::{AgentInfo, AgentPage, difference};

/// Agents on a page when nobody says how many.
const PAGE: u32 = 100;
/// Most agents on a page.
const PAGE_MAX: u32 = 1_000;
/// `POST /v1/agents`.
pub(super) async fn add(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    head::require_json(&parts.headers)?;
    let bytes = body::read(&shared, &parts.headers, body).await?;
    let asked: AskedAgent = json::parse(&bytes)?;
    let wish = Wish {
        replace: asked.replace,
        stopped: asked.stopped,
    };
    let dry_run = asked.dry_run;
    let new = new_agent(asked, caller.uid)?;
    let wanted = std::iter::once(run_as::named(&new.plan.task.spec));
    run_as::check(&shared, &caller, wanted, |_| "task.user".to_owned()).await?;
    if dry_run {
        new.check(clock::now())
            .map_err(|invalid| problem::of_field(None, &invalid))?;
        let snapshot = shared.handle.snapshot();
        let difference = difference(&new, snapshot.agents.named(new.owner, &new.name));
        return Ok(json::answer(StatusCode::OK, &difference));
    }
    let made = shared.handle.add_agent(caller, new, wish).await?;
    let info = AgentInfo::of(&made, &shared.handle.snapshot());
    Ok(json::answer(StatusCode::CREATED, &info))
}

/// `GET /v1/agents`.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let mut params = Params::new(pairs, &["limit", "cursor", "mine"])?;
    let limit = params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE);
    let after = params.number("cursor", 1..=u32::MAX)?.unwrap_or(0);
    let snapshot = shared.handle.snapshot();
    let first = AgentId(i64::from(after) + 1);
    let mine = snapshot.agents.all.range(first..).map(|(_, agent)| agent);
    let own = params.switch("mine")?;
    let may = |owner: u32| caller.may_touch(owner) && (!own || owner == caller.uid);
    let mut mine = mine.filter(|agent| may(agent.owner));
    let page = mine.by_ref().take(limit as usize);
    let agents: Vec<_> = page.map(|agent| AgentInfo::of(agent, &snapshot)).collect();
    let more = mine.next().is_some();
    let next = agents.last().filter(|_| more).map(|last| last.id);
    Ok(json::answer(StatusCode::OK, &AgentPage { agents, next }))
}

/// `GET /v1/agents/{agent}`.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let snapshot = shared.handle.snapshot();
    let called = called(name);
    let found = match &called {
        Called::Number(id) => snapshot.agents.all.get(id),
        Called::Name(name) => snapshot.agents.named(caller.uid, name),
    };
    let found = found.filter(|agent| caller.may_touch(agent.owner));
    let Some(agent) = found.map(Arc::clone) else {
        return Err(Error::from(Refused::NotFound(called)).into());
    };
    let info = AgentInfo::of(&agent, &snapshot);
    let known = info.clone();
    // A thousand instances have two thousand files.
    let looked = move || known.with_usage(&agent, &snapshot.agents);
    let info = tokio::task::spawn_blocking(looked).await.unwrap_or(info);
    Ok(json::answer(StatusCode::OK, &info))
}

/// `POST /v1/agents/{agent}/start`, `stop` and `restart`.
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((name, verb)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let change = match verb.as_str() {
        "start" => Change::Start,
        "stop" => Change::Stop,
        "restart" => Change::Restart,
        _ => return Err(problem::no_route(&format!("/v1/agents/{name}/{verb}"))),
    };
    changed(&shared, caller, name, change).await
}

/// `DELETE /v1/agents/{agent}`.
pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    changed(&shared, caller, name, Change::Remove).await
}

async fn changed(
    shared: &Shared,
    caller: Caller,
    name: String,
    change: Change,
) -> Result<Response, Problem> {
    let agent = shared
        .handle
        .change_agent(caller, called(name), change)
        .await?;
    let info = AgentInfo::of(&agent, &shared.handle.snapshot());
    Ok(json::answer(StatusCode::OK, &info))
}

/// A number is one; no name is a number.
fn called(text: String) -> Called<AgentId> {
    match text.parse() {
        Ok(number) => Called::Number(AgentId(number)),
        Err(_) => Called::Name(text),
    }
}
