//! The answers to a file of prompts, a line for each in the file's order.
//!
//! They are written beside the file that is to have them and put in its place
//! as a whole: whoever reads it reads all of them, or those of another time.
//! A few are fetched at once, and none is held longer than its turn takes.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::task::{JoinHandle, spawn_local};

use crate::api::dto::{AttemptInfo, TaskInfo};
use crate::client::{Client, Error};

use super::super::Failure;
use super::batch::{End, Handed};

/// Answers fetched at once.
const AT_ONCE: usize = 16;
/// Letters of an error that are kept.
const WORDS_MAX: usize = 1000;

/// A file of answers that is being written.
#[derive(Debug)]
pub(super) struct Results {
    path: PathBuf,
    beside: PathBuf,
    file: Option<BufWriter<File>>,
}

/// A line of it.
#[derive(Serialize)]
struct Line<'a> {
    line: u32,
    id: Option<&'a str>,
    task: i64,
    state: &'a str,
    answer: Option<Answer>,
    error: Option<String>,
    /// Of all its calls, where the provider has counted.
    tokens: Tokens,
    /// The same, where the price is known.
    cost: Option<f64>,
}

/// What was used for an answer.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Tokens {
    input: u64,
    output: u64,
}

/// What is known of a prompt that is over.
#[derive(Debug, Clone)]
pub(super) struct Over {
    state: Box<str>,
    tokens: Tokens,
    cost: Option<f64>,
    dropped: u64,
    /// Why it failed, where that is known.
    message: Option<Box<str>>,
    /// It was over a budget, so its last attempt does not say why.
    refused: bool,
}

impl Over {
    pub(super) fn of(task: &TaskInfo) -> Self {
        let attempts = task.attempts.as_deref().unwrap_or_default();
        let (tokens, cost) = used(attempts);
        let outcome = task.outcome.as_ref();
        let message = outcome.map(|outcome| outcome.message.as_str());
        Self {
            state: task.state.as_str().into(),
            tokens,
            cost,
            dropped: attempts.last().map_or(0, |last| last.output_dropped_bytes),
            message: message
                .filter(|message| !message.is_empty())
                .map(Into::into),
            refused: outcome.is_some_and(|outcome| outcome.class == "budget"),
        }
    }
}

/// What all calls of a task have used and cost.
fn used(attempts: &[AttemptInfo]) -> (Tokens, Option<f64>) {
    let calls = || attempts.iter().filter_map(|attempt| attempt.call.as_ref());
    let tokens = Tokens {
        input: calls().filter_map(|call| call.input_tokens).sum(),
        output: calls().filter_map(|call| call.output_tokens).sum(),
    };
    let costs = calls().filter_map(|call| call.cost);
    (tokens, costs.reduce(|all, cost| all + cost))
}

/// What a model has answered.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Text(String),
    Json(Box<RawValue>),
}

impl Results {
    /// Begins a file of answers to the prompts in `asked`, so that one that
    /// cannot be written is known before anything is asked.
    pub(super) fn begin(path: &Path, asked: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let refuse = |why: String| Failure::Usage(format!("--out {name}: {why}"));
        let same = fs::canonicalize(path)
            .ok()
            .zip(fs::canonicalize(asked).ok());
        if same.is_some_and(|(path, asked)| path == asked) {
            return Err(refuse("is the file with the prompts".to_owned()));
        }
        if path.is_dir() {
            return Err(refuse("is a directory".to_owned()));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.part", std::process::id()));
        let beside = PathBuf::from(beside);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&beside)
            .map_err(|error| refuse(format!("cannot be written: {error}")))?;
        Ok(Self {
            path: path.to_owned(),
            beside,
            file: Some(BufWriter::new(file)),
        })
    }

    /// Writes these lines, and puts the file in its place.
    pub(super) fn write(mut self, lines: &[Value]) -> Result<(), Failure> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        for line in lines {
            writeln!(file, "{line}").map_err(|error| self.unwritten(&error))?;
        }
        self.place(file)
    }

    fn place(&self, file: BufWriter<File>) -> Result<(), Failure> {
        let file = file.into_inner().map_err(io::IntoInnerError::into_error);
        let file = file.map_err(|error| self.unwritten(&error))?;
        file.sync_all().map_err(|error| self.unwritten(&error))?;
        fs::rename(&self.beside, &self.path).map_err(|error| self.unwritten(&error))
    }

    /// Fetches all answers, which are JSON where a schema says how they look,
    /// and puts the file in its place.
    pub(super) async fn collect(
        mut self,
        client: &Client,
        rows: &[Handed],
        is_json: bool,
    ) -> Result<(), Failure> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        let mut ahead: VecDeque<JoinHandle<Result<Vec<u8>, Error>>> = VecDeque::new();
        let mut next = rows.iter();
        loop {
            while ahead.len() < AT_ONCE
                && let Some(row) = next.next()
            {
                let (client, line, task, end) = (client.clone(), row.line, row.task, row.ended);
                let (name, over) = (row.name.clone(), row.over.clone());
                ahead.push_back(spawn_local(async move {
                    let over = over.map(|over| *over);
                    let line = one(&client, line, name.as_deref(), (task, end, over), is_json);
                    line.await
                }));
            }
            let Some(first) = ahead.pop_front() else {
                break;
            };
            let line = first.await.map_err(io::Error::other)??;
            file.write_all(&line)
                .map_err(|error| self.unwritten(&error))?;
        }
        self.place(file)
    }

    fn unwritten(&self, error: &io::Error) -> Failure {
        let name = self.path.display();
        let told =
            format!("--out {name}: cannot be written: {error}; the answers are kept by the daemon");
        Failure::Code(1, told)
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        // Not there any more when it was put in its place.
        drop(fs::remove_file(&self.beside));
    }
}

/// The line of one prompt.
async fn one(
    client: &Client,
    line: u32,
    id: Option<&str>,
    (task, end, known): (i64, Option<End>, Option<Over>),
    is_json: bool,
) -> Result<Vec<u8>, Error> {
    let over = match known {
        Some(known) => Some(known),
        None => look(client, task).await?,
    };
    let (answer, error) = match &over {
        None => (None, Some("the task is no longer kept".to_owned())),
        Some(over) if end != Some(End::Answered) => {
            let said = client.output(task, "stderr").await?;
            // What was said last is of an attempt before, if there was one.
            let said = last_words(&said).filter(|_| !over.refused);
            (
                None,
                said.or_else(|| over.message.as_deref().map(Into::into)),
            )
        }
        Some(Over { dropped, .. }) if *dropped > 0 => {
            let why = format!("{dropped} bytes of its output are no longer kept, or never were");
            (None, Some(why))
        }
        Some(_) => {
            let bytes = client.output(task, "stdout").await?;
            (Some(answer(&bytes, is_json)), None)
        }
    };
    let line = Line {
        line,
        id,
        task,
        state: over.as_ref().map_or("gone", |over| &over.state),
        answer,
        error,
        tokens: over.as_ref().map(|over| over.tokens).unwrap_or_default(),
        cost: over.as_ref().and_then(|over| over.cost),
    };
    let mut bytes = serde_json::to_vec(&line).map_err(io::Error::from)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// What is known of a task that was over before anybody waited for it.
async fn look(client: &Client, task: i64) -> Result<Option<Over>, Error> {
    match client.task(task).await {
        Ok(shown) => Ok(Some(Over::of(&shown))),
        Err(Error::Refused(wire, _)) if wire.status == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn answer(bytes: &[u8], is_json: bool) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    if is_json && let Ok(json) = RawValue::from_string(text.trim().to_owned()) {
        return Answer::Json(json);
    }
    Answer::Text(text)
}

/// The last line of what a call said, which is why it failed.
pub(super) fn last_words(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    let line = line.strip_prefix("taskdaemon: ").unwrap_or(line);
    Some(line.chars().take(WORDS_MAX).collect())
}
