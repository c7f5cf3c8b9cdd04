//! Section `[traces]`. It is declared here because the room that passes spans on
//! is above this one.

use std::path::PathBuf;

use crate::model::hook::check_url;
use crate::model::setting::Kind::Restart;
use crate::model::setting::settings;
use crate::model::trace::Share;

use super::check::{Found, found};
use super::llm::is_in_the_clear;

settings! {
    /// Traces, section `[traces]`: one from a request to the attempts of the tasks it made, for a
    /// collector of OpenTelemetry.
    pub struct Options {
        /// Where a collector takes OTLP over HTTP: the address that `/v1/traces` is added to.
        /// Absent: no spans are made.
        endpoint: Option<String> = None, Restart, "\"http://127.0.0.1:4318\"";
        /// The file with headers that go to it, one `name: value` in a line, such as its key; open
        /// to the daemon's user alone. Absent: the credential `traces-headers` of the service,
        /// where it has one.
        headers_file: Option<PathBuf> = None, Restart, "\"/etc/taskdaemon/traces-headers\"";
        /// Share of new traces that are kept, from 0 to 1. Of a trace that a request belongs to,
        /// its caller has decided.
        sample: Share = Share::ALL, Restart;
    }
}

impl Options {
    /// Whether headers, which may be secret, may go to the collector.
    ///
    /// # Errors
    /// Why not.
    pub fn may_have_headers(&self) -> Result<(), &'static str> {
        match &self.endpoint {
            Some(endpoint) if is_in_the_clear(endpoint) => Err(
                "headers would go to another host without TLS, for everybody on the way to read: \
                 write https://",
            ),
            Some(_) | None => Ok(()),
        }
    }
}

/// Refuses settings that cannot be obeyed, or that no one can mean.
pub(super) fn check(traces: &Options) -> Result<(), Found> {
    const ENDPOINT: &str = "traces.endpoint";
    const FILE: &str = "traces.headers_file";
    let file = traces.headers_file.as_ref();
    if file.is_some_and(|path| !path.is_absolute()) {
        return found(FILE, "must be an absolute path");
    }
    let Some(endpoint) = &traces.endpoint else {
        let why = format!("there is no {ENDPOINT} that they could go to");
        return file.map_or(Ok(()), |_| found(FILE, why));
    };
    check_url(endpoint).or_else(|why| found(ENDPOINT, why))?;
    if endpoint.contains('?') {
        return found(ENDPOINT, "has a query; `/v1/traces` is added to its end");
    }
    match file {
        Some(_) => traces
            .may_have_headers()
            .or_else(|why| found(ENDPOINT, why)),
        None => Ok(()),
    }
}
