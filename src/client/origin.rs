//! The name of a task's own request, and its place in a trace, go along with what
//! the task asks for, so that all that came of one request is found by it.

use std::env;

use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};

use crate::model::trace::{Context, state};

/// The variable by which a task is told the name.
const VARIABLE: &str = "TASKDAEMON_REQUEST";
const HEADER: HeaderName = HeaderName::from_static("x-request-id");

type Header = (HeaderName, HeaderValue);

/// The headers that say it: the name, inside of a task that has one, and the
/// trace for what changes something.
pub(super) fn headers(method: &Method) -> Vec<Header> {
    let name = variable(VARIABLE).and_then(|name| header(HEADER, name));
    let trace = (*method != Method::GET).then(trace).unwrap_or_default();
    name.into_iter().chain(trace).collect()
}

/// The headers of the place in a trace that `TRACEPARENT` and `TRACESTATE` name,
/// inside of whatever has set them.
#[must_use]
pub fn trace() -> Vec<Header> {
    let parent = variable("TRACEPARENT");
    let Some(context) = parent.and_then(|parent| Context::parse(&parent)) else {
        return Vec::new();
    };
    let text = variable("TRACESTATE").unwrap_or_default();
    let text = Some(state(&text)).filter(|text| !text.is_empty());
    let parent = header(HeaderName::from_static("traceparent"), context.to_string());
    let state = text.and_then(|text| header(HeaderName::from_static("tracestate"), text.into()));
    parent.into_iter().chain(state).collect()
}

fn header(name: HeaderName, value: String) -> Option<Header> {
    Some((name, HeaderValue::try_from(value).ok()?))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}
