//! Whether something can be written: by the daemon, where one has that database,
//! and else beside it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::api::health;
use crate::client::{Client, Error};
use crate::clock;
use crate::store::probe;

use super::super::{Setting, online};

/// What came of writing something.
#[derive(Debug)]
pub(super) enum Written {
    /// The daemon wrote it to its database.
    ByDaemon(Duration),
    /// A file beside the database was written.
    Beside(Duration),
    /// It could not be written.
    Not(String),
}

impl Written {
    pub(super) const fn is_good(&self) -> bool {
        !matches!(self, Self::Not(_))
    }

    pub(super) fn in_json(&self) -> serde_json::Value {
        let (by, took, why) = match self {
            Self::ByDaemon(took) => ("daemon", Some(took.as_micros()), None),
            Self::Beside(took) => ("file", Some(took.as_micros()), None),
            Self::Not(why) => ("", None, Some(why)),
        };
        match why {
            Some(why) => serde_json::json!({ "ok": false, "why": why }),
            None => serde_json::json!({ "ok": true, "by": by, "took_us": took }),
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByDaemon(took) => write!(f, "writes: the daemon wrote to it in {took:.1?}"),
            Self::Beside(took) => write!(f, "writes: a file beside it was written in {took:.1?}"),
            Self::Not(why) => write!(f, "cannot write: {why}"),
        }
    }
}

/// Has the daemon write something, where it can be asked and keeps its tasks in
/// `dir`; else writes beside the database.
pub(super) fn write(dir: &Path, asked: Option<&Setting>) -> Written {
    if let Some(client) = asked.and_then(|setting| setting.client().ok()) {
        let mut told = None;
        let _code = online(async {
            told = by_daemon(&client, dir).await;
            Ok(0)
        });
        if let Some(told) = told {
            return told;
        }
    }
    let begun = clock::instant();
    match probe::write(dir) {
        Ok(()) => Written::Beside(begun.elapsed()),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            Written::Not(format!("{error}{}", cause.unwrap_or_default()))
        }
    }
}

/// Nothing where there is no such daemon, or it keeps others out.
async fn by_daemon(client: &Client, dir: &Path) -> Option<Written> {
    let written = match client.post("/v1/probe").await {
        Ok(answer) => answer.read::<health::Written>().ok()?,
        Err(Error::Refused(wire, _)) if wire.status >= 500 => {
            return Some(Written::Not(wire.detail.clone()));
        }
        Err(_) => return None,
    };
    let same = Path::new(&written.state_dir) == dir;
    same.then(|| Written::ByDaemon(Duration::from_micros(written.took_us)))
}
