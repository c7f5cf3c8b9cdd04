//! What to do now: which nominal times become tasks, and how they are spread.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::When;
use super::zone::Zone;
use crate::model::draw::{draw, share};
use crate::model::time::Time;

/// How late a nominal time may be and not count as missed.
const ON_TIME: Duration = Duration::from_secs(60);

/// The most tasks that one look makes.
pub const MOST: u32 = 1_000;

/// The most nominal times that are counted as skipped.
const COUNTED: u64 = 1_000;

/// What lies between one time and the next.
const TICK: Duration = Duration::from_micros(1);

/// First reach of the search backwards; it doubles.
const REACH: Duration = Duration::from_secs(60);

/// What becomes of the nominal times that passed while nobody looked.
///
/// As JSON `"skip"`, `"last"` or `{"all": {"most": 10}}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Nothing. Only the latest can make a task, and only when it is at most
    /// a minute ago.
    Skip,
    /// The latest makes a task, however long ago it was.
    #[default]
    Last,
    /// Each makes a task, the latest so many of them.
    All {
        /// From 1 to [`MOST`]; what is above counts as that.
        most: u32,
    },
}

/// What a new task does that finds the one before it not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is not made.
    #[default]
    Skip,
    /// It waits until the one before has ended.
    Queue,
    /// It cancels the one before, and starts when that has ended.
    Replace,
    /// It runs beside it.
    Allow,
}

impl Overlap {
    /// The word for it, as in JSON and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Replace => "replace",
            Self::Allow => "allow",
        }
    }
}

/// The answer of [`due`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The nominal times that become tasks, in order; at most [`MOST`].
    pub fire: Vec<Time>,
    /// The cursor from now on, to be stored together with the tasks.
    pub cursor: Time,
    /// How many nominal times make no task. Counting stops at 1000.
    pub skipped: u64,
}

/// Decides about the nominal times after `cursor` and up to `now`.
///
/// The cursor moves to the last of them, whether it fires or not, and never
/// back. A clock that was set back therefore fires nothing until it passes
/// the cursor again, and one that was set forth looks like a time away, for
/// which there is `missed`. The first cursor of a schedule is the time of its
/// creation.
#[must_use]
pub fn due(when: &When, zone: &Zone, cursor: Time, now: Time, missed: Missed) -> Due {
    let nothing = Due {
        fire: Vec::new(),
        cursor,
        skipped: 0,
    };
    let Some(latest) = latest(when, zone, cursor, now) else {
        return nothing;
    };
    let most = match missed {
        Missed::Skip => u32::from(now.since(latest) <= ON_TIME),
        Missed::Last => 1,
        Missed::All { most } => most.clamp(1, MOST),
    };
    let mut fire = Vec::new();
    let mut before = Some(latest);
    for _ in 0..most {
        let Some(time) = before else { break };
        fire.push(time);
        let below = time.before(TICK);
        before = self::latest(when, zone, cursor, below);
    }
    fire.reverse();
    let end = fire.first().copied();
    let end = end.unwrap_or_else(|| latest.after(TICK));
    let skipped = count(when, zone, cursor, end);
    Due {
        fire,
        cursor: latest,
        skipped,
    }
}

/// The last nominal time after `low` and not after `high`.
///
/// Looks back from `high` twice as far each time, and then halves what lies
/// between a time from which one follows and a time from which none does; so
/// it costs some dozen steps and not one for each nominal time.
fn latest(when: &When, zone: &Zone, low: Time, high: Time) -> Option<Time> {
    let next = |after: Time| when.next(zone, after).filter(|time| *time <= high);
    let mut reach = REACH;
    let mut none_from = high;
    let mut found = loop {
        let from = high.before(reach).max(low);
        if let Some(time) = next(from) {
            break time;
        }
        if from == low {
            return None;
        }
        none_from = from;
        reach = reach.saturating_mul(2);
    };
    while let Some(time) = next(found) {
        found = time;
        let middle = found.after(none_from.since(found) / 2);
        if middle == found {
            continue;
        }
        match next(middle) {
            Some(time) => found = time,
            None => none_from = middle,
        }
    }
    Some(found)
}

/// How many nominal times lie after `low` and before `end`, counting up to
/// [`COUNTED`].
fn count(when: &When, zone: &Zone, low: Time, end: Time) -> u64 {
    let mut counted = 0;
    let mut at = low;
    while counted < COUNTED {
        match when.next(zone, at) {
            Some(time) if time < end => at = time,
            _ => break,
        }
        counted += 1;
    }
    counted
}

/// How long after its nominal time a task of a schedule may start: from zero
/// to below `most`, the same at each call, different from schedule to schedule
/// and from time to time.
#[must_use]
pub fn jitter(schedule: i64, nominal: Time, most: Duration) -> Duration {
    let seed = draw(schedule.cast_unsigned()) ^ nominal.micros().cast_unsigned();
    share(most, draw(seed))
}
