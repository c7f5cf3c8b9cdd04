//! A file that exists to be given up: when the disk is full, freeing it leaves
//! room to record how the running tasks ended.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;

use super::Error;

fn path(dir: &Path) -> PathBuf {
    dir.join("ballast")
}

/// Makes sure the ballast of `size` bytes is there, if the disk has at least
/// twice that to spare; otherwise leaves things as they are.
///
/// # Errors
/// The file cannot be made.
pub fn keep(dir: &Path, size: u64) -> Result<(), Error> {
    let path = path(dir);
    let failed = |act| {
        let path = path.clone();
        move |source: std::io::Error| Error::File { act, path, source }
    };
    let have = fs::symlink_metadata(&path)
        .map(|meta| meta.len())
        .unwrap_or(0);
    if have >= size {
        return Ok(());
    }
    let here = File::open(dir).map_err(failed("open the directory of"))?;
    let disk = fstatvfs(&here)
        .map_err(std::io::Error::from)
        .map_err(failed("measure"))?;
    if disk.blocks_available().saturating_mul(disk.fragment_size()) < size.saturating_mul(2) {
        return Ok(());
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed("open"))?;
    failpoint!("store/ballast/made");
    let length = i64::try_from(size).unwrap_or(i64::MAX);
    fallocate(&file, FallocateFlags::empty(), 0, length)
        .map_err(std::io::Error::from)
        .map_err(failed("reserve space for"))
}

/// Gives the ballast up. Returns whether there was any.
#[must_use]
pub fn release(dir: &Path) -> bool {
    fs::remove_file(path(dir)).is_ok()
}
