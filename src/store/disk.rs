//! How much room the state directory has left, and what that allows.
//!
//! Where the daemon's user has a quota, the room is what that leaves.
//!
//! Two marks. Below the upper one new work is turned away while everything
//! that was accepted goes on. Below the lower one nothing is written at all: a
//! commit that fails half-way costs a restart, and the next one would fail
//! again. The same goes for a file system that was made read-only.
//!
//! Beside it, how long the write-ahead log has become: it cannot be cut back
//! while another program reads on in the database, and would fill the disk.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, fstatvfs, statvfs};

use super::open::FILE;
use super::options::Options;
use super::quota::{self, Space};
use super::{Error, ballast};

/// Room that one turn of the engine needs at most when nothing new comes in.
const TURN: u64 = 4 << 20;
/// On a small file system the marks are these parts of it.
const LOW_PART: u64 = 20;
const TURN_PART: u64 = 64;
/// The log is too long at so many times the size it is cut back to: one large
/// transaction may make it longer than that for a moment.
const LOG_TIMES: u64 = 2;

/// What the room that is left allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Everything.
    Ample,
    /// What was accepted goes on; nothing new is accepted.
    Low(Shortage),
    /// Nothing may be written.
    None(Shortage),
    /// Nothing can be written: the file system is mounted read-only.
    ReadOnly,
}

/// Too little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes that are free.
    pub free: u64,
    /// Bytes that have to be.
    pub mark: u64,
}

/// The write-ahead log.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    /// The same, open, once it is there: SQLite keeps it while it is at work.
    file: Option<File>,
    /// The size it is cut back to.
    limit: u64,
}

/// Watches the disk under a state directory.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    /// The same, open: looking takes no descriptor, of which there may be none left.
    here: File,
    log: Log,
    low_water: u64,
    ballast: u64,
    /// The ballast was given up: new work has to wait until it can be there
    /// again, or it would fill the room that was made for the old.
    given_up: bool,
    /// There was too little room when it was last looked at.
    short: bool,
}

impl Disk {
    /// The disk under `dir`.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, Error> {
        let here = File::open(dir).map_err(|source| Error::File {
            act: "open",
            path: dir.to_owned(),
            source,
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            here,
            log: Log {
                path: dir.join(format!("{FILE}-wal")),
                file: None,
                limit: options.wal_limit.bytes(),
            },
            low_water: options.low_water.bytes(),
            ballast: options.ballast.bytes(),
            given_up: false,
            short: false,
        })
    }

    /// Looks at the disk. Where nothing may be written any more, the ballast is
    /// given up first; where there is room again, it is made anew.
    ///
    /// # Errors
    /// The disk cannot be measured.
    pub fn look(&mut self) -> Result<Room, Error> {
        match self.measure()? {
            Room::None(_) if ballast::release(&self.dir) => {
                (self.short, self.given_up) = (true, true);
                self.measure()
            }
            Room::Ample if self.short => {
                ballast::keep(&self.dir, self.ballast)?;
                (self.short, self.given_up) = (false, false);
                Ok(Room::Ample)
            }
            Room::ReadOnly => Ok(Room::ReadOnly),
            room @ (Room::Ample | Room::Low(_) | Room::None(_)) => {
                self.short |= room != Room::Ample;
                Ok(room)
            }
        }
    }

    /// Bytes of the write-ahead log; none where there is no log.
    ///
    /// Found by its end, and not by `stat`: since Linux 6.13, when a file was
    /// asked for its times, the next write sets them more finely, and a sync
    /// after each commit would have to bring them to the disk as well.
    #[must_use]
    pub fn log_bytes(&mut self) -> u64 {
        let Log { path, file, .. } = &mut self.log;
        if file.is_none() {
            *file = File::open(path).ok();
        }
        let end = file.as_mut().map(|log| log.seek(SeekFrom::End(0)));
        end.and_then(Result::ok).unwrap_or_default()
    }

    /// Whether a log of so many bytes is much longer than it should be.
    #[must_use]
    pub const fn is_long(&self, bytes: u64) -> bool {
        bytes > self.log.limit.saturating_mul(LOG_TIMES)
    }

    fn measure(&self) -> Result<Room, Error> {
        let failed = |source: std::io::Error| Error::File {
            act: "measure the disk under",
            path: self.dir.clone(),
            source,
        };
        let disk = fstatvfs(&self.here)
            .map_err(std::io::Error::from)
            .map_err(failed)?;
        // New files go by the path, over which something else may have been mounted.
        let by_path = statvfs(&self.dir).map(|disk| disk.flags());
        if (disk.flags() | by_path.unwrap_or(FsFlags::empty())).contains(FsFlags::ST_RDONLY) {
            return Ok(Room::ReadOnly);
        }
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        let space = Space {
            free: bytes(disk.blocks_available()),
            total: bytes(disk.blocks()),
        };
        let space = quota::within(space, &self.here);
        Ok(judge(
            space.free,
            space.total,
            self.low_water,
            // What it takes to make it again (`ballast::keep`).
            if self.given_up { 2 * self.ballast } else { 0 },
        ))
    }
}

/// What so many free bytes of so many allow, where `more` have to be free for
/// new work.
fn judge(free: u64, total: u64, low_water: u64, more: u64) -> Room {
    let water = low_water.min(total / LOW_PART);
    let turn = TURN.min(water).min(total / TURN_PART);
    let low = water.saturating_add(more);
    if free < turn {
        Room::None(Shortage { free, mark: turn })
    } else if free < low {
        Room::Low(Shortage { free, mark: low })
    } else {
        Room::Ample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn marks_hold_and_are_parts_of_a_small_disk() {
        let big = 1 << 40;
        assert_eq!(judge(64 * MIB, big, 64 * MIB, 0), Room::Ample);
        let low = Shortage {
            free: 64 * MIB - 1,
            mark: 64 * MIB,
        };
        assert_eq!(judge(low.free, big, 64 * MIB, 0), Room::Low(low));
        assert!(matches!(judge(4 * MIB, big, 64 * MIB, 0), Room::Low(_)));
        assert!(matches!(
            judge(4 * MIB - 1, big, 64 * MIB, 0),
            Room::None(_)
        ));
        assert_eq!(judge(8 * MIB, 64 * MIB, 64 * MIB, 0), Room::Ample);
        assert!(matches!(
            judge(2 * MIB, 64 * MIB, 64 * MIB, 0),
            Room::Low(_)
        ));
        let given_up = judge(70 * MIB, big, 64 * MIB, 8 * MIB);
        assert!(
            matches!(given_up, Room::Low(_)),
            "not while the ballast is gone"
        );
        assert_eq!(judge(0, big, 0, 0), Room::Ample, "no marks");
    }

    #[test]
    fn the_log_is_as_long_as_its_file_is_by_now() {
        let dir = tempfile::tempdir().expect("directory");
        let mut disk = Disk::open(dir.path(), &Options::default()).expect("open");
        assert_eq!(disk.log_bytes(), 0, "there is none");
        let path = dir.path().join(format!("{FILE}-wal"));
        for bytes in [3, 4_096, 10] {
            std::fs::write(&path, vec![0; bytes]).expect("write");
            assert_eq!(disk.log_bytes(), u64::try_from(bytes).expect("few"));
        }
    }
}
