//! What a quota leaves of the room that the file system has.
//!
//! The kernel is asked for those of the daemon's user and group. A project's
//! is in the figures of the file system itself, where the directory is the
//! project's. Where there is none, or nobody may ask, nothing is said: then
//! the file system's room is what there is.
#![expect(
    unsafe_code,
    reason = "this kernel call has no wrapper; each block says why it is sound"
)]

use std::os::fd::{AsFd, AsRawFd as _};

use nix::unistd::{getegid, geteuid};

/// Unit of the limits, in bytes.
const BLOCK: u64 = 1 << 10;

/// Whose quota it is, as the kernel numbers the kinds.
const USER: libc::c_int = 0;
const GROUP: libc::c_int = 1;

/// Room of a file system, or of the part of it that one user has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes that are free.
    pub(super) free: u64,
    /// Bytes in all.
    pub(super) total: u64,
}

impl Space {
    /// What is left of it below a limit, of which so much is used.
    fn below(self, limit: u64, used: u64) -> Self {
        Self {
            free: self.free.min(limit.saturating_sub(used)),
            total: self.total.min(limit),
        }
    }
}

/// What the quotas of this process leave of the room on the file system of
/// `place`.
pub(super) fn within(space: Space, place: impl AsFd) -> Space {
    let asked = [(USER, geteuid().as_raw()), (GROUP, getegid().as_raw())];
    asked.into_iter().fold(space, |space, (kind, id)| {
        match ask(place.as_fd(), kind, id) {
            Some(quota) => left(space, &quota),
            None => space,
        }
    })
}

/// The smaller limit counts: above the soft one writing goes on for a while,
/// and then it does not.
fn left(space: Space, quota: &libc::dqblk) -> Space {
    let told = libc::QIF_BLIMITS | libc::QIF_SPACE;
    let limits = [quota.dqb_bhardlimit, quota.dqb_bsoftlimit];
    let limit = limits.into_iter().filter(|blocks| *blocks > 0).min();
    match limit {
        Some(blocks) if quota.dqb_valid & told == told => {
            space.below(blocks.saturating_mul(BLOCK), quota.dqb_curspace)
        }
        Some(_) | None => space,
    }
}

/// The kernel's answer. Each of its errors says that there is nothing to count
/// by: no quotas in this kernel or on this file system, or no right to ask.
fn ask(place: impl AsFd, kind: libc::c_int, id: u32) -> Option<libc::dqblk> {
    // SAFETY: a struct of numbers, of which zero is a value.
    let mut quota: libc::dqblk = unsafe { std::mem::zeroed() };
    let command = libc::QCMD(libc::Q_GETQUOTA, kind);
    // SAFETY: the descriptor is open for the length of the call, which writes
    // one `dqblk` through the pointer.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            place.as_fd().as_raw_fd(),
            command,
            id,
            &raw mut quota,
        )
    };
    (answer == 0).then_some(quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const DISK: Space = Space {
        free: 500 * MIB,
        total: 1_000 * MIB,
    };

    fn quota(hard: u64, soft: u64, used: u64) -> libc::dqblk {
        // SAFETY: a struct of numbers, of which zero is a value.
        let none: libc::dqblk = unsafe { std::mem::zeroed() };
        libc::dqblk {
            dqb_bhardlimit: hard / BLOCK,
            dqb_bsoftlimit: soft / BLOCK,
            dqb_curspace: used,
            dqb_valid: libc::QIF_ALL,
            ..none
        }
    }

    #[test]
    fn the_smallest_of_disk_and_limits_is_what_is_left() {
        let space = |free: u64, total: u64| Space {
            free: free * MIB,
            total: total * MIB,
        };
        for (hard, soft, used, expected) in [
            (0, 0, 300, DISK),
            (100, 0, 30, space(70, 100)),
            (0, 80, 30, space(50, 80)),
            (100, 80, 30, space(50, 80)),
            (100, 80, 90, space(0, 80)),
            (100, 0, 120, space(0, 100)),
            // More than the disk has.
            (5_000, 0, 30, DISK),
            (900, 0, 30, space(500, 900)),
        ] {
            let quota = quota(hard * MIB, soft * MIB, used * MIB);
            assert_eq!(left(DISK, &quota), expected, "{hard} {soft} {used}");
        }
        let most = quota(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(left(DISK, &most).free, 0);
    }

    #[test]
    fn an_answer_without_limits_or_use_is_none() {
        for told in [0, libc::QIF_BLIMITS, libc::QIF_SPACE] {
            let quota = libc::dqblk {
                dqb_valid: told,
                ..quota(MIB, MIB, MIB)
            };
            assert_eq!(left(DISK, &quota), DISK);
        }
    }
}
