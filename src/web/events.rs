//! What happened of late, newest first.

use maud::{Markup, html};
use serde_json::Value;

use crate::api::events::{EventInfo, EventPage};
use crate::api::problem::Wire;
use crate::api::visit::Visit;

use super::frame::Page;
use super::parts::{clock_time, cut, state};

/// Events on the page.
const PAGE: i64 = 100;

pub(super) async fn page(visit: &Visit) -> Result<Page, Wire> {
    let end: EventPage = visit.get("/v1/events?limit=1").await?;
    let until = Visit::value(&visit.query, "until").and_then(|text| text.parse().ok());
    let until = until.unwrap_or(end.last).clamp(0, end.last);
    let after = (until - PAGE).max(0);
    let path = format!("/v1/events?after={after}&limit={PAGE}");
    let mut page: EventPage = visit.get(&path).await?;
    page.events.retain(|event| event.seq <= until);
    let body = html! {
        h1 { "Events" }
        div #events data-live="" { (rows(&page.events)) }
        @if after >= end.oldest {
            p { a href={ "/events?until=" (after) } rel="next" { "Older events" } }
        }
    };
    Ok(Page::new("Events", "/events", body))
}

/// Events in rows, newest first.
pub(super) fn rows(events: &[EventInfo]) -> Markup {
    html! {
        @if events.is_empty() { p .quiet { "Nothing." } } @else {
            div .wide tabindex="0" role="region" aria-label="Events" {
                table {
                    thead { tr {
                        th .number scope="col" { "At" } th scope="col" { "What" }
                        th .number scope="col" { "Task" } th scope="col" { "Queue" }
                        th scope="col" { "By" } th scope="col" { "More" }
                    } }
                    tbody { @for event in events.iter().rev() { (row(event)) } }
                }
            }
        }
    }
}

/// What goes with an event, in words.
fn told(data: &Value) -> String {
    let word = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let Some(pairs) = data.as_object() else {
        return if data.is_null() {
            String::new()
        } else {
            cut(&word(data), 160)
        };
    };
    let pairs = pairs
        .iter()
        .filter(|(_, value)| !value.is_null() && value.as_str() != Some(""));
    let pairs: Vec<_> = pairs
        .map(|(name, value)| format!("{name} {}", word(value)))
        .collect();
    cut(&pairs.join(", "), 160)
}

fn row(event: &EventInfo) -> Markup {
    html! {
        tr {
            td .number { (clock_time(event.at)) }
            td { (state(&event.kind)) }
            td .number {
                @if event.task > 0 {
                    a href={ "/tasks/" (event.task) } { (event.task) }
                    @if event.attempt > 0 { " / " (event.attempt) }
                }
            }
            td { (event.queue.as_deref().unwrap_or_default()) }
            td .who-did { @if let Some(uid) = event.actor { "user " (uid) } }
            td .why { (told(&event.data)) }
        }
    }
}
