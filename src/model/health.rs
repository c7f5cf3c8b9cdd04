//! How well a part of the daemon is: a word, and where that is not the best one,
//! why and since when.

use serde::{Deserialize, Serialize};

use super::time::Time;

/// How well something is, from the best to the worst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing is missing.
    #[default]
    Healthy,
    /// It works, and something is missing.
    Degraded,
    /// It does not do what it is there for.
    Unhealthy,
}

impl Level {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A part of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is called.
    pub name: String,
    /// How well it is.
    pub level: Level,
    /// Why it is not healthy.
    pub why: Option<String>,
    /// Since when that is so, where it is known.
    pub since: Option<Time>,
    /// Until when, where that is a time and not an event.
    pub until: Option<Time>,
    /// What was measured, each with its unit in its name.
    pub figures: Vec<(&'static str, i64)>,
}

impl Part {
    /// One that is well.
    #[must_use]
    pub fn healthy(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            level: Level::Healthy,
            why: None,
            since: None,
            until: None,
            figures: Vec::new(),
        }
    }

    /// The same with one more figure.
    #[must_use]
    pub fn with(mut self, name: &'static str, figure: impl TryInto<i64>) -> Self {
        self.figures
            .push((name, figure.try_into().unwrap_or(i64::MAX)));
        self
    }

    /// The same, not as well as that: the worst that is said of it counts.
    #[must_use]
    pub fn but(mut self, level: Level, why: impl Into<String>, since: Option<Time>) -> Self {
        if level > self.level {
            (self.level, self.why, self.since) = (level, Some(why.into()), since);
        }
        self
    }
}

/// How well all of them are together: as well as the worst.
#[must_use]
pub fn worst(parts: &[Part]) -> Level {
    let levels = parts.iter().map(|part| part.level);
    levels.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_that_is_said_of_a_part_counts_and_the_worst_part_of_all() {
        let at = Some(Time::from_micros(7));
        let part = Part::healthy("disk").but(Level::Unhealthy, "full", at).but(
            Level::Degraded,
            "short",
            None,
        );
        assert_eq!(
            (part.level, part.why.as_deref(), part.since),
            (Level::Unhealthy, Some("full"), at)
        );
        assert_eq!(worst(&[]), Level::Healthy);
        let well = Part::healthy("store").with("bytes", u64::MAX);
        assert_eq!(well.figures, [("bytes", i64::MAX)]);
        assert_eq!(worst(std::slice::from_ref(&well)), Level::Healthy);
        assert_eq!(worst(&[part, well]), Level::Unhealthy);
    }
}
