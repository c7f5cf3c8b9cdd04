//! The embedded backend: one SQLite file, one writing connection.
//! How it is opened and set up is in `open.rs`, how rows are read in `rows.rs`.

pub(super) mod agents;
mod calls;
mod clocks;
mod edit;
mod events;
mod graph;
mod hooks;
mod queues;
pub(super) mod schedules;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};

use crate::model::accept::accept;
use crate::model::attempt::{Attempt, AttemptKey, Outcome, Started, Usage};
use crate::model::event::Event;
use crate::model::filter::Filter;
use crate::model::id::TaskId;
use crate::model::spec::NewTask;
use crate::model::task::{State, Task};
use crate::model::time::Time;

use super::books::Books;
use super::queues::Queues as _;
use super::rows::{self, attempt_columns, json, task_columns};
use super::{Error, KeyHolder, Store, sum};

mod record;

const INSERT: &str = "INSERT INTO task (id, state, queue, priority, owner, created, due, wake, \
     name, labels, key, body_hash, spec, rank, delay, group_key, open, unique_key, deadline, \
     schedule, nominal, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
     ?16, ?17, ?18, ?19, ?20, ?21, ?22)";
const SAVE: &str = "UPDATE task SET state = ?1, due = ?2, rank = ?3, delay = ?4, wake = ?5, \
     time_limit = ?6, beat = ?7, paused = ?8, deadline = ?9, attempt = ?10, tries = ?11, stop = ?12, \
     ended = ?13, outcome = ?14, interruptions = ?15 \
     WHERE id = ?16 AND state = ?17 AND attempt = ?18";

/// A connection to the embedded database.
#[derive(Debug)]
pub struct Sqlite {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) inode: u64,
    /// Queues that were named before.
    pub(super) queues: HashMap<String, i64>,
    /// Queues that take nothing new.
    pub(super) draining: HashSet<i64>,
    pub(super) books: Books,
}

pub(super) fn failed(act: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| Error::Database { act, source }
}

impl Sqlite {
    fn statement(&self, sql: &str) -> Result<CachedStatement<'_>, Error> {
        self.connection
            .prepare_cached(sql)
            .map_err(failed("prepare a statement"))
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl Fn(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.statement(sql)?;
        let mut found = statement.query(values).map_err(failed("read rows"))?;
        let mut all = Vec::new();
        while let Some(row) = found.next().map_err(failed("read rows"))? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    fn queue(&mut self, name: &str) -> Result<i64, Error> {
        if let Some(id) = self.queues.get(name) {
            return Ok(*id);
        }
        self.statement(
            "INSERT INTO queue (name) VALUES (?1) \
             ON CONFLICT (name) DO UPDATE SET gone = 0 WHERE gone = 1",
        )?
        .execute([name])
        .map_err(failed("make a queue"))?;
        let id = self
            .statement("SELECT id FROM queue WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .map_err(failed("find a queue"))?;
        self.queues.insert(name.to_owned(), id);
        Ok(id)
    }
}

impl Store for Sqlite {
    fn begin(&mut self) -> Result<(), Error> {
        if !self.connection.is_autocommit() {
            return Ok(());
        }
        self.statement("BEGIN IMMEDIATE")?
            .execute([])
            .map_err(failed("begin"))?;
        failpoint!("store/begin/after");
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.books.save(&self.connection)?;
        failpoint!("store/commit/before");
        self.statement("COMMIT")?
            .execute([])
            .map_err(failed("commit"))?;
        failpoint!("store/commit/after");
        self.books.committed();
        self.check_place()
    }

    fn insert(&mut self, new: &NewTask, blocked: bool, now: Time) -> Result<Task, Error> {
        let queue = self.queue(&new.queue)?;
        let task = accept(TaskId(self.books.next_task()), new, blocked, now);
        let hash = new.key.as_ref().map(|_| new.body_hash);
        let labels = json(&task.labels, task.labels.is_empty());
        let spec = json(&*task.spec, false);
        let sum = sum::of(&task, labels.as_deref(), spec.as_deref());
        self.statement(INSERT)?
            .execute(params![
                task.id.0,
                rows::state_number(task.state),
                queue,
                task.priority,
                task.owner,
                task.created.micros(),
                task.due.micros(),
                task.wake.map(Time::micros),
                task.name,
                labels,
                task.key,
                hash,
                spec,
                task.rank(),
                task.delay.map(rows::delay_number),
                task.group,
                task.group.is_none(),
                task.unique,
                task.deadline.map(Time::micros),
                task.tick.map(|tick| tick.schedule.0),
                task.tick.map(|tick| tick.nominal.micros()),
                sum,
            ])
            .map_err(failed("store a task"))?;
        failpoint!("store/insert/after");
        if let Some(data) = &new.stdin {
            self.statement("INSERT INTO input (task, data, sum) VALUES (?1, ?2, ?3)")?
                .execute(params![task.id.0, data, sum::of_input(task.id, data)])
                .map_err(failed("store standard input"))?;
        }
        self.books.count(queue, task.owner, None, Some(task.state));
        if let Some(group) = task
            .group
            .as_deref()
            .filter(|_| task.state == State::Queued)
        {
            self.settle_group(queue, group)?;
        }
        Ok(task)
    }

    fn by_key(&mut self, owner: u32, key: &str) -> Result<Option<KeyHolder>, Error> {
        let sql = "SELECT id, state, body_hash FROM task WHERE owner = ?1 AND key = ?2";
        let found = self.rows(sql, params![owner, key], |row| {
            let id: i64 = row.get(0).map_err(failed("read a key"))?;
            let number: i64 = row.get(1).map_err(failed("read a key"))?;
            let body_hash: [u8; 32] = row.get(2).map_err(failed("read a key"))?;
            let what = format!("state {number}");
            let state = rows::state(number).ok_or(Error::Damaged {
                table: "task",
                id,
                what,
            })?;
            Ok(KeyHolder {
                id: TaskId(id),
                state,
                body_hash,
            })
        })?;
        Ok(found.into_iter().next())
    }

    fn task(&mut self, id: TaskId) -> Result<Option<Task>, Error> {
        let sql = concat!(
            "SELECT ",
            task_columns!(),
            " FROM task AS t JOIN queue AS q ON q.id = t.queue WHERE t.id = ?1"
        );
        Ok(self.rows(sql, [id.0], rows::task)?.pop())
    }

    fn save(&mut self, before: (State, u32), after: &Task) -> Result<(), Error> {
        let changed = self
            .statement(SAVE)?
            .execute(params![
                rows::state_number(after.state),
                after.due.micros(),
                after.rank(),
                after.delay.map(rows::delay_number),
                after.wake.map(Time::micros),
                after.time_limit.map(Time::micros),
                after.beat.map(Time::micros),
                after.paused.map(Time::micros),
                after.deadline.map(Time::micros),
                after.attempt,
                after.tries,
                after.stop.map(rows::stop_number),
                after.ended.map(Time::micros),
                json(&after.outcome, after.outcome.is_none()),
                json(&after.interruptions, after.interruptions.is_empty()),
                after.id.0,
                rows::state_number(before.0),
                before.1,
            ])
            .map_err(failed("save a task"))?;
        if changed != 1 {
            return Err(Error::Fenced(after.id));
        }
        failpoint!("store/save/after");
        if before.0 != after.state {
            let queue = self.queue(&after.queue)?;
            self.books
                .count(queue, after.owner, Some(before.0), Some(after.state));
            // A claim leaves the group as it is: the task stays open.
            let claim = before.0 == State::Queued && after.state.is_live();
            let held = |state: State| state == State::Queued || state.is_live();
            if let Some(group) = &after.group
                && (held(before.0) || held(after.state))
                && !claim
            {
                self.settle_group(queue, group)?;
            }
        }
        Ok(())
    }

    fn input(&mut self, id: TaskId) -> Result<Option<Vec<u8>>, Error> {
        self.statement("SELECT data, sum FROM input WHERE task = ?1")?
            .query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(failed("read standard input"))?
            .map(|(data, sum)| sum::input(id, data, sum))
            .transpose()
    }

    fn awake(&mut self, now: Time, limit: u32) -> Result<Vec<Task>, Error> {
        let sql = concat!(
            "SELECT ",
            task_columns!(),
            " FROM task AS t JOIN queue AS q ON q.id = t.queue \
             WHERE t.wake IS NOT NULL AND t.wake <= ?1 ORDER BY t.wake LIMIT ?2"
        );
        self.rows(sql, params![now.micros(), limit], rows::task)
    }

    fn next_wake(&mut self) -> Result<Option<Time>, Error> {
        self.statement("SELECT min(wake) FROM task WHERE wake IS NOT NULL")?
            .query_row([], |row| row.get::<_, Option<i64>>(0))
            .map(|wake| wake.map(Time::from_micros))
            .map_err(failed("find the next deadline"))
    }

    fn begin_attempt(&mut self, attempt: &Attempt) -> Result<(), Error> {
        self.statement(
            "INSERT INTO attempt (task, number, runner, boot, claimed) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            attempt.key.task.0,
            attempt.key.number,
            attempt.runner,
            attempt.boot,
            attempt.claimed.micros(),
        ])
        .map_err(failed("store an attempt"))?;
        failpoint!("store/attempt/begun");
        Ok(())
    }

    fn start_attempt(&mut self, key: AttemptKey, started: &Started) -> Result<(), Error> {
        self.statement(
            "UPDATE attempt SET started = ?3, pid = ?4, uid = ?5, user = ?6, cgroup = ?7 \
             WHERE task = ?1 AND number = ?2 AND outcome IS NULL",
        )?
        .execute(params![
            key.task.0,
            key.number,
            started.at.micros(),
            started.pid,
            started.uid,
            started.user,
            started.cgroup,
        ])
        .map_err(failed("save an attempt"))?;
        Ok(())
    }

    fn end_attempt(
        &mut self,
        key: AttemptKey,
        started: Option<&Started>,
        at: Time,
        outcome: &Outcome,
        usage: &Usage,
    ) -> Result<(), Error> {
        let changed = self
            .statement(
                "UPDATE attempt SET ended = ?3, outcome = ?4, cpu_us = ?5, memory_peak = ?6, \
                 output_kept = ?7, output_dropped = ?8, started = coalesce(started, ?9), \
                 pid = coalesce(pid, ?10), uid = coalesce(uid, ?11), user = coalesce(user, ?12), \
                 cgroup = coalesce(cgroup, ?13) \
                 WHERE task = ?1 AND number = ?2 AND outcome IS NULL",
            )?
            .execute(params![
                key.task.0,
                key.number,
                at.micros(),
                json(outcome, false),
                usage.cpu_micros,
                usage.memory_peak,
                usage.output_kept,
                usage.output_dropped,
                started.map(|started| started.at.micros()),
                started.map(|started| started.pid),
                started.map(|started| started.uid),
                started.map(|started| &started.user),
                started.and_then(|started| started.cgroup.as_ref()),
            ])
            .map_err(failed("end an attempt"))?;
        if changed == 1 {
            failpoint!("store/attempt/ended");
            let kept = i64::try_from(usage.output_kept).unwrap_or(i64::MAX);
            self.books.count_output(kept);
            Ok(())
        } else {
            Err(Error::Fenced(key.task))
        }
    }

    fn live(&mut self) -> Result<Vec<Attempt>, Error> {
        let sql = concat!(
            "SELECT ",
            attempt_columns!(),
            " FROM attempt WHERE outcome IS NULL ORDER BY task"
        );
        self.rows(sql, [], rows::attempt)
    }

    fn attempts(&mut self, id: TaskId) -> Result<Vec<Attempt>, Error> {
        let sql = concat!(
            "SELECT ",
            attempt_columns!(),
            " FROM attempt WHERE task = ?1 ORDER BY number"
        );
        self.rows(sql, [id.0], rows::attempt)
    }

    fn list(&mut self, filter: &Filter) -> Result<Vec<Task>, Error> {
        super::list::list(&self.connection, filter)
    }

    fn record(&mut self, event: &Event) -> Result<(), Error> {
        self.append(event)
    }

    fn tally(&self) -> [u64; State::ALL.len()] {
        self.books.tally()
    }

    fn count_of_owner(&self, owner: u32, state: State) -> u64 {
        self.books.of_owner(owner, state)
    }

    fn count_of_both(&self, queue: i64, owner: u32, state: State) -> u64 {
        self.books.of_both(queue, owner, state)
    }

    fn count_of_queue(&self, queue: i64, state: State) -> u64 {
        self.books.of_queue(queue, state)
    }

    fn last_event(&self) -> i64 {
        self.books.last_event()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The condition of an index that is a list of more than two values is looked up in a table
    /// made for each write: it cost a third of a submit.
    #[test]
    fn writing_a_task_makes_no_tables_on_the_side() {
        let dir = tempfile::tempdir().unwrap();
        let options = crate::store::options::Options::default();
        let store = Sqlite::open(dir.path(), &options).unwrap();
        for sql in [INSERT, SAVE] {
            let explain = format!("EXPLAIN {sql}");
            let mut statement = store.connection.prepare(&explain).unwrap();
            let mut rows = statement.raw_query();
            let mut steps = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                steps.push(row.get::<_, String>(1).unwrap());
            }
            assert!(steps.iter().any(|step| step == "Insert"), "{steps:?}");
            assert!(!steps.iter().any(|step| step == "OpenEphemeral"), "{sql}");
        }
    }
}
