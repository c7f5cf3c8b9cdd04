//! Listings: a filter turned into one bounded query.
//!
//! Newest first by id, so that a page costs the same wherever it begins. A
//! filter that matches little may still walk far; that happens on the reader's
//! connection, never on the writer's.

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::model::filter::Filter;
use crate::model::task::Task;

use super::Error;
use super::rows::{self, task_columns};

/// The page a filter describes.
pub(super) fn list(connection: &Connection, filter: &Filter) -> Result<Vec<Task>, Error> {
    let (sql, values) = query(filter);
    let failed = |source| Error::Database {
        act: "list tasks",
        source,
    };
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut found = statement
        .query(rusqlite::params_from_iter(values))
        .map_err(failed)?;
    let mut all = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        all.push(rows::task(row)?);
    }
    Ok(all)
}

fn query(filter: &Filter) -> (String, Vec<Value>) {
    let mut sql = concat!(
        "SELECT ",
        task_columns!(),
        " FROM task AS t JOIN queue AS q ON q.id = t.queue WHERE 1"
    )
    .to_owned();
    let mut values = Vec::new();
    let mut and = |condition: &str, new: Vec<Value>| {
        sql.push_str(" AND ");
        sql.push_str(condition);
        values.extend(new);
    };
    if let Some(owner) = filter.owner {
        and("t.owner = ?", vec![i64::from(owner).into()]);
    }
    if !filter.states.is_empty() {
        let marks = vec!["?"; filter.states.len()].join(", ");
        let states = filter
            .states
            .iter()
            .map(|state| rows::state_number(*state).into());
        and(&format!("t.state IN ({marks})"), states.collect());
    }
    if let Some(queue) = &filter.queue {
        and("q.name = ?", vec![queue.clone().into()]);
    }
    if let Some(name) = &filter.name {
        and("instr(t.name, ?) > 0", vec![name.clone().into()]);
    }
    if let Some((label, value)) = &filter.label {
        let path = format!("$.\"{}\"", label.replace(['"', '\\'], ""));
        and(
            "json_extract(t.labels, ?) = ?",
            vec![path.into(), value.clone().into()],
        );
    }
    if let Some(before) = filter.before {
        and("t.id < ?", vec![before.0.into()]);
    }
    sql.push_str(" ORDER BY t.id DESC LIMIT ?");
    values.push(i64::from(filter.limit).into());
    (sql, values)
}
