//! A call that somebody else has worded, passed on to a provider: what has to
//! be changed in it, and what its answer says of its cost.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::https::pool::Pool;
use super::answer::{Answer, Heard};
use super::headers;
use super::room::{ANSWER_MAX, too_long};
use super::stream::Stream;
use super::{Failure, authorize, network, refusal, silent};
use crate::model::prompt::{Dialect, Key};
use crate::model::receipt::{End, Receipt, Remains};

/// Header of whoever speaks the messages dialect, which is passed on.
const BETA: &str = "anthropic-beta";

/// What is passed on.
#[derive(Debug)]
pub struct Question {
    /// How it is worded.
    pub dialect: Dialect,
    /// The body.
    pub body: Value,
    /// Features that it asks for by a header.
    pub beta: Option<HeaderValue>,
}

/// Whom it is passed on to.
#[derive(Debug)]
pub struct Provider<'g> {
    /// Where that is.
    pub base_url: &'g str,
    /// What it is told to prove who asks.
    pub key: Option<&'g Key>,
    /// What it calls the model.
    pub model: &'g str,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// The answer must not be longer, whether or not it was said.
    pub limited: bool,
}

impl Question {
    /// The model that is named; empty for none.
    #[must_use]
    pub fn model(&self) -> &str {
        self.body.get("model").and_then(Value::as_str).unwrap_or("")
    }

    /// Most tokens of the answer, of all that it asks for at once, if it says so.
    #[must_use]
    pub fn max_tokens(&self) -> Option<u32> {
        let names: &[&str] = match self.dialect {
            Dialect::Responses => &["max_output_tokens"],
            Dialect::OpenAi | Dialect::Anthropic => &["max_completion_tokens", "max_tokens"],
        };
        let most = names.iter().find_map(|name| self.body.get(name)?.as_u64());
        let most = most.map(|most| most.saturating_mul(self.choices()));
        most.map(|most| u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// How many answers it asks for.
    fn choices(&self) -> u64 {
        let count = self.body.get("n").and_then(Value::as_u64);
        count.unwrap_or(1).max(1)
    }

    /// Whether the answer is to come in pieces.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.body.get("stream").and_then(Value::as_bool) == Some(true)
    }

    /// What of it cannot be passed on, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let later = self.body.get("background").and_then(Value::as_bool) == Some(true);
        (later && self.dialect == Dialect::Responses).then_some(
            "`background` is not passed on: the answer would come when nobody here can see what \
             it cost; ask without it",
        )
    }

    /// The body as the provider gets it: its own name of the model, the wish to
    /// be told what it cost, and in the dialect that needs one a bound on the
    /// answer. Chat completions have two words for that, and some models take
    /// only one of them: there, none is none, and a longer answer than was
    /// reckoned with is charged when it is over. Where a budget is, it gets the
    /// newer one.
    fn body_for(&self, provider: &Provider<'_>) -> Value {
        let mut body = self.body.clone();
        let Some(fields) = body.as_object_mut() else {
            return body;
        };
        fields.insert("model".to_owned(), json!(provider.model));
        if self.dialect == Dialect::Anthropic && self.max_tokens().is_none() {
            fields.insert("max_tokens".to_owned(), json!(provider.max_tokens));
        }
        if provider.limited && self.max_tokens().is_none() {
            let each = (u64::from(provider.max_tokens) / self.choices()).max(1);
            let name = match self.dialect {
                Dialect::OpenAi => Some("max_completion_tokens"),
                Dialect::Responses => Some("max_output_tokens"),
                Dialect::Anthropic => None,
            };
            fields.extend(name.map(|name| (name.to_owned(), json!(each))));
        }
        if self.dialect == Dialect::OpenAi && self.is_stream() {
            let options = fields.entry("stream_options").or_insert_with(|| json!({}));
            if let Some(options) = options.as_object_mut() {
                options.insert("include_usage".to_owned(), json!(true));
            }
        }
        body
    }
}

/// Passes a question on; the answer comes as it may, for as long as the provider
/// is never silent for so long.
///
/// # Errors
/// There is no answer: the provider refused, failed or was not reached.
pub async fn pass_on(
    pool: &Pool,
    question: &Question,
    provider: &Provider<'_>,
    idle: Duration,
) -> Result<(Response<Incoming>, Listening), Failure> {
    let passed = send(pool, question, provider, idle).await;
    passed.map_err(|failure| failure.without(provider.key))
}

async fn send(
    pool: &Pool,
    question: &Question,
    provider: &Provider<'_>,
    idle: Duration,
) -> Result<(Response<Incoming>, Listening), Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let accept = if question.is_stream() {
        "text/event-stream"
    } else {
        "application/json"
    };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    if let Some(beta) = &question.beta {
        headers.insert(HeaderName::from_static(BETA), beta.clone());
    }
    let url = authorize(
        question.dialect,
        provider.base_url,
        provider.key,
        &mut headers,
    )?;
    let body = question.body_for(provider).to_string().into_bytes();
    let begun = timeout(idle, pool.ask(Method::POST, &url, headers, body)).await;
    let response = begun
        .map_err(|_| Failure::broken(silent(&url, idle)))?
        .map_err(network)?;
    if !response.status().is_success() {
        let (parts, body) = response.into_parts();
        let text = refusal(body, idle).await;
        return Err(super::answer::refused(
            &url,
            parts.status,
            &parts.headers,
            &text,
        ));
    }
    let listening = Listening {
        url,
        key: provider.key.cloned(),
        stream: question.is_stream().then(Stream::default),
        answer: Answer::new(question.dialect),
        whole: Vec::new(),
        remains: headers::remains(response.headers()),
        failure: None,
        is_over: false,
    };
    Ok((response, listening))
}

/// Listens to an answer that is passed on.
#[derive(Debug)]
pub struct Listening {
    url: String,
    /// Some providers repeat it in what they complain of.
    key: Option<Key>,
    /// None for an answer in one piece.
    stream: Option<Stream>,
    answer: Answer,
    whole: Vec<u8>,
    remains: Vec<Remains>,
    failure: Option<Failure>,
    is_over: bool,
}

impl Listening {
    /// Takes in bytes of the answer; whether it may go on. One in pieces may for
    /// as long as its reader reads: nothing of it is kept here. One in a single
    /// piece is looked through for its cost.
    #[must_use]
    pub fn hear(&mut self, bytes: &Bytes) -> bool {
        let Some(stream) = &mut self.stream else {
            if self.whole.len() + bytes.len() > ANSWER_MAX {
                let what = "in one piece it may have 8 MiB";
                self.failure = Some(too_long(&self.url, what));
                return false;
            }
            self.whole.extend(bytes);
            return true;
        };
        let Ok(events) = stream.push(bytes) else {
            return true;
        };
        for event in events {
            match self.answer.hear(&event) {
                Ok(Heard::End(_)) => self.is_over = true,
                Ok(Heard::Nothing | Heard::Words(_)) => {}
                Err(fault) => {
                    let failure = fault.at(&self.url);
                    self.failure.get_or_insert(failure);
                }
            }
        }
        true
    }

    /// What it came to; `whole` where the provider has ended it in order.
    #[must_use]
    pub fn end(mut self, whole: bool) -> Receipt {
        if self.stream.is_none()
            && let Err(fault) = self.answer.hear_whole(&self.whole)
        {
            let failure = fault.at(&self.url);
            self.failure.get_or_insert(failure);
        }
        let usage = self.answer.usage();
        let ended = self.is_over || self.stream.is_none() || self.answer.whole().is_some();
        let end = match &self.failure {
            Some(failure) => failure.end.unwrap_or(End::Broken),
            None if whole && ended => End::Answered,
            None => End::Broken,
        };
        let key = self.key.as_ref();
        let why = self.failure.map(|failure| failure.without(key).why);
        let why = why.unwrap_or_default();
        Receipt {
            input: usage.input,
            output: usage.output,
            remains: self.remains,
            why,
            ..Receipt::of(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(dialect: Dialect, body: Value) -> Question {
        Question {
            dialect,
            body,
            beta: None,
        }
    }

    #[test]
    fn what_is_passed_on_names_the_providers_model_and_is_bounded() {
        let provider = Provider {
            base_url: "http://x",
            key: None,
            model: "m-1",
            max_tokens: 77,
            limited: false,
        };
        let asked = question(
            Dialect::OpenAi,
            json!({"model": "chat", "messages": [], "stream": true, "temperature": 0}),
        );
        let expected = json!({
            "model": "m-1", "messages": [], "stream": true, "temperature": 0,
            "stream_options": {"include_usage": true},
        });
        assert_eq!(asked.body_for(&provider), expected);
        let asked = question(Dialect::OpenAi, json!({"max_completion_tokens": 5}));
        assert_eq!(asked.max_tokens(), Some(5));
        let expected = json!({"max_completion_tokens": 5, "model": "m-1"});
        assert_eq!(asked.body_for(&provider), expected);
        // Several answers are as many times as long.
        let asked = question(Dialect::OpenAi, json!({"max_tokens": 5, "n": 3}));
        assert_eq!(asked.max_tokens(), Some(15));
        let limited = Provider {
            limited: true,
            ..provider
        };
        let asked = question(Dialect::OpenAi, json!({"n": 7}));
        let expected = json!({"n": 7, "model": "m-1", "max_completion_tokens": 11});
        assert_eq!(asked.body_for(&limited), expected);
        let provider = limited;
        let asked = question(Dialect::Responses, json!({"input": "?", "stream": true}));
        assert_eq!(asked.max_tokens(), None);
        let expected =
            json!({"input": "?", "stream": true, "model": "m-1", "max_output_tokens": 77});
        assert_eq!(asked.body_for(&provider), expected);
        let asked = question(Dialect::Responses, json!({"max_output_tokens": 5}));
        assert_eq!(asked.max_tokens(), Some(5));
        assert_eq!(asked.fault(), None);
        let later = question(Dialect::Responses, json!({"background": true}));
        assert!(later.fault().is_some());
        let asked = question(Dialect::Anthropic, json!({"messages": []}));
        let expected = json!({"messages": [], "model": "m-1", "max_tokens": 77});
        assert_eq!(asked.body_for(&provider), expected);
    }

    fn listening(dialect: Dialect, stream: bool) -> Listening {
        Listening {
            url: "u".to_owned(),
            key: None,
            stream: stream.then(Stream::default),
            answer: Answer::new(dialect),
            whole: Vec::new(),
            remains: Vec::new(),
            failure: None,
            is_over: false,
        }
    }

    #[test]
    fn the_cost_of_an_answer_is_found_in_pieces_and_in_one() {
        let mut pieces = listening(Dialect::OpenAi, true);
        assert!(pieces.hear(&Bytes::from_static(
            b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n",
        )));
        assert!(pieces.hear(&Bytes::from_static(b"data: [DONE]\n\n")));
        let receipt = pieces.end(true);
        assert_eq!(
            (receipt.end, receipt.input, receipt.output),
            (End::Answered, Some(7), Some(2))
        );
        let mut one = listening(Dialect::Anthropic, false);
        assert!(one.hear(&Bytes::from_static(b"{\"usage\":{\"input_tokens\":9,")));
        assert!(one.hear(&Bytes::from_static(b"\"output_tokens\":4}}")));
        let receipt = one.end(true);
        assert_eq!(
            (receipt.end, receipt.input, receipt.output),
            (End::Answered, Some(9), Some(4))
        );
        let mut half = listening(Dialect::OpenAi, true);
        assert!(half.hear(&Bytes::from_static(
            b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n",
        )));
        assert_eq!(half.end(true).end, End::Broken);
    }
}
