//! The lock that keeps a second daemon out of a state directory.
//!
//! An open file description lock on a file that is never deleted: it ends with
//! the process, however that ends, and cannot be held by two.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Error;

/// Holds a state directory for as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `dir`, at once or not at all.
    ///
    /// # Errors
    /// Another process holds it, others may look into the directory, or the
    /// file cannot be opened.
    pub fn take(dir: &Path) -> Result<Self, Error> {
        super::open::check_dir(dir)?;
        let path = dir.join("lock");
        let failed = |act| {
            let path = path.clone();
            move |source| Error::File { act, path, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                let why = format!(
                    "another taskdaemon (pid {}) uses this state directory; stop it first",
                    holder.trim()
                );
                return Err(Error::Unusable {
                    path: dir.to_owned(),
                    why,
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::File {
                    act: "lock",
                    path,
                    source,
                });
            }
        }
        // For people and messages only; nothing trusts what it says, and a full
        // disk is no reason not to start.
        let _unwritten = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .is_err();
        failpoint!("store/lock/taken");
        Ok(Self { _file: file })
    }
}
