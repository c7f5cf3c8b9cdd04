//! Looks at the agents that run: whether they answer, and whether they do
//! anything. What is found goes to the engine in the words in which an agent
//! would say it itself; nothing here is kept.
//!
//! Agents that are looked at from beside them are not this file's business: see
//! `cli/tend.rs`.

mod idle;
mod look;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::engine::agents::{Agents, Process};
use crate::engine::command::Command;
use crate::engine::handle::Handle;
use crate::model::agent::probe::Probe;
use crate::model::id::TaskId;

/// Probes that wait for an answer at once.
const AT_ONCE: usize = 256;
/// Pause before the engine is told again that had no room.
const AGAIN: Duration = Duration::from_millis(50);

/// Shortest time between two looks at the figures.
const BREATH: Duration = Duration::from_millis(20);

/// A probe at work.
struct Looking {
    probe: Probe,
    work: JoinHandle<()>,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// Looks at agents until the engine is gone.
pub(super) async fn watch(handle: Handle, output_dir: PathBuf) {
    let mut figures = handle.watch();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut looking: BTreeMap<TaskId, Looking> = BTreeMap::new();
    let mut seen = Arc::new(Agents::default());
    let _idle = Ended(tokio::spawn(idle::watch(handle.clone(), output_dir)));
    loop {
        let agents = Arc::clone(&figures.borrow_and_update().agents);
        if !Arc::ptr_eq(&agents, &seen) {
            seen = agents;
            look_at(&seen, &mut looking, &handle, &room);
        }
        if figures.changed().await.is_err() {
            return;
        }
        breathe().await;
    }
}

/// The figures change with each turn of the engine, and hardly ever in what is
/// looked at here: turns that follow each other are looked at once.
async fn breathe() {
    sleep_until((clock::instant() + BREATH).into()).await;
}

/// Ends what it holds with itself.
struct Ended(JoinHandle<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Has exactly those looked at that have a process and a probe.
fn look_at(
    agents: &Agents,
    looking: &mut BTreeMap<TaskId, Looking>,
    handle: &Handle,
    room: &Arc<Semaphore>,
) {
    looking.retain(|task, at_work| {
        let wanted = probed(agents, *task);
        wanted.is_some_and(|(_, probe, _)| *probe == at_work.probe)
    });
    for task in agents.tasks.keys() {
        let Some((process, probe, is_up)) = probed(agents, *task) else {
            continue;
        };
        looking.entry(*task).or_insert_with(|| {
            let (handle, room) = (handle.clone(), Arc::clone(room));
            let work = look::again_and_again(handle, room, process.key, probe.clone(), is_up);
            Looking {
                probe: probe.clone(),
                work: tokio::spawn(work),
            }
        });
    }
}

/// A task's process, if the daemon looks at it: by which probe, and whether it
/// is up.
fn probed(agents: &Agents, task: TaskId) -> Option<(&Process, &Probe, bool)> {
    let held = agents.tasks.get(&task)?;
    let process = held.process.as_ref().filter(|_| !held.run.clean_up)?;
    let agent = agents.all.get(&held.run.agent)?;
    let probe = agent
        .plan
        .probe
        .as_ref()
        .filter(|probe| !probe.is_inside())?;
    let index = usize::try_from(held.run.instance - 1).ok()?;
    let is_up = agent.lives.get(index)?.phase.is_up();
    Some((process, probe, is_up))
}

/// Tells the engine, as soon as it has room.
async fn tell(handle: &Handle, mut command: Command) {
    let commands = handle.commands();
    loop {
        command = match commands.try_send(command) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => return,
            Err(TrySendError::Full(command)) => command,
        };
        sleep_until(Instant::from_std(clock::instant() + AGAIN)).await;
    }
}
