//! The other side of the API: how the command line talks to a daemon.
//!
//! A connection is used again as long as it is fresh. What waits (`wait`, `follow`) survives a restart
//! of the daemon by asking again, and what submits carries an idempotency key,
//! so that a reply that was lost can be asked for once more.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::dto::TaskInfo;
use crate::api::problem::Wire;
use crate::clock;

mod answers;
mod connections;
pub mod events;
pub mod follow;
pub mod https;
pub mod llm;
pub mod origin;
mod pass;
mod sse;
pub mod target;
pub mod tls;

use connections::Idle;
use target::Target;

/// How long connecting, and a plain question, may take.
const PROMPT: Duration = Duration::from_secs(5);
/// How long a change may take: it is on disk when it is answered.
const CHANGE: Duration = Duration::from_secs(30);
/// How long a change of many tasks may take.
const BULK: Duration = Duration::from_secs(3600);
/// How long a daemon that was there may be gone before we give up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before asking again.
const PAUSE: Duration = Duration::from_millis(200);
/// Time limit of one `wait` request; the question is then asked again.
const ROUND: Duration = Duration::from_secs(55);
/// Largest answer.
const ANSWER_MAX: usize = 256 * 1024 * 1024;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers: what was tried and what may help, and what went wrong.
    #[error("{0}")]
    Unreachable(String, io::ErrorKind),
    /// The connection ended before the answer did.
    #[error(
        "the daemon closed the connection before it answered; ask again, and if it stays so, \
         `systemctl status taskdaemon` tells why"
    )]
    Lost,
    /// The daemon said no.
    #[error("{}", .0.detail)]
    Refused(Box<Wire>, Option<u32>),
    /// The answer makes no sense.
    #[error("{0}: is it a taskdaemon of this version?")]
    Strange(String),
    /// Nothing to ask: the command line or environment is wrong.
    #[error("{0}")]
    Usage(String),
    /// What was received could not be passed on.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

impl Error {
    /// Whether the same question may have an answer in a moment.
    fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(..) | Self::Lost => true,
            Self::Refused(wire, _) => wire.status == 503,
            Self::Strange(_) | Self::Usage(_) | Self::Write(_) => false,
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as a value.
    ///
    /// # Errors
    /// It is not one.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::Strange(format!("the answer cannot be read ({error})")))
    }
}

/// Asks one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    target: Target,
    idle: Idle,
}

impl Client {
    /// Somebody who asks this daemon.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            idle: Idle::default(),
        }
    }

    /// Asks for something that is there.
    ///
    /// # Errors
    /// No good answer.
    pub async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.ask(Method::GET, path, None, PROMPT).await
    }

    /// Asks for a change, once.
    ///
    /// # Errors
    /// No good answer.
    pub async fn post(&self, path: &str) -> Result<Answer, Error> {
        self.ask(Method::POST, path, None, CHANGE).await
    }

    /// Asks for a change of many tasks, once. It takes as long as it takes: each
    /// part of it is on disk before the next.
    ///
    /// # Errors
    /// No good answer.
    pub async fn bulk(&self, path: &str, body: Bytes) -> Result<Answer, Error> {
        self.ask(Method::POST, path, Some(body), BULK).await
    }

    /// Asks for a change with a method and a body of its own, once.
    ///
    /// # Errors
    /// No good answer.
    pub async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Answer, Error> {
        self.ask(method, path, body, CHANGE).await
    }

    /// Submits a body in which every task has an idempotency key, as often as
    /// it takes to get an answer.
    ///
    /// # Errors
    /// No good answer, or none in time.
    pub async fn submit(&self, body: Bytes) -> Result<Answer, Error> {
        let mut reached = false;
        self.persist(async || {
            let result = self
                .ask(Method::POST, "/v1/tasks", Some(body.clone()), CHANGE)
                .await;
            // A daemon that was never there is not waited for.
            reached |= !matches!(result, Err(Error::Unreachable(..)));
            result.map_err(|error| (error, reached))
        })
        .await
    }

    /// Waits until a task is over.
    ///
    /// # Errors
    /// No good answer, or the daemon stays away.
    pub async fn wait(&self, id: i64) -> Result<TaskInfo, Error> {
        let path = format!("/v1/tasks/{id}/wait?timeout={}s", ROUND.as_secs());
        let mut reached = false;
        loop {
            let answer = self
                .persist(async || {
                    let result = self.ask(Method::GET, &path, None, ROUND + PROMPT).await;
                    reached |= !matches!(result, Err(Error::Unreachable(..)));
                    result.map_err(|error| (error, reached))
                })
                .await?;
            if answer.status == StatusCode::OK {
                return answer.read();
            }
        }
    }

    /// Asks again while the failure may pass, until the patience is at an end.
    async fn persist<T>(
        &self,
        mut ask: impl AsyncFnMut() -> Result<T, (Error, bool)>,
    ) -> Result<T, Error> {
        let end = clock::instant() + PATIENCE;
        loop {
            let (error, reached) = match ask().await {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            if !error.is_passing() || !reached || clock::instant() > end {
                return Err(error);
            }
            pause(&error).await;
        }
    }

    /// One request and its whole answer.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let asked = async {
            let response = self.send(method, path, body, HeaderMap::new()).await?;
            let (parts, body) = response.into_parts();
            let limited = http_body_util::Limited::new(body, ANSWER_MAX);
            let body = limited.collect().await.map_err(|_| Error::Lost)?.to_bytes();
            Ok(Answer {
                status: parts.status,
                body,
            })
        };
        timeout(limit, asked).await.unwrap_or_else(|_| {
            let name = self.target.name();
            let seconds = limit.as_secs();
            let detail = format!(
                "the daemon at {name} did not answer within {seconds} s; \
                 `systemctl status taskdaemon` tells whether it starts"
            );
            Err(Error::Unreachable(detail, io::ErrorKind::TimedOut))
        })
    }

    /// One request and the head of its answer; the body is still to come.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, Error> {
        let request = self.request(method, path, body, headers)?;
        let response = self.exchange(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        mut headers: HeaderMap,
    ) -> Result<Request<Full<Bytes>>, Error> {
        // Also where there is no body: a page of another site could not say so.
        if method != Method::GET {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.extend(origin::headers(&method));
        let mut request = Request::new(Full::new(body.unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|_| Error::Usage(format!("`{path}` is not an address")))?;
        *request.headers_mut() = headers;
        let host = match &self.target {
            Target::Unix(_) => "localhost",
            Target::Tcp { address, token, .. } => {
                if let Some(token) = token {
                    request.headers_mut().insert(AUTHORIZATION, token.header()?);
                }
                address
            }
        };
        let host = HeaderValue::try_from(host).map_err(|_| Error::Lost)?;
        request.headers_mut().insert(HOST, host);
        Ok(request)
    }
}

/// Reads the daemon's reason.
async fn refusal(response: Response<Incoming>) -> Error {
    let status = response.status();
    let after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    let body = http_body_util::Limited::new(response.into_body(), 1024 * 1024);
    match body.collect().await {
        Ok(body) => Error::of(status, &body.to_bytes(), after),
        Err(_) => Error::Lost,
    }
}

/// Waits before asking again: as long as the daemon said, or a moment.
pub(crate) async fn pause(error: &Error) {
    let wait = match error {
        Error::Refused(_, Some(seconds)) => Duration::from_secs(u64::from(*seconds).min(30)),
        Error::Refused(..)
        | Error::Unreachable(..)
        | Error::Lost
        | Error::Strange(_)
        | Error::Usage(_)
        | Error::Write(_) => PAUSE,
    };
    sleep_until(Instant::from_std(clock::instant()) + wait).await;
}

/// How many blocks the bytes of an event stream hold.
///
/// # Errors
/// One has no end.
pub fn read_events(bytes: &[u8]) -> Result<usize, Error> {
    let mut blocks = sse::Blocks::default();
    let mut count = 0;
    for piece in bytes.chunks(11) {
        blocks.push(piece);
        while blocks.next()?.is_some() {
            count += 1;
        }
    }
    Ok(count)
}

/// A key that nobody else has.
///
/// # Errors
/// The system gives no random numbers.
pub fn random_key() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
