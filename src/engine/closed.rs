//! While the run-as policy cannot be read nothing is started, but for one
//! attempt now and then that finds out whether it can be again.

use crate::model::attempt::{Ended, Exit};
use crate::model::step::UNDECIDED;
use crate::model::time::Time;
use crate::store::Store;

use super::Engine;

/// Nobody can say as whom tasks may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// When it is tried again.
    pub until: Time,
    /// What is wrong.
    pub why: String,
}

/// What an attempt's end says of the policy.
pub(super) enum Word {
    /// It could not be read, and why.
    Undecided(String),
    /// It was read.
    Decided,
    /// Nothing.
    Nothing,
}

impl Word {
    pub(super) fn of(ended: &Ended) -> Self {
        match &ended.exit {
            Exit::Spawn {
                undecided: true,
                error,
                ..
            } => Self::Undecided(error.clone()),
            Exit::Spawn { .. } if ended.interrupted => Self::Nothing,
            Exit::Spawn { .. } | Exit::Code { .. } | Exit::Signal { .. } => Self::Decided,
            Exit::Lost | Exit::Unfed { .. } => Self::Nothing,
        }
    }
}

impl<S: Store> Engine<S> {
    /// How many attempts may be live now; none where nothing may start.
    pub(super) fn open_slots(&mut self, live: u32, now: Time) -> Option<u32> {
        let slots = self.options.slots;
        let Some(closed) = &mut self.snapshot.closed else {
            return Some(slots);
        };
        let is_due = closed.until <= now;
        if is_due {
            closed.until = now.after(UNDECIDED);
        }
        let until = closed.until;
        self.start_again_at(Some(until));
        is_due.then(|| slots.min(live.saturating_add(1)))
    }

    /// Learns from an attempt's end whether the policy can be read.
    pub(super) fn learn(&mut self, word: Word, now: Time) {
        match word {
            Word::Undecided(why) => {
                let until = now.after(UNDECIDED);
                self.snapshot.closed = Some(Closed { until, why });
            }
            Word::Decided => self.open(),
            Word::Nothing => {}
        }
    }

    /// Something was started: so the policy can be read.
    pub(super) fn open(&mut self) {
        self.hungry |= self.snapshot.closed.take().is_some();
    }
}
