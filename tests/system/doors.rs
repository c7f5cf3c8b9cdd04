//! The daemon's API as a client outside the container meets it: a small HTTP/1.1 client over the unix or the TCP socket.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::bed::Bed;

/// The token that the test's configuration knows, and its SHA-256.
pub(crate) const TOKEN: &str = "an-example-token-of-the-system-tests";
const ADDRESS: &str = "127.0.0.1:8377";

/// One way to the API.
#[derive(Clone)]
pub(crate) enum Door {
    Unix(PathBuf),
    Tcp(PathBuf),
}

impl Door {
    /// The local socket.
    pub(crate) fn unix(bed: &Bed) -> Self {
        Self::Unix(bed.root().join("run/taskdaemon/api.sock"))
    }

    /// The TCP socket, opened here the way the socket unit's own text says.
    pub(crate) fn tcp(bed: &Bed) -> Self {
        bed.sh(&format!(
            "hash=$(printf %s {TOKEN} | sha256sum | cut -d' ' -f1)
             printf '[[api.tokens]]\\nname = \"test\"\\nsha256 = \"%s\"\\nuid = %s\\n' \"$hash\" \"$(id -u alice)\" \
                 >/etc/taskdaemon/conf.d/token.toml
             chgrp taskdaemon /etc/taskdaemon/conf.d/token.toml
             chmod 0640 /etc/taskdaemon/conf.d/token.toml
             systemctl enable taskdaemon-tcp.socket
             systemctl restart taskdaemon.service"
        ));
        Self::Tcp(bed.network())
    }

    /// Opens a connection that gives up after half a minute without an answer.
    pub(crate) fn connect(&self) -> io::Result<Connection> {
        let stream = match self {
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Self::Tcp(network) => Stream::Tcp(connect_inside(network)?),
        };
        stream.set_timeout(Duration::from_secs(30))?;
        Ok(Connection {
            stream: BufReader::new(stream),
            token: matches!(self, Self::Tcp(_)),
        })
    }
}

/// A socket belongs to the network in which it was made, so a thread goes there to make it.
fn connect_inside(network: &PathBuf) -> io::Result<TcpStream> {
    let network = File::open(network)?;
    std::thread::spawn(move || {
        setns(network, CloneFlags::CLONE_NEWNET)?;
        TcpStream::connect(ADDRESS)
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("the connecting thread panicked")))
}

/// A connected socket of either kind.
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream
                .set_read_timeout(Some(limit))
                .and(stream.set_write_timeout(Some(limit))),
            Self::Tcp(stream) => stream
                .set_read_timeout(Some(limit))
                .and(stream.set_write_timeout(Some(limit))),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection, to be used for one request or for many.
pub(crate) struct Connection {
    stream: BufReader<Stream>,
    token: bool,
}

/// What the daemon answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// The daemon will close the connection after this answer.
    pub(crate) last: bool,
}

/// A request in full: method, path, and what goes with a POST.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) body: Option<&'a Value>,
}

impl<'a> Request<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            key: None,
            body: None,
        }
    }
}

/// The body of a submit that runs one command.
pub(crate) fn submission(command: &[&str]) -> Value {
    json!({ "command": command })
}

impl Connection {
    /// Sends bytes as they are: for clients that are not honest.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends a request and reads the answer.
    pub(crate) fn ask(&mut self, request: Request<'_>) -> io::Result<Answer> {
        let body = request.body.map(Value::to_string).unwrap_or_default();
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: localhost\r\n",
            request.method, request.path
        );
        if self.token {
            head += &format!("Authorization: Bearer {TOKEN}\r\n");
        }
        if let Some(key) = request.key {
            head += &format!("Idempotency-Key: {key}\r\n");
        }
        if request.body.is_some() {
            head += &format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            );
        }
        self.send_raw(format!("{head}\r\n{body}").as_bytes())?;
        self.read_answer()
    }

    fn read_answer(&mut self) -> io::Result<Answer> {
        let first = self.read_line()?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| bad(&first))?;
        let (mut length, mut chunked, mut last) = (0_usize, false, false);
        loop {
            let line = self.read_line()?.to_ascii_lowercase();
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            match (name, value.trim()) {
                ("content-length", number) => length = number.parse().map_err(|_| bad(&line))?,
                ("transfer-encoding", "chunked") => chunked = true,
                ("connection", "close") => last = true,
                _ => {}
            }
        }
        let body = if chunked {
            self.read_chunks()?
        } else {
            self.read_exactly(length)?
        };
        Ok(Answer {
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
            last,
        })
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn read_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let length = usize::from_str_radix(&line, 16).map_err(|_| bad(&line))?;
            body.extend(self.read_exactly(length)?);
            self.read_line()?;
            if length == 0 {
                return Ok(body);
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connection")
    }
}

fn bad(line: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not an answer: {line:?}"),
    )
}
