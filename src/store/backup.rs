//! A copy of the database while it is in use: consistent, checked down to the
//! checksums of its rows, and only then under its name.
//!
//! The copy is made on a reading connection of its own, in one transaction, so
//! it is the database as of one commit and holds nobody up.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::migrate::{self, VERSION};
use super::sqlite::{Sqlite, failed};
use super::{Error, open, sound};

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its size.
    pub bytes: u64,
    /// Version of its schema.
    pub version: usize,
    /// Tasks.
    pub tasks: u64,
    /// Attempts.
    pub attempts: u64,
    /// Events.
    pub events: u64,
}

/// Copies the database of the state directory `dir` to `file`, which must not
/// exist, and checks the copy.
///
/// # Errors
/// There is such a file, or no database, or the copy could not be made or is
/// not sound; there is no file then.
pub fn copy(dir: &Path, file: &Path) -> Result<Copied, Error> {
    let unfinished = beside(file);
    let copied = make(dir, &unfinished).and_then(|()| {
        failpoint!("store/backup/copied");
        let copied = check(&unfinished)?;
        failpoint!("store/backup/checked");
        publish(&unfinished, file)?;
        Ok(copied)
    });
    // One that exists and is not ours was not made by `make`, which says so.
    if !matches!(&copied, Err(Error::Unusable { path, .. }) if *path == unfinished) {
        drop(fs::remove_file(&unfinished));
    }
    copied
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}

fn file_error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { act, path, source }
}

fn make(dir: &Path, to: &Path) -> Result<(), Error> {
    let store = Sqlite::open_reader(dir)?;
    migrate::inspect(&store.connection, &store.path)?;
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(to);
    match made {
        Ok(file) => drop(file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Unusable {
                path: to.to_owned(),
                why: "another backup to this name is under way, or was cut off; remove it"
                    .to_owned(),
            });
        }
        Err(error) => return Err(file_error("make", to)(error)),
    }
    let Some(name) = to.to_str() else {
        let why = "its name is not UTF-8; choose another".to_owned();
        return Err(Error::Unusable {
            path: to.to_owned(),
            why,
        });
    };
    store
        .connection
        .execute("VACUUM INTO ?1", [name])
        .map_err(failed("copy"))?;
    File::open(to)
        .and_then(|file| file.sync_all())
        .map_err(file_error("sync", to))
}

/// Reads the whole copy and compares it with what it says of itself.
fn check(path: &Path) -> Result<Copied, Error> {
    let unsound = |why: String| Error::Unusable {
        path: path.with_extension(""),
        why: format!(
            "the copy is not sound ({why}), and so perhaps the database is not: \
             `taskdaemon health --check-db` looks"
        ),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = Connection::open_with_flags(path, flags).map_err(failed("open the copy"))?;
    let version = migrate::inspect(&copy, path)?;
    if version != VERSION {
        return Err(unsound(format!("schema version {version}")));
    }
    let read = failed("read the copy");
    let said: String = copy
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(read)?;
    if said != "ok" {
        return Err(unsound(said));
    }
    let orphan = copy.query_row("PRAGMA foreign_key_check", [], |row| {
        row.get::<_, String>(0)
    });
    match orphan {
        Err(rusqlite::Error::QueryReturnedNoRows) => {}
        Ok(table) => return Err(unsound(format!("a row of {table} belongs to none"))),
        Err(error) => return Err(failed("read the copy")(error)),
    }
    let count = |sql: &str| {
        copy.query_row(sql, [], |row| row.get::<_, u64>(0))
            .map_err(failed("count what was copied"))
    };
    let tasks = count("SELECT count(*) FROM task")?;
    let booked = count("SELECT coalesce(sum(number), 0) FROM book WHERE what < 100")?;
    if tasks != booked {
        return Err(unsound(format!("{tasks} tasks, {booked} in its books")));
    }
    if let Some(fault) = sound::first_damaged(&copy) {
        return Err(unsound(fault.to_string()));
    }
    Ok(Copied {
        bytes: fs::metadata(path)
            .map_err(file_error("measure", path))?
            .len(),
        version,
        tasks,
        attempts: count("SELECT count(*) FROM attempt")?,
        events: count("SELECT count(*) FROM event")?,
    })
}

/// Gives the copy its name, if nothing has it.
fn publish(made: &Path, file: &Path) -> Result<(), Error> {
    match fs::hard_link(made, file) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Unusable {
                path: file.to_owned(),
                why: "it exists, and a backup overwrites nothing; choose another name".to_owned(),
            });
        }
        Err(error) => return Err(file_error("name", file)(error)),
    }
    failpoint!("store/backup/named");
    let here = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    open::sync_dir(here.unwrap_or_else(|| Path::new(".")))
}
