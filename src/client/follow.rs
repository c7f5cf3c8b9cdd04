//! Following a task's output over connections and restarts of the daemon: each
//! new connection goes on behind the last event of the one before.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::time::timeout;

use crate::api::dto::TaskInfo;
use crate::api::number::Stamp;
use crate::clock;

use super::sse::Blocks;
use super::{Client, Error, PATIENCE, pause};

/// The daemon sends something at least this often.
pub(super) const SILENCE: Duration = Duration::from_secs(40);

/// What happens in a task's output.
#[derive(Debug)]
pub enum Event {
    /// An attempt's output begins, or goes on.
    Attempt(u32),
    /// Bytes on standard output, and when they were read.
    Out(Vec<u8>, Stamp),
    /// Bytes on standard error, and when they were read.
    Err(Vec<u8>, Stamp),
    /// Bytes are missing here.
    Gap(u64),
}

/// What of a task's output is followed.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Only this attempt.
    pub attempt: Option<u32>,
    /// Only this stream.
    pub stream: Option<&'static str>,
    /// From the first attempt on, instead of the latest.
    pub from_first: bool,
    /// Only what is there already.
    pub kept: bool,
}

impl Client {
    /// Hands on output as it is written, each byte once, until the task is
    /// over; or what is there already, if that is the wish.
    ///
    /// # Errors
    /// No good answer, the daemon stays away, or `each` failed.
    pub async fn follow(
        &self,
        id: i64,
        wish: &Wish,
        mut each: impl FnMut(Event) -> io::Result<()>,
    ) -> Result<TaskInfo, Error> {
        let mut path = format!("/v1/tasks/{id}/log?follow={}", !wish.kept);
        if let Some(number) = wish.attempt {
            path.push_str(&format!("&attempt={number}"));
        }
        if let Some(stream) = wish.stream {
            path.push_str(&format!("&stream={stream}"));
        }
        let mut reader = Reader {
            last: wish.from_first.then(|| "1.0".to_owned()),
            ..Reader::default()
        };
        let mut reached = false;
        let mut end = clock::instant() + PATIENCE;
        loop {
            let heard = reader.heard;
            let error = match self.listen(&path, &mut reader, &mut each).await {
                Ok(Some(task)) => return Ok(task),
                Ok(None) => Error::Lost,
                Err(error) => error,
            };
            reached |= !matches!(error, Error::Unreachable(..));
            if reader.heard > heard {
                end = clock::instant() + PATIENCE;
            }
            if !error.is_passing() || !reached || clock::instant() > end {
                return Err(error);
            }
            pause(&error).await;
        }
    }

    /// One connection; none when it ended before the task did.
    async fn listen(
        &self,
        path: &str,
        reader: &mut Reader,
        each: &mut impl FnMut(Event) -> io::Result<()>,
    ) -> Result<Option<TaskInfo>, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(last) = &reader.last
            && let Ok(value) = HeaderValue::try_from(last)
        {
            headers.insert(HeaderName::from_static("last-event-id"), value);
        }
        let asked = timeout(SILENCE, self.send(Method::GET, path, None, headers)).await;
        let response = asked.map_err(|_| Error::Lost)??;
        let mut body = response.into_body();
        reader.blocks.clear();
        while let Ok(Some(Ok(frame))) = timeout(SILENCE, body.frame()).await {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            reader.heard += 1;
            reader.blocks.push(&data);
            while let Some(event) = reader.next()? {
                match event {
                    Heard::Event(event) => each(event)?,
                    Heard::End(task) => return Ok(Some(*task)),
                    Heard::Nothing => {}
                }
            }
        }
        Ok(None)
    }
}

/// One event of the stream.
enum Heard {
    Event(Event),
    End(Box<TaskInfo>),
    Nothing,
}

/// Takes events out of the bytes of a stream.
#[derive(Debug, Default)]
struct Reader {
    blocks: Blocks,
    /// Id of the last event that was handed on.
    last: Option<String>,
    /// Pieces received in all.
    heard: u64,
}

#[derive(Deserialize)]
struct Output {
    stream: String,
    at: Stamp,
    base64: String,
}

#[derive(Deserialize)]
struct Number {
    #[serde(alias = "dropped")]
    number: u64,
}

impl Reader {
    /// The next event; none until more bytes come.
    fn next(&mut self) -> Result<Option<Heard>, Error> {
        let Some(block) = self.blocks.next()? else {
            return Ok(None);
        };
        let (Some(kind), Some(data)) = (&block.event, &block.data) else {
            return Ok(Some(Heard::Nothing));
        };
        let heard = read(kind, data)
            .ok_or_else(|| Error::Strange(format!("an event `{kind}` that makes no sense")))?;
        if block.id.is_some() {
            self.last = block.id;
        }
        Ok(Some(heard))
    }
}

fn read(kind: &str, data: &str) -> Option<Heard> {
    let number = || {
        serde_json::from_str(data)
            .ok()
            .map(|Number { number }| number)
    };
    match kind {
        "output" => {
            let output: Output = serde_json::from_str(data).ok()?;
            let bytes = BASE64_STANDARD.decode(&output.base64).ok()?;
            let event = match output.stream.as_str() {
                "stderr" => Event::Err(bytes, output.at),
                _ => Event::Out(bytes, output.at),
            };
            Some(Heard::Event(event))
        }
        "gap" => Some(Heard::Event(Event::Gap(number()?))),
        "attempt" => Some(Heard::Event(Event::Attempt(u32::try_from(number()?).ok()?))),
        "end" => serde_json::from_str(data)
            .ok()
            .map(|task| Heard::End(Box::new(task))),
        // A newer daemon may have more to say.
        _ => Some(Heard::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_whatever_the_pieces() {
        let text = "id: 1.0\nevent: attempt\ndata: {\"number\":1}\n\n: \n\n\
                    id: 1.20\nevent: output\ndata: {\"stream\":\"stderr\",\"at\":\"1970-01-01T00:00:00Z\",\"base64\":\"YQ==\"}\n\n\
                    id: 1.40\nevent: gap\ndata: {\"dropped\":7}\n\nevent: new\ndata: {}\n\n";
        for size in 1..text.len() {
            let mut reader = Reader::default();
            let mut seen = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                reader.blocks.push(piece);
                while let Some(heard) = reader.next().unwrap() {
                    match heard {
                        Heard::Event(event) => seen.push(format!("{event:?}")),
                        Heard::End(_) | Heard::Nothing => {}
                    }
                }
            }
            assert_eq!(
                seen,
                ["Attempt(1)", "Err([97], Stamp(Time(0)))", "Gap(7)"],
                "{size}"
            );
            assert_eq!(reader.last.as_deref(), Some("1.40"));
        }
    }
}
