//! `deliver`: what a webhook's task runs. It reads the request from standard
//! input, sends it once, and says by its exit code whether to try again.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::client::https::{self, Error};
use crate::client::origin;
use crate::model::check::STDIN_MAX;
use crate::model::hook::check_url;
use crate::model::retry::TRY_AGAIN;

use super::text::escape;
use super::{Failure, Outcome};

/// A request to send.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: String,
}

/// `deliver`: 0 when the server took it, 75 when it may later, 1 when not.
pub(super) async fn deliver() -> Outcome {
    let mut text = String::new();
    let limit = u64::try_from(STDIN_MAX).unwrap_or(u64::MAX);
    io::stdin().lock().take(limit).read_to_string(&mut text)?;
    let order: Order = serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("standard input is no request: {error}")))?;
    check_url(&order.url).map_err(|why| Failure::Usage(format!("url {why}")))?;
    let mut headers = headers(&order.headers)?;
    headers.extend(origin::trace());
    let answer = https::post(&order.url, headers, order.body).await;
    let answer = answer.map_err(|error| match error {
        Error::Request(_) => Failure::Code(1, error.to_string()),
        Error::Network(_) => Failure::Code(TRY_AGAIN, error.to_string()),
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", answer.status)?;
    for line in String::from_utf8_lossy(&answer.body).lines() {
        writeln!(out, "{}", escape(line))?;
    }
    verdict(answer.status).map_err(|(code, why)| {
        let status = answer.status;
        Failure::Code(code, format!("{} answered {status}: {why}", order.url))
    })
}

fn verdict(status: StatusCode) -> Result<u8, (u8, &'static str)> {
    match status.as_u16() {
        200..300 => Ok(0),
        300..400 => Err((
            1,
            "redirects are not followed; write the address it leads to",
        )),
        408 | 425 | 429 | 500.. => Err((TRY_AGAIN, "another time, perhaps")),
        _ => Err((1, "it does not take this, and will not later")),
    }
}

fn headers(pairs: &BTreeMap<String, String>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let bad = || Failure::Usage(format!("`{name}` cannot be a header"));
        let key = HeaderName::try_from(name).map_err(|_| bad())?;
        let value = HeaderValue::try_from(value).map_err(|_| bad())?;
        headers.insert(key, value);
    }
    Ok(headers)
}
