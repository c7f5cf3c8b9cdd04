//! What one user may hand in: how often, and how much of it may wait.

use std::collections::HashMap;

use crate::model::rate::Rate;
use crate::model::spec::NewTask;
use crate::model::task::State;
use crate::model::time::Time;
use crate::store::Store;

use super::Engine;
use super::command::Error;

/// Users remembered; when there are more, those whose buckets are full go.
const USERS: usize = 1_000;

/// When each user's bucket of submits is full again. In memory only: a new
/// process begins with full ones.
#[derive(Debug, Default)]
pub(super) struct Submits(HashMap<u32, Time>);

impl Submits {
    /// Takes one from a user's bucket, or says when there is one again.
    fn take(&mut self, owner: u32, rate: Rate, now: Time) -> Result<(), Time> {
        if self.0.len() >= USERS {
            self.0.retain(|_, until| *until > now);
        }
        let until = self.0.entry(owner).or_default();
        // The rate may have been another one before a reload.
        *until = rate.mend(*until, now);
        if rate.free(*until, now) == 0 {
            return Err(rate.next(*until, now));
        }
        *until = rate.take(*until, now);
        Ok(())
    }

    /// Fills all buckets, since the clock by which they fill was set.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

impl<S: Store> Engine<S> {
    /// Whether a user may hand in these tasks, of which so many are new. A
    /// submit that only repeats an earlier one costs nothing.
    /// Hooks count as nobody's.
    pub(super) fn quota(
        &mut self,
        tasks: &[NewTask],
        new: u64,
        hooks: Option<i64>,
        now: Time,
    ) -> Result<(), Error> {
        let Some(owner) = tasks.first().map(|task| task.owner).filter(|_| new > 0) else {
            return Ok(());
        };
        if let Some(most) = self.options.user_waiting {
            let waiting = [State::Blocked, State::Scheduled, State::Queued];
            let count = |state| {
                let inside = hooks.map_or(0, |queue| self.store.count_of_both(queue, owner, state));
                self.store
                    .count_of_owner(owner, state)
                    .saturating_sub(inside)
            };
            let waiting: u64 = waiting.into_iter().map(count).sum();
            if waiting.saturating_add(new) > most {
                return Err(Error::Quota { waiting, most });
            }
        }
        let Some(rate) = self.options.user_submits else {
            return Ok(());
        };
        let late = |until: Time| Error::TooFast {
            rate,
            wait: until.since(now),
        };
        self.submits.take(owner, rate, now).map_err(late)
    }
}
