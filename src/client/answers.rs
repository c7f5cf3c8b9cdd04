//! What tasks that are over have come to, asked for one by one over restarts
//! of the daemon.

use bytes::Bytes;
use hyper::Method;

use crate::api::dto::TaskInfo;

use super::{Answer, CHANGE, Client, Error};

impl Client {
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
