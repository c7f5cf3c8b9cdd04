//! The name of a task's own request goes along with what the task asks for, so that
//! all that came of one request is found by it.

use std::env;

use hyper::header::{HeaderName, HeaderValue};

/// The variable by which a task is told the name.
const VARIABLE: &str = "TASKDAEMON_REQUEST";
const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The header that says it, inside of a task that has such a name.
pub(super) fn header() -> Option<(HeaderName, HeaderValue)> {
    let name = env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
    Some((HEADER, HeaderValue::try_from(name).ok()?))
}
