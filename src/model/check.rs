//! The checks that every field of a submitted task passes before anything is
//! stored.
//!
//! Bounds are chosen so that whatever passes here can also be executed: the
//! kernel takes 128 KiB for one argument and 2 MiB for all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::agent;
use super::attempt::Limits;
use super::hook::{self, Act, Hook};
use super::invalid::Invalid;
use super::prompt::Prompt;
use super::retry::Retry;
use super::spec::{NewTask, Spec};
use super::time::Time;

/// Bytes one argument or variable may have (`MAX_ARG_STRLEN` of Linux, less
/// its terminator).
pub const ARG_MAX: usize = 128 * 1024 - 1;
/// Bytes all arguments and variables may have together: three quarters of the
/// 2 MiB that Linux allows with an 8 MiB stack limit, the rest being for what
/// the runner adds and for the pointers.
pub const ARGS_MAX: usize = 1_536 * 1024;
/// Bytes of standard input a task may carry.
pub const STDIN_MAX: usize = 1024 * 1024;
/// Farthest a start time or a duration may reach: ten years.
pub const HORIZON: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Shortest heartbeat, in milliseconds: signs of life are passed on about once
/// a second.
pub const HEARTBEAT_MIN: u64 = 1_000;
/// Failures that a retry rule may name.
const FAILURES_MAX: usize = 300;

type Check = Result<(), Invalid>;

impl NewTask {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that cannot be accepted.
    pub fn check(&self, now: Time) -> Check {
        queue_name(&self.queue)?;
        if let own @ (hook::QUEUE | agent::QUEUE) = self.queue.as_str() {
            let reason = format!("`{own}` is the queue of {own}; use another one");
            return Err(Invalid::new("queue", reason));
        }
        if !(-1000..=1000).contains(&self.priority) {
            return Err(Invalid::new("priority", "must lie between -1000 and 1000"));
        }
        if let Some(name) = &self.name {
            short_text("name", name, 200)?;
        }
        labels(&self.labels)?;
        if let Some(at) = self.run_at
            && (at > now.after(HORIZON) || at < Time::default())
        {
            return Err(Invalid::new("run_at", "must lie within ten years from now"));
        }
        if self
            .deadline
            .is_some_and(|at| at > now.after(HORIZON) || at <= now)
        {
            let reason = "must lie in the future, within ten years from now";
            return Err(Invalid::new("deadline", reason));
        }
        let unique = self.unique.as_ref().map(|unique| &unique.key);
        let (key, group) = (self.key.as_ref(), self.group.as_ref());
        for (field, text) in [("key", key), ("group", group), ("unique", unique)] {
            if let Some(text) = text {
                short_text(field, text, 255)?;
            }
        }
        if self.stdin.as_ref().map_or(0, Vec::len) > STDIN_MAX {
            let reason = format!("is longer than {STDIN_MAX} bytes");
            return Err(Invalid::new("stdin", reason));
        }
        self.spec.check()
    }
}

impl Spec {
    fn check(&self) -> Check {
        match &self.prompt {
            None => argv("command", &self.argv)?,
            Some(prompt) => self.asks(prompt)?,
        }
        env(&self.env)?;
        let total: usize = self.argv.iter().map(String::len).sum::<usize>()
            + self
                .env
                .iter()
                .map(|(name, value)| name.len() + value.len() + 2)
                .sum::<usize>();
        if total > ARGS_MAX {
            let reason = format!("and env together have {total} bytes; {ARGS_MAX} are allowed");
            return Err(Invalid::new("command", reason));
        }
        if let Some(cwd) = &self.cwd {
            absolute_path("cwd", cwd)?;
        }
        if let Some(user) = &self.user {
            user_name(user)?;
        }
        if let Some(profile) = &self.profile {
            word("profile", profile, 32)?;
        }
        if self.umask.is_some_and(|mask| mask > 0o777) {
            let reason = "must be an octal mask between 0 and 777";
            return Err(Invalid::new("umask", reason));
        }
        duration("timeout", self.timeout_ms)?;
        duration("grace", self.grace_ms)?;
        duration("queue_ttl", self.queue_ttl_ms)?;
        duration("heartbeat", self.heartbeat_ms)?;
        if self.heartbeat_ms.is_some_and(|ms| ms < HEARTBEAT_MIN) {
            return Err(Invalid::new("heartbeat", "must be at least one second"));
        }
        limits(&self.limits)?;
        if self
            .output_cap
            .is_some_and(|cap| !(1024..=1 << 40).contains(&cap))
        {
            let reason = "must lie between 1 KiB and 1 TiB";
            return Err(Invalid::new("output_cap", reason));
        }
        retry(&self.retry)?;
        hooks(&self.hooks)
    }

    /// A prompt is asked by our own program, as the daemon's user and beside
    /// others: nothing that says what to run, as whom or within what goes with it.
    fn asks(&self, prompt: &Prompt) -> Check {
        let beside = [
            ("command", !self.argv.is_empty()),
            ("env", !self.env.is_empty()),
            ("cwd", self.cwd.is_some()),
            ("user", self.user.is_some()),
            ("umask", self.umask.is_some()),
            ("profile", self.profile.is_some()),
            ("llm", self.llm),
            ("heartbeat", self.heartbeat_ms.is_some()),
            ("limits.memory", self.limits.memory.is_some()),
            ("limits.cpu_milli", self.limits.cpu_milli.is_some()),
            ("limits.pids", self.limits.pids.is_some()),
        ];
        if let Some((field, _)) = beside.into_iter().find(|(_, there)| *there) {
            return Err(Invalid::new(field, "cannot be combined with prompt"));
        }
        let fault = |(field, why)| Err(Invalid::new(field, why));
        prompt.fault().map_or(Ok(()), fault)
    }
}

/// Checks the hooks of one place.
///
/// # Errors
/// The first that cannot be accepted.
pub fn hooks(hooks: &[Hook]) -> Check {
    if hooks.len() > hook::MOST {
        return Err(Invalid::new("hooks", "are more than 8"));
    }
    let one = |hook: &Hook| match &hook.act {
        Act::Command(command) => argv("hooks.command", command),
        Act::Webhook(url) => {
            hook::check_url(url).map_err(|reason| Invalid::new("hooks.webhook", reason))
        }
    };
    hooks.iter().try_for_each(one)
}

pub(super) fn argv(field: &'static str, argv: &[String]) -> Check {
    match argv.first() {
        None => return Err(Invalid::new(field, "is empty: give a program to run")),
        Some(program) if program.is_empty() => {
            return Err(Invalid::new(field, "starts with an empty program name"));
        }
        Some(_) => {}
    }
    for (index, argument) in argv.iter().enumerate() {
        if argument.contains('\0') {
            let reason = format!("argument {index} contains a NUL byte");
            return Err(Invalid::new(field, reason));
        }
        if argument.len() > ARG_MAX {
            let reason = format!("argument {index} is longer than the {ARG_MAX} bytes Linux takes");
            return Err(Invalid::new(field, reason));
        }
    }
    Ok(())
}

/// Variables that belong to the protocol between service manager, daemon and
/// task; a task that set them could speak in another's name.
const RESERVED: [&str; 7] = [
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_*",
    "NOTIFY_SOCKET",
    "TASKDAEMON_*",
    "WATCHDOG_*",
];

fn env(env: &BTreeMap<String, String>) -> Check {
    if env.len() > 1000 {
        return Err(Invalid::new("env", "has more than 1000 variables"));
    }
    for (name, value) in env {
        let mut letters = name.bytes();
        let first = letters
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || !letters.all(|b| b.is_ascii_alphanumeric() || b == b'_') || name.len() > 255 {
            let reason = format!("`{}` is not a variable name", name.escape_debug());
            return Err(Invalid::new("env", reason));
        }
        if RESERVED.iter().any(|reserved| {
            reserved
                .strip_suffix('*')
                .map_or(name == reserved, |stem| name.starts_with(stem))
        }) {
            return Err(Invalid::new(
                "env",
                format!("`{name}` is reserved and cannot be set"),
            ));
        }
        if value.contains('\0') || value.len() + name.len() > ARG_MAX {
            let reason = format!("the value of `{name}` has a NUL byte or is too long");
            return Err(Invalid::new("env", reason));
        }
    }
    Ok(())
}

fn labels(labels: &BTreeMap<String, String>) -> Check {
    if labels.len() > 32 {
        return Err(Invalid::new("labels", "are more than 32"));
    }
    for (name, value) in labels {
        word("labels", name, 64)?;
        if value.len() > 255 || value.chars().any(char::is_control) {
            let reason = format!("the value of `{name}` is too long or has control characters");
            return Err(Invalid::new("labels", reason));
        }
    }
    Ok(())
}

/// Checks a queue's name: letters, digits, `.`, `_` and `-`.
///
/// # Errors
/// What is wrong with the name.
pub fn queue_name(name: &str) -> Check {
    word("queue", name, 64)
}

/// Checks a schedule's name: as a queue's, and not a number, since schedules
/// are also called by their number.
///
/// # Errors
/// What is wrong with the name.
pub fn schedule_name(name: &str) -> Check {
    word("name", name, 64)?;
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Invalid::new("name", "must not be a number only"));
    }
    Ok(())
}

pub(super) fn word(field: &'static str, text: &str, max: usize) -> Check {
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if first && rest && text.len() <= max {
        return Ok(());
    }
    let reason = format!(
        "`{}` must be 1 to {max} letters, digits, `.`, `_` or `-`, the first a letter or digit",
        text.chars().take(80).collect::<String>().escape_debug()
    );
    Err(Invalid::new(field, reason))
}

fn short_text(field: &'static str, text: &str, max: usize) -> Check {
    if text.is_empty() || text.len() > max {
        return Err(Invalid::new(field, format!("must have 1 to {max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::new(field, "must not contain control characters"));
    }
    Ok(())
}

fn user_name(user: &str) -> Check {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-$".contains(&b);
    let number = user.bytes().all(|b| b.is_ascii_digit());
    if user.is_empty()
        || user.len() > 64
        || number
        || user.starts_with('-')
        || !user.bytes().all(plain)
    {
        return Err(Invalid::new(
            "user",
            "must be the name of a user of this host",
        ));
    }
    Ok(())
}

pub(super) fn absolute_path(field: &'static str, path: &str) -> Check {
    if !path.starts_with('/') {
        return Err(Invalid::new(field, "must be an absolute path"));
    }
    if path.len() > 4095 || path.contains('\0') {
        return Err(Invalid::new(
            field,
            "is longer than 4095 bytes or has a NUL byte",
        ));
    }
    Ok(())
}

pub(super) fn duration(field: &'static str, ms: Option<u64>) -> Check {
    match ms {
        Some(0) => Err(Invalid::new(
            field,
            "must be longer than zero; leave it out for no limit",
        )),
        Some(ms) if Duration::from_millis(ms) > HORIZON => {
            Err(Invalid::new(field, "is longer than ten years"))
        }
        Some(_) | None => Ok(()),
    }
}

fn limits(limits: &Limits) -> Check {
    if limits
        .memory
        .is_some_and(|bytes| !(1 << 20..=1 << 50).contains(&bytes))
    {
        return Err(Invalid::new("limits.memory", "must be at least 1 MiB"));
    }
    if limits
        .cpu_milli
        .is_some_and(|milli| !(10..=1_000_000).contains(&milli))
    {
        return Err(Invalid::new(
            "limits.cpu_milli",
            "must lie between 10 and 1000000",
        ));
    }
    if limits
        .pids
        .is_some_and(|pids| !(1..=4_000_000).contains(&pids))
    {
        return Err(Invalid::new("limits.pids", "must be at least 1"));
    }
    Ok(())
}

fn retry(retry: &Retry) -> Check {
    if !(1..=1000).contains(&retry.max_attempts) {
        return Err(Invalid::new(
            "retry.max_attempts",
            "must lie between 1 and 1000",
        ));
    }
    if !(100..=10_000).contains(&retry.factor_percent) {
        return Err(Invalid::new(
            "retry.factor_percent",
            "must lie between 100 and 10000",
        ));
    }
    duration("retry.cap_ms", Some(retry.cap_ms))?;
    for (field, failures) in [
        ("retry.retry_on", &retry.retry_on),
        ("retry.no_retry_on", &retry.no_retry_on),
    ] {
        if failures.len() > FAILURES_MAX {
            return Err(Invalid::new(field, "names more than 300 failures"));
        }
    }
    if retry.base_ms > retry.cap_ms {
        return Err(Invalid::new(
            "retry.base_ms",
            "must not be more than retry.cap_ms",
        ));
    }
    Ok(())
}
