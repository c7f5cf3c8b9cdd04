//! Connections to a daemon: made, and used again.
//!
//! Whoever asks once never comes back for one; whoever asks for many tasks is
//! spared a connection for each question. One that has rested for a while is
//! left: daemons come and go, and close what rests.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::target::Target;
use super::{Client, Error, PROMPT};
use crate::clock;

/// How long a connection may rest.
const FRESH: Duration = Duration::from_secs(2);
/// Most connections that are kept.
const MOST: usize = 32;

/// All of one asker and its clones.
#[derive(Clone, Default)]
pub(super) struct Idle {
    kept: Arc<Mutex<Vec<Kept>>>,
}

struct Kept {
    since: Instant,
    sender: SendRequest<Full<Bytes>>,
}

impl Idle {
    /// For a moment each time, and never while something is waited for.
    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that can take a request now.
    pub(super) fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut kept = self.lock();
        let now = clock::instant();
        kept.retain(|one| now.duration_since(one.since) < FRESH && !one.sender.is_closed());
        let ready = kept.iter().position(|one| one.sender.is_ready())?;
        Some(kept.swap_remove(ready).sender)
    }

    /// Keeps one whose answer is still to be read.
    pub(super) fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut kept = self.lock();
        if kept.len() < MOST {
            let since = clock::instant();
            kept.push(Kept { since, sender });
        }
    }
}

impl Client {
    /// Sends a request over one that is there, or a new one; the body of the
    /// answer is still to come.
    pub(super) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        let request = match self.idle.take() {
            None => request,
            Some(mut known) => match known.try_send_request(request).await {
                Ok(response) => {
                    self.idle.keep(known);
                    return Ok(response);
                }
                // It was closed meanwhile, and nothing was sent.
                Err(mut failed) => match failed.take_message() {
                    Some(request) => request,
                    None => return Err(strange(&failed.into_error())),
                },
            },
        };
        let mut line = self.connect().await?;
        let sent = line.send_request(request).await;
        let response = sent.map_err(|error| strange(&error))?;
        self.idle.keep(line);
        Ok(response)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let explain = |error: io::Error| self.target.explain(&error);
        let late = |_| explain(io::ErrorKind::TimedOut.into());
        match &self.target {
            Target::Unix(path) => {
                let connected = timeout(PROMPT, UnixStream::connect(path))
                    .await
                    .map_err(late)?;
                speak(connected.map_err(explain)?).await
            }
            Target::Tcp { address, tls, .. } => {
                let connected = timeout(PROMPT, TcpStream::connect(address))
                    .await
                    .map_err(late)?
                    .map_err(explain)?;
                let Some(tls) = tls else {
                    return speak(connected).await;
                };
                // Beside the future that most requests are, which is small.
                let encrypted = Box::pin(tls.encrypt(address, connected));
                let encrypted = timeout(PROMPT, encrypted).await.map_err(late)??;
                Box::pin(speak(encrypted)).await
            }
        }
    }
}

async fn speak<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| strange(&error))?;
    // It ends with its sender, and when the body of an answer is dropped.
    drop(tokio::spawn(connection));
    Ok(sender)
}

fn strange(error: &hyper::Error) -> Error {
    if error.is_parse() {
        Error::Strange(format!("that does not speak HTTP ({error})"))
    } else {
        Error::Lost
    }
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle").finish_non_exhaustive()
    }
}
