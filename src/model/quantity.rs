//! How long and how big, as people write them: `1m30s`, `64KiB`.
//!
//! One strict grammar for configuration, command line and HTTP, written out at
//! [`parse_duration`] and [`ByteSize`]. It is small on purpose: the crates for
//! this accept a number of spellings for one unit, fractions, signs, spaces or
//! calendar months (humantime, jiff), or a `K` that is 1000 in one place and
//! 1024 in another (bytesize); a limit must not depend on such a guess.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Units of time, largest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of size. The first that divides a size evenly prints it, so the
/// binary ones come first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Why a text is not a quantity. Each message names what was found and what
/// would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuantity {
    /// Nothing, a sign, a fraction, a space: no digit where one must be.
    #[error("expected digits and a unit, such as `{example}`, found `{found}`")]
    NoDigits {
        /// The text from where digits were expected.
        found: String,
        /// A correct quantity of the kind.
        example: &'static str,
    },
    /// Digits and nothing after them.
    #[error("`{digits}` has no unit: write `{digits}{unit}` or another of {known}")]
    NoUnit {
        /// The bare number.
        digits: String,
        /// The unit most likely meant.
        unit: &'static str,
        /// All units.
        known: &'static str,
    },
    /// A unit that does not exist.
    #[error("unknown unit `{found}`: the units are {known}")]
    UnknownUnit {
        /// What stands where the unit should.
        found: String,
        /// All units.
        known: &'static str,
    },
    /// A unit twice, or a smaller one before a larger.
    #[error("`{found}` is out of order: each unit at most once, the largest first")]
    Order {
        /// The unit at fault.
        found: String,
    },
    /// More than can be counted.
    #[error("`{found}` is too large")]
    TooLarge {
        /// The whole text.
        found: String,
    },
}

/// All units of time, for messages.
const TIME_KNOWN: &str = "`ms`, `s`, `m`, `h`, `d`";
/// All units of size, for messages.
const SIZE_KNOWN: &str = "`B`, `KiB`, `MiB`, `GiB`, `TiB` (1024) and `KB`, `MB`, `GB`, `TB` (1000)";
/// Longest piece of input repeated in a message.
const QUOTED: usize = 40;

/// Reads a duration: digits and a unit, one or more times, the largest unit
/// first and each at most once: `250ms`, `10s`, `1m30s`, `2h`, `1d`. No sign,
/// fraction, space or bare number.
///
/// # Errors
///
/// Says which part of the text breaks the rule.
pub fn parse_duration(text: &str) -> Result<Duration, BadQuantity> {
    let mut rest = text;
    let mut smallest = u64::MAX;
    let mut total: u64 = 0;
    loop {
        let (number, unit, after) = split(rest, "1m30s", "s", TIME_KNOWN)?;
        let Some(&(_, millis)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(BadQuantity::UnknownUnit {
                found: quote(unit),
                known: TIME_KNOWN,
            });
        };
        if millis >= smallest {
            return Err(BadQuantity::Order { found: quote(unit) });
        }
        smallest = millis;
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(millis))
            .and_then(|part| total.checked_add(part))
            // Stored times are signed microseconds.
            .filter(|sum| *sum <= i64::MAX.unsigned_abs() / 1000)
            .ok_or_else(|| BadQuantity::TooLarge { found: quote(text) })?;
        rest = after;
        if rest.is_empty() {
            return Ok(Duration::from_millis(total));
        }
    }
}

/// Writes a duration the way [`parse_duration`] reads it. What is below a
/// millisecond is cut off; nothing at all is `0s`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, millis) in TIME_UNITS {
        if left >= millis {
            text.push_str(&format!("{}{unit}", left / millis));
            left %= millis;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// A number of bytes.
///
/// As text: digits and one unit, `B`, `KiB`, `MiB`, `GiB`,
/// `TiB` (powers of 1024) or `KB`, `MB`, `GB`, `TB` (powers of 1000). A bare
/// number and a bare `K` or `M` are refused, because they mean different
/// things to different people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a memory size; the largest one where memory is
    /// smaller than that.
    #[must_use]
    pub fn in_memory(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// So many times 1024 bytes.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many times 1024 KiB.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl FromStr for ByteSize {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let (number, unit, after) = split(text, "64KiB", "KiB", SIZE_KNOWN)?;
        let known = SIZE_UNITS.iter().find(|(name, _)| *name == unit);
        let (Some(&(_, bytes)), "") = (known, after) else {
            return Err(BadQuantity::UnknownUnit {
                found: quote(&text[number.len()..]),
                known: SIZE_KNOWN,
            });
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(bytes))
            .filter(|sum| *sum <= i64::MAX.unsigned_abs())
            .map(Self)
            .ok_or_else(|| BadQuantity::TooLarge { found: quote(text) })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let even = SIZE_UNITS
            .iter()
            .find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes));
        match even {
            Some((unit, bytes)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Quantity {
            read: str::parse,
            expected: "a size such as \"64KiB\"",
        })
    }
}

/// For `#[serde(with = …)]` on a [`Duration`] field.
pub mod duration {
    use super::{Duration, Quantity, format_duration, parse_duration};
    use serde::{Deserializer, Serializer};

    /// Writes the duration as text.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*duration))
    }

    /// Reads the duration from text.
    ///
    /// # Errors
    ///
    /// Those of [`parse_duration`], and anything that is not text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(Quantity {
            read: parse_duration,
            expected: "a duration such as \"10s\" or \"1m30s\"",
        })
    }
}

/// Reads a quantity out of whatever holds text, and says what was expected
/// when it holds something else.
struct Quantity<T> {
    read: fn(&str) -> Result<T, BadQuantity>,
    expected: &'static str,
}

impl<T> serde::de::Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }
}

/// Cuts digits and the letters after them off the front of a text.
fn split<'t>(
    text: &'t str,
    example: &'static str,
    unit: &'static str,
    known: &'static str,
) -> Result<(&'t str, &'t str, &'t str), BadQuantity> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    if digits == 0 {
        return Err(BadQuantity::NoDigits {
            found: quote(text),
            example,
        });
    }
    let (number, rest) = text.split_at(digits);
    if rest.is_empty() {
        return Err(BadQuantity::NoUnit {
            digits: quote(number),
            unit,
            known,
        });
    }
    let letters = rest
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    Ok((number, unit, after))
}

/// Input as it may stand in a message: short, and on one line.
fn quote(text: &str) -> String {
    text.chars()
        .take(QUOTED)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_the_same() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            let duration = parse_duration(text).expect(text);
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(format_duration(duration), text);
        }
        assert_eq!(format_duration(Duration::from_secs(60)), "1m");
    }

    #[test]
    fn sizes_read_and_print_the_same() {
        for (text, bytes) in [
            ("0B", 0),
            ("1B", 1),
            ("64KiB", 65_536),
            ("10MiB", 10_485_760),
            ("1GB", 1_000_000_000),
            ("3TiB", 3 << 40),
        ] {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), text);
        }
    }

    #[test]
    fn bad_quantities_are_refused() {
        for text in [
            "",
            "10",
            "-1s",
            "+1s",
            "1.5h",
            "1 s",
            " 1s",
            "1s ",
            "s",
            "1S",
            "1sec",
            "1w",
            "1s1s",
            "1s1m",
            "1ms1s",
            "1h1",
            "99999999999999999999s",
            "9999999999999d",
            "١s",
            "1s\n",
        ] {
            assert!(
                parse_duration(text).is_err(),
                "{text:?} was read as a duration"
            );
        }
        for text in [
            "",
            "10",
            "1K",
            "1Ki",
            "1k",
            "1kb",
            "1M",
            "1e9",
            "-1",
            "-1KiB",
            "1.5MiB",
            "1 MiB",
            "1KiB2",
            "1KiB1B",
            "99999999999999999999B",
            "16777216TiB",
            "KiB",
            "1MIB",
        ] {
            assert!(
                text.parse::<ByteSize>().is_err(),
                "{text:?} was read as a size"
            );
        }
    }

    #[test]
    fn the_message_says_what_to_write() {
        let error = |text| parse_duration(text).expect_err("bad").to_string();
        assert!(error("10").contains("write `10s`"), "{}", error("10"));
        assert!(
            error("5 parsecs").contains("unknown unit ` parsecs`"),
            "{}",
            error("5 parsecs")
        );
        let error = "1K".parse::<ByteSize>().expect_err("bad").to_string();
        assert!(error.contains("`KiB`") && error.contains("`KB`"), "{error}");
    }
}
