//! Following the record over connections and restarts of the daemon: each new
//! connection goes on behind the last event of the one before.

use std::io;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::time::timeout;

use crate::api::events::EventInfo;
use crate::api::progress::ProgressInfo;
use crate::clock;

use super::follow::SILENCE;
use super::sse::{Block, Blocks};
use super::{Client, Error, PATIENCE, pause};

/// What comes of the record.
#[derive(Debug)]
pub enum Heard {
    /// An event.
    Event(Box<EventInfo>),
    /// What a task says of itself; not part of the record.
    Progress(ProgressInfo),
    /// Events were removed before they were sent.
    Gap(Gap),
}

/// Numbers of events that are missing.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Gap {
    /// The first.
    pub from: i64,
    /// The last.
    pub to: i64,
}

impl Client {
    /// Hands on events as they come, each once, for ever. `path` asks for them.
    ///
    /// # Errors
    /// No good answer, the daemon stays away, or `each` failed.
    pub async fn follow_events(
        &self,
        path: &str,
        mut each: impl FnMut(Heard) -> io::Result<()>,
    ) -> Result<(), Error> {
        let mut last = None;
        let mut reached = false;
        let mut end = clock::instant() + PATIENCE;
        loop {
            let before = last.clone();
            let error = match self.listen_events(path, &mut last, &mut each).await {
                Ok(()) => Error::Lost,
                Err(error) => error,
            };
            reached |= !matches!(error, Error::Unreachable(..));
            if last != before {
                end = clock::instant() + PATIENCE;
            }
            if !error.is_passing() || !reached || clock::instant() > end {
                return Err(error);
            }
            pause(&error).await;
        }
    }

    /// One connection, until it ends.
    async fn listen_events(
        &self,
        path: &str,
        last: &mut Option<String>,
        each: &mut impl FnMut(Heard) -> io::Result<()>,
    ) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(Ok(value)) = last.as_ref().map(HeaderValue::try_from) {
            headers.insert(HeaderName::from_static("last-event-id"), value);
        }
        let asked = timeout(SILENCE, self.send(Method::GET, path, None, headers)).await;
        let mut body = asked.map_err(|_| Error::Lost)??.into_body();
        let mut blocks = Blocks::default();
        while let Ok(Some(Ok(frame))) = timeout(SILENCE, body.frame()).await {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            blocks.push(&data);
            while let Some(block) = blocks.next()? {
                if let Some(heard) = read(&block)? {
                    each(heard)?;
                }
                if block.id.is_some() {
                    *last = block.id;
                }
            }
        }
        Ok(())
    }
}

fn read(block: &Block) -> Result<Option<Heard>, Error> {
    let Some(data) = &block.data else {
        return Ok(None);
    };
    let strange = |error| Error::Strange(format!("an event that makes no sense ({error})"));
    match block.event.as_deref() {
        None => serde_json::from_str(data)
            .map(|event| Some(Heard::Event(Box::new(event))))
            .map_err(strange),
        Some("progress") => serde_json::from_str(data)
            .map(|progress| Some(Heard::Progress(progress)))
            .map_err(strange),
        Some("gap") => serde_json::from_str(data)
            .map(|gap| Some(Heard::Gap(gap)))
            .map_err(strange),
        // A newer daemon may have more to say.
        Some(_) => Ok(None),
    }
}
