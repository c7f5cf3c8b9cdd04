//! Limits that may be absent: `"none"` where a limit would stand.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::quantity::{BadQuantity, format_duration, parse_duration};

/// At most so much, or as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound<T> {
    /// No limit.
    Unbounded,
    /// At most this.
    Most(T),
}

impl<T: Copy> Bound<T> {
    /// The limit, where there is one.
    #[must_use]
    pub const fn most(self) -> Option<T> {
        match self {
            Self::Unbounded => None,
            Self::Most(most) => Some(most),
        }
    }
}

/// A span of time, written as `14d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age(pub Duration);

impl Age {
    /// So many days.
    #[must_use]
    pub const fn days(count: u64) -> Self {
        Self(Duration::from_secs(count * 86_400))
    }
}

impl FromStr for Age {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        parse_duration(text).map(Self)
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::quantity::duration::deserialize(deserializer).map(Self)
    }
}

impl<T: Serialize> Serialize for Bound<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unbounded => serializer.serialize_str("none"),
            Self::Most(most) => most.serialize(serializer),
        }
    }
}

impl<'de, T> Deserialize<'de> for Bound<T>
where
    T: FromStr,
    T::Err: Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written(PhantomData))
    }
}

struct Written<T>(PhantomData<T>);

impl<T> Visitor<'_> for Written<T>
where
    T: FromStr,
    T::Err: Display,
{
    type Value = Bound<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a limit, or \"none\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bound<T>, E> {
        match text {
            "none" => Ok(Bound::Unbounded),
            text => text.parse().map(Bound::Most).map_err(|error: T::Err| {
                E::custom(format_args!(
                    "{error}; write `none` for no limit, or a limit"
                ))
            }),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Bound<T>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Bound<T>, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_as_it_is_written_and_none_is_one() {
        let age = |text: &str| serde_json::from_str::<Bound<Age>>(text);
        let count = |text: &str| serde_json::from_str::<Bound<u64>>(text);
        assert_eq!(age("\"14d\"").unwrap(), Bound::Most(Age::days(14)));
        assert_eq!(age("\"none\"").unwrap(), Bound::Unbounded);
        assert_eq!(count("7").unwrap(), Bound::Most(7));
        assert_eq!(count("\"none\"").unwrap().most(), None);
        for bad in ["14", "\"14\"", "\"\"", "\"never\"", "-1", "null"] {
            assert!(age(bad).is_err(), "{bad}");
        }
        for bad in ["-1", "\"x\"", "1.5", "true"] {
            assert!(count(bad).is_err(), "{bad}");
        }
        let text = serde_json::to_string(&Bound::Most(Age::days(14))).unwrap();
        assert_eq!(text, "\"14d\"");
    }
}
