//! One cgroup per attempt, below the group that systemd delegated.
//!
//! Finds out whether that is possible here, makes and limits groups, kills
//! them as a whole, reads what they used and removes them. Every path is
//! relative to one open directory, and every name is made here from numbers.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::protocol::Abilities;
use super::sys;
use crate::model::attempt::{AttemptKey, Limits};

/// Name of the runner's own leaf below the delegated group.
const OWN_LEAF: &str = "runner";
/// Period of CPU limits, in microseconds: the kernel's default.
const CPU_PERIOD: u64 = 100_000;
/// Deepest nesting of groups a task (running as root) may have made.
const DEPTH_MAX: usize = 32;

/// Whether attempts get cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupMode {
    /// Where the runner's own group is delegated to it, or holds it alone.
    #[default]
    Auto,
    /// Always; below a group made for this runner where none is delegated.
    /// Not to start without.
    Require,
    /// Never.
    Off,
}

/// The group attempts live below.
#[derive(Debug)]
pub(super) struct Base {
    dir: OwnedFd,
    path: PathBuf,
    /// Path below the cgroup root, as `/proc/PID/cgroup` shows it.
    shown: String,
    /// Made by this runner, to be removed by it.
    own: bool,
    controllers: Controllers,
}

#[derive(Debug, Clone, Copy, Default)]
struct Controllers {
    cpu: bool,
    memory: bool,
    pids: bool,
}

/// What the kernel counted for an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) cpu_micros: Option<u64>,
    pub(super) memory_peak: Option<u64>,
    pub(super) oom: bool,
}

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
fn mount(mountinfo: &str) -> Option<(PathBuf, PathBuf)> {
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

/// Name of an attempt's group.
pub(super) fn name(key: AttemptKey) -> String {
    format!("task-{}-{}", key.task, key.number)
}

impl Base {
    fn open(path: PathBuf, shown: String, own: bool) -> io::Result<Self> {
        let dir = open(
            &path,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let there = fs::read_to_string(path.join("cgroup.controllers"))?;
        for controller in there.split_whitespace() {
            if matches!(controller, "cpu" | "memory" | "pids") {
                let handed = fs::write(
                    path.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
                if let Err(error) = handed {
                    tracing::warn!(controller, %error, "cannot hand a cgroup controller down");
                }
            }
        }
        let handed = fs::read_to_string(path.join("cgroup.subtree_control"))?;
        let has = |name| handed.split_whitespace().any(|word| word == name);
        Ok(Self {
            controllers: Controllers {
                cpu: has("cpu"),
                memory: has("memory"),
                pids: has("pids"),
            },
            dir,
            path,
            shown,
            own,
        })
    }

    /// Opens again, after a renewal, what `saved` named.
    pub(super) fn reopen(saved: Saved) -> io::Result<Self> {
        Self::open(saved.path, saved.shown, saved.own)
    }

    pub(super) fn saved(&self) -> Saved {
        Saved {
            path: self.path.clone(),
            shown: self.shown.clone(),
            own: self.own,
        }
    }

    pub(super) fn tell(&self, abilities: &mut Abilities) {
        abilities.cgroup = true;
        abilities.cpu = self.controllers.cpu;
        abilities.memory = self.controllers.memory;
        abilities.pids = self.controllers.pids;
    }

    /// Path of an attempt's group as `/proc/PID/cgroup` shows it.
    pub(super) fn shown(&self, name: &str) -> String {
        Path::new(&self.shown).join(name).display().to_string()
    }

    /// Makes an attempt's group with its limits; gives its directory.
    pub(super) fn create(&self, name: &str, limits: &Limits) -> io::Result<OwnedFd> {
        match mkdirat(&self.dir, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {}
            // Left by a runner that was killed; nobody of this life is in it.
            Err(Errno::EEXIST) => {
                self.kill(name);
                self.remove(name)?;
                mkdirat(&self.dir, name, Mode::from_bits_truncate(0o755))?;
            }
            Err(error) => return Err(error.into()),
        }
        let made = openat(
            &self.dir,
            name,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(io::Error::from)
        .and_then(|dir| limit(&dir, limits).map(|()| dir));
        if made.is_err() {
            self.remove(name).ok();
        }
        made
    }

    /// Ends every process of a group, and of the groups below it, at once.
    pub(super) fn kill(&self, name: &str) {
        match write_at(&self.dir, &format!("{name}/cgroup.kill"), "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(group = name, %error, "cannot kill a cgroup");
            }
            _ => {}
        }
    }

    /// Processes of a group and of the groups below it.
    pub(super) fn members(&self, name: &str) -> Vec<i32> {
        let mut pids = Vec::new();
        self.walk(name, DEPTH_MAX, &mut |group| {
            let procs = read_at(&self.dir, &format!("{group}/cgroup.procs")).unwrap_or_default();
            pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
        });
        pids
    }

    /// What a group used so far.
    pub(super) fn counted(&self, name: &str) -> Counted {
        let read = |file: &str| read_at(&self.dir, &format!("{name}/{file}")).unwrap_or_default();
        let memory = self.controllers.memory;
        Counted {
            cpu_micros: field(&read("cpu.stat"), "usage_usec"),
            memory_peak: memory
                .then(|| read("memory.peak").trim().parse().ok())
                .flatten(),
            oom: memory && field(&read("memory.events"), "oom_kill").is_some_and(|n| n > 0),
        }
    }

    /// Removes an empty group, and empty ones below it. An error of the kind
    /// `ResourceBusy` says that somebody is still inside.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.dir, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EBUSY) => {
                let mut groups = Vec::new();
                self.walk(name, DEPTH_MAX, &mut |group| groups.push(group.to_owned()));
                if groups.len() == 1 {
                    return Err(Errno::EBUSY.into());
                }
                for group in groups.iter().rev() {
                    unlinkat(&self.dir, group.as_str(), UnlinkatFlags::RemoveDir)?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a process is left in a group or below it; true if unknown.
    pub(super) fn populated(&self, name: &str) -> bool {
        match read_at(&self.dir, &format!("{name}/cgroup.events")) {
            Ok(events) => field(&events, "populated") != Some(0),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Ends what a runner that was killed left behind: its attempts are lost,
    /// and nobody else would end their processes.
    fn clean(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return;
        };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            if let Some(name) = name.to_str().filter(|name| name.starts_with("task-")) {
                tracing::warn!(group = name, "ending what an earlier runner left");
                self.kill(name);
                self.remove(name).ok();
            }
        }
    }

    /// Visits a group and those below it, outermost first.
    fn walk(&self, name: &str, depth: usize, visit: &mut impl FnMut(&str)) {
        visit(name);
        let Ok(entries) = fs::read_dir(self.path.join(name)) else {
            return;
        };
        for entry in entries.filter_map(Result::ok) {
            let is_group = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let (true, Some(child), true) = (is_group, entry.file_name().to_str(), depth > 0) {
                self.walk(&format!("{name}/{child}"), depth - 1, visit);
            }
        }
    }

    /// Removes the base, if this runner made it.
    pub(super) fn leave(&self) {
        if self.own
            && let Err(error) = fs::remove_dir(&self.path)
        {
            tracing::warn!(group = %self.shown, %error, "cannot remove own cgroup");
        }
    }
}

/// A base, over a renewal.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Saved {
    path: PathBuf,
    shown: String,
    own: bool,
}

/// Writes the limits that are asked for.
fn limit(dir: &OwnedFd, limits: &Limits) -> io::Result<()> {
    if let Some(bytes) = limits.memory {
        write_at(dir, "memory.max", &bytes.to_string())?;
        write_at(dir, "memory.oom.group", "1")?;
        match write_at(dir, "memory.swap.max", "0") {
            // Without swap accounting there is no such file, and no such limit.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if let Some(milli) = limits.cpu_milli {
        let quota = u64::from(milli).saturating_mul(CPU_PERIOD / 1000).max(1000);
        write_at(dir, "cpu.max", &format!("{quota} {CPU_PERIOD}"))?;
    }
    if let Some(pids) = limits.pids {
        write_at(dir, "pids.max", &pids.to_string())?;
    }
    Ok(())
}

/// The number behind a word, in the kernel's `word number` lines.
fn field(lines: &str, word: &str) -> Option<u64> {
    lines.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == word).then(|| value.parse().ok()).flatten()
    })
}

fn read_at(dir: impl AsFd, name: &str) -> io::Result<String> {
    let fd = openat(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text)?;
    Ok(text)
}

fn write_at(dir: impl AsFd, name: &str, text: &str) -> io::Result<()> {
    let fd = openat(dir, name, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    File::from(fd).write_all(text.as_bytes())
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

    #[test]
    fn reads_the_kernels_counters() {
        let text = "usage_usec 1234\nuser_usec 1000\n";
        assert_eq!(field(text, "usage_usec"), Some(1234));
        assert_eq!(field(text, "usage"), None);
        assert_eq!(field("usage_usec x", "usage_usec"), None);
    }
}
