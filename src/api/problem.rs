//! Errors on the wire: one JSON object of RFC 9457 for every refusal.
//!
//! It has a `code` that programs may go by and a `detail` for people. What an
//! error means is decided by the engine; here it only gets its status.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::agents::ask::Refused;
use crate::engine::command::Error;
use crate::engine::relay::NoCall;
use crate::model::invalid::Invalid;
use crate::model::task::Refusal;

/// Media type of an error.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable name, in `snake_case`.
    pub code: &'static str,
    /// What was wrong and what would be right.
    pub detail: String,
    /// The field at fault.
    pub field: Option<String>,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u32>,
}

/// A problem as it travels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct Wire {
    /// A URN with the code in it.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The status in words.
    #[serde(default)]
    pub title: String,
    /// HTTP status.
    #[serde(default)]
    pub status: u16,
    /// Stable name.
    #[serde(default)]
    pub code: String,
    /// What was wrong and what would be right.
    #[serde(default)]
    pub detail: String,
    /// The field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Problem {
    /// A problem with a status, a code and a sentence.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            field: None,
            retry_after: None,
        }
    }

    /// A malformed request.
    pub fn bad(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// A request that is well formed and says something impossible.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let field = field.into();
        let detail = detail.into();
        Self {
            detail: format!("{field}: {detail}"),
            field: Some(field),
            ..Self::bad("invalid", "")
        }
    }

    /// Something the caller may not do.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "not_permitted", detail)
    }

    /// The daemon is going down; the same request will work when it is back.
    #[must_use]
    pub fn stopping() -> Self {
        Self::from(Error::Stopping)
    }

    /// The same problem, worth another try after so many seconds.
    #[must_use]
    pub const fn after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The problem as it travels.
    #[must_use]
    pub fn wire(&self) -> Wire {
        Wire {
            kind: format!("urn:taskdaemon:error:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail.clone(),
            field: self.field.clone(),
        }
    }

    /// The problem as bytes of a body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        // A structure of plain texts and numbers always has a JSON form.
        serde_json::to_vec(&self.wire()).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// No route has this path.
#[must_use]
pub fn no_route(path: &str) -> Problem {
    let shown: String = path.chars().take(80).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_route",
        format!("there is nothing at `{}`", shown.escape_debug()),
    )
}

/// The path exists, but not for this method.
#[must_use]
pub fn wrong_method(method: &Method) -> Problem {
    let shown: String = method.as_str().chars().take(20).collect();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("this path does not answer to {shown}; see the {ALLOW} header"),
    )
}

/// The field names of the API for those of the model.
fn field_name(field: &'static str) -> &'static str {
    match field {
        "limits.memory" => "memory",
        "limits.cpu_milli" => "cpu",
        "limits.pids" => "pids",
        "retry.base_ms" => "retry.backoff",
        "retry.cap_ms" => "retry.backoff_max",
        "retry.factor_percent" => "retry.factor",
        other => other,
    }
}

/// A field that the model refused, in the words of the API.
#[must_use]
pub fn of_field(index: Option<usize>, invalid: &Invalid) -> Problem {
    let field = field_name(invalid.field);
    let reason = match invalid.field {
        "limits.cpu_milli" => "must lie between 0.01 and 1000 cores",
        "retry.factor_percent" => "must lie between 1 and 100",
        "retry.base_ms" => "must not be more than retry.backoff_max",
        _ => &invalid.reason,
    };
    match index {
        Some(index) => Problem::invalid(format!("tasks[{index}].{field}"), reason),
        None => Problem::invalid(field, reason),
    }
}

impl From<Problem> for Wire {
    fn from(problem: Problem) -> Self {
        problem.wire()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, code, retry_after) = match &error {
            Error::Invalid { index, invalid } => return of_field(*index, invalid),
            Error::NotFound(_) => (StatusCode::NOT_FOUND, "task_not_found", None),
            Error::NoSchedule(_) => (StatusCode::NOT_FOUND, "schedule_not_found", None),
            Error::ScheduleExists(_) => (StatusCode::CONFLICT, "schedule_exists", None),
            Error::TooManySchedules(_) => (StatusCode::CONFLICT, "too_many_schedules", None),
            Error::StillRunning(_) => (StatusCode::CONFLICT, "still_running", None),
            Error::NoQueue(_) => (StatusCode::NOT_FOUND, "queue_not_found", None),
            Error::Model(why) => match why {
                NoCall::Unknown(_) => (StatusCode::NOT_FOUND, "model_not_found", None),
                NoCall::OtherDialect(_) => (StatusCode::BAD_REQUEST, "other_dialect", None),
                NoCall::Barred { .. } => (StatusCode::CONFLICT, "model_barred", None),
                NoCall::Budget(_) => (StatusCode::PAYMENT_REQUIRED, "budget", None),
            },
            Error::Agent(why) => match why {
                Refused::NotFound(_) => (StatusCode::NOT_FOUND, "agent_not_found", None),
                Refused::Exists(_) => (StatusCode::CONFLICT, "agent_exists", None),
                Refused::Goes(_) => (StatusCode::CONFLICT, "agent_stops", Some(1)),
                Refused::TooMany { .. } => (StatusCode::CONFLICT, "too_many_agents", None),
                Refused::Loop(..) => (StatusCode::CONFLICT, "agent_loop", None),
            },
            Error::Draining(_) => (StatusCode::CONFLICT, "queue_draining", None),
            Error::QueueInUse { .. } => (StatusCode::CONFLICT, "queue_in_use", None),
            Error::AdminOnly(_) => (StatusCode::FORBIDDEN, "not_permitted", None),
            Error::Quota { .. } => (StatusCode::CONFLICT, "quota", None),
            Error::TooFast { wait, .. } => {
                let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
                let after = Some(seconds.saturating_add(1));
                (StatusCode::TOO_MANY_REQUESTS, "rate_limited", after)
            }
            Error::Refused(refusal) => (StatusCode::CONFLICT, refusal_code(refusal), None),
            Error::KeyReused { .. } => (StatusCode::CONFLICT, "key_reused", None),
            Error::UniqueHeld { .. } => (StatusCode::CONFLICT, "unique_key_held", None),
            Error::ParentFailed { .. } => (StatusCode::CONFLICT, "parent_failed", None),
            Error::Unenforceable(_) | Error::NoPauseIn { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "unenforceable", None)
            }
            Error::BacklogFull(_) => (StatusCode::SERVICE_UNAVAILABLE, "backlog_full", Some(10)),
            Error::DiskFull(_) => (StatusCode::INSUFFICIENT_STORAGE, "disk_full", Some(30)),
            Error::ReadOnly => (StatusCode::SERVICE_UNAVAILABLE, "read_only", Some(30)),
            Error::Locked => (StatusCode::SERVICE_UNAVAILABLE, "database_locked", Some(5)),
            Error::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", Some(1)),
            Error::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", Some(1)),
            Error::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", Some(1)),
            Error::Storage(_) => (StatusCode::INTERNAL_SERVER_ERROR, "storage", None),
        };
        Self {
            status,
            code,
            detail: error.to_string(),
            field: None,
            retry_after,
        }
    }
}

const fn refusal_code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Fenced(_) => "fenced",
        Refusal::OfAgent { .. } => "of_agent",
        Refusal::Over { .. } => "already_over",
        Refusal::Unfit { .. } => "wrong_state",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::TaskId;

    #[test]
    fn engine_errors_have_the_documented_status_and_code() {
        let rows: [(Error, u16, &str); 6] = [
            (Error::NotFound(TaskId(7)), 404, "task_not_found"),
            (Error::Busy, 503, "busy"),
            (Error::Stopping, 503, "stopping"),
            (Error::Unknown, 503, "outcome_unknown"),
            (Error::Unenforceable("memory"), 422, "unenforceable"),
            (
                Error::KeyReused {
                    key: "k".to_owned(),
                    task: TaskId(1),
                },
                409,
                "key_reused",
            ),
        ];
        for (error, status, code) in rows {
            let wire = Problem::from(error).wire();
            assert_eq!((wire.status, wire.code.as_str()), (status, code));
            assert!(wire.kind.ends_with(code), "{wire:?}");
            assert!(!wire.detail.is_empty(), "{wire:?}");
        }
    }
}
