//! What this process takes of what it may take, and how that grows: memory,
//! descriptors, tasks of its runtime.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use crate::model::health::{Level, Part};

/// So many hundredths of a limit are too many.
const NEAR: u64 = 90;

/// What it took when it began to serve.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vitals {
    memory: u64,
    descriptors: u64,
    tasks: u64,
}

impl Vitals {
    /// As of now.
    pub(super) fn begin() -> Self {
        Self {
            memory: memory().unwrap_or_default(),
            descriptors: descriptors().unwrap_or_default(),
            tasks: runtime_tasks().unwrap_or_default(),
        }
    }

    /// The process as a part of the daemon. What the system does not tell is
    /// left out.
    pub(super) fn part(&self) -> Part {
        let mut part = Part::healthy("process");
        if let Some(memory) = memory() {
            part = part
                .with("memory_bytes", memory)
                .with("memory_bytes_at_start", self.memory);
            if let Some(limit) = memory_limit() {
                part = judge(
                    part.with("memory_limit_bytes", limit),
                    "memory",
                    memory,
                    limit,
                );
            }
        }
        if let Some(open) = descriptors() {
            part = part
                .with("descriptors", open)
                .with("descriptors_at_start", self.descriptors);
            if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
                part = judge(
                    part.with("descriptors_limit", limit),
                    "open descriptors",
                    open,
                    limit,
                );
            }
        }
        if let Some(tasks) = runtime_tasks() {
            part = part
                .with("runtime_tasks", tasks)
                .with("runtime_tasks_at_start", self.tasks);
        }
        part
    }
}

fn judge(part: Part, what: &str, taken: u64, limit: u64) -> Part {
    if taken.saturating_mul(100) < limit.saturating_mul(NEAR) {
        return part;
    }
    let why = format!("{what}: {taken} of {limit} that this process may have");
    part.but(Level::Degraded, why, None)
}

/// Bytes that are in memory.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let size = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    pages.checked_mul(u64::try_from(size).ok()?)
}

/// The limit of this process's own control group, where it has one.
fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
    fs::read_to_string(limit).ok()?.trim().parse().ok()
}

/// Tasks of this process's runtime that are not over; none outside of one.
pub(super) fn runtime_tasks() -> Option<u64> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    u64::try_from(runtime.metrics().num_alive_tasks()).ok()
}

fn descriptors() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is what reads.
    u64::try_from(open.saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_near_a_limit_is_degraded() {
        for (taken, level) in [(89, Level::Healthy), (90, Level::Degraded)] {
            let part = judge(Part::healthy("process"), "memory", taken, 100);
            assert_eq!(part.level, level, "{part:?}");
        }
        let part = Vitals::begin().part();
        let names: Vec<_> = part.figures.iter().map(|(name, _)| *name).collect();
        for name in ["memory_bytes", "descriptors", "descriptors_limit"] {
            assert!(names.contains(&name), "{part:?}");
        }
        assert!(
            part.figures.iter().all(|(_, figure)| *figure > 0),
            "{part:?}"
        );
    }
}
