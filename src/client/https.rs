//! One request to a server of somebody else's, in plain HTTP or over TLS.
//!
//! Servers are believed by the certificates that this host trusts, or those
//! that `SSL_CERT_FILE` names. A redirect is not followed: the request, and
//! what it says, is for the server it was addressed to and for no other.

use std::error::Error as _;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

pub mod pool;

use pool::Pool;

/// How long it may take until the server is there, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long everything may take.
const WHOLE: Duration = Duration::from_secs(30);
/// Bytes of the answer that are read.
const ANSWER_MAX: usize = 1024;

/// Why there was no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The request makes no sense; it will not tomorrow either.
    #[error("{0}")]
    Request(String),
    /// The server was not reached, or did not answer: that may pass.
    #[error("{0}")]
    Network(String),
}

/// The beginning of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The first bytes of the body.
    pub body: Vec<u8>,
}

/// Sends one request and reads how its answer begins.
///
/// # Errors
/// There was no answer.
pub async fn post(url: &str, headers: HeaderMap, body: String) -> Result<Answer, Error> {
    let pool = Pool::of_new_ones();
    let asked = async {
        let response = pool
            .ask(Method::POST, url, headers, body.into_bytes())
            .await?;
        let status = response.status();
        let body = beginning(response.into_body()).await;
        Ok(Answer { status, body })
    };
    timeout(WHOLE, asked)
        .await
        .map_err(|_| network(url, "did not answer within 30 s"))?
}

/// Asks for a page in plain HTTP, and tells with which status it begins.
///
/// # Errors
/// There was no answer.
pub async fn get(url: &str) -> Result<StatusCode, Error> {
    let place = Place::of(url)?;
    let mut request = request(&place, HeaderMap::new(), Vec::new())?;
    *request.method_mut() = Method::GET;
    let stream = connect(url, &place).await?;
    Ok(send(url, stream, request).await?.status())
}

/// Connects to `HOST:PORT`, and hangs up.
///
/// # Errors
/// Nobody takes the connection.
pub async fn reach(address: &str) -> Result<(), Error> {
    let url = format!("http://{address}");
    connect(address, &Place::of(&url)?).await.map(drop)
}

/// Connects to the first of a host's addresses that answers. What a name leads
/// to is known only here, so here it is judged.
async fn connect(url: &str, place: &Place) -> Result<TcpStream, Error> {
    let found = lookup_host((&*place.host, place.port)).await;
    let found = found.map_err(|error| network(url, error))?;
    let mut last = network(url, "has no address");
    for at in found {
        if is_of_the_link(at.ip()) {
            let why = "leads to an address of the link alone, where clouds give out credentials: \
                       name a server by another address";
            last = Error::Request(format!("{url}: {why}"));
            continue;
        }
        match TcpStream::connect(at).await {
            Ok(stream) => {
                // A request goes out in pieces: the last one is not to wait for
                // the receipt of those before it, which takes 40 ms.
                stream
                    .set_nodelay(true)
                    .map_err(|error| network(url, error))?;
                return Ok(stream);
            }
            Err(error) => last = network(url, error),
        }
    }
    Err(last)
}

/// RFC 3927, RFC 4291 section 2.5.6, and the former in the form of the latter.
fn is_of_the_link(at: IpAddr) -> bool {
    match at.to_canonical() {
        IpAddr::V4(at) => at.is_link_local(),
        IpAddr::V6(at) => at.is_unicast_link_local(),
    }
}

fn network(url: &str, why: impl Display) -> Error {
    Error::Network(format!("{url}: {why}"))
}

/// Where an address leads.
struct Place {
    url: Uri,
    tls: bool,
    host: String,
    port: u16,
}

impl Place {
    fn of(url: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::Request(format!("{url}: {why}"));
        let url: Uri = url.parse().map_err(|_| bad("is not an address"))?;
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(bad("is neither http nor https")),
        };
        let host = url.host().ok_or_else(|| bad("names no host"))?;
        // An IPv6 address has brackets in a URL, and only there.
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            url,
            tls,
            host,
            port,
        })
    }
}

fn request(
    place: &Place,
    headers: HeaderMap,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, Error> {
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.headers_mut() = headers;
    let path = place.url.path_and_query().map_or("/", |path| path.as_str());
    let bad = |_| Error::Request(format!("{}: cannot be asked for", place.url));
    // `http://host?query` is written without the slash that a request needs.
    *request.uri_mut() = match path.strip_prefix('?') {
        Some(query) => format!("/?{query}").parse().map_err(bad)?,
        None => path.parse().map_err(bad)?,
    };
    let host = place
        .url
        .authority()
        .map_or("", |authority| authority.as_str());
    let host = HeaderValue::try_from(host);
    let host = host.map_err(|_| Error::Request(format!("{}: names no host", place.url)))?;
    let agent = HeaderValue::from_static(concat!("taskdaemon/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(USER_AGENT, agent);
    Ok(request)
}

async fn encrypt(
    place: &Place,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Error> {
    let url = place.url.to_string();
    // Read each time: whom a host trusts may change.
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let why = "this host trusts no certificates; install the package ca-certificates";
        return Err(network(&url, why));
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(place.host.clone())
        .map_err(|_| Error::Request(format!("{url}: names no host")))?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| network(&url, error))
}

async fn send<S>(
    url: &str,
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| explain(url, &error))?;
    // It ends with the body of the answer, or when that is dropped.
    drop(tokio::spawn(connection));
    let sent = sender.send_request(request).await;
    sent.map_err(|error| explain(url, &error))
}

fn explain(url: &str, error: &hyper::Error) -> Error {
    let cause = error.source().map(|cause| format!(": {cause}"));
    network(url, format!("{error}{}", cause.unwrap_or_default()))
}

/// What comes first of a body. The status has said already what matters, so
/// that a body which breaks off is as good as a short one.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut start = Vec::new();
    while start.len() < ANSWER_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        start.extend(frame.data_ref().into_iter().flatten());
    }
    start.truncate(ANSWER_MAX);
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_24_nothing_is_sent_to_an_address_of_the_link() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        for host in ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"] {
            let url = format!("http://{host}/latest/meta-data");
            let asked = runtime.block_on(post(&url, HeaderMap::new(), String::new()));
            let error = asked.expect_err("no answer").to_string();
            assert!(error.contains("address of the link"), "{error}");
        }
        assert!(!is_of_the_link([10, 0, 0, 7].into()));
    }
}
