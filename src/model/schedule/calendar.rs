//! Calendar expressions, as systemd's timers read them in `OnCalendar=`.
//!
//! No crate reads them right: the one that is kept knows neither `~` nor time
//! zones; so they are read here, and compared with `systemd-analyze calendar`
//! in the tests.

use std::fmt;
use std::str::FromStr;

use super::Word;
use super::bad::BadWhen;
use super::chain::{Chain, DAY, DAY_FROM_END, HOUR, MINUTE, MONTH, Reader, SECONDS, YEAR, bad};
use super::grid::{Days, Grid};
use super::nominal::{self, Change};
use super::zone::Zone;
use crate::model::time::Time;

const WEEKDAYS: [(&str, &str); 7] = [
    ("mon", "monday"),
    ("tue", "tuesday"),
    ("wed", "wednesday"),
    ("thu", "thursday"),
    ("fri", "friday"),
    ("sat", "saturday"),
    ("sun", "sunday"),
];
const PRINTED: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Each day of the week.
const WEEK: u64 = 0x7f;

/// Words that stand for an expression.
const WORDS: [(&str, &str); 13] = [
    ("minutely", "*-*-* *:*:00"),
    ("hourly", "*-*-* *:00:00"),
    ("daily", "*-*-* 00:00:00"),
    ("weekly", "Mon *-*-* 00:00:00"),
    ("monthly", "*-*-01 00:00:00"),
    ("yearly", "*-01-01 00:00:00"),
    ("annually", "*-01-01 00:00:00"),
    ("anually", "*-01-01 00:00:00"),
    ("quarterly", "*-01,04,07,10-01 00:00:00"),
    ("semiannually", "*-01,07-01 00:00:00"),
    ("semi-annually", "*-01,07-01 00:00:00"),
    ("biannually", "*-01,07-01 00:00:00"),
    ("bi-annually", "*-01,07-01 00:00:00"),
];

/// A calendar expression: weekdays, date, time and zone, each of which can be
/// left out.
///
/// `Mon..Fri *-*-1..7 09:00/15:30.5 Europe/Berlin`: components are lists of
/// numbers, ranges `a..b` and repetitions `a/step`, or `*`. A `~` in place of
/// the last `-` counts days from the end of the month. Without a date each
/// day is meant, without a time midnight, and without a zone that of the
/// schedule.
///
/// **Changes of the clock**, such as daylight saving time: a local time that
/// is left out does not fire, and one that comes twice fires the first time.
///
/// **Refused**, though systemd reads it: a single moment (`@1700000000`), and
/// abbreviations of the host's own zone, which mean something else on the next
/// host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    grid: Grid,
    zone: Option<Zone>,
    text: String,
}

impl Calendar {
    /// The zone that the expression itself names.
    #[must_use]
    pub const fn zone(&self) -> Option<&Zone> {
        self.zone.as_ref()
    }

    /// The first nominal time strictly after another; none after the year 2199.
    pub(super) fn next(&self, zone: &Zone, after: Time) -> Option<Time> {
        let zone = self.zone.as_ref().unwrap_or(zone);
        nominal::next(&self.grid, Change::Local, zone, after)
    }
}

/// The parts of an expression, as they are written.
#[derive(Default)]
struct Parts {
    weekdays: u64,
    year: Chain,
    month: Chain,
    day: Chain,
    /// Days count from the end of the month.
    from_end: bool,
    hour: Chain,
    minute: Chain,
    second: Chain,
}

impl Parts {
    fn read(words: &[Word<'_>]) -> Result<Self, BadWhen> {
        let mut parts = Self {
            weekdays: WEEK,
            ..Self::default()
        };
        let mut words = words;
        if let [(column, word), rest @ ..] = words
            && word.starts_with(|c: char| c.is_ascii_alphabetic())
        {
            parts.weekdays = weekdays(&mut Reader::new(word, *column))?;
            words = rest;
        }
        let (date, time) = match words {
            [] => (None, None),
            [time] if time.1.contains(':') => (None, Some(time)),
            [date] => (Some(date), None),
            [date, time] => (Some(date), Some(time)),
            [_, _, (column, word), ..] => {
                let why = format!("`{word}` is too much: weekdays, date, time and zone is all");
                return Err(bad(*column, why));
            }
        };
        if let Some((column, word)) = date {
            parts.date(&mut Reader::new(word, *column))?;
        }
        match time {
            Some((column, word)) => parts.time(&mut Reader::new(word, *column))?,
            None => parts.time(&mut Reader::new("0:0", 1))?,
        }
        Ok(parts)
    }

    /// `month-day` or `year-month-day`, with `~` for the last `-`.
    fn date(&mut self, reader: &mut Reader<'_>) -> Result<(), BadWhen> {
        let wanted = "a date is `year-month-day` or `month-day`, with `~` for the last `-` \
                      to count from the end of the month";
        // What the first number is shows only in how many there are.
        let two = reader.rest().matches(['-', '~']).count() == 1;
        if !two {
            self.year = YEAR.read(reader)?;
            if !reader.take("-") {
                return Err(reader.bad(wanted));
            }
        }
        self.month = MONTH.read(reader)?;
        self.from_end = reader.take("~");
        if !self.from_end && !reader.take("-") {
            return Err(reader.bad(wanted));
        }
        let day = if self.from_end { &DAY_FROM_END } else { &DAY };
        self.day = day.read(reader)?;
        // Each day is each day, from either end.
        self.from_end &= !self.day.is_empty();
        if reader.is_done() {
            Ok(())
        } else {
            Err(reader.bad(wanted))
        }
    }

    /// `hour:minute` or `hour:minute:second`.
    fn time(&mut self, reader: &mut Reader<'_>) -> Result<(), BadWhen> {
        let wanted = "a time is `hour:minute` or `hour:minute:second`";
        self.hour = HOUR.read(reader)?;
        if !reader.take(":") {
            return Err(reader.bad(wanted));
        }
        self.minute = MINUTE.read(reader)?;
        let mut zero = Reader::new("0", 1);
        let second = if reader.take(":") {
            &mut *reader
        } else {
            &mut zero
        };
        self.second = SECONDS.read(second)?;
        if reader.is_done() {
            Ok(())
        } else {
            Err(reader.bad(wanted))
        }
    }

    fn grid(&self) -> Grid {
        let (from_start, from_end) = if self.from_end {
            (0, DAY_FROM_END.bits(&self.day))
        } else {
            (DAY.bits(&self.day), 0)
        };
        let years = if self.year.is_empty() {
            Vec::new()
        } else {
            YEAR.spans(&self.year)
        };
        Grid {
            years,
            months: MONTH.bits(&self.month),
            days: Days {
                from_start,
                from_end,
                weekdays: self.weekdays,
                either: false,
            },
            hours: HOUR.bits(&self.hour),
            minutes: MINUTE.bits(&self.minute),
            seconds: SECONDS.spans(&self.second),
        }
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weekdays != WEEK {
            write!(f, "{} ", weekdays_text(self.weekdays))?;
        }
        let before_day = if self.from_end { '~' } else { '-' };
        write!(
            f,
            "{}-{}{before_day}{} {}:{}:{}",
            YEAR.text(&self.year),
            MONTH.text(&self.month),
            DAY.text(&self.day),
            HOUR.text(&self.hour),
            MINUTE.text(&self.minute),
            SECONDS.text(&self.second),
        )
    }
}

/// Reads `Mon`, `Mon,Wed`, `Mon..Fri` and lists of these, as bits from Monday.
fn weekdays(reader: &mut Reader<'_>) -> Result<u64, BadWhen> {
    let mut days = 0;
    loop {
        let column = reader.column;
        let first = weekday(reader)?;
        let last = if reader.take("..") || reader.take("-") {
            weekday(reader)?
        } else {
            first
        };
        if last < first {
            return Err(bad(
                column,
                "this range runs backwards: the week starts on Monday",
            ));
        }
        days |= (first..=last).fold(0, |bits, day| bits | 1 << day);
        // A comma may also end the list.
        let more = reader.take(",");
        if reader.is_done() {
            return Ok(days);
        }
        if !more {
            return Err(reader.bad("after a weekday comes `,`, `..` or a space"));
        }
    }
}

fn weekday(reader: &mut Reader<'_>) -> Result<usize, BadWhen> {
    let name = reader.letters();
    let is = |(short, long): &(&str, &str)| {
        name.eq_ignore_ascii_case(short) || name.eq_ignore_ascii_case(long)
    };
    WEEKDAYS.iter().position(is).ok_or_else(|| {
        let why = format!("`{name}` is not a weekday such as `Mon`, nor a word such as `daily`");
        bad(reader.column - name.len(), why)
    })
}

/// Weekdays as they are printed: three and more in a row are a range.
fn weekdays_text(days: u64) -> String {
    let mut text: Vec<String> = Vec::new();
    let mut day = 0;
    while day < PRINTED.len() {
        let row = (!(days >> day)).trailing_zeros();
        let row = usize::try_from(row).unwrap_or(0).min(PRINTED.len() - day);
        let names: Vec<_> = PRINTED.iter().skip(day).take(row).copied().collect();
        match names.as_slice() {
            [first, _, .., last] => text.push(format!("{first}..{last}")),
            few => text.extend(few.iter().map(|name| (*name).to_owned())),
        }
        day += row + 1;
    }
    text.join(",")
}

/// Takes the zone off the end: the last of several words, if it begins like a
/// name.
fn split_zone<'w, 't>(words: &'w [Word<'t>]) -> Result<(&'w [Word<'t>], Option<Zone>), BadWhen> {
    let [before @ .., (column, last)] = words else {
        return Ok((words, None));
    };
    if before.is_empty() || !last.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Ok((words, None));
    }
    if last.eq_ignore_ascii_case("UTC") {
        return Ok((before, Some(Zone::utc())));
    }
    let zone = last.parse::<Zone>();
    let zone = zone.map_err(|error| bad(*column, error.to_string()))?;
    Ok((before, Some(zone)))
}

impl FromStr for Calendar {
    type Err = BadWhen;

    fn from_str(text: &str) -> Result<Self, BadWhen> {
        let words = super::words(text)?;
        let (words, zone) = split_zone(&words)?;
        let (column, first) = words.first().ok_or(BadWhen::Empty)?;
        if first.starts_with('@') {
            let why = "a single moment is not a schedule: submit a task with a start time";
            return Err(bad(*column, why));
        }
        let known = WORDS
            .iter()
            .find(|(word, _)| words.len() == 1 && word.eq_ignore_ascii_case(first));
        let parts = match known {
            Some((_, meaning)) => Parts::read(&super::words(meaning)?)?,
            None => Parts::read(words)?,
        };
        let mut text = parts.to_string();
        if let Some(zone) = &zone {
            text.push(' ');
            text.push_str(zone.name());
        }
        let grid = parts.grid();
        super::fires(&grid, &text)?;
        Ok(Self { grid, zone, text })
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
