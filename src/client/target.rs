//! Where a daemon is, and why it may not be reached there.

use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hyper::header::HeaderValue;
use nix::unistd::{AccessFlags, access};

use super::tls::Files;
use super::{Error, PROMPT};

/// Socket of the system's daemon.
const SOCKET: &str = "/run/taskdaemon/api.sock";

/// Socket of a user's own daemon.
fn own() -> Option<PathBuf> {
    env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("taskdaemon/api.sock"))
}

/// A token, which is not for logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The header that shows it.
    ///
    /// # Errors
    /// It is not what a header can hold.
    pub(super) fn header(&self) -> Result<HeaderValue, Error> {
        let value = HeaderValue::try_from(format!("Bearer {}", self.0));
        let mut value =
            value.map_err(|_| Error::Usage("TASKDAEMON_TOKEN holds no token".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where a daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A socket of this host.
    Unix(PathBuf),
    /// An address, with the token it wants.
    Tcp {
        /// Host and port.
        address: String,
        /// The bearer token.
        token: Option<Secret>,
        /// How it is encrypted; not at all for `http://`.
        tls: Option<Files>,
    },
}

impl Target {
    /// The daemon that is meant: by flag, by environment, else the system's,
    /// else, where that is absent or not for this user, the user's own.
    ///
    /// # Errors
    /// The name is none that leads to a daemon.
    pub fn find(flag: Option<&str>, tls: &Files) -> Result<Self, Error> {
        let variable = env::var("TASKDAEMON_HOST")
            .ok()
            .filter(|host| !host.is_empty());
        if let Some(host) = flag.map(str::to_owned).or(variable) {
            return Self::parse(&host, tls);
        }
        let system = PathBuf::from(SOCKET);
        // To connect to a socket is to write to it.
        let open = access(&system, AccessFlags::W_OK).is_ok();
        let own = own().filter(|own| !open && own.exists());
        Ok(Self::Unix(own.unwrap_or(system)))
    }

    fn parse(host: &str, tls: &Files) -> Result<Self, Error> {
        if host == "system" {
            return Ok(Self::Unix(PathBuf::from(SOCKET)));
        }
        if host == "user" {
            return own().map(Self::Unix).ok_or_else(|| {
                Error::Usage(
                    "there is no way to your own daemon: XDG_RUNTIME_DIR is not set; log in, or \
                     set it to /run/user/UID"
                        .to_owned(),
                )
            });
        }
        if let Some(path) = host.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let plain = host.strip_prefix("http://").map(|address| (address, None));
        let secure = || Some((host.strip_prefix("https://")?, Some(tls)));
        if let Some((address, tls)) = plain.or_else(secure) {
            let address = address.trim_end_matches('/').to_owned();
            let token = env::var("TASKDAEMON_TOKEN").ok().map(Secret);
            if HeaderValue::try_from(&address).is_ok() && !address.contains('/') {
                let tls = tls.map(|files| files.clone().or_environment());
                return Ok(Self::Tcp {
                    address,
                    token,
                    tls,
                });
            }
        } else if host.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(host)));
        }
        Err(Error::Usage(format!(
            "`{}` is not an address: write system, user, unix:/path, http://127.0.0.1:8377 or \
             https://HOST:PORT",
            host.escape_debug()
        )))
    }

    /// Whether it is the system's daemon on this host, by its usual socket.
    #[must_use]
    pub fn is_systems(&self) -> bool {
        matches!(self, Self::Unix(path) if path == Path::new(SOCKET))
    }

    /// Whether it is this user's own daemon, by its usual socket.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Unix(path) if own().as_ref() == Some(path))
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string(),
            Self::Tcp { address, .. } => address.clone(),
        }
    }

    /// Why the socket is closed to us, and the other one that may be meant.
    fn denied(&self) -> String {
        let mut text = "permission denied".to_owned();
        if matches!(self, Self::Unix(path) if path == Path::new(SOCKET)) {
            text.push_str(
                "; the system's daemon is for group taskdaemon: `adduser USER taskdaemon`, \
                 then log in again",
            );
        }
        if let Some(own) = own().filter(|own| own.exists()) {
            text.push_str(&format!("; your own is --host user, at {}", own.display()));
        }
        text
    }

    /// Why it cannot be reached, and what may help.
    pub(super) fn explain(&self, error: &io::Error) -> Error {
        let name = self.name();
        let hint = match (self, error.kind()) {
            (Self::Unix(path), io::ErrorKind::NotFound) if own().as_ref() == Some(path) => {
                "you have no daemon of your own running; `systemctl --user start taskdaemon` \
                 starts one or says why not"
                    .to_owned()
            }
            (Self::Unix(_), io::ErrorKind::NotFound) => {
                "there is no such socket; is the daemon installed and started? \
                 `systemctl start taskdaemon` starts it or says why not"
                    .to_owned()
            }
            (Self::Unix(_), io::ErrorKind::PermissionDenied) => self.denied(),
            (Self::Unix(path), io::ErrorKind::ConnectionRefused) if path.is_file() => {
                "that is a plain file, not a socket".to_owned()
            }
            (_, io::ErrorKind::ConnectionRefused) => {
                "nobody listens there; is the daemon running?".to_owned()
            }
            (_, io::ErrorKind::TimedOut) => {
                format!("no answer within {} s; does it hang?", PROMPT.as_secs())
            }
            _ => error.to_string(),
        };
        Error::Unreachable(
            format!("cannot reach the daemon at {name}: {hint}"),
            error.kind(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let secret = Secret("abc".to_owned());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert!(!format!("{:?}", secret.header()).contains("abc"));
        assert!(Secret("a\nb".to_owned()).header().is_err());
    }

    #[test]
    fn addresses_are_sockets_or_http() {
        let tls = Files::default();
        for (text, good) in [
            ("system", true),
            ("unix:/run/x.sock", true),
            ("/run/x.sock", true),
            ("http://127.0.0.1:8377", true),
            ("http://127.0.0.1:8377/", true),
            ("http://a/b", false),
            ("https://127.0.0.1:1", true),
            ("https://a/b", false),
            ("ftp://127.0.0.1:1", false),
            ("127.0.0.1:8377", false),
            ("", false),
        ] {
            assert_eq!(Target::parse(text, &tls).is_ok(), good, "{text}");
        }
    }
}
