//! What is counted instead of searched for: tasks in each state, and the
//! numbers given out.
//!
//! Both are rows that change in the transaction of what they count, so they
//! are as true as the rest; and they are written once a transaction, however
//! many tasks it changes.

use rusqlite::{Connection, params};

use crate::model::task::State;

use super::Error;
use super::rows;
use super::sqlite::failed;

/// Tasks in each state, in the order of [`State::ALL`].
pub(super) type Tally = [u64; State::ALL.len()];

/// The books, now and as of the last commit.
#[derive(Debug, Clone)]
pub(super) struct Books {
    now: Page,
    kept: Page,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Page {
    tally: Tally,
    task: i64,
    event: i64,
}

impl Books {
    /// Reads what was written last.
    pub(super) fn open(connection: &Connection) -> Result<Self, Error> {
        let read = || -> rusqlite::Result<Page> {
            let mut page = Page::default();
            let mut statement = connection.prepare("SELECT state, tasks FROM tally")?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                if let Some(count) = page.tally.get_mut(row.get::<_, usize>(0)?) {
                    *count = row.get(1)?;
                }
            }
            let given = "SELECT number FROM given WHERE what = ?1";
            page.task = connection.query_row(given, ["task"], |row| row.get(0))?;
            page.event = connection.query_row(given, ["event"], |row| row.get(0))?;
            Ok(page)
        };
        let page = read().map_err(failed("read the books"))?;
        Ok(Self {
            now: page.clone(),
            kept: page,
        })
    }

    /// Writes what has changed since the last commit.
    pub(super) fn save(&self, connection: &Connection) -> Result<(), Error> {
        let write = || -> rusqlite::Result<()> {
            for (state, (now, kept)) in self.now.tally.iter().zip(&self.kept.tally).enumerate() {
                if now != kept {
                    connection
                        .prepare_cached(
                            "INSERT INTO tally (state, tasks) VALUES (?1, ?2) \
                             ON CONFLICT (state) DO UPDATE SET tasks = excluded.tasks",
                        )?
                        .execute(params![state, now])?;
                }
            }
            let given = [
                ("task", self.now.task, self.kept.task),
                ("event", self.now.event, self.kept.event),
            ];
            for (what, now, kept) in given {
                if now != kept {
                    connection
                        .prepare_cached("UPDATE given SET number = ?2 WHERE what = ?1")?
                        .execute(params![what, now])?;
                }
            }
            Ok(())
        };
        write().map_err(failed("write the books"))
    }

    /// What was saved is on disk.
    pub(super) fn committed(&mut self) {
        self.kept.clone_from(&self.now);
    }

    /// A number no task has had.
    pub(super) const fn next_task(&mut self) -> i64 {
        self.now.task += 1;
        self.now.task
    }

    /// A number no event has had.
    pub(super) const fn next_event(&mut self) -> i64 {
        self.now.event += 1;
        self.now.event
    }

    /// One task has come to `to`, from `from` or from nowhere.
    pub(super) fn count(&mut self, from: Option<State>, to: State) {
        if let Some(from) = from.and_then(|state| self.now.tally.get_mut(place(state))) {
            *from = from.saturating_sub(1);
        }
        if let Some(to) = self.now.tally.get_mut(place(to)) {
            *to += 1;
        }
    }

    /// Tasks in each state.
    pub(super) const fn tally(&self) -> Tally {
        self.now.tally
    }
}

/// A state's place in [`State::ALL`].
fn place(state: State) -> usize {
    usize::try_from(rows::state_number(state)).unwrap_or(usize::MAX)
}
