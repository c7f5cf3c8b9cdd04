//! What providers say of their batches, and of each prompt in one.

use serde_json::Value;

use crate::client::llm::answer::Answer;
use crate::model::lot::{self, Line};
use crate::model::prompt::Dialect;

/// How a batch stands.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) over: bool,
    /// Why it failed as a whole, if it did.
    pub(super) failed: Option<String>,
    pub(super) done: u64,
    pub(super) all: u64,
    /// Where its results are.
    pub(super) results: Vec<String>,
}

/// Where results are, of one vendor whose batches know it only themselves.
pub(super) fn path_of(batch: &str, path: &str) -> String {
    match path.is_empty() {
        true => format!("/v1/messages/batches/{batch}/results"),
        false => path.to_owned(),
    }
}

pub(super) fn named(value: &Value) -> Option<String> {
    value.get("id").and_then(Value::as_str).and_then(lot::name)
}

/// How a batch stands, by what its provider says of it.
pub(super) fn look_of(one: &Value, dialect: Dialect) -> Look {
    let count = |name: &str| {
        let count = one.pointer(&format!("/request_counts/{name}"));
        count.and_then(Value::as_u64).unwrap_or_default()
    };
    if dialect == Dialect::Anthropic {
        let over: u64 = ["succeeded", "errored", "canceled", "expired"]
            .into_iter()
            .map(count)
            .sum();
        let batch = named(one).unwrap_or_default();
        return Look {
            over: one.get("processing_status").and_then(Value::as_str) == Some("ended"),
            failed: None,
            done: over,
            all: over + count("processing"),
            results: vec![path_of(&batch, "")],
        };
    }
    let status = one
        .get("status")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let file = |name: &str| one.get(name).and_then(Value::as_str).and_then(lot::name);
    let files = ["output_file_id", "error_file_id"]
        .into_iter()
        .filter_map(file);
    let results: Vec<_> = files.map(|file| format!("/files/{file}/content")).collect();
    let ended = ["completed", "failed", "expired", "cancelled"].contains(&status);
    let why = one
        .pointer("/errors/data/0/message")
        .and_then(Value::as_str);
    let failed = status == "failed" && results.is_empty();
    Look {
        over: ended,
        failed: failed.then(|| why.unwrap_or("the provider did not take it").to_owned()),
        done: count("completed") + count("failed"),
        all: count("total"),
        results,
    }
}

/// What a line of results says of its prompt.
pub(super) fn line_of(value: &Value, dialect: Dialect) -> Line {
    let words = |error: &Value| {
        let error = error
            .get("error")
            .filter(|error| error.is_object())
            .unwrap_or(error);
        let words = error.get("message").and_then(Value::as_str);
        words.map_or_else(|| error.to_string(), ToOwned::to_owned)
    };
    let failed = |error: String| Line {
        error: Some(error),
        ..Line::default()
    };
    let body = if dialect == Dialect::Anthropic {
        match value.pointer("/result/type").and_then(Value::as_str) {
            Some("succeeded") => value.pointer("/result/message"),
            Some("errored") => {
                return failed(words(value.pointer("/result/error").unwrap_or(value)));
            }
            Some(other) => return failed(other.to_owned()),
            None => None,
        }
    } else {
        let status = value
            .pointer("/response/status_code")
            .and_then(Value::as_u64);
        let body = value.pointer("/response/body");
        let error = value.get("error").filter(|error| !error.is_null());
        match (error, status) {
            (Some(error), _) => return failed(words(error)),
            (None, Some(200)) => body,
            (None, _) => return failed(words(body.unwrap_or(value))),
        }
    };
    let Some(body) = body else {
        return failed(format!("a result that says nothing: {value}"));
    };
    let mut counted = Answer::new(dialect);
    let heard = counted.hear_whole(body.to_string().as_bytes());
    let usage = counted.usage();
    let text = text_of(body, dialect);
    let error = match heard {
        Err(fault) => Some(fault.at("the provider").why),
        Ok(()) => text.is_none().then(|| "an answer without text".to_owned()),
    };
    Line {
        answer: text.filter(|_| error.is_none()),
        error,
        input: usage.input,
        output: usage.output,
        ..Line::default()
    }
}

/// The text of an answer that came in one piece.
fn text_of(body: &Value, dialect: Dialect) -> Option<String> {
    let pieces = |list: Option<&Value>| {
        let list = list.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|piece| piece.get("text")?.as_str().map(ToOwned::to_owned))
            .collect::<Vec<_>>()
    };
    let texts = match dialect {
        Dialect::OpenAi => {
            let text = body.pointer("/choices/0/message/content");
            return text.and_then(Value::as_str).map(ToOwned::to_owned);
        }
        Dialect::Responses => {
            let items = body.get("output").and_then(Value::as_array);
            let items = items.into_iter().flatten();
            items.flat_map(|item| pieces(item.get("content"))).collect()
        }
        Dialect::Anthropic => pieces(body.get("content")),
    };
    (!texts.is_empty()).then(|| texts.concat())
}
