//! Where this process is in the cgroup hierarchy, and whether attempts can get
//! groups of their own below it.
//!
//! Decided once, at the start: in a group that systemd delegated, or that
//! holds nobody but the runner, it moves into a leaf and attempts become that
//! leaf's neighbours. Anywhere else nothing is made, unless cgroups are
//! required. Uses `cgroup.rs`; knows no attempts.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cgroup::Base;
use super::{CgroupMode, sys};

/// Name of the runner's own leaf below the delegated group.
const OWN_LEAF: &str = "runner";

/// Finds or makes the group to work below. `None`: do without.
///
/// # Errors
/// Only with [`CgroupMode::Require`]: why it cannot be had.
pub(super) fn find(mode: CgroupMode) -> io::Result<Option<Base>> {
    let found = match mode {
        CgroupMode::Off => return Ok(None),
        CgroupMode::Auto | CgroupMode::Require => Place::ours(),
    };
    let place = match (found, mode) {
        (Ok(place), _) => place,
        (Err(error), CgroupMode::Require) => return Err(error),
        (Err(error), _) => {
            tracing::info!(%error, "no cgroup v2 here");
            return Ok(None);
        }
    };
    let base = if place.delegated() {
        place.take()
    } else if mode == CgroupMode::Require {
        place.make_below()
    } else {
        tracing::info!(group = %place.shown, "own cgroup is not delegated: attempts get process groups");
        return Ok(None);
    };
    match (base, mode) {
        (Ok(base), _) => Ok(Some(base)),
        (Err(error), CgroupMode::Require) => Err(error),
        (Err(error), _) => {
            tracing::warn!(%error, group = %place.shown, "cannot use own cgroup: attempts get process groups");
            Ok(None)
        }
    }
}

/// Where this process is in the hierarchy.
struct Place {
    path: PathBuf,
    shown: String,
}

impl Place {
    fn ours() -> io::Result<Self> {
        let shown = fs::read_to_string("/proc/self/cgroup")?
            .lines()
            .find_map(|line| line.strip_prefix("0::").map(ToOwned::to_owned))
            .ok_or_else(|| io::Error::other("this process is in no cgroup v2 group"))?;
        let (mount, root) = mount(&fs::read_to_string("/proc/self/mountinfo")?)
            .ok_or_else(|| io::Error::other("cgroup v2 is not mounted"))?;
        let below = Path::new(&shown)
            .strip_prefix(&root)
            .map_err(|_| io::Error::other("own cgroup is outside what is mounted"))?;
        Ok(Self {
            path: mount.join(below),
            shown,
        })
    }

    /// Whether the group is this runner's to divide: systemd says so in an
    /// attribute, or no other process is in it (as in a fresh unit). In a
    /// delegated unit's leaf, the unit is meant.
    fn delegated(&self) -> bool {
        if self.shown == "/" {
            return false;
        }
        marked(&self.path) || self.alone() || (self.in_leaf() && self.parent_marked())
    }

    fn alone(&self) -> bool {
        let pid = std::process::id().to_string();
        fs::read_to_string(self.path.join("cgroup.procs")).is_ok_and(|procs| procs.trim() == pid)
    }

    fn in_leaf(&self) -> bool {
        self.path.file_name().is_some_and(|name| name == OWN_LEAF)
    }

    fn parent_marked(&self) -> bool {
        self.path.parent().is_some_and(marked)
    }

    /// Moves this process into a leaf and hands the controllers down.
    fn take(&self) -> io::Result<Base> {
        if self.in_leaf()
            && self.parent_marked()
            && let (Some(path), Some(shown)) = (self.path.parent(), Path::new(&self.shown).parent())
        {
            return Base::open(path.to_owned(), shown.display().to_string(), false);
        }
        let leaf = self.path.join(OWN_LEAF);
        make(&leaf)?;
        fs::write(leaf.join("cgroup.procs"), "0")?;
        let base = Base::open(self.path.clone(), self.shown.clone(), false)?;
        base.clean();
        Ok(base)
    }

    /// Makes a group for this runner alone, which itself stays outside.
    fn make_below(&self) -> io::Result<Base> {
        let name = format!("taskdaemon-{}", std::process::id());
        let path = self.path.join(&name);
        make(&path)?;
        let shown = Path::new(&self.shown).join(&name);
        Base::open(path, shown.display().to_string(), true)
    }
}

/// Makes a group and sees that it can be killed as a whole (Linux 5.14).
fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::metadata(path.join("cgroup.kill")).map(drop)
}

/// Whether systemd marked a group as delegated. `trusted.` can be read by
/// privileged processes only.
fn marked(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_encoded_bytes()) else {
        return false;
    };
    [c"user.delegate", c"trusted.delegate"]
        .into_iter()
        .any(|name| sys::attribute(&path, name).is_some_and(|value| value.starts_with(b"1")))
}

/// Mount point and root of the cgroup2 file system, from `mountinfo`.
pub(super) fn mount(mountinfo: &str) -> Option<(PathBuf, PathBuf)> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        if back.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = front.split(' ').skip(3);
        let root = fields.next()?;
        let point = fields.next()?;
        Some((PathBuf::from(point), PathBuf::from(root)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount_among_others() {
        let text = "24 1 0:22 / /sys rw - sysfs sysfs rw\n\
            31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let found = mount(text);
        assert_eq!(
            found,
            Some((PathBuf::from("/sys/fs/cgroup/unified"), PathBuf::from("/")))
        );
        assert_eq!(mount("24 1 0:22 / /sys rw - sysfs sysfs rw\n"), None);
    }
}
