//! Whether a runner of a single attempt can still be there, by its cgroup.
//!
//! The daemon's question after a restart. The group of the attempt itself goes
//! when the attempt has ended, with its runner still waiting to tell; the group
//! above it is the runner's own and lasts exactly as long as it does.

use std::fs;
use std::io;
use std::path::{Component, Path};

use super::place;

/// Whether anyone is left in the group above an attempt's group, given as
/// `/proc/PID/cgroup` shows it. `None`: that cannot be told here.
#[must_use]
pub fn inhabited(group: &str) -> Option<bool> {
    let above = Path::new(group).parent()?;
    let mut parts = above.components();
    // It was told by a runner that nobody has to trust.
    let plain = parts.next() == Some(Component::RootDir)
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && above.parent().is_some();
    if !plain {
        return None;
    }
    let (mount, root) = place::mount(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
    let below = above.strip_prefix(root).ok()?;
    match fs::read_to_string(mount.join(below).join("cgroup.events")) {
        Ok(events) => Some(events.lines().any(|line| line == "populated 1")),
        // Removed, or just being removed.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            Some(false)
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::inhabited;

    #[test]
    fn only_a_plain_path_is_looked_at() {
        for group in ["", "/", "/one", "relative/task", "/a/../b/task-1-1"] {
            assert_eq!(inhabited(group), None, "{group}");
        }
    }

    #[test]
    fn a_group_that_is_not_there_holds_nobody() {
        // Where cgroups cannot be read, nothing can be said.
        assert_ne!(
            inhabited("/no-such.slice/no-such.service/task-1-1"),
            Some(true)
        );
    }
}
