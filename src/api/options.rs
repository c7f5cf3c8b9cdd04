//! Settings of the API: who may connect, how long, how much.
//!
//! Plain values; `config` reads and checks them, the API obeys them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::quantity::ByteSize;
use crate::model::role::Role;
use crate::model::setting::Kind::{Live, Restart};
use crate::model::setting::settings;

use super::number::Stamp;

settings! {
    /// Settings of the API, section `[api]`.
    pub struct Options {
        /// Unix socket of the API, by default `api.sock` in `runtime_dir`. Bound only when
        /// systemd passed no sockets.
        socket: PathBuf = PathBuf::from("/run/taskdaemon/api.sock"), Restart;
        /// TCP addresses bound when the daemon is run by hand, such as "127.0.0.1:8080". Under
        /// systemd they belong into the socket unit. TCP needs a token or a client certificate.
        listen: Vec<SocketAddr> = Vec::new(), Restart;
        /// Who may use TCP: each token has a name, the SHA-256 of the secret in hex, and the
        /// user id its bearer acts as: [{ name = "ci", sha256 = "9f86…", uid = 1000 }]. A `role`
        /// ("read", "submit", "own", "admin") gives it less than the user has, and `expires`
        /// ("2027-01-01T00:00:00Z") ends it. `taskdaemon token new` makes one. A file with tokens
        /// must not be readable by everybody.
        tokens: Vec<Token> = Vec::new(), Live;
        /// Certificate chain of this server, in PEM: TCP then speaks TLS and nothing else.
        tls_certificate: Option<PathBuf> = None, Live, "\"/etc/taskdaemon/tls/server.pem\"";
        /// Its private key, in PEM, not readable by everybody.
        tls_key: Option<PathBuf> = None, Live, "\"/etc/taskdaemon/tls/server.key\"";
        /// Certificates, in PEM, that sign those of clients. A client then has to show one that
        /// `certificates` names; tokens are not asked for.
        tls_client_ca: Option<PathBuf> = None, Live, "\"/etc/taskdaemon/tls/clients.pem\"";
        /// Whom client certificates stand for: the certificate's subject alternative name (DNS or
        /// URI) and the user id, with `role` as for tokens: [{ name = "ci.example.org", uid = 1000 }].
        certificates: Vec<Certificate> = Vec::new(), Live;
        /// Names by which TCP clients may call this server, such as "queue.example.org". Addresses
        /// and "localhost" always do; other names are what pages of other sites would use.
        names: Vec<String> = Vec::new(), Live;
        /// Users, or "@group", that see and act on everyone's tasks. Root and the daemon's own
        /// user always do.
        admins: Vec<String> = Vec::new(), Live;
        /// Users, or "@group", that see everyone's tasks and change nothing.
        readers: Vec<String> = Vec::new(), Live;
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
    /// The most its bearer may do; absent for all that the user may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// From when on it is worth nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Stamp>,
}

/// What a client's certificate stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// One of its subject alternative names, exactly.
    pub name: String,
    /// User id its holder acts as.
    pub uid: u32,
    /// The most its holder may do; absent for all that the user may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

impl Options {
    /// Whether anybody could use TCP.
    #[must_use]
    pub fn has_clients(&self) -> bool {
        if self.tls_client_ca.is_some() {
            !self.certificates.is_empty()
        } else {
            !self.tokens.is_empty()
        }
    }
}

/// Why the options cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub enum BadOptions {
    /// A token's hash is not one.
    #[error("api.tokens: the sha256 of token `{0}` is not 64 hexadecimal digits")]
    Token(String),
    /// There is no such user or group.
    #[error("{key}: there is no {kind} `{name}` on this host")]
    Unknown {
        /// The setting.
        key: &'static str,
        /// User or group.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// TCP without a token or a client certificate would serve everyone.
    #[error(
        "api.listen: TCP needs at least one entry in api.tokens, or in api.certificates \
         beside api.tls_client_ca"
    )]
    Tokenless,
    /// A file for TLS.
    #[error("{key}: {}: {why}", .path.display())]
    Tls {
        /// The setting that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing secret can be made.
    #[error("this host gives no random numbers, without which there are no sessions")]
    NoRandom,
    /// Settings of TLS that only make sense together.
    #[error("{0}")]
    Half(&'static str),
}
