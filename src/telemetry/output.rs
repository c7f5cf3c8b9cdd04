//! The end of the log queue where lines go out: the journal, or standard error.
//!
//! Owned by one thread, which may be stuck here as long as journald or the
//! reader of standard error likes. tracing-journald owns the protocol; it is
//! handed one record at a time, with the metadata of the original event and
//! the closed list of fields. What a line says is decided in `telemetry`.

use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use tracing::field::{Field, FieldSet, Value};
use tracing::{Event, Level, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;

use super::{
    CODE_FIELDS, DROPPED, FIELDS, Line, MESSAGE, MESSAGE_ID, Record, WAITING, dropped, id,
};

/// Names in the journal, in the order of [`CODE_FIELDS`].
const JOURNAL_FIELDS: [&str; FIELDS] = [
    "MESSAGE",
    "MESSAGE_ID",
    "TASKDAEMON_TASK",
    "TASKDAEMON_ATTEMPT",
    "TASKDAEMON_QUEUE",
    "TASKDAEMON_REQUEST",
    "TRACE_ID",
    "GEN_AI_OPERATION_NAME",
    "GEN_AI_PROVIDER_NAME",
    "GEN_AI_REQUEST_MODEL",
    "GEN_AI_USAGE_INPUT_TOKENS",
    "GEN_AI_USAGE_OUTPUT_TOKENS",
    "ERROR_TYPE",
];
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The end of the queue where lines go out; owned by the thread.
pub(super) struct Output {
    /// Whether the journal was asked for: standard error goes there as well.
    journal: bool,
    /// Tells whether journald is there, which tracing-journald keeps to
    /// itself: connecting a datagram socket fails when nobody is bound.
    probe: Option<UnixDatagram>,
    writer: Option<Writer>,
    colour: bool,
    now: bool,
    told: u64,
}

/// tracing-journald's layer on a registry of its own, so that it can be given
/// events one by one.
type Writer = tracing_subscriber::layer::Layered<tracing_journald::Layer, Registry>;

impl Output {
    pub(super) fn new(now: Option<fn() -> i64>) -> Self {
        Self {
            journal: libsystemd::logging::connected_to_journal(),
            probe: UnixDatagram::unbound().ok(),
            writer: None,
            colour: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            now: now.is_some(),
            told: 0,
        }
    }

    pub(super) fn serve(&mut self, lines: &Receiver<Line>) {
        while let Ok(line) = lines.recv() {
            match line {
                Line::Event(record) => {
                    WAITING.fetch_sub(1, Ordering::Relaxed);
                    self.write(&record);
                }
                // The one who asked may have given up; both are fine.
                Line::Flush(done) => drop(done.try_send(())),
            }
            let lost = dropped();
            if lost > self.told {
                // This goes through the queue like every other line.
                tracing::warn!(
                    message_id = id::LINES_DROPPED,
                    "{} log lines dropped",
                    lost - self.told
                );
                self.told = lost;
            }
        }
    }

    fn write(&mut self, record: &Record) {
        if self.journal && self.send_to_journal(record) {
            return;
        }
        let line = self.line(record);
        // A closed or full standard error is no reason to stop working.
        if io::stderr().lock().write_all(line.as_bytes()).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            self.told += 1;
        }
    }

    fn send_to_journal(&mut self, record: &Record) -> bool {
        let there = self
            .probe
            .as_ref()
            .is_none_or(|probe| probe.connect(JOURNAL).is_ok());
        if !there {
            return false;
        }
        if self.writer.is_none() {
            self.writer = open_journal();
        }
        let Some(writer) = &self.writer else {
            return false;
        };
        // Metadata of the original event, so that level, target and place in
        // the code are right; fields of ours, so that the journal's are.
        let names = FieldSet::new(&JOURNAL_FIELDS, record.metadata.callsite());
        let text = record.text();
        let mut fields = Vec::with_capacity(FIELDS);
        for (index, field) in names.iter().enumerate() {
            let value = if index == MESSAGE {
                Some(&text)
            } else {
                record.fields[index].as_ref()
            };
            fields.push((field, value));
        }
        let Ok(values) = <[(Field, Option<&String>); FIELDS]>::try_from(fields) else {
            return false;
        };
        let values = values
            .each_ref()
            .map(|(field, value)| (field, value.map(|value| value as &dyn Value)));
        let values = names.value_set(&values);
        writer.event(&Event::new(record.metadata, &values));
        true
    }

    /// A line for people: time, level, text, and the fields that are set.
    fn line(&self, record: &Record) -> String {
        let mut line = String::new();
        if self.now
            && let Some(at) = record
                .at
                .and_then(|at| jiff::Timestamp::from_microsecond(at).ok())
        {
            line.push_str(&format!("{at:.3} "));
        }
        let (word, colour) = match *record.metadata.level() {
            Level::ERROR => ("ERROR", "31"),
            Level::WARN => ("WARN", "33"),
            Level::INFO => ("INFO", "32"),
            Level::DEBUG => ("DEBUG", "34"),
            Level::TRACE => ("TRACE", "35"),
        };
        if self.colour {
            line.push_str(&format!("\x1b[{colour}m{word:5}\x1b[0m "));
        } else {
            line.push_str(&format!("{word:5} "));
        }
        line.push_str(&record.text());
        for (name, value) in CODE_FIELDS.iter().zip(&record.fields).skip(MESSAGE_ID + 1) {
            if let Some(value) = value {
                line.push_str(&format!(" {name}={value}"));
            }
        }
        line.push('\n');
        line
    }
}

fn open_journal() -> Option<Writer> {
    let layer = tracing_journald::layer()
        .ok()?
        .with_field_prefix(None)
        .with_syslog_identifier("taskdaemon".to_owned())
        // The crate's own choice makes `journalctl -p info` show debug lines.
        .with_priority_mappings(PriorityMappings {
            info: Priority::Informational,
            debug: Priority::Debug,
            ..PriorityMappings::new()
        });
    Some(Registry::default().with(layer))
}
