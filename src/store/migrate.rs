//! Which files may be opened, and how an older one is brought up to date.
//!
//! Versions are numbered and go forward only, each step in one transaction. A
//! file of a newer program, or of another one, is refused untouched.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::Error;

/// Marks a file as ours: "tkdm" read as a number.
pub const APPLICATION_ID: i32 = 0x746b_646d;

/// The steps; step `n` leads to version `n + 1`.
const STEPS: [&str; 7] = [
    include_str!("migrations/1.sql"),
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
    include_str!("migrations/4.sql"),
    include_str!("migrations/5.sql"),
    include_str!("migrations/6.sql"),
    include_str!("migrations/7.sql"),
];

/// The version this program writes.
pub const VERSION: usize = STEPS.len();

/// Brings a database to [`VERSION`].
///
/// # Errors
/// The file is not ours, is newer, or a step failed; the file is unchanged
/// then.
pub fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let found = inspect(connection, path)?;
    for (version, step) in STEPS.iter().enumerate().skip(found) {
        apply(connection, version + 1, step).map_err(|source| Error::Database {
            act: "bring the schema up to date",
            source,
        })?;
        failpoint!("store/migrate/after");
    }
    Ok(())
}

/// The version of a file that we may open.
///
/// # Errors
/// The file is not a database, not ours, or newer.
pub fn inspect(connection: &Connection, path: &Path) -> Result<usize, Error> {
    let unusable = |why: String| Error::Unusable {
        path: path.to_owned(),
        why,
    };
    let read = |pragma: &str| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .map_err(|error| match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::NotADatabase) => unusable(
                    "it is not a SQLite database; restore a backup, or move it away".to_owned(),
                ),
                _ => Error::Database {
                    act: "read the version",
                    source: error,
                },
            })
    };
    let tables = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
            row.get::<_, i64>(0)
        })
        .map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                unusable(
                    "it is not a sound SQLite database; restore a backup, or move it away"
                        .to_owned(),
                )
            }
            _ => Error::Database {
                act: "read the schema",
                source: error,
            },
        })?;
    let application = read("application_id")?;
    let version = read("user_version")?;
    if tables == 0 && application == 0 {
        return Ok(0);
    }
    if application != i64::from(APPLICATION_ID) {
        return Err(unusable(
            "it is the database of another program; move it away".to_owned(),
        ));
    }
    match usize::try_from(version) {
        Ok(version) if version <= VERSION => Ok(version),
        _ => Err(unusable(format!(
            "it has schema version {version}, and this program knows only up to {VERSION}; \
             install the newer taskdaemon again"
        ))),
    }
}

fn apply(connection: &mut Connection, version: usize, step: &str) -> rusqlite::Result<()> {
    failpoint!("store/migrate/before");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    transaction.execute_batch(step)?;
    failpoint!("store/migrate/applied");
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(
        None,
        "user_version",
        i64::try_from(version).unwrap_or(i64::MAX),
    )?;
    failpoint!("store/migrate/numbered");
    transaction.commit()
}
