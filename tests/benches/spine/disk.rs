//! What the disk and SQLite alone can do: the floor that nothing durable gets
//! below.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::{Connection, params};
use taskdaemon::clock;

use crate::process::count;

/// How long each is tried.
const WINDOW: Duration = Duration::from_millis(300);
/// A row much like that of a task.
const INSERT: &str = "INSERT INTO task (state, queue, priority, owner, created, due, name, spec) \
    VALUES (2, 1, 0, 1000, ?1, ?1, ?2, ?3)";

/// Keeps each round's directory away from those that were used lately: ext4
/// without a journal takes milliseconds to make a file where others were
/// deleted in the last minutes. A hint to its allocator; without it, or on
/// another file system, figures of tasks may vary more.
pub(crate) fn spread(dir: &Path) {
    let mut chattr = Command::new("chattr");
    let hinted = chattr.arg("+T").arg(dir).stderr(Stdio::null()).status();
    if !hinted.is_ok_and(|status| status.success()) {
        eprintln!("no allocation hint on this file system");
    }
}

/// Empty files made a second.
pub(crate) fn files(dir: &Path) -> anyhow::Result<f64> {
    const FILES: u64 = 500;
    let dir = dir.join("files");
    std::fs::create_dir(&dir)?;
    let begun = clock::instant();
    for number in 0..FILES {
        drop(File::create(dir.join(number.to_string()))?);
    }
    Ok(count(FILES) / begun.elapsed().as_secs_f64())
}

/// Appends of 256 bytes a second, each synced.
pub(crate) fn syncs(dir: &Path) -> anyhow::Result<f64> {
    let mut file = File::create(dir.join("syncs"))?;
    let begun = clock::instant();
    let mut done = 0;
    while begun.elapsed() < WINDOW {
        file.write_all(&[b'x'; 256])?;
        file.sync_data()?;
        done += 1;
    }
    Ok(count(done) / begun.elapsed().as_secs_f64())
}

/// A database of one table, set up as the product's own.
pub(crate) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 500)?;
    connection.execute_batch(
        "CREATE TABLE task (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, \
         queue INTEGER NOT NULL, priority INTEGER NOT NULL, owner INTEGER NOT NULL, \
         created INTEGER NOT NULL, due INTEGER NOT NULL, name TEXT, spec TEXT NOT NULL) STRICT",
    )?;
    Ok(connection)
}

/// Stores one row and gives its number.
pub(crate) fn insert(
    connection: &Connection,
    now: i64,
    name: Option<&str>,
    spec: &str,
) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(INSERT)?
        .execute(params![now, name, spec])?;
    Ok(connection.last_insert_rowid())
}

/// Rows a second by one thread with nothing around it, so many to a
/// transaction.
pub(crate) fn rows(dir: &Path, to_a_commit: u32) -> anyhow::Result<f64> {
    let connection = open(&dir.join(format!("rows-{to_a_commit}.db")))?;
    let begun = clock::instant();
    let mut done = 0;
    while begun.elapsed() < WINDOW {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for _ in 0..to_a_commit {
            let now = clock::now().micros();
            insert(&connection, now, Some("spine"), r#"{"argv":["/bin/true"]}"#)?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        done += u64::from(to_a_commit);
    }
    Ok(count(done) / begun.elapsed().as_secs_f64())
}
