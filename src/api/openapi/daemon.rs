//! Routes about the daemon itself, and about what happened, as they are told.

use crate::api::activity::ActivityPage;
use crate::api::admin::{Reloaded, Status, Word};
use crate::api::events::EventPage;
use crate::api::health::{Health, Written};
use crate::api::models::{ModelInfo, ModelList};

use super::routes::{LAST_EVENT, LIMIT};
use super::told::Form::{Document, Events, Figures};
use super::told::Values::{Moment, Number, Switch, Text};
use super::told::{Told, one, told};

pub(super) fn about_what_happened() -> Vec<Told> {
    vec![
        told(
            "GET /v1/activity",
            "listActivity",
            "What happened of late, newest first.",
        )
        .query([
            one("task", Number(1, i64::MAX as u64), "Only about this task."),
            one("queue", Text, "Only about tasks of this queue."),
            one("kind", Text, "Only these kinds, separated by commas."),
            one("user", Text, "Only what this user asked for, by name or uid."),
            one("request", Text, "Only what the request with this `X-Request-Id` asked for."),
            one("since", Moment, "Only at this time and later."),
            LIMIT,
            one("cursor", Number(0, i64::MAX as u64), "Where the page begins: `next` of the page before."),
        ])
        .sends::<ActivityPage>(200, "A page of events."),
        told("GET /v1/events",
            "listEvents",
            "What happened, oldest first: as a page or, with `Accept: text/event-stream`, as it comes.",
        )
        .query([
            one("after", Number(0, i64::MAX as u64), "Only events with higher numbers."),
            one("task", Number(1, i64::MAX as u64), "Only events of this task."),
            one("queue", Text, "Only events of this queue's tasks."),
            one("kind", Text, "Only these kinds, separated by commas."),
            LIMIT,
            one("follow", Switch, "Go on as a stream of events."),
        ])
        .headers([LAST_EVENT])
        .sends::<EventPage>(200, "A page of events.")
        .sends_as(
            200,
            "Each event with its number as `id`; beside them `begin`, `progress`, `gap` and `end`.",
            Events,
        ),
    ]
}

pub(super) fn about_the_daemon() -> Vec<Told> {
    vec![
        told(
            "GET /v1/models",
            "listModels",
            "Lists models, and how their limits stand.",
        )
        .sends::<ModelList>(200, "All models."),
        told("GET /v1/models/{model}", "showModel", "A model.")
            .sends::<ModelInfo>(200, "The model."),
        told("GET /v1/status", "showStatus", "What the daemon is doing.")
            .sends::<Status>(200, "The status."),
        told(
            "POST /v1/reload",
            "reload",
            "Reads the configuration again.",
        )
        .sends::<Reloaded>(200, "What changed."),
        told(
            "POST /v1/probe",
            "probe",
            "Writes something, and answers when it is on disk.",
        )
        .sends::<Written>(200, "How long that took."),
        told("GET /v1/openapi.json", "describe", "This description.").sends_as(
            200,
            "An OpenAPI document.",
            Document,
        ),
        told(
            "GET /metrics",
            "showMetrics",
            "What the daemon counts, for Prometheus.",
        )
        .sends_as(200, "Figures.", Figures),
        told("GET /live", "isLive", "Whether the program answers.").sends::<Word>(200, "It does."),
        told("GET /ready", "isReady", "Whether the daemon does its work.")
            .sends::<Word>(200, "It does."),
        told(
            "GET /health",
            "showHealth",
            "How well the daemon is, and why.",
        )
        .sends::<Health>(200, "It works.")
        .sends::<Health>(503, "It does not."),
    ]
}
