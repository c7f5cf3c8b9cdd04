//! Finds out which agents do nothing: no output, and hardly any use of CPU by
//! all processes of the cgroup. Either is a sign of work.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::api::usage;
use crate::clock;
use crate::engine::agents::ask::Ask;
use crate::engine::agents::{Agents, Held, Process};
use crate::engine::command::Command;
use crate::engine::handle::Handle;
use crate::model::agent::phase::Phase;
use crate::model::attempt::AttemptKey;
use crate::model::capture::file_name;

use super::tell;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Use of CPU that does not count as work, in microseconds for each second:
/// one percent of a core, which is what timers and garbage collectors take.
const CPU_MIN: u64 = 10_000;

/// What a run did until the last look.
struct Done {
    /// Bytes in its capture file.
    output: u64,
    /// CPU time of its processes, in microseconds.
    cpu: u64,
    /// When that was.
    looked: Instant,
    /// When it last did something.
    busy: Instant,
    /// Whether the engine was told that it is idle.
    told: bool,
}

/// Looks until the engine is gone.
pub(super) async fn watch(handle: Handle, output_dir: PathBuf) {
    let mut done: BTreeMap<AttemptKey, Done> = BTreeMap::new();
    let mut figures = handle.watch();
    loop {
        let wanted = wanted(&figures.borrow_and_update().agents);
        if wanted.is_empty() {
            done.clear();
            // Nothing wakes this while there is nothing to look at.
            if figures.changed().await.is_err() {
                return;
            }
            super::breathe().await;
            continue;
        }
        let dir = output_dir.clone();
        // Two small files for each: not for a thread that answers requests.
        let looked = tokio::task::spawn_blocking(move || {
            let look = |wanted: Wanted| {
                let (output, cpu) = look(&wanted.process, &dir);
                (wanted, output, cpu)
            };
            wanted.into_iter().map(look).collect::<Vec<_>>()
        });
        let Ok(looked) = looked.await else { return };
        let keys: BTreeSet<_> = looked.iter().map(|(one, ..)| one.process.key).collect();
        done.retain(|key, _| keys.contains(key));
        for (wanted, output, cpu) in looked {
            if let Some(ask) = judge(&mut done, &wanted, output, cpu) {
                tell(&handle, Command::Agent(ask)).await;
            }
        }
        sleep_until((clock::instant() + PAUSE).into()).await;
    }
}

/// A process that can be idle.
struct Wanted {
    process: Process,
    /// After how long it is.
    limit: Duration,
    /// Whether the engine takes it to be.
    idle: bool,
}

fn wanted(agents: &Agents) -> Vec<Wanted> {
    let held = agents.tasks.values().filter(|held| !held.run.clean_up);
    let limit = |held: &Held| {
        let agent = agents.all.get(&held.run.agent)?;
        let life = agent
            .lives
            .get(usize::try_from(held.run.instance - 1).ok()?)?;
        Some(Wanted {
            limit: Duration::from_millis(agent.plan.idle_after_ms?),
            process: held.process.clone()?,
            idle: life.phase == Phase::Idle,
        })
    };
    held.filter_map(limit).collect()
}

/// Bytes of output, and CPU time in microseconds.
fn look(process: &Process, output_dir: &Path) -> (u64, u64) {
    let output = fs::metadata(output_dir.join(file_name(process.key)));
    let cpu = usage::of(process).cpu;
    (output.map_or(0, |meta| meta.len()), cpu.unwrap_or(0))
}

/// What the engine has to be told about a look, if anything.
fn judge(
    done: &mut BTreeMap<AttemptKey, Done>,
    wanted: &Wanted,
    output: u64,
    cpu: u64,
) -> Option<Ask> {
    let now = clock::instant();
    let key = wanted.process.key;
    let Some(before) = done.get_mut(&key) else {
        let first = Done {
            output,
            cpu,
            looked: now,
            busy: now,
            told: wanted.idle,
        };
        done.insert(key, first);
        return None;
    };
    let passed = now.saturating_duration_since(before.looked).as_secs_f64();
    let used = cpu.saturating_sub(before.cpu);
    #[expect(clippy::cast_precision_loss, reason = "a share of a second")]
    let works = output != before.output || used as f64 > CPU_MIN as f64 * passed;
    (before.output, before.cpu, before.looked) = (output, cpu, now);
    if works {
        before.busy = now;
        return std::mem::take(&mut before.told).then_some(Ask::Seen { key, idle: None });
    }
    let quiet = now.saturating_duration_since(before.busy);
    if before.told || quiet < wanted.limit {
        return None;
    }
    before.told = true;
    let since = clock::now().before(quiet);
    let idle = Some(since);
    Some(Ask::Seen { key, idle })
}
