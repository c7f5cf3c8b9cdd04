//! Reading a request's body: at most so many bytes, in at most so much time,
//! and never more memory for all of them together than a set share, however
//! many clients send at once.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, HeaderMap};

use super::problem::Problem;
use super::{Shared, memory};

/// Bytes that a body may have without counting against the common share.
const SMALL: usize = 64 * 1024;
/// Memory for all larger bodies together.
const SHARE: usize = 64 * 1024 * 1024;
/// Bytes of a body that is too large which are still read, and thrown away, so
/// that the client gets to read the answer before the connection closes.
const COURTESY: usize = 4 * 1024 * 1024;
/// Time spent on that.
const COURTESY_TIME: Duration = Duration::from_secs(2);
/// Time a body that is still on its way has left when the daemon stops.
const LAST_CALL: Duration = Duration::from_secs(2);

/// What large bodies hold at the moment.
#[derive(Debug, Default)]
pub(super) struct Bodies(AtomicUsize);

/// A part of the common share, given back at the end.
struct Held<'b> {
    bodies: &'b Bodies,
    bytes: usize,
}

impl Held<'_> {
    fn grow(&mut self, to: usize) -> Result<(), Problem> {
        if to <= SMALL || to <= self.bytes {
            return Ok(());
        }
        let more = to - self.bytes;
        if self.bodies.0.fetch_add(more, Ordering::Relaxed) + more > SHARE {
            self.bodies.0.fetch_sub(more, Ordering::Relaxed);
            let detail = "too many large requests at once; try again in a moment";
            let busy = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
            return Err(busy.after(1));
        }
        self.bytes = to;
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.bodies.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A whole body. What came of one that is refused may have taken many times
/// its size: that is given back to the system when the body is dropped.
#[derive(Debug)]
pub(super) struct Whole(Bytes);

impl Whole {
    /// Drops the body of a request that is accepted.
    pub(super) fn accepted(mut self) {
        drop(std::mem::take(&mut self.0));
    }
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        let size = std::mem::take(&mut self.0).len();
        if size > SMALL {
            memory::give_back();
        }
    }
}

/// Reads the whole body. To be dropped after what was made of it, if that is
/// refused.
pub(super) async fn read(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<Whole, Problem> {
    in_time(shared, headers, body).await.map(Whole)
}

async fn in_time(shared: &Shared, headers: &HeaderMap, mut body: Body) -> Result<Bytes, Problem> {
    let (max, limit) = {
        let settings = shared.settings.borrow();
        (
            settings.options.body_max.in_memory(),
            settings.options.body_timeout,
        )
    };
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    let mut stopping = shared.shutdown.clone();
    let reading = tokio::time::timeout(limit, gather(shared, &mut body, announced, max));
    tokio::select! {
        biased;
        result = reading => match result {
            Ok(result) => result,
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                format!("the body took longer than {} s", limit.as_secs_f64()),
            )),
        },
        // A body that is still on its way when the daemon stops gets a moment,
        // not the whole time limit.
        () = super::serve::stopped_for(&mut stopping, LAST_CALL) => Err(Problem::stopping()),
    }
}

async fn gather(
    shared: &Shared,
    body: &mut Body,
    announced: Option<usize>,
    max: usize,
) -> Result<Bytes, Problem> {
    let mut held = Held {
        bodies: &shared.bodies,
        bytes: 0,
    };
    if let Some(bytes) = announced.filter(|bytes| *bytes > max) {
        return Err(too_large(body, max, bytes <= max + COURTESY).await);
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::bad("bad_body", format!("the body could not be read: {error}"))
        })?;
        // What is not data is trailers, which mean nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let total = first.len() + all.len() + data.len();
        if total > max {
            return Err(too_large(body, max, true).await);
        }
        held.grow(total)?;
        if total == data.len() {
            first = data;
        } else {
            // The usual body is one piece and is never copied.
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The answer to a body that is too large, after a look whether its end is
/// near: a connection that is closed on unread data takes the answer with it.
async fn too_large(body: &mut Body, max: usize, near: bool) -> Problem {
    let discard = async {
        let mut left = COURTESY;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    if near {
        // Whether it ended in time makes no difference to the answer.
        drop(tokio::time::timeout(COURTESY_TIME, discard).await);
    }
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("the body has more than the {max} bytes allowed"),
    )
}
