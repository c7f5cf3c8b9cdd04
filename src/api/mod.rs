//! Floor 3: HTTP in. A request becomes a command to the engine, and the
//! engine's answer a response; nothing is decided here that the engine could
//! decide, and nothing is answered before the engine has.
//!
//! `serve` accepts, `conn` speaks HTTP on one connection and lets each request
//! through the gate (`head`, `peer`), handlers do the rest.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use hyper::{Method, Uri};
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::engine::handle::Handle;
use crate::model::time::Time;

pub mod admin;
pub mod asked;
mod body;
pub mod bulk;
mod conn;
pub mod dto;
pub mod edit;
pub mod events;
mod follow;
pub mod graph;
mod head;
pub mod hooks;
pub mod json;
mod log;
mod notice;
pub mod number;
pub mod options;
mod peer;
mod pieces;
pub mod problem;
pub mod progress;
mod query;
pub mod queues;
pub mod schedules;
pub mod serve;
mod stream;
mod submit;
mod tasks;

use admin::Reload;
use options::{BadOptions, Options};
use peer::Settings;
use serve::{Drained, Listener};

/// What the API works with.
#[derive(Debug, Clone)]
pub struct State {
    /// The engine.
    pub handle: Handle,
    /// Directory of the capture files.
    pub output_dir: PathBuf,
    /// Where requests to read the configuration again go.
    pub reload: mpsc::Sender<Reload>,
    /// Version of the daemon.
    pub version: &'static str,
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    handle: Handle,
    output_dir: PathBuf,
    reload: mpsc::Sender<Reload>,
    version: &'static str,
    started: Time,
    settings: watch::Receiver<Arc<Settings>>,
    shutdown: watch::Receiver<bool>,
    bodies: body::Bodies,
    ids: head::RequestIds,
}

/// The API, ready to serve.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    router: Router,
    tuner: Tuner,
}

/// Changes the options of a server at work. Sockets stay as they are;
/// deadlines hold for new connections, everything else for the next request.
#[derive(Debug, Clone)]
pub struct Tuner(watch::Sender<Arc<Settings>>);

impl Tuner {
    /// Obeys new options from now on.
    ///
    /// # Errors
    /// They cannot be obeyed; the old ones stay.
    pub fn apply(&self, options: Options) -> Result<(), BadOptions> {
        let settings = Settings::resolve(options)?;
        self.0.send_replace(Arc::new(settings));
        Ok(())
    }
}

/// Checks that options can be obeyed on this host.
///
/// # Errors
/// The first that cannot.
pub fn check(options: Options) -> Result<(), BadOptions> {
    Settings::resolve(options).map(drop)
}

impl Server {
    /// Prepares to serve until `shutdown` becomes true.
    ///
    /// # Errors
    /// The options cannot be obeyed on this host.
    pub fn new(
        options: Options,
        state: State,
        shutdown: watch::Receiver<bool>,
    ) -> Result<Self, BadOptions> {
        let (sender, settings) = watch::channel(Arc::new(Settings::resolve(options)?));
        let started = clock::now();
        let shared = Arc::new(Shared {
            handle: state.handle,
            output_dir: state.output_dir,
            reload: state.reload,
            version: state.version,
            started,
            settings,
            shutdown,
            bodies: body::Bodies::default(),
            ids: head::RequestIds::new(started.micros().unsigned_abs()),
        });
        Ok(Self {
            router: router(Arc::clone(&shared)),
            shared,
            tuner: Tuner(sender),
        })
    }

    /// What changes the options later.
    #[must_use]
    pub fn tuner(&self) -> Tuner {
        self.tuner.clone()
    }

    /// Serves until told to stop, then sees everyone out.
    pub async fn serve(self, listeners: Vec<Listener>) -> Drained {
        serve::serve(self, listeners).await
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/tasks", post(submit::submit).get(tasks::list))
        .route("/v1/tasks/retry", post(bulk::retry))
        .route("/v1/tasks/cancel", post(bulk::cancel))
        .route("/v1/tasks/discard", post(bulk::discard))
        .route("/v1/tasks/{id}", get(tasks::show).patch(edit::edit))
        .route("/v1/tasks/{id}/wait", get(tasks::wait))
        .route("/v1/tasks/{id}/cancel", post(tasks::cancel))
        .route("/v1/tasks/{id}/retry", post(tasks::retry))
        .route("/v1/tasks/{id}/graph", get(graph::graph))
        .route("/v1/tasks/{id}/pause", post(tasks::pause))
        .route("/v1/tasks/{id}/resume", post(tasks::resume))
        .route("/v1/tasks/{id}/log", get(log::log))
        .route("/v1/events", get(events::events))
        .route("/v1/queues", get(queues::list))
        .route(
            "/v1/queues/{queue}",
            get(queues::show).patch(queues::set).delete(queues::remove),
        )
        .route("/v1/queues/{queue}/{verb}", post(queues::change))
        .route("/v1/schedules", post(schedules::add).get(schedules::list))
        .route(
            "/v1/schedules/{schedule}",
            get(schedules::show).delete(schedules::remove),
        )
        .route("/v1/schedules/{schedule}/next", get(schedules::next))
        .route("/v1/schedules/{schedule}/{verb}", post(schedules::change))
        .route(
            "/v1/queues/{queue}/hooks",
            get(hooks::show).put(hooks::replace),
        )
        .route("/v1/status", get(admin::status))
        .route("/v1/reload", post(admin::reload))
        .route("/live", get(admin::live))
        .route("/ready", get(admin::ready))
        .route("/health", get(admin::healthy))
        .fallback(|uri: Uri| async move { problem::no_route(uri.path()) })
        .method_not_allowed_fallback(|method: Method| async move { problem::wrong_method(&method) })
        .with_state(shared)
}
