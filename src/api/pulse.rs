//! Whether the engine answers, found out without waiting for one that does not.
//!
//! One question is on its way to the engine at a time, however many ask: an
//! engine that is stuck is not left with a heap of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock;
use crate::engine::command::Error;
use crate::engine::handle::Handle;

/// How long an answer is waited for: half of the time in which `GET /health`
/// has to answer.
const WAIT: Duration = Duration::from_millis(50);

/// The question that is on its way, and how the last one was answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// When it was asked.
    asked: Option<Instant>,
    last: Word,
}

/// What came back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Word {
    #[default]
    Well,
    Full,
    Ended,
}

/// How the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// It answered after so long.
    Answered(Duration),
    /// It has not answered for so long.
    Silent(Duration),
    /// It cannot take in what is asked of it.
    Full,
    /// It is over.
    Ended,
}

impl Beat {
    /// How long it was, or has been, waited for.
    pub(super) const fn wait(self) -> Duration {
        match self {
            Self::Answered(wait) | Self::Silent(wait) => wait,
            Self::Full | Self::Ended => Duration::ZERO,
        }
    }
}

impl Pulse {
    /// Asks the engine, or waits for the question that is on its way, but never
    /// longer than [`WAIT`].
    pub(super) async fn feel(&self, handle: &Handle) -> Beat {
        let begun = clock::instant();
        let first = self.0.send_if_modified(|state| {
            let free = state.asked.is_none();
            state.asked = state.asked.or(Some(begun));
            free
        });
        if first {
            drop(tokio::spawn(ask(Arc::clone(&self.0), handle.clone())));
        }
        let mut states = self.0.subscribe();
        let answered = timeout(WAIT, states.wait_for(|state| state.asked.is_none())).await;
        match answered {
            Ok(Ok(state)) => match state.last {
                Word::Well => Beat::Answered(begun.elapsed()),
                Word::Full => Beat::Full,
                Word::Ended => Beat::Ended,
            },
            Ok(Err(_)) | Err(_) => {
                let asked = self.0.borrow().asked.unwrap_or(begun);
                Beat::Silent(asked.elapsed())
            }
        }
    }
}

async fn ask(states: Arc<watch::Sender<State>>, handle: Handle) {
    let last = match handle.ping().await {
        Err(Error::Busy) => Word::Full,
        Err(Error::Stopping | Error::Unknown) => Word::Ended,
        // Whatever it refuses, it has answered.
        Ok(_) | Err(_) => Word::Well,
    };
    states.send_replace(State { asked: None, last });
}
