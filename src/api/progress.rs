//! What live attempts say of themselves, between the events of a stream.
//!
//! It is a state and no event: it has no number, is not kept, and only the
//! latest of it counts. A client that does not read gets fewer, newer ones; one
//! that comes again gets what holds then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::engine::signs::{Sign, Signs};
use crate::model::event::Wanted;
use crate::model::id::TaskId;

use super::number::Stamp;

/// The word by which `kind` selects it.
pub(super) const KIND: &str = "progress";
/// Time between two looks for one client, at least.
const GAP: Duration = Duration::from_millis(500);

/// How far a task is, by its own word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgressInfo {
    /// When it said so.
    pub at: Stamp,
    /// Always `progress`.
    pub kind: String,
    /// Which task.
    pub task: i64,
    /// In which attempt.
    pub attempt: u32,
    /// The task's queue.
    pub queue: String,
    /// How far it is, in percent.
    pub progress: Option<f64>,
    /// What it does.
    pub status: Option<String>,
    /// Whether it has started up.
    pub ready: bool,
}

impl ProgressInfo {
    fn of(task: TaskId, sign: &Sign) -> Self {
        let notice = &sign.notice;
        Self {
            at: Stamp(sign.at),
            kind: KIND.to_owned(),
            task: task.0,
            attempt: sign.attempt,
            queue: sign.queue.clone(),
            progress: notice.progress.map(|done| f64::from(done) / 10.0),
            status: notice.status.clone().filter(|status| !status.is_empty()),
            ready: notice.ready,
        }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        let other = Self {
            at: self.at,
            ..other.clone()
        };
        *self == other
    }

    fn says_nothing(&self) -> bool {
        self.progress.is_none() && self.status.is_none() && !self.ready
    }
}

/// What a client was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    signs: Signs,
    at: Option<Instant>,
}

impl Told {
    /// Whether something may have been said since.
    pub(super) fn is_old(&self, signs: &Signs) -> bool {
        !Arc::ptr_eq(&self.signs, signs)
    }

    /// How long until it may be told more.
    pub(super) fn pause(&self) -> Duration {
        let since = |at: Instant| clock::instant().saturating_duration_since(at);
        self.at
            .map_or(Duration::ZERO, |at| GAP.saturating_sub(since(at)))
    }

    /// What is new to the client, as a piece of the stream; empty when nothing
    /// is or it was told something a moment ago.
    pub(super) fn news(&mut self, signs: Signs, wanted: &Wanted) -> String {
        if !self.is_old(&signs) || !self.pause().is_zero() {
            return String::new();
        }
        let meant = |(task, sign): &(&TaskId, &Sign)| {
            wanted.owner.is_none_or(|owner| owner == sign.owner)
                && wanted.task.is_none_or(|wanted| wanted == **task)
                && wanted
                    .queue
                    .as_ref()
                    .is_none_or(|queue| *queue == sign.queue)
        };
        let mut text = String::new();
        for (task, sign) in signs.iter().filter(meant) {
            let info = ProgressInfo::of(*task, sign);
            let before = self.signs.get(task);
            let known = before.map(|before| ProgressInfo::of(*task, before));
            let is_new =
                known.map_or_else(|| !info.says_nothing(), |known| !known.says_the_same(&info));
            if is_new {
                // JSON text has no line breaks of its own.
                let data = serde_json::to_string(&info).unwrap_or_default();
                text.push_str(&format!("event: {KIND}\ndata: {data}\n\n"));
            }
        }
        self.signs = signs;
        self.at = Some(clock::instant());
        text
    }
}
