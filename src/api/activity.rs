//! What happened of late, newest first, in pages: the record from its other end,
//! for people and for whoever looks for one request, user or time.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::command::Caller;
use crate::model::event::Wanted;
use crate::model::origin::REQUEST_MAX;

use super::events::{EventInfo, kind};
use super::problem::Problem;
use super::query::{Pairs, Params, task_id};
use super::{Shared, json, submit, tasks};

/// Events on a page when nobody says how many.
const PAGE: u32 = 100;
/// Most events on a page.
const PAGE_MAX: u32 = 1000;
/// Parts of the record that are looked through for one page, so that no question
/// takes long however little there is to find.
const PARTS: usize = 20;

/// A page of what happened.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ActivityPage {
    /// The events, newest first. There may be none on a page that is not the last
    /// one: a page is looked for in a part of the record only.
    pub events: Vec<EventInfo>,
    /// Where the next page begins, as `cursor`; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// `GET /v1/activity`.
pub(super) async fn activity(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let known = [
        "task", "queue", "kind", "user", "request", "since", "limit", "cursor",
    ];
    let mut params = Params::new(pairs, &known)?;
    let mut wanted = wanted(&mut params, caller)?;
    let mut page = ActivityPage {
        events: Vec::new(),
        next: None,
    };
    for _ in 0..PARTS {
        let found = shared.handle.events(wanted.clone()).await?;
        page.events = found.entries.iter().map(EventInfo::from).collect();
        page.next = (found.reached > found.oldest).then_some(found.reached);
        if !page.events.is_empty() || page.next.is_none() {
            break;
        }
        wanted.before = page.next;
    }
    Ok(json::answer(StatusCode::OK, &page))
}

fn wanted(params: &mut Params, caller: Caller) -> Result<Wanted, Problem> {
    let task = params.take("task");
    let user = params.take("user");
    let since = params.take("since");
    let kinds = params.take("kind").unwrap_or_default();
    let kinds = kinds.split(',').filter(|word| !word.is_empty());
    let request = params.take("request");
    if request
        .as_ref()
        .is_some_and(|name| name.len() > REQUEST_MAX)
    {
        let detail = format!("must have at most {REQUEST_MAX} bytes");
        return Err(Problem::invalid("request", detail));
    }
    Ok(Wanted {
        owner: (!caller.admin).then_some(caller.uid),
        task: task.map(|text| task_id(&text)).transpose()?,
        queue: params.take("queue"),
        kinds: kinds
            .map(|word| kind(word, false))
            .collect::<Result<_, _>>()?,
        actor: user.map(|text| tasks::user("user", &text)).transpose()?,
        request,
        since: since
            .map(|text| submit::moment("since", &text))
            .transpose()?,
        limit: params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE),
        // Behind the newest one.
        before: Some(params.sequence("cursor")?.unwrap_or(i64::MAX)),
        ..Wanted::default()
    })
}
