//! Getting at the text of configuration files, carefully.
//!
//! A file here says who may act as whom, so it must be a plain file that
//! nobody but root and the daemon's own user can change, of sane size, in
//! UTF-8. Nothing waits: a FIFO in place of the file is refused, not read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::{Error, Place};
use super::tree::{Format, position};

/// Largest file accepted.
const SIZE_MAX: u64 = 1 << 20;
/// Longest path the system knows.
const PATH_MAX: usize = 4096;
/// Write permission of group and others.
const WRITABLE: u32 = 0o022;
/// Read permission of others.
const READABLE: u32 = 0o004;
/// A directory where everybody may write, but only owners remove.
const STICKY: u32 = 0o1000;

/// A file that was read.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// As it was named.
    pub(super) path: PathBuf,
    /// By its ending.
    pub(super) format: Format,
    /// All of it.
    pub(super) text: String,
    /// Whether everybody may read it.
    pub(super) open: bool,
}

/// Reads a file; nothing when there is none.
pub(super) fn read(path: &Path, uid: u32) -> Result<Option<Source>, Error> {
    let refuse = |message: String| Error::new(at(path, None), message);
    if path.as_os_str().len() > PATH_MAX {
        return Err(refuse(format!("the path is longer than {PATH_MAX} bytes")));
    }
    let mut file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
    {
        Ok(file) => file,
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() =>
        {
            return Ok(None);
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(refuse(format!("cannot open: {error}")).suggest(Some(
                "the daemon reads it as its own user: `chmod a+r`".to_owned(),
            )));
        }
        Err(error) => return Err(refuse(format!("cannot open: {error}"))),
    };
    let open = judge(path, &file, uid)?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file)
        .take(SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(format!("cannot read: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > SIZE_MAX {
        return Err(refuse("is larger than 1MiB".to_owned()));
    }
    let text = decode(path, bytes)?;
    let yaml = path
        .extension()
        .is_some_and(|ending| ending == "yml" || ending == "yaml");
    let format = if yaml { Format::Yaml } else { Format::Toml };
    Ok(Some(Source {
        path: path.to_owned(),
        format,
        text,
        open,
    }))
}

/// The drop-ins of a directory in the order of their names, and notes about
/// what was left out.
pub(super) fn drop_ins(directory: &Path, uid: u32) -> Result<(Vec<Source>, Vec<String>), Error> {
    let refuse =
        |error: io::Error| Error::new(at(directory, None), format!("cannot list: {error}"));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((Vec::new(), Vec::new()));
        }
        Err(error) => return Err(refuse(error)),
    };
    let (mut paths, mut notes) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry.map_err(refuse)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|ending| ending == "toml") {
            paths.push(path);
        } else {
            notes.push(format!(
                "{} is ignored: only *.toml is read here",
                path.display()
            ));
        }
    }
    paths.sort();
    notes.sort();
    let mut sources = Vec::new();
    for path in paths {
        let source = read(&path, uid)?
            .ok_or_else(|| Error::new(at(&path, None), "disappeared while it was read"))?;
        sources.push(source);
    }
    Ok((sources, notes))
}

fn at(path: &Path, position: Option<(usize, usize)>) -> Place {
    Place::File {
        path: path.to_owned(),
        position,
    }
}

/// Refuses what is not a plain file, and what strangers can change. Says
/// whether they can read it.
fn judge(path: &Path, file: &File, uid: u32) -> Result<bool, Error> {
    let refuse = |message: String| Error::new(at(path, None), message);
    let status = file
        .metadata()
        .map_err(|error| refuse(format!("cannot look at it: {error}")))?;
    if !status.is_file() {
        let kind = if status.is_dir() {
            "a directory"
        } else {
            "a device, pipe or socket"
        };
        return Err(refuse(format!("is {kind}, not a file")));
    }
    if status.uid() != 0 && status.uid() != uid {
        let owner = status.uid();
        return Err(refuse(format!(
            "belongs to user {owner}, neither to root nor to the user this runs as"
        ))
        .suggest(Some(format!("chown root {}", path.display()))));
    }
    if status.mode() & WRITABLE != 0 {
        let mode = status.mode() & 0o7777;
        return Err(
            refuse(format!("can be changed by others (mode {mode:04o})"))
                .suggest(Some(format!("chmod go-w {}", path.display()))),
        );
    }
    let open = status.mode() & READABLE != 0;
    // Who may replace the file may as well write it. The directory counts
    // that the file is really in, not that of a link to it.
    let real =
        fs::canonicalize(path).map_err(|error| refuse(format!("cannot find it: {error}")))?;
    let Some(directory) = real.parent() else {
        return Ok(open);
    };
    let status = fs::metadata(directory)
        .map_err(|error| refuse(format!("cannot look at {}: {error}", directory.display())))?;
    if status.mode() & 0o002 != 0 && status.mode() & STICKY == 0 {
        return Err(refuse(format!(
            "can be replaced by everybody: {} is writable for all",
            directory.display()
        ))
        .suggest(Some(format!("chmod o-w {}", directory.display()))));
    }
    Ok(open)
}

/// Bytes as text, or the place where they are none.
fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, Error> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(
            Error::new(at(path, Some((1, 1))), "begins with a byte order mark")
                .suggest(Some("save it as UTF-8 without one".to_owned())),
        );
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]);
        Error::new(at(path, Some(position(&before, valid))), "is not UTF-8")
    })?;
    if let Some(nul) = text.find('\0') {
        return Err(Error::new(
            at(path, Some(position(&text, nul))),
            "contains a NUL byte",
        ));
    }
    // Not even a comment: what a full disk or a broken copy leaves behind. To
    // go on would be to go on without the limits somebody had written down.
    if text.trim().is_empty() {
        return Err(Error::new(at(path, None), "is empty").suggest(Some(
            "remove it, or fill it from `taskdaemon config default`".to_owned(),
        )));
    }
    Ok(text)
}
