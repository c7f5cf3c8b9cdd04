//! Where log lines go: the journal when systemd listens, else standard error.
//!
//! Nobody who logs ever waits: each event becomes an owned record in a bounded
//! queue, one thread writes them out, and what does not fit is dropped, counted
//! ([`dropped`]) and told. `task`, `attempt`, `queue`, `request`, `trace_id`,
//! `message_id` and what OpenTelemetry calls `gen_ai` become journal fields,
//! everything else `key=value` in the text.
//! This file imports nothing of ours.

use std::error::Error;
use std::fmt;
use std::io;
use std::panic;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as SpanRecord};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, reload};

use self::output::Output;

mod output;

/// Names in the code of the fields that become journal fields.
const CODE_FIELDS: [&str; FIELDS] = [
    "message",
    "message_id",
    "task",
    "attempt",
    "queue",
    "request",
    "trace_id",
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "error.type",
];
const FIELDS: usize = 13;
const MESSAGE: usize = 0;
const MESSAGE_ID: usize = 1;
/// Records that may wait. With [`TEXT_MAX`] this bounds the memory a stuck
/// reader can cost.
const QUEUE: usize = 2048;
/// Flushes that may wait beside them.
const FLUSHES: usize = 64;
/// Longest text of one field, in bytes.
const TEXT_MAX: usize = 4096;
/// How long the end of the program, or a panic, waits for the queue to empty.
const FLUSH: Duration = Duration::from_millis(500);
/// The level of everything the filter does not name.
const DEFAULT_FILTER: &str = "info";

static DROPPED: AtomicU64 = AtomicU64::new(0);
/// Records in the queue. Counted here, because the channel has room for more:
/// a [`flush`] must get in when the queue is full of records.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// How many log lines were dropped since the start, because whoever should
/// have read them did not.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// How many log lines wait to be written now, and how many may.
#[must_use]
pub fn waiting() -> (usize, usize) {
    (WAITING.load(Ordering::Relaxed).min(QUEUE), QUEUE)
}

/// How to log.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to log; see [`check`].
    pub filter: String,
    /// Microseconds since the epoch, for the lines on standard error. The
    /// journal has its own clock; without one there the lines carry no time.
    pub now: Option<fn() -> i64>,
}

/// Logging is on while this lives; dropping it writes out what still waits.
#[derive(Debug)]
pub struct Guard {
    queue: SyncSender<Line>,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// A filter that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a level (off, error, warn, info, debug, trace) nor target=level")]
pub struct BadFilter(String);

/// Starts logging for the whole program, once: events from now on, and panics.
/// A filter that makes no sense is one warning, and the default is used.
///
/// # Errors
///
/// The thread could not be started.
pub fn init(options: &Options) -> io::Result<Guard> {
    let (filter, bad) = match parse(&options.filter) {
        Ok(filter) => (filter, None),
        Err(bad) => (EnvFilter::new(DEFAULT_FILTER), Some(bad)),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let (queue, lines) = sync_channel(QUEUE + FLUSHES);
    let mut output = Output::new(options.now);
    thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || output.serve(&lines))?;
    let intake = Intake {
        queue: queue.clone(),
        now: options.now,
    };
    // Only a test that starts twice can fail here; the first one stays.
    if Registry::default()
        .with(filter)
        .with(intake)
        .try_init()
        .is_ok()
    {
        log_panics(queue.clone());
    }
    if let Some(bad) = bad {
        tracing::warn!("log filter: {bad}; using {DEFAULT_FILTER}");
    }
    Ok(Guard {
        queue,
        filter: handle,
    })
}

/// Tells whether a text is a filter: levels, or `target=level`, separated by
/// commas; what is not named logs at `info`.
///
/// # Errors
///
/// Names the part that makes no sense.
pub fn check(filter: &str) -> Result<(), BadFilter> {
    parse(filter).map(drop)
}

fn parse(text: &str) -> Result<EnvFilter, BadFilter> {
    let mut directives = DEFAULT_FILTER.to_owned();
    for part in text.split(',').map(str::trim) {
        // The crate takes a bare unknown word for a target and then logs
        // nothing else: a misspelt level would silence the daemon.
        let (target, level) = part.split_once('=').unwrap_or(("any", part));
        let known = ["off", "error", "warn", "info", "debug", "trace"];
        if target.is_empty() || !known.contains(&level) {
            return Err(BadFilter(escape(part)));
        }
        directives.push(',');
        directives.push_str(part);
    }
    EnvFilter::builder()
        .parse(directives)
        .map_err(|_| BadFilter(escape(text)))
}

impl Guard {
    /// Logs by another filter from now on.
    ///
    /// # Errors
    ///
    /// The filter makes no sense; the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), BadFilter> {
        let new = parse(filter)?;
        self.filter
            .reload(new)
            .map_err(|_| BadFilter(escape(filter)))
    }

    /// Waits, but not for long, until what was logged before is written.
    pub fn flush(&self) {
        flush(&self.queue);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.flush();
    }
}

fn flush(queue: &SyncSender<Line>) {
    let (done, written) = sync_channel(1);
    if queue.try_send(Line::Flush(done)).is_ok() {
        // Whoever does not answer in time is stuck, and not worth waiting for.
        let _stuck = written.recv_timeout(FLUSH).is_err();
    }
}

/// A panic is logged like everything else, and its backtrace, if there is one,
/// line by line.
fn log_panics(queue: SyncSender<Line>) {
    panic::set_hook(Box::new(move |panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let said = panic.payload_as_str().unwrap_or("no message");
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        tracing::error!(
            message_id = id::PANIC,
            "panic in thread {name} at {place}: {said}"
        );
        for line in std::backtrace::Backtrace::capture().to_string().lines() {
            if line != "disabled backtrace" {
                tracing::error!("{line}");
            }
        }
        flush(&queue);
    }));
}

enum Line {
    Event(Box<Record>),
    Flush(SyncSender<()>),
}

/// An event, or what a span says, in owned values.
struct Record {
    metadata: &'static Metadata<'static>,
    fields: [Option<String>; FIELDS],
    /// Fields outside the list, as ` key=value`.
    others: String,
    at: Option<i64>,
}

impl Record {
    fn new(metadata: &'static Metadata<'static>) -> Self {
        Self {
            metadata,
            fields: [const { None }; FIELDS],
            others: String::new(),
            at: None,
        }
    }

    fn set(&mut self, field: &Field, value: &str) {
        if let Some(index) = CODE_FIELDS.iter().position(|name| *name == field.name()) {
            self.fields[index] = Some(escape(value));
        } else if self.others.len() < TEXT_MAX {
            self.others
                .push_str(&format!(" {}={}", field.name(), escape(value)));
        }
    }

    /// Takes from a span what the event itself does not say.
    fn inherit(&mut self, span: &Self) {
        for (mine, theirs) in self.fields.iter_mut().zip(&span.fields) {
            if mine.is_none() {
                mine.clone_from(theirs);
            }
        }
        self.others.push_str(&span.others);
    }

    /// Message and everything that is no journal field.
    fn text(&self) -> String {
        format!(
            "{}{}",
            self.fields[MESSAGE].as_deref().unwrap_or(""),
            self.others
        )
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        self.set(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, &format!("{value:?}"));
    }
}

/// Whether a terminal may be shown this character as it is.
#[must_use]
pub const fn is_plain(letter: char) -> bool {
    !matches!(letter,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        // Marks and overrides of direction, separators of lines.
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        // Invisible: tags, and the mark at the start of files.
        | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// One line of bounded length: no control character of a user's text may begin
/// a line or colour a terminal.
fn escape(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(TEXT_MAX));
    for c in text.chars() {
        if line.len() >= TEXT_MAX {
            line.push('…');
            break;
        }
        if is_plain(c) {
            line.push(c);
        } else {
            line.extend(c.escape_default());
        }
    }
    line
}

/// The end of the queue where events come in.
struct Intake {
    queue: SyncSender<Line>,
    now: Option<fn() -> i64>,
}

impl<S> Layer<S> for Intake
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut record = Record::new(attributes.metadata());
        attributes.record(&mut record);
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(record);
        }
    }

    fn on_record(&self, id: &Id, values: &SpanRecord<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(record) = span.extensions_mut().get_mut::<Record>()
        {
            values.record(record);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut record = Record::new(event.metadata());
        event.record(&mut record);
        record.at = self.now.map(|now| now());
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Record>() {
                record.inherit(fields);
            }
        }
        let room = WAITING.fetch_add(1, Ordering::Relaxed) < QUEUE;
        if !room || self.queue.try_send(Line::Event(Box::new(record))).is_err() {
            WAITING.fetch_sub(1, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Identities of the messages that the journal's catalog explains
/// (`journalctl -x`, `systemd/taskdaemon.catalog`). Never reused.
pub mod id {
    /// It serves.
    pub const READY: &str = "56f3257c569c450bb2cf5eed034bdae2";
    /// It stops.
    pub const STOPPING: &str = "fad7ff21448e419a9d465366790b2d77";
    /// A new configuration is in force.
    pub const RELOADED: &str = "8882240ff08e459fbc363672af8cb844";
    /// A new configuration was refused, the old one stays.
    pub const RELOAD_REFUSED: &str = "3071b2ccb608479bbd9af0a90f01b841";
    /// A task failed for good.
    pub const TASK_FAILED: &str = "e47a2f291696466396ffe3d4426c6bdc";
    /// An agent ended too often, or for good.
    pub const AGENT_FAILED: &str = "5416478b9487406ab7ae5a36a8d2e2ed";
    /// Nobody saw how an attempt ended.
    pub const ATTEMPT_LOST: &str = "818c2019a5544d4f98fba4798f19b8a0";
    /// A runner is there.
    pub const RUNNER_FOUND: &str = "063fcdb3829a4e6f9b36d2b894ec5d09";
    /// The runner is gone.
    pub const RUNNER_LOST: &str = "98353511b2e04cb9bbf252a1124e73be";
    /// A commit failed, its outcome is unknown.
    pub const STORE_FAILED: &str = "1b99d7fb79b64ae7b6455eb498b0bffa";
    /// The program has a mistake and a thread of it ended.
    pub const PANIC: &str = "7e24d7705e0e4f20a0b4d91fb614e6d3";
    /// Log lines were lost because nobody read them.
    pub const LINES_DROPPED: &str = "1c327dbc34ff4f879db4b1e55f2d58fb";
}
