//! One component of a calendar expression: a list of numbers, ranges and
//! repetitions.

use super::bad::BadWhen;
use super::grid::{LAST_YEAR, SECOND, Span};

/// A component: what it is called and its lowest and highest number.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) low: i64,
    pub(super) high: i64,
    /// What one is: a second counts in microseconds.
    pub(super) unit: i64,
    /// Digits that are printed at least.
    pub(super) width: usize,
}

pub(super) const YEAR: Part = Part::new("year", 1970, LAST_YEAR, 4);
pub(super) const MONTH: Part = Part::new("month", 1, 12, 2);
pub(super) const DAY: Part = Part::new("day", 1, 31, 2);
/// Days before the end of the month, the last one 1: what each month has.
pub(super) const DAY_FROM_END: Part = Part::new("day from the end of the month", 1, 28, 2);
pub(super) const HOUR: Part = Part::new("hour", 0, 23, 2);
pub(super) const MINUTE: Part = Part::new("minute", 0, 59, 2);
pub(super) const SECONDS: Part = Part {
    name: "second",
    low: 0,
    high: 60 * SECOND - 1,
    unit: SECOND,
    width: 2,
};

/// A number, a range or a repetition. Sorts as it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    start: i64,
    stop: Option<i64>,
    repeat: Option<i64>,
}

/// A list of links; an empty one is `*`.
pub(super) type Chain = Vec<Link>;

/// What is read of a text, and where it stands in the whole.
pub(super) struct Reader<'t> {
    rest: &'t str,
    pub(super) column: usize,
}

impl<'t> Reader<'t> {
    pub(super) const fn new(text: &'t str, column: usize) -> Self {
        Self { rest: text, column }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been taken yet.
    pub(super) const fn rest(&self) -> &'t str {
        self.rest
    }

    /// Takes a sign if it is the next.
    pub(super) fn take(&mut self, sign: &str) -> bool {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                self.column += sign.len();
                true
            }
            None => false,
        }
    }

    /// Takes the digits that come next.
    fn digits(&mut self) -> &'t str {
        self.all(|c| c.is_ascii_digit())
    }

    /// Takes the letters that come next.
    pub(super) fn letters(&mut self) -> &'t str {
        self.all(|c| c.is_ascii_alphabetic())
    }

    fn all(&mut self, is: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|c| !is(c));
        let (taken, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        self.column += taken.len();
        taken
    }

    pub(super) fn bad(&self, why: impl Into<String>) -> BadWhen {
        bad(self.column, why)
    }
}

/// A fault of a calendar expression.
pub(super) fn bad(column: usize, why: impl Into<String>) -> BadWhen {
    let why = why.into();
    BadWhen::Calendar { column, why }
}

impl Part {
    const fn new(name: &'static str, low: i64, high: i64, width: usize) -> Self {
        Self {
            name,
            low,
            high,
            unit: 1,
            width,
        }
    }

    /// Reads a list up to a sign that does not belong to it.
    pub(super) fn read(&self, reader: &mut Reader<'_>) -> Result<Chain, BadWhen> {
        if reader.take("*") {
            if reader.take("/") {
                let low = if self.low == 0 { "0" } else { "1" };
                return Err(reader.bad(format!("`*` takes no repetition: write `{low}/…`")));
            }
            return Ok(Vec::new());
        }
        let mut chain = Vec::new();
        loop {
            chain.push(self.link(reader)?);
            if !reader.take(",") {
                break;
            }
        }
        chain.sort_unstable();
        chain.dedup();
        // Each second and something besides is each second.
        let each = |link: &Link| {
            *link
                == Link {
                    start: 0,
                    stop: None,
                    repeat: Some(self.unit),
                }
        };
        if self.unit > 1 && chain.iter().any(each) {
            chain.clear();
        }
        Ok(chain)
    }

    /// Reads one link, and puts it the way it is compared and printed.
    fn link(&self, reader: &mut Reader<'_>) -> Result<Link, BadWhen> {
        let column = reader.column;
        let start = self.number(reader)?;
        let mut stop = None;
        let mut repeat = None;
        if reader.take("..") {
            stop = Some(self.number(reader)?);
            repeat = Some(self.unit);
        }
        if reader.take("/") {
            let step = self.plain(reader)?;
            if step == 0 {
                return Err(bad(column, "a repetition of 0"));
            }
            repeat = Some(step);
        } else if self.unit > 1 && stop.is_some_and(|stop| start + self.unit > stop) {
            let why = "a range of less than a second: say how often with `/`";
            return Err(bad(column, why));
        }
        if let (Some(last), Some(step)) = (stop, repeat) {
            if last < start {
                return Err(bad(column, "this range runs backwards"));
            }
            let last = last - (last - start) % step;
            stop = Some(last);
            if last == start {
                (stop, repeat) = (None, None);
            }
        }
        let link = Link {
            start,
            stop,
            repeat,
        };
        self.check(link, column)?;
        Ok(link)
    }

    /// Refuses what is out of bounds, and a repetition that never comes.
    fn check(&self, link: Link, column: usize) -> Result<(), BadWhen> {
        let within = |number: &i64| (self.low..=self.high).contains(number);
        if !within(&link.start) || link.stop.is_some_and(|stop| !within(&stop)) {
            let (low, high) = (self.low, self.high / self.unit);
            let name = self.name;
            return Err(bad(
                column,
                format!("the {name} is not from {low} to {high}"),
            ));
        }
        let repeat = link.repeat.unwrap_or(0);
        let room = match link.stop {
            Some(stop) => stop - link.start,
            // Repetitions of these go towards the first of the month.
            None if self.is_from_end() => link.start - self.low,
            None => self.high - link.start,
        };
        if repeat > room {
            return Err(bad(column, "this repetition never comes"));
        }
        Ok(())
    }

    const fn is_from_end(&self) -> bool {
        self.high == DAY_FROM_END.high
    }

    /// A number; years of two digits are those from 1970 to 2069.
    fn number(&self, reader: &mut Reader<'_>) -> Result<i64, BadWhen> {
        let number = self.plain(reader)?;
        Ok(match number {
            0..70 if self.low == YEAR.low => number + 2000,
            70..100 if self.low == YEAR.low => number + 1900,
            _ => number,
        })
    }

    /// A number as it stands, seconds with up to six decimals and rounded.
    fn plain(&self, reader: &mut Reader<'_>) -> Result<i64, BadWhen> {
        let column = reader.column;
        let digits = reader.digits();
        if digits.is_empty() {
            return Err(reader.bad(format!("a number is missing here (the {})", self.name)));
        }
        let whole: Option<i64> = digits.parse::<i32>().ok().map(i64::from);
        let whole = whole.and_then(|whole| whole.checked_mul(self.unit));
        let Some(whole) = whole.filter(|whole| *whole <= i64::from(i32::MAX)) else {
            return Err(bad(column, format!("the {} is too large", self.name)));
        };
        if self.unit == 1 || reader.rest.starts_with("..") || !reader.take(".") {
            return Ok(whole);
        }
        let decimals = reader.digits();
        if decimals.is_empty() {
            return Err(reader.bad("decimals are missing here"));
        }
        let mut micros = 0;
        let mut place = self.unit;
        for digit in decimals.chars().take(6).filter_map(|c| c.to_digit(10)) {
            place /= 10;
            micros += i64::from(digit) * place;
        }
        let round_up = decimals.chars().nth(6).is_some_and(|digit| digit >= '5');
        Ok(whole + micros + i64::from(round_up))
    }

    /// The numbers a list stands for.
    pub(super) fn spans(&self, chain: &Chain) -> Vec<Span> {
        if chain.is_empty() {
            return vec![Span {
                first: self.low,
                last: self.high,
                step: self.unit,
            }];
        }
        chain.iter().map(|link| self.span(*link)).collect()
    }

    fn span(&self, link: Link) -> Span {
        let step = link.repeat.unwrap_or(1);
        let open = if link.repeat.is_some() {
            self.high
        } else {
            link.start
        };
        let (first, last) = (link.start, link.stop.unwrap_or(open));
        if self.is_from_end() && link.repeat.is_some() && link.stop.is_none() {
            // From the start towards the end of the month, which is 1.
            let first = (link.start - self.low) % step + self.low;
            return Span {
                first,
                last: link.start,
                step,
            };
        }
        Span { first, last, step }
    }

    /// The numbers a list stands for, as bits.
    pub(super) fn bits(&self, chain: &Chain) -> u64 {
        let spans = self.spans(chain);
        let numbers = |span: &Span| {
            let step = usize::try_from(span.step).unwrap_or(1);
            (span.first..=span.last).step_by(step)
        };
        let all = spans.iter().flat_map(numbers);
        all.fold(0, |bits, number| bits | 1 << number)
    }

    /// A list as it is printed.
    pub(super) fn text(&self, chain: &Chain) -> String {
        if chain.is_empty() {
            return "*".to_owned();
        }
        let links: Vec<_> = chain.iter().map(|link| self.link_text(*link)).collect();
        links.join(",")
    }

    fn link_text(&self, link: Link) -> String {
        let number = |number: i64, width: usize| {
            let whole = format!("{:0width$}", number / self.unit);
            match number % self.unit {
                0 => whole,
                micros => format!("{whole}.{micros:06}"),
            }
        };
        let mut text = number(link.start, self.width);
        if let Some(stop) = link.stop {
            text.push_str("..");
            text.push_str(&number(stop, self.width));
        }
        if let Some(repeat) = link.repeat
            && (link.stop.is_none() || repeat != self.unit)
        {
            text.push('/');
            text.push_str(&number(repeat, 1));
        }
        text
    }
}
