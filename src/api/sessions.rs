//! Sessions of browsers, which cannot send a token by themselves: a cookie
//! stands for the token that was shown at the sign-in, with what that token may
//! do at each moment, for half a day at most.
//!
//! They live in this process: whoever is signed in signs in again after a
//! restart. What is kept of a cookie is its hash.

use std::collections::BTreeMap;
use std::time::Duration;

use hmac::{Hmac, Mac as _};
use hyper::header::{COOKIE, HeaderMap};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::ring;

use crate::clock;
use crate::model::time::Time;

/// Name of the cookie.
const NAME: &str = "taskdaemon";
/// How long a session lasts.
const LENGTH: Duration = Duration::from_secs(12 * 3600);
/// Most sessions of one token: one more ends the oldest of them.
const MOST: usize = 32;
/// Longest time after which a session's end is noticed, whatever is done to the
/// clock meanwhile.
const LOOK: Duration = Duration::from_secs(2);

/// The hash of a cookie.
pub(super) type Id = [u8; 32];

/// A browser that has signed in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    /// The hash of its token.
    token: [u8; 32],
    until: Time,
}

/// All that are signed in.
pub(super) struct Sessions {
    /// Makes what only this process can make.
    key: [u8; 32],
    open: watch::Sender<BTreeMap<Id, Session>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    /// Nobody is signed in; none when this host gives no random numbers.
    pub(super) fn new() -> Option<Self> {
        Some(Self {
            key: random()?,
            open: watch::Sender::new(BTreeMap::new()),
        })
    }

    /// Signs a browser in by the hash of a token, and says what its cookie is;
    /// none when this host gives no random numbers.
    pub(super) fn begin(&self, token: [u8; 32], is_secure: bool) -> Option<String> {
        let value = hex(&random()?);
        let now = clock::now();
        let session = Session {
            token,
            until: now.after(LENGTH),
        };
        self.open.send_modify(|open| {
            open.retain(|_, session| session.until > now);
            let mine = open.iter().filter(|(_, session)| session.token == token);
            if mine.clone().count() >= MOST
                && let Some((id, _)) = mine.min_by_key(|(_, session)| session.until)
            {
                let id = *id;
                open.remove(&id);
            }
            open.insert(Sha256::digest(&value).into(), session);
        });
        Some(cookie(&value, LENGTH, is_secure))
    }

    /// The session that a request belongs to, and the hash of its token.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<(Id, [u8; 32])> {
        let id = Sha256::digest(shown(headers)?).into();
        let open = self.open.borrow();
        let session = open.get(&id)?;
        (session.until > clock::now()).then_some((id, session.token))
    }

    /// Signs a browser out, and says what makes it forget its cookie.
    pub(super) fn end(&self, id: Option<Id>, is_secure: bool) -> String {
        if let Some(id) = id {
            self.open.send_modify(|open| {
                open.remove(&id);
            });
        }
        cookie("", Duration::ZERO, is_secure)
    }

    /// Returns when a session is over.
    pub(super) async fn over(mut open: watch::Receiver<BTreeMap<Id, Session>>, id: Id) {
        loop {
            let now = clock::now();
            let until = open.borrow_and_update().get(&id).map(|one| one.until);
            let Some(until) = until.filter(|until| *until > now) else {
                return;
            };
            if let Ok(Err(_)) = timeout(until.since(now).min(LOOK), open.changed()).await {
                // The server is gone, and so will this request be.
                return std::future::pending().await;
            }
        }
    }

    /// What tells when sessions end.
    pub(super) fn watch(&self) -> watch::Receiver<BTreeMap<Id, Session>> {
        self.open.subscribe()
    }

    /// A mark that only this process can put on a text.
    pub(super) fn mark(&self, text: &str) -> String {
        // HMAC takes keys of every length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            return String::new();
        };
        mac.update(text.as_bytes());
        hex(&mac.finalize().into_bytes())
    }
}

fn cookie(value: &str, age: Duration, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    let age = age.as_secs();
    format!("{NAME}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}")
}

/// The cookie that a request shows; none when there are two, since whoever can
/// add one must not choose.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter();
    let mut own = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == NAME)
        .map(|(_, value)| value);
    own.next().filter(|_| own.next().is_none())
}

fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let random = ring::default_provider().secure_random;
    random.fill(&mut bytes).ok()?;
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(cookie).unwrap());
        headers
    }

    /// What a browser sends of a cookie.
    fn sent(cookie: &str) -> HeaderMap {
        headers(cookie.split(';').next().unwrap())
    }

    #[test]
    fn a_session_is_its_cookies_until_it_is_ended() {
        let sessions = Sessions::new().unwrap();
        let first = sent(&sessions.begin([1; 32], false).unwrap());
        let second = sent(&sessions.begin([2; 32], false).unwrap());
        let (id, token) = sessions.of(&first).unwrap();
        assert_eq!(token, [1; 32]);
        assert_eq!(sessions.of(&second).unwrap().1, [2; 32]);
        sessions.end(Some(id), false);
        assert_eq!(sessions.of(&first), None);
        assert!(sessions.of(&second).is_some());
        for bad in ["", "taskdaemon=", "taskdaemon=ab", "x=y"] {
            assert_eq!(sessions.of(&headers(bad)), None, "{bad}");
        }
        let good = second.get(COOKIE).unwrap().to_str().unwrap();
        let doubled = headers(&format!("{good}; {good}"));
        assert_eq!(sessions.of(&doubled), None, "two of one name");
    }

    #[test]
    fn one_token_has_so_many_sessions_and_no_more() {
        let sessions = Sessions::new().unwrap();
        let other = sent(&sessions.begin([9; 32], false).unwrap());
        let all: Vec<_> = (0..=MOST)
            .map(|_| sent(&sessions.begin([1; 32], false).unwrap()))
            .collect();
        let alive = all.iter().filter(|one| sessions.of(one).is_some());
        assert_eq!(alive.count(), MOST);
        assert!(sessions.of(&other).is_some(), "others lose nothing");
    }

    #[test]
    fn cookies_are_for_this_site_and_no_script() {
        let sessions = Sessions::new().unwrap();
        for is_secure in [false, true] {
            let cookie = sessions.begin([1; 32], is_secure).unwrap();
            assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
            assert_eq!(cookie.contains("; Secure"), is_secure, "{cookie}");
        }
        assert!(sessions.end(None, false).contains("Max-Age=0"));
    }

    #[test]
    fn marks_are_of_one_text_and_one_process() {
        let (one, other) = (Sessions::new().unwrap(), Sessions::new().unwrap());
        assert_eq!(one.mark("a"), one.mark("a"));
        assert_ne!(one.mark("a"), one.mark("b"));
        assert_ne!(one.mark("a"), other.mark("a"));
    }
}
