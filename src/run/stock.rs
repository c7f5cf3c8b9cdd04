//! Capture files made ahead: files without a name, which get one at a launch.
//!
//! Making a file can take a millisecond and more where the file system has
//! much to look through; giving one a name does not. So the making is done when
//! there is nothing to launch, or few are left.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

/// Files kept ready: enough for a burst of starts, few enough to cost nothing.
const READY: usize = 8;

/// The files that are ready.
pub(super) struct Stock {
    dir: PathBuf,
    files: Vec<File>,
    /// Not where the file system knows no files without names.
    possible: bool,
}

impl Stock {
    /// An empty stock for files below `dir`.
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            files: Vec::new(),
            possible: true,
        }
    }

    /// Whether there may soon be none.
    pub(super) const fn is_low(&self) -> bool {
        self.possible && self.files.len() < READY / 2
    }

    /// Makes what has been used up.
    pub(super) fn fill(&mut self) {
        while self.possible && self.files.len() < READY {
            let made = OpenOptions::new()
                .write(true)
                .mode(0o600)
                .custom_flags(libc::O_TMPFILE)
                .open(&self.dir);
            match made {
                Ok(file) => self.files.push(file),
                Err(_) => self.possible = false,
            }
        }
    }

    /// The file of this name: one of the stock, or else a new one, or the one
    /// that a launch before this made.
    pub(super) fn file(&mut self, name: &str) -> io::Result<File> {
        let path = &self.dir.join(name);
        if let Some(file) = self.files.pop() {
            let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
            let name = |unnamed: &str| {
                linkat(
                    AT_FDCWD,
                    unnamed,
                    AT_FDCWD,
                    path,
                    AtFlags::AT_SYMLINK_FOLLOW,
                )
            };
            if name(&unnamed).is_ok() || (folder(path).is_ok() && name(&unnamed).is_ok()) {
                return Ok(file);
            }
        }
        open(path).or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            folder(path)?;
            open(path)
        })
    }
}

fn folder(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        // The runner empties it, and only if it begins the attempt: a launch
        // that is repeated must not empty the file of one that runs.
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_of_the_stock_is_the_file_at_its_path_and_a_second_launch_finds_it() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("0/1.1");
        let mut stock = Stock::new(dir.path().to_owned());
        stock.fill();
        let mut first = stock.file("0/1.1").expect("file");
        first.write_all(b"kept").expect("write");
        drop(stock.file("0/1.1").expect("the same again"));
        assert_eq!(fs::read(&path).expect("read"), b"kept");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn without_a_stock_files_are_made_as_they_are_needed() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("0/2.1");
        drop(
            Stock::new(dir.path().to_owned())
                .file("0/2.1")
                .expect("file"),
        );
        assert!(path.is_file());
    }
}
