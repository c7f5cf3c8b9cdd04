//! Secrets: read from files and credentials, which not everybody may read.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::{env, io};

use crate::config::error::{Error, Place};

/// Most bytes of a secret.
const MAX: usize = 4096;

/// Who may not have any right to a file with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hidden {
    /// Those that are neither its owner nor of its group may not read it.
    FromEverybody,
    /// Only its owner may do anything: its group is whoever may submit.
    FromGroup,
}

impl Hidden {
    const fn forbids(self) -> (u32, &'static str, &'static str) {
        match self {
            Self::FromEverybody => (0o004, "can be read by everybody", "chmod o-r"),
            Self::FromGroup => (0o077, "is open to others than its owner", "chmod 0600"),
        }
    }
}

/// The file of a credential, where the service manager has put one.
pub(super) fn credential(name: &str) -> Option<PathBuf> {
    let directory = env::var_os("CREDENTIALS_DIRECTORY")?;
    Some(Path::new(&directory).join(name)).filter(|path| path.exists())
}

/// A secret of at least so many bytes from its file, without the end of its
/// last line. `key` is the setting that names it, and `more` says how to come
/// by one.
pub(super) fn read(
    key: &str,
    path: &Path,
    hidden: Hidden,
    least: usize,
    more: &str,
) -> Result<Vec<u8>, Error> {
    let refuse = |what: String| {
        let place = Place::Key(key.to_owned());
        Error::new(place, format!("{}: {what}", path.display()))
    };
    let mut file = OpenOptions::new()
        .read(true)
        // A FIFO in its place is not waited for.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| refuse(format!("cannot open: {error}")))?;
    let status = file
        .metadata()
        .map_err(|error| refuse(format!("cannot look at it: {error}")))?;
    if !status.is_file() {
        return Err(refuse("is not a file".to_owned()));
    }
    let (rights, what, mend) = hidden.forbids();
    if status.mode() & rights != 0 {
        let mend = format!("{mend} {}", path.display());
        return Err(refuse(what.to_owned()).suggest(Some(mend)));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX).unwrap_or(u64::MAX);
    io::Read::by_ref(&mut file)
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(format!("cannot read: {error}")))?;
    while bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        bytes.pop();
    }
    if !(least..=MAX).contains(&bytes.len()) {
        let what = format!("must hold {least} to {MAX} bytes");
        return Err(refuse(what).suggest(Some(more.to_owned())));
    }
    Ok(bytes)
}
