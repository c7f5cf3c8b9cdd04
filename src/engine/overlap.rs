//! What a schedule does whose task before is not over.

use crate::model::event::{Event as Row, Kind};
use crate::model::id::TaskId;
use crate::model::schedule::due::Overlap;
use crate::model::schedule::plan::Schedule;
use crate::model::spec::{After, Parent, Wants};
use crate::model::task::{Delay, Event, State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::news::News;

/// What stands before the task of a nominal time.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Tasks that have to be over first.
    pub(super) after: Vec<After>,
    /// When a task would have started that this one has replaced: its start is
    /// this one's now.
    pub(super) start: Option<Time>,
}

impl<S: Store> Engine<S> {
    /// What the task of a nominal time has to wait for, as its schedule's rule
    /// has it. None when the rule leaves that time out.
    pub(super) fn overlap(
        &mut self,
        schedule: &Schedule,
        nominal: Time,
        now: Time,
    ) -> Result<Option<Ahead>, store::Error> {
        match schedule.rule.overlap {
            Overlap::Allow => Ok(Some(Ahead::default())),
            Overlap::Queue => {
                let last = self.store.unfinished_of(schedule.id)?.pop();
                Ok(Some(Ahead {
                    after: last.map(|task| over(task.id)).into_iter().collect(),
                    start: None,
                }))
            }
            Overlap::Replace => {
                let before = self.store.unfinished_of(schedule.id)?;
                self.replaced(before, now).map(Some)
            }
            Overlap::Skip => match self.store.unfinished_of(schedule.id)?.first() {
                None => Ok(Some(Ahead::default())),
                Some(task) => {
                    self.left_out(schedule, nominal, task.id, now)?;
                    Ok(None)
                }
            },
        }
    }

    /// Cancels tasks; the new one waits for those that take their time to end.
    fn replaced(&mut self, tasks: Vec<Task>, now: Time) -> Result<Ahead, store::Error> {
        let mut ahead = Ahead::default();
        for task in tasks {
            let id = task.id;
            // The end of one may have let another one go.
            let Some(task) = self.store.task(id)? else {
                continue;
            };
            let has_start = match task.state {
                State::Blocked => true,
                State::Scheduled => task.delay == Some(Delay::Start),
                State::Queued
                | State::Running
                | State::Paused
                | State::Stopping
                | State::Succeeded
                | State::Failed
                | State::Cancelled
                | State::Skipped
                | State::Expired => false,
            };
            if has_start && task.due > now {
                ahead.start = ahead.start.max(Some(task.due));
            }
            if let Ok(task) = self.advance(task, Event::Cancel, None, now)?
                && !task.state.is_terminal()
            {
                ahead.after.push(over(id));
            }
        }
        Ok(ahead)
    }

    fn left_out(
        &mut self,
        schedule: &Schedule,
        nominal: Time,
        running: TaskId,
        now: Time,
    ) -> Result<(), store::Error> {
        self.news.push(News::LeftOut {
            schedule: schedule.name.clone(),
            task: running,
        });
        let data = serde_json::json!({
            "schedule": schedule.name,
            "nominal": nominal.micros(),
        });
        self.store.record(&Row {
            at: now,
            task: running,
            attempt: 0,
            kind: Kind::TickLeftOut,
            actor: None,
            origin: self.origin,
            owner: schedule.owner,
            queue: schedule.task.queue.clone(),
            data: Some(data.to_string()),
        })
    }
}

/// To wait for a task's end, however it ends.
const fn over(task: TaskId) -> After {
    After {
        parent: Parent::Task(task),
        wants: Wants::Any,
    }
}
