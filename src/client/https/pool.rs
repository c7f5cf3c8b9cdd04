//! Connections that are used again while they are fresh: who asks a server often
//! connects, and agrees on TLS, once.
//!
//! Servers close connections that rest, most of them after five seconds or
//! more; one that has rested for two is not used again, so that no request is
//! sent into a connection that is being closed. A request that was not sent
//! because its connection had closed is sent over another one.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Response, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::{CONNECT, Error, Place, connect, encrypt, explain, network, request};

/// How long a connection may rest and be used again.
const FRESH: Duration = Duration::from_secs(2);
/// Connections to one server that rest.
const RESTING: usize = 64;
/// How long, and how much, is read of what follows an answer that is whole.
const REST: (Duration, usize) = (Duration::from_secs(1), 64 * 1024);

/// Connections to all servers.
#[derive(Debug, Clone)]
pub struct Pool {
    client: Client<Connector, Full<Bytes>>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::keeping(RESTING)
    }
}

impl Pool {
    /// One that uses each connection once: for those who ask seldom.
    #[must_use]
    pub fn of_new_ones() -> Self {
        Self::keeping(0)
    }

    fn keeping(most: usize) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(FRESH)
            .pool_max_idle_per_host(most)
            .build(Connector);
        Self { client }
    }

    /// Sends one request; its answer comes as it may, without a time limit.
    ///
    /// # Errors
    /// The server was not reached, or did not answer.
    pub async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, Error> {
        let place = Place::of(url)?;
        let mut request = request(&place, headers, body)?;
        *request.method_mut() = method;
        let target = request.uri().path_and_query().cloned();
        let mut parts = place.url.into_parts();
        parts.path_and_query = target;
        let bad = |_| Error::Request(format!("{url}: cannot be asked for"));
        *request.uri_mut() = Uri::from_parts(parts).map_err(bad)?;
        let asked = self.client.request(request).await;
        asked.map_err(|error| cause(url, &error))
    }
}

/// Reads what is left of an answer that is whole already, so that its
/// connection can be used again. Nobody waits for it.
pub fn let_go(body: Incoming) {
    let (time, most) = REST;
    drop(tokio::spawn(timeout(
        time,
        Limited::new(body, most).collect(),
    )));
}

/// What went wrong, in our own words where they are.
fn cause(url: &str, error: &ClientError) -> Error {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(own) = inner.downcast_ref::<Error>() {
            return own.clone();
        }
        if let Some(spoken) = inner.downcast_ref::<hyper::Error>() {
            return explain(url, spoken);
        }
        cause = inner.source();
    }
    network(url, error)
}

/// Makes connections.
#[derive(Debug, Clone, Copy)]
struct Connector;

impl Connector {
    async fn connect(self, url: Uri) -> Result<TokioIo<Socket>, Error> {
        let name = url.to_string();
        let name = name.trim_end_matches('/');
        let place = Place::of(name)?;
        let connected = timeout(CONNECT, connect(name, &place)).await;
        let stream = connected.map_err(|_| network(name, "does not answer within 5 s"))??;
        if !place.tls {
            return Ok(TokioIo::new(Socket::Plain(stream)));
        }
        let agreed = encrypt(&place, stream);
        let secure = timeout(CONNECT, agreed).await;
        let secure = secure.map_err(|_| network(name, "does not speak TLS within 5 s"))??;
        Ok(TokioIo::new(Socket::Secure(Box::new(secure))))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Socket>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Socket>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        Box::pin(self.connect(url))
    }
}

/// A connection.
#[derive(Debug)]
enum Socket {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Secure(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Secure(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Secure(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secure(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Secure(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
