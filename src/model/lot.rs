//! Many prompts that go to their provider as one batch: at half the price, and
//! answered within a day instead of at once.
//!
//! They are one task, whose text has one of them a line. What the provider calls
//! the batch is kept with the task as soon as it is known; by a mark that is
//! sent along it is found again where that was lost.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Time limit of an attempt that names none, in milliseconds: providers take up
/// to a day, and results are fetched after it.
pub const TIMEOUT_MS: u64 = 26 * 3600 * 1000;
/// Most bytes of output of one that names no other limit: answers to 1 MiB of
/// questions.
pub const OUTPUT_CAP: u64 = 256 * 1024 * 1024;
/// Most prompts of a batch.
const ROWS_MAX: usize = 10_000;
/// Bytes that the name of a prompt may have.
const ID_MAX: usize = 200;
/// Longest name of a batch.
const NAME_MAX: usize = 128;

/// What a task has to do with a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Lot {
    /// How many prompts are in it.
    pub rows: u32,
    /// Most tokens of all their answers.
    pub output: u64,
    /// What its provider calls it, once it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// The mark of the batch that is to be cancelled, where this task does that
    /// and asks nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancels: Option<String>,
}

/// One of the prompts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What its answer is found by.
    pub id: String,
    /// What is asked.
    pub text: String,
    /// Instructions ahead of that, where they are others than those of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Most tokens of the answer, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

/// The answer to one of them, or why there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Which.
    pub id: String,
    /// What was answered.
    pub answer: Option<String>,
    /// Why nothing was.
    pub error: Option<String>,
    /// Tokens of what was asked, as the provider counts.
    pub input: Option<u64>,
    /// Tokens of the answer, as the provider counts.
    pub output: Option<u64>,
}

/// What the program that sees to a batch has to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The mark by which it is found.
    pub mark: String,
    /// What its provider calls it, where that is known.
    pub batch: Option<String>,
    /// An attempt before this one may have made it.
    pub again: bool,
    /// It is to be cancelled.
    pub cancel: bool,
    /// Seconds since 1970 before which it was not there.
    pub since: i64,
}

/// A name of a batch as providers give them; none of what is no such name.
#[must_use]
pub fn name(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= NAME_MAX;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (fits && text.bytes().all(plain)).then(|| text.to_owned())
}

/// The prompts in a text, one a line.
///
/// # Errors
/// Which line makes no sense, and why.
pub fn read(text: &str) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = Vec::new();
    let mut seen = HashSet::new();
    for (place, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |why: &str| format!("line {}: {why}", place + 1);
        let row: Row = serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
        if row.text.trim().is_empty() {
            return Err(wrong("text is empty"));
        }
        if row.id.is_empty() || row.id.len() > ID_MAX {
            return Err(wrong(&format!("id must have 1 to {ID_MAX} bytes")));
        }
        if row.max_tokens == Some(0) {
            return Err(wrong("max_tokens must be at least 1"));
        }
        if !seen.insert(row.id.clone()) {
            return Err(wrong(&format!("id `{}` is there twice", row.id)));
        }
        if rows.len() == ROWS_MAX {
            return Err(format!(
                "has more than {ROWS_MAX} prompts; make several batches"
            ));
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return Err("has no prompt in it".to_owned());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_of_a_batch_are_read_and_what_makes_no_sense_is_named_by_its_line() {
        let text = "{\"id\":\"1\",\"text\":\"a\"}\n\n{\"id\":\"2\",\"text\":\"b\",\"max_tokens\":5,\"system\":\"s\"}\n";
        let rows = read(text).expect("rows");
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].max_tokens, Some(5));
        let long = "x".repeat(201);
        for (text, why) in [
            ("", "no prompt"),
            ("{", "line 1"),
            ("{\"id\":\"1\",\"text\":\"a\",\"x\":1}", "unknown field"),
            ("{\"id\":\"1\",\"text\":\" \"}", "line 1: text is empty"),
            ("{\"id\":\"\",\"text\":\"a\"}", "line 1: id"),
            (
                "{\"id\":\"1\",\"text\":\"a\",\"max_tokens\":0}",
                "line 1: max_tokens",
            ),
            (
                "{\"id\":\"1\",\"text\":\"a\"}\n{\"id\":\"1\",\"text\":\"b\"}",
                "line 2: id `1` is there twice",
            ),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(why), "{text}: {told}");
        }
        assert!(read(&format!("{{\"id\":\"{long}\",\"text\":\"a\"}}")).is_err());
        assert_eq!(name("batch_6a-B"), Some("batch_6a-B".to_owned()));
        assert_eq!(name("../x"), None);
        assert_eq!(name(&long), None);
    }
}
