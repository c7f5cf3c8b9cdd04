//! A client that costs as little as possible: it shares two cores with what it
//! measures. Blocking, one connection, prepared requests, and of an answer it
//! looks at the status and the length only.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Longest wait for an answer; a measurement that hangs is an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request, ready to be written.
#[derive(Debug, Clone)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        Self(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes())
    }

    pub(crate) fn post(path: &str, body: &str) -> Self {
        Self::posted(path, "", body)
    }

    /// A request that can be repeated without its being done twice.
    pub(crate) fn post_with_key(path: &str, key: &str, body: &str) -> Self {
        Self::posted(path, &format!("Idempotency-Key: {key}\r\n"), body)
    }

    fn posted(path: &str, more: &str, body: &str) -> Self {
        Self(
            format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 {more}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
        )
    }
}

/// A kept-alive connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Sends a request and gives the body of its answer, which has to be a
    /// success.
    pub(crate) fn ask(&mut self, request: &Request) -> anyhow::Result<&[u8]> {
        self.stream.write_all(&request.0)?;
        let mut have = 0;
        let (status, from, to) = loop {
            if have == self.buffer.len() {
                self.buffer.resize(have * 2, 0);
            }
            let room = self.buffer.get_mut(have..).unwrap_or_default();
            match self.stream.read(room)? {
                0 => bail!("the server closed the connection"),
                read => have += read,
            }
            let Some((status, from, to)) = answer(self.buffer.get(..have).unwrap_or_default())?
            else {
                continue;
            };
            if to <= have {
                break (status, from, to);
            }
        };
        let body = self.buffer.get(from..to).unwrap_or_default();
        if !(200..300).contains(&status) {
            bail!("{status}: {}", String::from_utf8_lossy(body));
        }
        Ok(body)
    }

    /// As [`ask`](Self::ask), and reads the body.
    pub(crate) fn json(&mut self, request: &Request) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(self.ask(request)?)?)
    }
}

/// Status, and where the body begins and ends, when the head is there.
fn answer(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(bytes.get(..head).unwrap_or_default())?;
    let status = text
        .get(9..12)
        .and_then(|digits| digits.parse().ok())
        .context("an answer without a status")?;
    let length: usize = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .context("an answer without a length")?;
    Ok(Some((status, head + 4, head + 4 + length)))
}
