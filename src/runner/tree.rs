//! An attempt's processes where there are no cgroups: found by descent.
//!
//! A process belongs to an attempt when it descends from its first process,
//! or, reparented to the runner (which is the subreaper), when its session,
//! its group or its environment says so. A process that leaves its session,
//! its parents and its environment behind is found only once no other attempt
//! runs; `status` says that this host cannot do better.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::environment::{ATTEMPT_VARIABLE, TASK_VARIABLE, marks};
use super::sys;
use crate::model::attempt::AttemptKey;

/// Most processes looked at in one pass: a bound on what a fork bomb costs.
const LOOK_MAX: usize = 65_536;

/// The attempt whose processes are meant, and its neighbours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family<'a> {
    pub(super) key: AttemptKey,
    /// First process of the attempt, also one that is reaped, as long as its
    /// number means nobody else.
    pub(super) leader: Option<i32>,
    /// First processes of all attempts that are not over.
    pub(super) leaders: &'a [i32],
    /// Children that are no attempt's.
    pub(super) others: &'a [i32],
}

/// Whether the number of a process that was reaped means another one now. As
/// long as a session or a group has it, the kernel gives it to nobody: so there
/// is nothing left then that the number still told of the first one.
pub(super) fn is_used_again(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// Living processes of an attempt.
pub(super) fn members(family: Family<'_>) -> Vec<i32> {
    let mut found = Vec::new();
    // The usual case, at a fraction of the price of looking through /proc.
    if sys::ended_child().is_err_and(|error| error.raw_os_error() == Some(libc::ECHILD)) {
        return found;
    }
    let alone = family.leaders.iter().all(|pid| Some(*pid) == family.leader);
    for child in children(std::process::id().cast_signed()) {
        let ours = Some(child) == family.leader
            || (!family.leaders.contains(&child)
                && !family.others.contains(&child)
                && belongs(child, family, alone));
        if ours {
            descend(child, &mut found);
        }
    }
    found
}

/// Signals every process of `list` that is still there when asked again:
/// descriptors pin the processes between the two looks, so that no number can
/// have come to mean a stranger.
pub(super) fn signal_all(list: impl Fn() -> Vec<i32>, signal: i32) {
    let pinned: Vec<_> = list()
        .into_iter()
        .filter_map(|pid| Some((pid, sys::pidfd_open(pid).ok()?)))
        .collect();
    if pinned.is_empty() {
        return;
    }
    let mut still = list();
    still.sort_unstable();
    for (pid, pidfd) in pinned {
        if still.binary_search(&pid).is_ok()
            && let Err(error) = sys::pidfd_signal(pidfd.as_fd(), signal)
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            tracing::warn!(pid, signal, %error, "cannot signal a process");
        }
    }
}

/// Reaps orphans that ended: children of this process that are no attempt's
/// first. Says when a first one ended, whose end is to be taken from its
/// descriptor before this is called again.
pub(super) fn reap_orphans(leaders: &[i32]) -> Option<i32> {
    loop {
        match sys::ended_child() {
            Ok(Some(pid)) if leaders.contains(&pid) => return Some(pid),
            Ok(Some(pid)) => {
                if let Err(error) = sys::reap_pid(pid) {
                    tracing::warn!(pid, %error, "cannot reap an orphan");
                    return None;
                }
            }
            Ok(None) => return None,
            Err(error) => {
                if error.raw_os_error() != Some(libc::ECHILD) {
                    tracing::warn!(%error, "cannot look for ended children");
                }
                return None;
            }
        }
    }
}

/// Processes that have an entry in their environment, but for this one and
/// those it descends from.
pub(super) fn bearers(entry: &str) -> Vec<i32> {
    let mut spared = vec![std::process::id().cast_signed()];
    while let Some(stat) = spared.last().and_then(|pid| stat(*pid))
        && stat.parent > 0
    {
        spared.push(stat.parent);
    }
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|pid| !spared.contains(pid) && bears(*pid, entry))
        .collect()
}

/// Whether a process that has not ended has an entry in its environment, as
/// far as this process may see it.
pub(super) fn bears(pid: i32, entry: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|bytes| {
        bytes
            .split(|byte| *byte == 0)
            .any(|own| own == entry.as_bytes())
    })
}

/// Adds a process and all that descend from it, but for those that ended.
fn descend(pid: i32, found: &mut Vec<i32>) {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(pid) = family.get(next).copied() {
        next += 1;
        if family.len() < LOOK_MAX {
            family.extend(children(pid));
        }
    }
    let alive = |pid: &i32| stat(*pid).is_some_and(|stat| stat.alive);
    found.extend(family.into_iter().filter(alive));
}

/// Children of all threads of a process.
fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads
        .filter_map(Result::ok)
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|line| {
            line.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}

/// Whether an orphan is the attempt's.
fn belongs(pid: i32, family: Family<'_>, alone: bool) -> bool {
    let Some(stat) = stat(pid) else {
        return false;
    };
    if !stat.alive {
        return false;
    }
    if [stat.group, stat.session]
        .map(Some)
        .contains(&family.leader)
    {
        return true;
    }
    match environment(pid) {
        Ok(Some(marked)) => marked == marks(family.key),
        Ok(None) | Err(_) => alone,
    }
}

/// The marks in a process's environment, if it has any.
fn environment(pid: i32) -> io::Result<Option<[String; 2]>> {
    let bytes = fs::read(format!("/proc/{pid}/environ"))?;
    let find = |name: &str| {
        bytes
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok())
            .find(|entry| {
                entry
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('='))
            })
            .map(ToOwned::to_owned)
    };
    Ok(find(TASK_VARIABLE)
        .zip(find(ATTEMPT_VARIABLE))
        .map(Into::into))
}

#[derive(Debug, Clone, Copy)]
struct Stat {
    alive: bool,
    parent: i32,
    group: i32,
    session: i32,
}

/// The few fields of `/proc/PID/stat` that matter here.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold any character.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let mut numbers = fields.map_while(|field| field.parse().ok());
    Some(Stat {
        alive: !matches!(state, "Z" | "X" | "x"),
        parent: numbers.next()?,
        group: numbers.next()?,
        session: numbers.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_stat() {
        let own = stat(std::process::id().cast_signed()).unwrap();
        assert!(own.alive);
        assert!(own.group > 0 && own.session >= 0);
        assert_eq!(own.parent, nix::unistd::getppid().as_raw());
        assert!(stat(0).is_none());
    }

    #[test]
    fn finds_a_child() {
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        assert!(children(std::process::id().cast_signed()).contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
