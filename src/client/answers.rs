//! What tasks that are over have come to, asked for one by one over restarts
//! of the daemon; and how well that is.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use tokio::time::timeout;

use crate::api::dto::TaskInfo;
use crate::api::health::Health;
use crate::api::problem::Wire;

use super::{ANSWER_MAX, Answer, CHANGE, Client, Error, PROMPT};

impl Error {
    /// What an answer with this status and body says.
    pub(super) fn of(status: StatusCode, body: &[u8], after: Option<u32>) -> Self {
        let mut wire: Wire = serde_json::from_slice(body).unwrap_or_default();
        wire.status = status.as_u16();
        if status == StatusCode::UNAUTHORIZED {
            wire.detail.push_str(" (taken from TASKDAEMON_TOKEN)");
        }
        if wire.detail.is_empty() {
            wire.detail = format!("the daemon answered {status}");
        }
        Self::Refused(Box::new(wire), after)
    }
}

impl Client {
    /// How well the daemon says that it is, whether it answers so or fails to.
    ///
    /// # Errors
    /// No answer, or none that says it.
    pub async fn health(&self) -> Result<Health, Error> {
        let asked = async {
            let request = self.request(Method::GET, "/health", None, HeaderMap::new())?;
            let response = self.exchange(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX);
            let body = body.collect().await.map_err(|_| Error::Lost)?.to_bytes();
            match serde_json::from_slice(&body) {
                Ok(health) => Ok(health),
                Err(_) if !status.is_success() => Err(Error::of(status, &body, None)),
                Err(error) => Err(Error::Strange(format!(
                    "the answer cannot be read ({error})"
                ))),
            }
        };
        let late = |_| {
            let name = self.target.name();
            let detail = format!("the daemon at {name} does not answer");
            Error::Unreachable(detail, io::ErrorKind::TimedOut)
        };
        timeout(PROMPT, asked).await.map_err(late)?
    }

    /// A task as it stands.
    ///
    /// # Errors
    /// No good answer, or the daemon stays away.
    pub async fn task(&self, id: i64) -> Result<TaskInfo, Error> {
        self.ask_patiently(Method::GET, &format!("/v1/tasks/{id}"))
            .await?
            .read()
    }

    /// What the latest attempt of a task wrote to one of its outputs, `stdout`
    /// or `stderr`.
    ///
    /// # Errors
    /// No good answer, or the daemon stays away.
    pub async fn output(&self, id: i64, stream: &str) -> Result<Bytes, Error> {
        let path = format!("/v1/tasks/{id}/log?stream={stream}");
        Ok(self.ask_patiently(Method::GET, &path).await?.body)
    }

    /// Has a task run again. To ask twice does no harm: one that is not over is
    /// not run again.
    ///
    /// # Errors
    /// No good answer, or the daemon stays away.
    pub async fn again(&self, id: i64) -> Result<TaskInfo, Error> {
        self.ask_patiently(Method::POST, &format!("/v1/tasks/{id}/retry"))
            .await?
            .read()
    }

    async fn ask_patiently(&self, method: Method, path: &str) -> Result<Answer, Error> {
        self.persist(async || {
            let result = self.ask(method.clone(), path, None, CHANGE).await;
            // It was there a moment ago.
            result.map_err(|error| (error, true))
        })
        .await
    }
}
