//! What a supervisor writes down beside its pid file, for `status`.
//!
//! It is believed only while the pid file is held by the process it names.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::time::Time;

/// How things are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The supervisor.
    pub pid: u32,
    /// Whether a daemon that ends is started again.
    pub heal: bool,
    /// Restarts since it began.
    pub restarts: u64,
    /// What the daemon does.
    pub phase: Phase,
}

/// What a supervised daemon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It was started and is not ready.
    Starting,
    /// It serves.
    Running,
    /// It ended, and is started again then.
    Waiting {
        /// When.
        until: Time,
        /// After too many restarts in a row.
        cool_off: bool,
    },
}

impl Record {
    /// The file that belongs to a pid file.
    #[must_use]
    pub fn beside(pid_file: &Path) -> PathBuf {
        pid_file.with_extension("supervisor")
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// The system refuses.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let fresh = path.with_extension("supervisor.new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&fresh)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(serde_json::to_string(self)?.as_bytes())?;
        fs::rename(&fresh, path)
    }

    /// What is written there, if it can be read.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Removes it; that it is not there is fine.
    pub fn remove(path: &Path) {
        let _gone = fs::remove_file(path).is_err();
    }
}
