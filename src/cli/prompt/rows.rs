//! The lines of a file of prompts: JSON, a text or an object with more. The
//! file is read twice and never held: once to look at each line before the
//! first is handed in, once to hand them in.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use minijinja::Value;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};

use crate::api::asked::PromptRule;
use crate::api::json::plain;
use crate::model::check::STDIN_MAX;
use crate::model::quantity::ByteSize;

use super::super::Failure;
use super::template::{Template, Variables};

/// Bytes that a line may have: every byte of its text may be six in JSON.
const LINE_MAX: usize = STDIN_MAX * 8;
/// Bytes that the name of a line may have, as that of a task.
const ID_MAX: usize = 200;
/// Lines that a file may have.
pub(super) const ROWS_MAX: u32 = 1_000_000;

/// A line as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Line {
    text: Option<String>,
    id: Option<Json>,
    model: Option<String>,
    system: Option<String>,
    max_tokens: Option<u32>,
    vars: Map<String, Json>,
}

/// A line that makes sense.
#[derive(Debug)]
pub(super) struct Row {
    /// Where it stands, from 1.
    pub(super) line: u32,
    /// What it calls itself.
    pub(super) id: Option<String>,
    /// What it asks.
    pub(super) prompt: PromptRule,
}

/// What lines have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// What each of them asks, where it does not say itself.
    pub(super) prompt: PromptRule,
    /// What their texts are put into.
    pub(super) template: Option<Template>,
    /// Variables of the template.
    pub(super) variables: Variables,
}

/// Reads a file's lines one by one, and hashes what they ask.
pub(super) struct Rows<'a> {
    name: String,
    common: &'a Common,
    file: BufReader<File>,
    hash: Sha256,
    line: u32,
}

impl<'a> Rows<'a> {
    /// The lines of a file.
    pub(super) fn open(path: &Path, common: &'a Common) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let refuse = |why: String| Failure::Usage(format!("--batch {name}: {why}"));
        let file = File::open(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        // It is read twice, and must be the same both times.
        if !file.metadata()?.is_file() {
            return Err(refuse("is not a file".to_owned()));
        }
        Ok(Self {
            name,
            common,
            file: BufReader::new(file),
            hash: Sha256::new(),
            line: 0,
        })
    }

    /// The next line that is not empty.
    pub(super) fn next(&mut self) -> Result<Option<Row>, Failure> {
        loop {
            let mut bytes = Vec::new();
            let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
            let mut one = (&mut self.file).take(limit + 1);
            if one.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if bytes.len() > LINE_MAX {
                return Err(self.wrong(&format!("is longer than {}", ByteSize(limit))));
            }
            if self.line > ROWS_MAX {
                let why = format!("a file has {ROWS_MAX} lines at most; split it");
                return Err(self.wrong(&why));
            }
            let Ok(text) = std::str::from_utf8(&bytes) else {
                return Err(self.wrong("is not UTF-8 text"));
            };
            let text = text.trim();
            if !text.is_empty() {
                let row = self.row(text)?;
                let asked = (row.line, &row.id, &row.prompt);
                let asked = serde_json::to_vec(&asked).map_err(io::Error::from)?;
                self.hash.update(&asked);
                return Ok(Some(row));
            }
        }
    }

    /// What tells what was asked so far from everything else that may be.
    pub(super) fn hash(self) -> [u8; 32] {
        self.hash.finalize().into()
    }

    /// Looks at all of them: how many there are, and their hash.
    pub(super) fn check(mut self) -> Result<(u32, [u8; 32]), Failure> {
        let mut count = 0;
        while self.next()?.is_some() {
            count += 1;
        }
        if count == 0 {
            let name = &self.name;
            return Err(Failure::Usage(format!("{name}: there is no prompt in it")));
        }
        Ok((count, self.hash()))
    }

    fn row(&self, text: &str) -> Result<Row, Failure> {
        let line = read(text).map_err(|why| self.wrong(&why))?;
        let id = name(line.id).map_err(|why| self.wrong(&why))?;
        if line.max_tokens == Some(0) {
            return Err(self.wrong("max_tokens: must be at least 1"));
        }
        let common = &self.common.prompt;
        let text = match &self.common.template {
            None if !line.vars.is_empty() => {
                return Err(self.wrong("vars: there is no --template that they are for"));
            }
            None => line.text.unwrap_or_default(),
            Some(template) => {
                let mut variables = self.common.variables.clone();
                let text = line.text.map(|text| ("text".to_owned(), Value::from(text)));
                variables.extend(text);
                let own = line.vars.into_iter();
                variables.extend(own.map(|(name, value)| (name, variable(value))));
                let filled = template.fill(&variables);
                filled.map_err(|failure| self.wrong(&failure.to_string()))?
            }
        };
        if text.trim().is_empty() {
            return Err(self.wrong("text: is missing or empty"));
        }
        if text.len() > STDIN_MAX {
            let most = u64::try_from(STDIN_MAX).unwrap_or(u64::MAX);
            return Err(self.wrong(&format!("text: is longer than {}", ByteSize(most))));
        }
        let prompt = PromptRule {
            text,
            model: line.model.or_else(|| common.model.clone()),
            system: line.system.or_else(|| common.system.clone()),
            max_tokens: line.max_tokens.or(common.max_tokens),
            schema: common.schema.clone(),
            repairs: common.repairs,
            provider_batch: false,
        };
        let line = self.line;
        Ok(Row { line, id, prompt })
    }

    /// What is wrong with the line that was read last.
    fn wrong(&self, why: &str) -> Failure {
        let (name, line) = (&self.name, self.line);
        Failure::Usage(format!("{name}:{line}: {why}"))
    }
}

fn read(text: &str) -> Result<Line, String> {
    let explain = |error: serde_json::Error| {
        let words = error.to_string();
        let end = words.rfind(" at line ");
        plain(end.and_then(|end| words.get(..end)).unwrap_or(&words))
    };
    match text.chars().next() {
        Some('"') => Ok(Line {
            text: Some(serde_json::from_str(text).map_err(explain)?),
            ..Line::default()
        }),
        Some('{') => serde_json::from_str(text).map_err(explain),
        Some(_) | None => Err("expected a JSON object, or a text in quotes".to_owned()),
    }
}

/// A variable of a template.
fn variable(json: Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(is) => Value::from(is),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(whole)) => Value::from(whole),
            (None, None) => Value::from(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::from(text),
        Json::Array(values) => Value::from(values.into_iter().map(variable).collect::<Vec<_>>()),
        Json::Object(fields) => {
            let fields = fields.into_iter();
            let fields = fields.map(|(name, value)| (name, variable(value)));
            Value::from(fields.collect::<Variables>())
        }
    }
}

/// What a line calls itself: a text or a number.
fn name(id: Option<Json>) -> Result<Option<String>, String> {
    let id = match id {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(text)) => text,
        Some(Json::Number(number)) => number.to_string(),
        Some(Json::Bool(_) | Json::Array(_) | Json::Object(_)) => {
            return Err("id: must be a text or a number".to_owned());
        }
    };
    if id.is_empty() || id.len() > ID_MAX || id.chars().any(char::is_control) {
        return Err(format!(
            "id: must have 1 to {ID_MAX} bytes, and no control characters"
        ));
    }
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(template: Option<(&Path, &str)>) -> Common {
        let variables = Variables::from([("tone".to_owned(), Value::from("kind"))]);
        Common {
            prompt: PromptRule {
                model: Some("small".to_owned()),
                ..PromptRule::default()
            },
            template: template.map(|(dir, source)| {
                let path = dir.join("t.txt");
                std::fs::write(&path, source).expect("write");
                Template::read(&path, &variables).expect("a template")
            }),
            variables,
        }
    }

    fn all(text: &str, common: &Common) -> Result<Vec<Row>, String> {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("in.jsonl");
        std::fs::write(&path, text).expect("write");
        let mut rows = Rows::open(&path, common).map_err(|failure| failure.to_string())?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().map_err(|failure| {
            let place = path.display().to_string();
            failure.to_string().replace(&place, "in.jsonl")
        })? {
            all.push(row);
        }
        Ok(all)
    }

    #[test]
    fn a_line_is_a_text_or_an_object_and_says_what_is_its_own() {
        let text = "\"One?\"\n\n{\"text\":\"Two?\",\"id\":7,\"model\":\"large\",\"max_tokens\":5}\n\
                    {\"text\":\"Three?\",\"id\":\"x-3\",\"system\":\"Be short.\"}";
        let rows = all(text, &common(None)).expect("rows");
        let row = |row: &Row| (row.line, row.id.clone(), row.prompt.text.clone());
        let own = str::to_owned;
        assert_eq!(row(&rows[0]), (1, None, own("One?")));
        assert_eq!(row(&rows[1]), (3, Some(own("7")), own("Two?")));
        assert_eq!(row(&rows[2]), (4, Some(own("x-3")), own("Three?")));
        assert_eq!(rows[0].prompt.model.as_deref(), Some("small"));
        assert_eq!(rows[1].prompt.model.as_deref(), Some("large"));
        assert_eq!(rows[1].prompt.max_tokens, Some(5));
        assert_eq!(rows[2].prompt.system.as_deref(), Some("Be short."));
    }

    #[test]
    fn lines_are_put_into_a_template() {
        let dir = tempfile::tempdir().expect("directory");
        let source = "{{ tone }}: {{ text }} {{ words|join(', ') }}";
        let common = common(Some((dir.path(), source)));
        let text = "{\"text\":\"t\",\"vars\":{\"words\":[\"a\",1],\"unused\":null}}\n\"bare\"";
        let said = all(text, &common).expect_err("line 2 has no words");
        assert!(said.contains("in.jsonl:2: "), "{said}");
        assert!(said.contains("`words` is undefined"), "{said}");
        let first = text.lines().next().unwrap_or_default();
        let rows = all(first, &common).expect("rows");
        assert_eq!(rows[0].prompt.text, "kind: t a, 1");
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        let long = format!("\"{}\"", "x".repeat(STDIN_MAX + 1));
        for (line, words) in [
            ("7", "expected a JSON object, or a text in quotes"),
            (
                "{\"txt\":\"a\"}",
                "unknown field `txt`: did you mean `text`?",
            ),
            ("{\"text\":\"a\"", "EOF while parsing"),
            ("\"a", "EOF while parsing"),
            ("{\"text\":\"  \"}", "text: is missing or empty"),
            ("{\"id\":\"a\"}", "text: is missing or empty"),
            (
                "{\"text\":\"a\",\"id\":[]}",
                "id: must be a text or a number",
            ),
            (
                "{\"text\":\"a\",\"id\":\"\"}",
                "id: must have 1 to 200 bytes",
            ),
            (
                "{\"text\":\"a\",\"max_tokens\":0}",
                "max_tokens: must be at least 1",
            ),
            ("{\"text\":\"a\",\"max_tokens\":-1}", "invalid value"),
            (
                "{\"text\":\"a\",\"vars\":{\"b\":1}}",
                "vars: there is no --template",
            ),
            (&long, "text: is longer than 1MiB"),
        ] {
            let said = all(&format!("\"good\"\n{line}\n"), &common(None)).expect_err(words);
            assert!(said.starts_with("in.jsonl:2: "), "{said}");
            assert!(said.contains(words), "{words}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}
