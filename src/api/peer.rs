//! Who is at the other end, and what they may do: the kernel's word on a unix
//! socket, a bearer token on TCP. Nothing a client says about itself counts.

use std::collections::HashSet;
use std::net::IpAddr;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use nix::unistd::{Group, User, geteuid};
use sha2::{Digest, Sha256};

use crate::engine::command::Caller;

use super::options::{BadOptions, Options};
use super::problem::Problem;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of this host, as the kernel knows it.
    Unix {
        /// Its effective user at the time it connected.
        uid: u32,
        /// Its effective group.
        gid: u32,
    },
    /// An address.
    Tcp(IpAddr),
}

/// What connections are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PeerKey {
    User(u32),
    /// An IPv4 address, or the /64 network that one IPv6 client has to itself.
    Address(u64),
}

impl Peer {
    pub(super) fn key(self) -> PeerKey {
        match self {
            Self::Unix { uid, .. } => PeerKey::User(uid),
            Self::Tcp(address) => match address.to_canonical() {
                IpAddr::V4(v4) => PeerKey::Address(u64::from(v4.to_bits())),
                IpAddr::V6(v6) => PeerKey::Address((v6.to_bits() >> 64) as u64),
            },
        }
    }
}

/// The options, with names looked up: what requests are judged by.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) options: Options,
    tokens: Vec<([u8; 32], u32)>,
    admins: HashSet<u32>,
    admin_groups: HashSet<u32>,
}

impl Settings {
    /// Looks up what the options name.
    pub(super) fn resolve(options: Options) -> Result<Self, BadOptions> {
        let mut tokens = Vec::with_capacity(options.tokens.len());
        for token in &options.tokens {
            let hash = unhex(&token.sha256).ok_or_else(|| BadOptions::Token(token.name.clone()))?;
            tokens.push((hash, token.uid));
        }
        if !options.listen.is_empty() && tokens.is_empty() {
            return Err(BadOptions::Tokenless);
        }
        let mut settings = Self {
            tokens,
            admins: HashSet::from([0, geteuid().as_raw()]),
            admin_groups: HashSet::new(),
            options,
        };
        for name in settings.options.admins.clone() {
            settings.admit(&name)?;
        }
        Ok(settings)
    }

    /// Makes a user, or the members of a group, admins. Membership is read
    /// once, here: it would otherwise cost a look-up in the host's user
    /// database with every request.
    fn admit(&mut self, name: &str) -> Result<(), BadOptions> {
        let unknown = |kind, name: &str| BadOptions::Unknown {
            kind,
            name: name.to_owned(),
        };
        if let Some(group) = name.strip_prefix('@') {
            let found = Group::from_name(group).ok().flatten();
            let found = found.ok_or_else(|| unknown("group", group))?;
            self.admin_groups.insert(found.gid.as_raw());
            for member in &found.mem {
                if let Ok(Some(user)) = User::from_name(member) {
                    self.admins.insert(user.uid.as_raw());
                }
            }
            return Ok(());
        }
        let user = User::from_name(name).ok().flatten();
        let user = user.ok_or_else(|| unknown("user", name))?;
        self.admins.insert(user.uid.as_raw());
        Ok(())
    }

    /// Who a request is from.
    pub(super) fn caller(&self, peer: Peer, headers: &HeaderMap) -> Result<Caller, Problem> {
        let (uid, group) = match peer {
            Peer::Unix { uid, gid } => (uid, Some(gid)),
            Peer::Tcp(_) => (self.bearer(headers)?, None),
        };
        let admin =
            self.admins.contains(&uid) || group.is_some_and(|gid| self.admin_groups.contains(&gid));
        Ok(Caller { uid, admin })
    }

    /// Whether this peer is let in when nobody else is.
    pub(super) fn is_admin(&self, peer: Peer) -> bool {
        match peer {
            Peer::Unix { uid, .. } => self.admins.contains(&uid),
            Peer::Tcp(_) => false,
        }
    }

    fn bearer(&self, headers: &HeaderMap) -> Result<u32, Problem> {
        let refuse = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        let secret = headers
            .get(AUTHORIZATION)
            .ok_or_else(|| refuse("a token is needed: send `Authorization: Bearer …`"))?
            .as_bytes()
            .split_at_checked(7)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map(|(_, secret)| secret.trim_ascii())
            .ok_or_else(|| refuse("only `Authorization: Bearer …` is understood"))?;
        let hash: [u8; 32] = Sha256::digest(secret).into();
        // Every token is compared in full, so that time tells nothing.
        let found = self.tokens.iter().fold(None, |found, (known, uid)| {
            let differing = known.iter().zip(&hash).fold(0, |sum, (a, b)| sum | (a ^ b));
            if differing == 0 { Some(*uid) } else { found }
        });
        found.ok_or_else(|| refuse("this token is not known"))
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |place: usize| char::from(digits[place]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::options::Token;
    use super::*;
    use hyper::header::HeaderValue;
    use std::net::Ipv4Addr;

    fn with_token() -> Settings {
        let token = Token {
            name: "ci".to_owned(),
            // SHA-256 of "abc", from FIPS 180-4.
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned(),
            uid: 4242,
        };
        Settings::resolve(Options {
            tokens: vec![token],
            ..Options::default()
        })
        .unwrap()
    }

    #[test]
    fn a_bearer_acts_as_its_user_and_anything_else_is_turned_away() {
        let settings = with_token();
        let peer = Peer::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        for (header, uid) in [
            (Some("Bearer abc"), Some(4242)),
            (Some("bearer abc"), Some(4242)),
            (Some("Bearer abd"), None),
            (Some("Bearer "), None),
            (Some("Bearer"), None),
            (Some("Basic YWJj"), None),
            (Some(""), None),
            (None, None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(AUTHORIZATION, HeaderValue::from_static(header));
            }
            let caller = settings.caller(peer, &headers);
            assert_eq!(caller.ok().map(|c| c.uid), uid, "{header:?}");
        }
    }

    #[test]
    fn root_and_the_daemon_itself_are_admins_and_others_are_not() {
        let settings = Settings::resolve(Options::default()).unwrap();
        let own = geteuid().as_raw();
        for (uid, admin) in [(0, true), (own, true), (54_321, false)] {
            let peer = Peer::Unix { uid, gid: 54_321 };
            let caller = settings.caller(peer, &HeaderMap::new()).unwrap();
            assert_eq!((caller.uid, caller.admin), (uid, admin));
        }
    }

    #[test]
    fn options_that_cannot_be_obeyed_are_refused() {
        let address = "127.0.0.1:1".parse().unwrap();
        let rows = [
            Options {
                admins: vec!["no-such-user-here".to_owned()],
                ..Options::default()
            },
            Options {
                admins: vec!["@no-such-group-here".to_owned()],
                ..Options::default()
            },
            Options {
                listen: vec![address],
                ..Options::default()
            },
            Options {
                tokens: vec![Token {
                    name: "x".to_owned(),
                    sha256: "abc".to_owned(),
                    uid: 1,
                }],
                ..Options::default()
            },
        ];
        for options in rows {
            assert!(Settings::resolve(options.clone()).is_err(), "{options:?}");
        }
    }
}
