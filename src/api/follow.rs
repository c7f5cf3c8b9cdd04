//! Output as it is written: an endless response that ends with the task.
//!
//! Two forms. Plain: the bytes and nothing else, for `curl`. Events
//! (`Accept: text/event-stream`): every piece with its stream, its attempt and
//! an id from which a later request goes on exactly there, so that a client
//! loses and repeats nothing over a restart of the daemon; bytes are base64,
//! because an event is text and output need not be.
//!
//! Nothing polls: new output and new files are noticed by inotify, the end of
//! the task by the engine.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use nix::sys::inotify::AddWatchFlags;
use serde_json::json;
use tokio::time::timeout;

use crate::engine::command::{Caller, Error};
use crate::model::attempt::AttemptKey;
use crate::model::capture::{Decoder, Record, Stream, file_name};
use crate::model::id::TaskId;
use crate::model::task::Task;

use super::dto::TaskInfo;
use super::notice::Watch;
use super::number::Stamp;
use super::pieces::{Pieces, Step};
use super::problem::Problem;
use super::{Shared, log, serve};

/// Silence after which an empty comment shows that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Attempts looked for ahead of the latest known one: an attempt that never
/// got as far as a capture file leaves a hole.
const AHEAD: u32 = 8;
/// The header that says where a stream goes on.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Answers with output as it comes.
pub(super) fn answer(
    shared: Arc<Shared>,
    caller: Caller,
    task: &Task,
    wanted: Option<u32>,
    only: Option<Stream>,
    events: bool,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let mut place = Place {
        attempt: wanted.unwrap_or(task.attempt),
        offset: 0,
    };
    if let Some(id) = headers.get(LAST_EVENT_ID) {
        let known = id.to_str().ok().and_then(Place::parse);
        place = known
            .filter(|place| wanted.is_none_or(|number| number == place.attempt))
            .ok_or_else(|| {
                let detail = "Last-Event-ID is not one of this log's";
                Problem::bad("bad_event_id", detail)
            })?;
    }
    let watch = Watch::new().map_err(|error| {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let detail = format!("too many logs are followed at once: {error}");
        Problem::new(status, "busy", detail).after(5)
    })?;
    let over = {
        let (shared, id) = (Arc::clone(&shared), task.id);
        Box::pin(async move { Ok(shared.handle.wait(caller, id).await?.task) })
    };
    let follower = Follower {
        caller,
        key: AttemptKey {
            task: task.id,
            number: place.attempt,
        },
        fixed: wanted.is_some(),
        only,
        events,
        offset: place.offset,
        source: None,
        complete: false,
        watch,
        over,
        ended: false,
        done: false,
        shared,
    };
    let mut response = Response::new(Body::new(Pieces::new(follower, step)));
    let kind = if events {
        "text/event-stream"
    } else {
        "application/octet-stream"
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A place in a task's output, as an event id: attempt and file offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    attempt: u32,
    offset: u64,
}

impl Place {
    fn parse(id: &str) -> Option<Self> {
        let (attempt, offset) = id.split_once('.')?;
        let place = Self {
            attempt: attempt.parse().ok()?,
            offset: offset.parse().ok()?,
        };
        (format!("{}.{}", place.attempt, place.offset) == id).then_some(place)
    }
}

type Over = Pin<Box<dyn Future<Output = Result<Task, Error>> + Send>>;

/// A client that follows a task's output.
struct Follower {
    shared: Arc<Shared>,
    caller: Caller,
    /// The attempt that is read, or the latest known one.
    key: AttemptKey,
    /// Only this attempt, and not those after it.
    fixed: bool,
    only: Option<Stream>,
    events: bool,
    /// Where in the capture file to begin.
    offset: u64,
    source: Option<Source>,
    /// The attempt that is read will not grow any more.
    complete: bool,
    watch: Watch,
    over: Over,
    /// The task is over; what is there is all there will be.
    ended: bool,
    done: bool,
}

struct Source {
    file: File,
    decoder: Decoder,
}

fn step(follower: Follower) -> Step<Follower> {
    Box::pin(follower.next())
}

impl Follower {
    /// The next piece for the client.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        let mut stopping = self.shared.shutdown.clone();
        while !self.done {
            match self.look().await {
                Ok(Some(piece)) => return Some((Ok(piece.into()), self)),
                Ok(None) => {}
                Err(error) => return Some((Err(error), self)),
            }
            if self.ended || (self.fixed && self.complete) {
                self.done = true;
                if !self.events {
                    return None;
                }
                let last = farewell(Arc::clone(&self.shared), self.caller, self.key.task).await;
                return Some((Ok(last.into()), self));
            }
            tokio::select! {
                biased;
                // Cut off, not ended: a client must not take this for the end.
                () = serve::stopped(&mut stopping) => {
                    let error = io::Error::other("the daemon is stopping");
                    return Some((Err(error), self));
                }
                changed = timeout(HEARTBEAT, self.watch.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Some((Err(error), self)),
                    Err(_) if self.events => return Some((Ok(": \n\n".into()), self)),
                    Err(_) => {}
                },
                over = &mut self.over => match over {
                    Ok(_) => self.ended = true,
                    Err(error) => return Some((Err(io::Error::other(error)), self)),
                },
            }
        }
        None
    }

    /// Reads what is there; none when it is read up.
    async fn look(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut next = None;
        loop {
            let mut out = Vec::new();
            if self.source.is_none() && self.key.number > 0 {
                self.open(self.key, &mut out)?;
            }
            if let Some(source) = self.source.take() {
                let (source, more) = read(source).await?;
                self.source = Some(source);
                self.decode(&mut out);
                if !out.is_empty() {
                    return Ok(Some(out));
                }
                if more {
                    continue;
                }
            }
            // An attempt is complete before the next one begins, so it has to
            // be read to its end once more after the next one was seen.
            if let Some(key) = next {
                self.open(key, &mut out)?;
                return Ok(Some(out));
            }
            next = self.successor()?;
            if next.is_none() {
                return Ok(None);
            }
        }
    }

    /// Opens a capture file, watched from before the first read.
    fn open(&mut self, key: AttemptKey, out: &mut Vec<u8>) -> io::Result<()> {
        let dir = &self.shared.output_dir;
        let Some(file) = log::open(dir, key)? else {
            self.watch_for_new();
            return Ok(());
        };
        let path = dir.join(file_name(key));
        self.watch.add(
            &path,
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DONT_FOLLOW,
        );
        let offset = if key == self.key { self.offset } else { 0 };
        if self.events {
            let place = format!("id: {}.{offset}\nevent: attempt\n", key.number);
            out.extend_from_slice(place.as_bytes());
            data(out, &json!({ "number": key.number }));
        }
        self.offset = offset;
        self.key = key;
        self.complete = false;
        let decoder = Decoder::from_offset(offset);
        self.source = Some(Source { file, decoder });
        Ok(())
    }

    /// The next attempt, once there is one.
    fn successor(&self) -> io::Result<Option<AttemptKey>> {
        if self.fixed {
            return Ok(None);
        }
        self.watch_for_new();
        for number in (self.key.number..).skip(1).take(AHEAD as usize) {
            let key = AttemptKey { number, ..self.key };
            if log::open(&self.shared.output_dir, key)?.is_some() {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Asks to be woken when the next attempt's file appears.
    fn watch_for_new(&self) {
        let flags =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        let dir = &self.shared.output_dir;
        let file = dir.join(file_name(self.key));
        if !file.parent().is_some_and(|dir| self.watch.add(dir, flags)) {
            self.watch.add(dir, flags);
        }
    }

    /// Writes out what was read.
    fn decode(&mut self, out: &mut Vec<u8>) {
        let Some(source) = &mut self.source else {
            return;
        };
        loop {
            let before = source.decoder.offset();
            let record = match source.decoder.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "output is cut off here");
                    self.complete = true;
                    return;
                }
            };
            match record {
                Record::Data { stream, at, bytes }
                    if self.only.is_none_or(|only| only == stream) =>
                {
                    if !self.events {
                        out.extend_from_slice(bytes);
                        continue;
                    }
                    let len = record_len(bytes.len());
                    id(out, self.key.number, before.max(MAGIC_LEN) + len);
                    output(out, stream, Stamp(at), bytes);
                }
                Record::Data { .. } => {}
                Record::Gap { dropped, .. } if self.events => {
                    id(out, self.key.number, before.max(MAGIC_LEN) + record_len(8));
                    out.extend_from_slice(b"event: gap\n");
                    data(out, &json!({ "dropped": dropped }));
                }
                Record::Gap { .. } => {}
                Record::End { .. } => self.complete = true,
            }
        }
    }
}

/// The last event: the task as it is now.
async fn farewell(shared: Arc<Shared>, caller: Caller, task: TaskId) -> Vec<u8> {
    let mut out = Vec::new();
    if let Ok(view) = shared.handle.show(caller, task).await
        && let Ok(task) = serde_json::to_value(TaskInfo::of_view(&view))
    {
        out.extend_from_slice(b"event: end\n");
        data(&mut out, &task);
    }
    out
}

const MAGIC_LEN: u64 = crate::model::capture::MAGIC.len() as u64;

const fn record_len(body: usize) -> u64 {
    (crate::model::capture::HEAD + body) as u64
}

fn id(out: &mut Vec<u8>, attempt: u32, offset: u64) {
    out.extend_from_slice(format!("id: {attempt}.{offset}\n").as_bytes());
}

fn data(out: &mut Vec<u8>, value: &serde_json::Value) {
    // JSON text has no line breaks of its own.
    out.extend_from_slice(format!("data: {value}\n\n").as_bytes());
}

fn output(out: &mut Vec<u8>, stream: Stream, at: Stamp, bytes: &[u8]) {
    let name = match stream {
        Stream::Out => "stdout",
        Stream::Err => "stderr",
    };
    let mut event =
        format!("event: output\ndata: {{\"stream\":\"{name}\",\"at\":\"{at}\",\"base64\":\"");
    BASE64_STANDARD.encode_string(bytes, &mut event);
    event.push_str("\"}\n\n");
    out.extend_from_slice(event.as_bytes());
}

/// Reads the next bytes of a file into its decoder; false at the end.
async fn read(mut source: Source) -> io::Result<(Source, bool)> {
    log::blocking(move || {
        let mut buffer = vec![0; log::CHUNK];
        let at = source.decoder.offset() + source.decoder.pending() as u64;
        let len = source.file.read_at(&mut buffer, at)?;
        source.decoder.push(buffer.get(..len).unwrap_or_default());
        Ok((source, len > 0))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_name_one_place_in_one_way() {
        assert_eq!(
            Place::parse("2.1234"),
            Some(Place {
                attempt: 2,
                offset: 1234
            })
        );
        for bad in [
            "",
            "1",
            "1.",
            ".1",
            "01.1",
            "1.-1",
            "1.1.1",
            "-1.1",
            "1.99999999999999999999",
        ] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }
}
