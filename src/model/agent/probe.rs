//! How it is found out from outside whether an agent is well.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::check;
use crate::model::invalid::Invalid;

/// Shortest pause between two looks, in milliseconds.
const INTERVAL_MIN: u64 = 100;
/// Longest wait that a probe may name, in milliseconds: a day.
const WAIT_MAX: u64 = 24 * 3600 * 1_000;
/// Most failures that a probe may let pass.
const THRESHOLD_MAX: u32 = 1_000;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// `http://HOST:PORT/PATH` answers with a status from 200 to 399.
    Http(String),
    /// `HOST:PORT` takes a connection.
    Tcp(String),
    /// A command, run beside the agent as its user, exits with 0.
    Command(Vec<String>),
    /// A file was written to within the interval.
    File(String),
}

/// How it is found out whether an agent is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What is looked at.
    #[serde(flatten)]
    pub look: Look,
    /// Pause between two looks, in milliseconds.
    pub interval_ms: u64,
    /// Longest wait for an answer, in milliseconds.
    pub timeout_ms: u64,
    /// Failures in a row after which it is not well.
    pub threshold: u32,
}

/// The parts of an address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What stands behind, from the first slash on; `/` when nothing does.
    pub path: String,
}

impl Probe {
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let bounds = [
            ("probe.interval", self.interval_ms, INTERVAL_MIN),
            ("probe.timeout", self.timeout_ms, 1),
        ];
        for (field, ms, least) in bounds {
            if !(least..=WAIT_MAX).contains(&ms) {
                let reason = format!("must lie between {least} ms and one day");
                return Err(Invalid::new(field, reason));
            }
        }
        if !(1..=THRESHOLD_MAX).contains(&self.threshold) {
            let reason = format!("must lie between 1 and {THRESHOLD_MAX}");
            return Err(Invalid::new("probe.threshold", reason));
        }
        match &self.look {
            Look::Http(_) | Look::Tcp(_) => self
                .target()
                .map(drop)
                .map_err(|reason| Invalid::new("probe", reason)),
            Look::Command(command) => check::argv("probe.command", command),
            Look::File(path) => check::absolute_path("probe.file", path),
        }
    }

    /// Whether it is looked at from beside the agent, by its own user.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        matches!(self.look, Look::Command(_) | Look::File(_))
    }

    /// Where to connect to, of those that connect.
    ///
    /// # Errors
    /// The address is none; why.
    pub fn target(&self) -> Result<Target, String> {
        let (authority, path) = match &self.look {
            Look::Http(url) => {
                let rest = url
                    .strip_prefix("http://")
                    .ok_or_else(|| format!("`{url}` must begin with http://"))?;
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                rest.split_at(end)
            }
            Look::Tcp(address) => (address.as_str(), ""),
            Look::Command(_) | Look::File(_) => return Err("names no address".to_owned()),
        };
        let wrong = || format!("`{authority}` must be HOST:PORT");
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            None if matches!(self.look, Look::Http(_)) => (authority, 80),
            Some(_) | None => return Err(wrong()),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let odd = |c: char| c.is_control() || c.is_whitespace() || "@/\\".contains(c);
        if host.is_empty() || host.contains(odd) || port == 0 || path.contains(odd_in_path) {
            return Err(wrong());
        }
        let path = match path.chars().next() {
            Some('/') => path.to_owned(),
            Some(_) => format!("/{path}"),
            None => "/".to_owned(),
        };
        Ok(Target {
            host: host.to_owned(),
            port,
            path,
        })
    }
}

fn odd_in_path(c: char) -> bool {
    !c.is_ascii_graphic()
}

/// Looks so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    failures: u32,
    good: bool,
}

/// What a look means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It is well, for the first time.
    Up,
    /// Nothing new.
    Nothing,
    /// It is not well: too many looks in a row failed.
    Down,
}

impl Looks {
    /// Before the first look; of one that is up, or still starts up.
    #[must_use]
    pub const fn of(is_up: bool) -> Self {
        Self {
            failures: 0,
            good: is_up,
        }
    }

    /// A look has been made. Until the first good one it is still starting up,
    /// and nothing counts against it: the start-up has a time limit of its own.
    pub const fn see(&mut self, is_well: bool, threshold: u32) -> Finding {
        if is_well {
            self.failures = 0;
            if self.good {
                return Finding::Nothing;
            }
            self.good = true;
            return Finding::Up;
        }
        if !self.good {
            return Finding::Nothing;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < threshold {
            return Finding::Nothing;
        }
        self.failures = 0;
        Finding::Down
    }

    /// Failures in a row.
    #[must_use]
    pub const fn failures(self) -> u32 {
        self.failures
    }
}

/// The longest time between two good looks of a probe that are in order.
#[must_use]
pub fn patience(probe: &Probe) -> Duration {
    let once = probe.interval_ms.saturating_add(probe.timeout_ms);
    Duration::from_millis(once.saturating_mul(u64::from(probe.threshold)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(look: Look) -> Probe {
        Probe {
            look,
            interval_ms: 1_000,
            timeout_ms: 1_000,
            threshold: 3,
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        let http = |url: &str| probe(Look::Http(url.to_owned())).target();
        let tcp = |text: &str| probe(Look::Tcp(text.to_owned())).target();
        let target = |host: &str, port, path: &str| {
            Ok(Target {
                host: host.to_owned(),
                port,
                path: path.to_owned(),
            })
        };
        assert_eq!(http("http://a:1/b?c"), target("a", 1, "/b?c"));
        assert_eq!(http("http://a"), target("a", 80, "/"));
        assert_eq!(http("http://[::1]:8080?x"), target("::1", 8080, "/?x"));
        assert_eq!(tcp("127.0.0.1:6379"), target("127.0.0.1", 6379, "/"));
        for bad in ["a", "a:", "a:0", ":1", "a:70000", "a b:1", "u@a:1"] {
            assert!(tcp(bad).is_err(), "{bad}");
        }
        for bad in [
            "https://a/",
            "a/b",
            "http://",
            "http://a:1/ x",
            "http://a:x/",
        ] {
            assert!(http(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_failures_in_a_row_count_and_none_before_it_was_up() {
        let mut looks = Looks::of(false);
        let findings: Vec<_> = [false, false, false, false, true, true]
            .map(|well| looks.see(well, 3))
            .into();
        assert_eq!(findings[..4], [Finding::Nothing; 4]);
        assert_eq!(findings[4..], [Finding::Up, Finding::Nothing]);
        let findings: Vec<_> = [false, false, true, false, false, false, false]
            .map(|well| looks.see(well, 3))
            .into();
        assert_eq!(findings[5], Finding::Down);
        assert_eq!(
            findings.iter().filter(|one| **one == Finding::Down).count(),
            1
        );
    }
}
