//! `token`: a secret for the API over TCP, and what the configuration keeps of
//! it. Nothing is written anywhere: who may come in is for whoever may change
//! the configuration to say.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use nix::unistd::{User, geteuid};
use sha2::{Digest as _, Sha256};

use crate::api::number::{Stamp, parse_time};
use crate::api::options::Token;
use crate::clock;
use crate::model::quantity::parse_duration;
use crate::model::role::Role;

use super::{Failure, Outcome, Setting};

/// Bytes of a secret: 256 bits, of which nothing can be guessed.
const BYTES: usize = 32;

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make one: the secret is printed once, on standard error, and its lines for the
    /// configuration on standard output
    New(New),
}

/// A token to be made.
#[derive(Debug, Args)]
pub(super) struct New {
    /// What it is called in logs and events
    #[arg(value_name = "NAME", value_parser = name)]
    name: String,
    /// Whom its bearer acts as: a user's name or number [default: you, unless you are root]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The most its bearer may do: read, submit, own or admin [default: all that the user may]
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Option<Role>,
    /// When it ends: a time such as 2027-01-01T00:00:00Z, or how long it lasts, such as 90d
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Stamp>,
}

fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=64).contains(&text.len()) && text.chars().all(fits) && !text.starts_with('-') {
        return Ok(text.to_owned());
    }
    Err("must be letters, digits, `.`, `_` and `-`, at most 64".to_owned())
}

fn role(word: &str) -> Result<Role, String> {
    Role::from_word(word).ok_or_else(|| {
        let words = Role::ALL.map(Role::word).join(", ");
        format!("must be one of {words}")
    })
}

fn expiry(text: &str) -> Result<Stamp, String> {
    let now = clock::now();
    let at = match parse_time(text) {
        Some(at) => at,
        None => now.after(parse_duration(text).map_err(|_| {
            "must be a time such as 2027-01-01T00:00:00Z, or a duration such as 90d".to_owned()
        })?),
    };
    if at <= now.after(Duration::from_secs(1)) {
        return Err("lies in the past".to_owned());
    }
    Ok(Stamp(at))
}

fn uid(user: Option<&str>) -> Result<u32, Failure> {
    let own = geteuid().as_raw();
    match user {
        None if own == 0 => Err(Failure::Usage(
            "say whom the token stands for, with --user: one for root may do everything".to_owned(),
        )),
        None => Ok(own),
        Some(text) => {
            if let Ok(uid) = text.parse() {
                return Ok(uid);
            }
            let user = User::from_name(text).ok().flatten();
            user.map(|user| user.uid.as_raw())
                .ok_or_else(|| Failure::Usage(format!("there is no user `{text}` on this host")))
        }
    }
}

/// `token`.
pub(super) fn token(verb: Verb, setting: &Setting) -> Outcome {
    let Verb::New(asked) = verb;
    let uid = uid(asked.user.as_deref())?;
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let secret = hex(&bytes);
    let token = Token {
        name: asked.name,
        sha256: hex(&Sha256::digest(&secret)),
        uid,
        role: asked.role,
        expires: asked.expires,
    };
    let mut out = io::stdout().lock();
    if setting.json {
        let answer = serde_json::json!({ "secret": secret, "token": token });
        writeln!(out, "{answer}")?;
        return Ok(0);
    }
    let lines = toml::to_string(&token).map_err(io::Error::other)?;
    write!(out, "[[api.tokens]]\n{lines}")?;
    out.flush()?;
    let mut err = io::stderr().lock();
    writeln!(
        err,
        "the secret, which is kept nowhere: {secret}\n\
         put the lines above into a file such as /etc/taskdaemon/conf.d/tokens.toml, for root and \
         group taskdaemon alone (mode 0640), and `systemctl reload taskdaemon`"
    )?;
    Ok(0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
