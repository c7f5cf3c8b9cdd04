//! Floor 3: HTTP in. A request becomes a command to the engine, and the
//! engine's answer a response; nothing is decided here that the engine could
//! decide, and nothing is answered before the engine has.
//!
//! `serve` accepts, `conn` speaks HTTP on one connection and lets each request
//! through the gate (`head`, `identity`), `access` says what each route asks of a
//! caller, handlers do the rest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use hyper::{Method, Uri};
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::engine::handle::Handle;
use crate::model::time::Time;

pub mod access;
pub mod activity;
pub mod admin;
pub mod agents;
pub mod asked;
mod attempts;
mod body;
pub mod budgets;
pub mod bulk;
mod conn;
pub mod dto;
pub mod edit;
pub mod events;
mod expiry;
mod follow;
mod gate;
pub mod graph;
mod head;
pub mod health;
pub mod hooks;
mod identity;
pub mod json;
mod lease;
mod log;
pub mod memory;
mod metrics;
pub mod models;
mod notice;
pub mod number;
pub mod openapi;
pub mod options;
pub mod pairs;
mod peer;
mod pieces;
pub mod problem;
pub mod progress;
mod prompts;
mod pulse;
mod query;
pub mod queues;
mod requests;
mod run_as;
pub mod run_info;
pub mod schedules;
pub mod serve;
mod sessions;
mod stream;
mod submit;
mod tasks;
mod tls;
mod traced;
pub mod usage;
pub mod visit;
mod vitals;

use admin::Reload;
use identity::Settings;
use options::{BadOptions, Options};
use serve::{Drained, Listener};
use sessions::Sessions;
use visit::Pages;

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
    /// Who starts the daemon again, where that is a process of ours.
    pub supervisor: Option<admin::Supervisor>,
    /// What a run-as policy file surely denies.
    pub denied: Denied,
    /// Pages for browsers.
    pub pages: Option<Pages>,
}

/// Says of some users as whom a policy file lets a uid run no task now, if
/// there is one, and why.
pub type Denied = fn(&Path, u32, BTreeSet<String>, Time) -> Option<(String, String)>;

/// What all requests share.
#[derive(Debug)]
struct Shared {
    handle: Handle,
    output_dir: PathBuf,
    reload: mpsc::Sender<Reload>,
    version: &'static str,
    supervisor: Option<admin::Supervisor>,
    denied: Denied,
    pulse: pulse::Pulse,
    seen: health::Seen,
    vitals: vitals::Vitals,
    started: Time,
    settings: watch::Receiver<Arc<Settings>>,
    shutdown: watch::Receiver<bool>,
    bodies: body::Bodies,
    ids: head::RequestIds,
    attempts: attempts::Attempts,
    requests: requests::Requests,
    sessions: Sessions,
    pages: Option<Pages>,
    /// Paths that answer anyone who can connect.
    public: Vec<&'static str>,
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
            supervisor: state.supervisor,
            denied: state.denied,
            pulse: pulse::Pulse::default(),
            seen: health::Seen::default(),
            vitals: vitals::Vitals::begin(),
            started,
            settings,
            shutdown,
            bodies: body::Bodies::default(),
            ids: head::RequestIds::new(started.micros().unsigned_abs()),
            attempts: attempts::Attempts::new(),
            requests: requests::Requests::new(),
            sessions: Sessions::new().ok_or(BadOptions::NoRandom)?,
            pages: state.pages,
            public: access::public_paths(),
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

/// Reads a body as a submit does, without an engine behind it, and says how
/// many tasks it asks for.
///
/// # Errors
/// What is wrong with it.
pub fn read_submit(bytes: &[u8], now: Time) -> Result<usize, problem::Problem> {
    submit::read(bytes, now).map(|tasks| tasks.len())
}

/// The routes, and around them the pages, which ask them.
fn router(shared: Arc<Shared>) -> Router {
    let routes = access::router(&shared)
        .fallback(|uri: Uri| async move { problem::no_route(uri.path()) })
        .method_not_allowed_fallback(|method: Method| async move { problem::wrong_method(&method) })
        .with_state(Arc::clone(&shared));
    let Some(pages) = shared.pages else {
        return routes;
    };
    let inner = routes.clone();
    routes.fallback(move |request| visit::answer(shared, pages, inner, request))
}
