//! Section `[traces]`. It is declared here because the room that passes spans on
//! is above this one.

use std::path::PathBuf;

use crate::model::hook::check_url;
use crate::model::setting::Kind::Restart;
use crate::model::setting::settings;
use crate::model::trace::Share;

use super::check::{Found, found, word};
use super::llm::is_in_the_clear;

settings! {
    /// Traces, section `[traces]`: one from a request to the attempts of the tasks it made, for a
    /// collector of OpenTelemetry.
    pub struct Options {
        /// Where a collector takes OTLP over HTTP: the address that `/v1/traces` is added to.
        /// Absent: no spans are made.
        endpoint: Option<String> = None, Restart, "\"http://127.0.0.1:4318\"";
        /// The file with headers that go to it, one `name: value` in a line, such as its key; open
        /// to the daemon's user alone.
        headers_file: Option<PathBuf> = None, Restart, "\"/etc/taskdaemon/traces-headers\"";
        /// A credential of the service that holds them instead.
        headers_credential: Option<String> = None, Restart, "\"traces-headers\"";
        /// Share of new traces that are kept, from 0 to 1. Of a trace that a request belongs to,
        /// its caller has decided.
        sample: Share = Share::ALL, Restart;
    }
}

/// Refuses settings that cannot be obeyed, or that no one can mean.
pub(super) fn check(traces: &Options) -> Result<(), Found> {
    const ENDPOINT: &str = "traces.endpoint";
    const FILE: &str = "traces.headers_file";
    const CREDENTIAL: &str = "traces.headers_credential";
    let (file, credential) = (&traces.headers_file, &traces.headers_credential);
    if file.is_some() && credential.is_some() {
        return found(FILE, format!("cannot be combined with {CREDENTIAL}"));
    }
    if file.as_ref().is_some_and(|path| !path.is_absolute()) {
        return found(FILE, "must be an absolute path");
    }
    if credential.as_ref().is_some_and(|name| !word(name)) {
        return found(CREDENTIAL, "must be the name of a credential");
    }
    let keyed = match (file, credential) {
        (Some(_), _) => Some(FILE),
        (None, Some(_)) => Some(CREDENTIAL),
        (None, None) => None,
    };
    let Some(endpoint) = &traces.endpoint else {
        let why = format!("there is no {ENDPOINT} that they could go to");
        return keyed.map_or(Ok(()), |key| found(key, why));
    };
    check_url(endpoint).or_else(|why| found(ENDPOINT, why))?;
    if endpoint.contains('?') {
        return found(ENDPOINT, "has a query; `/v1/traces` is added to its end");
    }
    if keyed.is_some() && is_in_the_clear(endpoint) {
        let why = "the headers would go to another host without TLS, for everybody on the way to \
                   read: write https://";
        return found(ENDPOINT, why);
    }
    Ok(())
}
