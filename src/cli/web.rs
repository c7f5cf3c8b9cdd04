//! `web`: the web page for a browser on this host. A loopback address of our
//! own passes what the browser asks on to the daemon, which sees us asking: so
//! the page may do what its user may, and the daemon opens no port.
//!
//! The address has a secret, which is good once: it is exchanged for a cookie,
//! so that the address in a history or a process list lets nobody in.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN, SET_COOKIE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::{self, Client};
use crate::clock;
use crate::model::quantity::parse_duration;

use super::{Outcome, Setting, not_in_json, online};

/// Largest form.
const FORM_MAX: usize = 16 * 1024 * 1024;
/// How long a connection may be without a request: others of this host can
/// connect too, and must not keep the browser out, nor the address open.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most connections at once: a browser has a few to each page.
const CONNECTIONS: usize = 64;

/// How the address is opened.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Close it when no browser has been connected for so long
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
    idle: Duration,
}

/// What a browser has to show, and to whom we pass on.
struct Door {
    client: Client,
    /// Where we listen, as a browser says it.
    host: String,
    secret: String,
    cookie: String,
    /// Whether the secret was exchanged.
    is_used: AtomicBool,
}

type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// `web`.
pub(super) fn web(args: &Args, setting: &Setting) -> Outcome {
    not_in_json(setting, "web")?;
    online(serve(args.idle, setting))
}

async fn serve(idle: Duration, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    // Whoever cannot be asked is not worth an address.
    client.get("/v1/status").await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let host = listener.local_addr()?.to_string();
    let door = Arc::new(Door {
        client,
        secret: client::random_key()?,
        cookie: client::random_key()?,
        is_used: AtomicBool::new(false),
        host,
    });
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut out = io::stdout();
    writeln!(out, "http://{}/open/{}", door.host, door.secret)?;
    out.flush()?;
    super::complain(
        "open this address in a browser on this host; it is good once. Ctrl-C closes it",
    );
    let mut open = JoinSet::new();
    let mut last = Instant::from_std(clock::instant());
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS => {
                if let Ok((stream, _)) = accepted {
                    open.spawn(converse(stream, Arc::clone(&door)));
                }
            }
            Some(_) = open.join_next() => last = Instant::from_std(clock::instant()),
            () = sleep_until(last + idle), if open.is_empty() => {
                super::complain("closed: no browser was connected for long; `taskdaemon web` opens it again");
                return Ok(0);
            }
            _ = interrupted.recv() => return Ok(0),
        }
    }
}

async fn converse(stream: TcpStream, door: Arc<Door>) {
    let answer = service_fn(move |request| {
        let door = Arc::clone(&door);
        async move { Ok::<_, Infallible>(door.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), answer);
    // A browser that goes away is no fault.
    drop(connection.await);
}

impl Door {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        if let Err(why) = self.is_local(&parts.headers) {
            return refuse(StatusCode::FORBIDDEN, why);
        }
        if let Some(secret) = path.strip_prefix("/open/") {
            return self.exchange(secret);
        }
        if !self.shows_cookie(&parts.headers) {
            let why = "This page is for the browser that has opened the address which \
                       `taskdaemon web` printed. Run it again for another one.";
            return refuse(StatusCode::UNAUTHORIZED, why);
        }
        let looks = [Method::GET, Method::HEAD].contains(&parts.method);
        if !looks && (parts.method != Method::POST || path.starts_with("/v1")) {
            let why = "Through this address things are changed by the forms of the pages only.";
            return refuse(StatusCode::FORBIDDEN, why);
        }
        let Ok(body) = Limited::new(body, FORM_MAX).collect().await else {
            return refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The form is too large, or ended early.",
            );
        };
        let path = parts
            .uri
            .path_and_query()
            .map_or(path, |path| path.as_str());
        let passed = self
            .client
            .pass(parts.method, path, &parts.headers, body.to_bytes());
        match passed.await {
            Ok(response) => response.map(Either::Left),
            Err(error) => refuse(StatusCode::BAD_GATEWAY, &error.to_string()),
        }
    }

    /// Whether a request is for this very address, and no other page's.
    fn is_local(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if text(HOST) != Some(&self.host) {
            return Err("This address is known by no other name.");
        }
        match text(ORIGIN) {
            None => Ok(()),
            Some(origin) if origin.strip_prefix("http://") == Some(&self.host) => Ok(()),
            Some(_) => Err("Requests of other sites' pages are refused."),
        }
    }

    /// Gives the browser that comes first its cookie.
    fn exchange(&self, secret: &str) -> Answer {
        if secret != self.secret || self.is_used.swap(true, Ordering::Relaxed) {
            let why = "This address is good once, and that was. Run `taskdaemon web` again for another one.";
            return refuse(StatusCode::FORBIDDEN, why);
        }
        let mut response = refuse(StatusCode::SEE_OTHER, "");
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Strict",
            self.name(),
            self.cookie
        );
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        let start = HeaderValue::from_static("/");
        response.headers_mut().insert(LOCATION, start);
        response
    }

    /// The cookie's name: browsers do not tell ports apart.
    fn name(&self) -> String {
        let port = self.host.rsplit(':').next().unwrap_or_default();
        format!("taskdaemon-web-{port}")
    }

    fn shows_cookie(&self, headers: &HeaderMap) -> bool {
        let name = self.name();
        let lines = headers.get_all(COOKIE).iter();
        lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .any(|(known, value)| known == name && value == self.cookie)
    }
}

/// A few words of our own.
fn refuse(status: StatusCode, why: &str) -> Answer {
    let mut response = Response::new(Either::Right(Full::new(Bytes::from(format!("{why}\n")))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, plain);
    for (name, value) in [
        ("cache-control", "no-store"),
        ("content-security-policy", "default-src 'none'"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    response
}
