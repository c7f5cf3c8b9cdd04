//! Whether a request is let through, and as whose: the head first, then who
//! asks. What asks without saying who may still see the page on which one does.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::clock;
use crate::model::origin::{self, Origin};

use super::identity::{self, Grant, Identity, Proof, Settings};
use super::lease::{self, Lapse};
use super::peer::Peer;
use super::problem::Problem;
use super::sessions::{self, Sessions};
use super::{Shared, head};

/// A session that a request belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct InSession(pub(super) sessions::Id);

/// A connection, as far as it says who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'c> {
    pub(super) peer: Peer,
    /// The names in the certificate that the client has shown.
    pub(super) names: Option<&'c Arc<[String]>>,
}

/// A request that may be answered, and what ends its answer early.
pub(super) type Admitted<B> = (Request<B>, Option<Lapse>);

/// Checks the head and finds out who asks.
pub(super) fn admit<B>(
    shared: &Arc<Shared>,
    source: Source<'_>,
    request: Request<B>,
    id: &HeaderValue,
) -> Result<Admitted<B>, Problem> {
    let (mut parts, body) = request.into_parts();
    let Source { peer, names } = source;
    let settings = Arc::clone(&shared.settings.borrow());
    let is_page = shared.is_page(parts.uri.path());
    head::check(&parts, peer, &settings.options.names, is_page)?;
    if shared.public.contains(&parts.uri.path()) {
        if let Some(known) = identity::known(shared, peer, names, &parts.headers) {
            parts.extensions.insert(known);
        }
        return Ok((Request::from_parts(parts, body), None));
    }
    if let (Peer::Tcp(_), Some(wait)) = (peer, shared.attempts.wait(peer.key())) {
        let detail = "too many failed proofs of identity from this address; wait a minute";
        let status = StatusCode::TOO_MANY_REQUESTS;
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
        return Err(Problem::new(status, "too_many_failures", detail).after(seconds));
    }
    let origin = Origin {
        pid: None,
        request: origin::Request::new(id.to_str().unwrap_or_default()),
        place: None,
    };
    parts.extensions.insert(origin);
    parts.extensions.insert(peer);
    let says_who = matches!(peer, Peer::Unix { .. })
        || names.is_some()
        || parts.headers.contains_key(AUTHORIZATION);
    let session = shared.sessions.of(&parts.headers);
    let session = session.filter(|_| !says_who && (is_page || parts.method == Method::GET));
    let lapse = if let Some((id, token)) = session {
        let found = settings.vouch(Proof::Token(token), origin, clock::now());
        let session = found.ok().map(|found| (found, id));
        if session.is_none() && !is_page {
            return Err(unknown());
        }
        session.and_then(|(found, id)| {
            parts.extensions.insert(InSession(id));
            let lapse = enter(shared, &mut parts, found)?;
            let over = Sessions::over(shared.sessions.watch(), id);
            let either = async move {
                tokio::select! { () = lapse => {} () = over => {} }
            };
            Some(Box::pin(either) as Lapse)
        })
    } else if says_who || !is_page {
        let found = identify(shared, &settings, source, &parts, origin)?;
        enter(shared, &mut parts, found)
    } else {
        None
    };
    Ok((Request::from_parts(parts, body), lapse))
}

fn unknown() -> Problem {
    let detail = "the session's token is not good any more: sign in again";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

/// Writes down for the handlers who asks, and watches what that rests on.
fn enter(shared: &Shared, parts: &mut Parts, found: Identity) -> Option<Lapse> {
    parts.extensions.insert(found.caller);
    parts.extensions.insert(found.standing);
    let (proof, grant): (Proof, Arc<Grant>) = found.proof?;
    Some(lease::watch(shared.settings.clone(), proof, grant))
}

fn identify(
    shared: &Shared,
    settings: &Settings,
    Source { peer, names }: Source<'_>,
    parts: &Parts,
    origin: Origin,
) -> Result<Identity, Problem> {
    let found = settings.identify(peer, names, &parts.headers, origin, clock::now());
    found.inspect_err(|problem| failed(shared, peer, origin, &problem.detail))
}

/// Counts a failed proof of identity, and puts it on the record.
pub(super) fn failed(shared: &Shared, peer: Peer, origin: Origin, why: &str) {
    shared.attempts.fail(peer.key());
    let why = json!({ "why": why, "address": peer.address() });
    identity::deny(shared, None, origin, &why);
}
