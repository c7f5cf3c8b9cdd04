//! What happened: the record as pages, and as a stream that goes on.
//!
//! The stream (`Accept: text/event-stream`, or `follow=true`) begins at the
//! present or behind the event that `after` or `Last-Event-ID` names, and has
//! every event's number as its id, so that a client that comes again loses
//! nothing. Nothing is kept for a client: the next page is read when it has
//! taken the one before. One that stays behind too long is told so and cut off,
//! and one that asks for events that were removed is told which are missing.
//! What tasks say of themselves goes in between, see `progress.rs`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock;
use crate::engine::command::{Caller, Error};
use crate::engine::snapshot::Snapshot;
use crate::model::event::{Entry, Kind, Wanted};

use super::follow::LAST_EVENT_ID;
use super::number::Stamp;
use super::pieces::{Pieces, Step};
use super::problem::Problem;
use super::progress::{self, Told};
use super::query::{Pairs, Params, sequence, task_id};
use super::{Shared, json, serve};

/// Events on a page when nobody says how many, and of one piece of a stream.
const PAGE: u32 = 100;
/// Most events on a page.
const PAGE_MAX: u32 = 1000;
/// Silence after which a sign of life is sent.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Pause before a busy engine is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Something that happened to a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventInfo {
    /// Its number: later events have higher ones.
    pub seq: i64,
    /// When.
    pub at: Stamp,
    /// What: a task's new state, or `submitted`, `cancel_asked`, `retry_asked`, `removed`.
    pub kind: String,
    /// To which task; 0 where it is about none.
    pub task: i64,
    /// In which attempt; 0 before the first.
    pub attempt: u32,
    /// The task's queue.
    pub queue: Option<String>,
    /// Uid of who asked for it; none when nobody did.
    pub actor: Option<u32>,
    /// The process that asked, where it was one of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Name of the request, as its client was told in `X-Request-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What goes with it: the task's name, and how an attempt went.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub data: serde_json::Value,
}

impl From<&Entry> for EventInfo {
    fn from(entry: &Entry) -> Self {
        let data = entry.data.as_deref();
        Self {
            seq: entry.seq,
            at: Stamp(entry.at),
            kind: entry.kind.clone(),
            task: entry.task.0,
            attempt: entry.attempt,
            queue: entry.queue.clone(),
            actor: entry.actor,
            pid: entry.pid,
            request: entry.request.clone(),
            data: data
                .and_then(|data| serde_json::from_str(data).ok())
                .unwrap_or_default(),
        }
    }
}

/// A page of events.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EventPage {
    /// The events, oldest first.
    pub events: Vec<EventInfo>,
    /// Where the next page begins: as `after`. As high as `last` on the last page.
    pub next: i64,
    /// Number of the oldest event that is kept.
    pub oldest: i64,
    /// Number of the last event.
    pub last: i64,
}

/// `GET /v1/events`.
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let known = ["after", "task", "queue", "kind", "limit", "follow"];
    let mut params = Params::new(pairs, &known)?;
    let limit = params.number("limit", 1..=PAGE_MAX)?;
    let follow = params.switch("follow")? || wants_stream(&headers);
    let after = match headers.get(LAST_EVENT_ID).filter(|_| follow) {
        Some(id) => Some(last_id(id)?),
        None => params.sequence("after")?,
    };
    let wanted = wanted(&mut params, caller, limit.unwrap_or(PAGE), follow)?;
    if follow {
        return Ok(stream(shared, wanted, after));
    }
    let wanted = Wanted {
        after: after.unwrap_or(0),
        ..wanted
    };
    let page = shared.handle.events(wanted).await?;
    let answer = EventPage {
        events: page.entries.iter().map(EventInfo::from).collect(),
        next: page.reached,
        oldest: page.oldest,
        last: page.last,
    };
    Ok(json::answer(StatusCode::OK, &answer))
}

fn wanted(
    params: &mut Params,
    caller: Caller,
    limit: u32,
    follow: bool,
) -> Result<Wanted, Problem> {
    let task = params.take("task");
    let kinds = params.take("kind").unwrap_or_default();
    let kinds = kinds.split(',').filter(|word| !word.is_empty());
    Ok(Wanted {
        after: 0,
        owner: (!caller.admin).then_some(caller.uid),
        task: task.map(|text| task_id(&text)).transpose()?,
        queue: params.take("queue"),
        kinds: kinds
            .map(|word| kind(word, follow))
            .collect::<Result<_, _>>()?,
        limit,
        ..Wanted::default()
    })
}

pub(super) fn kind(word: &str, follow: bool) -> Result<String, Problem> {
    if Kind::words().any(|known| known == word) || (follow && word == progress::KIND) {
        return Ok(word.to_owned());
    }
    if word == progress::KIND {
        let detail = "progress is not kept: only a stream of events has it";
        return Err(Problem::invalid("kind", detail));
    }
    let words: Vec<_> = Kind::words().collect();
    let detail = format!("must be one or more of {}", words.join(","));
    Err(Problem::invalid("kind", detail))
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let kinds = headers.get(ACCEPT).and_then(|kinds| kinds.to_str().ok());
    kinds.is_some_and(|kinds| kinds.contains("text/event-stream"))
}

fn last_id(id: &HeaderValue) -> Result<i64, Problem> {
    id.to_str().ok().and_then(sequence).ok_or_else(|| {
        let detail = "Last-Event-ID is not the number of an event";
        Problem::bad("bad_event_id", detail)
    })
}

fn stream(shared: Arc<Shared>, wanted: Wanted, after: Option<i64>) -> Response {
    let figures = shared.handle.watch();
    let last = figures.borrow().last_event;
    let patience = shared.settings.borrow().options.body_timeout / 2;
    let hears = wanted.kinds.is_empty() || wanted.kinds.iter().any(|kind| kind == progress::KIND);
    let follower = Follower {
        wanted: Wanted {
            after: after.unwrap_or(last),
            ..wanted
        },
        patience,
        shared,
        figures,
        told: hears.then(Told::default),
        given: None,
        begun: false,
        done: false,
    };
    let mut response = Response::new(Body::new(Pieces::new(follower, step)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A client that follows the record.
struct Follower {
    shared: Arc<Shared>,
    figures: watch::Receiver<Snapshot>,
    /// What it wants, behind what it has.
    wanted: Wanted,
    /// How long it may take to take a piece when there is more.
    patience: Duration,
    /// What it knows of how far tasks are, where it wants to.
    told: Option<Told>,
    /// When the last piece was ready for it.
    given: Option<Instant>,
    begun: bool,
    done: bool,
}

fn step(follower: Follower) -> Step<Follower> {
    Box::pin(follower.next())
}

impl Follower {
    /// The next piece for the client.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        if self.done {
            return None;
        }
        let piece = self.piece().await.map(Bytes::from);
        self.given = Some(clock::instant());
        Some((piece, self))
    }

    async fn piece(&mut self) -> io::Result<String> {
        if !self.begun {
            self.begun = true;
            let seq = self.wanted.after;
            return Ok(named(seq, "begin", &json!({ "seq": seq })));
        }
        if let Some(end) = self.too_slow() {
            self.done = true;
            return Ok(end);
        }
        loop {
            let (reached, signs) = {
                let figures = self.figures.borrow();
                (figures.last_event, Arc::clone(&figures.signs))
            };
            let mut piece = self.look().await?.unwrap_or_default();
            // Not before the events that it follows from.
            if reached <= self.wanted.after
                && let Some(told) = &mut self.told
            {
                piece.push_str(&told.news(signs, &self.wanted));
            }
            if !piece.is_empty() {
                return Ok(piece);
            }
            if let Some(sign) = self.wait().await? {
                return Ok(sign);
            }
        }
    }

    /// The end of a stream whose client does not keep up.
    fn too_slow(&self) -> Option<String> {
        let taken = self.given?.elapsed();
        let behind = self.figures.borrow().last_event > self.wanted.after;
        (behind && taken > self.patience).then(|| {
            let message = format!(
                "the client took {} s for what was sent before; come again with Last-Event-ID",
                taken.as_secs()
            );
            let why = json!({ "code": "too_slow", "message": message });
            named(self.wanted.after, "end", &why)
        })
    }

    /// What there is; none when the client has all of it.
    async fn look(&mut self) -> io::Result<Option<String>> {
        loop {
            let page = match self.shared.handle.events(self.wanted.clone()).await {
                Ok(page) => page,
                Err(Error::Busy) => {
                    self.pause().await?;
                    continue;
                }
                Err(error) => return Err(io::Error::other(error)),
            };
            let after = self.wanted.after;
            let missing = if after + 1 < page.oldest {
                Some((after + 1, page.oldest - 1))
            } else {
                // Of another store than this: numbers that are still to come.
                (after > page.last).then_some((after, page.last))
            };
            if let Some((from, to)) = missing {
                self.wanted.after = to;
                return Ok(Some(named(to, "gap", &json!({ "from": from, "to": to }))));
            }
            self.wanted.after = page.reached;
            if !page.entries.is_empty() {
                return Ok(Some(
                    page.entries.iter().map(EventInfo::from).map(line).collect(),
                ));
            }
            if page.reached >= page.last {
                return Ok(None);
            }
        }
    }

    /// Waits for more; a sign of life when none comes for long.
    async fn wait(&mut self) -> io::Result<Option<String>> {
        let at = self.wanted.after;
        let pause = self.told.as_ref().map_or(Duration::ZERO, Told::pause);
        let told = self.told.as_ref().filter(|_| pause.is_zero());
        let more = |figures: &Snapshot| {
            figures.last_event > at || told.is_some_and(|told| told.is_old(&figures.signs))
        };
        let patience = if pause.is_zero() { HEARTBEAT } else { pause };
        let mut stopping = self.shared.shutdown.clone();
        tokio::select! {
            biased;
            () = serve::stopped(&mut stopping) => Err(io::Error::other("the daemon is stopping")),
            more = timeout(patience, self.figures.wait_for(more)) => {
                match more {
                    Ok(Ok(_)) => Ok(None),
                    Ok(Err(_)) => Err(io::Error::other("the engine has ended")),
                    Err(_) if !pause.is_zero() => Ok(None),
                    // With the number, so that a client for whom nothing was
                    // does not come again from far back.
                    Err(_) => Ok(Some(format!(": \nid: {at}\n\n"))),
                }
            }
        }
    }

    async fn pause(&self) -> io::Result<()> {
        let mut stopping = self.shared.shutdown.clone();
        match timeout(PAUSE, serve::stopped(&mut stopping)).await {
            Ok(()) => Err(io::Error::other("the daemon is stopping")),
            Err(_) => Ok(()),
        }
    }
}

/// An event of the stream that is none of the record.
fn named(seq: i64, name: &str, data: &serde_json::Value) -> String {
    // JSON text has no line breaks of its own.
    format!("id: {seq}\nevent: {name}\ndata: {data}\n\n")
}

fn line(event: EventInfo) -> String {
    let data = serde_json::to_string(&event).unwrap_or_default();
    format!("id: {}\ndata: {data}\n\n", event.seq)
}
