//! Listings: a filter turned into one bounded query.
//!
//! Newest first by id, so that a page costs the same wherever it begins. A
//! filter that matches little may still walk far; that happens on the reader's
//! connection, never on the writer's. Every value is bound, so that no letter
//! in it means anything.

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::model::filter::{Filter, Listing, Selection};
use crate::model::id::TaskId;
use crate::model::task::{State, Task};

use super::Error;
use super::rows::{self, task_columns};
use super::sqlite::failed;

/// A query as it grows: its text, and the values in it.
pub(super) struct Query {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Query {
    pub(super) fn new(sql: &str) -> Self {
        Self {
            sql: sql.to_owned(),
            values: Vec::new(),
        }
    }

    pub(super) fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.extend(values);
    }

    /// One of several values; no condition when there are none.
    pub(super) fn any(&mut self, column: &str, values: Vec<Value>) {
        if !values.is_empty() {
            let marks = vec!["?"; values.len()].join(", ");
            self.and(&format!("{column} IN ({marks})"), values);
        }
    }

    fn states(&mut self, states: &[State]) {
        let numbers = states.iter().map(|state| rows::state_number(*state).into());
        self.any("t.state", numbers.collect());
    }

    fn queue(&mut self, queue: Option<&String>) {
        if let Some(queue) = queue {
            let condition = "t.queue = (SELECT id FROM queue WHERE name = ?)";
            self.and(condition, [queue.clone().into()]);
        }
    }

    fn name(&mut self, name: Option<&String>) {
        if let Some(name) = name {
            self.and("instr(t.name, ?) > 0", [name.clone().into()]);
        }
    }

    /// Labels that are damaged match nothing, instead of failing the query.
    fn label(&mut self, (label, value): &(String, String)) {
        let path = format!("$.\"{}\"", label.replace(['"', '\\'], ""));
        self.and(
            "CASE WHEN json_valid(t.labels) THEN json_extract(t.labels, ?) END = ?",
            [path.into(), value.clone().into()],
        );
    }
}

/// The page a filter describes.
pub(super) fn page(connection: &Connection, filter: &Filter) -> Result<Listing, Error> {
    let mut query = query(filter);
    // One more than asked for tells whether there is another page.
    let most = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let limit = i64::from(filter.limit) + 1;
    query.sql.push_str(" ORDER BY t.id DESC LIMIT ?");
    query.values.push(limit.into());
    let failed = || failed("list tasks");
    let mut statement = connection.prepare_cached(&query.sql).map_err(failed())?;
    let mut found = statement
        .query(rusqlite::params_from_iter(query.values))
        .map_err(failed())?;
    let mut page = Listing::default();
    let mut last = None;
    while let Some(row) = found.next().map_err(failed())? {
        if page.tasks.len() + page.damaged.len() == most {
            page.next = last;
            break;
        }
        last = row.get(0).map(TaskId).map_err(failed())?.into();
        match rows::task(row) {
            Ok(task) => page.tasks.push(task),
            Err(Error::Damaged { id, .. }) => page.damaged.push(TaskId(id)),
            Err(error) => return Err(error),
        }
    }
    Ok(page)
}

/// The page a filter describes, where no row of it may be damaged.
pub(super) fn list(connection: &Connection, filter: &Filter) -> Result<Vec<Task>, Error> {
    let page = page(connection, filter)?;
    page.damaged.first().map_or(Ok(page.tasks), |id| {
        Err(Error::Damaged {
            table: "task",
            id: id.0,
            what: "see the task itself".to_owned(),
        })
    })
}

fn query(filter: &Filter) -> Query {
    let mut query = Query::new(concat!(
        "SELECT ",
        task_columns!(),
        " FROM task AS t LEFT JOIN queue AS q ON q.id = t.queue WHERE 1"
    ));
    if let Some(owner) = filter.owner {
        query.and("t.owner = ?", [i64::from(owner).into()]);
    }
    query.states(&filter.states);
    query.queue(filter.queue.as_ref());
    query.name(filter.name.as_ref());
    if let Some(label) = &filter.label {
        query.label(label);
    }
    if let Some(before) = filter.before {
        query.and("t.id < ?", [before.0.into()]);
    }
    query
}

/// Adds what narrows a selection.
pub(super) fn narrow(query: &mut Query, selection: &Selection) {
    if let Some(owner) = selection.owner {
        query.and("t.owner = ?", [i64::from(owner).into()]);
    }
    query.states(&selection.states);
    query.queue(selection.queue.as_ref());
    query.name(selection.name.as_ref());
    for label in &selection.labels {
        query.label(label);
    }
    let words = selection.classes.iter();
    query.any(
        "CASE WHEN json_valid(t.outcome) THEN json_extract(t.outcome, '$.class') END",
        words.map(|class| class.word().to_owned().into()).collect(),
    );
    if let Some(by) = selection.by {
        let condition = "coalesce(t.ended, t.created) <= ?";
        query.and(condition, [by.micros().into()]);
    }
}
