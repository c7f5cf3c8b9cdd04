//! Queues: how full they are, their limits, and what admins do to them.

use maud::{Markup, html};

use crate::api::problem::Wire;
use crate::api::queues::{QueueInfo, QueueList};
use crate::api::visit::Visit;

use super::frame::{Page, button, careful, field, form};
use super::parts::state;

pub(super) async fn page(visit: &Visit) -> Result<Page, Wire> {
    let list: QueueList = visit.get("/v1/queues").await?;
    let may = visit.may("PATCH", "/v1/queues/{queue}");
    let meant = Visit::value(&visit.query, "set");
    let meant = list
        .queues
        .iter()
        .find(|queue| Some(queue.name.as_str()) == meant);
    let body = html! {
        h1 { "Queues" }
        div #queues data-live="" {
            div .wide tabindex="0" role="region" aria-label="Queues" {
                table {
                    thead { tr {
                        th scope="col" { "Queue" } th scope="col" { "State" }
                        th .number scope="col" { "Running" } th .number scope="col" { "Queued" }
                        th .number scope="col" { "Later" } th .number scope="col" { "Blocked" }
                        th scope="col" { "Limits" }
                        @if may { th scope="col" { "Change" } }
                    } }
                    tbody { @for queue in &list.queues { (row(visit, queue, may)) } }
                }
            }
        }
        @if may { section { h2 #limits { "Set limits" } (limits(visit, meant)) } }
    };
    Ok(Page::new("Queues", "/queues", body))
}

fn row(visit: &Visit, queue: &QueueInfo, may: bool) -> Markup {
    let word = if queue.draining {
        "draining"
    } else if queue.paused {
        "paused"
    } else {
        "open"
    };
    let act = |verb: &str| format!("/queues/{}/{verb}", queue.name);
    html! {
        tr {
            th scope="row" { a href={ "/tasks?queue=" (queue.name) } { (queue.name) } }
            td { (state(word)) }
            td .number data-label="running" { (queue.running) }
            td .number data-label="queued" { (queue.queued) }
            td .number data-label="later" { (queue.scheduled) }
            td .number data-label="blocked" { (queue.blocked) }
            td { (told(queue)) }
            @if may {
                td {
                    div .acts {
                        @if word == "open" {
                            (button(visit, &act("pause"), "Pause", ""))
                            (button(visit, &act("drain"), "Drain", ""))
                        } @else {
                            (button(visit, &act("resume"), "Resume", "main"))
                        }
                        a .button href={ "/queues?set=" (queue.name) "#limits" } { "Limits" }
                        (careful(visit, &act("remove"), "Remove", &format!("Remove queue {}?", queue.name)))
                    }
                }
            }
        }
    }
}

fn told(queue: &QueueInfo) -> String {
    let mut words = Vec::new();
    if let Some(most) = queue.concurrency {
        words.push(format!("{most} at once"));
    }
    if let Some(rate) = &queue.rate {
        words.push(rate.to_string());
    }
    words.push(format!("{} of a group", queue.group_limit));
    words.join(", ")
}

/// The form that sets limits; filled in with those of the queue that is meant.
fn limits(visit: &Visit, queue: Option<&QueueInfo>) -> Markup {
    let text = |value: Option<String>| value.unwrap_or_default();
    let name = text(queue.map(|queue| queue.name.clone()));
    let concurrency = text(
        queue
            .and_then(|queue| queue.concurrency)
            .map(|most| most.to_string()),
    );
    let rate = text(
        queue
            .and_then(|queue| queue.rate.as_ref())
            .map(ToString::to_string),
    );
    let group = text(queue.map(|queue| queue.group_limit.to_string()));
    let body = html! {
        p .quiet { "All three are set: what is left empty has no limit any more. A name that is new makes a queue." }
        div .grid {
            p .field {
                label for="queue-name" { "Queue" }
                input type="text" id="queue-name" name="name" value=(name) required autocomplete="off" spellcheck="false";
            }
            (field("concurrency", "concurrency", "At once", "no limit", &concurrency))
            (field("rate", "rate", "Starts in a time", "no limit, or 10/1m", &rate))
            (field("group-limit", "group_limit", "At once of one group", "1", &group))
        }
        button .main { "Set" }
    };
    form(visit, "/queues", body)
}
