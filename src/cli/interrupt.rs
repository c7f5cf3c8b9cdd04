//! Ctrl-C while something waits for a task, which does not end with the waiting.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::api::dto::TaskInfo;

use super::Failure;

/// How long an answer may still take after Ctrl-C: what it names is worth more
/// to who pressed it than this wait.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The exit code of what Ctrl-C has ended: 128 + SIGINT.
const CODE: u8 = 130;

/// Hears Ctrl-C from when it is made, also while nobody asks for it.
pub(super) struct Interrupt(Signal, bool);

impl Interrupt {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::interrupt())?, false))
    }

    /// Waits until it comes.
    async fn comes(&mut self) {
        if !self.1 {
            self.0.recv().await;
            self.1 = true;
        }
    }

    /// The answer to what was handed in; after Ctrl-C only if it comes soon.
    pub(super) async fn answer<T, E>(
        &mut self,
        asking: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure>
    where
        Failure: From<E>,
    {
        let mut asking = pin!(asking);
        tokio::select! {
            answer = &mut asking => return Ok(answer?),
            () = self.comes() => {}
        }
        let Ok(answer) = timeout(LAST_WORD, asking).await else {
            let told = "no answer yet; `taskdaemon list` tells whether the task was accepted";
            return Err(Failure::Code(CODE, told.to_owned()));
        };
        Ok(answer?)
    }

    /// Waits for a task's end; on Ctrl-C says that the task does not end with us.
    pub(super) async fn patiently(
        &mut self,
        id: i64,
        waiting: impl Future<Output = Result<TaskInfo, Failure>>,
    ) -> Result<TaskInfo, Failure> {
        let told = format!(
            "task {id} goes on; `taskdaemon wait {id}` waits again, `taskdaemon cancel {id}` ends it"
        );
        self.unless(&told, waiting).await
    }

    /// Waits; on Ctrl-C ends with what is to be told then.
    pub(super) async fn unless<T>(
        &mut self,
        told: &str,
        waiting: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.comes() => Err(Failure::Code(CODE, told.to_owned())),
            result = waiting => result,
        }
    }
}
