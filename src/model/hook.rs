//! Hooks: what is run, or told, when a task comes to its end.
//!
//! A hook becomes a task of its own (`engine/hooks.rs`), so that it is kept,
//! tried again, shown and cancelled as any other.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, Mac as _};
use schemars::JsonSchema;
use serde::de::value::{SeqAccessDeserializer, StrDeserializer};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::Sha256;

use super::time::Time;

/// The queue in which hooks wait, and nothing else.
pub const QUEUE: &str = "hooks";
/// Most hooks in one place: of one task, or of one queue.
pub const MOST: usize = 8;
/// Longest address of a webhook, in bytes.
const URL_MAX: usize = 2048;

/// What happens when a task is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The ends at which it happens.
    #[serde(default, skip_serializing_if = "Ends::is_empty")]
    pub on: Ends,
    /// What happens.
    #[serde(flatten)]
    pub act: Act,
}

/// What a hook does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Runs this program with these arguments.
    Command(Vec<String>),
    /// Sends a POST request to this address.
    Webhook(String),
}

/// How a task can be over: its final states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Exit code 0.
    Succeeded,
    /// Every attempt failed.
    Failed,
    /// Cancelled.
    Cancelled,
    /// A task it depends on failed.
    Skipped,
    /// Not started in time.
    Expired,
}

impl End {
    /// The word of the state.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Expired => "expired",
        }
    }
}

/// Some ways to be over; all of them when none is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ends(pub Vec<End>);

impl Ends {
    /// Whether none is named.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this end is one of them.
    #[must_use]
    pub fn include(&self, end: End) -> bool {
        self.0.is_empty() || self.0.contains(&end)
    }
}

impl FromStr for Ends {
    type Err = serde::de::value::Error;

    /// Reads `failed,cancelled`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = text.split(',').map(str::trim);
        let words = words.filter(|_| !text.trim().is_empty());
        let end = |word| End::deserialize(StrDeserializer::new(word));
        words.map(end).collect::<Result<_, _>>().map(Self)
    }
}

impl<'de> Deserialize<'de> for Ends {
    /// Reads a list of words, or one text with commas.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Ends;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of final states, such as [\"failed\"]")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ends, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Ends, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Ends)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Says why an address cannot be a webhook's, if it cannot: it has to be
/// `http` or `https`, name a host and nobody's password, and be written in the
/// characters that RFC 3986 allows.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    if url.len() > URL_MAX {
        return Err("is longer than 2048 bytes");
    }
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .ok_or("must begin with `https://` or `http://`")?;
    if rest.contains('#') {
        return Err("must not have a fragment: no server would see it");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%[]".contains(&b);
    if !rest.bytes().all(plain) {
        return Err("has a character that must be written as `%` and two hexadecimal digits");
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err("must not have a user or password in it");
    }
    if path.contains(['[', ']']) {
        return Err("has a bracket that must be written as %5B or %5D");
    }
    let mut escapes = path.split('%').skip(1).map(str::as_bytes);
    if !escapes.all(|rest| {
        rest.iter()
            .take(2)
            .filter(|b| b.is_ascii_hexdigit())
            .count()
            == 2
    }) {
        return Err("has a `%` without two hexadecimal digits");
    }
    check_authority(authority)
}

/// Checks `host`, `host:port`, `[address]` or `[address]:port`.
fn check_authority(authority: &str) -> Result<(), &'static str> {
    let bracketed = authority.strip_prefix('[');
    let (good, port) = if let Some(rest) = bracketed {
        let (address, port) = rest.split_once(']').ok_or("has a `[` without its `]`")?;
        (address.parse::<core::net::Ipv6Addr>().is_ok(), port)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        let word = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let fits = (1..=253).contains(&host.len()) && !host.starts_with(['.', '-']);
        (fits && host.bytes().all(word), port)
    };
    if !good {
        return Err("names no host: write it as https://example.org/path");
    }
    let number = port.strip_prefix(':').unwrap_or("80");
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    match number.parse::<u16>() {
        Ok(1..) if digits && (port.is_empty() || port.starts_with(':')) => Ok(()),
        Ok(_) | Err(_) => Err("has a port that is not a number from 1 to 65535"),
    }
}

/// What webhooks are signed with. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret of these bytes.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The signature of a body sent at a time: `t=SECONDS,v1=HEX`, where HEX
    /// is the HMAC-SHA256 of `SECONDS.BODY`.
    #[must_use]
    pub fn sign(&self, at: Time, body: &str) -> String {
        let seconds = at.micros().div_euclid(1_000_000);
        // A key of any length is one: there is no other error.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return String::new();
        };
        mac.update(format!("{seconds}.{body}").as_bytes());
        let sum = mac.finalize().into_bytes();
        let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t={seconds},v1={hex}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_judged_strictly() {
        for good in [
            "https://example.org",
            "http://example.org:8080/a/b?c=d&e=%20",
            "https://[::1]:443/x",
            "http://127.0.0.1/",
            "https://hooks.example.org?x=1",
            "http://[2001:db8::1]",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        let long = format!("https://example.org/{}", "x".repeat(URL_MAX));
        for (bad, why) in [
            ("", "must begin"),
            ("example.org", "must begin"),
            ("ftp://example.org", "must begin"),
            ("HTTPS://example.org", "must begin"),
            ("file:///etc/passwd", "must begin"),
            ("https:///path", "no host"),
            ("https://", "no host"),
            ("https://?x", "no host"),
            ("https://-x.org/", "no host"),
            ("https://a%62c/", "no host"),
            ("https://user@example.org/", "user or password"),
            ("https://user:pw@example.org/", "user or password"),
            ("https://example.org/#part", "fragment"),
            ("https://example.org/a b", "hexadecimal"),
            ("https://example.org/a\r\nX: y", "hexadecimal"),
            ("https://example.org/\u{e9}", "hexadecimal"),
            ("https://ex\u{e4}mple.org/", "hexadecimal"),
            ("https://example.org/%zz", "two hexadecimal"),
            ("https://example.org/%4", "two hexadecimal"),
            ("https://example.org/[x]", "%5B"),
            ("https://example.org:/", "port"),
            ("https://example.org:0/", "port"),
            ("https://example.org:65536/", "port"),
            ("https://example.org:+80/", "port"),
            ("https://a:b:80/", "port"),
            ("https://[::1/", "without its"),
            ("https://[example.org]/", "no host"),
            ("https://[::1]80/", "port"),
            (long.as_str(), "2048"),
        ] {
            let told = check_url(bad).expect_err(bad);
            assert!(told.contains(why), "{bad:?}: {told}");
        }
    }

    #[test]
    fn ends_are_a_list_or_a_text_and_nothing_else() {
        let read = |json: &str| serde_json::from_str::<Ends>(json);
        let both = Ends(vec![End::Failed, End::Cancelled]);
        assert_eq!(read(r#"["failed","cancelled"]"#).expect("a list"), both);
        assert_eq!(read(r#""failed, cancelled""#).expect("a text"), both);
        assert_eq!(read("[]").expect("a list"), Ends::default());
        assert_eq!(read(r#""""#).expect("a text"), Ends::default());
        for bad in [r#"["running"]"#, r#""failed,""#, "3", "null", "[3]", "{}"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let told = read(r#"["done"]"#).expect_err("no state").to_string();
        assert!(told.contains("`succeeded`"), "{told}");
        assert!(both.include(End::Failed) && !both.include(End::Succeeded));
        assert!(Ends::default().include(End::Skipped));
    }

    #[test]
    fn a_hook_is_stored_as_it_is_written() {
        for text in [
            r#"{"on":["failed"],"command":["a","b"]}"#,
            r#"{"webhook":"https://example.org"}"#,
        ] {
            let hook: Hook = serde_json::from_str(text).expect(text);
            assert_eq!(serde_json::to_string(&hook).expect("json"), text);
        }
    }

    /// The expected sum was made with `openssl dgst -sha256 -hmac`.
    #[test]
    fn the_signature_is_the_one_that_others_compute() {
        let at = Time::from_micros(1_700_000_000_999_999);
        let signature = Secret::new(b"Jefe".to_vec()).sign(at, "{\"id\":1}");
        let sum = "05b728475104591e6ba9301ccd86c0f18c79ea7330ef9b9869435607a745d2bf";
        assert_eq!(signature, format!("t=1700000000,v1={sum}"));
        assert!(!format!("{:?}", Secret::new(b"Jefe".to_vec())).contains("Jefe"));
    }
}
