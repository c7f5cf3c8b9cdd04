//! Five-field cron expressions, as Debian's cron reads them.
//!
//! The crates for this read another dialect: they want seconds, take `*/2` in
//! a day field for a restriction, or make up for no gap; so the fields are
//! read here.

use std::fmt;
use std::str::FromStr;

use super::Word;
use super::bad::BadWhen;
use super::grid::{Days, Grid, Span};
use super::nominal::{self, Change};
use super::zone::Zone;
use crate::model::time::Time;

/// A field: what it is called, its lowest and highest number, and the names
/// of its numbers, the lowest first.
struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field::plain("minute", 0, 59),
    Field::plain("hour", 0, 23),
    Field::plain("day of month", 1, 31),
    Field {
        name: "month",
        low: 1,
        high: 12,
        names: &MONTHS,
    },
    Field {
        name: "day of week",
        low: 0,
        high: 7,
        names: &WEEKDAYS,
    },
];

/// Words that stand for five fields.
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron expression: minute, hour, day of month, month, day of week.
///
/// A field is a list of `*`, `*/step`, `a`, `a-b` and `a-b/step`, separated by
/// commas. Months and days of the week have three-letter English names in any
/// case; Sunday is 0 and 7. `@yearly`, `@annually`, `@monthly`, `@weekly`,
/// `@daily`, `@midnight` and `@hourly` stand for five fields.
///
/// **Days.** Where one of the two day fields begins with `*`, a day must
/// match both; otherwise one is enough: `0 0 13 * 5` fires on each 13th and
/// on each Friday. `*/2` begins with `*`: `0 0 */2 * 1` fires on the Mondays
/// that are odd days.
///
/// **Changes of the clock** of less than three hours, such as daylight saving
/// time. An expression whose minute or hour field begins with `*` goes by real
/// time: a local time that is left out does not fire, one that comes twice
/// fires twice. Any other is at fixed times: what falls into the part that is
/// left out fires once, at the moment after it, together with what is due at
/// that moment; what comes twice fires the first time. Changes of three hours
/// and more are real time for all.
///
/// **Refused**, though Debian's cron reads them in silence: ranges that run
/// backwards (they never fire), steps larger than the field has numbers, and
/// letters after a complete field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    grid: Grid,
    change: Change,
    text: String,
}

impl Cron {
    /// The first nominal time strictly after another; none after the year 2199.
    pub(super) fn next(&self, zone: &Zone, after: Time) -> Option<Time> {
        nominal::next(&self.grid, self.change, zone, after)
    }
}

impl Field {
    const fn plain(name: &'static str, low: u32, high: u32) -> Self {
        Self {
            name,
            low,
            high,
            names: &[],
        }
    }

    fn bad(&self, column: usize, why: impl Into<String>) -> BadWhen {
        BadWhen::Cron {
            field: self.name,
            column,
            why: why.into(),
        }
    }

    /// The numbers of a list, as bits.
    fn list(&self, text: &str, mut column: usize) -> Result<u64, BadWhen> {
        let mut set = 0;
        for item in text.split(',') {
            set |= self.item(item, column)?;
            column += item.len() + 1;
        }
        Ok(set)
    }

    fn item(&self, item: &str, column: usize) -> Result<u64, BadWhen> {
        if item.is_empty() {
            return Err(self.bad(column, "a number, a range or `*` is missing here"));
        }
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.low, self.high),
            Some((first, last)) => {
                let place = column + first.len() + 1;
                (self.number(first, column)?, self.number(last, place)?)
            }
            None => {
                let number = self.number(range, column)?;
                if step.is_some() {
                    return Err(self.bad(
                        column,
                        format!(
                            "a step needs a range: write `{range}-{}/…` or `*/…`",
                            self.high
                        ),
                    ));
                }
                (number, number)
            }
        };
        if first > last {
            let sunday = if self.high == 7 && last == 0 {
                "; at the end of a range Sunday is 7"
            } else {
                ""
            };
            return Err(self.bad(column, format!("`{range}` runs backwards{sunday}")));
        }
        let step = match step {
            Some(step) => self.step(step, column + range.len() + 1)?,
            None => 1,
        };
        Ok((first..=last)
            .step_by(step)
            .fold(0, |set, number| set | 1 << number))
    }

    fn number(&self, text: &str, column: usize) -> Result<u32, BadWhen> {
        let named = self
            .names
            .iter()
            .zip(self.low..)
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        if let Some((_, number)) = named {
            return Ok(number);
        }
        let (low, high) = (self.low, self.high);
        let example = self.names.first();
        let or_name =
            example.map_or_else(String::new, |name| format!(" or a name such as `{name}`"));
        let wanted = format!("a number from {low} to {high}{or_name}");
        if text.is_empty() {
            return Err(self.bad(column, format!("{wanted} is missing here")));
        }
        let sign = text.trim_matches(|c: char| c.is_ascii_digit());
        if ["L", "W", "LW", "?"].contains(&sign) || sign.contains('#') {
            return Err(self.bad(
                column,
                format!(
                    "`{text}`: `L`, `W`, `#` and `?` are not cron's; \
                     a calendar expression such as `*-*~1` can say it"
                ),
            ));
        }
        digits(text)
            .filter(|number| (low..=high).contains(number))
            .ok_or_else(|| self.bad(column, format!("`{text}` is not {wanted}")))
    }

    fn step(&self, text: &str, column: usize) -> Result<usize, BadWhen> {
        let most = self.high - self.low + 1;
        digits(text)
            .filter(|step| (1..=most).contains(step))
            .and_then(|step| usize::try_from(step).ok())
            .ok_or_else(|| {
                let why = format!("`{text}` is not a step from 1 to {most}");
                self.bad(column, why)
            })
    }
}

/// A number of digits only.
fn digits(text: &str) -> Option<u32> {
    text.chars()
        .all(|c| c.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Five fields of a word that starts with `@`.
fn meaning(word: &str) -> Result<&'static str, BadWhen> {
    let known = WORDS.iter().find(|(name, _)| *name == word);
    known.map(|(_, fields)| *fields).ok_or_else(|| BadWhen::Word {
        found: word.to_owned(),
        why: match word {
            "@reboot" => {
                "a schedule goes by the clock, and a restart is no time of it: \
                 let a systemd unit submit the task at boot"
            }
            _ if word.starts_with("@every") => "write an interval such as `every 90s`",
            _ => {
                "known are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly, \
                 in small letters"
            }
        },
    })
}

impl FromStr for Cron {
    type Err = BadWhen;

    fn from_str(text: &str) -> Result<Self, BadWhen> {
        let words = super::words(text)?;
        let ((_, first), rest) = words.split_first().ok_or(BadWhen::Empty)?;
        if first.starts_with('@') {
            let mut cron: Self = meaning(first)?.parse()?;
            if let Some((_, more)) = rest.first() {
                return Err(BadWhen::Word {
                    found: (*more).to_owned(),
                    why: "nothing can follow a word with `@`",
                });
            }
            cron.text = (*first).to_owned();
            return Ok(cron);
        }
        let found = words.len();
        let words: [Word<'_>; 5] = words.try_into().map_err(|_| BadWhen::Fields { found })?;
        let mut sets = [0; 5];
        for ((field, (column, word)), set) in FIELDS.iter().zip(words).zip(&mut sets) {
            *set = field.list(word, column)?;
        }
        let star = words.map(|(_, word)| word.starts_with('*'));
        let text = words.map(|(_, word)| word.to_ascii_lowercase()).join(" ");
        let [minutes, hours, from_start, months, sundays_first] = sets;
        let [minute_star, hour_star, day_star, _, weekday_star] = star;
        let sunday = (sundays_first | sundays_first >> 7) & 1;
        let grid = Grid {
            years: Vec::new(),
            months,
            days: Days {
                from_start,
                from_end: 0,
                weekdays: (sundays_first >> 1) & 0x3f | sunday << 6,
                either: !(day_star || weekday_star),
            },
            hours,
            minutes,
            seconds: vec![Span {
                first: 0,
                last: 0,
                step: 1,
            }],
        };
        let change = if minute_star || hour_star {
            Change::Real
        } else {
            Change::Fixed
        };
        super::fires(&grid, &text)?;
        Ok(Self { grid, change, text })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
