//! What is written down of agents beside where they stand, and what is
//! forgotten.

use std::sync::Arc;

use crate::engine::Engine;
use crate::model::agent::plan::Agent;
use crate::model::event::{Event as Row, Kind};
use crate::model::id::{AgentId, TaskId};
use crate::model::time::Time;
use crate::store::{self, Store};

impl<S: Store> Engine<S> {
    /// Forgets an agent that was removed and has stopped, and instances that
    /// are too many.
    pub(super) fn forget_agent(&mut self, id: AgentId) -> Result<(), store::Error> {
        let Some(agent) = self.snapshot.agents.all.get(&id).map(Arc::clone) else {
            return Ok(());
        };
        if agent.removed && agent.lives.iter().all(|life| life.phase.is_over()) {
            self.store.drop_agent(id)?;
            Arc::make_mut(&mut self.snapshot.agents).all.remove(&id);
            return Ok(());
        }
        let wanted = usize::try_from(agent.plan.instances).unwrap_or(usize::MAX);
        let mut lives = agent.lives.clone();
        while lives.len() > wanted && lives.last().is_some_and(|life| life.phase.is_over()) {
            let instance = u32::try_from(lives.len()).unwrap_or(u32::MAX);
            self.store.drop_life(id, instance)?;
            lives.pop();
        }
        if lives.len() < agent.lives.len() {
            let agents = Arc::make_mut(&mut self.snapshot.agents);
            if let Some(agent) = agents.all.get_mut(&id) {
                Arc::make_mut(agent).lives = lives;
            }
        }
        Ok(())
    }

    pub(super) fn note_agent(
        &mut self,
        agent: &Agent,
        actor: Option<u32>,
        data: String,
        now: Time,
    ) -> Result<(), store::Error> {
        self.store.record(&Row {
            at: now,
            task: TaskId(0),
            attempt: 0,
            kind: Kind::AgentChanged,
            actor,
            origin: self.origin,
            owner: agent.owner,
            queue: String::new(),
            data: Some(data),
        })
    }
}
