//! Reading a file's text into a tree of values, and finding a value again.
//!
//! One serde visitor serves TOML and YAML: it keeps every value and refuses a
//! key that stands twice. Neither format gives positions to serde, but both
//! give the position of an error; [`locate`] therefore reads the text once
//! more and fails on purpose at the value in question. Meaning is not judged
//! here.

use std::fmt;

use figment::value::{Dict, Empty, Tag, Value};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// A format of configuration files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The usual one.
    Toml,
    /// For those who have everything in YAML; by the file's ending.
    Yaml,
}

/// A text that could not be read.
#[derive(Debug)]
pub(super) struct Fault {
    /// What is wrong.
    pub(super) message: String,
    /// Line and column, from 1.
    pub(super) position: Option<(usize, usize)>,
}

/// What to find in a text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// The last key of the path.
    Key,
    /// The value that the path leads to.
    Value,
}

impl Format {
    /// Reads a whole file: a table of values.
    pub(super) fn parse(self, text: &str) -> Result<Dict, Fault> {
        let problem = |message: &str| Fault {
            message: message.to_owned(),
            position: Some((1, 1)),
        };
        match self.read(text, Tree)? {
            Value::Dict(_, dict) => Ok(dict),
            // All commented out.
            Value::Empty(..) => Ok(Dict::new()),
            Value::String(..)
            | Value::Char(..)
            | Value::Bool(..)
            | Value::Num(..)
            | Value::Array(..) => Err(problem("expected a table of settings")),
        }
    }

    /// Line and column of a key or value; arrays on the way are looked through.
    pub(super) fn locate(
        self,
        text: &str,
        path: &[&str],
        target: Target,
    ) -> Option<(usize, usize)> {
        self.read(text, Locate { path, target })
            .err()
            .and_then(|fault| fault.position)
    }

    fn read<S, T>(self, text: &str, seed: S) -> Result<T, Fault>
    where
        S: for<'de> DeserializeSeed<'de, Value = T>,
    {
        match self {
            Self::Toml => toml::Deserializer::parse(text)
                .and_then(|deserializer| seed.deserialize(deserializer))
                .map_err(|error| Fault {
                    message: error.message().to_owned(),
                    position: error.span().map(|span| position(text, span.start)),
                }),
            Self::Yaml => seed
                .deserialize(serde_yaml_ng::Deserializer::from_str(text))
                .map_err(|error| {
                    let message = error.to_string();
                    let position = error.location().map(|place| (place.line(), place.column()));
                    let cut = message.rfind(" at line ").unwrap_or(message.len());
                    Fault {
                        message: message[..cut].to_owned(),
                        position,
                    }
                }),
        }
    }
}

/// Line and column, from 1 and in characters, of a byte of a text.
pub(super) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[start..].chars().count() + 1,
    )
}

/// Keeps everything.
struct Tree;

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Empty(Tag::Default, Empty::Unit))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut dict = Dict::new();
        while let Some(key) = map.next_key_seed(NewKey(&dict))? {
            let value = map.next_value_seed(Self)?;
            dict.insert(key, value);
        }
        Ok(dict.into())
    }
}

/// A key that must not be there yet. Fails in the key itself, so that the
/// error has the key's position.
struct NewKey<'d>(&'d Dict);

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        if self.0.contains_key(key) {
            return Err(E::custom(format_args!("duplicate key `{key}`")));
        }
        Ok(key.to_owned())
    }
}

/// Fails at the place it looks for, and nowhere else.
#[derive(Clone, Copy)]
struct Locate<'p> {
    path: &'p [&'p str],
    target: Target,
}

const FOUND: &str = "here";

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Locate<'_> {
    fn leaf<E: serde::de::Error>(self) -> Result<(), E> {
        if self.path.is_empty() {
            Err(E::custom(FOUND))
        } else {
            Ok(())
        }
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.leaf()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.leaf()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.leaf()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.path.is_empty() {
            return Err(A::Error::custom(FOUND));
        }
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let [first, rest @ ..] = self.path else {
            return Err(A::Error::custom(FOUND));
        };
        let stop = rest.is_empty() && matches!(self.target, Target::Key);
        while let Some(matches) = map.next_key_seed(KeyIs { key: first, stop })? {
            if matches {
                map.next_value_seed(Locate { path: rest, ..self })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Compares a key, and fails in it when it is the one to stop at.
struct KeyIs<'p> {
    key: &'p str,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        let same = key == self.key;
        if same && self.stop {
            Err(E::custom(FOUND))
        } else {
            Ok(same)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str =
        "log = 'x'\n[api]\n  body_max = 5\ntokens = [{ name = 'a' },\n  { nam = 'b' }]\n";
    const YAML: &str = "log: x\napi:\n  body_max: 5\n  tokens:\n    - name: a\n    - nam: b\n";

    #[test]
    fn values_and_keys_are_found_again() {
        for (format, text, path, key, value) in [
            (Format::Toml, TOML, &["log"][..], (1, 1), (1, 7)),
            (Format::Toml, TOML, &["api", "body_max"], (3, 3), (3, 14)),
            (
                Format::Toml,
                TOML,
                &["api", "tokens", "nam"],
                (5, 5),
                (5, 11),
            ),
            (Format::Yaml, YAML, &["log"], (1, 1), (1, 6)),
            (Format::Yaml, YAML, &["api", "body_max"], (3, 3), (3, 13)),
            (
                Format::Yaml,
                YAML,
                &["api", "tokens", "nam"],
                (6, 7),
                (6, 12),
            ),
        ] {
            assert_eq!(
                format.locate(text, path, Target::Key),
                Some(key),
                "{format:?} {path:?}"
            );
            assert_eq!(
                format.locate(text, path, Target::Value),
                Some(value),
                "{format:?} {path:?}"
            );
        }
        assert_eq!(
            Format::Toml.locate(TOML, &["api", "none"], Target::Key),
            None
        );
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_where_it_stands() {
        for (format, text, at) in [
            (Format::Toml, "a = 1\nb = 2\na = 3\n", (3, 1)),
            (Format::Yaml, "a: 1\nb: 2\na: 3\n", (3, 1)),
            (Format::Yaml, "e:\n  a: 1\n  a: 2\n", (3, 3)),
        ] {
            let fault = format.parse(text).expect_err(text);
            assert_eq!(fault.position, Some(at), "{}", fault.message);
            assert!(fault.message.contains("duplicate key"), "{}", fault.message);
        }
    }
}
