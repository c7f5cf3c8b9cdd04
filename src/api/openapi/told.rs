//! What is told of a route: what it is for, what it takes and what it sends.

use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::api::json::Sent;
use crate::api::problem::MEDIA_TYPE;

use super::schemas::Kind;
use super::values::DURATION;

/// The values that a parameter may have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values {
    /// Any text.
    Text,
    /// A number from the first to the second.
    Number(u64, u64),
    /// A duration with its unit.
    Duration,
    /// A time with an offset.
    Moment,
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A text of this form.
    Form(&'static str),
}

impl Values {
    pub(super) fn schema(self) -> Value {
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Number(least, most) => {
                json!({ "type": "integer", "minimum": least, "maximum": most })
            }
            Self::Duration => json!({ "type": "string", "minLength": 2, "pattern": DURATION }),
            Self::Moment => json!({ "type": "string", "format": "date-time" }),
            Self::Switch => json!({ "type": "boolean", "default": false }),
            Self::Words(words) => json!({ "type": "string", "enum": words }),
            Self::Form(pattern) => json!({ "type": "string", "pattern": pattern }),
        }
    }
}

/// A parameter, behind `?` or among the headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) values: Values,
    pub(super) what: &'static str,
}

/// A parameter of this name.
pub(super) const fn one(name: &'static str, values: Values, what: &'static str) -> Parameter {
    Parameter { name, values, what }
}

/// In which form an answer comes.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// JSON of a type.
    Json(Kind),
    /// JSON that is a schema itself.
    Document,
    /// Text for Prometheus.
    Figures,
    /// Bytes as a task wrote them.
    Bytes,
    /// Server-sent events.
    Events,
}

impl Form {
    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Json(_) | Self::Document => "application/json",
            Self::Figures => "text/plain",
            Self::Bytes => "application/octet-stream",
            Self::Events => "text/event-stream",
        }
    }
}

/// An answer that is no refusal, or one that is more than a problem.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) what: &'static str,
    pub(super) form: Form,
}

/// What is told of a route.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// What programs call it.
    pub(super) id: &'static str,
    pub(super) what: &'static str,
    pub(super) query: Vec<Parameter>,
    pub(super) headers: Vec<Parameter>,
    /// The words that `{verb}` in its path stands for.
    pub(super) verbs: &'static [&'static str],
    pub(super) body: Option<Kind>,
    pub(super) answers: Vec<Answer>,
}

/// A route, by its method and path, its name and what it is for.
pub(super) fn told(route: &'static str, id: &'static str, what: &'static str) -> Told {
    let (method, path) = route.split_once(' ').unwrap_or((route, ""));
    Told {
        method,
        path,
        id,
        what,
        query: Vec::new(),
        headers: Vec::new(),
        verbs: &[],
        body: None,
        answers: Vec::new(),
    }
}

impl Told {
    pub(super) fn query<const N: usize>(mut self, query: [Parameter; N]) -> Self {
        self.query = query.into();
        self
    }

    pub(super) fn headers<const N: usize>(mut self, headers: [Parameter; N]) -> Self {
        self.headers = headers.into();
        self
    }

    pub(super) const fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(Kind::of::<T>());
        self
    }

    pub(super) fn sends<T: JsonSchema>(self, status: u16, what: &'static str) -> Self {
        self.sends_as(status, what, Form::Json(Kind::of::<T>()))
    }

    pub(super) fn sends_as(mut self, status: u16, what: &'static str, form: Form) -> Self {
        self.answers.push(Answer { status, what, form });
        self
    }

    /// Whether an answer is one that was told of.
    pub(super) fn includes<B>(&self, response: &hyper::Response<B>) -> bool {
        let status = response.status();
        let sent = response.extensions().get::<Sent>();
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or("");
        if sent.is_none() && status >= StatusCode::BAD_REQUEST {
            return kind == MEDIA_TYPE;
        }
        self.answers.iter().any(|answer| {
            let same = match (answer.form, sent) {
                (Form::Json(form), Some(sent)) => form.name() == sent.0,
                (Form::Json(_), None) | (_, Some(_)) => false,
                (form, None) => form.media_type() == kind,
            };
            same && answer.status == status.as_u16()
        })
    }
}
