//! Schedules: the tasks they make, and what is asked about them.
//!
//! A nominal time's task and the cursor that has passed it are one
//! transaction, and no two tasks can have the same nominal time of a schedule:
//! whatever happens to the process or the clock, each makes at most one.

use std::borrow::Cow;
use std::time::Duration;

use crate::model::event::Kind;
use crate::model::id::{ScheduleId, Tick};
use crate::model::schedule::due::due;
use crate::model::schedule::plan::{NewSchedule, Schedule};
use crate::model::spec::NewTask;
use crate::model::task::{State, Task};
use crate::model::time::Time;
use crate::store::{self, Store};

use super::Engine;
use super::answer::Answer;
use super::called::Called;
use super::command::{Caller, Error, Reply};
use super::news::News;

/// Schedules looked at in one turn, so that others wait no longer for theirs.
const LOOKS: u32 = 100;
/// Pause between two looks at whether the disk has room again.
const SHORT: Duration = Duration::from_secs(1);
/// Tasks made in one turn, about.
const MADE: usize = 500;

/// What can be asked of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Fire at no time until it is resumed.
    Pause,
    /// Fire again, at times that come; those in between are left out.
    Resume,
    /// Make its task now.
    Trigger,
    /// Forget it. Tasks it made stay.
    Remove,
}

impl Change {
    const fn word(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Trigger => "trigger",
            Self::Remove => "remove",
        }
    }
}

/// Why a schedule makes a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Its time has come.
    Time,
    /// Somebody wants it now.
    Hand,
}

/// What enters the engine about schedules.
#[derive(Debug)]
pub enum Ask {
    /// Make one.
    Add {
        /// It.
        new: Box<NewSchedule>,
        /// Whether it takes the place of one of the same name.
        replace: bool,
        /// It, as it is kept.
        reply: Reply<Changed>,
    },
    /// Change one.
    Change {
        /// Who asks.
        caller: Caller,
        /// Which.
        called: Called<ScheduleId>,
        /// How.
        change: Change,
        /// It, afterwards.
        reply: Reply<Changed>,
    },
}

/// A schedule after a change.
#[derive(Debug, Clone)]
pub struct Changed {
    /// It.
    pub schedule: Schedule,
    /// The task that the change made.
    pub task: Option<Task>,
}

impl<S: Store> Engine<S> {
    /// Makes the tasks whose nominal time has come. What is left when the turn
    /// has done its share is still due.
    pub(super) fn tick(&mut self, now: Time) -> Result<(), store::Error> {
        let mut made = 0;
        for mut schedule in self.store.due_schedules(now, LOOKS)? {
            let rule = &schedule.rule;
            let look = due(&rule.when, &rule.zone, schedule.cursor, now, rule.missed);
            if look.skipped > 0 {
                self.news.push(News::Missed {
                    schedule: schedule.name.clone(),
                    times: look.skipped,
                });
            }
            made += look.fire.len();
            for nominal in look.fire {
                self.fire(&schedule, nominal, Cause::Time, now)?;
            }
            failpoint!("engine/tick/after");
            schedule.cursor = look.cursor;
            schedule.wake = schedule.next();
            self.store.save_schedule(&schedule)?;
            if made >= MADE {
                break;
            }
        }
        self.look_ahead()
    }

    /// When schedules are next to be looked at: not while the disk has too
    /// little room for new tasks. Times that come meanwhile are missed, and
    /// each schedule's rule for those goes for them.
    pub(super) fn tick_due(&self, now: Time) -> Option<Time> {
        let next = self.next_tick?;
        match self.shortage {
            Some(_) => Some(next.max(now.after(SHORT))),
            None => Some(next),
        }
    }

    /// Learns the next nominal time, after something about schedules changed.
    fn look_ahead(&mut self) -> Result<(), store::Error> {
        self.next_tick = self.store.next_tick()?;
        Ok(())
    }

    /// Lets schedules fire again that are ahead of a clock that was set back.
    /// Times that had their task then are known by it.
    pub(super) fn fall_back(&mut self, now: Time) -> Result<(), store::Error> {
        for mut schedule in self.store.schedules_ahead(now)? {
            schedule.cursor = now;
            schedule.wake = schedule.next();
            self.store.save_schedule(&schedule)?;
        }
        self.look_ahead()
    }

    /// Makes the task of a nominal time, as the overlap rule has it. None when
    /// that time had its task, or the rule leaves it out.
    fn fire(
        &mut self,
        schedule: &Schedule,
        nominal: Time,
        cause: Cause,
        now: Time,
    ) -> Result<Option<Task>, store::Error> {
        let tick = Tick {
            schedule: schedule.id,
            nominal,
        };
        if self.store.has_tick(tick)? {
            return Ok(None);
        }
        let queue = std::iter::once(schedule.task.queue.as_str());
        if self.open_to(queue)?.is_err() {
            self.news.push(News::Drained {
                schedule: schedule.name.clone(),
                queue: schedule.task.queue.clone(),
            });
            return Ok(None);
        }
        let Some(ahead) = self.overlap(schedule, nominal, now)? else {
            return Ok(None);
        };
        let mut new = schedule.task(nominal);
        new.after = ahead.after;
        if cause == Cause::Time {
            // From now on: a time that was missed is long over.
            let start = new.run_at.unwrap_or(now).max(now);
            new.run_at = Some(match ahead.start {
                Some(other) => start.max(other),
                None => start.after(self.book_start(now)),
            });
        }
        failpoint!("engine/tick/before");
        self.make(&new, now).map(Some)
    }

    /// Accepts a task that nobody hands in.
    pub(super) fn make(&mut self, new: &NewTask, now: Time) -> Result<Task, store::Error> {
        let blocked = !new.after.is_empty();
        let task = self
            .store
            .insert(&self.traced(Cow::Borrowed(new)), blocked, now)?;
        self.record(&task, Kind::Submitted, None, now)?;
        self.hungry |= task.state == State::Queued;
        if !blocked {
            return Ok(task);
        }
        self.tie_alone(new, task, now)
    }

    pub(super) fn about_schedule(&mut self, ask: Ask, now: Time) -> Result<(), store::Error> {
        let (reply, result) = match ask {
            Ask::Add {
                new,
                replace,
                reply,
            } => {
                let result = self.add_schedule(&new, replace, now)?;
                if result.is_ok() {
                    self.note_schedule(&new.name, "add", new.owner, now)?;
                }
                (reply, result)
            }
            Ask::Change {
                caller,
                called,
                change,
                reply,
            } => {
                let result = match self.called(caller, &called)? {
                    Some(schedule) => self.change_schedule(schedule, change, now)?,
                    None => Err(Error::NoSchedule(called)),
                };
                if let Ok(Changed { schedule, .. }) = &result {
                    self.note_schedule(&schedule.name, change.word(), caller.uid, now)?;
                }
                (reply, result)
            }
        };
        self.answers
            .push(Answer::Schedule(reply, result.map(Box::new)));
        self.look_ahead()
    }

    fn note_schedule(
        &mut self,
        name: &str,
        change: &str,
        actor: u32,
        now: Time,
    ) -> Result<(), store::Error> {
        let data = serde_json::json!({ "schedule": name, "change": change });
        self.note(Kind::ScheduleChanged, Some(actor), &data, now)
    }

    fn called(
        &mut self,
        caller: Caller,
        called: &Called<ScheduleId>,
    ) -> Result<Option<Schedule>, store::Error> {
        let found = match called {
            Called::Number(id) => self.store.schedule(*id),
            Called::Name(name) => self.store.schedule_named(caller.uid, name),
        };
        Ok(found?.filter(|schedule| caller.may_touch(schedule.owner)))
    }

    fn add_schedule(
        &mut self,
        new: &NewSchedule,
        replace: bool,
        now: Time,
    ) -> Result<Result<Changed, Error>, store::Error> {
        if let Err(error) = self.prompts.check_template(&new.task.spec) {
            return Ok(Err(error));
        }
        let schedule = match self.store.schedule_named(new.owner, &new.name)? {
            Some(before) if replace => {
                let mut schedule = Schedule {
                    rule: new.rule.clone(),
                    task: new.task.clone(),
                    cursor: before.cursor.max(now),
                    ..before
                };
                schedule.wake = schedule.next();
                self.store.save_schedule(&schedule)?;
                schedule
            }
            Some(before) => return Ok(Err(Error::ScheduleExists(before.name))),
            None if self.store.count_schedules(new.owner)? >= self.options.user_schedules => {
                return Ok(Err(Error::TooManySchedules(self.options.user_schedules)));
            }
            None => self.store.add_schedule(new, now)?,
        };
        Ok(Ok(Changed {
            schedule,
            task: None,
        }))
    }

    fn change_schedule(
        &mut self,
        mut schedule: Schedule,
        change: Change,
        now: Time,
    ) -> Result<Result<Changed, Error>, store::Error> {
        let mut task = None;
        match change {
            Change::Pause => {
                schedule.paused = true;
                self.store.save_schedule(&schedule)?;
            }
            Change::Resume if schedule.paused => {
                schedule.paused = false;
                schedule.cursor = schedule.cursor.max(now);
                schedule.wake = schedule.next();
                self.store.save_schedule(&schedule)?;
            }
            Change::Resume => {}
            Change::Remove => self.store.remove_schedule(schedule.id)?,
            Change::Trigger => {
                if let Some(shortage) = self.shortage {
                    return Ok(Err(Error::DiskFull(shortage.into())));
                }
                let queue = std::iter::once(schedule.task.queue.as_str());
                if let Err(error) = self.open_to(queue)? {
                    return Ok(Err(error));
                }
                task = self.fire(&schedule, now, Cause::Hand, now)?;
                if task.is_none() {
                    return Ok(Err(Error::StillRunning(schedule.name)));
                }
            }
        }
        Ok(Ok(Changed { schedule, task }))
    }
}
