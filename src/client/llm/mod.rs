//! One call of a language model, streamed, in the words of its provider.
//!
//! An answer counts only with its provider's word that it is whole; one that
//! breaks off, and an error in the middle of it, which comes with status 200,
//! are failures. Which of them may pass is told apart by the provider's own
//! kind of error, not by the status alone.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};

use super::https::Error;
use super::https::pool::{Pool, let_go};
use crate::clock;
use crate::model::prompt::{Call, Key};
use crate::model::receipt::{End, Receipt, Remains};

mod answer;
mod headers;
pub mod lot;
pub mod relay;
mod request;
mod room;
mod shape;
mod stream;

use answer::{Answer, Heard};
use request::{authorize, request};
use room::Room;
use stream::Stream;

/// Bytes of the body of a refusal that are read.
const REFUSAL_MAX: usize = 64 * 1024;

/// How a call went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What its provider did; none where that is not to blame.
    pub end: Option<End>,
    /// What happened.
    pub why: String,
    /// How long the provider asks to wait, if it says so.
    pub wait: Option<Duration>,
    /// What it says is left of its limits.
    pub remains: Vec<Remains>,
    /// What it had counted until then.
    pub usage: Usage,
}

impl Failure {
    /// One of which nothing more is known.
    #[must_use]
    pub fn new(end: End, why: String) -> Self {
        Self {
            end: Some(end),
            why,
            wait: None,
            remains: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// It is not the provider's fault, and may pass.
    #[must_use]
    pub fn here(why: String) -> Self {
        Self {
            end: None,
            ..Self::broken(why)
        }
    }

    /// The same without the key, which some providers repeat in what they
    /// complain of.
    #[must_use]
    pub fn without(self, key: Option<&Key>) -> Self {
        Self {
            why: without(&self.why, key),
            ..self
        }
    }

    /// Whether asking again may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        !matches!(self.end, Some(End::Rejected | End::Answered))
    }

    /// The provider failed.
    fn broken(why: String) -> Self {
        Self::new(End::Broken, why)
    }

    /// The same question will fail again.
    fn rejected(why: String) -> Self {
        Self::new(End::Rejected, why)
    }

    /// What the daemon is told of it.
    #[must_use]
    pub fn receipt(&self) -> Option<Receipt> {
        let wait = self.wait.map(|wait| u64::try_from(wait.as_micros()));
        Some(Receipt {
            input: self.usage.input,
            output: self.usage.output,
            wait_us: wait.map(|us| us.unwrap_or(u64::MAX)),
            remains: self.remains.clone(),
            why: self.why.clone(),
            ..Receipt::of(self.end?)
        })
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it has cost.
    pub usage: Usage,
    /// What the provider says is left of its limits.
    pub remains: Vec<Remains>,
}

impl Usage {
    /// Both together; how the other ended counts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Self {
            input: sum(self.input, other.input),
            output: sum(self.output, other.output),
            ..other
        }
    }
}

impl Told {
    /// What the daemon is told of it.
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        Receipt {
            input: self.usage.input,
            output: self.usage.output,
            remains: self.remains.clone(),
            ..Receipt::of(End::Answered)
        }
    }
}

/// What a whole answer has cost, as the provider counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of what was asked.
    pub input: Option<u64>,
    /// Tokens of the answer.
    pub output: Option<u64>,
    /// The answer ends where it was as long as it might be.
    pub cut: bool,
    /// The model, or who watches over it, would not answer.
    pub refused: bool,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Of its text.
    Text(String),
    /// Of JSON, from a provider that keeps that apart from text.
    Data(String),
}

impl Piece {
    /// Bytes of it.
    const fn len(&self) -> usize {
        let (Self::Text(words) | Self::Data(words)) = self;
        words.len()
    }
}

/// A reply that was not what was asked for, and what is answered to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// What the model had said.
    pub reply: String,
    /// What it is told.
    pub answer: String,
}

/// Asks, and gives the pieces of the answer as they come; behind a turn, what
/// was asked, the turn's reply and what is answered to that are said again.
///
/// # Errors
/// There is no whole answer.
pub async fn ask(
    pool: &Pool,
    call: &Call,
    turn: Option<&Turn>,
    mut hear: impl FnMut(&Piece) -> std::io::Result<()>,
) -> Result<Told, Failure> {
    let (url, headers, body) = request(call, turn)?;
    let first = Duration::from_millis(call.first_ms);
    let body = body.to_string().into_bytes();
    let begun = timeout(first, pool.ask(Method::POST, &url, headers, body)).await;
    let response = begun
        .map_err(|_| Failure::broken(silent(&url, first)))?
        .map_err(network)?;
    let status = response.status();
    let (parts, body) = response.into_parts();
    if status != StatusCode::OK {
        let text = refusal(body, first).await;
        return Err(answer::refused(&url, status, &parts.headers, &text));
    }
    let remains = headers::remains(&parts.headers);
    let mut answer = Answer::new(call.dialect);
    match listen(&mut answer, call, &url, body, &mut hear).await {
        Ok(usage) => Ok(Told { usage, remains }),
        Err(failure) => Err(Failure {
            remains,
            usage: answer.usage(),
            ..failure
        }),
    }
}

async fn listen(
    answer: &mut Answer,
    call: &Call,
    url: &str,
    mut body: Incoming,
    hear: &mut impl FnMut(&Piece) -> std::io::Result<()>,
) -> Result<Usage, Failure> {
    let (mut stream, mut room) = (Stream::default(), Room::of(call));
    let mut patience = Duration::from_millis(call.first_ms);
    loop {
        let frame = timeout(patience, body.frame()).await;
        let frame = frame.map_err(|_| Failure::broken(silent(url, patience)))?;
        patience = Duration::from_millis(call.idle_ms);
        let bytes: Option<Bytes> = match frame {
            None => None,
            Some(Ok(frame)) => frame.into_data().ok(),
            Some(Err(error)) => {
                return answer.whole().ok_or_else(|| {
                    Failure::broken(format!("{url}: the answer broke off: {error}"))
                });
            }
        };
        let over = bytes.is_none();
        room.sent(url, bytes.as_ref().map_or(0, Bytes::len))?;
        let events = match &bytes {
            Some(bytes) => stream.push(bytes),
            None => stream.end(),
        };
        let strange = |why| Failure::broken(format!("{url}: {why}"));
        for event in events.map_err(strange)? {
            match answer.hear(&event).map_err(|fault| fault.at(url))? {
                Heard::Nothing => {}
                Heard::Words(piece) => {
                    room.text(url, piece.len())?;
                    let failed = |error| Failure::here(format!("cannot write: {error}"));
                    hear(&piece).map_err(failed)?;
                }
                Heard::End(usage) => {
                    let_go(body);
                    return Ok(usage);
                }
            }
        }
        if over {
            let short = || Failure::broken(format!("{url}: the answer ended before it was whole"));
            return answer.whole().ok_or_else(short);
        }
    }
}

fn network(error: Error) -> Failure {
    match error {
        Error::Request(why) => Failure::rejected(why),
        Error::Network(why) => Failure::broken(why),
    }
}

fn silent(url: &str, idle: Duration) -> String {
    format!("{url}: said nothing for {} s", idle.as_secs_f64())
}

/// The body of a refusal, as far as it comes within a time.
async fn refusal(mut body: Incoming, time: Duration) -> String {
    let end = Instant::from_std(clock::instant() + time);
    let mut text = Vec::new();
    while text.len() < REFUSAL_MAX
        && let Ok(Some(Ok(frame))) = timeout_at(end, body.frame()).await
    {
        text.extend(frame.data_ref().into_iter().flatten());
    }
    text.truncate(REFUSAL_MAX);
    String::from_utf8_lossy(&text).into_owned()
}

/// Takes a key out of a text: some providers repeat it in what they complain of.
#[must_use]
pub fn without(text: &str, key: Option<&Key>) -> String {
    match key {
        Some(key) if key.reveal().len() >= 4 => text.replace(key.reveal(), "…"),
        Some(_) | None => text.to_owned(),
    }
}
