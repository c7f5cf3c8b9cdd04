//! Files of tasks: JSON lines, one task a line, or a job file in TOML or YAML,
//! a list under `task` and `defaults` for each of them. The fields have the
//! names they have in the API, and a fault the place where it stands.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::asked::Submit;
use crate::api::json::plain;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Lines,
    Toml,
    Yaml,
}

/// A task of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job {
    /// What is handed in.
    pub(super) task: Submit,
    /// Where it stands, from 1, where that is known.
    pub(super) line: Option<usize>,
}

/// A job file; the place of a task is known to some parsers only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<T> {
    #[serde(default)]
    defaults: Submit,
    #[serde(alias = "tasks")]
    task: Vec<T>,
}

/// Something in a file that cannot be understood: where, and what.
type Fault = (Option<(usize, usize)>, String);

/// Reads the tasks of a file, for which `name` stands in messages.
///
/// # Errors
/// One line that says where and what.
pub(super) fn read(name: &Path, bytes: &[u8]) -> Result<Vec<Job>, String> {
    let file = name.display();
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes
            .iter()
            .take(error.valid_up_to())
            .filter(|b| **b == b'\n')
            .count();
        format!("{file}:{line}: is not UTF-8 text")
    })?;
    let jobs = match format(name, text) {
        Format::Lines => lines(text),
        Format::Toml => toml(text),
        Format::Yaml => yaml(text),
    };
    let jobs = jobs.map_err(|(place, what)| match place {
        Some((line, column)) => format!("{file}:{line}:{column}: {what}"),
        None => format!("{file}: {what}"),
    })?;
    if jobs.is_empty() {
        return Err(format!("{file}: there is no task in it"));
    }
    Ok(jobs)
}

/// By the name's ending, or else by how the text begins.
fn format(name: &Path, text: &str) -> Format {
    let ending = name.extension().and_then(|ending| ending.to_str());
    match ending.map(str::to_ascii_lowercase).as_deref() {
        Some("jsonl" | "ndjson" | "json") => return Format::Lines,
        Some("toml") => return Format::Toml,
        Some("yaml" | "yml") => return Format::Yaml,
        Some(_) | None => {}
    }
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    match first {
        Some(line) if line.starts_with('{') => Format::Lines,
        Some(line) if line.starts_with('[') => Format::Toml,
        Some(_) | None => Format::Yaml,
    }
}

fn lines(text: &str) -> Result<Vec<Job>, Fault> {
    let mut jobs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let number = number + 1;
        let task = match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(_)) => serde_json::from_str(line),
            Ok(_) => return Err((Some((number, 1)), "expected a JSON object".to_owned())),
            Err(error) => Err(error),
        };
        let task = task.map_err(|error| {
            let text = error.to_string();
            let what = text
                .rfind(" at line ")
                .map_or(text.as_str(), |end| &text[..end]);
            (Some((number, error.column().max(1))), plain(what))
        })?;
        jobs.push(checked(task, Some((number, 1)))?);
    }
    Ok(jobs)
}

fn toml(text: &str) -> Result<Vec<Job>, Fault> {
    let place = |byte: usize| {
        let before = text.get(..byte).unwrap_or(text);
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count();
        (before.matches('\n').count() + 1, column + 1)
    };
    let file: File<toml::Spanned<Submit>> = toml::from_str(text).map_err(|error| {
        let at = error.span().map(|span| place(span.start));
        (at, plain(error.message()))
    })?;
    let jobs = file.task.into_iter().map(|spanned| {
        let at = Some(place(spanned.span().start));
        (at, spanned.into_inner())
    });
    merge(&file.defaults, jobs)
}

fn yaml(text: &str) -> Result<Vec<Job>, Fault> {
    let file: File<Submit> = serde_yaml_ng::from_str(text).map_err(|error| {
        let at = error.location().map(|place| (place.line(), place.column()));
        let text = error.to_string();
        let what = text
            .rfind(" at line ")
            .map_or(text.as_str(), |end| &text[..end]);
        (at, plain(what))
    })?;
    merge(
        &file.defaults,
        file.task.into_iter().map(|task| (None, task)),
    )
}

/// Completes each task by what it does not say itself. Variables and labels
/// are completed name by name.
fn merge(
    defaults: &Submit,
    tasks: impl Iterator<Item = (Option<(usize, usize)>, Submit)>,
) -> Result<Vec<Job>, Fault> {
    let own = [
        ("ref", defaults.refer.is_some()),
        ("key", defaults.key.is_some()),
        ("tasks", defaults.tasks.is_some()),
        ("unique", defaults.unique.is_some()),
    ];
    if let Some((name, _)) = own.into_iter().find(|(_, set)| *set) {
        let what = format!("`{name}` cannot be the same for all tasks: write it into each");
        return Err((None, format!("defaults: {what}")));
    }
    let common = fields(defaults);
    let mut jobs = Vec::new();
    for (place, task) in tasks {
        let mut own = fields(&task);
        for (name, value) in &common {
            match (own.get_mut(name), value) {
                (None, _) => {
                    own.insert(name.clone(), value.clone());
                }
                (Some(Value::Object(mine)), Value::Object(value))
                    if ["env", "labels"].contains(&name.as_str()) =>
                {
                    for (name, value) in value {
                        mine.entry(name).or_insert_with(|| value.clone());
                    }
                }
                (Some(_), _) => {}
            }
        }
        let task = serde_json::from_value(Value::Object(own))
            .map_err(|error| (place, plain(&error.to_string())))?;
        jobs.push(checked(task, place)?);
    }
    Ok(jobs)
}

/// The fields that a task has.
fn fields(task: &Submit) -> Map<String, Value> {
    match serde_json::to_value(task) {
        Ok(Value::Object(mut fields)) => {
            // It is always written, and stands for nothing when it is empty.
            fields.retain(|name, _| name != "command" || !task.command.is_empty());
            fields
        }
        _ => Map::new(),
    }
}

fn checked(task: Submit, place: Option<(usize, usize)>) -> Result<Job, Fault> {
    if task.tasks.is_some() {
        let what = "tasks: lists cannot be nested; write one task a line";
        return Err((place, what.to_owned()));
    }
    let line = place.map(|(line, _)| line);
    Ok(Job { task, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(name: &str, text: &str) -> Vec<Job> {
        read(Path::new(name), text.as_bytes()).expect(text)
    }

    const TOML: &str = "\
# A small graph
[defaults]
queue = \"q\"
cpu = 1.5
env = { A = \"1\", B = \"2\" }
retry = { max_attempts = 3 }

[[task]]
ref = \"one\"
command = [\"true\"]
env = { B = \"3\" }

[[task]]
command = [\"false\"]
queue = \"other\"
after = [\"one:any\", 12]
";

    const YAML: &str = "
defaults:
  queue: q
  cpu: 1.5
  env: {A: '1', B: '2'}
  retry: {max_attempts: 3}
task:
- ref: one
  command: ['true']
  env: {B: '3'}
- command: ['false']
  queue: other
  after: ['one:any', 12]
";

    #[test]
    fn the_three_forms_say_the_same() {
        let lines = "\n{\"ref\":\"one\",\"command\":[\"true\"],\"queue\":\"q\",\"cpu\":1.5,\
            \"env\":{\"A\":\"1\",\"B\":\"3\"},\"retry\":{\"max_attempts\":3}}\n\
            {\"command\":[\"false\"],\"queue\":\"other\",\"after\":[\"one:any\",12],\
            \"cpu\":1.5,\"env\":{\"A\":\"1\",\"B\":\"2\"},\"retry\":{\"max_attempts\":3}}";
        let tasks = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.task).collect::<Vec<_>>();
        let wanted = ok("x.jsonl", lines);
        assert_eq!(wanted[1].line, Some(3));
        let toml = ok("x.toml", TOML);
        assert_eq!((toml[0].line, toml[1].line), (Some(8), Some(13)));
        assert_eq!(tasks(toml), tasks(wanted.clone()));
        assert_eq!(tasks(ok("x.yaml", YAML)), tasks(wanted.clone()));
        for text in [lines, TOML, YAML] {
            assert_eq!(tasks(ok("-", text)), tasks(wanted.clone()), "by content");
        }
    }

    #[test]
    fn bad_files_are_refused_with_the_place() {
        for (name, text, words) in [
            ("x.jsonl", "", "x.jsonl: there is no task"),
            (
                "x.jsonl",
                "{\"command\":[\"a\"]}\n{\"comand\":[]}",
                "x.jsonl:2:9: unknown field `comand`: did you mean `command`?",
            ),
            (
                "x.jsonl",
                "{\"command\":[\"a\"]}\n\n[1]",
                "x.jsonl:3:1: expected a JSON object",
            ),
            ("x.jsonl", "{\"command\":[\"a\"]", "x.jsonl:1:16: EOF"),
            ("x.jsonl", "{\"tasks\":[]}", "x.jsonl:1:1: tasks: lists"),
            (
                "x.jsonl",
                "{\"command\":[\"a\"],\"command\":[\"a\"]}",
                "x.jsonl:1:26: duplicate field `command`",
            ),
            (
                "x.toml",
                "[[task]]\ncommand = [\"a\"]\ntimout = \"1s\"",
                "x.toml:3:1: unknown field `timout`: did you mean `timeout`?",
            ),
            (
                "x.toml",
                "[[task]]\ncommand = [\"a\"]\ntimeout = 30",
                "x.toml:3:11: ",
            ),
            ("x.toml", "[[task]\n", "x.toml:1:8: "),
            ("x.toml", "[defaults]\n", "missing field `task`"),
            ("x.toml", "task = []", "there is no task"),
            (
                "x.toml",
                "[defaults]\nkey = \"k\"\n[[task]]\n",
                "`key` cannot be the same",
            ),
            ("x.toml", "[job]\n", "x.toml:1:2: unknown field `job`"),
            (
                "x.yaml",
                "task:\n- command: [a]\n  memry: 1MiB\n",
                "x.yaml:3:3: task[0]: unknown field `memry`: did you mean `memory`?",
            ),
            ("x.yaml", "task: [", "x.yaml:"),
            ("x.yaml", "", "x.yaml:1:1: missing field `task`"),
        ] {
            let said = read(Path::new(name), text.as_bytes()).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        let said = read(Path::new("x"), b"\n\xff").expect_err("not text");
        assert_eq!(said, "x:2: is not UTF-8 text");
    }
}
