//! Where bytes that others made are read: one entry for each surface, without
//! a daemon around it, for tests that feed it with anything.
//!
//! An entry may refuse what it gets in any way but a panic, and takes time and
//! memory in proportion to it.

use crate::model::capture::Decoder;
use crate::model::notice;
use crate::model::quantity::{ByteSize, parse_duration};
use crate::model::schedule::When;
use crate::model::schedule::zone::Zone;
use crate::model::time::Time;
use crate::model::trace::{Context, state};
use crate::{api, cli, client, config, runner};

/// A surface: its name, and what reads the bytes.
pub type Surface = (&'static str, fn(&[u8]));

/// Every surface.
pub const ALL: [Surface; 12] = [
    ("submit", submit),
    ("job_file", job_file),
    ("cron", when),
    ("calendar", when),
    ("quantity", quantity),
    ("config", configuration),
    ("runner_message", runner_message),
    ("notice", notification),
    ("capture", capture),
    ("event_stream", event_stream),
    ("form", form),
    ("trace", trace),
];

/// The time that counts as now: 2023-11-14T22:13:20Z.
const NOW: Time = Time::from_micros(1_700_000_000_000_000);

fn text(bytes: &[u8], read: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
}

/// The body of a submit.
fn submit(bytes: &[u8]) {
    drop(api::read_submit(bytes, NOW));
}

/// The file of `submit --file`, as TOML, YAML and JSON lines.
fn job_file(bytes: &[u8]) {
    for name in ["x.toml", "x.yaml", "x.jsonl"] {
        drop(cli::count_jobs(name.as_ref(), bytes));
    }
}

/// A cron entry, a calendar expression or an interval. What is understood is
/// understood again in the form in which it is shown, and fires at the same
/// times.
fn when(bytes: &[u8]) {
    text(bytes, |text| {
        let Ok(when) = text.parse::<When>() else {
            return;
        };
        let Ok(zone) = "Europe/Berlin".parse::<Zone>() else {
            return;
        };
        let again = when.to_string().parse::<When>();
        let mut at = NOW;
        for _ in 0..3 {
            let next = when.next(&zone, at);
            if let Ok(again) = &again {
                assert_eq!(again.next(&zone, at), next, "{text:?} is shown as {when}");
            }
            let Some(next) = next else { return };
            assert!(next > at, "{text:?} does not go on");
            at = next;
        }
    });
}

/// A duration or a size.
fn quantity(bytes: &[u8]) {
    text(bytes, |text| {
        drop(parse_duration(text));
        drop(text.parse::<ByteSize>());
    });
}

/// A configuration file, as TOML and as YAML.
fn configuration(bytes: &[u8]) {
    text(bytes, |text| {
        drop(config::text::read("x.toml".as_ref(), text));
        drop(config::text::read("x.yml".as_ref(), text));
    });
}

/// What daemon and runner say to each other.
fn runner_message(bytes: &[u8]) {
    drop(runner::read_messages(bytes));
}

/// A datagram at a task's notify socket.
fn notification(bytes: &[u8]) {
    let notice = notice::parse(bytes);
    drop(notice.bounded());
}

/// A capture file, in pieces.
fn capture(bytes: &[u8]) {
    let mut decoder = Decoder::new();
    for piece in bytes.chunks(7) {
        decoder.push(piece);
        while let Ok(Some(_)) = decoder.next_record() {}
    }
}

/// What a daemon sends to who follows.
fn event_stream(bytes: &[u8]) {
    drop(client::read_events(bytes));
}

/// A form of a web page. What is understood is understood again when it is
/// written anew.
fn form(bytes: &[u8]) {
    text(bytes, |text| {
        let Some(fields) = api::pairs::parse(text) else {
            return;
        };
        let again: Vec<_> = fields
            .iter()
            .map(|(name, value)| {
                format!("{}={}", api::pairs::encode(name), api::pairs::encode(value))
            })
            .collect();
        assert_eq!(
            api::pairs::parse(&again.join("&")),
            Some(fields),
            "{text:?}"
        );
    });
}

/// A `traceparent`, and behind a line break a `tracestate`. What is understood is
/// understood again as it is handed on.
fn trace(bytes: &[u8]) {
    text(bytes, |text| {
        let (parent, others) = text.split_once('\n').unwrap_or((text, ""));
        let others = state(others);
        assert_eq!(state(others), others, "{text:?}");
        if let Some(context) = Context::parse(parent) {
            let again = Context::parse(&context.to_string());
            assert_eq!(again, Some(context), "{text:?}");
        }
    });
}
