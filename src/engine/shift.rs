//! How a task is moved: by the model's rule, with all that follows for itself
//! written down in the same transaction.

use crate::model::event::Kind;
use crate::model::step::step;
use crate::model::task::{Act, Event, Refusal, State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::effect::Effect;
use super::graph::Over;
use super::news::News;
use super::spans;

impl<S: Store> Engine<S> {
    /// Moves a task by an event, and those that wait for it by its end. Any
    /// task that was read before may have changed after this.
    pub(super) fn advance(
        &mut self,
        task: Task,
        event: Event,
        actor: Option<u32>,
        now: Time,
    ) -> Result<Result<Task, Refusal>, store::Error> {
        let moved = self.shift(task, event, actor, now)?;
        self.release(now)?;
        Ok(moved)
    }

    /// Moves one task by an event and writes down everything that follows for
    /// itself.
    pub(super) fn shift(
        &mut self,
        task: Task,
        event: Event,
        actor: Option<u32>,
        now: Time,
    ) -> Result<Result<Task, Refusal>, store::Error> {
        let before = (task.state, task.attempt);
        let key = task.attempt_key();
        let end = match &event {
            Event::Ended { started, ended, .. } => Some((started.clone(), ended.clone())),
            Event::Wake
            | Event::Unblock
            | Event::Skip { .. }
            | Event::Refuse { .. }
            | Event::Claim
            | Event::Cancel
            | Event::Retry { .. }
            | Event::Pause
            | Event::Resume
            | Event::Beat { .. }
            | Event::Extend { .. }
            | Event::GiveUp
            | Event::ClockSet { .. } => None,
        };
        let step = match step(task, event, now) {
            Ok(step) => step,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.store.save(before, &step.task)?;
        if let (Some(verdict), Some((started, ended))) = (&step.verdict, end) {
            self.store
                .end_attempt(key, started.as_ref(), ended.at, verdict, &ended.usage)?;
            let ran = started.map(|started| ended.at.since(started.at));
            self.snapshot.counted.end(verdict.class, ran);
            if let Some(prompt) = &step.task.spec.prompt {
                self.end_call(key, prompt, &ended, now)?;
            }
        }
        let task = step.task;
        self.trace_step((before.0, key), &task, now)?;
        if let Some(verdict) = step.verdict {
            self.news.push(News::Ended {
                key,
                queue: task.queue.clone(),
                request: task.spec.request.clone(),
                trace: spans::name(&task),
                state: task.state,
                verdict,
            });
        }
        if before.0.is_live() && !task.state.is_live() {
            self.forget_sign(task.id);
        }
        if task.state != before.0 {
            self.record(&task, Kind::Changed(task.state), actor, now)?;
            self.hungry |= before.0.is_live() || task.state == State::Queued;
            if task.state.is_terminal() {
                self.over.push(task.clone());
                self.fire_hooks(&task, now)?;
                self.call_off(&task, now)?;
                self.agents_task_over(&task, now)?;
                self.fallen.push_back(Over::of(&task));
            }
        }
        for act in step.acts {
            self.act(&task, act, now)?;
        }
        Ok(Ok(task))
    }

    fn act(&mut self, task: &Task, act: Act, now: Time) -> Result<(), store::Error> {
        let key = task.attempt_key();
        let effect = match act {
            Act::Launch => {
                self.news.push(News::Launched {
                    key,
                    queue: task.queue.clone(),
                    trace: spans::name(task),
                });
                self.launch(task, now)?
            }
            Act::Terminate => Effect::Terminate(key),
            Act::Kill => Effect::Kill(key),
            Act::Acknowledge => Effect::Acknowledge(key),
            Act::Freeze => Effect::Freeze(key),
            Act::Thaw => Effect::Thaw(key),
        };
        self.turned.effects.push(effect);
        Ok(())
    }
}
