//! What hangs together with a task, as one bounded value.

use std::collections::{BTreeMap, VecDeque};

use crate::model::depend::Link;
use crate::model::id::TaskId;
use crate::model::task::Task;
use crate::store::{self, Store};

use super::command::Caller;

/// Most tasks of a picture.
pub const TASKS_MAX: usize = 10_000;
/// Most waits of one task for another in a picture.
const LINKS_MAX: usize = 100_000;

/// Everything that waits for a task or that it waits for, directly or through
/// others, and what those wait for in turn.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// The tasks, by number.
    pub tasks: Vec<Task>,
    /// Which of them waits for which.
    pub links: Vec<Link>,
    /// Whether there is more than is shown.
    pub cut: bool,
}

/// Draws what hangs together with a task, the nearest first; none when there
/// is no such task that the caller may know of.
pub(super) fn draw(
    store: &mut impl Store,
    caller: Caller,
    id: TaskId,
    limit: usize,
) -> Result<Option<Picture>, store::Error> {
    let mut tasks: BTreeMap<TaskId, Task> = BTreeMap::new();
    let mut links = Vec::new();
    let mut cut = false;
    let mut next = VecDeque::from([id]);
    let most = u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1);
    while let Some(id) = next.pop_front() {
        if tasks.contains_key(&id) {
            continue;
        }
        let Some(task) = store.task(id)?.filter(|task| caller.may_touch(task.owner)) else {
            continue;
        };
        if tasks.len() >= limit || links.len() >= LINKS_MAX {
            cut = true;
            break;
        }
        tasks.insert(id, task);
        let parents = store.parents(id)?;
        next.extend(parents.iter().map(|link| link.parent));
        links.extend(parents);
        next.extend(store.children(id, most)?);
    }
    if !tasks.contains_key(&id) {
        return Ok(None);
    }
    links.retain(|link| tasks.contains_key(&link.parent));
    Ok(Some(Picture {
        tasks: tasks.into_values().collect(),
        links,
        cut,
    }))
}
