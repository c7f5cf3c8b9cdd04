//! The bytes of one connection, under deadlines.
//!
//! Deadlines live here, below the HTTP parser: whatever a client does or leaves
//! undone shows up as bytes that do not come or do not go. Nothing polls; a
//! connection has at most one armed timer per direction.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use crate::clock;

use super::identity::Settings;
use super::problem::{MEDIA_TYPE, Problem};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It never sent a byte.
    Fresh = 0,
    /// Its last answer is out; nothing came since.
    Idle = 1,
    /// Part of a head came.
    Head = 2,
    /// A request is being answered.
    Busy = 3,
}

/// What a connection is doing and since when, as the accept loop sees it.
#[derive(Debug)]
pub(super) struct Activity {
    epoch: std::time::Instant,
    /// Milliseconds since the epoch times four, plus the phase.
    state: AtomicU64,
    /// Ended because its client was too slow.
    pub(super) timed_out: AtomicBool,
    /// Asks the connection to end.
    pub(super) close: Notify,
}

impl Activity {
    pub(super) fn new(epoch: std::time::Instant) -> Self {
        let activity = Self {
            epoch,
            state: AtomicU64::new(0),
            timed_out: AtomicBool::new(false),
            close: Notify::new(),
        };
        activity.enter(Phase::Fresh);
        activity
    }

    pub(super) fn enter(&self, phase: Phase) {
        let elapsed = clock::instant().saturating_duration_since(self.epoch);
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX >> 2);
        self.state
            .store(millis << 2 | phase as u64, Ordering::Relaxed);
    }

    /// The phase, and since when.
    pub(super) fn now(&self) -> (Phase, Instant) {
        let state = self.state.load(Ordering::Relaxed);
        let phase = match state & 3 {
            0 => Phase::Fresh,
            1 => Phase::Idle,
            2 => Phase::Head,
            _ => Phase::Busy,
        };
        let since = self.epoch + Duration::from_millis(state >> 2);
        (phase, Instant::from_std(since))
    }

    /// Since when there has been no request; none while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let (phase, since) = self.now();
        (phase != Phase::Busy).then_some(since)
    }
}

/// The bytes of a connection.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Writes what fits at once; the connection is given up either way.
    fn farewell(&self, bytes: &[u8]) {
        let written = match self {
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tcp(stream) => stream.try_write(bytes),
            // Words would have to be encrypted first.
            Self::Tls(_) => return,
        };
        drop(written);
    }

    /// Says why, if the client listens. What it has sent is read first: closing
    /// on unread data would take the answer with it.
    pub(super) fn parting(&self, problem: &Problem) {
        let mut unread = [0; 4096];
        let read = match self {
            Self::Unix(stream) => stream.try_read(&mut unread),
            Self::Tcp(stream) => stream.try_read(&mut unread),
            Self::Tls(_) => return,
        };
        drop(read);
        let body = problem.body();
        let mut answer = format!(
            "HTTP/1.1 {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n",
            problem.status,
            MEDIA_TYPE,
            body.len()
        );
        if let Some(seconds) = problem.retry_after {
            answer.push_str(&format!("retry-after: {seconds}\r\n"));
        }
        answer.push_str("\r\n");
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(&body);
        self.farewell(&answer);
    }
}

/// A timer that is armed only when something waits for it.
#[derive(Debug, Default)]
struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        loop {
            // A timer that is set too early costs one look; resetting it for
            // every request would cost more.
            if sleep.deadline() > at || sleep.is_elapsed() {
                sleep.as_mut().reset(at);
            }
            let due = sleep.deadline() >= at;
            match sleep.as_mut().poll(cx) {
                Poll::Ready(()) if due => return Poll::Ready(()),
                Poll::Ready(()) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A byte stream that fails when its client is too slow.
pub(super) struct Watched {
    pub(super) stream: Stream,
    activity: Arc<Activity>,
    settings: Arc<Settings>,
    reading: Deadline,
    writing: Deadline,
    stuck: Option<Instant>,
}

impl Watched {
    pub(super) fn new(stream: Stream, activity: Arc<Activity>, settings: Arc<Settings>) -> Self {
        Self {
            stream,
            activity,
            settings,
            reading: Deadline::default(),
            writing: Deadline::default(),
            stuck: None,
        }
    }

    /// Judges a client from whom nothing came.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (phase, since) = self.activity.now();
        let options = &self.settings.options;
        let wait = match phase {
            Phase::Fresh | Phase::Head => options.header_timeout,
            // An idle connection is not read from: `conn` has its deadline. A
            // request at work has deadlines of its own.
            Phase::Idle | Phase::Busy => return Poll::Pending,
        };
        self.reading.poll(cx, since + wait).map(|()| {
            self.activity.timed_out.store(true, Ordering::Relaxed);
            Err(io::ErrorKind::TimedOut.into())
        })
    }

    /// Judges a client that does not take what is sent.
    fn poll_stuck<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stuck = None;
            return result;
        }
        let now = || Instant::from_std(clock::instant());
        let since = *self.stuck.get_or_insert_with(now);
        let at = since + self.settings.options.body_timeout;
        self.writing
            .poll(cx, at)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if result.is_pending() {
            return self.poll_patience(cx);
        }
        if buf.filled().len() > before {
            match self.activity.now().0 {
                Phase::Fresh | Phase::Idle => self.activity.enter(Phase::Head),
                Phase::Head | Phase::Busy => {}
            }
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.poll_stuck(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.poll_stuck(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
