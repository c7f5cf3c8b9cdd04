//! Whether a state directory can be written to, found out by doing it: a file
//! without a name is written, brought to the disk, and is gone again.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Error;

/// What is written: a page of the database.
const PAGE: [u8; 4096] = [0x5a; 4096];

/// Writes a file to `dir`, waits until it is on disk, and leaves nothing of it.
///
/// # Errors
/// What could not be done.
pub fn write(dir: &Path) -> Result<(), Error> {
    let failed = |act| {
        move |source| Error::File {
            act,
            path: dir.to_owned(),
            source,
        }
    };
    let mut file = OpenOptions::new()
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(dir)
        .map_err(failed("make a file in"))?;
    file.write_all(&PAGE).map_err(failed("write a file in"))?;
    file.sync_all()
        .map_err(failed("bring to the disk a file in"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_leaves_nothing() {
        let dir = tempfile::tempdir().expect("directory");
        write(dir.path()).expect("written");
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
        let gone = dir.path().join("gone");
        let error = write(&gone).expect_err("there is no such directory");
        assert!(error.to_string().contains("make a file in"), "{error}");
    }
}
