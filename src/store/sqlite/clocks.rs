//! [`Clocks`] in SQLite.

use rusqlite::{OptionalExtension as _, params};

use crate::model::task::Task;
use crate::store::Error;
use crate::store::clocks::Clocks;
use crate::store::rows::{self, task_columns};

use super::{Sqlite, failed};

impl Clocks for Sqlite {
    fn lead(&mut self) -> Result<Option<(String, i64)>, Error> {
        self.statement("SELECT boot, lead FROM clock")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(failed("read the clock's lead"))
    }

    fn keep_lead(&mut self, boot: &str, lead: i64) -> Result<(), Error> {
        self.statement(
            "INSERT INTO clock (id, boot, lead) VALUES (1, ?1, ?2) \
             ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, lead = excluded.lead",
        )?
        .execute(params![boot, lead])
        .map_err(failed("keep the clock's lead"))?;
        Ok(())
    }

    fn timed(&mut self) -> Result<Vec<Task>, Error> {
        // Two queries, each with the partial index of its condition.
        let live = concat!(
            "SELECT ",
            task_columns!(),
            " FROM task AS t JOIN queue AS q ON q.id = t.queue WHERE t.state BETWEEN 3 AND 5"
        );
        let waiting = concat!(
            "SELECT ",
            task_columns!(),
            " FROM task AS t JOIN queue AS q ON q.id = t.queue \
             WHERE t.wake IS NOT NULL AND t.state = 1 AND t.delay > 0"
        );
        let mut tasks = self.rows(live, [], rows::task)?;
        tasks.extend(self.rows(waiting, [], rows::task)?);
        Ok(tasks)
    }
}
