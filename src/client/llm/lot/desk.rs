//! Where a provider's batches are made, looked for and fetched.

use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::told::{look_of, named, path_of};
use crate::client::https::pool::Pool;
use crate::client::llm::request::{authorize, plain};
use crate::client::llm::{Failure, answer, network, silent};
use crate::model::lot::{self, Order, Row};
use crate::model::prompt::{Call, Dialect};

/// Bytes of an answer of the provider: results of a whole batch are one.
const ANSWER_MAX: usize = 512 * 1024 * 1024;
/// Pages of its list that are looked through, of a hundred batches each.
const PAGES: usize = 20;
/// How much earlier than this host's the provider's clock may say that a batch
/// was made, in seconds.
const SKEW: i64 = 300;

/// What the provider's list says of a mark.
pub(super) enum Search {
    Found(String),
    Nothing,
    /// One that is not over may be it.
    Unsure,
}

/// Where a provider's batches are asked for.
pub(super) struct Desk<'a> {
    pub(super) pool: &'a Pool,
    pub(super) call: &'a Call,
    pub(super) order: &'a Order,
}

impl Desk<'_> {
    pub(super) const fn batches(&self) -> &'static str {
        match self.call.dialect {
            Dialect::OpenAi | Dialect::Responses => "/batches",
            Dialect::Anthropic => "/v1/messages/batches",
        }
    }

    /// Name that a prompt has in the batch.
    pub(super) fn place(&self, number: usize) -> String {
        format!("{}-{number}", self.order.mark)
    }

    /// Asks, and gives the whole answer.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(HeaderValue, Vec<u8>)>,
    ) -> Result<Vec<u8>, Failure> {
        let mut headers = HeaderMap::new();
        let (base, key) = (&self.call.base_url, self.call.key.as_ref());
        authorize(self.call.dialect, base, key, &mut headers)?;
        let url = format!("{base}{path}");
        let body = body.map(|(kind, body)| {
            headers.insert(CONTENT_TYPE, kind);
            body
        });
        let first = Duration::from_millis(self.call.first_ms);
        let asked = self
            .pool
            .ask(method, &url, headers, body.unwrap_or_default());
        let response = timeout(first, asked)
            .await
            .map_err(|_| Failure::broken(silent(&url, first)))?
            .map_err(network)?;
        let (parts, body) = response.into_parts();
        let whole = timeout(first, Limited::new(body, ANSWER_MAX).collect()).await;
        let whole = whole.map_err(|_| Failure::broken(silent(&url, first)))?;
        let whole = whole
            .map_err(|error| Failure::broken(format!("{url}: the answer broke off: {error}")))?
            .to_bytes();
        if parts.status.is_success() {
            return Ok(whole.into());
        }
        let text = String::from_utf8_lossy(&whole);
        let failure = answer::refused(&url, parts.status, &parts.headers, &text);
        // A batch that was made a moment ago may not be there for all of it.
        let early = parts.status == StatusCode::CONFLICT;
        Err(if early {
            Failure::broken(failure.why)
        } else {
            failure
        })
    }

    pub(super) async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let kind = HeaderValue::from_static("application/json");
        let body = body.map(|body| (kind, body.to_string().into_bytes()));
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| Failure::broken(format!("{path}: is not answered in JSON: {error}")))
    }

    /// A prompt as the provider gets it.
    fn body(&self, row: &Row) -> Value {
        plain(&Call {
            text: row.text.clone(),
            system: row.system.clone().or_else(|| self.call.system.clone()),
            max_tokens: row.max_tokens.unwrap_or(self.call.max_tokens),
            key: None,
            lot: None,
            ..Call {
                text: String::new(),
                ..self.call.clone()
            }
        })
    }

    /// Makes the batch; its name.
    pub(super) async fn make(&self, rows: &[Row]) -> Result<String, Failure> {
        let made = match self.call.dialect {
            Dialect::Anthropic => {
                let requests = rows.iter().enumerate();
                let requests: Vec<_> = requests
                    .map(|(at, row)| json!({"custom_id": self.place(at), "params": self.body(row)}))
                    .collect();
                let body = json!({"requests": requests});
                self.json(Method::POST, self.batches(), Some(&body)).await?
            }
            Dialect::OpenAi | Dialect::Responses => {
                let endpoint = match self.call.dialect {
                    Dialect::Responses => "/v1/responses",
                    Dialect::OpenAi | Dialect::Anthropic => "/v1/chat/completions",
                };
                let file = self.upload(rows, endpoint).await?;
                let body = json!({
                    "input_file_id": file,
                    "endpoint": endpoint,
                    "completion_window": "24h",
                    "metadata": {"taskdaemon": self.order.mark},
                });
                self.json(Method::POST, self.batches(), Some(&body)).await?
            }
        };
        named(&made).ok_or_else(|| Failure::broken(format!("a batch without a name: {made}")))
    }

    /// Hands a file of prompts in; its name.
    async fn upload(&self, rows: &[Row], endpoint: &str) -> Result<String, Failure> {
        // No line of JSON begins with it.
        let edge = format!("----{}", self.order.mark);
        let mut body = format!(
            "--{edge}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{edge}\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"{}.jsonl\"\r\n\
             Content-Type: application/jsonl\r\n\r\n",
            self.order.mark
        );
        for (at, row) in rows.iter().enumerate() {
            let line = json!({
                "custom_id": self.place(at), "method": "POST", "url": endpoint, "body": self.body(row),
            });
            body.push_str(&line.to_string());
            body.push('\n');
        }
        body.push_str(&format!("\r\n--{edge}--\r\n"));
        let kind = HeaderValue::try_from(format!("multipart/form-data; boundary={edge}"));
        let kind = kind.map_err(|error| Failure::rejected(error.to_string()))?;
        let answer = self
            .send(Method::POST, "/files", Some((kind, body.into_bytes())))
            .await?;
        let file: Value = serde_json::from_slice(&answer).unwrap_or_default();
        named(&file).ok_or_else(|| Failure::broken(format!("a file without a name: {file}")))
    }

    /// Looks for a batch with the mark of this one.
    pub(super) async fn find(&self, rows: usize) -> Result<Search, Failure> {
        let mut after = String::new();
        let mut unsure = false;
        for _ in 0..PAGES {
            let path = format!("{}?limit=100{after}", self.batches());
            let page = self.json(Method::GET, &path, None).await?;
            for one in page
                .get("data")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                match self.is_this(one, rows).await? {
                    Search::Found(batch) => return Ok(Search::Found(batch)),
                    Search::Unsure => unsure = true,
                    Search::Nothing => {}
                }
            }
            let more = page.get("has_more").and_then(Value::as_bool) == Some(true);
            let last = page
                .get("last_id")
                .and_then(Value::as_str)
                .and_then(lot::name);
            let (true, Some(last)) = (more, last) else {
                break;
            };
            let word = match self.call.dialect {
                Dialect::OpenAi | Dialect::Responses => "after",
                Dialect::Anthropic => "after_id",
            };
            after = format!("&{word}={last}");
        }
        Ok(if unsure {
            Search::Unsure
        } else {
            Search::Nothing
        })
    }

    /// Whether a batch of the list is this one. Of one vendor it says so itself.
    /// Of the other its results do, once it is over.
    async fn is_this(&self, one: &Value, rows: usize) -> Result<Search, Failure> {
        let Some(batch) = named(one) else {
            return Ok(Search::Nothing);
        };
        if self.call.dialect != Dialect::Anthropic {
            let mark = one.pointer("/metadata/taskdaemon").and_then(Value::as_str);
            let status = one
                .get("status")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let gone = ["failed", "cancelled", "cancelling"].contains(&status);
            let is = mark == Some(&self.order.mark) && !gone;
            return Ok(if is {
                Search::Found(batch)
            } else {
                Search::Nothing
            });
        }
        let made = one.get("created_at").and_then(Value::as_str);
        let made = made.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let since = self.order.since.saturating_sub(SKEW);
        let look = look_of(one, self.call.dialect);
        let size = rows == usize::MAX || u64::try_from(rows).is_ok_and(|rows| rows == look.all);
        if made.is_none_or(|made| made.as_second() < since) || !size {
            return Ok(Search::Nothing);
        }
        if !look.over {
            return Ok(Search::Unsure);
        }
        let mut mine = false;
        for path in &look.results {
            let results = self.send(Method::GET, &path_of(&batch, path), None).await?;
            let text = String::from_utf8_lossy(&results);
            let first: Value = text
                .lines()
                .next()
                .and_then(|line| serde_json::from_str(line).ok())
                .unwrap_or_default();
            let place = first.get("custom_id").and_then(Value::as_str);
            let mark = format!("{}-", self.order.mark);
            mine |= place.is_some_and(|place| place.starts_with(&mark));
        }
        Ok(if mine {
            Search::Found(batch)
        } else {
            Search::Nothing
        })
    }
}
