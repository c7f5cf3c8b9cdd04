//! [`Edits`] in SQLite.

use rusqlite::params;

use crate::model::task::Task;
use crate::model::time::Time;
use crate::store::edit::Edits;
use crate::store::queues::Queues as _;
use crate::store::{Error, rows, sum};

use super::{Sqlite, failed, json};

impl Edits for Sqlite {
    fn save_edit(&mut self, before: &Task, after: &Task) -> Result<(), Error> {
        let (from, to) = (self.queue(&before.queue)?, self.queue(&after.queue)?);
        let labels = json(&after.labels, after.labels.is_empty());
        let spec = json(&*after.spec, false);
        let sum = sum::of(after, labels.as_deref(), spec.as_deref());
        let changed = self
            .statement(
                "UPDATE task SET state = ?1, queue = ?2, priority = ?3, rank = ?4, name = ?5, \
                 labels = ?6, spec = ?7, due = ?8, delay = ?9, wake = ?10, sum = ?14 \
                 WHERE id = ?11 AND state = ?12 AND attempt = ?13",
            )?
            .execute(params![
                rows::state_number(after.state),
                to,
                after.priority,
                after.rank(),
                after.name,
                labels,
                spec,
                after.due.micros(),
                after.delay.map(rows::delay_number),
                after.wake.map(Time::micros),
                after.id.0,
                rows::state_number(before.state),
                before.attempt,
                sum,
            ])
            .map_err(failed("save an edited task"))?;
        if changed != 1 {
            return Err(Error::Fenced(after.id));
        }
        self.books
            .count(from, before.owner, Some(before.state), None);
        self.books.count(to, after.owner, None, Some(after.state));
        if let Some(group) = &after.group {
            // It may have left the one, and come before others in the other.
            self.settle_group(from, group)?;
            self.settle_group(to, group)?;
        }
        Ok(())
    }
}
