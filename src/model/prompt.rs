//! A prompt: what a language model is asked, whom, and how.
//!
//! A prompt is a task whose process is our own program. That program gets a
//! [`Call`], which is complete: it needs neither the configuration nor the
//! daemon, so a call outlives a restart of the daemon as every process does.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attempt::Class;
use super::estimate::Weight;
use super::limit::{Refund, Tokens};
use super::lot::{self, Lot, Order};
use super::retry::{Failure, Retry, passing};
use super::schema;

/// Queue of a prompt that names none: `queue set prompt --concurrency 4 --rate
/// 50/1m` is what a provider lets one account have.
pub const QUEUE: &str = "prompt";
/// Time limit of an attempt that names none, in milliseconds: long answers of
/// slow models take minutes.
pub const TIMEOUT_MS: u64 = 15 * 60_000;
/// Largest number of tokens that can be asked for.
pub const TOKENS_MAX: u32 = 10_000_000;

/// What follows a failed attempt of a prompt whose submitter does not say: what
/// may pass is tried again. A call that was turned away is no failed attempt.
#[must_use]
pub fn patience() -> Retry {
    let mut retry_on = passing();
    retry_on.push(Failure::Class(Class::Provider));
    Retry {
        max_attempts: 5,
        base_ms: 5_000,
        cap_ms: 600_000,
        retry_on,
        ..Retry::default()
    }
}

/// What a task asks of a model. The text itself is the task's standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Prompt {
    /// Which model, by its name in the configuration; before a task is accepted
    /// also empty, for the first that there is.
    pub model: String,
    /// Instructions ahead of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Most tokens of the answer; as the model is configured when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// What counts of its texts, weighed when the task is accepted.
    #[serde(skip_serializing_if = "Weight::is_empty")]
    pub weight: Weight,
    /// JSON schema of the answer, which is any text when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// How often the model is asked to mend an answer that is not as the schema
    /// has it; [`schema::REPAIRS`] times when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repairs: Option<u32>,
    /// Its text is many prompts, which go to the provider as one batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lot: Option<Lot>,
}

impl Prompt {
    /// The same with so many more bytes of text.
    #[must_use]
    pub fn heavier_by(self, bytes: u64) -> Self {
        let more = Weight {
            plain: bytes,
            dense: 0,
        };
        Self {
            weight: self.weight.and(more),
            ..self
        }
    }

    /// The most that it may come to when one question does: a model that may
    /// mend its answer is asked again, with all that it has answered and the
    /// schema.
    #[must_use]
    pub fn at_most(&self, once: Tokens) -> Tokens {
        let Some(schema) = &self.schema else {
            return once;
        };
        let times = u64::from(self.repairs.unwrap_or(schema::REPAIRS));
        // A token has at least a byte.
        let schema = u64::try_from(schema.to_string().len()).unwrap_or(u64::MAX);
        let asked = once.input.saturating_add(schema);
        let again = asked.saturating_add(once.output).saturating_add(schema);
        Tokens {
            input: asked.saturating_add(again.saturating_mul(times)),
            output: once.output.saturating_mul(times + 1),
        }
    }

    /// Most bytes of output of one that names no limit and needs another one
    /// than all tasks.
    #[must_use]
    pub fn output_cap(&self) -> Option<u64> {
        self.lot.as_ref().map(|_| lot::OUTPUT_CAP)
    }

    /// As whoever asked knows it: without what was weighed of it.
    #[must_use]
    pub fn as_asked(self) -> Self {
        Self {
            weight: Weight::default(),
            ..self
        }
    }

    /// The words that ask for it, but for the text.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        ["prompt", "--model", &self.model].map(str::to_owned).into()
    }

    /// The same without its schema, which is long.
    #[must_use]
    pub fn brief(&self) -> Self {
        Self {
            model: self.model.clone(),
            system: self.system.clone(),
            max_tokens: self.max_tokens,
            repairs: self.repairs,
            lot: self.lot.clone(),
            ..Self::default()
        }
    }

    /// Time limit of an attempt that names none, in milliseconds.
    #[must_use]
    pub const fn timeout_ms(&self) -> u64 {
        match self.lot {
            Some(_) => lot::TIMEOUT_MS,
            None => TIMEOUT_MS,
        }
    }

    /// Which of its numbers is wrong, and what is wrong with it, if anything is.
    /// Its schema is looked at where it comes in.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        if self
            .max_tokens
            .is_some_and(|most| !(1..=TOKENS_MAX).contains(&most))
        {
            let why = format!("must lie between 1 and {TOKENS_MAX}");
            return Some(("prompt.max_tokens", why));
        }
        if self.lot.is_some() && self.schema.is_some() {
            let why = "cannot be combined with provider_batch: answers of a batch are not mended";
            return Some(("prompt.schema", why.to_owned()));
        }
        let most = schema::REPAIRS_MAX;
        match self.repairs {
            Some(_) if self.schema.is_none() => {
                Some(("prompt.repairs", "goes with a schema only".to_owned()))
            }
            Some(repairs) if repairs > most => {
                Some(("prompt.repairs", format!("must not be more than {most}")))
            }
            Some(_) | None => None,
        }
    }
}

/// Whose words a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Chat completions, as `OpenAI` has them and most local servers do.
    OpenAi,
    /// Responses, as `OpenAI` has them beside those.
    Responses,
    /// Messages, as Anthropic has them.
    Anthropic,
}

impl Dialect {
    /// What providers that speak so give back of what a call might have used
    /// and did not: Anthropic counts an answer as long as it is, `OpenAI` as
    /// long as it might have been.
    #[must_use]
    pub const fn refund(self) -> Refund {
        match self {
            Self::OpenAi | Self::Responses => Refund::None,
            Self::Anthropic => Refund::Output,
        }
    }
}

/// What a provider is told to prove who asks. It is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// The key of this text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that it is made for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Everything that a call needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// How its provider speaks.
    pub dialect: Dialect,
    /// Where its provider is: what the paths of its interface are added to.
    pub base_url: String,
    /// What it is told, where it wants to know who asks.
    pub key: Option<Key>,
    /// The model, as the provider calls it.
    pub model: String,
    /// Instructions ahead of the text.
    pub system: Option<String>,
    /// What is asked.
    pub text: String,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// Longest silence of the provider before its answer begins, in milliseconds.
    pub first_ms: u64,
    /// The same afterwards.
    pub idle_ms: u64,
    /// JSON schema of the answer.
    pub schema: Option<Value>,
    /// How often the model is asked to mend an answer that is not as it has it.
    #[serde(default)]
    pub repairs: u32,
    /// The text is many prompts, and what becomes of them.
    #[serde(default)]
    pub lot: Option<Order>,
}

impl Call {
    /// The words for the program that makes the call: the only form that has
    /// the key in it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::json!({
            "dialect": self.dialect,
            "base_url": self.base_url,
            "key": self.key.as_ref().map(Key::reveal),
            "model": self.model,
            "system": self.system,
            "text": self.text,
            "max_tokens": self.max_tokens,
            "first_ms": self.first_ms,
            "idle_ms": self.idle_ms,
            "schema": self.schema,
            "repairs": self.repairs,
            "lot": self.lot,
        })
        .to_string()
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_reads_as_it_was_written_and_shows_no_key() {
        let call = Call {
            dialect: Dialect::OpenAi,
            base_url: "http://127.0.0.1:8080/v1".to_owned(),
            key: Some(Key::new("canary".to_owned())),
            model: "small".to_owned(),
            system: None,
            text: "say \"hello\"\n".to_owned(),
            max_tokens: 64,
            first_ms: 2000,
            idle_ms: 1000,
            schema: serde_json::from_str("{\"type\":\"object\",\"b\":1,\"a\":2}").ok(),
            repairs: 1,
            lot: None,
        };
        let read: Call = serde_json::from_slice(&call.to_json()).expect("a call");
        assert_eq!(read, call);
        assert!(!format!("{call:?}").contains("canary"));
        // Models write their answer in the order in which they are told of its parts.
        let text = String::from_utf8(call.to_json()).expect("text");
        assert!(
            text.contains("{\"type\":\"object\",\"b\":1,\"a\":2}"),
            "{text}"
        );
    }

    #[test]
    fn a_number_of_tokens_has_its_limits() {
        let asking = |max_tokens| Prompt {
            max_tokens,
            ..Prompt::default()
        };
        assert_eq!(asking(None).fault(), None);
        assert_eq!(asking(Some(1)).fault(), None);
        assert!(asking(Some(0)).fault().is_some());
        assert!(asking(Some(TOKENS_MAX + 1)).fault().is_some());
    }
}
