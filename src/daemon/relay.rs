//! Models for the programs of tasks: requests in the words of chat completions,
//! of responses or of messages, by their badge; asked with a key that the task never sees,
//! under the limits that prompts are under.
//!
//! Whoever has to wait for a limit waits here, with its request open, and not
//! by an error that its program would have to understand.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::https::pool::Pool;
use crate::client::llm::Failure;
use crate::client::llm::relay::{Listening, Provider, Question, pass_on};
use crate::clock;
use crate::engine::command::Error;
use crate::engine::handle::Handle;
use crate::engine::relay::{NoCall, Ticket, Wish};
use crate::model::badge::Stamp;
use crate::model::estimate::Weight;
use crate::model::prompt::Dialect;
use crate::model::receipt::End;
use crate::model::trace::Context;

mod answer;

use answer::{Answer, BrokeOff, Words, piecewise};

/// Connections at once.
const CONNECTIONS: usize = 256;
/// Time for the head of a request, and for its body.
const SLOW: Duration = Duration::from_secs(30);
/// Pause after a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes of a request.
const BODY_MAX: usize = 32 * 1024 * 1024;
/// Longest wait for a limit. The libraries of the vendors wait ten minutes for
/// an answer.
const PATIENCE: Duration = Duration::from_secs(9 * 60);
/// Longest silence of a provider.
const IDLE: Duration = Duration::from_secs(120);
/// Pieces of an answer that wait for a slow reader.
const PIECES: usize = 16;

/// What every request needs.
#[derive(Debug, Clone)]
struct Shared {
    handle: Handle,
    stamp: Stamp,
    pool: Pool,
}

/// Answers until the runtime ends.
pub(super) async fn serve(listener: TcpListener, handle: Handle, stamp: Stamp) {
    let pool = Pool::default();
    let shared = Shared {
        handle,
        stamp,
        pool,
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Descriptors may have run out, and come back by themselves.
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection of a task: trying again soon");
                sleep_until(Instant::from_std(clock::instant() + PAUSE)).await;
                continue;
            }
        };
        let shared = shared.clone();
        drop(tokio::spawn(async move {
            connection(stream, shared).await;
            drop(place);
        }));
    }
}

async fn connection(stream: TcpStream, shared: Shared) {
    // As in `client::https`: no piece of an answer waits for the receipt of
    // another one.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a task's connection ended");
        return;
    }
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SLOW);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a task's connection ended");
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Answer {
    let path = request.uri().path();
    let dialect = match path {
        "/openai/v1/chat/completions" => Dialect::OpenAi,
        "/openai/v1/responses" => Dialect::Responses,
        "/anthropic/v1/messages" => Dialect::Anthropic,
        _ => {
            let told = "there is only /openai/v1/chat/completions, /openai/v1/responses and \
                        /anthropic/v1/messages";
            return Words::of(path).refuse(StatusCode::NOT_FOUND, told);
        }
    };
    let words = Words(dialect);
    if request.method() != Method::POST {
        return words.refuse(StatusCode::METHOD_NOT_ALLOWED, "ask by POST");
    }
    let Some(key) = badge(request.headers()).and_then(|badge| shared.stamp.read(badge)) else {
        let told = "the key is no badge of a task here; a task that was submitted with `--llm` finds \
                    its own in OPENAI_API_KEY and ANTHROPIC_API_KEY";
        return words.refuse(StatusCode::UNAUTHORIZED, told);
    };
    let (parts, body) = request.into_parts();
    let (question, weight) = match read(dialect, &parts.headers, body).await {
        Ok(read) => read,
        Err(told) => return words.refuse(StatusCode::BAD_REQUEST, &told),
    };
    let wish = Wish {
        key,
        dialect,
        model: question.model().to_owned(),
        weight,
        max_tokens: question.max_tokens(),
    };
    let place = parts.headers.get("traceparent");
    let place = place.and_then(|place| Context::parse(place.to_str().ok()?));
    match timeout(PATIENCE, ask(shared, &wish, &question, place)).await {
        Ok(answer) => answer,
        Err(_) => {
            let told = "the limits of the model, or a budget, have let no call through for nine \
                        minutes; `taskdaemon provider list` shows them";
            let mut answer = words.refuse(StatusCode::TOO_MANY_REQUESTS, told);
            answer
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("60"));
            answer
        }
    }
}

/// The badge that a request shows, in either dialect's header.
fn badge(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    text("x-api-key").or_else(|| text(AUTHORIZATION.as_str())?.strip_prefix("Bearer "))
}

async fn read(
    dialect: Dialect,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(Question, Weight), String> {
    let whole = timeout(SLOW, Limited::new(body, BODY_MAX).collect()).await;
    let whole = whole
        .map_err(|_| "the body does not come".to_owned())?
        .map_err(|error| format!("the body cannot be read: {error}"))?
        .to_bytes();
    let weight = Weight::of(&whole);
    let body: Value = serde_json::from_slice(&whole).map_err(|error| format!("{error}"))?;
    if !body.is_object() {
        return Err("the body is no JSON object".to_owned());
    }
    let beta = headers.get("anthropic-beta").cloned();
    let question = Question {
        dialect,
        body,
        beta,
    };
    match question.fault() {
        Some(fault) => Err(fault.to_owned()),
        None => Ok((question, weight)),
    }
}

/// Asks until somebody answers, or nobody will.
async fn ask(shared: &Shared, wish: &Wish, question: &Question, place: Option<Context>) -> Answer {
    let words = Words(wish.dialect);
    loop {
        let grant = match shared.handle.call(wish.clone()).await {
            Ok(grant) => grant,
            Err(error) => return words.refuse(status(&error), &error.to_string()),
        };
        let mut ticket = grant.ticket;
        ticket.place = place;
        let provider = Provider {
            base_url: &grant.base_url,
            key: grant.key.as_ref(),
            model: &grant.serves,
            max_tokens: grant.max_tokens,
            limited: grant.limited,
        };
        // From here on nobody knows what it cost until somebody says so.
        ticket.receipt = None;
        match pass_on(&shared.pool, question, &provider, IDLE).await {
            Ok((response, listening)) => return relay(response, listening, ticket),
            Err(failure) => {
                ticket.receipt = failure.receipt().map(Box::new);
                let turned_away = failure.end.is_some_and(End::is_turned_away);
                if !turned_away || failure.end == Some(End::Barred) {
                    return words.refuse(of_failure(&failure), &failure.why);
                }
            }
        }
    }
}

const fn status(error: &Error) -> StatusCode {
    if let Error::Model(why) = error {
        return match why {
            NoCall::Unknown(_) => StatusCode::NOT_FOUND,
            NoCall::OtherDialect(_) => StatusCode::BAD_REQUEST,
            NoCall::Barred { .. } => StatusCode::FORBIDDEN,
            NoCall::Budget(_) => StatusCode::PAYMENT_REQUIRED,
        };
    }
    // The badge is of an attempt that is over.
    if matches!(error, Error::NotFound(_)) {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn of_failure(failure: &Failure) -> StatusCode {
    match failure.end {
        Some(End::Rejected) => StatusCode::BAD_REQUEST,
        Some(End::Barred) => StatusCode::FORBIDDEN,
        Some(End::Refused | End::Overloaded | End::Broken | End::Answered) | None => {
            StatusCode::BAD_GATEWAY
        }
    }
}

/// Passes an answer on as it comes.
fn relay(response: Response<Incoming>, mut listening: Listening, ticket: Ticket) -> Answer {
    let (parts, mut body) = response.into_parts();
    let (send, pieces) = mpsc::channel(PIECES);
    drop(tokio::spawn(async move {
        let mut ticket = ticket;
        let whole = loop {
            let frame = tokio::select! {
                frame = timeout(IDLE, body.frame()) => frame,
                // Whoever asked is gone; so is the call, by the end of this.
                () = send.closed() => return,
            };
            let frame = match frame {
                Ok(None) => break true,
                Ok(Some(Ok(frame))) => frame,
                // Whoever reads sees that it breaks off.
                Ok(Some(Err(_))) | Err(_) => {
                    drop(send.send(Err(BrokeOff)).await);
                    break false;
                }
            };
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            if !listening.hear(&bytes) {
                drop(send.send(Err(BrokeOff)).await);
                break false;
            }
            if send.send(Ok(bytes)).await.is_err() {
                return;
            }
        };
        ticket.receipt = Some(Box::new(listening.end(whole)));
    }));
    let mut answer = piecewise(pieces);
    *answer.status_mut() = parts.status;
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    answer
}
