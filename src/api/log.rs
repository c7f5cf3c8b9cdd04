//! A task's output: the bytes its attempts wrote, out of the capture files.
//! What is there already is answered here, with ranges; output that is still
//! to come is `follow`'s.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT, ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue,
    RANGE,
};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::engine::command::Caller;
use crate::model::attempt::AttemptKey;
use crate::model::capture::{Decoder, Record, Stream, file_name};

use super::pieces::{Pieces, Step};
use super::problem::Problem;
use super::query::{Pairs, Params, task_id};
use super::{Shared, follow};

/// Bytes read from a capture file at a time.
pub(super) const CHUNK: usize = 64 * 1024;

/// Opens an attempt's capture file; none when it wrote nothing yet.
pub(super) fn open(dir: &FsPath, key: AttemptKey) -> io::Result<Option<File>> {
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(dir)?;
    // Step by step, and through no link: whoever could put one into the state
    // directory gets nothing read by it. Not by openat2, which would be one
    // step: `RestrictSUIDSGID=` of the unit takes it away.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut at = OwnedFd::from(root);
    for part in file_name(key).split('/') {
        at = match openat(&at, part, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    }
    Ok(Some(File::from(at)))
}

/// `GET /v1/tasks/{id}/log`.
pub(super) async fn log(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    let mut params = Params::new(pairs, &["attempt", "stream", "follow"])?;
    let wanted = params.number("attempt", 1..=u32::MAX)?;
    let only = match params.take("stream").as_deref() {
        None => None,
        Some("stdout") => Some(Stream::Out),
        Some("stderr") => Some(Stream::Err),
        Some(_) => return Err(Problem::invalid("stream", "must be `stdout` or `stderr`")),
    };
    let follow = params.switch("follow")?;
    let task = shared.handle.show(caller, id).await?.task;
    if let Some(number) = wanted.filter(|number| *number > task.attempt) {
        let detail = format!(
            "task {id} has no attempt {number} yet; its latest is {}",
            task.attempt
        );
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "attempt_not_found",
            detail,
        ));
    }
    let events = headers.get(ACCEPT).is_some_and(|kinds| {
        kinds
            .as_bytes()
            .windows(17)
            .any(|w| w == b"text/event-stream")
    });
    if follow || events {
        let how = (follow, events);
        return follow::answer(shared, caller, &task, wanted, only, how, &headers);
    }
    let key = AttemptKey {
        task: id,
        number: wanted.unwrap_or(task.attempt),
    };
    kept(shared.output_dir.clone(), key, only, &headers).await
}

/// Answers with what is there.
async fn kept(
    dir: PathBuf,
    key: AttemptKey,
    only: Option<Stream>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let opening = blocking(move || {
        let Some(file) = open(&dir, key)? else {
            return Ok((None, 0));
        };
        let total = Output::new(file.try_clone()?, only).count()?;
        Ok((open(&dir, key)?, total))
    });
    let (file, total) = opening.await.map_err(|error| unreadable(key, &error))?;
    let range = match headers.get(RANGE).map(|range| Range::parse(range, total)) {
        None | Some(Range::Whole) => None,
        Some(Range::Part(start, end)) => Some((start, end)),
        Some(Range::Beyond) => return Ok(beyond(total)),
    };
    let (start, end) = range.unwrap_or((0, total));
    let body = match file {
        Some(file) => {
            let mut output = Output::new(file, only);
            output.skip = start;
            output.left = end - start;
            Body::new(Pieces::new(output, step))
        }
        None => Body::empty(),
    };
    let mut response = Response::new(body);
    let text = |text: String| HeaderValue::try_from(text).ok();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    if range.is_some()
        && let Some(value) = text(format!("bytes {start}-{}/{total}", end - 1))
    {
        headers.insert(CONTENT_RANGE, value);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// Does file work where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

pub(super) fn unreadable(key: AttemptKey, error: &io::Error) -> Problem {
    let detail = format!("the output of attempt {key} cannot be read: {error}");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", detail)
}

fn beyond(total: u64) -> Response {
    let detail = format!("the output has {total} bytes so far");
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let mut response = Problem::new(status, "range_beyond_end", detail).into_response();
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{total}")) {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    response
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// Everything: the header is one that may be ignored.
    Whole,
    /// From the first byte up to, not including, the second.
    Part(u64, u64),
    /// Nothing that is there.
    Beyond,
}

impl Range {
    fn parse(header: &HeaderValue, total: u64) -> Self {
        let bounds = header
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix("bytes="))
            .and_then(|text| text.split_once('-'));
        // RFC 9110 section 14.2: what is not understood is ignored.
        let Some((first, last)) = bounds else {
            return Self::Whole;
        };
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
            return if first.is_empty() {
                Self::Beyond
            } else {
                Self::Whole
            };
        }
        // Numbers too large to count lie beyond any end.
        let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
        let (start, end) = if first.is_empty() {
            (total.saturating_sub(number(last)), total)
        } else if last.is_empty() {
            (number(first), total)
        } else {
            (number(first), number(last).saturating_add(1).min(total))
        };
        if start < end {
            Self::Part(start, end)
        } else {
            Self::Beyond
        }
    }
}

/// Output being read.
struct Output {
    file: File,
    decoder: Decoder,
    only: Option<Stream>,
    skip: u64,
    left: u64,
    buffer: Vec<u8>,
}

impl Output {
    fn new(file: File, only: Option<Stream>) -> Self {
        Self {
            file,
            decoder: Decoder::new(),
            only,
            skip: 0,
            left: u64::MAX,
            buffer: vec![0; CHUNK],
        }
    }

    /// Bytes there are, to the end of the file or to where it is damaged.
    fn count(mut self) -> io::Result<u64> {
        let mut total = 0;
        while let Some(bytes) = self.next()? {
            total += bytes.len() as u64;
        }
        Ok(total)
    }

    /// The next bytes; none at the end.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        while out.is_empty() && self.left > 0 {
            let len = self.file.read(&mut self.buffer)?;
            if len == 0 {
                return Ok(None);
            }
            self.decoder
                .push(self.buffer.get(..len).unwrap_or_default());
            loop {
                let record = match self.decoder.next_record() {
                    Ok(Some(record)) => record,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "output is cut off here");
                        self.left = 0;
                        break;
                    }
                };
                let Record::Data { stream, bytes, .. } = record else {
                    continue;
                };
                if self.only.is_none_or(|only| only == stream) {
                    let skip = usize::try_from(self.skip)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    self.skip -= skip as u64;
                    let rest = bytes.get(skip..).unwrap_or_default();
                    let take = usize::try_from(self.left)
                        .unwrap_or(usize::MAX)
                        .min(rest.len());
                    self.left -= take as u64;
                    out.extend_from_slice(rest.get(..take).unwrap_or_default());
                }
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }
}

fn step(mut output: Output) -> Step<Output> {
    Box::pin(async move {
        let (next, output) = blocking(move || Ok((output.next(), output))).await.ok()?;
        match next {
            Ok(Some(bytes)) => Some((Ok(Bytes::from(bytes)), output)),
            Ok(None) => None,
            Err(error) => Some((Err(error), output)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        for (header, range) in [
            ("bytes=0-", Range::Part(0, 10)),
            ("bytes=0-0", Range::Part(0, 1)),
            ("bytes=3-5", Range::Part(3, 6)),
            ("bytes=3-500", Range::Part(3, 10)),
            ("bytes=-4", Range::Part(6, 10)),
            ("bytes=-400", Range::Part(0, 10)),
            ("bytes=10-", Range::Beyond),
            ("bytes=5-3", Range::Beyond),
            ("bytes=-0", Range::Beyond),
            ("bytes=--1", Range::Beyond),
            ("bytes=99999999999999999999-", Range::Beyond),
            ("bytes=9223372036854775808-", Range::Beyond),
            ("bytes=0-1,3-4", Range::Whole),
            ("lines=0-1", Range::Whole),
            ("bytes=a-b", Range::Whole),
        ] {
            let value = HeaderValue::from_static(header);
            assert_eq!(Range::parse(&value, 10), range, "{header}");
        }
        assert_eq!(
            Range::parse(&HeaderValue::from_static("bytes=0-"), 0),
            Range::Beyond
        );
    }
}
