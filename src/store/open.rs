//! How the embedded database is opened and set up.
//!
//! `synchronous=FULL` makes a commit durable before it returns; the engine's
//! group commit is what makes that affordable. SQLite is bundled and its
//! version checked, because versions before 3.51.3 can corrupt a write-ahead
//! log that two connections use.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::books::Books;
use super::options::Options;
use super::sqlite::{Sqlite, failed};
use super::{Error, migrate};

/// Oldest SQLite that may be linked.
const SQLITE_MIN: i32 = 3_051_003;

/// File name of the database in the state directory.
pub(super) const FILE: &str = "taskdaemon.db";

/// What SQLite adds to that for its log and the index of it.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

impl Sqlite {
    /// Opens the database of a state directory for writing, making it or
    /// bringing it up to date where needed.
    ///
    /// # Errors
    /// The file is not one we may use, or the database refused.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, Error> {
        let path = dir.join(FILE);
        check_file(&path)?;
        for beside in BESIDE {
            let path = dir.join(format!("{FILE}{beside}"));
            if path.symlink_metadata().is_ok() {
                check_file(&path)?;
            }
        }
        failpoint!("store/open/checked");
        if rusqlite::version_number() < SQLITE_MIN {
            let why = format!(
                "SQLite {} is linked, and versions before 3.51.3 can damage it; \
                 rebuild with the bundled SQLite",
                rusqlite::version()
            );
            return Err(Error::Unusable { path, why });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut connection =
            Connection::open_with_flags(&path, flags).map_err(failed("open the file"))?;
        // A file that is refused stays as it is, and so does its log: SQLite
        // would write that back when the connection is closed.
        keep_log(&connection, true).map_err(failed("set up the connection"))?;
        migrate::inspect(&connection, &path)?;
        keep_log(&connection, false).map_err(failed("set up the connection"))?;
        settle(&connection, options).map_err(failed("set up the connection"))?;
        failpoint!("store/open/settled");
        migrate::migrate(&mut connection, &path)?;
        failpoint!("store/checkpoint/before");
        settle_log(&connection)?;
        failpoint!("store/checkpoint/after");
        sync_dir(dir)?;
        Self::with(connection, path)
    }

    /// Opens the database of a state directory for reading only.
    ///
    /// # Errors
    /// The database refused.
    pub fn open_reader(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let connection = Self::connect_reader(&path)?;
        Self::with(connection, path)
    }

    /// A connection to a database for reading only, whatever is in it.
    pub(super) fn connect_reader(path: &Path) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection =
            Connection::open_with_flags(path, flags).map_err(failed("open the file"))?;
        connection
            .busy_timeout(Duration::from_secs(5))
            .map_err(failed("set up the connection"))?;
        connection
            .pragma_update(None, "mmap_size", 0)
            .map_err(failed("set up the connection"))?;
        connection.set_prepared_statement_cache_capacity(128);
        stable_plans(&connection).map_err(failed("set up the connection"))?;
        Ok(connection)
    }

    fn with(connection: Connection, path: PathBuf) -> Result<Self, Error> {
        let inode = std::fs::metadata(&path)
            .map_err(|source| Error::File {
                act: "inspect",
                path: path.clone(),
                source,
            })?
            .ino();
        let books = Books::open(&connection)?;
        let draining = draining(&connection).map_err(failed("read the queues"))?;
        Ok(Self {
            connection,
            path,
            inode,
            queues: HashMap::new(),
            draining,
            books,
        })
    }

    /// Whether the file behind the connection is still the one in the
    /// directory. One that was moved or replaced takes commits into the void.
    pub(super) fn check_place(&self) -> Result<(), Error> {
        if std::fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            return Ok(());
        }
        Err(Error::Unusable {
            path: self.path.clone(),
            why: "the file was moved or replaced while it was in use, and what is saved now is \
                  not in it; put the right one there and start again"
                .to_owned(),
        })
    }
}

/// Writes what the log holds into the database file, and syncs it. The life
/// before may have ended at a failed sync: then the log's last pages are in
/// memory only, the kernel takes them for written, and no later sync of the
/// log would write them. What is answered from them has to be on disk.
fn settle_log(connection: &Connection) -> Result<(), Error> {
    let settled = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        row.get::<_, i64>(0)
    });
    match settled {
        Ok(_) => Ok(()),
        // On a full disk the log stays as it is; there is work to end.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => Ok(()),
        Err(error) => Err(failed("write the log back")(error)),
    }
}

/// Refuses a directory in which someone else could put files. A link to it is
/// an administrator's, and fine.
pub(super) fn check_dir(dir: &Path) -> Result<(), Error> {
    let meta = std::fs::metadata(dir).map_err(|source| Error::File {
        act: "inspect",
        path: dir.to_owned(),
        source,
    })?;
    let unusable = |why: &str| Error::Unusable {
        path: dir.to_owned(),
        why: why.to_owned(),
    };
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(unusable(
            "it belongs to another user; give it to the daemon's user",
        ));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(unusable("others may look into it; make its mode 0700"));
    }
    Ok(())
}

/// Refuses files that someone else may have prepared.
fn check_file(path: &Path) -> Result<(), Error> {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return make_file(path);
    };
    let unusable = |why: &str| Error::Unusable {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    if !meta.is_file() {
        return Err(unusable("it is not a regular file; move it away"));
    }
    if meta.nlink() != 1 {
        return Err(unusable(
            "it has more than one name (hard link); remove the others",
        ));
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(unusable(
            "it belongs to another user; give it to the daemon's user",
        ));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(unusable("others may read or write it; make its mode 0600"));
    }
    Ok(())
}

/// SQLite would make the file readable for others; its log and index take
/// their mode from it.
fn make_file(path: &Path) -> Result<(), Error> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|source| Error::File {
            act: "make",
            path: path.to_owned(),
            source,
        })
}

/// Names in a directory are durable once the directory is synced.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    std::fs::File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(|source| Error::File {
            act: "sync",
            path: dir.to_owned(),
            source,
        })
}

/// Queues that take nothing new.
fn draining(connection: &Connection) -> rusqlite::Result<HashSet<i64>> {
    let mut statement = connection.prepare("SELECT id FROM queue WHERE draining = 1")?;
    let ids = statement.query_map([], |row| row.get(0))?;
    ids.collect()
}

fn settle(connection: &Connection, options: &Options) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(
        None,
        "journal_size_limit",
        i64::try_from(options.wal_limit.bytes()).unwrap_or(i64::MAX),
    )?;
    // Checkpoints at 2 MiB instead of 4: a log that begins anew so often stays
    // in the processor's caches, and its file need not grow, which a sync
    // would have to record too.
    connection.pragma_update(None, "wal_autocheckpoint", 500)?;
    connection.set_prepared_statement_cache_capacity(128);
    stable_plans(connection)
}

/// Whether the log is left alone when the connection is closed.
fn keep_log(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
        .map(drop)
}

/// Plans do not depend on bound values. Otherwise SQLite looks at the value of
/// a LIMIT, or of a comparison with an indexed condition, and to be able to do
/// so prepares such a statement anew at every use.
fn stable_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}
