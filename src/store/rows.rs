//! Rows to values: how a task, an attempt and their parts are read back.
//!
//! Every reading of a column is checked; what cannot be a value of the model
//! is reported as damage with table and row, never guessed or skipped.

use std::sync::Arc;

use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::de::DeserializeOwned;

use crate::model::attempt::{Attempt, AttemptKey, Started, Usage};
use crate::model::id::{ScheduleId, TaskId, Tick};
use crate::model::task::{Delay, State, StopCause, Task};
use crate::model::time::Time;

use super::{Error, sum};

/// Columns of a task, in the order in which [`task`] reads them, of
/// `task AS t JOIN queue AS q`.
macro_rules! task_columns {
    () => {
        "t.id, t.state, q.name, t.priority, t.owner, t.created, t.due, t.delay, t.wake, \
         t.time_limit, t.beat, t.paused, t.attempt, t.tries, t.stop, t.ended, t.outcome, \
         t.interruptions, t.name, t.labels, t.key, t.group_key, t.unique_key, t.deadline, \
         t.schedule, t.nominal, t.spec, t.sum"
    };
}
pub(super) use task_columns;

/// Where the texts of `sum.rs` stand among them, and the checksum.
const TEXTS: [usize; 5] = [18, 19, 20, 21, 26];
pub(super) const SUM: usize = 27;

/// Columns of an attempt, in the order in which [`attempt`] reads them.
macro_rules! attempt_columns {
    () => {
        "task, number, runner, boot, claimed, started, pid, uid, user, cgroup, ended, outcome, \
         cpu_us, memory_peak, output_kept, output_dropped"
    };
}
pub(super) use attempt_columns;

/// JSON for a column; `None` for what need not be stored.
pub(super) fn json<T: serde::Serialize>(value: &T, empty: bool) -> Option<String> {
    if empty {
        None
    } else {
        serde_json::to_string(value).ok()
    }
}

/// The number a state is stored under, for ever: queries and indexes name it.
pub(super) const fn state_number(state: State) -> i64 {
    match state {
        State::Blocked => 0,
        State::Scheduled => 1,
        State::Queued => 2,
        State::Running => 3,
        State::Paused => 4,
        State::Stopping => 5,
        State::Succeeded => 6,
        State::Failed => 7,
        State::Cancelled => 8,
        State::Skipped => 9,
        State::Expired => 10,
    }
}

/// The state stored under a number.
pub(super) fn state(number: i64) -> Option<State> {
    State::ALL
        .into_iter()
        .find(|state| state_number(*state) == number)
}

/// The number of a stop cause.
pub(super) const fn stop_number(cause: StopCause) -> i64 {
    match cause {
        StopCause::Cancel => 0,
        StopCause::Timeout => 1,
        StopCause::Deadline => 2,
        StopCause::Silence => 3,
    }
}

/// The number of a delay.
pub(super) const fn delay_number(delay: Delay) -> i64 {
    match delay {
        Delay::Start => 0,
        Delay::Backoff => 1,
        Delay::TurnedAway => 2,
        Delay::Scarce => 3,
        Delay::Undecided => 4,
    }
}

const fn delay(number: i64) -> Option<Delay> {
    match number {
        0 => Some(Delay::Start),
        1 => Some(Delay::Backoff),
        2 => Some(Delay::TurnedAway),
        3 => Some(Delay::Scarce),
        4 => Some(Delay::Undecided),
        _ => None,
    }
}

const fn stop(number: i64) -> Option<StopCause> {
    match number {
        0 => Some(StopCause::Cancel),
        1 => Some(StopCause::Timeout),
        2 => Some(StopCause::Deadline),
        3 => Some(StopCause::Silence),
        _ => None,
    }
}

/// Reads columns in order, and says which row is damaged.
pub(super) struct Columns<'r> {
    row: &'r Row<'r>,
    table: &'static str,
    id: i64,
    next: usize,
}

impl<'r> Columns<'r> {
    pub(super) fn new(row: &'r Row<'r>, table: &'static str) -> Result<Self, Error> {
        let mut columns = Self {
            row,
            table,
            id: 0,
            next: 0,
        };
        columns.id = columns.get()?;
        Ok(columns)
    }

    /// The number of the row.
    pub(super) const fn id(&self) -> i64 {
        self.id
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Damaged {
            table: self.table,
            id: self.id,
            what: what.into(),
        }
    }

    pub(super) fn get<T: FromSql>(&mut self) -> Result<T, Error> {
        let index = self.next;
        self.next += 1;
        self.row
            .get(index)
            .map_err(|error| self.damaged(error.to_string()))
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let text: Option<String> = self.get()?;
        text.map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| self.damaged(format!("column {}: {error}", self.next)))
    }

    /// A word that is stored as a number.
    fn coded<T>(&mut self, what: &str, word: fn(i64) -> Option<T>) -> Result<Option<T>, Error> {
        let Some(number) = self.get::<Option<i64>>()? else {
            return Ok(None);
        };
        let damaged = || self.damaged(format!("{what} {number}"));
        word(number).ok_or_else(damaged).map(Some)
    }

    fn tick(&mut self) -> Result<Option<Tick>, Error> {
        let schedule: Option<i64> = self.get()?;
        let nominal = self.maybe_time()?;
        Ok(schedule.zip(nominal).map(|(schedule, nominal)| Tick {
            schedule: ScheduleId(schedule),
            nominal,
        }))
    }

    pub(super) fn time(&mut self) -> Result<Time, Error> {
        Ok(Time::from_micros(self.get()?))
    }

    pub(super) fn maybe_time(&mut self) -> Result<Option<Time>, Error> {
        Ok(self.get::<Option<i64>>()?.map(Time::from_micros))
    }
}

/// A task from a row of `task_columns!`.
pub(super) fn task(row: &Row<'_>) -> Result<Task, Error> {
    let mut from = Columns::new(row, "task")?;
    let number: i64 = from.get()?;
    let state = state(number).ok_or_else(|| from.damaged(format!("state {number}")))?;
    let task = Task {
        id: TaskId(from.id),
        state,
        queue: from.get()?,
        priority: from.get()?,
        owner: from.get()?,
        created: from.time()?,
        due: from.time()?,
        delay: from.coded("delay", delay)?,
        wake: from.maybe_time()?,
        time_limit: from.maybe_time()?,
        beat: from.maybe_time()?,
        paused: from.maybe_time()?,
        attempt: from.get()?,
        tries: from.get()?,
        stop: from.coded("stop cause", stop)?,
        ended: from.maybe_time()?,
        outcome: from.json()?,
        interruptions: from.json()?.unwrap_or_default(),
        name: from.get()?,
        labels: from.json()?.unwrap_or_default(),
        key: from.get()?,
        group: from.get()?,
        unique: from.get()?,
        deadline: from.maybe_time()?,
        tick: from.tick()?,
        spec: Arc::new(from.json()?.ok_or_else(|| from.damaged("no spec"))?),
    };
    check_sum(row, &from, &task)?;
    Ok(task)
}

/// Compares what was asked for with its checksum, if the row has one.
fn check_sum(row: &Row<'_>, from: &Columns<'_>, task: &Task) -> Result<(), Error> {
    let unreadable = |error: &dyn std::fmt::Display| from.damaged(error.to_string());
    let sum: Option<u32> = row.get(SUM).map_err(|error| unreadable(&error))?;
    let Some(sum) = sum else {
        return Ok(());
    };
    let mut texts = [None; TEXTS.len()];
    for (text, at) in texts.iter_mut().zip(TEXTS) {
        let value = row.get_ref(at).map_err(|error| unreadable(&error))?;
        *text = value.as_str_or_null().map_err(|error| unreadable(&error))?;
    }
    if sum::of_task(task.id, task.owner, task.created, texts) == sum {
        return Ok(());
    }
    Err(from.damaged("what was asked for does not have its checksum any more"))
}

/// An attempt from a row of `attempt_columns!`.
pub(super) fn attempt(row: &Row<'_>) -> Result<Attempt, Error> {
    let mut from = Columns::new(row, "attempt of task")?;
    let key = AttemptKey {
        task: TaskId(from.id),
        number: from.get()?,
    };
    let runner = from.get()?;
    let boot = from.get()?;
    let claimed = from.time()?;
    let at = from.maybe_time()?;
    let pid: Option<u32> = from.get()?;
    let uid: Option<u32> = from.get()?;
    let user: Option<String> = from.get()?;
    let cgroup = from.get()?;
    let started = match (at, pid, uid, user) {
        (Some(at), Some(pid), Some(uid), Some(user)) => Some(Started {
            pid,
            uid,
            user,
            cgroup,
            at,
        }),
        _ => None,
    };
    Ok(Attempt {
        key,
        runner,
        boot,
        claimed,
        started,
        ended: from.maybe_time()?,
        outcome: from.json()?,
        usage: Usage {
            cpu_micros: from.get()?,
            memory_peak: from.get()?,
            output_kept: from.get()?,
            output_dropped: from.get()?,
        },
    })
}
