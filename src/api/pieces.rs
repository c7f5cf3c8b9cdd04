//! A response body made piece by piece: each step gives one piece of bytes and
//! what the next step needs. Dropping the body ends the work.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};

/// A step under way.
pub(super) type Step<S> = Pin<Box<dyn Future<Output = Option<(io::Result<Bytes>, S)>> + Send>>;

/// The body.
pub(super) struct Pieces<S> {
    make: fn(S) -> Step<S>,
    step: Option<Step<S>>,
}

impl<S> Pieces<S> {
    /// A body that begins with this state.
    pub(super) fn new(state: S, make: fn(S) -> Step<S>) -> Self {
        Self {
            make,
            step: Some(make(state)),
        }
    }
}

impl<S> Body for Pieces<S> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(step) = &mut self.step else {
            return Poll::Ready(None);
        };
        let done = ready!(step.as_mut().poll(cx));
        let Some((piece, state)) = done else {
            self.step = None;
            return Poll::Ready(None);
        };
        self.step = piece.is_ok().then(|| (self.make)(state));
        Poll::Ready(Some(piece.map(Frame::data)))
    }
}
