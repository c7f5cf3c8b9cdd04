//! Values that have the right type and still make no sense.
//!
//! Ranges, paths, addresses, and settings that contradict each other. Whether
//! a user, a directory or a free port exists is for the one who uses it.

use std::collections::HashSet;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::{Config, daemon, llm, traces};
use crate::api::options::{Options as Api, Token};
use crate::model::check as rules;
use crate::model::quantity::{ByteSize, format_duration};
use crate::telemetry;

/// What systemd grants for a stop (`TimeoutStopSec=` of the unit), less what
/// the end takes after the last request.
const DRAIN_MAX: Duration = Duration::from_secs(25);
/// Longest name of a socket in the file system.
const SOCKET_MAX: usize = 107;
/// Longest path.
const PATH_MAX: usize = 4096;
pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// Shortest time-out for clients; below it honest ones are cut off.
pub(super) const PATIENCE_MIN: Duration = Duration::from_millis(100);
/// Length of a SHA-256 in hex.
const SHA256_HEX: usize = 64;

/// A setting that makes no sense.
#[derive(Debug)]
pub(super) struct Found {
    /// Its key.
    pub(super) key: &'static str,
    /// The key it contradicts, if it does: one of the two was written by
    /// somebody, the other may be a default.
    pub(super) against: Option<&'static str>,
    /// What is wrong.
    pub(super) message: String,
    /// What would be right, if that is known.
    pub(super) suggestion: Option<String>,
}

impl Found {
    fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self {
            key,
            against: None,
            message: message.into(),
            suggestion: None,
        }
    }

    fn suggest(mut self, suggestion: &str) -> Self {
        self.suggestion = Some(suggestion.to_owned());
        self
    }

    fn against(mut self, key: &'static str) -> Self {
        self.against = Some(key);
        self
    }
}

pub(super) fn found<T>(key: &'static str, message: impl Into<String>) -> Result<T, Found> {
    Err(Found::new(key, message))
}

/// Checks everything, in the order of the file.
pub(super) fn check(config: &Config) -> Result<(), Found> {
    directory("state_dir", &config.state_dir)?;
    directory("runtime_dir", &config.runtime_dir)?;
    telemetry::check(&config.log).or_else(|bad| found("log", bad.to_string()))?;
    api(config)?;
    engine(config)?;
    hooks(config)?;
    llm::check(&config.llm)?;
    daemon::check(&config.daemon)?;
    traces::check(&config.traces)?;
    sockets(config)?;
    size(
        "run.output_cap",
        config.run.output_cap,
        ByteSize::kib(4),
        ByteSize::mib(1 << 20),
    )?;
    size(
        "store.wal_limit",
        config.store.wal_limit,
        ByteSize::mib(1),
        ByteSize::mib(1 << 14),
    )?;
    size(
        "store.ballast",
        config.store.ballast,
        ByteSize(0),
        ByteSize::mib(1 << 14),
    )?;
    size(
        "store.low_water",
        config.store.low_water,
        ByteSize(0),
        ByteSize::mib(1 << 20),
    )
}

/// The sockets of running, each a place of its own.
fn sockets(config: &Config) -> Result<(), Found> {
    let (api, runner) = ("api.socket", "run.runner_socket");
    let run = &config.run;
    socket(runner, &run.runner_socket)?;
    socket("run.report_socket", &run.report_socket)?;
    let same = |key, other| Found::new(key, format!("is the same as {other}")).against(other);
    if run.runner_socket == config.api.socket {
        return Err(same(runner, api));
    }
    for (other, path) in [(api, &config.api.socket), (runner, &run.runner_socket)] {
        if run.report_socket == *path {
            return Err(same("run.report_socket", other));
        }
    }
    Ok(())
}

fn api(config: &Config) -> Result<(), Found> {
    let api = &config.api;
    socket("api.socket", &api.socket)?;
    let mut seen = HashSet::new();
    for address in &api.listen {
        if address.port() == 0 {
            return found(
                "api.listen",
                format!("{address} has no port of its own: 0 is another at each start"),
            );
        }
        if !seen.insert(address) {
            return found("api.listen", format!("{address} is there twice"));
        }
    }
    tokens(&api.tokens)?;
    network(api)?;
    people("api.admins", &api.admins)?;
    people("api.readers", &api.readers)?;
    time("api.header_timeout", api.header_timeout, PATIENCE_MIN, HOUR)?;
    size(
        "api.body_max",
        api.body_max,
        ByteSize::kib(1),
        ByteSize::mib(64),
    )?;
    time("api.body_timeout", api.body_timeout, PATIENCE_MIN, HOUR)?;
    time(
        "api.idle_timeout",
        api.idle_timeout,
        PATIENCE_MIN,
        24 * HOUR,
    )?;
    within("api.connections", api.connections, 1, 100_000)?;
    within(
        "api.connections_per_peer",
        api.connections_per_peer,
        1,
        100_000,
    )?;
    if api.connections_per_peer > api.connections {
        let (one, all) = (api.connections_per_peer, api.connections);
        let message = format!("{one} is more than api.connections, which is {all}");
        return Err(Found::new("api.connections_per_peer", message).against("api.connections"));
    }
    if api.drain > DRAIN_MAX {
        return found(
            "api.drain",
            format!(
                "{} is too long: systemd kills the daemon 30s after the stop began, so at most {}",
                format_duration(api.drain),
                format_duration(DRAIN_MAX),
            ),
        );
    }
    Ok(())
}

/// Who may come over the network, and by what they are known.
fn network(api: &Api) -> Result<(), Found> {
    if !api.listen.is_empty() && !api.has_clients() {
        return Err(Found::new(
            "api.listen",
            "nobody could use it: TCP needs a token, or client certificates, and there is none",
        )
        .suggest("`taskdaemon token new NAME` prints one for api.tokens"));
    }
    for (key, path) in [
        ("api.tls_certificate", &api.tls_certificate),
        ("api.tls_key", &api.tls_key),
        ("api.tls_client_ca", &api.tls_client_ca),
    ] {
        path.as_deref()
            .map_or(Ok(()), |path| directory(key, path))?;
    }
    let mut names = HashSet::new();
    for certificate in &api.certificates {
        let name = &certificate.name;
        if name.is_empty() || name.len() > 255 || !name.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return found(
                "api.certificates",
                format!("{name:?} is no name of a certificate"),
            );
        }
        if certificate.uid == u32::MAX {
            return found("api.certificates", format!("uid of `{name}` is no user"));
        }
        if !names.insert(name) {
            return found("api.certificates", format!("`{name}` is there twice"));
        }
    }
    for name in &api.names {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        if !(1..=253).contains(&name.len()) || !name.bytes().all(plain) {
            return found("api.names", format!("{name:?} is no name of a host"));
        }
    }
    Ok(())
}

fn people(key: &'static str, names: &[String]) -> Result<(), Found> {
    for name in names {
        if !word(name.strip_prefix('@').unwrap_or(name)) {
            return found(key, format!("{name:?} is no name of a user or @group"));
        }
    }
    Ok(())
}

fn engine(config: &Config) -> Result<(), Found> {
    let engine = &config.engine;
    within("engine.slots", engine.slots, 1, 100_000)?;
    if engine.queue_concurrency == Some(0) {
        return Err(
            Found::new("engine.queue_concurrency", "0 would let no task start")
                .suggest("leave it out for no limit"),
        );
    }
    if engine.user_running == Some(0) {
        return Err(
            Found::new("engine.user_running", "0 would let no task start")
                .suggest("leave it out for no limit"),
        );
    }
    if engine.user_waiting == Some(0) {
        return Err(Found::new("engine.user_waiting", "0 would let no task in")
            .suggest("leave it out for no limit"));
    }
    within("engine.backlog", engine.backlog, 1, 1_000_000_000)?;
    within("engine.commands", engine.commands, 1, 1_000_000)
}

fn hooks(config: &Config) -> Result<(), Found> {
    if let Some(path) = &config.hooks.secret_file {
        directory("hooks.secret_file", path)?;
    }
    rules::hooks(&config.hooks.hooks()).or_else(|bad| found(bad.field, bad.reason))
}

fn tokens(tokens: &[Token]) -> Result<(), Found> {
    const KEY: &str = "api.tokens";
    let (mut names, mut secrets) = (HashSet::new(), HashSet::new());
    for Token {
        name, sha256, uid, ..
    } in tokens
    {
        if !word(name) {
            return found(
                KEY,
                format!("{name:?} is no name: letters, digits, `.`, `_`, `-`, at most 64"),
            );
        }
        if sha256.len() != SHA256_HEX || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Found::new(
                KEY,
                format!("sha256 of token `{name}` is not {SHA256_HEX} hexadecimal digits"),
            )
            .suggest("`printf %s SECRET | sha256sum` prints them"));
        }
        // The system's word for nobody at all.
        if *uid == u32::MAX {
            return found(KEY, format!("uid of token `{name}` is no user"));
        }
        if !names.insert(name) {
            return found(KEY, format!("two tokens are named `{name}`"));
        }
        if !secrets.insert(sha256.to_lowercase()) {
            return found(KEY, format!("token `{name}` has the secret of another one"));
        }
    }
    Ok(())
}

/// A short name that means the same in a log, a shell and a URL.
pub(super) fn word(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('-')
}

fn directory(key: &'static str, path: &Path) -> Result<(), Found> {
    let bytes = path.as_os_str().as_bytes();
    if !path.is_absolute() {
        let tilde = matches!(bytes.first(), Some(b'~' | b'$'));
        let hint = if tilde {
            " (neither ~ nor variables are filled in)"
        } else {
            ""
        };
        return found(
            key,
            format!("{} is not an absolute path{hint}", path.display()),
        );
    }
    if bytes.contains(&0) {
        return found(key, "contains a NUL byte");
    }
    if bytes.len() > PATH_MAX {
        return found(key, format!("is longer than {PATH_MAX} bytes"));
    }
    Ok(())
}

fn socket(key: &'static str, path: &Path) -> Result<(), Found> {
    directory(key, path)?;
    let length = path.as_os_str().len();
    if length > SOCKET_MAX {
        return found(
            key,
            format!("is {length} bytes long; the name of a socket has at most {SOCKET_MAX}"),
        );
    }
    Ok(())
}

pub(super) fn within<T: PartialOrd + Display>(
    key: &'static str,
    value: T,
    low: T,
    high: T,
) -> Result<(), Found> {
    if (&low..=&high).contains(&&value) {
        return Ok(());
    }
    found(key, format!("{value} is not between {low} and {high}"))
}

fn size(key: &'static str, value: ByteSize, low: ByteSize, high: ByteSize) -> Result<(), Found> {
    within(key, value, low, high)
}

pub(super) fn time(
    key: &'static str,
    value: Duration,
    low: Duration,
    high: Duration,
) -> Result<(), Found> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let text = format_duration;
    found(
        key,
        format!(
            "{} is not between {} and {}",
            text(value),
            text(low),
            text(high)
        ),
    )
}
