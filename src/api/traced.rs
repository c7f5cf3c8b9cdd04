//! Requests that change something, as a part of the trace in which they are
//! asked for. What they make goes on from there, also where nobody wants spans
//! of this daemon: then it stands where the request does.

use std::sync::Arc;

use axum::extract::Request;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};

use crate::clock;
use crate::engine::command::Caller;
use crate::engine::spans::Intake;
use crate::model::origin::Origin;
use crate::model::span::{Kind, Span};
use crate::model::trace::{Context, Trace, state};

use super::Shared;
use super::peer::Peer;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A route of which each request is traced.
#[derive(Debug, Clone)]
pub(super) struct Traced {
    pub(super) shared: Arc<Shared>,
    pub(super) method: &'static str,
    pub(super) route: &'static str,
}

/// The span of a request that is being answered.
pub(super) struct Open {
    intake: Intake,
    sampled: bool,
    span: Span,
}

impl Open {
    /// Hands it in, once the request was answered like this.
    pub(super) fn end(self, status: StatusCode) {
        if !self.sampled {
            return;
        }
        let failed = status.is_server_error().then(|| status.as_str().to_owned());
        let span = self
            .span
            .with("http.response.status_code", u32::from(status.as_u16()))
            .with_any("error.type", failed.as_deref());
        self.intake.take(Span {
            ended: clock::now().max(span.begun),
            fault: failed,
            ..span
        });
    }
}

/// Tells whoever answers a request where in a trace it stands.
fn tell(request: &mut Request, trace: Trace) {
    let extensions = request.extensions_mut();
    if let Some(caller) = extensions.get_mut::<Caller>() {
        caller.origin.place = trace.parent.map(|parent| trace.at(parent));
    }
    extensions.insert(trace);
}

/// The trace that a request names, by one `traceparent` that is none but that.
fn named(headers: &HeaderMap) -> Option<Trace> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = parents.next()?.to_str().ok()?;
    let context = Context::parse(parent).filter(|_| parents.next().is_none())?;
    let states = headers.get_all(TRACESTATE).iter();
    let states: Vec<_> = states.filter_map(|state| state.to_str().ok()).collect();
    Some(Trace::of(context, state(&states.join(","))))
}

impl Traced {
    /// Tells a request's handler its [`Trace`]. There is a span where somebody
    /// wants any.
    pub(super) fn begin(&self, request: &mut Request) -> Option<Open> {
        let named = named(request.headers());
        let Some(intake) = self.shared.handle.intake() else {
            if let Some(trace) = named {
                tell(request, trace);
            }
            return None;
        };
        let (new, id) = intake.begin();
        let trace = named.unwrap_or(new);
        tell(request, trace.below(Some(id)));
        let ids = (id, trace.parent);
        let what = (Kind::Server, format!("{} {}", self.method, self.route));
        let begun = clock::now();
        let span = Span::new(&trace, ids, what, (begun, begun));
        Some(Open {
            intake: intake.clone(),
            sampled: trace.is_sampled(),
            span: self.about(span, request),
        })
    }

    /// What a request's head tells, in the words of OpenTelemetry's conventions.
    fn about(&self, span: Span, request: &Request) -> Span {
        let extensions = request.extensions();
        let peer = extensions.get::<Peer>();
        let (transport, address) = match peer {
            Some(Peer::Tcp(address)) => ("tcp", Some(address.to_string())),
            Some(Peer::Unix { .. }) | None => ("unix", None),
        };
        let encrypted = transport == "tcp" && self.shared.settings.borrow().tls.is_some();
        let name = extensions.get::<Origin>();
        let name = name.and_then(|origin| origin.request.text().map(str::to_owned));
        let uid = extensions.get::<Caller>().map(|caller| caller.uid);
        span.with("http.request.method", self.method)
            .with("http.route", self.route)
            .with("url.path", request.uri().path())
            .with("url.scheme", if encrypted { "https" } else { "http" })
            .with("network.transport", transport)
            .with_any("client.address", address)
            .with_any("taskdaemon.request", name)
            .with_any("taskdaemon.caller", uid)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_request_names_one_trace_or_none() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = |lines: &[(HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_str(value).expect("a value"));
            }
            named(&headers).map(|trace| trace.state)
        };
        let parent = (TRACEPARENT, good);
        let state = |text| (TRACESTATE, text);
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[(TRACEPARENT, "00-4bf9")]), None);
        assert_eq!(read(&[parent.clone(), parent.clone()]), None);
        assert_eq!(read(&[state("a=1")]), None);
        assert_eq!(read(std::slice::from_ref(&parent)).as_deref(), Some(""));
        let both = read(&[parent.clone(), state("a=1"), state("b=2")]);
        assert_eq!(both.as_deref(), Some("a=1,b=2"));
        let bad = read(&[parent, state("no entry")]);
        assert_eq!(bad.as_deref(), Some(""));
    }
}
