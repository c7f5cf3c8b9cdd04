//! How runs of agents get their start: they take no slots, and nobody stands
//! before them.

use std::sync::Arc;

use crate::model::agent::QUEUE;
use crate::model::queue::Queue;
use crate::model::time::Time;
use crate::store::{self, Store};

use crate::engine::Engine;
use crate::engine::admit::Claimed;
use crate::engine::calls::Pass;

impl<S: Store> Engine<S> {
    /// The queue of agents' tasks, once there is one.
    pub(in crate::engine) fn agents_queue(&mut self) -> Result<Option<Queue>, store::Error> {
        if self.snapshot.agents.all.is_empty() && self.snapshot.agents.queue.is_none() {
            return Ok(None);
        }
        let queue = self.store.queue_named(QUEUE)?;
        let id = queue.as_ref().map(|queue| queue.id);
        if id != self.snapshot.agents.queue {
            Arc::make_mut(&mut self.snapshot.agents).queue = id;
        }
        Ok(queue)
    }

    /// Starts every run that is ready. While nobody can say as whom, one at
    /// most: it finds out.
    pub(in crate::engine) fn admit_agents(
        &mut self,
        queue: &Queue,
        runner: &str,
        now: Time,
    ) -> Result<(), store::Error> {
        if queue.paused {
            return Ok(());
        }
        let most = self.snapshot.closed.as_ref().map_or(u32::MAX, |_| 1);
        let mut pass = Pass::of_slots(most);
        let mut heads = self.store.heads(queue.id)?;
        while let Some(head) = heads.pop() {
            match self.claim(&head, queue, runner, &mut pass, now)? {
                Claimed::NoSlot => return Ok(()),
                Claimed::Starts | Claimed::Passes | Claimed::Waits => {
                    heads.extend(self.store.next_head(&head)?);
                }
            }
        }
        Ok(())
    }
}
