//! Passing spans on to a collector, by OTLP over HTTP. Nobody waits for that:
//! what a collector does not take in time is dropped, counted, and told once.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode};
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::client::https;
use crate::client::https::pool::Pool;
use crate::clock;
use crate::config::error::{Error, Place};
use crate::config::traces::Options;
use crate::engine::spans::Intake;
use crate::model::span::Span;

use super::secrets::{self, Hidden};
use super::system;

pub mod wire;

/// Name of the service's credential with the headers.
const CREDENTIAL: &str = "traces-headers";
/// Most spans of one message.
const BATCH: usize = 512;
/// How long the first of them waits for company.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 64 * 1024;
/// The first wait before a message is sent again, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// How long the end of the daemon waits for a collector.
const FLUSH: Duration = Duration::from_millis(1_500);

/// Passes spans on until it is told to stop.
pub(super) struct Exporter {
    intake: Intake,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Where spans go.
struct Collector {
    pool: Pool,
    url: String,
    headers: HeaderMap,
    resource: wire::Resource,
}

/// What became of a message.
enum Sent {
    /// The collector has it, but for so many spans.
    Taken(u64),
    /// It may have it later; perhaps it said when.
    Later(String, Option<Duration>),
    /// It will never.
    Refused(String),
}

/// Begins to pass spans on, where the settings name a collector.
///
/// # Errors
/// The headers cannot be read.
pub(super) fn start(
    options: &Options,
    runtime: &Runtime,
) -> Result<Option<Exporter>, super::Error> {
    let Some(endpoint) = &options.endpoint else {
        return Ok(None);
    };
    let collector = Collector {
        pool: Pool::of_new_ones(),
        url: format!("{}/v1/traces", endpoint.trim_end_matches('/')),
        headers: headers(options)?,
        resource: resource(),
    };
    let mut secret = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut secret))
        .map_err(system("get random numbers for traces"))?;
    let (intake, spans) = Intake::new(secret, options.sample);
    let (stop, stopped) = oneshot::channel();
    let line = Line {
        collector,
        intake: intake.clone(),
        spans,
        batch: Vec::new(),
        well: true,
    };
    let task = runtime.spawn(line.run(stopped));
    Ok(Some(Exporter { intake, stop, task }))
}

impl Exporter {
    /// Where spans go in.
    pub(super) fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Passes on what is left, within a moment.
    pub(super) async fn finish(self) {
        let _ended = self.stop.send(()).is_err();
        let before = self.intake.counts().1;
        if timeout(FLUSH, self.task).await.is_err() {
            tracing::warn!("the collector of traces does not answer: its last spans are lost");
        }
        let lost = self.intake.counts().1.saturating_sub(before);
        if lost > 0 {
            tracing::warn!("the collector of traces did not take the last {lost} spans");
        }
    }
}

/// The headers for the collector. They are never shown.
fn headers(options: &Options) -> Result<HeaderMap, Error> {
    const KEY: &str = "traces.headers_file";
    let (path, hidden) = match &options.headers_file {
        Some(path) => (path.clone(), Hidden::FromGroup),
        // The service manager keeps it, and its mode is its own.
        None => match secrets::credential(CREDENTIAL) {
            Some(path) => (path, Hidden::FromEverybody),
            None => return Ok(HeaderMap::new()),
        },
    };
    let refuse = |why: String| Error::new(Place::Key(KEY.to_owned()), why);
    options
        .may_have_headers()
        .map_err(|why| refuse(why.to_owned()))?;
    let more = "it holds one `name: value` in each line";
    let bytes = secrets::read(KEY, &path, hidden, 1, more)?;
    parse(&bytes).map_err(|line| {
        refuse(format!(
            "{}: line {line} is no `name: value`",
            path.display()
        ))
    })
}

/// Headers, one in a line; which line is none, where one is not.
fn parse(bytes: &[u8]) -> Result<HeaderMap, usize> {
    let mut headers = HeaderMap::new();
    for (place, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(place + 1)?);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let name = HeaderName::from_bytes(name.trim_ascii()).map_err(|_| place + 1)?;
        let mut value = HeaderValue::from_bytes(value).map_err(|_| place + 1)?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// Who makes the spans.
fn resource() -> wire::Resource {
    let host = nix::unistd::gethostname().ok();
    let host = host.and_then(|name| name.into_string().ok());
    let mut attributes = vec![
        wire::text("service.name", "taskdaemon"),
        wire::text("service.version", crate::VERSION),
    ];
    attributes.extend(host.map(|name| wire::text("host.name", name)));
    wire::Resource { attributes }
}

fn now() -> Instant {
    Instant::from_std(clock::instant())
}

/// Spans on their way out.
struct Line {
    collector: Collector,
    intake: Intake,
    spans: mpsc::Receiver<Span>,
    /// Those of the message that is next.
    batch: Vec<Span>,
    /// Whether the collector answered the last one.
    well: bool,
}

impl Line {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                biased;
                // Whatever it was about: the batch is kept.
                _ = &mut stop => break,
                () = self.gather() => {}
            }
            tokio::select! {
                biased;
                _ = &mut stop => break,
                () = self.deliver() => {}
            }
        }
        self.finish().await;
    }

    /// Waits for spans, and a little for more of them.
    async fn gather(&mut self) {
        if self.batch.is_empty() && self.spans.recv_many(&mut self.batch, BATCH).await == 0 {
            // Nobody can send any more; that it is to stop is told all the same.
            return std::future::pending().await;
        }
        let due = now() + GATHER;
        while let Some(room) = BATCH.checked_sub(self.batch.len()).filter(|room| *room > 0) {
            match timeout_at(due, self.spans.recv_many(&mut self.batch, room)).await {
                Ok(more) if more > 0 => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Sends the message until the collector has it, or never will.
    async fn deliver(&mut self) {
        let mut wait = AGAIN.0;
        while let Some(asked) = self.send().await {
            sleep_until(now() + asked.unwrap_or(wait).clamp(AGAIN.0, AGAIN.1)).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }

    /// Sends the message once. Whether to send it again, and perhaps how long
    /// the collector asks to wait.
    async fn send(&mut self) -> Option<Option<Duration>> {
        let all = u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        match self.collector.send(&self.batch).await {
            Sent::Taken(refused) => {
                if !std::mem::replace(&mut self.well, true) {
                    tracing::info!("the collector of traces answers again");
                }
                self.intake.sent(all.saturating_sub(refused));
                self.intake.lost(refused.min(all));
            }
            Sent::Later(why, after) => {
                self.tell(&format!(
                    "{why}; spans wait, and those beyond that are dropped"
                ));
                return Some(after);
            }
            Sent::Refused(why) => {
                self.tell(&format!("{why}; its spans are dropped"));
                self.intake.lost(all);
            }
        }
        self.batch.clear();
        None
    }

    /// Tells what is wrong, once until it is right again.
    fn tell(&mut self, why: &str) {
        if std::mem::replace(&mut self.well, false) {
            tracing::warn!("the collector of traces: {why}");
        }
    }

    /// Sends what is left, each message once.
    async fn finish(mut self) {
        loop {
            let room = BATCH.saturating_sub(self.batch.len());
            let more = std::iter::from_fn(|| self.spans.try_recv().ok());
            self.batch.extend(more.take(room));
            if self.batch.is_empty() {
                return;
            }
            if self.send().await.is_some() {
                break;
            }
        }
        let left = self.batch.len() + self.spans.len();
        self.intake.lost(u64::try_from(left).unwrap_or(u64::MAX));
    }
}

impl Collector {
    async fn send(&self, spans: &[Span]) -> Sent {
        let body = wire::export(&self.resource, spans).encode_to_vec();
        let mut headers = self.headers.clone();
        let kind = HeaderValue::from_static("application/x-protobuf");
        headers.insert(CONTENT_TYPE, kind);
        let asked = async {
            let response = self
                .pool
                .ask(Method::POST, &self.url, headers, body)
                .await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await;
            let body = body.map(http_body_util::Collected::to_bytes);
            Ok((parts, body.unwrap_or_default()))
        };
        let url = &self.url;
        let (parts, body) = match timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(https::Error::Request(why))) => return Sent::Refused(why),
            Ok(Err(https::Error::Network(why))) => return Sent::Later(why, None),
            Err(_) => return Sent::Later(format!("{url}: did not answer in time"), None),
        };
        let status = parts.status;
        let why = format!("{url}: answers {status}");
        match status {
            status if status.is_success() => {
                let taken = wire::Taken::decode(body).unwrap_or_default();
                let refused = taken.partial_success.map_or(0, |part| part.rejected_spans);
                Sent::Taken(u64::try_from(refused).unwrap_or(0))
            }
            // Those that the protocol names.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Sent::Later(why, after(&parts.headers)),
            _ => Sent::Refused(why),
        }
    }
}

/// How long a collector asks to wait, in seconds.
fn after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_line_by_line_and_never_shown() {
        let good = b"Authorization: Bearer secret-1\r\n\nX-Scope: a:b\n";
        let headers = parse(good).expect("headers");
        assert_eq!(headers["authorization"], "Bearer secret-1");
        assert_eq!(headers["x-scope"], "a:b");
        let shown = format!("{headers:?}");
        assert!(!shown.contains("secret-1"), "{shown}");
        for (bad, line) in [
            (&b"no colon"[..], 1),
            (b"a: b\nbad name: c", 2),
            (b"a: b\n\n: c", 3),
            (b"a: \x01", 1),
        ] {
            assert_eq!(parse(bad).err(), Some(line), "{bad:?}");
        }
    }
}
