//! The way of web pages into the API.
//!
//! A page asks the same routes as everybody else, in this process and as the one
//! who looks at it, so that there is no second set of rules. What pages look like
//! is their own business: they are given to the server as one function.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue, RANGE};
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

use crate::clock;
use crate::engine::command::Caller;
use crate::model::origin::Origin;
use crate::model::role::Role;

use super::gate::{self, InSession};
use super::identity::{Proof, Standing};
use super::peer::Peer;
use super::problem::{Problem, Wire};
use super::{Shared, access, body, pairs};

/// Media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";
/// Largest answer of a route that a page is made of.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// An answer under way.
pub type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Pages beside the API.
#[derive(Debug, Clone, Copy)]
pub struct Pages {
    /// Whether a path is one of theirs.
    pub hold: fn(&str) -> bool,
    /// Answers a request for one.
    pub answer: fn(Visit) -> Answering,
}

/// Who looks at a page.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    /// The user id.
    pub uid: u32,
    /// What it may do at most.
    pub role: Role,
    /// Whether it has signed in, and so can sign out.
    pub in_session: bool,
    caller: Caller,
    standing: Standing,
}

/// A request for a page.
#[derive(Debug)]
pub struct Visit {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// What stands behind `?`.
    pub query: Vec<(String, String)>,
    /// The fields of a form that was sent.
    pub form: Vec<(String, String)>,
    /// Who asks; nobody that is known, without.
    pub who: Option<Who>,
    session: Option<InSession>,
    peer: Peer,
    origin: Origin,
    shared: Arc<Shared>,
    routes: Router,
}

impl Visit {
    /// Asks a route of the API as the one who looks at the page.
    ///
    /// # Errors
    /// The route's own refusal.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Vec<u8>, Wire> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        self.send(path, request).await
    }

    /// The last bytes of what a route has.
    ///
    /// # Errors
    /// The route's own refusal.
    pub async fn tail(&self, path: &str, most: u32) -> Result<Vec<u8>, Wire> {
        let mut request = Request::new(Body::empty());
        if let Ok(range) = HeaderValue::try_from(format!("bytes=-{most}")) {
            request.headers_mut().insert(RANGE, range);
        }
        match self.send(path, request).await {
            // There is nothing yet, and so no last of it.
            Err(wire) if wire.status == StatusCode::RANGE_NOT_SATISFIABLE => Ok(Vec::new()),
            other => other,
        }
    }

    async fn send(&self, path: &str, mut request: Request<Body>) -> Result<Vec<u8>, Wire> {
        *request.uri_mut() = path.parse().map_err(|_| {
            let detail = "this name cannot stand in an address";
            Problem::bad("bad_address", detail).wire()
        })?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        if let Some(who) = self.who {
            request.extensions_mut().insert(who.caller);
            request.extensions_mut().insert(who.standing);
        }
        let Ok(response) = self.routes.clone().oneshot(request).await;
        let status = response.status();
        let limited = http_body_util::Limited::new(response.into_body(), ANSWER_MAX);
        let bytes = limited.collect().await.map_err(|error| {
            let detail = format!("the answer could not be read: {error}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).wire()
        })?;
        let bytes = bytes.to_bytes();
        if status.is_success() {
            return Ok(bytes.to_vec());
        }
        let mut wire: Wire = serde_json::from_slice(&bytes).unwrap_or_default();
        wire.status = status.as_u16();
        Err(wire)
    }

    /// Asks a route for what it has.
    ///
    /// # Errors
    /// The route's own refusal.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Wire> {
        let bytes = self.ask(Method::GET, path, None).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let detail = format!("{path} answers otherwise than it should: {error}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).wire()
        })
    }

    /// Whether the one who looks may use a row of the table of routes.
    #[must_use]
    pub fn may(&self, method: &str, route: &str) -> bool {
        let mut rows = access::table().into_iter();
        let row = rows.find(|row| row.method == method && row.path == route);
        let least = row.and_then(|row| row.least);
        self.who
            .zip(least)
            .is_some_and(|(who, least)| who.role.covers(least))
    }

    /// A parameter or a field: the first of its name, empty ones aside.
    #[must_use]
    pub fn value<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
        let found = pairs.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// What a form has to bring back, so that nobody else can have made it.
    #[must_use]
    pub fn stamp(&self) -> String {
        let uid = self.who.map(|who| who.uid);
        let session = self.session.map(|InSession(id)| id);
        self.shared
            .sessions
            .mark(&format!("form {uid:?} {session:?}"))
    }

    /// Whether a form that was sent is one of this page's. Two stamps are
    /// compared by their marks, so that time tells nothing.
    #[must_use]
    pub fn is_stamped(&self) -> bool {
        let mark = |text: &str| self.shared.sessions.mark(text);
        Self::value(&self.form, "stamp").is_some_and(|stamp| mark(stamp) == mark(&self.stamp()))
    }

    /// A word that no other page has: a form that is sent twice is known by it.
    #[must_use]
    pub fn once(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mark = self.shared.sessions.mark(&format!("once {number}"));
        mark.chars().take(24).collect()
    }

    /// Signs in by a token: the cookie for the browser.
    ///
    /// # Errors
    /// The token is good for nothing.
    pub fn sign_in(&self, secret: &str) -> Result<String, Problem> {
        let token: [u8; 32] = Sha256::digest(secret.trim()).into();
        let settings = Arc::clone(&self.shared.settings.borrow());
        let proof = Proof::Token(token);
        let found = settings.vouch(proof, self.origin, clock::now());
        if let Err(problem) = &found {
            gate::failed(&self.shared, self.peer, self.origin, &problem.detail);
        }
        found?;
        self.shared
            .sessions
            .begin(token, settings.tls.is_some())
            .ok_or_else(|| {
                let detail = "this host gives no random numbers";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
            })
    }

    /// Signs out: what makes the browser forget its cookie.
    #[must_use]
    pub fn sign_out(&self) -> String {
        let is_secure = self.shared.settings.borrow().tls.is_some();
        let session = self.session.map(|InSession(id)| id);
        self.shared.sessions.end(session, is_secure)
    }
}

impl Shared {
    /// Whether a path is a page's.
    pub(super) fn is_page(&self, path: &str) -> bool {
        self.pages.is_some_and(|pages| (pages.hold)(path))
    }
}

/// Answers where no route of the API is.
pub(super) async fn answer(
    shared: Arc<Shared>,
    pages: Pages,
    routes: Router,
    request: Request<Body>,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path();
    if !shared.is_page(path) && !reads_pages(&parts) {
        return super::problem::no_route(path).into_response();
    }
    let extensions = &mut parts.extensions;
    let caller: Option<Caller> = extensions.remove();
    let standing: Option<Standing> = extensions.remove();
    let session: Option<InSession> = extensions.remove();
    let (Some(peer), origin) = (extensions.remove(), extensions.remove()) else {
        return super::problem::no_route(parts.uri.path()).into_response();
    };
    let who = caller.zip(standing).map(|(caller, standing)| Who {
        uid: caller.uid,
        role: standing.role,
        in_session: session.is_some(),
        caller,
        standing,
    });
    let form = match form(&shared, &parts, body).await {
        Ok(form) => form,
        Err(problem) => return problem.into_response(),
    };
    let visit = Visit {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: pairs::parse(parts.uri.query().unwrap_or_default()).unwrap_or_default(),
        form,
        who,
        session,
        peer,
        origin: origin.unwrap_or(Origin::NONE),
        shared,
        routes,
    };
    (pages.answer)(visit).await
}

/// Whether whoever asks is shown what is no page as a page, too: browsers say
/// so, programs do not.
fn reads_pages(parts: &hyper::http::request::Parts) -> bool {
    let accepts = parts.headers.get(ACCEPT);
    let accepts = accepts.and_then(|kinds| kinds.to_str().ok());
    accepts.is_some_and(|kinds| kinds.contains("text/html"))
}

async fn form(
    shared: &Shared,
    parts: &hyper::http::request::Parts,
    body: Body,
) -> Result<Vec<(String, String)>, Problem> {
    if parts.method != Method::POST {
        return Ok(Vec::new());
    }
    let bytes = body::read(shared, &parts.headers, body).await?;
    let kind = parts.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some(FORM) {
        let detail = format!("pages take forms: send `Content-Type: {FORM}`");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "not_a_form", detail));
    }
    let text = std::str::from_utf8(&bytes).ok();
    text.and_then(pairs::parse).ok_or_else(|| {
        let detail = "the form is malformed: names and values are percent-encoded UTF-8";
        Problem::bad("bad_form", detail)
    })
}
