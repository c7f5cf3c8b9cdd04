//! Settings of the API: who may connect, how long, how much.
//!
//! Plain values; `config` reads and checks them, the API obeys them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::quantity::ByteSize;
use crate::model::setting::Kind::{Live, Restart};
use crate::model::setting::settings;

settings! {
    /// Settings of the API, section `[api]`.
    pub struct Options {
        /// Unix socket of the API, by default `api.sock` in `runtime_dir`. Bound only when
        /// systemd passed no sockets.
        socket: PathBuf = PathBuf::from("/run/taskdaemon/api.sock"), Restart;
        /// TCP addresses bound when the daemon is run by hand, such as "127.0.0.1:8080". Under
        /// systemd they belong into the socket unit. TCP needs at least one token.
        listen: Vec<SocketAddr> = Vec::new(), Restart;
        /// Who may use TCP: each token has a name, the SHA-256 of the secret in hex, and the
        /// user id its bearer acts as: [{ name = "ci", sha256 = "9f86…", uid = 1000 }].
        tokens: Vec<Token> = Vec::new(), Live;
        /// Users, or "@group", that see and act on everyone's tasks. Root and the daemon's own
        /// user always do.
        admins: Vec<String> = Vec::new(), Live;
        /// How long a client may take to send the head of a request.
        #[serde(with = "crate::model::quantity::duration")]
        header_timeout: Duration = Duration::from_secs(10), Live;
        /// Largest body of a request; a submit of many tasks is the largest there is.
        body_max: ByteSize = ByteSize::mib(16), Live;
        /// How long a client may take to send the body of a request.
        #[serde(with = "crate::model::quantity::duration")]
        body_timeout: Duration = Duration::from_secs(30), Live;
        /// How long a connection may stay open without a request.
        #[serde(with = "crate::model::quantity::duration")]
        idle_timeout: Duration = Duration::from_secs(60), Live;
        /// Most connections at once.
        connections: u32 = 512, Live;
        /// Most connections at once of one user, or of one address.
        connections_per_peer: u32 = 256, Live;
        /// How long open requests may take to finish when the daemon stops.
        #[serde(with = "crate::model::quantity::duration")]
        drain: Duration = Duration::from_secs(5), Live;
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
