//! How well the engine's figures say that its parts are. A look at them takes
//! nobody's turn.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::gauge;
use crate::model::health::{Level, Part};
use crate::model::time::Time;

use super::snapshot::{Phase, Snapshot};

/// How long something may be missing before it is worth a word: a runner that
/// renews itself is back sooner.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How late schedules may be: what is due is made in the next turn.
const LATE: Duration = Duration::from_secs(60);

const READ_ONLY: &str = "the file system of the state directory is read-only: nothing is saved until it is mounted \
     for writing again";
const FULL: &str = "the disk is full: nothing is saved until there is room";
const SHORT: &str = "the disk has too little room: new tasks are refused";
const LOCKED: &str = "another process holds the lock of the database: nothing is saved until it \
                      ends; `fuser -v` on taskdaemon.db names it";
const FAILED: &str = "a commit failed: the daemon ends, and is to be started again";
const LONG_LOG: &str = "the database's log grows: another program reads on and on in it";
const NO_RUNNER: &str = "no runner is connected: tasks wait";

/// What the daemon lacks, if anything, in one sentence.
#[must_use]
pub fn lack(snapshot: &Snapshot) -> Option<&'static str> {
    let all = [
        (snapshot.read_only, READ_ONLY),
        (snapshot.full, FULL),
        (snapshot.locked, LOCKED),
        (snapshot.shortage.is_some(), SHORT),
        (snapshot.runner.is_none(), NO_RUNNER),
        (snapshot.long_log, LONG_LOG),
    ];
    let found = all.into_iter().find(|(lacks, _)| *lacks);
    found.map(|(_, what)| what)
}

/// The parts of the engine, as of its last turn.
#[must_use]
pub fn parts(snapshot: &Snapshot, now: Time) -> Vec<Part> {
    let mut parts = vec![
        store(snapshot, now),
        disk(snapshot),
        runner(snapshot, now),
        run_as(snapshot),
        schedules(snapshot, now),
    ];
    parts.extend(providers(snapshot, now));
    parts
}

fn store(snapshot: &Snapshot, now: Time) -> Part {
    let since = &snapshot.since;
    let age = now.since(snapshot.turned).as_millis();
    let mut part = Part::healthy("store")
        .with("commits", snapshot.commits)
        .with("last_commit_ms_ago", age)
        .with("log_bytes", snapshot.log_bytes);
    if snapshot.long_log {
        part = part.but(Level::Degraded, LONG_LOG, since.long_log);
    }
    if snapshot.locked {
        part = part.but(Level::Unhealthy, LOCKED, since.locked);
    }
    if snapshot.phase == Phase::Failed {
        part = part.but(Level::Unhealthy, FAILED, None);
    }
    part
}

fn disk(snapshot: &Snapshot) -> Part {
    let since = &snapshot.since;
    let mut part = Part::healthy("disk");
    if snapshot.read_only {
        part = part.but(Level::Unhealthy, READ_ONLY, since.read_only);
    }
    if let Some(shortage) = snapshot.shortage {
        let (level, why) = if snapshot.full {
            (Level::Unhealthy, FULL)
        } else {
            (Level::Degraded, SHORT)
        };
        part = part
            .with("free_bytes", shortage.free)
            .with("needed_bytes", shortage.mark)
            .but(level, why, since.shortage);
    }
    part
}

fn runner(snapshot: &Snapshot, now: Time) -> Part {
    let part = Part::healthy("runner");
    match (&snapshot.runner, snapshot.since.no_runner) {
        (Some(runner), _) => part.with("pid", runner.pid),
        (None, Some(since)) if now.since(since) < PATIENCE => part,
        (None, since) => part.but(Level::Degraded, NO_RUNNER, since),
    }
}

fn run_as(snapshot: &Snapshot) -> Part {
    let part = Part::healthy("run_as");
    let Some(closed) = &snapshot.closed else {
        return part;
    };
    let why = format!("nobody can say as whom tasks may run: {}", closed.why);
    let mut part = part.but(Level::Degraded, why, snapshot.since.closed);
    part.until = Some(closed.until);
    part
}

fn schedules(snapshot: &Snapshot, now: Time) -> Part {
    let Some(next) = snapshot.next_tick else {
        return Part::healthy("schedules");
    };
    let late = now.since(next);
    let part = Part::healthy("schedules").with("late_ms", late.as_millis());
    if late <= LATE {
        return part;
    }
    let why = "schedules make their tasks late; see what else is missing";
    part.but(Level::Degraded, why, Some(next))
}

/// One for each provider: as well as the worst of its models.
fn providers(snapshot: &Snapshot, now: Time) -> Vec<Part> {
    let accounts = &snapshot.calls;
    let mut parts: BTreeMap<&str, Part> = BTreeMap::new();
    for (model, route) in &accounts.routes {
        let provider = route.provider.as_str();
        let part = parts
            .entry(provider)
            .or_insert_with(|| Part::healthy(format!("provider {provider}")));
        let Some(account) = accounts.accounts.get(&route.account) else {
            continue;
        };
        let (gauge, shut) = account.now(now);
        match (gauge.health(now), shut) {
            (gauge::Health::Good | gauge::Health::Trying, _) | (_, None) => {}
            (gauge::Health::Held | gauge::Health::Open | gauge::Health::Barred, Some(shut))
                if part.level == Level::Healthy =>
            {
                let why = format!("model {model}: {}", shut.cause);
                *part = part.clone().but(Level::Degraded, why, None);
                part.until = shut.until;
            }
            (gauge::Health::Held | gauge::Health::Open | gauge::Health::Barred, Some(_)) => {}
        }
    }
    parts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::Shortage;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn level(snapshot: &Snapshot, name: &str, now: Time) -> (Level, Option<Time>) {
        let parts = parts(snapshot, now);
        let part = parts.iter().find(|part| part.name == name).expect(name);
        assert_eq!(part.why.is_some(), part.level != Level::Healthy, "{part:?}");
        (part.level, part.since)
    }

    #[test]
    fn each_part_is_as_its_figures_say_and_since_then() {
        let mut snapshot = Snapshot {
            phase: Phase::Running,
            ..Snapshot::default()
        };
        snapshot.mark(at(10));
        for name in ["store", "disk", "runner", "run_as", "schedules"] {
            assert_eq!(level(&snapshot, name, at(11)), (Level::Healthy, None));
        }
        assert_eq!(
            level(&snapshot, "runner", at(15)),
            (Level::Degraded, Some(at(10)))
        );
        snapshot.shortage = Some(Shortage { free: 1, mark: 2 });
        snapshot.locked = true;
        snapshot.mark(at(20));
        snapshot.full = true;
        snapshot.next_tick = Some(at(30));
        snapshot.mark(at(40));
        assert_eq!(
            level(&snapshot, "disk", at(50)),
            (Level::Unhealthy, Some(at(20)))
        );
        assert_eq!(
            level(&snapshot, "store", at(50)),
            (Level::Unhealthy, Some(at(20)))
        );
        assert_eq!(level(&snapshot, "schedules", at(90)).0, Level::Healthy);
        assert_eq!(
            level(&snapshot, "schedules", at(91)),
            (Level::Degraded, Some(at(30)))
        );
        // What is over and comes again begins anew.
        snapshot.locked = false;
        snapshot.mark(at(60));
        assert_eq!(level(&snapshot, "store", at(61)), (Level::Healthy, None));
        snapshot.locked = true;
        snapshot.mark(at(70));
        assert_eq!(level(&snapshot, "store", at(71)).1, Some(at(70)));
        assert_eq!(lack(&snapshot), Some(FULL));
    }
}
