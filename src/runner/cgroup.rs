//! One cgroup per attempt, below the group that systemd delegated.
//!
//! Makes and limits groups, kills them as a whole, reads what they used and
//! removes them. Every path is relative to one open directory, and every name
//! is made here from numbers. Whether there can be such groups at all is found
//! out in `place.rs`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::protocol::Abilities;
use crate::model::attempt::{AttemptKey, Limits};

/// Period of CPU limits, in microseconds: the kernel's default.
const CPU_PERIOD: u64 = 100_000;
/// Deepest nesting of groups a task (running as root) may have made.
const DEPTH_MAX: usize = 32;

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
    /// Groups can be frozen (Linux 5.2).
    freezer: bool,
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

/// Name of an attempt's group.
pub(super) fn name(key: AttemptKey) -> String {
    format!("task-{}-{}", key.task, key.number)
}

/// Name of the group of a process that makes calls.
pub(super) fn name_of_caller(id: u32) -> String {
    format!("calls-{id}")
}

impl Base {
    pub(super) fn open(path: PathBuf, shown: String, own: bool) -> io::Result<Self> {
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
            freezer: path.join("cgroup.freeze").exists(),
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
        abilities.freeze = self.freezer;
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

    /// Freezes every process of a group, and of the groups below it, or thaws
    /// them. The kernel does the one as soon as each process lets it, and
    /// keeps it over whatever becomes of this process.
    pub(super) fn freeze(&self, name: &str, freeze: bool) -> io::Result<()> {
        let word = if freeze { "1" } else { "0" };
        write_at(&self.dir, &format!("{name}/cgroup.freeze"), word)
    }

    /// Whether every process of a group is frozen.
    pub(super) fn frozen(&self, name: &str) -> bool {
        read_at(&self.dir, &format!("{name}/cgroup.events"))
            .is_ok_and(|events| field(&events, "frozen") == Some(1))
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
    pub(super) fn clean(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return;
        };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let is_ours = |name: &&str| name.starts_with("task-") || name.starts_with("calls-");
            if let Some(name) = name.to_str().filter(is_ours) {
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
    fn reads_the_kernels_counters() {
        let text = "usage_usec 1234\nuser_usec 1000\n";
        assert_eq!(field(text, "usage_usec"), Some(1234));
        assert_eq!(field(text, "usage"), None);
        assert_eq!(field("usage_usec x", "usage_usec"), None);
    }
}
