//! One connection: HTTP spoken over its bytes, perhaps encrypted, each request
//! through the gate.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{copy, sink};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::clock;
use crate::model::origin::Origin;

use super::gate::{self, Source};
use super::identity::{self, Settings};
use super::lease::Lapse;
use super::peer::Peer;
use super::problem::Problem;
use super::stream::{Activity, Phase, Stream, Watched};
use super::{Server, Shared, head, tls};

/// Bytes the head of a request may have.
const HEAD_MAX: usize = 16 * 1024;
/// Bytes read from or kept for a connection at a time.
const BUFFER: usize = 64 * 1024;
/// How long a connection is kept for its next request once the daemon stops,
/// counted from its last answer or its begin: clients that ask one request after
/// the other notice of a restart no more than `Connection: close`.
const KEPT: Duration = Duration::from_millis(500);
/// How long a client has for closing its side after its last answer.
const PARTING: Duration = Duration::from_millis(200);

/// Marks a request from its head to the end of its answer.
struct Flight(Arc<Activity>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// Tells a client that there is no room for its connection.
pub(super) fn turn_away(stream: &Stream) {
    let detail = "too many connections, all of them in use; try again in a moment";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    stream.parting(&Problem::new(status, "too_many_connections", detail).after(1));
}

/// Serves one connection to its end, encrypted where that is set.
pub(super) async fn open(stream: Stream, gate: Gate, settings: Arc<Settings>) {
    match (stream, settings.tls.clone()) {
        (Stream::Tcp(tcp), Some(tls)) => {
            let limit = settings.options.header_timeout;
            if let Some(tls) = shake_hands(tcp, tls, &gate, limit).await {
                let gate = gate.naming(tls::names(tls.get_ref().1));
                run(Stream::Tls(Box::new(tls)), gate, settings).await;
            }
        }
        (stream, _) => run(stream, gate, settings).await,
    }
}

/// Agrees with a client on keys, and judges its certificate where one is asked
/// for.
async fn shake_hands(
    tcp: TcpStream,
    tls: Arc<ServerConfig>,
    gate: &Gate,
    limit: Duration,
) -> Option<TlsStream<TcpStream>> {
    let Post {
        shared,
        peer,
        activity,
        ..
    } = &*gate.0;
    if shared.attempts.wait(peer.key()).is_some() {
        return None;
    }
    let shaken = tokio::select! {
        () = activity.close.notified() => return None,
        shaken = timeout(limit, TlsAcceptor::from(tls).accept(tcp)) => shaken.ok()?,
    };
    shaken
        .inspect_err(|error| {
            // Other errors are a connection that was lost.
            if error.kind() == std::io::ErrorKind::InvalidData {
                shared.attempts.fail(peer.key());
                let why = json!({ "why": error.to_string(), "address": peer.address() });
                identity::deny(shared, None, Origin::NONE, &why);
            }
        })
        .ok()
}

/// Serves one connection to its end.
async fn run(stream: Stream, gate: Gate, settings: Arc<Settings>) {
    let activity = Arc::clone(&gate.0.activity);
    let shutdown = gate.0.shared.shutdown.clone();
    let mut patience = settings.options.idle_timeout;
    let mut idle = pin!(sleep_until(now() + patience));
    let io = Watched::new(stream, Arc::clone(&activity), settings);
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(HEAD_MAX)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(io), gate);
    // Whether it is closed between two requests, so that there is no last answer.
    let mut silent = false;
    let ended = loop {
        let stopping = *shutdown.borrow();
        let mut close = false;
        tokio::select! {
            biased;
            ended = poll_fn(|cx| Pin::new(&mut connection).poll(cx)) => break ended,
            () = activity.close.notified() => if *shutdown.borrow() {
                patience = patience.min(KEPT);
                idle.as_mut().reset(now());
            } else {
                close = true;
            },
            // Set anew when it strikes, not with every request.
            () = &mut idle => {
                let (phase, since) = activity.now();
                let due = match phase {
                    Phase::Idle => since + patience,
                    // Until the daemon stops, `stream` has their deadline.
                    Phase::Fresh | Phase::Head if stopping => since + patience,
                    Phase::Fresh | Phase::Head | Phase::Busy => now() + patience,
                };
                close = due <= now();
                idle.as_mut().reset(if close { now() + patience } else { due });
            }
        }
        if close {
            match activity.now().0 {
                // Nothing was asked yet, so there is nothing to answer.
                Phase::Fresh | Phase::Head => return,
                phase @ (Phase::Idle | Phase::Busy) => {
                    silent = phase == Phase::Idle;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    };
    let late = activity.timed_out.load(Ordering::Relaxed) && activity.now().0 == Phase::Head;
    let io = connection.into_parts().io.into_inner();
    match ended {
        Ok(()) if silent => {}
        Ok(()) => see_out(io, &activity).await,
        Err(error) => {
            tracing::debug!(%error, "a connection ended early");
            if late {
                let detail = "the head of the request took too long";
                let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, "head_timeout", detail);
                io.stream.parting(&problem);
            }
        }
    }
}

fn now() -> Instant {
    Instant::from_std(clock::instant())
}

/// Reads what still comes after the last answer, until the client closes too.
/// Closing on unread bytes would be a reset, and a reset takes with it what the
/// client has not read yet (RFC 9112, 9.6).
async fn see_out(mut io: Watched, activity: &Activity) {
    let mut nowhere = sink();
    tokio::select! {
        // How the client leaves makes no difference any more.
        _ = timeout(PARTING, copy(&mut io, &mut nowhere)) => {}
        // Somebody else needs the room.
        () = activity.close.notified() => {}
    }
}

/// What every request of one connection passes through.
#[derive(Clone)]
pub(super) struct Gate(Arc<Post>);

struct Post {
    shared: Arc<Shared>,
    router: Router,
    peer: Peer,
    /// The names in the certificate that the client has shown.
    names: Option<Arc<[String]>>,
    activity: Arc<Activity>,
}

impl Gate {
    pub(super) fn new(server: &Server, peer: Peer, activity: Arc<Activity>) -> Self {
        Self(Arc::new(Post {
            shared: Arc::clone(&server.shared),
            router: server.router.clone(),
            peer,
            names: None,
            activity,
        }))
    }

    /// The same for a client whose certificate has these names.
    fn naming(self, names: Option<Arc<[String]>>) -> Self {
        let Post {
            shared,
            router,
            peer,
            activity,
            ..
        } = &*self.0;
        Self(Arc::new(Post {
            shared: Arc::clone(shared),
            router: router.clone(),
            peer: *peer,
            names,
            activity: Arc::clone(activity),
        }))
    }
}

impl Service<Request<Incoming>> for Gate {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let post = Arc::clone(&self.0);
        post.activity.enter(Phase::Busy);
        let flight = Flight(Arc::clone(&post.activity));
        Box::pin(async move {
            let (response, lapse) = post.answer(request).await;
            Ok(response.map(|body| Outgoing {
                body,
                lapse,
                _flight: flight,
            }))
        })
    }
}

impl Post {
    async fn answer(&self, request: Request<Incoming>) -> (Response, Option<Lapse>) {
        let shared = &self.shared;
        let id = shared.ids.name(request.headers());
        let mut close = false;
        let mut lapse = None;
        let source = Source {
            peer: self.peer,
            names: self.names.as_ref(),
        };
        let mut response = match gate::admit(shared, source, request, &id) {
            Ok((request, ends)) => {
                use tower::Service as _;
                lapse = ends;
                let answered = caught(self.router.clone().call(request));
                match &mut lapse {
                    None => answered.await,
                    Some(lapse) => tokio::select! {
                        biased;
                        response = answered => response,
                        () = lapse => lapsed().into_response(),
                    },
                }
            }
            Err(problem) => {
                // A client that gets these wrong may mean another protocol by
                // whatever it sends next.
                close = problem.status == StatusCode::BAD_REQUEST;
                problem.into_response()
            }
        };
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            let request = id.to_str().unwrap_or_default();
            tracing::error!(request, "a request failed");
        }
        let headers = response.headers_mut();
        headers.insert(head::REQUEST_ID, id);
        // Output of tasks is nobody's web page, whatever it looks like.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if close || *shared.shutdown.borrow() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // An answer that has no more to say has nothing to be taken back.
        let lapse = lapse.filter(|_| !HttpBody::is_end_stream(response.body()));
        (response, lapse)
    }
}

fn lapsed() -> Problem {
    let detail = "the token has expired, or was taken away, while this was being answered";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

/// Turns a panic of a handler into one failed request.
async fn caught<F, E>(future: F) -> Response
where
    F: Future<Output = Result<Response, E>>,
{
    let mut future = pin!(future);
    let outcome = poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(result)) => Poll::Ready(result.ok()),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        },
    )
    .await;
    outcome.unwrap_or_else(|| {
        let detail = "the daemon made a mistake; its journal has the details";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).into_response()
    })
}

/// An answer on its way.
pub(super) struct Outgoing {
    body: Body,
    /// Ends the answer before its end.
    lapse: Option<Lapse>,
    _flight: Flight,
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(lapse) = &mut self.lapse
            && lapse.as_mut().poll(cx).is_ready()
        {
            self.lapse = None;
            return Poll::Ready(Some(Err(axum::Error::new(lapsed().detail))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        hyper::body::Body::size_hint(&self.body)
    }
}
