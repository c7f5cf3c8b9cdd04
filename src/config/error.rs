//! What is wrong with the configuration, where, and what was probably meant.
//!
//! One error is one line: `FILE:LINE:COLUMN: message; suggestion`.

use std::fmt;
use std::path::PathBuf;

use strsim::osa_distance;

/// Where a setting was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file, by default without a position.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Line and column, from 1, where there is one.
        position: Option<(usize, usize)>,
    },
    /// In an environment variable.
    Variable(String),
    /// On the command line.
    CommandLine,
    /// Somewhere; all that is known is the key.
    Key(String),
    /// Nowhere: it is the default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path,
                position: Some((line, column)),
            } => {
                write!(f, "{}:{line}:{column}", printable(&path.to_string_lossy()))
            }
            Self::File {
                path,
                position: None,
            } => f.write_str(&printable(&path.to_string_lossy())),
            Self::Variable(name) => write!(f, "environment variable {}", printable(name)),
            Self::CommandLine => f.write_str("command line"),
            Self::Key(key) => f.write_str(key),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A configuration that cannot be used. The exit code for it is 78.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Where.
    pub place: Place,
    /// What is wrong, on one line.
    pub message: String,
    /// What to do or write instead, where there is a good guess.
    pub suggestion: Option<String>,
}

impl Error {
    /// An error without a suggestion.
    #[must_use]
    pub fn new(place: Place, message: impl AsRef<str>) -> Self {
        Self {
            place,
            message: printable(message.as_ref()),
            suggestion: None,
        }
    }

    /// The same with a suggestion.
    #[must_use]
    pub fn suggest(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// Text from a file as it may stand in a message: one line, nothing that
/// steers a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => line.push_str("; "),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// The known word most like an unknown one, if any is like it at all.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A third of the letters may be wrong; more is another word.
    let limit = (word.chars().count() / 3).max(1);
    let word: String = word.to_lowercase().chars().take(64).collect();
    known
        .into_iter()
        .map(|known| (osa_distance(&word, known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["slots", "backlog", "commands", "body_max"];
        for (word, expected) in [
            ("slot", Some("slots")),
            ("slost", Some("slots")),
            ("Slots", Some("slots")),
            ("SLOTS", Some("slots")),
            ("body-max", Some("body_max")),
            ("", None),
            ("workers", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
