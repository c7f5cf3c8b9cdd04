//! What is sent to a provider, in the words of its dialect.

use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{Failure, Turn, shape};
use crate::model::prompt::{Call, Dialect, Key};

/// Proves who asks, in the dialect's own way; where to ask.
pub(super) fn authorize(
    dialect: Dialect,
    base: &str,
    key: Option<&Key>,
    headers: &mut HeaderMap,
) -> Result<String, Failure> {
    Ok(match dialect {
        Dialect::OpenAi | Dialect::Responses => {
            if let Some(key) = key {
                headers.insert(AUTHORIZATION, secret(&format!("Bearer {}", key.reveal()))?);
            }
            match dialect {
                Dialect::Responses => format!("{base}/responses"),
                Dialect::OpenAi | Dialect::Anthropic => format!("{base}/chat/completions"),
            }
        }
        Dialect::Anthropic => {
            if let Some(key) = key {
                headers.insert(HeaderName::from_static("x-api-key"), secret(key.reveal())?);
            }
            let version = HeaderValue::from_static("2023-06-01");
            headers.insert(HeaderName::from_static("anthropic-version"), version);
            format!("{base}/v1/messages")
        }
    })
}

/// Where to send what.
pub(super) fn request(
    call: &Call,
    turn: Option<&Turn>,
) -> Result<(String, HeaderMap, Value), Failure> {
    let base = &call.base_url;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    let mut messages = vec![json!({"role": "user", "content": call.text})];
    if let Some(turn) = turn {
        // Some refuse messages without content.
        let reply = match turn.reply.trim() {
            "" => "(nothing)",
            reply => reply,
        };
        messages.push(match call.dialect {
            // Servers of others take no shorter form of it.
            Dialect::Responses => json!({
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": reply, "annotations": []}],
            }),
            Dialect::OpenAi | Dialect::Anthropic => json!({"role": "assistant", "content": reply}),
        });
        messages.push(json!({"role": "user", "content": turn.answer}));
    }
    let url = authorize(call.dialect, base, call.key.as_ref(), &mut headers)?;
    let body = match call.dialect {
        Dialect::OpenAi => chat(call, messages),
        Dialect::Responses => response(call, messages),
        Dialect::Anthropic => message(call, messages),
    };
    Ok((url, headers, body))
}

/// The body of a question whose answer comes in one piece.
pub(super) fn plain(call: &Call) -> Value {
    let messages = vec![json!({"role": "user", "content": call.text})];
    let mut body = match call.dialect {
        Dialect::OpenAi => chat(call, messages),
        Dialect::Responses => response(call, messages),
        Dialect::Anthropic => message(call, messages),
    };
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|name, _| !["stream", "stream_options"].contains(&name.as_str()));
    }
    body
}

/// A request in the words of chat completions.
fn chat(call: &Call, mut messages: Vec<Value>) -> Value {
    if let Some(text) = &call.system {
        messages.insert(0, json!({"role": "system", "content": text}));
    }
    let mut body = json!({
        "model": call.model,
        "messages": messages,
        "max_tokens": call.max_tokens,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if let (Some(schema), Some(body)) = (&call.schema, body.as_object_mut()) {
        let format = shape::response_format(schema);
        body.insert("response_format".to_owned(), format);
    }
    body
}

/// A request in the words of responses. The provider is to keep nothing of it:
/// what was asked and answered is kept here.
fn response(call: &Call, messages: Vec<Value>) -> Value {
    let mut body = json!({
        "model": call.model,
        "input": messages,
        "max_output_tokens": call.max_tokens,
        "store": false,
        "stream": true,
    });
    let Some(fields) = body.as_object_mut() else {
        return body;
    };
    if let Some(system) = &call.system {
        fields.insert("instructions".to_owned(), json!(system));
    }
    if let Some(schema) = &call.schema {
        let format = shape::text_format(schema);
        fields.insert("text".to_owned(), json!({"format": format}));
    }
    body
}

/// A request in the words of messages.
fn message(call: &Call, messages: Vec<Value>) -> Value {
    let mut body = json!({
        "model": call.model,
        "messages": messages,
        "max_tokens": call.max_tokens,
        "stream": true,
    });
    let Some(fields) = body.as_object_mut() else {
        return body;
    };
    if let Some(system) = &call.system {
        fields.insert("system".to_owned(), json!(system));
    }
    if let Some((tools, choice)) = call.schema.as_ref().and_then(shape::tool) {
        fields.insert("tools".to_owned(), tools);
        fields.insert("tool_choice".to_owned(), choice);
    }
    body
}

fn secret(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Failure::rejected("the key cannot be a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
