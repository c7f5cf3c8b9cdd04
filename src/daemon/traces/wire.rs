//! Spans in the messages of OTLP (`opentelemetry-proto` 1, `trace/v1`), as far
//! as we have something to say in them.

use prost::{Message, Oneof};

use crate::model::span::{Fact, Kind, Span as Told};
use crate::model::time::Time;
use crate::model::trace::SpanId;

/// What is sent: `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Export {
    /// By who made them.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// The spans of one process.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// By the part of it that made them.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

/// A process.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// What is known of it.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// The spans of one part.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// The spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// A part of a process.
#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// A span.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// Its trace, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// Its number, 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// What others want passed on.
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// The span above it; empty where there is none.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "5")]
    pub name: String,
    /// What it is to the one above: 1 internal, 2 server, 3 client, 5 consumer.
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// When it began, in nanoseconds since the epoch.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// When it was over.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// What is known of it.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// What happened in it.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
    /// How it went.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// The flags of its trace.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// Something that happened in a span.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// When.
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    /// What.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// How a span went.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// Why it failed, where it did.
    #[prost(string, tag = "2")]
    pub message: String,
    /// 0 where nothing is said, 2 where it failed.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// Something that is known.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// What it is called.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What it is.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// A value.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// Of its type.
    #[prost(oneof = "Value", tags = "1, 3, 4")]
    pub value: Option<Value>,
}

/// A value of its type.
#[derive(Clone, PartialEq, Oneof)]
pub enum Value {
    /// A text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Number(i64),
    /// Another number.
    #[prost(double, tag = "4")]
    Double(f64),
}

/// What is answered: `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Taken {
    /// What of it was not taken, though the rest was.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<Refused>,
}

/// What was not taken.
#[derive(Clone, PartialEq, Message)]
pub struct Refused {
    /// So many spans.
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// The message of these spans, made by who has these attributes.
#[must_use]
pub fn export(resource: &Resource, spans: &[Told]) -> Export {
    let scope = Scope {
        name: "taskdaemon".to_owned(),
        version: crate::VERSION.to_owned(),
    };
    Export {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: spans.iter().map(Span::from).collect(),
            }],
        }],
    }
}

/// A text that is known.
#[must_use]
pub fn text(key: &str, value: impl Into<String>) -> KeyValue {
    of(key, Value::Text(value.into()))
}

fn of(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

/// Before the epoch there is nothing.
fn nanos(time: Time) -> u64 {
    u64::try_from(time.micros())
        .unwrap_or(0)
        .saturating_mul(1_000)
}

/// Numbers are told as doubles, whose last digits go above 2^53 microseconds:
/// 285 years.
#[expect(
    clippy::cast_precision_loss,
    reason = "what is read here is plotted, not added up"
)]
fn fact((key, fact): &(&'static str, Fact)) -> KeyValue {
    let value = match fact {
        Fact::Text(text) => Value::Text(text.clone()),
        Fact::Number(number) => Value::Number(*number),
        Fact::Micros(micros) => Value::Double(*micros as f64 / 1e6),
    };
    of(key, value)
}

impl From<&Told> for Span {
    fn from(told: &Told) -> Self {
        let moment = |(name, at): &(&'static str, Time)| Event {
            time_unix_nano: nanos(*at),
            name: (*name).to_owned(),
        };
        let status = told.fault.as_ref().map(|fault| Status {
            message: fault.clone(),
            code: 2,
        });
        let parent = told.parent.map(SpanId::bytes);
        Self {
            trace_id: told.trace.bytes().to_vec(),
            span_id: told.id.bytes().to_vec(),
            trace_state: told.state.clone(),
            parent_span_id: parent.map(Vec::from).unwrap_or_default(),
            name: told.name.clone(),
            kind: match told.kind {
                Kind::Internal => 1,
                Kind::Server => 2,
                Kind::Client => 3,
                Kind::Consumer => 5,
            },
            start_time_unix_nano: nanos(told.begun),
            end_time_unix_nano: nanos(told.ended),
            attributes: told.facts.iter().map(fact).collect(),
            events: told.moments.iter().map(moment).collect(),
            status,
            flags: told.flags.into(),
        }
    }
}
