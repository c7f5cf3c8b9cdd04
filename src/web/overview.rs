//! The first page: how the house stands, what runs, what failed of late, and a
//! place to hand something in.

use maud::{Markup, html};

use crate::api::admin::Status;
use crate::api::dto;
use crate::api::health::Health;
use crate::api::problem::Wire;
use crate::api::queues::QueueList;
use crate::api::visit::Visit;
use crate::model::task::State;

use super::frame::Page;
use super::parts::{bar, rows, state, when};
use super::tasks;

/// Charts that the script draws of what it sees while the page is open.
const CHARTS: [(&str, &str); 3] = [
    ("running", "Running"),
    ("waiting", "Waiting"),
    ("ended", "Ended"),
];

pub(super) async fn page(visit: &Visit) -> Result<Page, Wire> {
    let status: Status = visit.get("/v1/status").await?;
    let live = "/v1/tasks?state=running,paused,stopping&limit=10";
    let running: dto::Page = visit.get(live).await?;
    let failed: dto::Page = visit.get("/v1/tasks?state=failed,expired&limit=5").await?;
    let queues: QueueList = visit.get("/v1/queues").await?;
    let health: Result<Health, Wire> = visit.get("/health").await;
    let body = html! {
        h1 { "Overview" }
        div #house data-live="" { (house(&status, &health)) (figures(&status)) }
        div .charts aria-hidden="true" {
            @for (name, title) in CHARTS {
                figure .chart data-chart=(name) {
                    figcaption { (title) " " output {} }
                    svg viewBox="0 0 240 48" preserveAspectRatio="none" { path .area {} path .line {} }
                }
            }
        }
        @if visit.may("POST", "/v1/tasks") { section { h2 { "Hand in" } (tasks::hand_in(visit)) } }
        section #running data-live="" {
            h2 { "Running" }
            @if running.tasks.is_empty() { p .quiet { "Nothing runs now." } } @else { (rows(&running.tasks, false)) }
        }
        section #failed data-live="" {
            h2 { "Failed of late" }
            @if failed.tasks.is_empty() { p .quiet { "Nothing failed." } } @else { (rows(&failed.tasks, false)) }
        }
        section #lanes data-live="" { h2 { "Queues" } (lanes(&queues)) }
    };
    Ok(Page::new("Overview", "/", body))
}

fn house(status: &Status, health: &Result<Health, Wire>) -> Markup {
    let (word, why) = match health {
        Ok(health) => {
            let mut parts = health.parts.iter();
            let why = parts.find_map(|part| Some(format!("{}: {}", part.name, part.why.as_ref()?)));
            (health.status.as_str(), why)
        }
        Err(wire) => ("unhealthy", Some(wire.detail.clone())),
    };
    html! {
        p .house {
            (state(word)) " "
            @if let Some(why) = why { (why) ", " }
            "version " (status.version) ", started " (when(status.started_at)) ", "
            @match &status.runner {
                Some(runner) => { "runner " (runner.pid) }
                None => { strong { "no runner: nothing is started until there is one" } }
            }
        }
    }
}

fn figures(status: &Status) -> Markup {
    let slots = status.slots;
    let words = format!("{} of {} slots", slots.used, slots.total);
    html! {
        ul .figures {
            @for (word, count) in counts(status) {
                li .none[count == 0] {
                    a href={ "/tasks?state=" (word) } { span .big { (count) } (state(word)) }
                }
            }
            li { (bar(i64::from(slots.used), i64::from(slots.total), &words)) }
        }
    }
}

/// How many tasks are in each state, in the order of a task's life.
fn counts(status: &Status) -> impl Iterator<Item = (&'static str, u64)> {
    let words = State::ALL.into_iter().map(State::word);
    words.map(|word| (word, status.tasks.get(word).copied().unwrap_or(0)))
}

fn lanes(list: &QueueList) -> Markup {
    html! {
        ul .lanes {
            @for queue in &list.queues {
                li {
                    a href={ "/tasks?queue=" (queue.name) } { (queue.name) }
                    " " (queue.running) " running, " (queue.queued) " queued, "
                    (queue.scheduled + queue.blocked) " later"
                    @if queue.paused { " " (state("paused")) }
                    @if queue.draining { " " (state("draining")) }
                }
            }
        }
    }
}
