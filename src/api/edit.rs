//! Changing a task that waits: a part of what a submit has, with the same
//! names. What is absent stays as it is, and `null` takes something away.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::{Request, StatusCode};
use schemars::JsonSchema;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::clock;
use crate::engine::command::Caller;
use crate::model::edit::Edit;
use crate::model::time::Time;

use super::dto::TaskInfo;
use super::number::Span;
use super::problem::Problem;
use super::query::task_id;
use super::{Shared, body, head, json, submit};

/// A change of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "TaskChange")]
pub struct Change {
    /// Program and arguments.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    pub command: Option<Vec<String>>,
    /// Variables; those that are not named stay.
    #[serde(skip_serializing_if = "PairChanges::is_empty")]
    pub env: PairChanges,
    /// Working directory.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Option<String>>,
    /// Name for people.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<Option<String>>,
    /// Queue.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub queue: Option<String>,
    /// Higher starts first.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub priority: Option<i32>,
    /// Labels; those that are not named stay.
    #[serde(skip_serializing_if = "PairChanges::is_empty")]
    pub labels: PairChanges,
    /// Time limit of one attempt.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Option<Span>>,
    /// Not to be started before this time, in RFC 3339 form.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub run_at: Option<Option<String>>,
    /// Not to be started before so much time has passed.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Span")]
    pub delay: Option<Span>,
}

/// Names with their new texts, no name twice; without a text where the name is
/// to go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PairChanges(pub BTreeMap<String, Option<String>>);

impl PairChanges {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for PairChanges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = PairChanges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PairChanges, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Option<String>>()? {
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
                Ok(PairChanges(pairs))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// A field that is there, `null` where its type has it; and not, as for an
/// optional field, the same as one that is absent.
fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// `PATCH /v1/tasks/{id}`.
pub(super) async fn edit(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    let (parts, body) = request.into_parts();
    head::require_json(&parts.headers)?;
    let bytes = body::read(&shared, &parts.headers, body).await?;
    let edit = in_model(json::parse(&bytes)?, clock::now())?;
    let task = shared.handle.edit(caller, id, edit).await?;
    Ok(json::answer(StatusCode::OK, &TaskInfo::of_task(&task)))
}

fn in_model(change: Change, now: Time) -> Result<Edit, Problem> {
    if change == Change::default() {
        let detail = "the change names no field: say what is to be different";
        return Err(Problem::bad("empty_change", detail));
    }
    let run_at = match (change.run_at, change.delay) {
        (Some(_), Some(_)) => {
            let detail = "cannot be combined with run_at";
            return Err(Problem::invalid("delay", detail));
        }
        (Some(Some(text)), None) => Some(Some(submit::moment("run_at", &text)?)),
        (Some(None), None) => Some(None),
        (None, Some(delay)) => Some(Some(now.after(delay.0))),
        (None, None) => None,
    };
    Ok(Edit {
        command: change.command,
        env: change.env.0,
        cwd: change.cwd,
        name: change.name,
        queue: change.queue,
        priority: change.priority,
        labels: change.labels.0,
        timeout_ms: change.timeout.map(|limit| limit.map(Span::millis)),
        run_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Edit, Problem> {
        in_model(json::parse(json.as_bytes())?, Time::from_micros(1_000_000))
    }

    #[test]
    fn absent_stays_and_null_takes_away() {
        let edit = read(
            r#"{"name":null,"timeout":null,"cwd":"/","labels":{"a":null,"b":"1"},"delay":"1s"}"#,
        )
        .unwrap();
        assert_eq!(edit.name, Some(None));
        assert_eq!(edit.timeout_ms, Some(None));
        assert_eq!(edit.cwd, Some(Some("/".to_owned())));
        assert_eq!(edit.labels["a"], None);
        assert_eq!(edit.labels["b"].as_deref(), Some("1"));
        assert_eq!(edit.run_at, Some(Some(Time::from_micros(2_000_000))));
        assert_eq!((edit.command, edit.priority), (None, None));
    }

    #[test]
    fn a_change_that_makes_no_sense_is_refused() {
        for (json, code, words) in [
            ("{}", "empty_change", "names no field"),
            ("[]", "bad_json", "object"),
            (r#"{"priorty":1}"#, "unknown_field", "`priority`"),
            (r#"{"key":"k"}"#, "unknown_field", "key"),
            (r#"{"priority":null}"#, "bad_json", "null"),
            (r#"{"queue":null}"#, "bad_json", "null"),
            (r#"{"command":null}"#, "bad_json", "null"),
            (r#"{"priority":1.5}"#, "bad_json", "1.5"),
            (
                r#"{"priority":1,"priority":2}"#,
                "duplicate_field",
                "priority",
            ),
            (r#"{"labels":{"a":"1","a":null}}"#, "duplicate_field", "`a`"),
            (r#"{"run_at":"tomorrow"}"#, "invalid", "run_at"),
            (r#"{"run_at":null,"delay":"1s"}"#, "invalid", "delay"),
            (r#"{"timeout":"30"}"#, "bad_json", "unit"),
        ] {
            let problem = read(json).unwrap_err();
            assert_eq!(problem.code, code, "{json}: {}", problem.detail);
            assert!(problem.detail.contains(words), "{json}: {}", problem.detail);
        }
    }
}
