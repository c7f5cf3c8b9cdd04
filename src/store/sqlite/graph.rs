//! [`Graph`] in SQLite.

use rusqlite::{OptionalExtension as _, Row, params};

use crate::model::depend::Link;
use crate::model::id::TaskId;
use crate::model::spec::Wants;
use crate::model::task::State;
use crate::store::Error;
use crate::store::graph::{Graph, Held};
use crate::store::rows;

use super::{Sqlite, failed};

const PARENTS: &str = "SELECT e.child, e.parent, e.wants, e.met, t.state FROM edge AS e \
     LEFT JOIN task AS t ON t.id = e.parent WHERE e.child = ?1 ORDER BY e.parent";
const CHILDREN: &str = "SELECT child FROM edge WHERE parent = ?1 ORDER BY child LIMIT ?2";
const COUNT_CHILDREN: &str = "SELECT count(*) FROM edge WHERE parent = ?1";
const WAITING: &str = "SELECT e.child, e.parent, e.wants, e.met, NULL FROM edge AS e \
     CROSS JOIN task AS t ON t.id = e.child \
     WHERE e.parent = ?1 AND e.met = 0 AND t.state = 0 ORDER BY e.child";
// By the index of what is not met: by the key, all that is met would be walked
// past at the end of each parent.
const IS_HELD: &str = "SELECT 1 FROM edge INDEXED BY edge_unmet WHERE child = ?1 AND met = 0";
const HELD_BY: &str = "SELECT e.child, e.parent, e.wants, e.met, t.state \
     FROM edge AS e INDEXED BY edge_unmet LEFT JOIN task AS t ON t.id = e.parent \
     WHERE e.child = ?1 AND e.met = 0 ORDER BY e.parent LIMIT 1";
const COUNT_HELD: &str =
    "SELECT count(*) FROM edge INDEXED BY edge_unmet WHERE child = ?1 AND met = 0";
// The states are spelled out so that the partial index can be used.
const UNIQUE_HOLDER: &str = "SELECT id FROM task WHERE owner = ?1 AND unique_key = ?2 \
     AND state <= 5";

const fn number(wants: Wants) -> i64 {
    match wants {
        Wants::Ok => 0,
        Wants::Any => 1,
    }
}

fn damaged(child: i64, what: String) -> Error {
    Error::Damaged {
        table: "edge of task",
        id: child,
        what,
    }
}

fn wants(child: i64, number: i64) -> Result<Wants, Error> {
    match number {
        0 => Ok(Wants::Ok),
        1 => Ok(Wants::Any),
        _ => Err(damaged(child, format!("wants {number}"))),
    }
}

fn state(id: i64, number: Option<i64>) -> Result<Option<State>, Error> {
    let read = |number| rows::state(number).ok_or_else(|| damaged(id, format!("state {number}")));
    number.map(read).transpose()
}

/// Reads `child, parent, wants, met, state`.
fn link(row: &Row<'_>) -> Result<Link, Error> {
    let read = || -> rusqlite::Result<(i64, i64, i64, bool, Option<i64>)> {
        Ok((
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
        ))
    };
    let (child, parent, wanted, met, number) = read().map_err(failed("read an edge"))?;
    Ok(Link {
        child: TaskId(child),
        parent: TaskId(parent),
        wants: wants(child, wanted)?,
        met,
        state: state(parent, number)?,
    })
}

fn id(row: &Row<'_>) -> Result<TaskId, Error> {
    row.get(0).map(TaskId).map_err(failed("read an edge"))
}

impl Graph for Sqlite {
    fn link(
        &mut self,
        child: TaskId,
        parent: TaskId,
        wants: Wants,
        met: bool,
    ) -> Result<(), Error> {
        self.statement("INSERT INTO edge (child, parent, wants, met) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![child.0, parent.0, number(wants), met])
            .map_err(failed("store an edge"))?;
        Ok(())
    }

    fn set_met(&mut self, child: TaskId, parent: TaskId, met: bool) -> Result<(), Error> {
        self.statement("UPDATE edge SET met = ?3 WHERE child = ?1 AND parent = ?2")?
            .execute(params![child.0, parent.0, met])
            .map_err(failed("save an edge"))?;
        Ok(())
    }

    fn parents(&mut self, child: TaskId) -> Result<Vec<Link>, Error> {
        self.rows(PARENTS, [child.0], link)
    }

    fn children(&mut self, parent: TaskId, limit: u32) -> Result<Vec<TaskId>, Error> {
        self.rows(CHILDREN, params![parent.0, limit], id)
    }

    fn count_children(&mut self, parent: TaskId) -> Result<u64, Error> {
        self.statement(COUNT_CHILDREN)?
            .query_row([parent.0], |row| row.get(0))
            .map_err(failed("count edges"))
    }

    fn waiting(&mut self, parent: TaskId) -> Result<Vec<(TaskId, Wants)>, Error> {
        let links = self.rows(WAITING, [parent.0], link)?;
        Ok(links.iter().map(|link| (link.child, link.wants)).collect())
    }

    fn is_held(&mut self, child: TaskId) -> Result<bool, Error> {
        self.statement(IS_HELD)?
            .exists([child.0])
            .map_err(failed("read an edge"))
    }

    fn held_by(&mut self, child: TaskId) -> Result<Option<Held>, Error> {
        let Some(first) = self.rows(HELD_BY, [child.0], link)?.pop() else {
            return Ok(None);
        };
        let count: u64 = self
            .statement(COUNT_HELD)?
            .query_row([child.0], |row| row.get(0))
            .map_err(failed("count edges"))?;
        Ok(Some(Held {
            parent: first.parent,
            state: first.state,
            more: count.saturating_sub(1),
        }))
    }

    fn unique_holder(&mut self, owner: u32, key: &str) -> Result<Option<TaskId>, Error> {
        self.statement(UNIQUE_HOLDER)?
            .query_row(params![owner, key], |row| row.get(0).map(TaskId))
            .optional()
            .map_err(failed("look for a unique key"))
    }

    fn release_unique(&mut self, id: TaskId) -> Result<(), Error> {
        self.statement("UPDATE task SET unique_key = NULL WHERE id = ?1")?
            .execute([id.0])
            .map_err(failed("release a unique key"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::options::Options;

    #[test]
    fn every_question_goes_by_an_index() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(dir.path(), &Options::default()).unwrap();
        for (sql, index) in [
            (PARENTS, "PRIMARY KEY (child=?)"),
            (CHILDREN, "edge_parent (parent=?)"),
            (COUNT_CHILDREN, "edge_parent (parent=?)"),
            (WAITING, "edge_parent (parent=?)"),
            (IS_HELD, "edge_unmet (child=?)"),
            (HELD_BY, "edge_unmet (child=?)"),
            (COUNT_HELD, "edge_unmet (child=?)"),
            (UNIQUE_HOLDER, "task_unique (owner=? AND unique_key=?)"),
        ] {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let mut statement = store.connection.prepare(&explain).unwrap();
            let mut rows = statement.raw_query();
            let mut plan = String::new();
            while let Some(row) = rows.next().unwrap() {
                plan.push_str(&row.get::<_, String>(3).unwrap());
                plan.push('\n');
            }
            assert!(plan.contains(index), "{sql}: {plan}");
            assert!(!plan.contains("SCAN"), "{sql}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }
}
