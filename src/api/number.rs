//! Small values on the wire: numbers and times, each with a unit or a fixed
//! meaning and never rounded; pairs of texts, no name twice.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::quantity::{BadQuantity, duration, parse_duration};
use crate::model::time::Time;

/// Whether a value is the one that is left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A duration with its unit, such as `"30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "duration")] pub Duration);

impl Span {
    /// The duration in milliseconds.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl std::str::FromStr for Span {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_duration(text).map(Self)
    }
}

/// CPU time in thousandths of a core. Written as a number of cores (`1.5`,
/// `"1.5"`) or as a share of one (`"150%"`), the two ways people and systemd
/// write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores(pub u32);

/// A growth factor in hundredths, written as a number such as `2` or `1.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factor(pub u32);

/// A word, or a whole number, as the text that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(pub String);

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<u64>() {
            Ok(number) => serializer.serialize_u64(number),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Decimal {
            expected: "a word or a whole number",
            read: |text| Ok(Self(text.to_owned())),
        })
    }
}

/// A decimal number as a whole number of parts, never rounded.
fn parts(text: &str, decimals: usize) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let fraction = fraction.trim_end_matches('0');
    let plain = digits(whole) && (fraction.is_empty() || digits(fraction));
    if !plain || fraction.len() > decimals || text.ends_with('.') {
        return None;
    }
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}

impl std::str::FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let milli = match text.strip_suffix('%') {
            Some(percent) => parts(percent, 1),
            None => parts(text, 3),
        };
        milli.map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            let shown = shown.escape_debug();
            format!("`{shown}` is not a number of cores such as 1.5, or a share such as 150%")
        })
    }
}

impl std::str::FromStr for Factor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parts(text, 2)
            .map(Self)
            .ok_or_else(|| "is not a number such as 2 or 1.5, with two decimals".to_owned())
    }
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

impl Serialize for Factor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 100.0)
    }
}

/// Reads a number or its text form.
struct Decimal<T> {
    expected: &'static str,
    read: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Decimal<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        (self.read)(&number.to_string()).map_err(E::custom)
    }

    // What TOML has for every whole number.
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        (self.read)(&number.to_string()).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        (self.read)(&number.to_string()).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Decimal {
            expected: "a number of cores such as 1.5, or a share such as \"150%\"",
            read: str::parse,
        })
    }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Decimal {
            expected: "a number such as 2 or 1.5",
            read: str::parse,
        })
    }
}

/// A time on the wire: RFC 3339, UTC, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub Time);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_microsecond(self.0.micros()) {
            Ok(time) => write!(f, "{time:.6}"),
            // Beyond the year 9999 there is no RFC 3339 form.
            Err(_) => f.write_str("9999-12-31T23:59:59.999999Z"),
        }
    }
}

/// Reads a time in RFC 3339 form.
#[must_use]
pub fn parse_time(text: &str) -> Option<Time> {
    let strict = text.as_bytes().get(10) == Some(&b'T') && !text.contains('[');
    let time: Timestamp = text.parse().ok().filter(|_| strict)?;
    Some(Time::from_micros(time.as_microsecond()))
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_time(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("not a time in RFC 3339 form"))
    }
}

/// Names and texts, no name twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Pairs(pub BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    match pairs.entry(name) {
                        Entry::Vacant(place) => {
                            place.insert(value);
                        }
                        Entry::Occupied(place) => {
                            let name = place.key().escape_debug();
                            return Err(A::Error::custom(format!("duplicate field `{name}`")));
                        }
                    }
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_and_factors_are_never_rounded() {
        for (json, milli) in [
            ("1", Some(1000)),
            ("1.5", Some(1500)),
            ("0.001", Some(1)),
            ("\"1.5\"", Some(1500)),
            ("\"150%\"", Some(1500)),
            ("\"12.5%\"", Some(125)),
            ("0.0001", None),
            ("-1", None),
            ("1e3", Some(1_000_000)),
            ("1e30", None),
            ("\"\"", None),
            ("\"1.\"", None),
            ("\".5\"", None),
            ("\"+1\"", None),
            ("\"%\"", None),
            ("true", None),
        ] {
            let read: Result<Cores, _> = serde_json::from_str(json);
            assert_eq!(read.ok().map(|cores| cores.0), milli, "{json}");
        }
        assert_eq!("1.5".parse(), Ok(Factor(150)));
        assert!("1.555".parse::<Factor>().is_err());
    }

    #[test]
    fn times_have_microseconds_and_survive_the_round_trip() {
        let time = Time::from_micros(1_700_000_000_000_001);
        let text = Stamp(time).to_string();
        assert_eq!(text, "2023-11-14T22:13:20.000001Z");
        assert_eq!(parse_time(&text), Some(time));
        assert_eq!(
            Stamp(Time::default()).to_string(),
            "1970-01-01T00:00:00.000000Z"
        );
        assert_eq!(Stamp(Time::from_micros(i64::MAX)).to_string().len(), 27);
        for bad in [
            "",
            "tomorrow",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14 22:13:20Z",
            "2023-13-01T00:00:00Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
        assert_eq!(
            parse_time("2023-11-14T23:13:20.000001+01:00"),
            Some(time),
            "an offset is as good as Z"
        );
    }
}
