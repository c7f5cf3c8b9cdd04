//! Whether a database is sound: its pages, its version, and row by row what
//! was asked for, by the checksums that the rows carry.
//!
//! It is read beside a daemon at work. Rows are looked at some at a time, so
//! that the daemon's log can be cut back in between.

use std::path::Path;
use std::{fmt, fs, io};

use nix::unistd::{AccessFlags, eaccess};
use rusqlite::{Connection, Row};

use crate::model::id::TaskId;

use super::migrate::{self, VERSION};
use super::open::FILE;
use super::rows::{self, attempt_columns, task_columns};
use super::sqlite::{Sqlite, agents, failed, schedules};
use super::{Error, sum};

/// Most faults that are named one by one.
const NAMED: usize = 100;
/// Tasks that are looked at in one reading.
const STEP: u32 = 1_000;

const TASKS: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM task AS t JOIN queue AS q ON q.id = t.queue WHERE t.id > ?1 AND t.id <= ?2"
);
const INPUTS: &str = "SELECT task, data, sum FROM input WHERE task > ?1 AND task <= ?2";
const ATTEMPTS: &str = concat!(
    "SELECT ",
    attempt_columns!(),
    " FROM attempt WHERE task > ?1 AND task <= ?2"
);
const REACH: &str = "SELECT max(id) FROM (SELECT id FROM task WHERE id > ?1 ORDER BY id LIMIT ?2)";

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: a table, or the database as a whole.
    pub table: String,
    /// Which row; none where it is not one row's.
    pub row: Option<i64>,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Some(row) => write!(f, "{} {row}: {}", self.table, self.what),
            None => write!(f, "{}: {}", self.table, self.what),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Version of the schema.
    pub version: usize,
    /// Size of the database's file, without its log.
    pub bytes: u64,
    /// Whether rows were read: those of an older version are when a start has
    /// brought it up to date.
    pub has_rows: bool,
    /// Tasks that were read.
    pub tasks: u64,
    /// Rows that were compared with their checksum.
    pub sums: u64,
    /// What is wrong; nothing in a sound database.
    pub faults: Vec<Fault>,
    /// How many more faults there are.
    pub more: u64,
}

impl Findings {
    fn add(&mut self, table: impl Into<String>, row: Option<i64>, what: String) {
        if self.faults.len() >= NAMED {
            self.more += 1;
            return;
        }
        let table = table.into();
        self.faults.push(Fault { table, row, what });
    }

    fn note(&mut self, error: &Error) {
        if let Error::Damaged { table, id, what } = error {
            return self.add(*table, Some(*id), what.clone());
        }
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        let what = format!("{error}{}", cause.unwrap_or_default());
        self.add("database", None, what);
    }
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It reads the pages of so many bytes.
    Pages(u64),
    /// It reads rows, and has read so many of so many tasks.
    Tasks(u64, u64),
}

/// Checks the database of the state directory `dir`, and tells `progress` how
/// far it is.
///
/// # Errors
/// There is no database, or it may not be read, or it is not one that this
/// program knows. Damage is no error but a finding.
pub fn check(dir: &Path, mut progress: impl FnMut(Stage)) -> Result<Findings, Error> {
    let path = dir.join(FILE);
    let refused = |source| Error::File {
        act: "read",
        path: path.clone(),
        source,
    };
    // SQLite would only say that it cannot open it. It is not opened here: to
    // close it would drop the locks of every connection of this process.
    let bytes = fs::metadata(&path).map_err(refused)?.len();
    eaccess(&path, AccessFlags::R_OK)
        .map_err(io::Error::from)
        .map_err(refused)?;
    let connection = Sqlite::connect_reader(&path)?;
    let version = migrate::inspect(&connection, &path)?;
    let mut findings = Findings {
        version,
        bytes,
        ..Findings::default()
    };
    if version == 0 {
        let what = "it is empty: nothing was ever saved in it, or it was emptied";
        findings.add("database", None, what.to_owned());
        return Ok(findings);
    }
    progress(Stage::Pages(bytes));
    pages(&connection, &mut findings);
    findings.has_rows = version == VERSION;
    if findings.has_rows {
        books(&connection, &mut findings);
        rows(&connection, &mut findings, progress);
    }
    Ok(findings)
}

/// The first row of a database of this version that is damaged.
pub(super) fn first_damaged(connection: &Connection) -> Option<Fault> {
    let mut findings = Findings::default();
    rows(connection, &mut findings, |_| {});
    findings.faults.into_iter().next()
}

/// SQLite's own checks, of pages and of what belongs to what.
fn pages(connection: &Connection, findings: &mut Findings) {
    let sql = format!("PRAGMA quick_check({NAMED})");
    let said = texts(connection, &sql, |row| row.get(0));
    let orphans = "PRAGMA foreign_key_check";
    let orphans = texts(connection, orphans, |row| {
        let (table, id): (String, Option<i64>) = (row.get(0)?, row.get(1)?);
        let id = id.map(|id| format!(" {id}")).unwrap_or_default();
        Ok(format!(
            "{table}{id} belongs to no {}",
            row.get::<_, String>(2)?
        ))
    });
    for found in [said, orphans] {
        match found {
            Err(error) => findings.note(&error),
            Ok(found) => {
                let lines = found.iter().flat_map(|text| text.lines());
                for line in lines.filter(|line| *line != "ok" && !line.starts_with("***")) {
                    findings.add("database", None, line.to_owned());
                }
            }
        }
    }
}

fn texts(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<String>,
) -> Result<Vec<String>, Error> {
    let failed = || failed("check the pages");
    let mut statement = connection.prepare(sql).map_err(failed())?;
    let found = statement.query_map([], read).map_err(failed())?;
    found.collect::<Result<_, _>>().map_err(failed())
}

/// Whether as many tasks are counted as there are. One statement, so that it
/// is one moment of a database in use.
fn books(connection: &Connection, findings: &mut Findings) {
    let sql = "SELECT (SELECT count(*) FROM task), \
               (SELECT coalesce(sum(number), 0) FROM book WHERE what < 100)";
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    match connection.query_row(sql, [], read) {
        Ok((there, counted)) if there == counted => {}
        Ok((there, counted)) => {
            let what = format!("{counted} tasks are counted, and {there} are there");
            findings.add("book", None, what);
        }
        Err(error) => findings.note(&failed("count the tasks")(error)),
    }
}

/// Reads every row of what was asked for and of what came of it.
fn rows(connection: &Connection, findings: &mut Findings, mut progress: impl FnMut(Stage)) {
    let count = "SELECT count(*) FROM task";
    let all = connection.query_row(count, [], |row| row.get(0));
    let all = all.unwrap_or_default();
    let mut after = i64::MIN;
    loop {
        progress(Stage::Tasks(findings.tasks, all));
        let reach = connection.query_row(REACH, (after, STEP), |row| row.get::<_, Option<i64>>(0));
        let (until, is_last) = match reach {
            Ok(Some(until)) => (until, false),
            Ok(None) => (i64::MAX, true),
            Err(error) => return findings.note(&failed("read the tasks")(error)),
        };
        let read = each(
            connection,
            TASKS,
            (after, until),
            findings,
            |row, findings| {
                findings.tasks += 1;
                findings.sums += u64::from(row.get::<_, Option<u32>>(rows::SUM) != Ok(None));
                rows::task(row).map(drop)
            },
        )
        .and_then(|()| each(connection, INPUTS, (after, until), findings, input))
        .and_then(|()| {
            each(connection, ATTEMPTS, (after, until), findings, |row, _| {
                rows::attempt(row).map(drop)
            })
        });
        if let Err(error) = read {
            return findings.note(&error);
        }
        if is_last {
            break;
        }
        after = until;
    }
    let read = |row: &Row<'_>, _: &mut Findings| schedules::read(row).map(drop);
    let schedules = each(connection, schedules::ALL, (), findings, read);
    let read = |row: &Row<'_>, _: &mut Findings| agents::read(row).map(drop);
    let agents = each(connection, agents::ALL, (), findings, read);
    let read = |row: &Row<'_>, _: &mut Findings| agents::life(row).map(drop);
    let lives = each(connection, agents::LIVES, (), findings, read);
    for error in [schedules, agents, lives]
        .into_iter()
        .filter_map(Result::err)
    {
        findings.note(&error);
    }
}

/// Reads each row that a query finds, and notes those that cannot be read.
///
/// # Errors
/// The database refused.
fn each(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    findings: &mut Findings,
    read: impl Fn(&Row<'_>, &mut Findings) -> Result<(), Error>,
) -> Result<(), Error> {
    let refused = || failed("read rows");
    let mut statement = connection.prepare_cached(sql).map_err(refused())?;
    let mut found = statement.query(values).map_err(refused())?;
    while let Some(row) = found.next().map_err(refused())? {
        if let Err(error) = read(row, findings) {
            findings.note(&error);
        }
    }
    Ok(())
}

fn input(row: &Row<'_>, findings: &mut Findings) -> Result<(), Error> {
    let mut from = rows::Columns::new(row, "input of task")?;
    let (data, sum): (Vec<u8>, Option<u32>) = (from.get()?, from.get()?);
    findings.sums += u64::from(sum.is_some());
    sum::input(TaskId(from.id()), data, sum).map(drop)
}
