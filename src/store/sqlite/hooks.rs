//! [`Hooks`] in SQLite.

use rusqlite::params;

use crate::model::hook::Hook;
use crate::store::Error;
use crate::store::hooks::Hooks;
use crate::store::rows::Columns;

use super::{Sqlite, failed, json};

impl Hooks for Sqlite {
    fn queue_hooks(&mut self, queue: &str) -> Result<Vec<Hook>, Error> {
        let sql = "SELECT id, hooks FROM queue WHERE name = ?1";
        let found = self.rows(sql, [queue], |row| Columns::new(row, "queue")?.json())?;
        Ok(found.into_iter().flatten().next().unwrap_or_default())
    }

    fn set_queue_hooks(&mut self, queue: &str, hooks: &[Hook]) -> Result<(), Error> {
        let id = self.queue(queue)?;
        self.statement("UPDATE queue SET hooks = ?2 WHERE id = ?1")?
            .execute(params![id, json(&hooks, hooks.is_empty())])
            .map_err(failed("save a queue's hooks"))?;
        Ok(())
    }
}
