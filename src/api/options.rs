//! Settings of the API: who may connect, how long, how much.
//!
//! Plain values; `config` reads and checks them, the API obeys them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::quantity::ByteSize;

/// Settings of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Unix socket of the API, bound only when systemd passed no sockets.
    pub socket: PathBuf,
    /// TCP addresses bound when the daemon is run by hand.
    pub listen: Vec<SocketAddr>,
    /// Who may use TCP.
    pub tokens: Vec<Token>,
    /// Users, or `@group`, that see and act on everyone's tasks.
    pub admins: Vec<String>,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// Largest body of a request.
    pub body_max: ByteSize,
    /// How long a client may take to send the body of a request.
    pub body_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// Most connections at once.
    pub connections: u32,
    /// Most connections at once of one user, or of one address.
    pub connections_per_peer: u32,
    /// How long open requests may take to finish when the daemon stops.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/taskdaemon/api.sock"),
            listen: Vec::new(),
            tokens: Vec::new(),
            admins: Vec::new(),
            header_timeout: Duration::from_secs(10),
            body_max: ByteSize::mib(16),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            connections: 512,
            connections_per_peer: 256,
            drain: Duration::from_secs(5),
        }
    }
}

/// One bearer token. The secret itself is nowhere in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Shown in logs and events.
    pub name: String,
    /// SHA-256 of the secret, 64 hexadecimal digits.
    pub sha256: String,
    /// User id its bearer acts as.
    pub uid: u32,
}

/// Why the options cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub enum BadOptions {
    /// A token's hash is not one.
    #[error("api.tokens: the sha256 of token `{0}` is not 64 hexadecimal digits")]
    Token(String),
    /// There is no such user or group.
    #[error("api.admins: there is no {kind} `{name}` on this host")]
    Unknown {
        /// User or group.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// TCP without a token would serve everyone.
    #[error("api.listen: TCP needs at least one entry in api.tokens")]
    Tokenless,
}
