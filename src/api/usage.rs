//! What the processes of a running attempt take: of its cgroup, as the kernel
//! counts it; without one, of its first process.

use std::fs;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

use crate::engine::agents::Process;

/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Microseconds of a clock tick in `/proc/PID/stat`: `USER_HZ` is 100 on Linux.
const TICK: u64 = 10_000;

/// What a process and those that came from it take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time so far, in microseconds.
    pub cpu: Option<u64>,
    /// Memory now, in bytes.
    pub memory: Option<u64>,
}

/// What an attempt takes now. What the system does not tell is left out.
#[must_use]
pub fn of(process: &Process) -> Usage {
    match &process.cgroup {
        Some(cgroup) => of_cgroup(&Path::new(CGROUPS).join(cgroup.trim_start_matches('/'))),
        None => of_process(process.pid),
    }
}

fn of_cgroup(cgroup: &Path) -> Usage {
    let cpu = |stat: String| {
        let mut lines = stat.lines();
        lines.find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
    };
    let read = |name: &str| fs::read_to_string(cgroup.join(name)).ok();
    Usage {
        cpu: read("cpu.stat").and_then(cpu),
        memory: read("memory.current").and_then(|text| text.trim().parse().ok()),
    }
}

/// Of the first process, and of its children that have ended.
fn of_process(pid: u32) -> Usage {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let Some((_, rest)) = stat.as_deref().and_then(|stat| stat.rsplit_once(") ")) else {
        return Usage::default();
    };
    // utime, stime, cutime and cstime are the 14th to the 17th field, the
    // pages in memory are the 24th.
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    let ticks: Option<u64> = (11..15).map(number).sum();
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page.and_then(|size| u64::try_from(size).ok());
    Usage {
        cpu: ticks.map(|ticks| ticks * TICK),
        memory: number(21).zip(page).map(|(pages, size)| pages * size),
    }
}
