//! What is counted instead of searched for: tasks in each state, by queue and
//! owner, and the numbers given out.
//!
//! All are rows that change in the transaction of what they count, so they are
//! as true as the rest; and they are written once a transaction, however many
//! tasks it changes.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};

use crate::model::task::State;

use super::Error;
use super::rows;
use super::sqlite::failed;

/// Tasks in each state, in the order of [`State::ALL`].
pub(super) type Tally = [u64; State::ALL.len()];

/// `what` of the row with the number of the last task.
const LAST_TASK: i64 = 100;
/// `what` of the row with the number of the last event.
const LAST_EVENT: i64 = 101;
/// `what` of the row with the bytes of output of attempts that are over.
const OUTPUT: i64 = 103;
/// `what` of the row with the number of the last schedule.
const LAST_SCHEDULE: i64 = 102;

/// `what` of the row with the time at which the bucket of all schedules' starts is full again.
const STARTS: i64 = 104;

/// Names a row of the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    what: i64,
    queue: i64,
    owner: u32,
}

impl Line {
    const fn last(what: i64) -> Self {
        Self {
            what,
            queue: 0,
            owner: 0,
        }
    }
}

/// The books, with what has changed since the last commit.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    lines: BTreeMap<Line, i64>,
    changed: BTreeSet<Line>,
    tally: Tally,
}

impl Books {
    /// Reads what was written last.
    pub(super) fn open(connection: &Connection) -> Result<Self, Error> {
        let read = || -> rusqlite::Result<Self> {
            let mut books = Self::default();
            let mut statement =
                connection.prepare("SELECT what, queue, owner, number FROM book")?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let line = Line {
                    what: row.get(0)?,
                    queue: row.get(1)?,
                    owner: row.get(2)?,
                };
                let number: i64 = row.get(3)?;
                if let Some(count) = books.state(line.what) {
                    *count += number.unsigned_abs();
                }
                books.lines.insert(line, number);
            }
            Ok(books)
        };
        read().map_err(failed("read the books"))
    }

    /// Writes what has changed since the last commit.
    pub(super) fn save(&self, connection: &Connection) -> Result<(), Error> {
        let write = || -> rusqlite::Result<()> {
            let mut statement = connection.prepare_cached(
                "INSERT INTO book (what, queue, owner, number) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (what, queue, owner) DO UPDATE SET number = excluded.number",
            )?;
            for line in &self.changed {
                let number = self.lines.get(line).copied().unwrap_or_default();
                statement.execute(params![line.what, line.queue, line.owner, number])?;
            }
            Ok(())
        };
        write().map_err(failed("write the books"))
    }

    /// What was saved is on disk.
    pub(super) fn committed(&mut self) {
        self.changed.clear();
    }

    /// A number no task has had.
    pub(super) fn next_task(&mut self) -> i64 {
        self.add(Line::last(LAST_TASK), 1)
    }

    /// A number no event has had.
    pub(super) fn next_event(&mut self) -> i64 {
        self.add(Line::last(LAST_EVENT), 1)
    }

    /// The number of the last task.
    pub(super) fn last_task(&self) -> i64 {
        let line = Line::last(LAST_TASK);
        self.lines.get(&line).copied().unwrap_or_default()
    }

    /// Bytes of output of attempts that are over.
    pub(super) fn output(&self) -> u64 {
        let kept = self.lines.get(&Line::last(OUTPUT)).copied();
        u64::try_from(kept.unwrap_or_default()).unwrap_or(0)
    }

    /// So many bytes of output came or, below zero, went.
    pub(super) fn count_output(&mut self, by: i64) {
        if by != 0 {
            self.add(Line::last(OUTPUT), by);
        }
    }

    /// Counts the tasks anew, where a damaged row made them uncertain.
    pub(super) fn recount(&mut self, connection: &Connection) -> Result<(), Error> {
        let states = State::ALL.map(rows::state_number);
        for (line, number) in &mut self.lines {
            if states.contains(&line.what) {
                *number = 0;
                self.changed.insert(*line);
            }
        }
        self.tally = Tally::default();
        let read = || -> rusqlite::Result<Vec<(Line, i64)>> {
            // Rows that are still damaged are counted when they are mended.
            let sql = "SELECT state, queue, owner, count(*) FROM task WHERE state BETWEEN 0 AND 10 \
                       AND owner BETWEEN 0 AND 4294967295 GROUP BY 1, 2, 3";
            let mut statement = connection.prepare(sql)?;
            let counted = statement.query_map([], |row| {
                let (what, queue, owner) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((Line { what, queue, owner }, row.get(3)?))
            })?;
            counted.collect()
        };
        for (line, number) in read().map_err(failed("count the tasks"))? {
            self.add(line, number);
            if let Some(count) = self.state(line.what) {
                *count = count.saturating_add_signed(number);
            }
        }
        Ok(())
    }

    /// A number no schedule has had.
    pub(super) fn next_schedule(&mut self) -> i64 {
        self.add(Line::last(LAST_SCHEDULE), 1)
    }

    /// When the bucket of all schedules' starts is full again, in microseconds.
    pub(super) fn starts(&self) -> i64 {
        let line = Line::last(STARTS);
        self.lines.get(&line).copied().unwrap_or_default()
    }

    /// The bucket of all schedules' starts is full again then.
    pub(super) fn keep_starts(&mut self, until: i64) {
        let line = Line::last(STARTS);
        if self.lines.insert(line, until) != Some(until) {
            self.changed.insert(line);
        }
    }

    /// The number of the last event.
    pub(super) fn last_event(&self) -> i64 {
        let line = Line::last(LAST_EVENT);
        self.lines.get(&line).copied().unwrap_or_default()
    }

    /// One task of an owner in a queue has left `from` or come from nowhere,
    /// and has come to `to` or is gone.
    pub(super) fn count(&mut self, queue: i64, owner: u32, from: Option<State>, to: Option<State>) {
        for (state, by) in [(from, -1), (to, 1)] {
            let Some(what) = state.map(rows::state_number) else {
                continue;
            };
            self.add(Line { what, queue, owner }, by);
            if let Some(count) = self.state(what) {
                *count = count.saturating_add_signed(by);
            }
        }
    }

    /// Tasks in each state.
    pub(super) const fn tally(&self) -> Tally {
        self.tally
    }

    /// Tasks of an owner in a state, in all queues.
    pub(super) fn of_owner(&self, owner: u32, state: State) -> u64 {
        self.sum(state, |line| line.owner == owner)
    }

    /// Tasks of an owner in a queue that are in a state.
    pub(super) fn of_both(&self, queue: i64, owner: u32, state: State) -> u64 {
        let what = rows::state_number(state);
        let line = Line { what, queue, owner };
        self.lines
            .get(&line)
            .map_or(0, |number| number.unsigned_abs())
    }

    /// Tasks of a queue in a state.
    pub(super) fn of_queue(&self, queue: i64, state: State) -> u64 {
        let what = rows::state_number(state);
        let first = |queue| Line {
            what,
            queue,
            owner: 0,
        };
        let lines = self.lines.range(first(queue)..first(queue + 1));
        lines.map(|(_, number)| number.unsigned_abs()).sum()
    }

    fn sum(&self, state: State, counts: impl Fn(&Line) -> bool) -> u64 {
        let first = Line::last(rows::state_number(state));
        let next = Line::last(first.what + 1);
        let lines = self.lines.range(first..next);
        let number = |(line, number): (&Line, &i64)| counts(line).then_some(*number);
        lines.filter_map(number).map(i64::unsigned_abs).sum()
    }

    fn add(&mut self, line: Line, by: i64) -> i64 {
        self.changed.insert(line);
        let number = self.lines.entry(line).or_default();
        *number += by;
        *number
    }

    fn state(&mut self, what: i64) -> Option<&mut u64> {
        self.tally.get_mut(usize::try_from(what).ok()?)
    }
}
