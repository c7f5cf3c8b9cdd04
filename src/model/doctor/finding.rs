//! What was found of one thing, and what to do about it.

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Something is missing, or will be.
    Warn,
    /// Something does not work.
    Bad,
}

impl Verdict {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in one word.
    pub topic: &'static str,
    /// How it was found.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// What to do, where something is to be done.
    pub fix: Option<String>,
}

pub(super) fn ok(topic: &'static str, what: impl Into<String>) -> Finding {
    Finding {
        topic,
        verdict: Verdict::Ok,
        what: what.into(),
        fix: None,
    }
}

pub(super) fn warn(
    topic: &'static str,
    what: impl Into<String>,
    fix: impl Into<String>,
) -> Finding {
    Finding {
        topic,
        verdict: Verdict::Warn,
        what: what.into(),
        fix: Some(fix.into()),
    }
}

pub(super) fn bad(topic: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Bad,
        ..warn(topic, what, fix)
    }
}

/// The worst of all findings.
#[must_use]
pub fn worst(findings: &[Finding]) -> Verdict {
    let all = findings.iter().map(|finding| finding.verdict);
    all.max().unwrap_or(Verdict::Ok)
}
