//! A schedule as it is kept: when it fires, and the task that it makes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::When;
use super::due::{Missed, Overlap, jitter};
use super::zone::Zone;
use crate::model::check;
use crate::model::id::{ScheduleId, Tick};
use crate::model::invalid::Invalid;
use crate::model::spec::{NewTask, Spec};
use crate::model::time::Time;

/// When a schedule fires, and what it does when that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its nominal times.
    pub when: When,
    /// Where they are told.
    pub zone: Zone,
    /// What a new task does that finds the one before it not over.
    pub overlap: Overlap,
    /// What becomes of times that passed while nobody looked.
    pub missed: Missed,
    /// Longest time by which a task starts later than its nominal time, in
    /// milliseconds.
    pub jitter_ms: u64,
}

/// The task that a schedule makes, each time anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Template {
    /// Its queue.
    pub queue: String,
    /// Its priority.
    pub priority: i32,
    /// Its name; the schedule's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its group key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Vec<u8>>,
    /// What it runs.
    pub spec: Spec,
}

/// A schedule as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSchedule {
    /// Uid of whoever asks.
    pub owner: u32,
    /// Its name, unique for the owner.
    pub name: String,
    /// When it fires.
    pub rule: Rule,
    /// What it makes.
    pub task: Template,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Its number.
    pub id: ScheduleId,
    /// Uid of its owner.
    pub owner: u32,
    /// Its name, unique for the owner.
    pub name: String,
    /// When it was made.
    pub created: Time,
    /// Whether it fires at no time.
    pub paused: bool,
    /// The last nominal time that has been decided.
    pub cursor: Time,
    /// The next one; none when there is none any more.
    pub wake: Option<Time>,
    /// When it fires.
    pub rule: Rule,
    /// What it makes.
    pub task: Template,
}

/// Longest standard input that a schedule keeps, in bytes.
pub const STDIN_MAX: usize = 64 * 1024;

impl NewSchedule {
    /// Checks everything but the task, which is checked as any other.
    ///
    /// # Errors
    /// The first field that cannot be accepted.
    pub fn check(&self, now: Time) -> Result<(), Invalid> {
        let invalid = |field, reason: String| Err(Invalid { field, reason });
        check::schedule_name(&self.name)?;
        let most = Duration::from_millis(self.rule.jitter_ms);
        if let Err(bad) = self.rule.when.allow_jitter(most) {
            return invalid("jitter", bad.to_string());
        }
        if let Missed::All { most } = self.rule.missed
            && !(1..=super::due::MOST).contains(&most)
        {
            let reason = format!("must make 1 to {} tasks", super::due::MOST);
            return invalid("missed", reason);
        }
        let stdin = self.task.stdin.as_ref().map_or(0, Vec::len);
        if stdin > STDIN_MAX {
            let reason = format!("is longer than the {STDIN_MAX} bytes that a schedule keeps");
            return invalid("task.stdin", reason);
        }
        if self.rule.when.next(&self.rule.zone, now).is_none() {
            return invalid(
                "when",
                format!("`{}` is over: it never fires again", self.rule.when),
            );
        }
        Ok(())
    }
}

impl Schedule {
    /// The next nominal time after the cursor.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        self.rule.when.next(&self.rule.zone, self.cursor)
    }

    /// The task of a nominal time. With the jitter it may start later, and is
    /// still that time's.
    #[must_use]
    pub fn task(&self, nominal: Time) -> NewTask {
        let most = Duration::from_millis(self.rule.jitter_ms);
        let template = self.task.clone();
        NewTask {
            owner: self.owner,
            queue: template.queue,
            priority: template.priority,
            name: template.name.or_else(|| Some(self.name.clone())),
            labels: template.labels,
            group: template.group,
            stdin: template.stdin,
            run_at: Some(nominal.after(jitter(self.id.0, nominal, most))),
            tick: Some(Tick {
                schedule: self.id,
                nominal,
            }),
            spec: template.spec,
            ..NewTask::default()
        }
    }
}

/// Which schedules a listing shows, in the order of their numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
    /// Only schedules of this owner.
    pub owner: Option<u32>,
    /// Only schedules with a higher number.
    pub after: Option<ScheduleId>,
    /// At most so many.
    pub limit: u32,
}
