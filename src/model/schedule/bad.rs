//! Why a text is not a schedule.

use std::time::Duration;

use crate::model::quantity::format_duration;

/// Why a text does not say when. Each message points at the place and says
/// what would be right there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadWhen {
    /// Longer than any sensible schedule.
    #[error("the schedule has {bytes} bytes: at most 256 are read")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Nothing there.
    #[error(
        "the schedule is empty: write a cron expression such as `0 5 * * *`, a calendar expression \
         such as `Mon..Fri 05:00` or an interval such as `every 90s`"
    )]
    Empty,
    /// A letter that no schedule has, such as a no-break space.
    #[error(
        "column {column}: {found:?} cannot be in a schedule: it is ASCII, and only spaces and tabs separate"
    )]
    Letter {
        /// Where, in characters, from 1.
        column: usize,
        /// The letter.
        found: char,
    },
    /// Not five fields.
    #[error(
        "a cron expression has five fields (minute, hour, day of month, month, day of week), this has {found}"
    )]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// A `@word` that is not read.
    #[error("`{found}`: {why}")]
    Word {
        /// The word.
        found: String,
        /// What would be right.
        why: &'static str,
    },
    /// A cron field breaks the rules.
    #[error("cron expression, {field}, column {column}: {why}")]
    Cron {
        /// Which of the five.
        field: &'static str,
        /// Where in the whole text, from 1.
        column: usize,
        /// What is wrong there, and what would be right.
        why: String,
    },
    /// A calendar expression breaks the rules.
    #[error("calendar expression, column {column}: {why}")]
    Calendar {
        /// Where in the whole text, from 1.
        column: usize,
        /// What is wrong there, and what would be right.
        why: String,
    },
    /// An interval breaks the rules.
    #[error("interval: {why}")]
    Interval {
        /// What is wrong, and what would be right.
        why: String,
    },
    /// A delay longer than it can be of use.
    #[error("a jitter of {} is too long: at most {}", format_duration(*jitter), format_duration(*most))]
    Jitter {
        /// The one asked for.
        jitter: Duration,
        /// The longest there may be.
        most: Duration,
    },
    /// Well-formed, but of no date there is.
    #[error("`{text}` never fires: no date from 1970 to 2199 is like that")]
    NeverFires {
        /// The expression.
        text: String,
    },
}

/// Why a name is not a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a time zone: write an IANA name such as `Europe/Berlin` or `UTC`{hint}")]
pub struct BadZone {
    /// The name, cut short.
    pub(super) name: String,
    /// What it was perhaps meant to be.
    pub(super) hint: String,
}
