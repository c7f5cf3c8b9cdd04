//! The routes, and what each of them asks of a caller: one table, of which the
//! router is built. A path without a row here does not exist.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use serde_json::json;

use crate::clock;
use crate::engine::command::Caller;
use crate::model::role::Role;
use crate::model::role::Role::{Admin, Own, Read, Submit};

use super::identity::Standing;
use super::problem::Problem;
use super::requests::Counted;
use super::traced::Traced;
use super::{
    Shared, activity, admin, agents, bulk, edit, events, graph, health, hooks, identity, log,
    metrics, models, openapi, queues, schedules, submit, tasks,
};

/// A method, for the table and for the router.
#[derive(Debug, Clone, Copy)]
struct Verb(&'static str, MethodFilter);

const GET: Verb = Verb("GET", MethodFilter::GET);
const POST: Verb = Verb("POST", MethodFilter::POST);
const PUT: Verb = Verb("PUT", MethodFilter::PUT);
const PATCH: Verb = Verb("PATCH", MethodFilter::PATCH);
const DELETE: Verb = Verb("DELETE", MethodFilter::DELETE);

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The method.
    pub method: &'static str,
    /// The path, with names in braces for its variable parts.
    pub path: &'static str,
    /// The least role it takes; none where it answers anyone who can connect.
    pub least: Option<Role>,
}

/// A row with what answers.
struct Route {
    row: Row,
    answer: MethodRouter<Arc<Shared>>,
}

fn route<H, T>(verb: Verb, path: &'static str, least: Option<Role>, handler: H) -> Route
where
    H: Handler<T, Arc<Shared>>,
    T: 'static,
{
    let row = Row {
        method: verb.0,
        path,
        least,
    };
    Route {
        row,
        answer: MethodRouter::new().on(verb.1, handler),
    }
}

/// One that answers whoever has the role.
fn least<H, T>(role: Role, verb: Verb, path: &'static str, handler: H) -> Route
where
    H: Handler<T, Arc<Shared>>,
    T: 'static,
{
    route(verb, path, Some(role), handler)
}

/// One that answers anyone who can connect.
fn public<H, T>(path: &'static str, handler: H) -> Route
where
    H: Handler<T, Arc<Shared>>,
    T: 'static,
{
    route(GET, path, None, handler)
}

fn routes() -> Vec<Route> {
    let mut all = about_tasks();
    all.extend([
        least(Read, GET, "/v1/events", events::events),
        least(Read, GET, "/v1/activity", activity::activity),
        least(Read, GET, "/v1/queues", queues::list),
        least(Read, GET, "/v1/queues/{queue}", queues::show),
        least(Admin, PATCH, "/v1/queues/{queue}", queues::set),
        least(Admin, DELETE, "/v1/queues/{queue}", queues::remove),
        least(Admin, GET, "/v1/queues/{queue}/hooks", hooks::show),
        least(Admin, PUT, "/v1/queues/{queue}/hooks", hooks::replace),
        least(Admin, POST, "/v1/queues/{queue}/{verb}", queues::change),
        least(Read, GET, "/v1/schedules", schedules::list),
        least(Own, POST, "/v1/schedules", schedules::add),
        least(Read, GET, "/v1/schedules/{schedule}", schedules::show),
        least(Own, DELETE, "/v1/schedules/{schedule}", schedules::remove),
        least(Read, GET, "/v1/schedules/{schedule}/next", schedules::next),
        least(
            Own,
            POST,
            "/v1/schedules/{schedule}/{verb}",
            schedules::change,
        ),
        least(Read, GET, "/v1/agents", agents::list),
        least(Own, POST, "/v1/agents", agents::add),
        least(Read, GET, "/v1/agents/{agent}", agents::show),
        least(Own, DELETE, "/v1/agents/{agent}", agents::remove),
        least(Own, POST, "/v1/agents/{agent}/{verb}", agents::change),
        least(Read, GET, "/v1/models", models::list),
        least(Read, GET, "/v1/models/{model}", models::show),
        least(Read, GET, "/v1/status", admin::status),
        least(Admin, POST, "/v1/reload", admin::reload),
        least(Admin, POST, "/v1/probe", health::probe),
        least(Read, GET, "/metrics", metrics::metrics),
        public("/v1/openapi.json", openapi::describe),
        public("/live", admin::live),
        public("/ready", admin::ready),
        public("/health", health::health),
    ]);
    all
}

fn about_tasks() -> Vec<Route> {
    vec![
        least(Read, GET, "/v1/tasks", tasks::list),
        least(Submit, POST, "/v1/tasks", submit::submit),
        least(Own, POST, "/v1/tasks/retry", bulk::retry),
        least(Own, POST, "/v1/tasks/cancel", bulk::cancel),
        least(Own, POST, "/v1/tasks/discard", bulk::discard),
        least(Read, GET, "/v1/tasks/{id}", tasks::show),
        least(Own, PATCH, "/v1/tasks/{id}", edit::edit),
        least(Read, GET, "/v1/tasks/{id}/wait", tasks::wait),
        least(Read, GET, "/v1/tasks/{id}/graph", graph::graph),
        least(Read, GET, "/v1/tasks/{id}/log", log::log),
        least(Own, POST, "/v1/tasks/{id}/cancel", tasks::cancel),
        least(Own, POST, "/v1/tasks/{id}/retry", tasks::retry),
        least(Own, POST, "/v1/tasks/{id}/pause", tasks::pause),
        least(Own, POST, "/v1/tasks/{id}/resume", tasks::resume),
    ]
}

/// The table.
#[must_use]
pub fn table() -> Vec<Row> {
    routes().into_iter().map(|route| route.row).collect()
}

/// Paths that answer anyone who can connect.
pub(super) fn public_paths() -> Vec<&'static str> {
    let open = table().into_iter().filter(|row| row.least.is_none());
    open.map(|row| row.path).collect()
}

/// A router with every row of the table behind what the row asks for.
pub(super) fn router(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    routes().into_iter().fold(Router::new(), |router, route| {
        let entry = Arc::new(Entry::new(shared, route.row));
        let answer = route
            .answer
            .route_layer(middleware::from_fn_with_state(entry, enter));
        let answer = if cfg!(debug_assertions) {
            held_to_its_word(route.row, answer)
        } else {
            answer
        };
        router.route(route.row.path, answer)
    })
}

/// What every request of a route passes on its way to what answers: one layer,
/// since each boxes the request, the answer and the future between them.
struct Entry {
    shared: Arc<Shared>,
    least: Option<Role>,
    counted: Counted,
    /// Where a request may change something.
    traced: Option<Traced>,
}

impl Entry {
    fn new(shared: &Arc<Shared>, row: Row) -> Self {
        Self {
            shared: Arc::clone(shared),
            least: row.least,
            counted: shared.requests.of(row.method, row.path),
            traced: (row.method != GET.0).then(|| Traced {
                shared: Arc::clone(shared),
                method: row.method,
                route: row.path,
            }),
        }
    }

    /// Why a request may not enter, where its caller has too small a role;
    /// that is put on the record.
    fn refusal(&self, request: &Request) -> Option<Problem> {
        let least = self.least?;
        let told = request.extensions();
        let (Some(caller), Some(standing)) = (told.get::<Caller>(), told.get::<Standing>()) else {
            let detail = format!(
                "this takes the role `{}`; say who asks, by a token or a session",
                least.word()
            );
            return Some(Problem::forbidden(detail));
        };
        if standing.role.covers(least) {
            return None;
        }
        let (method, path) = (request.method().as_str(), request.uri().path());
        identity::deny(
            &self.shared,
            Some(caller.uid),
            caller.origin,
            &json!({
                "why": "role",
                "role": standing.role.word(),
                "least": least.word(),
                "method": method.chars().take(20).collect::<String>(),
                "path": path.chars().take(200).collect::<String>(),
            }),
        );
        Some(Problem::forbidden(format!(
            "this takes the role `{}`, and you have `{}`",
            least.word(),
            standing.role.word()
        )))
    }
}

/// Counts and traces a request, and lets it through if its caller has the role.
async fn enter(State(entry): State<Arc<Entry>>, mut request: Request, next: Next) -> Response {
    let begun = clock::instant();
    let traced = entry.traced.as_ref();
    let open = traced.and_then(|traced| traced.begin(&mut request));
    let response = match entry.refusal(&request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    if let Some(open) = open {
        open.end(response.status());
    }
    entry.counted.count(response.status(), begun.elapsed());
    response
}

/// Ends a request whose answer is none of those that the description of the API
/// has for its route: so every test of a route is one of its description.
fn held_to_its_word(row: Row, answer: MethodRouter<Arc<Shared>>) -> MethodRouter<Arc<Shared>> {
    let promise = openapi::told_of(row.method, row.path);
    answer.route_layer(middleware::map_response(move |response: Response| {
        let kept = promise
            .as_ref()
            .is_some_and(|promise| promise.is_kept(&response));
        assert!(
            kept,
            "{row:?} sent what its description has not: {response:?}"
        );
        std::future::ready(response)
    }))
}
