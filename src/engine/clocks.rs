//! What follows when the host's clock was set.
//!
//! Deadlines are kept as wall-clock times, since they outlive the process. So
//! when the wall clock steps against the time since boot, everything that was
//! meant as a duration is moved by that step; what was meant as a time is not.

use crate::model::task::Event;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::command::Command;

/// Smallest step that counts, in microseconds. Less is what clocks are kept
/// right by all the time.
pub const STEP: i64 = 1_000_000;

impl<S: Store> Engine<S> {
    /// Learns how far the wall clock is ahead of the time since boot. What was
    /// kept in this boot tells whether the clock was set since, even when that
    /// was while no daemon ran.
    pub(super) fn clock_lead(&mut self, lead: i64, now: Time) -> Result<(), store::Error> {
        let boot = self.boot.clone();
        let before = self.store.lead()?;
        let before = before.filter(|(kept, _)| *kept == boot);
        if before.is_none() {
            // Nobody knows how this boot's clock stands to that of another.
            self.mend_starts(now);
        }
        if let Some((_, before)) = before {
            let by = lead.saturating_sub(before);
            if by.abs() < STEP {
                return Ok(());
            }
            for task in self.sound(now, S::timed)? {
                // Refused by no state, so there is nobody to tell.
                let _step = self.advance(task, Event::ClockSet { by }, None, now)?;
            }
            self.agents_clock_set(by, now)?;
            self.fall_back(now)?;
            // Rates are told by the clock.
            self.submits.forget();
            self.move_starts(by);
            self.hungry = true;
        }
        self.store.keep_lead(&boot, lead)
    }
}

/// What the engine was told last of the clock's lead over the time since boot.
#[derive(Debug, Default)]
pub(super) struct Lead(Option<i64>);

impl Lead {
    /// Whether a lead, in microseconds, is news.
    pub(super) fn is_other(&self, lead: i64) -> bool {
        self.0
            .is_none_or(|known| lead.abs_diff(known) >= STEP.unsigned_abs())
    }

    /// The news, if there are any. A clock that is only kept right drifts
    /// slowly and is followed without a word.
    pub(super) fn follow(&mut self, lead: i64) -> Option<Command> {
        let news = self.is_other(lead);
        self.0 = Some(lead);
        news.then_some(Command::ClockLead { lead })
    }
}
