//! What the events of an answer mean, and what a refusal does.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

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
            "invalid_prompt",
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
        } else if is(&[
            "overloaded_error",
            "server_is_overloaded",
            "slow_down",
            "503",
            "529",
        ]) {
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
struct Whole {
    usage: Option<Counts>,
    status: Option<String>,
    error: Option<Value>,
}

/// What a provider counts, in the words of all dialects. One of them counts what
/// it knew already, or is to remember, beside the rest; where the others tell of
/// it, and of what a model thinks, that is a part of the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

impl Counts {
    fn of(usage: Option<&Value>) -> Self {
        // It is next to nothing, and one that is none of this kind is none.
        usage
            .map(Self::deserialize)
            .and_then(Result::ok)
            .unwrap_or_default()
    }

    /// Tokens of what was asked, and of the answer.
    fn read(&self, dialect: Dialect) -> (Option<u64>, Option<u64>) {
        match dialect {
            Dialect::OpenAi => (self.prompt_tokens, self.completion_tokens),
            Dialect::Responses => (self.input_tokens, self.output_tokens),
            Dialect::Anthropic => {
                let cached = [
                    self.cache_read_input_tokens,
                    self.cache_creation_input_tokens,
                ];
                let input = self.input_tokens.map(|tokens| {
                    let cached = cached.into_iter().flatten();
                    cached.fold(tokens, u64::saturating_add)
                });
                (input, self.output_tokens)
            }
        }
    }
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

    /// Takes in an answer that came in one piece.
    pub(super) fn hear_whole(&mut self, body: &[u8]) -> Result<(), Fault> {
        // All else of it is passed over, and takes no memory.
        let body: Whole = serde_json::from_slice(body).unwrap_or_default();
        self.count(&body.usage.unwrap_or_default());
        let failed = body.status.as_deref() == Some("failed");
        match body.error.filter(|error| !error.is_null()) {
            Some(error) if failed && self.dialect == Dialect::Responses => Err(Fault::of(&error)),
            Some(_) | None => Ok(()),
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
            Dialect::Responses => return self.response(&data),
            Dialect::Anthropic => self.message(&data),
        })
    }

    fn chunk(&mut self, data: &Value) -> Heard {
        self.count(&Counts::of(data.get("usage")));
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
                self.count(&Counts::of(data.pointer("/message/usage")));
                Heard::Nothing
            }
            Some("content_block_delta") => match data.pointer("/delta/partial_json") {
                None => words(data.pointer("/delta/text"), Piece::Text),
                piece => words(piece, Piece::Data),
            },
            Some("message_delta") => {
                self.count(&Counts::of(data.get("usage")));
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

    /// An event of responses. Those that end one have all of it once more.
    fn response(&mut self, data: &Value) -> Result<Heard, Fault> {
        let kind = data.get("type").and_then(Value::as_str).unwrap_or_default();
        let ended = ["completed", "incomplete", "failed", "cancelled"];
        let end = kind.strip_prefix("response.");
        let Some(end) = end.filter(|end| ended.contains(end)) else {
            return match kind {
                "error" => Err(Fault::of(data)),
                "response.refusal.delta" => {
                    self.usage.refused = true;
                    Ok(Heard::Nothing)
                }
                "response.output_text.delta" => Ok(words(data.get("delta"), Piece::Text)),
                _ => Ok(Heard::Nothing),
            };
        };
        self.count(&Counts::of(data.pointer("/response/usage")));
        if ["failed", "cancelled"].contains(&end) {
            let error = data.pointer("/response/error");
            let error = error.filter(|error| !error.is_null());
            return Err(Fault::of(error.unwrap_or(&json!({"type": end}))));
        }
        let why = data.pointer("/response/incomplete_details/reason");
        match why.and_then(Value::as_str) {
            Some("content_filter") => self.usage.refused = true,
            // Some servers say so in an event of those that are complete.
            why => self.usage.cut = why.is_some() || end == "incomplete",
        }
        Ok(Heard::End(self.usage))
    }

    fn count(&mut self, counts: &Counts) {
        let (input, output) = counts.read(self.dialect);
        // What comes later counts all that came before.
        self.usage.input = input.max(self.usage.input);
        self.usage.output = output.max(self.usage.output);
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
    fn responses_are_whole_with_the_event_that_ends_them_only() {
        let deltas = [
            r#"{"type":"response.created","response":{"status":"in_progress","error":null,"usage":null}}"#,
            r#"{"type":"response.reasoning_summary_text.delta","delta":"hm"}"#,
            r#"{"type":"response.output_text.done","text":"Hi"}"#,
            r#"{"type":"response.output_item.done","item":{"status":"completed"}}"#,
        ];
        let usage = r#""usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":3}}"#;
        for (kind, details, cut, refused) in [
            ("completed", "null", false, false),
            (
                "completed",
                r#"{"reason":"max_output_tokens"}"#,
                true,
                false,
            ),
            (
                "incomplete",
                r#"{"reason":"max_output_tokens"}"#,
                true,
                false,
            ),
            ("incomplete", "null", true, false),
            ("incomplete", r#"{"reason":"content_filter"}"#, false, true),
        ] {
            let mut answer = Answer::new(Dialect::Responses);
            for data in deltas {
                assert_eq!(hear(&mut answer, data), Ok(Heard::Nothing), "{data}");
            }
            let piece = r#"{"type":"response.output_text.delta","delta":"Hi"}"#;
            let text = Piece::Text("Hi".to_owned());
            assert_eq!(hear(&mut answer, piece), Ok(Heard::Words(text)));
            assert_eq!(answer.whole(), None, "a stream that ends here is cut");
            let end = format!(
                r#"{{"type":"response.{kind}","response":{{"error":null,"incomplete_details":{details},{usage}}}}}"#
            );
            let expected = Usage {
                input: Some(9),
                output: Some(5),
                cut,
                refused,
            };
            assert_eq!(hear(&mut answer, &end), Ok(Heard::End(expected)), "{end}");
        }
        let mut answer = Answer::new(Dialect::Responses);
        let piece = r#"{"type":"response.refusal.delta","delta":"I cannot"}"#;
        assert_eq!(hear(&mut answer, piece), Ok(Heard::Nothing));
        assert!(answer.usage.refused);
    }

    #[test]
    fn a_response_that_failed_is_told_apart_by_its_code_and_its_tokens_count() {
        let failed = |code: &str| {
            let response = json!({"status": "failed", "error": {"code": code, "message": "x"},
                "usage": {"input_tokens": 9, "output_tokens": 2}});
            let event = json!({"type": "response.failed", "response": response}).to_string();
            let plain = json!({"type": "error", "code": code, "message": "x", "param": null});
            let mut answer = Answer::new(Dialect::Responses);
            let end = hear(&mut answer, &event).expect_err("fault").at("u").end;
            assert_eq!(
                (answer.usage.input, answer.usage.output),
                (Some(9), Some(2))
            );
            let mut answer = Answer::new(Dialect::Responses);
            let other = hear(&mut answer, &plain.to_string()).expect_err("fault");
            assert_eq!(other.at("u").end, end, "{code}");
            let mut answer = Answer::new(Dialect::Responses);
            let whole = answer.hear_whole(response.to_string().as_bytes());
            assert_eq!(whole.expect_err("fault").at("u").end, end, "{code}");
            assert_eq!(
                (answer.usage.input, answer.usage.output),
                (Some(9), Some(2))
            );
            end
        };
        for (code, end) in [
            ("server_error", End::Broken),
            ("rate_limit_exceeded", End::Refused),
            ("server_is_overloaded", End::Overloaded),
            ("slow_down", End::Overloaded),
            ("insufficient_quota", End::Barred),
            ("invalid_prompt", End::Rejected),
            ("context_length_exceeded", End::Rejected),
        ] {
            assert_eq!(failed(code), Some(end), "{code}");
        }
        let mut answer = Answer::new(Dialect::Responses);
        let bare = r#"{"type":"response.failed","response":{"error":null}}"#;
        let fault = hear(&mut answer, bare).expect_err("fault").at("u");
        assert_eq!(fault.end, Some(End::Broken), "{fault:?}");
    }

    /// Of a question of 36 tokens, 35 of which it knew already, one was counted.
    #[test]
    fn tokens_that_a_provider_knew_already_are_counted() {
        let mut answer = Answer::new(Dialect::Anthropic);
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":1,"cache_read_input_tokens":30,"cache_creation_input_tokens":5,"output_tokens":1}}}"#;
        assert_eq!(hear(&mut answer, start), Ok(Heard::Nothing));
        let last = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":1,"output_tokens":5}}"#;
        assert_eq!(hear(&mut answer, last), Ok(Heard::Nothing));
        assert_eq!(
            (answer.usage.input, answer.usage.output),
            (Some(36), Some(5))
        );
        let mut answer = Answer::new(Dialect::OpenAi);
        let body = br#"{"usage":{"prompt_tokens":36,"prompt_tokens_details":{"cached_tokens":35},"completion_tokens":5}}"#;
        assert_eq!(answer.hear_whole(body), Ok(()));
        assert_eq!(
            (answer.usage.input, answer.usage.output),
            (Some(36), Some(5))
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
