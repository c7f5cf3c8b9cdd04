//! What an attempt takes: read, checked and put together for whoever starts it.

use std::sync::Arc;

use crate::model::prompt::Call;
use crate::model::task::Task;
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::effect::{Effect, Order};
use super::lot;

impl<S: Store> Engine<S> {
    /// The launch of a task's current attempt. One whose input is damaged is put
    /// aside instead.
    pub(super) fn launch(&mut self, task: &Task, now: Time) -> Result<Effect, store::Error> {
        let stdin = match self.store.input(task.id) {
            Err(store::Error::Damaged { table, what, .. }) => {
                self.quarantine(task.id, table, &what, now)?;
                return Ok(Effect::Kill(task.attempt_key()));
            }
            stdin => stdin?,
        };
        let (ours, call, stdin) = match &task.spec.prompt {
            None => (None, None, stdin),
            Some(prompt) => {
                let call = self.store.call(task.attempt_key())?;
                let model = call.map_or_else(|| prompt.model.clone(), |call| call.model);
                let text = stdin.unwrap_or_default();
                let (ours, call) = self.prompts.order(&model, prompt, text);
                let lot = prompt.lot.as_ref().map(|lot| lot::order(task, lot));
                let call = call.map(|call| Box::new(Call { lot, ..call }));
                (Some(ours), call, None)
            }
        };
        let feed = self.feed(task, now)?;
        let door = self.prompts.door.as_ref().filter(|_| task.spec.llm);
        let variables = door.map(|door| door.variables(task.attempt_key()));
        let mut variables = variables.unwrap_or_default();
        variables.extend(self.trace_variables(task));
        Ok(Effect::Launch(Box::new(Order {
            ours,
            key: task.attempt_key(),
            owner: task.owner,
            task_key: task.key.clone(),
            spec: Arc::clone(&task.spec),
            variables,
            stdin,
            call,
            feed,
        })))
    }
}
