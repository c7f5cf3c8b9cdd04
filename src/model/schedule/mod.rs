//! When: at which times a schedule makes a task.
//!
//! A [`When`] is a cron expression, a calendar expression or an interval, and
//! stands for a set of *nominal times*: the times at which it should fire,
//! which depend on nothing but the text and the time [`Zone`]. [`When::next`]
//! finds the next of them. A schedule remembers in a *cursor* the last
//! nominal time that has been decided, and [`due::due`] says which of those
//! between the cursor and now become tasks; so the clock may be set, the host
//! may sleep and the daemon may be away, and no nominal time is taken twice.
//! Each nominal time makes at most one task; the task may start later than
//! that by a [`due::jitter`], which changes nothing about the nominal time.
//! What happens while the task before still runs is the schedule's
//! [`due::Overlap`].

pub mod bad;
pub mod calendar;
mod chain;
pub mod cron;
pub mod due;
mod grid;
pub mod interval;
mod nominal;
pub mod plan;
pub mod zone;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::time::Time;
use bad::BadWhen;
use calendar::Calendar;
use cron::Cron;
use grid::Grid;
use interval::Interval;
use zone::Zone;

/// Longest text of a schedule, in bytes.
const LONGEST: usize = 256;

/// Longest jitter.
const LONGEST_JITTER: Duration = Duration::from_hours(24);

/// A set of nominal times.
///
/// As text, what it is shows in the text itself: an interval begins with
/// `every`; cron has five fields or begins with `@`; anything else with a
/// `:`, a `~`, a `..` or a letter in front, or of one or two words, is a
/// calendar expression. The text that is printed and stored is the canonical
/// one, which reads back as the same value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// `0 5 * * *`
    Cron(Cron),
    /// `Mon..Fri 05:00`
    Calendar(Calendar),
    /// `every 90s`
    Every(Interval),
}

impl When {
    /// The first nominal time strictly after another, or none: of cron and
    /// calendar expressions when no more comes up to the year 2199. Times
    /// before 1970 are taken for its start.
    ///
    /// `zone` is the schedule's; a calendar expression that names a zone of
    /// its own goes by that one. A calendar expression can be of the past
    /// altogether (`2020-*-*`), which only this call can tell.
    #[must_use]
    pub fn next(&self, zone: &Zone, after: Time) -> Option<Time> {
        match self {
            Self::Cron(cron) => cron.next(zone, after),
            Self::Calendar(calendar) => calendar.next(zone, after),
            Self::Every(interval) => interval.next(after),
        }
    }

    /// Refuses a jitter that no schedule needs: above a day, or above the
    /// interval.
    ///
    /// # Errors
    ///
    /// Names the longest jitter there may be.
    pub fn allow_jitter(&self, jitter: Duration) -> Result<(), BadWhen> {
        let most = match self {
            Self::Every(interval) => interval.every().min(LONGEST_JITTER),
            Self::Cron(_) | Self::Calendar(_) => LONGEST_JITTER,
        };
        if jitter <= most {
            return Ok(());
        }
        Err(BadWhen::Jitter { jitter, most })
    }
}

impl FromStr for When {
    type Err = BadWhen;

    fn from_str(text: &str) -> Result<Self, BadWhen> {
        let words = words(text)?;
        let (_, first) = words.first().ok_or(BadWhen::Empty)?;
        let calendar = || {
            words.len() <= 2
                || first.starts_with(|c: char| c.is_ascii_alphabetic())
                || [":", "~", ".."].iter().any(|sign| text.contains(sign))
        };
        if *first == "every" {
            text.parse().map(Self::Every)
        } else if first.starts_with('@') || words.len() >= 5 || !calendar() {
            text.parse().map(Self::Cron)
        } else {
            text.parse().map(Self::Calendar)
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(cron) => cron.fmt(f),
            Self::Calendar(calendar) => calendar.fmt(f),
            Self::Every(interval) => interval.fmt(f),
        }
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A word and its column.
type Word<'t> = (usize, &'t str);

/// The words of a schedule, each with its column from 1; refuses what is too
/// long and what cannot be in any.
fn words(text: &str) -> Result<Vec<Word<'_>>, BadWhen> {
    if text.len() > LONGEST {
        return Err(BadWhen::TooLong { bytes: text.len() });
    }
    let allowed = |c: char| c.is_ascii_graphic() || c == ' ' || c == '\t';
    if let Some((before, found)) = text.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        let column = before + 1;
        return Err(BadWhen::Letter { column, found });
    }
    let mut column = 1;
    let mut found = Vec::new();
    for word in text.split([' ', '\t']) {
        if !word.is_empty() {
            found.push((column, word));
        }
        column += word.len() + 1;
    }
    Ok(found)
}

/// Refuses a pattern that no date matches.
fn fires(grid: &Grid, text: &str) -> Result<(), BadWhen> {
    match grid.first(DateTime::constant(1970, 1, 1, 0, 0, 0, 0)) {
        Some(_) => Ok(()),
        None => Err(BadWhen::NeverFires {
            text: text.to_owned(),
        }),
    }
}
