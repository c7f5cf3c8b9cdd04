//! The name of a task's own request, and its place in a trace, go along with what
//! the task asks for, so that all that came of one request is found by it.

use std::env;

use hyper::Method;
use hyper::header::{HeaderName, HeaderValue};

use crate::model::trace::{Context, state};

/// The variable by which a task is told the name.
const VARIABLE: &str = "TASKDAEMON_REQUEST";
const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The headers that say it: the name, inside of a task that has one, and for
/// what changes something the trace that `TRACEPARENT` names, inside of whatever
/// has set it.
pub(super) fn headers(method: &Method) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    let mut say = |name, value: String| {
        headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
    };
    if let Some(name) = variable(VARIABLE) {
        say(HEADER, name);
    }
    let parent = variable("TRACEPARENT").filter(|_| *method != Method::GET);
    if let Some(context) = parent.and_then(|parent| Context::parse(&parent)) {
        say(HeaderName::from_static("traceparent"), context.to_string());
        if let Some(text) = variable("TRACESTATE") {
            say(
                HeaderName::from_static("tracestate"),
                state(&text).to_owned(),
            );
        }
    }
    headers
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}
