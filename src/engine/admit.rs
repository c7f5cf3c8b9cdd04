//! Which ready tasks may start now.
//!
//! Slots in use are counted in the database in the same transaction as the
//! claim, so no counter can drift. Of every queue with room the best tasks are
//! looked at, and the best of all of them start.

use crate::model::attempt::{Attempt, AttemptKey, Usage, profile_runner};
use crate::model::task::{Event, Task};
use crate::model::time::Time;
use crate::store::{self, QueueUse, Store};

use super::Engine;
use super::options::Options;

/// How many more attempts a queue may have, seen alone.
#[must_use]
pub(super) fn queue_room(queue: &QueueUse, options: &Options) -> u32 {
    if queue.paused {
        return 0;
    }
    let limit = queue
        .concurrency
        .or(options.queue_concurrency)
        .unwrap_or(u32::MAX);
    limit.saturating_sub(queue.used)
}

impl<S: Store> Engine<S> {
    pub(super) fn admit(&mut self, now: Time) -> Result<(), store::Error> {
        let Some(runner) = self.runner.clone() else {
            return Ok(());
        };
        let queues = self.store.queues()?;
        let used: u32 = queues.iter().map(|queue| queue.used).sum();
        let free = self.options.slots.saturating_sub(used);
        for task in self.best(&queues, free, now)? {
            let next = AttemptKey {
                task: task.id,
                number: task.attempt + 1,
            };
            if self.strangers.contains(&next) {
                continue;
            }
            // Ready by the query's own condition; should it not be, it is left
            // where it is.
            let Ok(task) = self.advance(task, Event::Claim, None, now)? else {
                continue;
            };
            let profile = task.spec.profile.as_deref().map(profile_runner);
            self.store.begin_attempt(&Attempt {
                key: task.attempt_key(),
                runner: profile.unwrap_or_else(|| runner.instance.clone()),
                // As this process sees it, which is what `recover` compares
                // with: the runner may be shown another one, in a container
                // or behind other walls.
                boot: self.boot.clone(),
                claimed: now,
                started: None,
                ended: None,
                outcome: None,
                usage: Usage::default(),
            })?;
        }
        Ok(())
    }

    fn best(
        &mut self,
        queues: &[QueueUse],
        free: u32,
        now: Time,
    ) -> Result<Vec<Task>, store::Error> {
        if free == 0 {
            return Ok(Vec::new());
        }
        let mut ready = Vec::new();
        for queue in queues {
            let room = queue_room(queue, &self.options).min(free);
            if room > 0 {
                ready.extend(self.sound(now, |store| store.ready(queue.id, room))?);
            }
        }
        ready.sort_by_key(|task| (task.rank(), task.id));
        ready.truncate(usize::try_from(free).unwrap_or(usize::MAX));
        Ok(ready)
    }
}
