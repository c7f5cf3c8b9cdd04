//! Who a request is from and what they may do, with names looked up once: what
//! requests are judged by. Nothing a client says about itself counts; what
//! counts is the kernel's word, a secret, or a signature.

use std::collections::HashSet;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use nix::unistd::{Group, User, geteuid};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::ServerConfig;

use crate::clock;
use crate::engine::command::{Caller, Command};
use crate::engine::record::{Ask, Note};
use crate::model::event::Kind;
use crate::model::origin::Origin;
use crate::model::role::Role;
use crate::model::time::Time;

use super::options::{BadOptions, Options};
use super::peer::Peer;
use super::problem::Problem;
use super::{Shared, tls};

/// What somebody may do, and to whose tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// What.
    pub(super) role: Role,
    /// Whether tasks of others are open as well.
    everyone: bool,
}

impl Standing {
    /// The same with no more than a role. What is left of an admin is an admin
    /// or one who looks: whoever may change things and is no admin changes
    /// their own.
    fn at_most(self, most: Option<Role>) -> Self {
        let role = most.map_or(self.role, |most| most.min(self.role));
        let everyone = self.everyone && matches!(role, Role::Admin | Role::Read);
        Self { role, everyone }
    }
}

/// What a token or a certificate is good for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// Its name, for the log.
    pub(super) name: String,
    uid: u32,
    most: Option<Role>,
    /// From when on it is worth nothing.
    pub(super) expires: Option<Time>,
}

/// What a client over the network has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// The hash of a token.
    Token([u8; 32]),
    /// The names in a certificate that an authority of ours has signed.
    Names(Arc<[String]>),
}

/// Who asks.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) caller: Caller,
    pub(super) standing: Standing,
    /// Where it rests on something that can be taken back.
    pub(super) proof: Option<(Proof, Arc<Grant>)>,
}

impl Identity {
    fn new(
        uid: u32,
        standing: Standing,
        origin: Origin,
        proof: Option<(Proof, Arc<Grant>)>,
    ) -> Self {
        let caller = Caller {
            uid,
            admin: standing.everyone,
            origin,
        };
        Self {
            caller,
            standing,
            proof,
        }
    }
}

/// The options, with names looked up: what requests are judged by.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) options: Options,
    tokens: Vec<([u8; 32], Arc<Grant>)>,
    certificates: Vec<Arc<Grant>>,
    /// How TCP is encrypted; not at all without.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// The first of the server's certificates to expire, and when.
    pub(super) expiry: Option<Time>,
    admins: Names,
    readers: Names,
}

/// Users and groups of this host.
#[derive(Debug, Default)]
struct Names {
    users: HashSet<u32>,
    groups: HashSet<u32>,
}

impl Names {
    /// Looks up users and the members of groups. Membership is read once, here:
    /// it would otherwise cost a look-up in the host's user database with every
    /// request.
    fn look_up(key: &'static str, names: &[String]) -> Result<Self, BadOptions> {
        let mut found = Self::default();
        for name in names {
            let unknown = |kind, name: &str| BadOptions::Unknown {
                key,
                kind,
                name: name.to_owned(),
            };
            if let Some(name) = name.strip_prefix('@') {
                let group = Group::from_name(name).ok().flatten();
                let group = group.ok_or_else(|| unknown("group", name))?;
                found.groups.insert(group.gid.as_raw());
                for member in &group.mem {
                    if let Ok(Some(user)) = User::from_name(member) {
                        found.users.insert(user.uid.as_raw());
                    }
                }
            } else {
                let user = User::from_name(name).ok().flatten();
                let user = user.ok_or_else(|| unknown("user", name))?;
                found.users.insert(user.uid.as_raw());
            }
        }
        Ok(found)
    }

    fn hold(&self, uid: u32, gid: Option<u32>) -> bool {
        self.users.contains(&uid) || gid.is_some_and(|gid| self.groups.contains(&gid))
    }
}

impl Settings {
    /// Looks up what the options name.
    pub(super) fn resolve(options: Options) -> Result<Self, BadOptions> {
        let mut tokens = Vec::with_capacity(options.tokens.len());
        for token in &options.tokens {
            let hash = unhex(&token.sha256).ok_or_else(|| BadOptions::Token(token.name.clone()))?;
            let grant = Grant {
                name: token.name.clone(),
                uid: token.uid,
                most: token.role,
                expires: token.expires.map(|at| at.0),
            };
            tokens.push((hash, Arc::new(grant)));
        }
        let certificates = options.certificates.iter().map(|certificate| {
            Arc::new(Grant {
                name: certificate.name.clone(),
                uid: certificate.uid,
                most: certificate.role,
                expires: None,
            })
        });
        let certificates = certificates.collect();
        if !options.listen.is_empty() && !options.has_clients() {
            return Err(BadOptions::Tokenless);
        }
        let mut admins = Names::look_up("api.admins", &options.admins)?;
        admins.users.extend([0, geteuid().as_raw()]);
        Ok(Self {
            tokens,
            certificates,
            tls: tls::server(&options)?,
            expiry: tls::expiry(&options),
            admins,
            readers: Names::look_up("api.readers", &options.readers)?,
            options,
        })
    }

    fn standing(&self, uid: u32, gid: Option<u32>) -> Standing {
        let admin = self.admins.hold(uid, gid);
        let role = if admin {
            Role::Admin
        } else if self.readers.hold(uid, gid) {
            Role::Read
        } else {
            Role::Own
        };
        let everyone = role != Role::Own;
        Standing { role, everyone }
    }

    /// Whether a connection is an admin's, by the kernel's word alone.
    pub(super) fn is_admin(&self, peer: Peer) -> bool {
        matches!(peer, Peer::Unix { uid, gid, .. } if self.admins.hold(uid, Some(gid)))
    }

    /// Who a request is from.
    pub(super) fn identify(
        &self,
        peer: Peer,
        names: Option<&Arc<[String]>>,
        headers: &HeaderMap,
        mut origin: Origin,
        now: Time,
    ) -> Result<Identity, Problem> {
        match peer {
            Peer::Unix { uid, gid, pid } => {
                origin.pid = pid;
                let standing = self.standing(uid, Some(gid));
                Ok(Identity::new(uid, standing, origin, None))
            }
            Peer::Tcp(_) => {
                let proof = match names {
                    Some(names) => Proof::Names(Arc::clone(names)),
                    None => Proof::Token(bearer(headers)?),
                };
                self.vouch(proof, origin, now)
            }
        }
    }

    /// Whom a proof is good for now.
    pub(super) fn vouch(
        &self,
        proof: Proof,
        origin: Origin,
        now: Time,
    ) -> Result<Identity, Problem> {
        let grant = self.grant(&proof, now).map_err(refuse)?;
        let standing = self.standing(grant.uid, None).at_most(grant.most);
        let uid = grant.uid;
        Ok(Identity::new(uid, standing, origin, Some((proof, grant))))
    }

    /// What a proof is good for now, or why it is good for nothing.
    pub(super) fn grant(&self, proof: &Proof, now: Time) -> Result<Arc<Grant>, &'static str> {
        let (found, unknown) = match proof {
            Proof::Token(hash) => (self.of_token(hash), "this token is not known"),
            Proof::Names(names) => {
                let mut known = self.certificates.iter();
                let found = known.find(|grant| names.contains(&grant.name));
                (
                    found.map(Arc::clone),
                    "no name in this certificate is known here",
                )
            }
        };
        let grant = found.ok_or(unknown)?;
        if grant.expires.is_some_and(|at| at <= now) {
            return Err("this token has expired");
        }
        Ok(grant)
    }

    /// Every token is compared in full, so that time tells nothing.
    fn of_token(&self, hash: &[u8; 32]) -> Option<Arc<Grant>> {
        let found = self.tokens.iter().fold(None, |found, (known, grant)| {
            let differing = known.iter().zip(hash).fold(0, |sum, (a, b)| sum | (a ^ b));
            if differing == 0 { Some(grant) } else { found }
        });
        found.map(Arc::clone)
    }
}

/// What somebody may do who need not say who that is, where it is known. A
/// proof that is wrong counts like one that was tried where it is needed.
pub(super) fn known(
    shared: &Shared,
    peer: Peer,
    names: Option<&Arc<[String]>>,
    headers: &HeaderMap,
) -> Option<Standing> {
    if matches!(peer, Peer::Tcp(_)) {
        let shows = names.is_some() || headers.contains_key(AUTHORIZATION);
        if !shows || shared.attempts.wait(peer.key()).is_some() {
            return None;
        }
    }
    let settings = Arc::clone(&shared.settings.borrow());
    let found = settings.identify(peer, names, headers, Origin::NONE, clock::now());
    let found = found.inspect_err(|_| shared.attempts.fail(peer.key()));
    found.ok().map(|found| found.standing)
}

fn refuse(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

/// The hash of the secret that a request shows.
fn bearer(headers: &HeaderMap) -> Result<[u8; 32], Problem> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let first = all
        .next()
        .ok_or_else(|| refuse("a token is needed: send `Authorization: Bearer …`"))?;
    if all.next().is_some() {
        return Err(refuse("more than one `Authorization` header"));
    }
    let secret = first
        .as_bytes()
        .split_at_checked(7)
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
        .map(|(_, secret)| secret.trim_ascii())
        .ok_or_else(|| refuse("only `Authorization: Bearer …` is understood"))?;
    Ok(Sha256::digest(secret).into())
}

/// Puts on the record that somebody was turned away. Those who are turned away
/// all the time do not fill it: what is more than a bound a minute is left out.
pub(super) fn deny(shared: &Shared, actor: Option<u32>, origin: Origin, why: &Value) {
    if !shared.attempts.may_record() {
        return;
    }
    let note = Ask::Note(Note {
        kind: Kind::Denied,
        actor,
        origin,
        data: why.clone(),
        reply: None,
    });
    // An engine with no room for it has more important things to keep.
    let _full = shared
        .handle
        .commands()
        .try_send(Command::Record(note))
        .is_err();
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
    use std::net::{IpAddr, Ipv4Addr};

    use hyper::header::HeaderValue;

    use super::super::number::Stamp;
    use super::super::options::{Certificate, Token};
    use super::*;

    /// SHA-256 of "abc", from FIPS 180-4.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn token(uid: u32, role: Option<Role>, expires: Option<i64>) -> Token {
        Token {
            name: "ci".to_owned(),
            sha256: ABC.to_owned(),
            uid,
            role,
            expires: expires.map(|at| Stamp(Time::from_micros(at))),
        }
    }

    fn with(tokens: Vec<Token>) -> Settings {
        Settings::resolve(Options {
            tokens,
            certificates: vec![Certificate {
                name: "alice.example".to_owned(),
                uid: 7,
                role: None,
            }],
            ..Options::default()
        })
        .unwrap()
    }

    fn identify(
        settings: &Settings,
        names: Option<&[&str]>,
        header: Option<&str>,
        now: i64,
    ) -> Result<Identity, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        }
        let names = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let peer = Peer::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let now = Time::from_micros(now);
        settings.identify(peer, names.as_ref(), &headers, Origin::NONE, now)
    }

    #[test]
    fn a_bearer_acts_as_its_user_and_anything_else_is_turned_away() {
        let settings = with(vec![token(4242, None, None)]);
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
            let found = identify(&settings, None, header, 0);
            assert_eq!(found.ok().map(|one| one.caller.uid), uid, "{header:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer abc"));
        assert!(bearer(&twice).is_err());
    }

    #[test]
    fn a_token_ends_at_its_time_and_gives_at_most_its_role() {
        let brief = with(vec![token(0, None, Some(1_000))]);
        assert!(identify(&brief, None, Some("Bearer abc"), 999).is_ok());
        assert!(identify(&brief, None, Some("Bearer abc"), 1_000).is_err());
        for (uid, most, role, everyone) in [
            (0, None, Role::Admin, true),
            (0, Some(Role::Admin), Role::Admin, true),
            (0, Some(Role::Own), Role::Own, false),
            (0, Some(Role::Submit), Role::Submit, false),
            (0, Some(Role::Read), Role::Read, true),
            (4242, None, Role::Own, false),
            (4242, Some(Role::Admin), Role::Own, false),
            (4242, Some(Role::Read), Role::Read, false),
        ] {
            let settings = with(vec![token(uid, most, None)]);
            let found = identify(&settings, None, Some("Bearer abc"), 0).unwrap();
            let what = format!("{uid} {most:?}");
            assert_eq!(found.standing, Standing { role, everyone }, "{what}");
            assert_eq!(found.caller.admin, everyone, "{what}");
            assert!(
                !everyone || role != Role::Own && role != Role::Submit,
                "{what}"
            );
        }
    }

    #[test]
    fn a_certificate_is_known_by_a_whole_name_and_no_token_helps_it() {
        let settings = with(vec![token(4242, None, None)]);
        for (names, uid) in [
            (&["alice.example"][..], Some(7)),
            (&["other.example", "alice.example"], Some(7)),
            (&["alice.example.org"], None),
            (&["xalice.example"], None),
            (&["*.example"], None),
            (&["ALICE.example"], None),
            (&[], None),
        ] {
            let found = identify(&settings, Some(names), Some("Bearer abc"), 0);
            assert_eq!(found.ok().map(|one| one.caller.uid), uid, "{names:?}");
        }
    }

    #[test]
    fn root_and_the_daemon_itself_are_admins_and_others_are_not() {
        let settings = Settings::resolve(Options::default()).unwrap();
        let own = geteuid().as_raw();
        for (uid, role) in [(0, Role::Admin), (own, Role::Admin), (54_321, Role::Own)] {
            let (gid, pid) = (54_321, Some(9));
            let peer = Peer::Unix { uid, gid, pid };
            let found = settings
                .identify(peer, None, &HeaderMap::new(), Origin::NONE, Time::default())
                .unwrap();
            assert_eq!((found.caller.uid, found.standing.role), (uid, role));
            assert_eq!(found.caller.admin, role == Role::Admin);
            assert_eq!(found.caller.origin.pid, Some(9));
        }
    }

    #[test]
    fn options_that_cannot_be_obeyed_are_refused() {
        let address = "127.0.0.1:1".parse().unwrap();
        let none = std::path::PathBuf::from("/no/such/file");
        let rows = [
            Options {
                admins: vec!["no-such-user-here".to_owned()],
                ..Options::default()
            },
            Options {
                readers: vec!["@no-such-group-here".to_owned()],
                ..Options::default()
            },
            Options {
                listen: vec![address],
                ..Options::default()
            },
            Options {
                tokens: vec![Token {
                    sha256: "abc".to_owned(),
                    ..token(1, None, None)
                }],
                ..Options::default()
            },
            Options {
                tls_certificate: Some(none.clone()),
                ..Options::default()
            },
            Options {
                tls_certificate: Some(none.clone()),
                tls_key: Some(none.clone()),
                ..Options::default()
            },
            Options {
                tls_client_ca: Some(none),
                ..Options::default()
            },
        ];
        for options in rows {
            assert!(Settings::resolve(options.clone()).is_err(), "{options:?}");
        }
    }
}
