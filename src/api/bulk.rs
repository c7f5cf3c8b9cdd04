//! One change for many tasks: retry, cancel or discard all that a filter
//! selects. A filter that selects nothing in particular has to say so.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::{Request, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::engine::bulk::Action;
use crate::engine::command::Caller;
use crate::model::attempt::Class;
use crate::model::filter::Selection;
use crate::model::task::State as TaskState;

use super::number::{Pairs, Span};
use super::problem::Problem;
use super::{Shared, body, head, json, tasks};

/// Which tasks, and whether to change them at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bulk {
    /// Only these states.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<String>,
    /// Only this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Only names that contain this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only tasks with all these labels.
    #[serde(skip_serializing_if = "is_empty")]
    pub labels: Pairs,
    /// Only outcomes of these classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class: Vec<String>,
    /// Only tasks that have been over, or waiting, for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<Span>,
    /// Only tasks of this user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// All tasks are meant: says so where there is no condition.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Only count them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

fn is_empty(pairs: &Pairs) -> bool {
    pairs.0.is_empty()
}

/// What became of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "BulkCount")]
pub struct Counted {
    /// Tasks that the filter selects.
    pub matched: u64,
    /// Those that were changed.
    pub changed: u64,
    /// Those that may not be changed as they are.
    pub refused: u64,
}

/// `POST /v1/tasks/retry`.
pub(super) async fn retry(
    state: State<Arc<Shared>>,
    caller: Extension<Caller>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    change(Action::Retry, state, caller, request).await
}

/// `POST /v1/tasks/cancel`.
pub(super) async fn cancel(
    state: State<Arc<Shared>>,
    caller: Extension<Caller>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    change(Action::Cancel, state, caller, request).await
}

/// `POST /v1/tasks/discard`.
pub(super) async fn discard(
    state: State<Arc<Shared>>,
    caller: Extension<Caller>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    change(Action::Discard, state, caller, request).await
}

async fn change(
    action: Action,
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    head::require_json(&parts.headers)?;
    let bytes = body::read(&shared, &parts.headers, body).await?;
    let asked: Bulk = json::parse(&bytes)?;
    let dry_run = asked.dry_run;
    let selection = selection(asked, action, caller)?;
    let count = shared
        .handle
        .bulk(caller, action, selection, dry_run)
        .await?;
    let answer = Counted {
        matched: count.matched,
        changed: count.changed,
        refused: count.refused,
    };
    Ok(json::answer(StatusCode::OK, &answer))
}

fn selection(asked: Bulk, action: Action, caller: Caller) -> Result<Selection, Problem> {
    let bare = Bulk {
        dry_run: asked.dry_run,
        all: asked.all,
        ..Bulk::default()
    };
    if asked == bare && !asked.all {
        let detail = "must be true where there is no other condition, or give one: state, queue, \
                      name, labels, class, older_than, owner";
        return Err(Problem::invalid("all", detail));
    }
    if asked != bare && asked.all {
        let detail = "cannot be true beside a condition: leave one of them out";
        return Err(Problem::invalid("all", detail));
    }
    let owner = asked.owner.map(|name| tasks::owner(&name)).transpose()?;
    if owner.is_some_and(|uid| !caller.may_touch(uid)) {
        return Err(Problem::forbidden("only an admin changes tasks of others"));
    }
    let older = asked.older_than.map(|age| clock::now().before(age.0));
    let classes = asked.class.iter().map(|word| class(word));
    Ok(Selection {
        owner: owner.or_else(|| (!caller.admin).then_some(caller.uid)),
        states: states(&asked.state, action)?,
        queue: asked.queue,
        name: asked.name,
        labels: asked.labels.0.into_iter().collect(),
        classes: classes.collect::<Result<_, _>>()?,
        by: older,
    })
}

fn states(words: &[String], action: Action) -> Result<Vec<TaskState>, Problem> {
    if words.is_empty() {
        let implied = |state: &TaskState| action.implies(*state);
        return Ok(TaskState::ALL.into_iter().filter(implied).collect());
    }
    let mut states = Vec::new();
    for word in words {
        let state = tasks::state(word)?;
        if !action.fits(state) {
            let action = action.word();
            let detail = format!("{action} is not for tasks that are {state}");
            return Err(Problem::invalid("state", detail));
        }
        states.push(state);
    }
    Ok(states)
}

fn class(word: &str) -> Result<Class, Problem> {
    Class::from_word(word).ok_or_else(|| {
        let words: Vec<_> = Class::ALL.iter().map(|class| class.word()).collect();
        Problem::invalid("class", format!("must be among {}", words.join(", ")))
    })
}
