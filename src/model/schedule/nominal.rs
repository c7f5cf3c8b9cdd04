//! From local times to real ones: what a pattern means where clocks are
//! changed.
//!
//! A change of offset is a *gap* (local times that do not exist) or a *fold*
//! (local times that exist twice); daylight saving time has one of each in a
//! year. [`Change`] has the three ways to deal with them.

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use super::grid::Grid;
use super::zone::Zone;
use crate::model::time::Time;

/// From this size on cron does not take a change for daylight saving time.
const LARGE: SignedDuration = SignedDuration::from_hours(3);

/// More than any change of a clock there has been.
const CLOSE: SignedDuration = SignedDuration::from_hours(48);

/// What a gap and a fold do to a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A cron job at fixed times: what falls into a gap fires once at the
    /// gap's end, and a fold repeats nothing. Changes of three hours and more
    /// are left alone, as in [`Change::Real`].
    Fixed,
    /// A cron job at each so many minutes or hours: what falls into a gap
    /// does not exist, and what a fold repeats fires again.
    Real,
    /// A calendar event: what falls into a gap does not exist, and a fold
    /// repeats nothing.
    Local,
}

impl Change {
    /// Whether the local times from `new` to `old`, which a change set the
    /// clock back over, have had their turn.
    fn passes_over(self, old: DateTime, new: DateTime) -> bool {
        match self {
            Self::Fixed => old > new && new.duration_until(old) < LARGE,
            Self::Real => false,
            Self::Local => old > new,
        }
    }

    /// Whether the local times from `old` to `new`, which a change left out,
    /// are made up for.
    fn makes_up(self, old: DateTime, new: DateTime) -> bool {
        match self {
            Self::Fixed => new > old && old.duration_until(new) < LARGE,
            Self::Real | Self::Local => false,
        }
    }
}

/// The first real time strictly after another that a pattern of local times
/// stands for.
pub(super) fn next(grid: &Grid, change: Change, zone: &Zone, after: Time) -> Option<Time> {
    let rules = zone.rules();
    let mut start = Timestamp::from_microsecond(after.micros().max(-1).checked_add(1)?).ok()?;
    loop {
        let offset = rules.to_offset(start);
        let from = begin(change, zone, start)?;
        let local = grid.first(from)?;
        let at = offset.to_timestamp(local).ok()?;
        let end = rules.following(start).next();
        let Some(end) = end.filter(|end| end.timestamp() <= at) else {
            return Some(Time::from_micros(at.as_microsecond()));
        };
        let old = offset.to_datetime(end.timestamp());
        let new = end.offset().to_datetime(end.timestamp());
        if change.makes_up(old, new) && local <= new {
            return Some(Time::from_micros(end.timestamp().as_microsecond()));
        }
        start = end.timestamp();
        if new >= from {
            // Nothing matches from there to `local`: whole years may be left out.
            start = start.max(at.checked_sub(CLOSE).ok()?);
        }
    }
}

/// The first local time that is to be looked at from `start` on.
fn begin(change: Change, zone: &Zone, start: Timestamp) -> Option<DateTime> {
    let rules = zone.rules();
    let from = rules.to_datetime(start);
    if change == Change::Real {
        return Some(from);
    }
    let instant = SignedDuration::from_nanos(1);
    let last = rules.preceding(start.checked_add(instant).ok()?).next();
    let Some(last) = last else {
        return Some(from);
    };
    let before = last.timestamp().checked_sub(instant).ok()?;
    let old = rules.to_offset(before).to_datetime(last.timestamp());
    let new = last.offset().to_datetime(last.timestamp());
    Some(if change.passes_over(old, new) {
        from.max(old)
    } else {
        from
    })
}
