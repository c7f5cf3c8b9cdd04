//! What daemon and runner hold on to, and how that changes.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::process;

/// At one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State {
    /// Resident memory of the daemon that is its own and not a file's, in KiB.
    memory: u64,
    /// Descriptors of the daemon and of the runner.
    files: [u64; 2],
    /// Threads of the daemon and of the runner.
    threads: [u64; 2],
    /// Children of either that are dead and not reaped.
    zombies: u64,
    /// Bytes of the write-ahead log.
    log: u64,
}

impl State {
    pub(crate) fn of(daemon: &Daemon, base: &Path) -> anyhow::Result<Self> {
        let runner = daemon.runner().context("no runner")?;
        let pids = [daemon.pid(), runner];
        let memory = status(daemon.pid(), "RssAnon:")?;
        let [files, threads] = [
            [files(pids[0])?, files(pids[1])?],
            [status(pids[0], "Threads:")?, status(pids[1], "Threads:")?],
        ];
        Ok(Self {
            memory,
            files,
            threads,
            zombies: zombies(pids),
            log: process::size(&base.join("state/taskdaemon.db-wal")),
        })
    }

    /// Whether nothing is held that was not held before. A few descriptors of
    /// the daemon are a cache of files made ahead; connections of those who
    /// asked last may still be open.
    pub(crate) fn is_no_more_than(&self, before: &Self) -> bool {
        const SPARE: u64 = 8;
        let all = |now: [u64; 2], then: [u64; 2], spare| {
            now.iter().zip(then).all(|(now, then)| *now <= then + spare)
        };
        self.zombies == 0
            && all(self.files, before.files, SPARE)
            && all(self.threads, before.threads, 0)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "memory_kib": self.memory, "files": self.files, "threads": self.threads,
            "zombies": self.zombies, "log_bytes": self.log,
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            memory,
            files,
            threads,
            zombies,
            log,
        } = self;
        write!(
            f,
            "{:.1} MiB, {} + {} descriptors, {} + {} threads, {zombies} zombies, {:.1} MiB of log",
            process::count(*memory) / 1024.0,
            files[0],
            files[1],
            threads[0],
            threads[1],
            process::count(*log) / 1024.0 / 1024.0
        )
    }
}

fn status(pid: u32, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no such line in /proc")?.parse()?)
}

fn files(pid: u32) -> anyhow::Result<u64> {
    Ok(u64::try_from(
        std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
    )?)
}

/// Processes whose parent is one of these and that nobody has reaped.
fn zombies(parents: [u32; 2]) -> u64 {
    let children = |pid: u32| {
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default()
    };
    let is_zombie = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| rest.starts_with(" Z"))
        })
    };
    let mut zombies = 0;
    for parent in parents {
        let children = children(parent);
        zombies += u64::try_from(
            children
                .split_whitespace()
                .filter(|pid| is_zombie(pid))
                .count(),
        )
        .unwrap_or(u64::MAX);
    }
    zombies
}

/// Many moments.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<(Duration, State)>);

/// Most samples of which each is compared with each.
const COMPARED: usize = 400;

impl Samples {
    pub(crate) fn push(&mut self, at: Duration, state: State) {
        self.0.push((at, state));
    }

    /// The daemon's memory in KiB an hour, by the median of the slopes of all
    /// pairs (Theil and Sen). The first third is left out: memory that is taken
    /// once is taken there.
    pub(crate) fn slope(&self) -> Option<f64> {
        let late = self.0.get(self.0.len() / 3..).unwrap_or_default();
        let step = late.len().div_ceil(COMPARED).max(1);
        let late: Vec<_> = late.iter().step_by(step).collect();
        let mut slopes = Vec::new();
        for (place, (then, before)) in late.iter().enumerate() {
            for (now, after) in late.iter().skip(place + 1) {
                let hours = (*now - *then).as_secs_f64() / 3600.0;
                slopes.push((process::count(after.memory) - process::count(before.memory)) / hours);
            }
        }
        slopes.sort_by(f64::total_cmp);
        slopes.get(slopes.len() / 2).copied()
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most =
            |of: fn(&State) -> u64| self.0.iter().map(|(_, state)| of(state)).max().unwrap_or(0);
        write!(
            f,
            "meanwhile at most {:.1} MiB, {} descriptors, {} threads, {} zombies at a look, {:.1} MiB of log",
            process::count(most(|state| state.memory)) / 1024.0,
            most(|state| state.files[0] + state.files[1]),
            most(|state| state.threads[0] + state.threads[1]),
            most(|state| state.zombies),
            process::count(most(|state| state.log)) / 1024.0 / 1024.0
        )?;
        match self.slope() {
            Some(slope) => write!(f, "; memory changes by {slope:+.0} KiB an hour"),
            None => Ok(()),
        }
    }
}
