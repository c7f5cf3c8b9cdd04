//! The record in the embedded database: pages of events, removal in bounded
//! steps, and the repair of single rows.

use rusqlite::{OptionalExtension as _, params};

use crate::model::attempt::Outcome;
use crate::model::event::{Entries, Entry, Event, Wanted};
use crate::model::filter::{Filter, Listing, Selection, Window};
use crate::model::id::TaskId;
use crate::model::spec::Spec;
use crate::model::task::State;
use crate::model::time::Time;
use crate::store::Error;
use crate::store::list::{self, Query};
use crate::store::record::{Found, Over, Record};
use crate::store::rows::{self, attempt_columns, task_columns};

use super::events::query as events_query;
use super::{Sqlite, failed, json};

/// Events looked at for one page, whoever they are about.
const LOOK: i64 = 10_000;

/// Columns of a task that is over, in the order in which [`over`] reads them.
macro_rules! over_columns {
    () => {
        "t.ended, t.id, t.attempt, EXISTS (SELECT 1 FROM edge AS e JOIN task AS c ON c.id = e.child \
         WHERE e.parent = t.id AND c.state <= 5)"
    };
}

const OVER: &str = concat!(
    "SELECT ",
    over_columns!(),
    " FROM task AS t WHERE t.ended IS NOT NULL AND (t.ended, t.id) > (?1, ?2) \
     ORDER BY t.ended, t.id LIMIT ?3"
);
const ONE_OVER: &str = concat!(
    "SELECT ",
    over_columns!(),
    " FROM task AS t WHERE t.id = ?1 AND t.state >= 6 AND t.ended IS NOT NULL"
);
const FIRST_YOUNG: &str = "SELECT min(seq) FROM event WHERE seq > ?1 AND seq < ?2 AND at >= ?3";
const DROP_EVENTS: &str = "DELETE FROM event WHERE seq < ?1";
const DROP_TASK: &str = "DELETE FROM task WHERE id = ?1 AND state >= 6 \
     RETURNING state, queue, owner";
const DROP_EDGES: &str = "DELETE FROM edge WHERE parent = ?1";
const WITH_OUTPUT: &str =
    "SELECT task, number FROM attempt WHERE task >= ?1 AND task <= ?2 AND output_gone = 0";
const LAST_IN_REACH: &str =
    "SELECT id FROM task WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT 1 OFFSET ?3";

fn over(row: &rusqlite::Row<'_>) -> rusqlite::Result<Over> {
    Ok(Over {
        ended: Time::from_micros(row.get(0)?),
        id: TaskId(row.get(1)?),
        attempt: row.get(2)?,
        wanted: row.get(3)?,
    })
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: row.get(0)?,
        at: Time::from_micros(row.get(1)?),
        task: TaskId(row.get(2)?),
        attempt: row.get(3)?,
        kind: row.get(4)?,
        actor: row.get(5)?,
        queue: row.get(6)?,
        data: row.get(7)?,
        pid: row.get(8)?,
        request: row.get(9)?,
    })
}

fn matching_query(selection: &Selection, after: i64, end: i64, take: u32) -> Query {
    let mut query = Query::new("SELECT t.id FROM task AS t WHERE t.id > ? AND t.id <= ?");
    query.values = vec![after.into(), end.into()];
    list::narrow(&mut query, selection);
    query.sql.push_str(" ORDER BY t.id LIMIT ?");
    query.values.push(i64::from(take).into());
    query
}

impl Sqlite {
    /// One number that a query without values gives.
    fn number(&self, sql: &str) -> Result<Option<i64>, Error> {
        self.statement(sql)?
            .query_row([], |row| row.get(0))
            .map_err(failed("read a number"))
    }

    /// Appends to the record.
    pub(super) fn append(&mut self, event: &Event) -> Result<(), Error> {
        let seq = self.books.next_event();
        let queue = match &*event.queue {
            "" => 0,
            name => self.queue(name)?,
        };
        self.statement(
            "INSERT INTO event (seq, at, task, attempt, kind, actor, owner, data, queue, pid, request) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            seq,
            event.at.micros(),
            event.task.0,
            event.attempt,
            event.kind.word(),
            event.actor,
            event.owner,
            event.data,
            queue,
            event.origin.pid,
            event.origin.request.text(),
        ])
        .map_err(failed("record an event"))?;
        Ok(())
    }

    /// Makes every attempt of a task readable; a live one is over now.
    fn mend_attempts(&self, id: TaskId, outcome: &Outcome, now: Time) -> Result<(), Error> {
        let numbers = "SELECT number FROM attempt WHERE task = ?1";
        let one = concat!(
            "SELECT ",
            attempt_columns!(),
            " FROM attempt WHERE task = ?1 AND number = ?2"
        );
        let read = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0).map_err(failed("read a number"));
        for number in self.rows(numbers, [id.0], read)? {
            let known = self.rows(one, params![id.0, number], rows::attempt);
            let sound = match known {
                Ok(attempts) => attempts.iter().all(|attempt| attempt.outcome.is_some()),
                Err(Error::Damaged { .. }) => false,
                Err(error) => return Err(error),
            };
            if sound {
                continue;
            }
            self.statement(
                "UPDATE attempt SET outcome = ?3, ended = ?4, started = NULL, pid = NULL, \
                 uid = NULL, user = NULL, cpu_us = NULL, memory_peak = NULL, \
                 output_kept = max(0, output_kept), output_dropped = max(0, output_dropped) \
                 WHERE task = ?1 AND number = ?2",
            )?
            .execute(params![id.0, number, json(outcome, false), now.micros()])
            .map_err(failed("mend an attempt"))?;
        }
        Ok(())
    }

    /// Whether a task can be read, whatever is wrong with its attempts.
    fn is_sound(&self, id: TaskId) -> Result<bool, Error> {
        let sql = concat!(
            "SELECT ",
            task_columns!(),
            " FROM task AS t LEFT JOIN queue AS q ON q.id = t.queue WHERE t.id = ?1"
        );
        match self.rows(sql, [id.0], rows::task) {
            Ok(_) => Ok(true),
            Err(Error::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Record for Sqlite {
    fn page(&mut self, filter: &Filter) -> Result<Listing, Error> {
        list::page(&self.connection, filter)
    }

    fn events(&mut self, wanted: &Wanted) -> Result<Entries, Error> {
        let last = self.number("SELECT max(number) FROM book WHERE what = 101")?;
        let last = last.unwrap_or_default();
        let oldest = self.number("SELECT min(seq) FROM event")?;
        let oldest = oldest.unwrap_or(last + 1);
        let (after, until) = match wanted.before {
            None => {
                let after = wanted.after.max(oldest - 1);
                (after, after.saturating_add(LOOK).min(last))
            }
            Some(before) => {
                let until = before.saturating_sub(1).min(last);
                (until.saturating_sub(LOOK).max(oldest - 1), until)
            }
        };
        let query = events_query(wanted, after, until);
        let values = rusqlite::params_from_iter(query.values);
        let entries = self.rows(&query.sql, values, |row| {
            entry(row).map_err(failed("read an event"))
        })?;
        let full = entries.len() >= usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        let reached = match entries.last() {
            Some(entry) if full => entry.seq,
            _ if wanted.before.is_some() => after + 1,
            _ => until.max(wanted.after.min(last)),
        };
        Ok(Entries {
            entries,
            reached,
            oldest,
            last,
        })
    }

    fn drop_events(&mut self, through: i64, older: Option<Time>, most: u32) -> Result<u32, Error> {
        let Some(oldest) = self.number("SELECT min(seq) FROM event")? else {
            return Ok(0);
        };
        let end = oldest.saturating_add(i64::from(most));
        // The first that stays. Only the oldest go, so that no hole appears.
        let stays = match older {
            None => through + 1,
            Some(older) => self
                .statement(FIRST_YOUNG)?
                .query_row(params![through, end, older.micros()], |row| {
                    row.get::<_, Option<i64>>(0)
                })
                .map_err(failed("find old events"))?
                .unwrap_or(end),
        };
        let gone = self
            .statement(DROP_EVENTS)?
            .execute([stays.min(end)])
            .map_err(failed("remove events"))?;
        Ok(u32::try_from(gone).unwrap_or(u32::MAX))
    }

    fn over(&mut self, after: (Time, TaskId), most: u32) -> Result<Vec<Over>, Error> {
        let (at, id) = after;
        self.rows(OVER, params![at.micros(), id.0, most], |row| {
            over(row).map_err(failed("read what is over"))
        })
    }

    fn one_over(&mut self, id: TaskId) -> Result<Option<Over>, Error> {
        let found = self.rows(ONE_OVER, [id.0], |row| {
            over(row).map_err(failed("read what is over"))
        })?;
        Ok(found.into_iter().next())
    }

    fn remove(&mut self, id: TaskId) -> Result<(), Error> {
        let kept = "SELECT coalesce(sum(output_kept), 0) FROM attempt \
                    WHERE task = ?1 AND output_gone = 0 AND outcome IS NOT NULL";
        let kept: i64 = self
            .statement(kept)?
            .query_row([id.0], |row| row.get(0))
            .map_err(failed("measure output"))?;
        let gone = self
            .statement(DROP_TASK)?
            .query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
            .map_err(failed("remove a task"))?;
        let Some((number, queue, owner)) = gone else {
            return Err(Error::Fenced(id));
        };
        self.statement(DROP_EDGES)?
            .execute([id.0])
            .map_err(failed("remove the edges of a task"))?;
        self.books.count(queue, owner, rows::state(number), None);
        self.books.count_output(-kept);
        Ok(())
    }

    fn remove_output(&mut self, id: TaskId) -> Result<Vec<u32>, Error> {
        let sql = "SELECT number, output_kept FROM attempt \
                   WHERE task = ?1 AND output_gone = 0 AND outcome IS NOT NULL";
        let there: Vec<(u32, i64)> = self.rows(sql, [id.0], |row| {
            let read = || Ok((row.get(0)?, row.get(1)?));
            read().map_err(failed("read an attempt"))
        })?;
        for (number, kept) in &there {
            self.statement(
                "UPDATE attempt SET output_gone = 1, output_kept = 0, \
                 output_dropped = output_dropped + ?3 WHERE task = ?1 AND number = ?2",
            )?
            .execute(params![id.0, number, kept])
            .map_err(failed("save an attempt"))?;
            self.books.count_output(-kept);
        }
        Ok(there.into_iter().map(|(number, _)| number).collect())
    }

    fn output(&self) -> u64 {
        self.books.output()
    }

    fn last_task(&self) -> TaskId {
        TaskId(self.books.last_task())
    }

    fn matching(&mut self, selection: &Selection, window: Window) -> Result<Found, Error> {
        let Window { after, until, .. } = window;
        let last = self
            .statement(LAST_IN_REACH)?
            .query_row(
                params![after.0, until.0, window.look.saturating_sub(1)],
                |row| row.get(0),
            )
            .optional()
            .map_err(failed("look for tasks"))?;
        let end: i64 = last.unwrap_or(until.0);
        let query = matching_query(selection, after.0, end, window.take);
        let values = rusqlite::params_from_iter(query.values);
        let ids = self.rows(&query.sql, values, |row| {
            row.get(0).map(TaskId).map_err(failed("look for tasks"))
        })?;
        let full = ids.len() >= usize::try_from(window.take).unwrap_or(usize::MAX);
        let reached = match ids.last() {
            Some(id) if full => Some(*id),
            _ => last.map(TaskId),
        };
        Ok(Found { ids, reached })
    }

    fn attempts_with_output(
        &mut self,
        first: TaskId,
        last: TaskId,
    ) -> Result<Vec<(TaskId, u32)>, Error> {
        self.rows(WITH_OUTPUT, [first.0, last.0], |row| {
            let read = || Ok((TaskId(row.get(0)?), row.get(1)?));
            read().map_err(failed("read an attempt"))
        })
    }

    fn quarantine(
        &mut self,
        id: TaskId,
        to: State,
        outcome: &Outcome,
        now: Time,
    ) -> Result<u32, Error> {
        if !self.is_sound(id)? {
            let spec = "SELECT spec FROM task WHERE id = ?1";
            let spec: Option<String> = self
                .statement(spec)?
                .query_row([id.0], |row| row.get(0))
                .optional()
                .map_err(failed("read a damaged task"))?;
            let readable = |text: &String| serde_json::from_str::<Spec>(text).is_ok();
            let spec = spec.filter(readable);
            self.statement(
                "UPDATE task SET state = ?2, queue = coalesce((SELECT id FROM queue WHERE id = \
                 task.queue), (SELECT min(id) FROM queue)), priority = 0, wake = NULL, delay = NULL, \
                 time_limit = NULL, beat = NULL, paused = NULL, stop = NULL, ended = ?3, \
                 outcome = ?4, interruptions = NULL, labels = NULL, deadline = NULL, \
                 attempt = min(max(attempt, 0), 4294967295), tries = 0, spec = ?5, sum = NULL, \
                 owner = CASE WHEN owner BETWEEN 0 AND 4294967295 THEN owner ELSE 0 END \
                 WHERE id = ?1",
            )?
            .execute(params![
                id.0,
                rows::state_number(to),
                now.micros(),
                json(outcome, false),
                spec.or_else(|| json(&Spec::default(), false)),
            ])
            .map_err(failed("mend a task"))?;
            self.mend_attempts(id, outcome, now)?;
        } else {
            self.mend_attempts(id, outcome, now)?;
            self.statement(
                "UPDATE task SET state = ?2, wake = NULL, delay = NULL, time_limit = NULL, \
                 beat = NULL, paused = NULL, stop = NULL, ended = ?3, outcome = ?4 \
                 WHERE id = ?1 AND state <= 5",
            )?
            .execute(params![
                id.0,
                rows::state_number(to),
                now.micros(),
                json(outcome, false)
            ])
            .map_err(failed("end a damaged task"))?;
        }
        // Which state the row was in before cannot always be told.
        self.books.recount(&self.connection)?;
        let attempt = "SELECT attempt FROM task WHERE id = ?1";
        self.statement(attempt)?
            .query_row([id.0], |row| row.get(0))
            .map_err(failed("read a mended task"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attempt::Class;
    use crate::store::options::Options;

    /// A removal that looks at every row is what brings cleaners of large
    /// tables down.
    #[test]
    fn no_step_of_retention_or_of_a_change_by_filter_scans_a_table() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path(), &Options::default()).unwrap();
        let everything = Selection {
            owner: Some(1),
            states: vec![State::Failed, State::Expired],
            queue: Some("q".to_owned()),
            name: Some("n".to_owned()),
            labels: vec![("a".to_owned(), "b".to_owned())],
            classes: vec![Class::Timeout],
            by: Some(Time::from_micros(1)),
        };
        let wanted = Wanted {
            after: 0,
            before: None,
            owner: Some(1),
            task: Some(TaskId(1)),
            queue: Some("q".to_owned()),
            kinds: vec!["failed".to_owned()],
            actor: Some(1),
            request: Some("r".to_owned()),
            since: Some(Time::from_micros(1)),
            limit: 9,
        };
        let newest = Wanted {
            before: Some(9),
            ..wanted.clone()
        };
        let queries = [
            OVER.to_owned(),
            ONE_OVER.to_owned(),
            FIRST_YOUNG.to_owned(),
            DROP_EVENTS.to_owned(),
            DROP_TASK.to_owned(),
            DROP_EDGES.to_owned(),
            WITH_OUTPUT.to_owned(),
            LAST_IN_REACH.to_owned(),
            "SELECT min(seq) FROM event".to_owned(),
            events_query(&wanted, 0, 9).sql,
            events_query(&newest, 0, 9).sql,
            matching_query(&everything, 0, 9, 9).sql,
            matching_query(&Selection::default(), 0, 9, 9).sql,
        ];
        for sql in queries {
            let plan = format!("EXPLAIN QUERY PLAN {sql}");
            let mut statement = store.connection.prepare(&plan).unwrap();
            let mut steps = Vec::new();
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next().unwrap() {
                steps.push(row.get::<_, String>(3).unwrap());
            }
            assert!(!steps.is_empty(), "{sql}");
            let bad = |step: &&String| step.starts_with("SCAN") || step.contains("TEMP B-TREE");
            assert_eq!(steps.iter().find(bad), None, "{sql}: {steps:?}");
        }
    }

    #[test]
    fn the_walk_along_what_has_ended_goes_by_its_index() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path(), &Options::default()).unwrap();
        let plan = format!("EXPLAIN QUERY PLAN {OVER}");
        let mut statement = store.connection.prepare(&plan).unwrap();
        let mut rows = statement.raw_query();
        let first: String = rows.next().unwrap().unwrap().get(3).unwrap();
        assert!(first.contains("INDEX task_ended"), "{first}");
    }
}
