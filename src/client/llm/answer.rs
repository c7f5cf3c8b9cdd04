//! What the events of an answer mean, and what a refusal does.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::headers;
use super::stream::Event;
use super::{Failure, Piece, Usage};
use crate::model::json;
use crate::model::prompt::Dialect;
use crate::model::receipt::End;

/// Bytes of a provider's own words that are repeated.
const WORDS_MAX: usize = 400;

/// What an event brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing to us.
    Nothing,
    /// A piece of the answer.
    Words(Piece),
    /// The answer is whole.
    End(Usage),
}

/// An error in the middle of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    kind: String,
    /// Where it is told beside the kind.
    code: String,
    words: String,
}

impl Fault {
    fn of(error: &Value) -> Self {
        let text = |name: &str| {
            let value = error.get(name)?;
            // Some give numbers.
            let text = value.as_str().map(ToOwned::to_owned);
            text.or_else(|| value.as_u64().map(|number| number.to_string()))
        };
        let code = text("code").unwrap_or_default();
        Self {
            kind: text("type").unwrap_or_else(|| code.clone()),
            code,
            words: text("message").unwrap_or_else(|| error.to_string()),
        }
    }

    /// By its kind, since its status was 200 long before.
    pub(super) fn at(self, url: &str) -> Failure {
        let words = shorten(&self.words);
        let told = format!("{url}: broke off its answer: {} ({})", words, self.kind);
        let lasting = [
            "invalid_request_error",
            "exceed_context_size_error",
            "context_length_exceeded",
            "content_filter",
            "authentication_error",
            "permission_error",
            "not_found_error",
            "400",
            "401",
            "403",
            "404",
        ];
        let is = |words: &[&str]| {
            words
                .iter()
                .any(|word| self.kind == *word || self.code == *word)
        };
        let end = if is(&["insufficient_quota", "billing_error", "402"]) {
            End::Barred
        } else if is(&["rate_limit_error", "rate_limit_exceeded", "429"]) {
            End::Refused
        } else if is(&["overloaded_error", "503", "529"]) {
            End::Overloaded
        } else if is(&lasting) {
            End::Rejected
        } else {
            End::Broken
        };
        Failure::new(end, told)
    }
}

/// What matters of an answer that came in one piece.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counted {
    usage: Option<Counts>,
}

/// What a provider counts, in the words of both dialects.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

/// An answer that comes.
#[derive(Debug)]
pub(super) struct Answer {
    dialect: Dialect,
    usage: Usage,
    /// Its provider has given a reason why it ends.
    finished: bool,
}

impl Answer {
    pub(super) const fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            usage: Usage {
                input: None,
                output: None,
                cut: false,
                refused: false,
            },
            finished: false,
        }
    }

    /// What the provider counts for an answer that came in one piece.
    pub(super) fn usage_of(&self, body: &[u8]) -> Usage {
        // All else of it is passed over, and takes no memory.
        let body: Counted = serde_json::from_slice(body).unwrap_or_default();
        let counts = body.usage.unwrap_or_default();
        let (input, output) = match self.dialect {
            Dialect::OpenAi => (counts.prompt_tokens, counts.completion_tokens),
            Dialect::Anthropic => (counts.input_tokens, counts.output_tokens),
        };
        Usage {
            input,
            output,
            ..Usage::default()
        }
    }

    /// What its provider has counted so far.
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// What it has come to, where the stream ended without its last word: some
    /// servers leave that out after they gave their reason.
    pub(super) fn whole(&self) -> Option<Usage> {
        let may = self.dialect == Dialect::OpenAi && self.finished;
        may.then_some(self.usage)
    }

    /// Takes an event in.
    pub(super) fn hear(&mut self, event: &Event) -> Result<Heard, Fault> {
        if event.data == "[DONE]" && self.dialect == Dialect::OpenAi {
            if self.finished {
                return Ok(Heard::End(self.usage));
            }
            return Err(Fault {
                kind: "unfinished".to_owned(),
                code: String::new(),
                words: "its last word came without a reason to end".to_owned(),
            });
        }
        let data = match json::read(&event.data) {
            Ok(data) => data,
            // An event of a kind that has no content.
            Err(_) if event.data.trim().is_empty() => return Ok(Heard::Nothing),
            Err(words) => {
                let kind = "not JSON".to_owned();
                let code = String::new();
                return Err(Fault { kind, code, words });
            }
        };
        if let Some(error) = data.get("error").filter(|error| !error.is_null()) {
            return Err(Fault::of(error));
        }
        Ok(match self.dialect {
            Dialect::OpenAi => self.chunk(&data),
            Dialect::Anthropic => self.message(&data),
        })
    }

    fn chunk(&mut self, data: &Value) -> Heard {
        let usage = data.get("usage");
        self.count(usage, "prompt_tokens", "completion_tokens");
        let Some(choice) = data.pointer("/choices/0") else {
            return Heard::Nothing;
        };
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.finished = true;
            self.usage.cut = reason == "length";
            self.usage.refused |= reason == "content_filter";
        }
        let refusal = choice.pointer("/delta/refusal").and_then(Value::as_str);
        self.usage.refused |= refusal.is_some_and(|words| !words.is_empty());
        words(choice.pointer("/delta/content"), Piece::Text)
    }

    fn message(&mut self, data: &Value) -> Heard {
        match data.get("type").and_then(Value::as_str) {
            Some("message_start") => {
                let usage = data.pointer("/message/usage");
                self.count(usage, "input_tokens", "output_tokens");
                Heard::Nothing
            }
            Some("content_block_delta") => match data.pointer("/delta/partial_json") {
                None => words(data.pointer("/delta/text"), Piece::Text),
                piece => words(piece, Piece::Data),
            },
            Some("message_delta") => {
                self.count(data.get("usage"), "input_tokens", "output_tokens");
                let reason = data.pointer("/delta/stop_reason").and_then(Value::as_str);
                self.finished |= reason.is_some();
                self.usage.cut |= reason == Some("max_tokens");
                self.usage.refused |= reason == Some("refusal");
                Heard::Nothing
            }
            Some("message_stop") => Heard::End(self.usage),
            Some(_) | None => Heard::Nothing,
        }
    }

    fn count(&mut self, usage: Option<&Value>, input: &str, output: &str) {
        let number = |name: &str| usage?.get(name)?.as_u64();
        self.usage.input = number(input).or(self.usage.input);
        self.usage.output = number(output).or(self.usage.output);
    }
}

fn words(text: Option<&Value>, piece: fn(String) -> Piece) -> Heard {
    match text.and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Heard::Words(piece(text.to_owned())),
        Some(_) | None => Heard::Nothing,
    }
}

/// What a status other than 200 stands for.
pub(super) fn refused(url: &str, status: StatusCode, headers: &HeaderMap, text: &str) -> Failure {
    let data: Value = serde_json::from_str(text).unwrap_or_default();
    // Some put it into a list.
    let data = data.get(0).unwrap_or(&data);
    let error = data.get("error").unwrap_or(data);
    let fault = Fault::of(error);
    let words = if error.is_object() {
        &fault.words
    } else {
        text
    };
    let advice = match status.as_u16() {
        401 | 403 => "; see the key of this provider in section [llm]",
        402 => "; see the account of this provider",
        _ => "",
    };
    let told = format!("{url}: answered {status}: {}{advice}", shorten(words));
    let spent = fault.code == "insufficient_quota" || fault.kind == "insufficient_quota";
    let end = match status.as_u16() {
        401..=403 => End::Barred,
        429 if spent => End::Barred,
        400 if is_of_money(&fault.words) => End::Barred,
        429 => End::Refused,
        503 | 529 => End::Overloaded,
        408 | 409 | 425 | 500.. => End::Broken,
        _ => End::Rejected,
    };
    Failure {
        wait: headers::wait(headers).or_else(|| told_wait(error)),
        remains: headers::remains(headers),
        ..Failure::new(end, told)
    }
}

/// Whether a refusal is of an account that has nothing left to spend. Of one
/// vendor that comes as a fault of the question, and only its words tell it.
fn is_of_money(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    [
        "credit balance is too low",
        "reached your specified api usage limits",
    ]
    .iter()
    .any(|known| words.contains(known))
}

/// The wait that is told in the body alone, as one vendor does: `"26s"`, in one
/// of several details.
fn told_wait(error: &Value) -> Option<Duration> {
    let mut details = error.get("details")?.as_array()?.iter();
    let delay = details.find_map(|detail| detail.get("retryDelay")?.as_str())?;
    let seconds: f64 = delay.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The beginning, in one line.
fn shorten(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(answer: &mut Answer, data: &str) -> Result<Heard, Fault> {
        answer.hear(&Event {
            kind: None,
            data: data.to_owned(),
        })
    }

    #[test]
    fn chat_completions_are_whole_with_their_reason_and_count_their_tokens() {
        let mut answer = Answer::new(Dialect::OpenAi);
        let piece = r#"{"choices":[{"delta":{"content":"Hi"}}]}"#;
        assert_eq!(
            hear(&mut answer, piece),
            Ok(Heard::Words(Piece::Text("Hi".to_owned())))
        );
        assert_eq!(answer.whole(), None);
        let end = r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#;
        assert_eq!(hear(&mut answer, end), Ok(Heard::Nothing));
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#;
        assert_eq!(hear(&mut answer, usage), Ok(Heard::Nothing));
        let expected = Usage {
            input: Some(7),
            output: Some(2),
            cut: true,
            refused: false,
        };
        assert_eq!(hear(&mut answer, "[DONE]"), Ok(Heard::End(expected)));
        assert_eq!(answer.whole(), Some(expected));
    }

    #[test]
    fn messages_are_whole_with_their_last_event_only() {
        let mut answer = Answer::new(Dialect::Anthropic);
        for (data, heard) in [
            (
                r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#,
                Heard::Nothing,
            ),
            (r#"{"type":"ping"}"#, Heard::Nothing),
            (
                r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}"#,
                Heard::Words(Piece::Text("Hi".to_owned())),
            ),
            (
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}"#,
                Heard::Nothing,
            ),
        ] {
            assert_eq!(hear(&mut answer, data), Ok(heard), "{data}");
            assert_eq!(answer.whole(), None, "{data}");
        }
        let expected = Usage {
            input: Some(9),
            output: Some(5),
            cut: false,
            refused: false,
        };
        assert_eq!(
            hear(&mut answer, r#"{"type":"message_stop"}"#),
            Ok(Heard::End(expected))
        );
    }

    #[test]
    fn json_is_kept_apart_from_text_and_a_refusal_is_known() {
        let mut answer = Answer::new(Dialect::Anthropic);
        let piece = r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{\"a\""}}"#;
        let data = Piece::Data("{\"a\"".to_owned());
        assert_eq!(hear(&mut answer, piece), Ok(Heard::Words(data)));
        for (dialect, data) in [
            (
                Dialect::Anthropic,
                r#"{"type":"message_delta","delta":{"stop_reason":"refusal"}}"#,
            ),
            (
                Dialect::OpenAi,
                r#"{"choices":[{"delta":{"refusal":"I cannot"}}]}"#,
            ),
            (
                Dialect::OpenAi,
                r#"{"choices":[{"delta":{},"finish_reason":"content_filter"}]}"#,
            ),
        ] {
            let mut answer = Answer::new(dialect);
            assert_eq!(hear(&mut answer, data), Ok(Heard::Nothing), "{data}");
            assert!(answer.usage.refused, "{data}");
        }
    }

    #[test]
    fn errors_inside_an_answer_are_told_apart_by_their_kind() {
        let fault = |dialect, data| {
            hear(&mut Answer::new(dialect), data)
                .expect_err("fault")
                .at("u")
        };
        let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#;
        let end = |dialect, data| fault(dialect, data).end;
        assert_eq!(end(Dialect::Anthropic, overloaded), Some(End::Overloaded));
        let bad = r#"{"error":{"type":"invalid_request_error","message":"no"}}"#;
        assert_eq!(end(Dialect::OpenAi, bad), Some(End::Rejected));
        let code = r#"{"error":{"code":502,"message":"upstream"}}"#;
        assert_eq!(end(Dialect::OpenAi, code), Some(End::Broken));
        assert_eq!(end(Dialect::OpenAi, "[DONE]"), Some(End::Broken));
        assert_eq!(end(Dialect::OpenAi, "{broken"), Some(End::Broken));
    }

    #[test]
    fn refusals_by_status_and_kind() {
        let headers = HeaderMap::new();
        let refuse = |status: u16, text: &str| {
            refused(
                "u",
                StatusCode::from_u16(status).expect("status"),
                &headers,
                text,
            )
        };
        let long = refuse(400, "{\"error\":{\"message\":\"too long\"}}");
        assert_eq!(long.end, Some(End::Rejected));
        assert!(long.why.contains("too long"), "{long:?}");
        let gone = refuse(404, "nothing here");
        assert_eq!(gone.end, Some(End::Rejected));
        assert!(gone.why.contains("nothing here"), "{gone:?}");
        let spent = "{\"error\":{\"code\":\"insufficient_quota\",\"message\":\"pay\"}}";
        for (status, text, end) in [
            (401, "", End::Barred),
            (402, "", End::Barred),
            (429, "", End::Refused),
            (429, spent, End::Barred),
            (500, "", End::Broken),
            (503, "", End::Overloaded),
            (529, "", End::Overloaded),
        ] {
            assert_eq!(refuse(status, text).end, Some(end), "{status} {text}");
        }
    }
}
