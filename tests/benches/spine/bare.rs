//! The yardstick of the submits: the least that can be called a durable submit
//! over HTTP with these parts. axum on a unix socket, one thread that writes
//! what is waiting in one SQLite transaction, and the answer after the commit.
//! No keys, no queues, no states, no events, no limits, nobody checked.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use taskdaemon::clock;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use crate::disk;
use crate::process::pause;

/// Requests that may wait, and that one commit takes.
const WAITING: usize = 4_096;
const BATCH: usize = 1_024;
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize, Serialize)]
struct Task {
    command: Vec<String>,
    name: Option<String>,
}

#[derive(Debug, Serialize)]
struct Accepted {
    id: i64,
}

struct Job {
    name: Option<String>,
    spec: String,
    reply: oneshot::Sender<i64>,
}

/// The yardstick at work in a process of its own, as the product is.
#[derive(Debug)]
pub(crate) struct Bare {
    child: Child,
    pub(crate) socket: std::path::PathBuf,
}

impl Bare {
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir(dir)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("--serve-bare")
            .arg(dir)
            .stdin(Stdio::null())
            .spawn()?;
        let bare = Self {
            child,
            socket: dir.join("api.sock"),
        };
        let deadline = clock::instant() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(&bare.socket).is_err() {
            if clock::instant() > deadline {
                bail!("the yardstick did not start in {PATIENCE:?}");
            }
            pause(Duration::from_millis(5));
        }
        Ok(bare)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It holds nothing that matters; an error means that it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The server itself; runs until it is killed.
pub(crate) fn serve(dir: &Path) -> anyhow::Result<()> {
    let connection = disk::open(&dir.join("bare.db"))?;
    let (jobs, inbox) = sync_channel(WAITING);
    let writer = std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(move || write(&connection, &inbox))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(accept(&dir.join("api.sock"), jobs))?;
    crate::process::joined(writer.join().map(|result| result.map_err(Into::into)))
}

async fn accept(socket: &Path, jobs: SyncSender<Job>) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/v1/tasks", post(submit))
        .with_state(jobs);
    let listener = UnixListener::bind(socket).context("cannot listen")?;
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn submit(
    State(jobs): State<SyncSender<Job>>,
    Json(task): Json<Task>,
) -> Result<(StatusCode, Json<Accepted>), StatusCode> {
    let spec = serde_json::to_string(&task).map_err(|_| StatusCode::BAD_REQUEST)?;
    let (reply, answer) = oneshot::channel();
    let job = Job {
        name: task.name,
        spec,
        reply,
    };
    jobs.try_send(job)
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let id = answer
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((StatusCode::CREATED, Json(Accepted { id })))
}

fn write(connection: &Connection, inbox: &Receiver<Job>) -> rusqlite::Result<()> {
    while let Ok(first) = inbox.recv() {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let now = clock::now().micros();
        let mut done = Vec::new();
        for job in std::iter::once(first).chain(inbox.try_iter().take(BATCH - 1)) {
            let id = disk::insert(connection, now, job.name.as_deref(), &job.spec)?;
            done.push((job.reply, id));
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        for (reply, id) in done {
            // A client that has gone does not need to know.
            reply.send(id).ok();
        }
    }
    Ok(())
}
