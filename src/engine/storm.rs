//! Storms of schedules: many that fire at one moment start one after the
//! other.
//!
//! Each start of a tick is taken out of one bucket for the whole host. One that
//! the bucket does not have yet is booked: its task is made at once, with its
//! start later by as long as that takes, so it is on disk with the reason why
//! it waits and until when. The bucket is a row that changes in the
//! transaction of those tasks. So after a crash in the middle of a storm
//! exactly what has a task has its start, and the next one comes behind it.

use std::time::Duration;

use crate::model::rate::Rate;
use crate::model::time::Time;
use crate::store::Store;

use super::Engine;

impl<S: Store> Engine<S> {
    /// Takes the start of one tick: how much later it has to be.
    pub(super) fn book_start(&mut self, now: Time) -> Duration {
        let Some(rate) = self.options.schedule_rate.most() else {
            return Duration::ZERO;
        };
        let booked = rate.book(self.store.starts(), now);
        self.store.keep_starts(booked.until);
        booked.wait
    }

    /// Goes by a clock that was set by so many microseconds. What the bucket
    /// owes is owed by the new clock too.
    pub(super) fn move_starts(&mut self, by: i64) {
        let until = self.store.starts().micros().saturating_add(by);
        self.store.keep_starts(Time::from_micros(until));
    }

    /// Lets the bucket owe nothing, since what it owes was meant for another
    /// clock or another rate. What has its start keeps it: until that is over,
    /// what comes now may start beside it.
    pub(super) fn mend_starts(&mut self, now: Time) {
        let mend = |rate: Rate| rate.mend(self.store.starts(), now);
        if let Some(until) = self.options.schedule_rate.most().map(mend) {
            self.store.keep_starts(until);
        }
    }
}
