//! `logs`: what a task wrote, and with `--follow` what it writes.

use std::io;

use clap::{Args as ClapArgs, ValueEnum};
use http_body_util::BodyExt;
use hyper::Method;
use hyper::header::HeaderMap;

use crate::client::Error;
use crate::client::follow::{Event, Wish};

use super::text::Sink;
use super::{Outcome, Setting, complain, tasks};

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
    let mut sink = Sink::new(io::stdout(), args.raw);
    if args.follow {
        let wish = Wish {
            attempt: args.attempt,
            stream: args.stream.map(StreamName::word),
            from_first: false,
        };
        let following = client.follow(args.id, &wish, |event| match event {
            Event::Out(bytes) | Event::Err(bytes) => sink.put(&bytes),
            Event::Gap(bytes) => {
                complain(&format!("{bytes} bytes of output are missing here"));
                Ok(())
            }
            Event::Attempt(_) => Ok(()),
        });
        tasks::patiently(args.id, async { Ok(following.await?) }).await?;
        sink.finish()?;
        return Ok(0);
    }
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
    sink.finish()?;
    Ok(0)
}
