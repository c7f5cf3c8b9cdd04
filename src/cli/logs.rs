//! `logs`: what a task wrote, and with `--follow` what it writes.

use std::io::{self, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args as ClapArgs, ValueEnum};
use http_body_util::BodyExt;
use hyper::Method;
use hyper::header::HeaderMap;
use serde::Serialize;

use crate::api::dto::TaskInfo;
use crate::api::number::Stamp;
use crate::client::follow::{Event, Wish};
use crate::client::{Client, Error};

use super::interrupt::Interrupt;
use super::page::utc;
use super::text::Sink;
use super::{Failure, Outcome, Setting, complain, tasks};

/// What to print.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Number of the task
    #[arg(value_parser = tasks::number)]
    id: i64,
    /// Go on until the task is over
    #[arg(short, long)]
    follow: bool,
    /// This attempt instead of the latest
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// Only one of the two outputs
    #[arg(long)]
    stream: Option<StreamName>,
    /// Pass control characters on to the terminal
    #[arg(long)]
    raw: bool,
}

impl Args {
    /// All that the latest attempt of a task wrote.
    pub(super) const fn of(id: i64, follow: bool) -> Self {
        Self {
            id,
            follow,
            attempt: None,
            stream: None,
            raw: false,
        }
    }
}

/// One of a task's two outputs.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum StreamName {
    Stdout,
    Stderr,
}

impl StreamName {
    const fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// `logs`.
pub(super) async fn logs(args: &Args, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    if args.follow || args.attempt.is_none() {
        let task: TaskInfo = client
            .get(&format!("/v1/tasks/{}", args.id))
            .await?
            .read()?;
        if let Some(told) = waits(&task, args.follow) {
            complain(&told);
        }
    }
    let wish = Wish {
        attempt: args.attempt,
        stream: args.stream.map(StreamName::word),
        from_first: false,
        kept: !args.follow,
    };
    if setting.json {
        let mut lines = Lines::new(io::stdout(), args.attempt);
        let hearing = client.follow(args.id, &wish, |event| lines.hear(event));
        Interrupt::listen()?
            .patiently(args.id, async { Ok(hearing.await?) })
            .await?;
        lines.finish()?;
        return Ok(0);
    }
    let mut sink = Sink::new(io::stdout(), args.raw);
    if args.follow {
        let following = client.follow(args.id, &wish, |event| match event {
            Event::Out(bytes, _) | Event::Err(bytes, _) => sink.put(&bytes),
            Event::Gap(bytes) => {
                missing(bytes);
                Ok(())
            }
            Event::Attempt(_) => Ok(()),
        });
        Interrupt::listen()?
            .patiently(args.id, async { Ok(following.await?) })
            .await?;
    } else {
        kept(args, &client, &mut sink).await?;
    }
    sink.finish()?;
    Ok(0)
}

/// What is there already, byte by byte.
async fn kept(args: &Args, client: &Client, sink: &mut Sink<io::Stdout>) -> Result<(), Failure> {
    let mut path = format!("/v1/tasks/{}/log", args.id);
    let mut mark = '?';
    if let Some(number) = args.attempt {
        path.push_str(&format!("{mark}attempt={number}"));
        mark = '&';
    }
    if let Some(stream) = args.stream {
        path.push_str(&format!("{mark}stream={}", stream.word()));
    }
    let response = client
        .send(Method::GET, &path, None, HeaderMap::new())
        .await?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::Lost)?;
        if let Some(bytes) = frame.data_ref() {
            sink.put(bytes)?;
        }
    }
    Ok(())
}

fn missing(bytes: u64) {
    complain(&format!("{bytes} bytes of output are missing here"));
}

/// Why there is no output, or none yet.
fn waits(task: &TaskInfo, follow: bool) -> Option<String> {
    let ran = task.attempts.as_ref().is_some_and(|all| !all.is_empty());
    if task.ended_at.is_some() {
        return (!ran).then(|| {
            let outcome = task.outcome.as_ref().map_or("", |outcome| &outcome.message);
            format!("task {} never ran: {} {outcome}", task.id, task.state)
                .trim_end()
                .to_owned()
        });
    }
    let live = ["running", "paused", "stopping"].contains(&task.state.as_str());
    if live {
        return None;
    }
    let reason = task.reason.as_deref().unwrap_or_default();
    let until = task.until.map(|at| format!(", until {}", utc(at)));
    let then = if follow {
        "; its output comes here when it runs"
    } else {
        ""
    };
    Some(format!(
        "task {} is {} and {}: {reason}{}{then}",
        task.id,
        task.state,
        if ran {
            "runs again later"
        } else {
            "has not run"
        },
        until.unwrap_or_default()
    ))
}

/// Longest text of one object, in bytes: a line without an end is cut.
const LINE_MAX: usize = 64 * 1024;

/// Output as JSON, an object for each line.
struct Lines<W> {
    to: W,
    attempt: Option<u32>,
    /// The beginnings of lines whose end has not come: of standard output and
    /// of standard error, with the time of the latest piece.
    begun: [Option<(Stamp, Vec<u8>)>; 2],
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    stream: &'a str,
    time: Stamp,
    text: &'a str,
    /// The bytes, where they are not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl<W: Write> Lines<W> {
    const fn new(to: W, attempt: Option<u32>) -> Self {
        Self {
            to,
            attempt,
            begun: [None, None],
        }
    }

    fn hear(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Out(bytes, at) => self.put(StreamName::Stdout, &bytes, at),
            Event::Err(bytes, at) => self.put(StreamName::Stderr, &bytes, at),
            Event::Gap(bytes) => {
                missing(bytes);
                Ok(())
            }
            Event::Attempt(number) => {
                if self.attempt != Some(number) {
                    self.finish()?;
                }
                self.attempt = Some(number);
                Ok(())
            }
        }
    }

    fn put(&mut self, stream: StreamName, bytes: &[u8], at: Stamp) -> io::Result<()> {
        let [out, err] = &mut self.begun;
        let place = match stream {
            StreamName::Stdout => out,
            StreamName::Stderr => err,
        };
        let mut text = place.take().map(|(_, text)| text).unwrap_or_default();
        let mut whole = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                whole.push(std::mem::take(&mut text));
                continue;
            }
            text.push(*byte);
            if text.len() >= LINE_MAX {
                whole.push(std::mem::take(&mut text));
            }
        }
        if !text.is_empty() {
            *place = Some((at, text));
        }
        for text in whole {
            self.line(stream, at, &text)?;
        }
        self.to.flush()
    }

    fn line(&mut self, stream: StreamName, time: Stamp, bytes: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(bytes);
        let exact = std::str::from_utf8(bytes).is_ok();
        let line = Line {
            attempt: self.attempt,
            stream: stream.word(),
            time,
            text: &text,
            base64: (!exact).then(|| BASE64_STANDARD.encode(bytes)),
        };
        serde_json::to_writer(&mut self.to, &line)?;
        writeln!(self.to)
    }

    /// Passes on what has no end.
    fn finish(&mut self) -> io::Result<()> {
        let [out, err] = std::mem::take(&mut self.begun);
        for (stream, begun) in [(StreamName::Stdout, out), (StreamName::Stderr, err)] {
            if let Some((at, text)) = begun {
                self.line(stream, at, &text)?;
            }
        }
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Time;

    #[test]
    fn lines_are_whole_whatever_the_pieces() {
        let mut lines = Lines::new(Vec::new(), None);
        let at = |micros| Stamp(Time::from_micros(micros));
        for event in [
            Event::Attempt(1),
            Event::Out(b"one\ntw".to_vec(), at(1)),
            Event::Err(b"bad \xff\n".to_vec(), at(2)),
            Event::Out(b"o\n\nrest".to_vec(), at(3)),
            Event::Attempt(2),
            Event::Out(b"next\n".to_vec(), at(4)),
        ] {
            lines.hear(event).unwrap();
        }
        lines.finish().unwrap();
        let said = String::from_utf8(lines.to).unwrap();
        let said: Vec<serde_json::Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let row = |line: &serde_json::Value| {
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            (
                line["attempt"].as_u64().unwrap(),
                text("stream"),
                text("text"),
            )
        };
        let rows: Vec<_> = said.iter().map(row).collect();
        let wanted = [
            (1, "stdout", "one"),
            (1, "stderr", "bad \u{fffd}"),
            (1, "stdout", "two"),
            (1, "stdout", ""),
            (1, "stdout", "rest"),
            (2, "stdout", "next"),
        ];
        let wanted = wanted.map(|(n, stream, text)| (n, stream.to_owned(), text.to_owned()));
        assert_eq!(rows, wanted);
        assert_eq!(said[1]["base64"], "YmFkIP8=");
        assert_eq!(said[0]["time"], "1970-01-01T00:00:00.000001Z");
    }
}
