//! A pattern of local times, and the first time of it at or after another.
//!
//! Sets of small numbers are bits of a `u64` (bit 5 is the number 5), so that
//! the search jumps from one year, month, day, hour and minute that match to
//! the next, and never walks.

use jiff::civil::{Date, DateTime, Time};

/// Microseconds of a second, a minute and an hour.
pub(super) const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// The last year that is searched.
pub(super) const LAST_YEAR: i64 = 2199;

/// Evenly spaced numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The first.
    pub(super) first: i64,
    /// None is above this.
    pub(super) last: i64,
    /// From one to the next; at least 1.
    pub(super) step: i64,
}

impl Span {
    /// The first number of the span that is at least `low`.
    fn from(self, low: i64) -> Option<i64> {
        let above = (low - self.first).max(0);
        let steps = above / self.step + i64::from(above % self.step > 0);
        Some(self.first + steps * self.step).filter(|number| *number <= self.last)
    }
}

/// The first number of any of the spans that is at least `low`.
fn first_of(spans: &[Span], low: i64) -> Option<i64> {
    spans.iter().filter_map(|span| span.from(low)).min()
}

/// Which days of a month match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Days {
    /// Counted from the first, which is 1.
    pub(super) from_start: u64,
    /// Counted from the last, which is 1.
    pub(super) from_end: u64,
    /// Days of the week, Monday 0 to Sunday 6.
    pub(super) weekdays: u64,
    /// One of day of month and day of week is enough.
    pub(super) either: bool,
}

impl Days {
    /// The matching days of the month that starts with `first`.
    fn of(self, first: Date) -> u64 {
        let length = u32::from(first.days_in_month().unsigned_abs());
        let all = (1 << (length + 1)) - 2;
        // Turned round, the bit of the last day comes to lie on that day.
        let mirrored = self.from_end.reverse_bits() >> (62 - length);
        let lead = first.weekday().to_monday_zero_offset().unsigned_abs();
        let week = (self.weekdays >> lead) | (self.weekdays << (7 - lead));
        let weeks = (0..5).fold(0, |days, n| days | ((week & 0x7f) << (7 * n + 1)));
        let dates = self.from_start | mirrored;
        all & if self.either {
            dates | weeks
        } else {
            dates & weeks
        }
    }
}

/// A pattern of local times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grid {
    /// Years; none named means each.
    pub(super) years: Vec<Span>,
    /// Months, January 1.
    pub(super) months: u64,
    /// Days.
    pub(super) days: Days,
    /// Hours of the day.
    pub(super) hours: u64,
    /// Minutes of the hour.
    pub(super) minutes: u64,
    /// Microseconds of the minute.
    pub(super) seconds: Vec<Span>,
}

impl Grid {
    /// The first match at or after a local time, up to [`LAST_YEAR`].
    pub(super) fn first(&self, from: DateTime) -> Option<DateTime> {
        let found = self.date_from(from.date())?;
        if found == from.date()
            && let Some(time) = self.time_from(micros_of(from.time()))
        {
            return Some(found.to_datetime(clock(time)?));
        }
        let found = if found == from.date() {
            self.date_from(found.tomorrow().ok()?)?
        } else {
            found
        };
        Some(found.to_datetime(clock(self.time_from(0)?)?))
    }

    /// The first matching date at or after another.
    fn date_from(&self, from: Date) -> Option<Date> {
        let mut low = from;
        loop {
            let year = self.year_from(i64::from(low.year()))?;
            if year > i64::from(low.year()) {
                low = Date::new(i16::try_from(year).ok()?, 1, 1).ok()?;
            }
            let mut next = bit_from(self.months, u32::from(low.month().unsigned_abs()));
            while let Some(month) = next {
                let first = Date::new(low.year(), i8::try_from(month).ok()?, 1).ok()?;
                let day = if first > low { 1 } else { low.day() };
                if let Some(day) = bit_from(self.days.of(first), u32::from(day.unsigned_abs())) {
                    return Date::new(first.year(), first.month(), i8::try_from(day).ok()?).ok();
                }
                next = bit_from(self.months, month + 1);
            }
            low = Date::new(low.year().checked_add(1)?, 1, 1).ok()?;
        }
    }

    fn year_from(&self, low: i64) -> Option<i64> {
        let year = if self.years.is_empty() {
            Some(low)
        } else {
            first_of(&self.years, low)
        };
        year.filter(|year| *year <= LAST_YEAR)
    }

    /// The first matching time of a day at or after another, both in
    /// microseconds since midnight of a day without a change of the clock.
    fn time_from(&self, low: i64) -> Option<i64> {
        let hour = u32::try_from(low / HOUR).ok()?;
        let minute = u32::try_from(low / MINUTE % 60).ok()?;
        let found = |hour: u32, minute: u32, micros: i64| {
            i64::from(hour) * HOUR + i64::from(minute) * MINUTE + micros
        };
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(micros) = first_of(&self.seconds, low % MINUTE)
            {
                return Some(found(hour, minute, micros));
            }
            if let Some(minute) = bit_from(self.minutes, minute + 1) {
                return Some(found(hour, minute, first_of(&self.seconds, 0)?));
            }
        }
        let hour = bit_from(self.hours, hour + 1)?;
        let minute = bit_from(self.minutes, 0)?;
        Some(found(hour, minute, first_of(&self.seconds, 0)?))
    }
}

/// Whether a number is in a set.
fn has(set: u64, number: u32) -> bool {
    bit_from(set, number) == Some(number)
}

/// The first number of a set that is at least `low`.
fn bit_from(set: u64, low: u32) -> Option<u32> {
    let rest = set.checked_shr(low)?;
    (rest != 0).then(|| low + rest.trailing_zeros())
}

/// Microseconds since midnight.
fn micros_of(time: Time) -> i64 {
    i64::from(time.hour()) * HOUR
        + i64::from(time.minute()) * MINUTE
        + i64::from(time.second()) * SECOND
        + i64::from(time.subsec_nanosecond()) / 1_000
}

/// Microseconds since midnight, as a clock shows them.
fn clock(micros: i64) -> Option<Time> {
    Time::new(
        i8::try_from(micros / HOUR).ok()?,
        i8::try_from(micros / MINUTE % 60).ok()?,
        i8::try_from(micros / SECOND % 60).ok()?,
        i32::try_from(micros % SECOND * 1_000).ok()?,
    )
    .ok()
}
