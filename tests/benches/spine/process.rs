//! Processes from outside: what the kernel says of them, how they are ended;
//! and the bare way to run one, which is the yardstick for running tasks.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use taskdaemon::clock;

/// What every task and every yardstick runs.
pub(crate) const TRUE: &str = "/bin/true";
/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits so long. Nothing wakes this thread early.
pub(crate) fn pause(time: Duration) {
    let end = clock::instant() + time;
    loop {
        let left = end.saturating_duration_since(clock::instant());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

/// The result of a thread, or that it panicked.
pub(crate) fn joined<T>(thread: std::thread::Result<anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.unwrap_or_else(|_| bail!("a thread of the benchmark panicked"))
}

/// CPU time a process has used so far, without its children.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("an odd line in /proc")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs(1) * u32::try_from(ticks)? / u32::try_from(per_second)?)
}

/// Resident memory of a process in MiB, all of it and that of its own.
pub(crate) fn memory(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("no such line in /proc")?.parse()?)
    };
    Ok((kib("VmRSS:")? / 1024.0, kib("RssAnon:")? / 1024.0))
}

/// Ends a process that is not a child of this one, and waits until it is gone.
pub(crate) fn end(pid: u32) -> anyhow::Result<()> {
    // An error means that it is gone already.
    if kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM).is_err() {
        return Ok(());
    }
    let deadline = clock::instant() + PATIENCE;
    let alive = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
    };
    while alive() {
        if clock::instant() > deadline {
            bail!("process {pid} did not end in {PATIENCE:?}");
        }
        pause(Duration::from_millis(5));
    }
    Ok(())
}

/// Runs a program and waits for it, with both pipes captured: what any way to
/// run a task has to do at least.
pub(crate) fn bare_run() -> anyhow::Result<()> {
    let output = Command::new(TRUE).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{TRUE}: {}", output.status);
    }
    Ok(())
}

/// Runs so many programs, 16 at once; programs a second.
pub(crate) fn bare_drain(programs: u64, at_once: u32) -> anyhow::Result<f64> {
    let next = AtomicU64::new(0);
    let begun = clock::instant();
    std::thread::scope(|scope| {
        let work = || -> anyhow::Result<()> {
            while next.fetch_add(1, Ordering::Relaxed) < programs {
                bare_run()?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| joined(thread.join()))
    })?;
    Ok(count(programs) / begun.elapsed().as_secs_f64())
}

/// Bytes of a file, or none if it is not there.
pub(crate) fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}
