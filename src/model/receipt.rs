//! What a call of a model says when it is over: how it went, and what it cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limit::{Dimension, Tokens};

/// Longest wait that a provider can ask for, in microseconds: thirty days.
const WAIT_MAX_US: u64 = 30 * 24 * 3600 * 1_000_000;
/// Most limits of which a provider says what is left.
const LEFT_MAX: usize = 8;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With a whole answer.
    Answered,
    /// There were too many: a limit of the account was reached.
    Refused,
    /// The provider has too much to do.
    Overloaded,
    /// The key is not taken, or the account has no money. A person has to act.
    Barred,
    /// The provider failed: an error of its own, silence, half an answer.
    Broken,
    /// The question is not one that it answers.
    Rejected,
}

impl End {
    /// All of them.
    const ALL: [Self; 6] = [
        Self::Answered,
        Self::Refused,
        Self::Overloaded,
        Self::Barred,
        Self::Broken,
        Self::Rejected,
    ];

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
            Self::Barred => "barred",
            Self::Broken => "broken",
            Self::Rejected => "rejected",
        }
    }

    /// The end of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.word() == word)
    }

    /// Whether the call was not made at all, for a reason that is not the
    /// task's: then it costs no attempt.
    #[must_use]
    pub const fn is_turned_away(self) -> bool {
        matches!(self, Self::Refused | Self::Overloaded | Self::Barred)
    }
}

/// What is left of a limit, by the provider's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// What is counted.
    pub dimension: Dimension,
    /// How much.
    pub left: u64,
}

/// A call's last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// How it ended.
    pub end: End,
    /// Tokens of what was asked, as the provider counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// Tokens of the answer, as the provider counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// How long the provider asks to wait, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_us: Option<u64>,
    /// What it says is left of its limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remains: Vec<Remains>,
    /// What it said, where it did not answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl Receipt {
    /// One of which nothing but the end is known.
    #[must_use]
    pub const fn of(end: End) -> Self {
        Self {
            end,
            input: None,
            output: None,
            wait_us: None,
            remains: Vec::new(),
            why: String::new(),
        }
    }

    /// How long the provider asks to wait.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        self.wait_us.map(Duration::from_micros)
    }

    /// What it cost, where the provider said so.
    #[must_use]
    pub fn used(&self) -> Option<Tokens> {
        let (input, output) = (self.input?, self.output?);
        Some(Tokens { input, output })
    }

    /// The same within bounds, for one that may come from anybody. `line` makes
    /// a text one harmless line.
    pub(super) fn bounded(mut self, line: impl Fn(&str) -> String) -> Self {
        self.wait_us = self.wait_us.map(|us| us.min(WAIT_MAX_US));
        self.remains.truncate(LEFT_MAX);
        self.why = line(&self.why);
        self
    }
}
