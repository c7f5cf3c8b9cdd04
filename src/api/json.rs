//! JSON in and out. Reading is strict: unknown and repeated names, trailing
//! data and rounded numbers are errors with a position and, where a name is
//! close to a known one, a suggestion.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;

use axum::body::Body;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use strsim::osa_distance;

use super::problem::Problem;

/// Most objects in a body: ten of each of the 10,000 tasks there may be. Each
/// can become a task, of about a kilobyte.
const OBJECTS_MAX: u32 = 100_000;
/// Most values in a body: a hundred of each of the 10,000 tasks there may be.
const VALUES_MAX: u32 = 1_000_000;

/// Reads a value out of a request's body.
///
/// # Errors
/// A problem that says where and what.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    bounded(bytes)?;
    // The parser itself refuses to nest deeper than 128.
    serde_json::from_slice(bytes)
        .map(|Object(value)| value)
        .map_err(|error| explain(&error, bytes))
}

/// Refuses what would take many times its own size in memory, before any of it
/// is taken.
fn bounded(bytes: &[u8]) -> Result<(), Problem> {
    let (mut objects, mut values) = (0, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'{' if !is_text => objects += 1,
            b',' if !is_text => values += 1,
            _ => {}
        }
    }
    for (what, count, most) in [
        ("objects", objects, OBJECTS_MAX),
        ("values", values, VALUES_MAX),
    ] {
        if count > most {
            let detail = format!("the body has more than {most} {what}: hand it in in parts");
            return Err(Problem::bad("too_many_values", detail));
        }
    }
    Ok(())
}

/// A structure written as an object. The derived readers would also take a
/// list of the fields' values in their order, which nobody means.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Only<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Only<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Only(PhantomData))
    }
}

/// For a field that holds an object.
pub(super) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Object::deserialize(deserializer).map(|Object(value)| Some(value))
}

/// For a field that holds a list of objects.
pub(super) fn objects<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(Some(list.into_iter().map(|Object(value)| value).collect()))
}

fn explain(error: &serde_json::Error, bytes: &[u8]) -> Problem {
    if bytes.is_empty() {
        return Problem::bad("bad_json", "the body is empty: a JSON object is expected");
    }
    let text = error.to_string();
    let (code, field) = if let Some(name) = quoted_after(&text, "unknown field `") {
        let place = format!(" (line {}, column {})", error.line(), error.column());
        return Problem {
            field: Some(name.to_owned()),
            ..Problem::bad("unknown_field", plain(&text) + &place)
        };
    } else if let Some(name) = quoted_after(&text, "duplicate field `") {
        ("duplicate_field", Some(name.to_owned()))
    } else {
        ("bad_json", None)
    };
    Problem {
        field,
        ..Problem::bad(code, text)
    }
}

/// A parser's message in one line, and of an unknown name not all that are
/// known but the one that was meant.
#[must_use]
pub fn plain(message: &str) -> String {
    const UNKNOWN: &str = "unknown field `";
    let line = message.lines().collect::<Vec<_>>().join(" ");
    let Some((head, tail)) = line.find(UNKNOWN).map(|start| line.split_at(start)) else {
        return line;
    };
    let name = quoted_after(tail, UNKNOWN).unwrap_or_default();
    match unknown_name(name, tail) {
        Some(near) => format!("{head}{UNKNOWN}{name}`: did you mean `{near}`?"),
        None => format!("{head}{UNKNOWN}{name}`"),
    }
}

fn quoted_after<'t>(text: &'t str, lead: &str) -> Option<&'t str> {
    text.strip_prefix(lead)?.split('`').next()
}

/// The known name nearest to `name`, out of the list in the parser's message.
fn unknown_name<'t>(name: &str, message: &'t str) -> Option<&'t str> {
    let known = message
        .split('`')
        .skip(3)
        .step_by(2)
        // A hidden name for the list form, never a correction.
        .filter(|known| *known != "tasks");
    nearest(name, known)
}

/// The candidate that `name` is most likely a misspelling of.
pub(super) fn nearest<'c>(
    name: &str,
    candidates: impl Iterator<Item = &'c str>,
) -> Option<&'c str> {
    if name.len() > 40 {
        return None;
    }
    candidates
        .map(|candidate| (osa_distance(name, candidate), candidate))
        .filter(|(steps, candidate)| *steps <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Of which type an answer's value is, for those who compare that with what is
/// told of the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent(pub(super) &'static str);

/// Answers with a value.
pub(super) fn answer<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = status;
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if cfg!(debug_assertions) {
                response.extensions_mut().insert(Sent(type_name::<T>()));
            }
            response
        }
        Err(error) => {
            let detail = format!("the answer could not be written as JSON: {error}");
            let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail);
            axum::response::IntoResponse::into_response(problem)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_recognised_and_a_far_one_is_not() {
        let known = ["timeout", "command", "queue", "name", "retry"];
        for (typed, meant) in [
            ("timout", Some("timeout")),
            ("tiemout", Some("timeout")),
            ("comand", Some("command")),
            ("qeue", Some("queue")),
            ("xyzzy", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known.into_iter()), meant, "{typed}");
        }
    }

    #[test]
    fn sec_12_a_body_that_would_take_many_times_its_size_is_refused_before_it_does() {
        let many = |piece: &str, count: u32| piece.repeat(usize::try_from(count).unwrap());
        let quoted = |text: &str| format!("{{\"name\":\"{text}\\\"{text}\\\\\"}}");
        for (body, good) in [
            (many("{", OBJECTS_MAX), true),
            (many("{", OBJECTS_MAX + 1), false),
            (many("0,", VALUES_MAX), true),
            (many("0,", VALUES_MAX + 1), false),
            (quoted(&many("{,", VALUES_MAX)), true),
            (quoted("") + &many(",", VALUES_MAX + 1), false),
            (String::new(), true),
        ] {
            let judged = bounded(body.as_bytes());
            let begin: String = body.chars().take(20).collect();
            assert_eq!(judged.is_ok(), good, "{begin} {judged:?}");
            if let Err(problem) = judged {
                assert_eq!(
                    (problem.status.as_u16(), problem.code),
                    (400, "too_many_values")
                );
            }
        }
    }
}
