//! Tasks that are there: list, show, wait, cancel, retry, pause, resume. Whose task it is,
//! the engine knows; a caller who may not see one is told there is none.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::StatusCode;
use nix::unistd::User;
use sha2::{Digest, Sha256};

use crate::engine::command::Caller;
use crate::model::filter::Filter;
use crate::model::id::TaskId;
use crate::model::task::State as TaskState;

use super::Shared;
use super::dto::{Page, TaskInfo};
use super::graph;
use super::json;
use super::problem::Problem;
use super::query::{Pairs, Params, task_id};

/// Tasks on a page when nobody says how many.
const PAGE: u32 = 100;
/// Most tasks on a page.
const PAGE_MAX: u32 = 1000;
/// How long `wait` waits when nobody says how long.
const WAIT: Duration = Duration::from_secs(60);
/// Longest wait in one request: whoever wants more asks again.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// `GET /v1/tasks`.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let known = [
        "state", "queue", "name", "label", "owner", "limit", "cursor",
    ];
    let mut params = Params::new(pairs, &known)?;
    let limit = params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE);
    let cursor = params.take("cursor");
    let mut filter = filter(&mut params, caller)?;
    let seal = Seal::new(caller, &filter);
    filter.before = match &cursor {
        Some(cursor) => Some(seal.open(cursor)?),
        None => None,
    };
    filter.limit = limit;
    let listed = shared.handle.list(filter).await?;
    let page = Page {
        tasks: listed.views.iter().map(TaskInfo::in_list).collect(),
        damaged: listed.damaged.iter().map(|id| id.0).collect(),
        next: listed.next.map(|id| seal.close(id)),
    };
    Ok(json::answer(StatusCode::OK, &page))
}

fn filter(params: &mut Params, caller: Caller) -> Result<Filter, Problem> {
    let owner = match params.take("owner") {
        Some(text) => Some(owner(&text)?),
        None => None,
    };
    if owner.is_some_and(|uid| !caller.may_touch(uid)) {
        return Err(Problem::forbidden("only an admin sees tasks of others"));
    }
    let states = match params.take("state") {
        Some(text) => text.split(',').map(state).collect::<Result<_, _>>()?,
        None => vec![],
    };
    let label = match params.take("label") {
        Some(text) => Some(label(&text)?),
        None => None,
    };
    Ok(Filter {
        owner: owner.or_else(|| (!caller.admin).then_some(caller.uid)),
        states,
        queue: params.take("queue"),
        name: params.take("name"),
        label,
        before: None,
        limit: 0,
    })
}

pub(super) fn owner(text: &str) -> Result<u32, Problem> {
    user("owner", text)
}

/// A user of this host, by name or uid, whom a parameter or field names.
pub(super) fn user(field: &'static str, text: &str) -> Result<u32, Problem> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    let user = User::from_name(text).ok().flatten();
    user.map(|user| user.uid.as_raw())
        .ok_or_else(|| Problem::invalid(field, "must be a user of this host, or a uid"))
}

pub(super) fn state(word: &str) -> Result<TaskState, Problem> {
    TaskState::from_word(word).ok_or_else(|| {
        let words: Vec<&str> = TaskState::ALL.iter().map(|state| state.word()).collect();
        Problem::invalid(
            "state",
            format!("must be one or more of {}", words.join(",")),
        )
    })
}

pub(super) fn label(text: &str) -> Result<(String, String), Problem> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| Problem::invalid("label", "must be NAME=VALUE"))
}

/// Ties a cursor to the question it belongs to. It guards no secret (the next
/// page is filtered like the first); it turns a cursor that was mixed up, cut
/// off or made up into an error instead of a wrong page.
struct Seal([u8; 32]);

impl Seal {
    fn new(caller: Caller, filter: &Filter) -> Self {
        let (uid, admin) = (caller.uid, caller.admin);
        let question = format!("2 {uid} {admin} {filter:?}");
        Self(Sha256::digest(question).into())
    }

    fn mark(&self, id: TaskId) -> String {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(id.0.to_le_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let mark = hash.iter().take(6);
        mark.map(|byte| format!("{byte:02x}")).collect()
    }

    fn close(&self, id: TaskId) -> String {
        format!("{:x}-{}", id.0, self.mark(id))
    }

    fn open(&self, cursor: &str) -> Result<TaskId, Problem> {
        let parsed = cursor
            .split_once('-')
            .and_then(|(id, _)| i64::from_str_radix(id, 16).ok())
            .map(TaskId);
        parsed
            .filter(|id| self.close(*id) == cursor)
            .ok_or_else(|| {
                let detail = "this cursor belongs to another listing: begin again without one";
                Problem::bad("bad_cursor", detail)
            })
    }
}

/// `GET /v1/tasks/{id}`.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let view = shared.handle.show(caller, task_id(&id)?).await?;
    Ok(json::answer(StatusCode::OK, &TaskInfo::of_view(&view)))
}

/// `GET /v1/tasks/{id}/wait`: 200 when the task is over, 202 when the time is.
pub(super) async fn wait(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    let mut params = Params::new(pairs, &["timeout"])?;
    let limit = params.duration("timeout")?.unwrap_or(WAIT);
    if limit > WAIT_MAX {
        return Err(Problem::invalid(
            "timeout",
            "must be at most 1h; ask again after that",
        ));
    }
    let mut stopping = shared.shutdown.clone();
    let (status, view) = tokio::select! {
        biased;
        over = tokio::time::timeout(limit, shared.handle.wait(caller, id)) => match over {
            Ok(over) => (StatusCode::OK, over?),
            Err(_) => (StatusCode::ACCEPTED, shared.handle.show(caller, id).await?),
        },
        () = super::serve::stopped(&mut stopping) => return Err(Problem::stopping()),
    };
    Ok(json::answer(status, &TaskInfo::of_view(&view)))
}

/// `POST /v1/tasks/{id}/cancel`, with `?dependants=true` for those behind it as well.
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    if Params::new(pairs, &["dependants"])?.switch("dependants")? {
        return Ok(graph::changed(
            &shared.handle.cancel_tree(caller, id).await?,
        ));
    }
    let task = shared.handle.cancel(caller, id).await?;
    Ok(json::answer(StatusCode::OK, &TaskInfo::of_task(&task)))
}

/// `POST /v1/tasks/{id}/retry`, with `?dependants=true` for those behind it as well.
pub(super) async fn retry(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    if Params::new(pairs, &["dependants"])?.switch("dependants")? {
        return Ok(graph::changed(&shared.handle.retry_tree(caller, id).await?));
    }
    let task = shared.handle.retry(caller, id).await?;
    Ok(json::answer(StatusCode::OK, &TaskInfo::of_task(&task)))
}

/// `POST /v1/tasks/{id}/pause`.
pub(super) async fn pause(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let task = shared.handle.pause(caller, task_id(&id)?).await?;
    Ok(json::answer(StatusCode::OK, &TaskInfo::of_task(&task)))
}

/// `POST /v1/tasks/{id}/resume`.
pub(super) async fn resume(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let task = shared.handle.resume(caller, task_id(&id)?).await?;
    Ok(json::answer(StatusCode::OK, &TaskInfo::of_task(&task)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::origin::Origin;

    #[test]
    fn a_cursor_fits_its_own_listing_only() {
        let caller = |uid| Caller {
            uid,
            admin: false,
            origin: Origin::NONE,
        };
        let filter = Filter::default();
        let seal = Seal::new(caller(1), &filter);
        let cursor = seal.close(TaskId(77));
        assert_eq!(seal.open(&cursor).unwrap(), TaskId(77));
        let other_user = Seal::new(caller(2), &filter);
        let other_filter = Seal::new(
            caller(1),
            &Filter {
                queue: Some("q".to_owned()),
                ..Filter::default()
            },
        );
        assert!(other_user.open(&cursor).is_err());
        assert!(other_filter.open(&cursor).is_err());
        for forged in [
            "",
            "-",
            "4d",
            "4d-",
            "4e-000000000000",
            "+4d-00",
            "zz-zz",
            &format!("{cursor}0"),
        ] {
            assert_eq!(
                seal.open(forged).unwrap_err().code,
                "bad_cursor",
                "{forged}"
            );
        }
    }
}
