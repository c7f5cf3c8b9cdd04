//! [`Schedules`] in SQLite.

use rusqlite::types::Value;
use rusqlite::{Row, params};

use crate::model::id::{ScheduleId, Tick};
use crate::model::schedule::plan::{NewSchedule, Schedule, Shown};
use crate::model::task::Task;
use crate::model::time::Time;
use crate::store::Error;
use crate::store::rows::{self, Columns, task_columns};
use crate::store::schedules::Schedules;

use super::{Sqlite, failed, json};

/// Columns of a schedule, in the order in which [`read`] reads them.
macro_rules! columns {
    () => {
        "id, owner, name, created, paused, cursor, wake, rule, task"
    };
}

/// Every schedule.
pub(in crate::store) const ALL: &str = concat!("SELECT ", columns!(), " FROM schedule");

/// A schedule from a row of them.
pub(in crate::store) fn read(row: &Row<'_>) -> Result<Schedule, Error> {
    let mut from = Columns::new(row, "schedule")?;
    Ok(Schedule {
        id: ScheduleId(from.id()),
        owner: from.get()?,
        name: from.get()?,
        created: from.time()?,
        paused: from.get()?,
        cursor: from.time()?,
        wake: from.maybe_time()?,
        rule: from.json()?.ok_or_else(|| from.damaged("no rule"))?,
        task: from.json()?.ok_or_else(|| from.damaged("no task"))?,
    })
}

impl Schedules for Sqlite {
    fn add_schedule(&mut self, new: &NewSchedule, now: Time) -> Result<Schedule, Error> {
        let schedule = Schedule {
            id: ScheduleId(self.books.next_schedule()),
            owner: new.owner,
            name: new.name.clone(),
            created: now,
            paused: false,
            cursor: now,
            wake: new.rule.when.next(&new.rule.zone, now),
            rule: new.rule.clone(),
            task: new.task.clone(),
        };
        self.statement(concat!(
            "INSERT INTO schedule (",
            columns!(),
            ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        ))?
        .execute(params![
            schedule.id.0,
            schedule.owner,
            schedule.name,
            schedule.created.micros(),
            schedule.paused,
            schedule.cursor.micros(),
            schedule.wake.map(Time::micros),
            json(&schedule.rule, false),
            json(&schedule.task, false),
        ])
        .map_err(failed("keep a schedule"))?;
        Ok(schedule)
    }

    fn schedule(&mut self, id: ScheduleId) -> Result<Option<Schedule>, Error> {
        let sql = concat!("SELECT ", columns!(), " FROM schedule WHERE id = ?1");
        Ok(self.rows(sql, [id.0], read)?.pop())
    }

    fn schedule_named(&mut self, owner: u32, name: &str) -> Result<Option<Schedule>, Error> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM schedule WHERE owner = ?1 AND name = ?2"
        );
        Ok(self.rows(sql, params![owner, name], read)?.pop())
    }

    fn schedules(&mut self, shown: Shown) -> Result<Vec<Schedule>, Error> {
        let after = shown.after.map_or(0, |id| id.0);
        let mut values: Vec<Value> = vec![after.into(), i64::from(shown.limit).into()];
        let sql = if let Some(owner) = shown.owner {
            values.push(i64::from(owner).into());
            concat!(
                "SELECT ",
                columns!(),
                " FROM schedule WHERE id > ?1 AND owner = ?3 ORDER BY id LIMIT ?2"
            )
        } else {
            concat!(
                "SELECT ",
                columns!(),
                " FROM schedule WHERE id > ?1 ORDER BY id LIMIT ?2"
            )
        };
        self.rows(sql, rusqlite::params_from_iter(values), read)
    }

    fn count_schedules(&mut self, owner: u32) -> Result<u64, Error> {
        self.statement("SELECT count(*) FROM schedule WHERE owner = ?1")?
            .query_row([owner], |row| row.get(0))
            .map_err(failed("count schedules"))
    }

    fn save_schedule(&mut self, schedule: &Schedule) -> Result<(), Error> {
        self.statement(
            "UPDATE schedule SET paused = ?2, cursor = ?3, wake = ?4, rule = ?5, task = ?6 \
             WHERE id = ?1",
        )?
        .execute(params![
            schedule.id.0,
            schedule.paused,
            schedule.cursor.micros(),
            schedule.wake.map(Time::micros),
            json(&schedule.rule, false),
            json(&schedule.task, false),
        ])
        .map_err(failed("save a schedule"))?;
        Ok(())
    }

    fn remove_schedule(&mut self, id: ScheduleId) -> Result<(), Error> {
        self.statement("DELETE FROM schedule WHERE id = ?1")?
            .execute([id.0])
            .map_err(failed("remove a schedule"))?;
        Ok(())
    }

    fn due_schedules(&mut self, now: Time, limit: u32) -> Result<Vec<Schedule>, Error> {
        let sql = concat!(
            "SELECT ",
            columns!(),
            " FROM schedule WHERE wake IS NOT NULL AND paused = 0 AND wake <= ?1 \
             ORDER BY wake LIMIT ?2"
        );
        self.rows(sql, params![now.micros(), limit], read)
    }

    fn next_tick(&mut self) -> Result<Option<Time>, Error> {
        self.statement("SELECT min(wake) FROM schedule WHERE wake IS NOT NULL AND paused = 0")?
            .query_row([], |row| row.get::<_, Option<i64>>(0))
            .map(|wake| wake.map(Time::from_micros))
            .map_err(failed("find the next nominal time"))
    }

    fn schedules_ahead(&mut self, now: Time) -> Result<Vec<Schedule>, Error> {
        // Without an index: asked only after the clock was set, and at the start.
        let sql = concat!("SELECT ", columns!(), " FROM schedule WHERE cursor > ?1");
        self.rows(sql, [now.micros()], read)
    }

    fn starts(&self) -> Time {
        Time::from_micros(self.books.starts())
    }

    fn keep_starts(&mut self, until: Time) {
        self.books.keep_starts(until.micros());
    }

    fn has_tick(&mut self, tick: Tick) -> Result<bool, Error> {
        self.statement("SELECT 1 FROM task WHERE schedule = ?1 AND nominal = ?2")?
            .exists(params![tick.schedule.0, tick.nominal.micros()])
            .map_err(failed("look for the task of a nominal time"))
    }

    fn unfinished_of(&mut self, id: ScheduleId) -> Result<Vec<Task>, Error> {
        let sql = concat!(
            "SELECT ",
            task_columns!(),
            " FROM task AS t JOIN queue AS q ON q.id = t.queue \
             WHERE t.schedule = ?1 AND t.state <= 5 ORDER BY t.id"
        );
        self.rows(sql, [id.0], rows::task)
    }

    fn latest_of(&mut self, id: ScheduleId, limit: u32) -> Result<Vec<Task>, Error> {
        let sql = concat!(
            "SELECT ",
            task_columns!(),
            " FROM task AS t JOIN queue AS q ON q.id = t.queue \
             WHERE t.schedule = ?1 ORDER BY t.nominal DESC LIMIT ?2"
        );
        self.rows(sql, params![id.0, limit], rows::task)
    }
}
