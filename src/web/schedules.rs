//! Schedules: their next times on a strip of a day, and what one does to them.

use maud::{Markup, html};

use crate::api::number::Stamp;
use crate::api::pairs::encode;
use crate::api::problem::Wire;
use crate::api::schedules::{Coming, ScheduleInfo, SchedulePage};
use crate::api::visit::Visit;
use crate::clock;

use super::frame::{Page, button, careful, field, form};
use super::parts::{brief, maybe, state};
use super::strip;

/// Times that are asked for each schedule: as many as can be told apart.
const TIMES: u32 = 300;

pub(super) async fn page(visit: &Visit) -> Result<Page, Wire> {
    let cursor = Visit::value(&visit.query, "cursor");
    let cursor = cursor.map(|at| format!("&cursor={}", encode(at)));
    let cursor = cursor.unwrap_or_default();
    let list: SchedulePage = visit
        .get(&format!("/v1/schedules?limit=50{cursor}"))
        .await?;
    let mut rows = Vec::with_capacity(list.schedules.len());
    for one in &list.schedules {
        let path = format!("/v1/schedules/{}/next?count={TIMES}", one.id);
        // One that was removed meanwhile has no times, and one that is paused
        // fires at none.
        let coming: Option<Coming> = visit.get(&path).await.ok();
        let times = coming.filter(|_| !one.paused).map(|coming| coming.next);
        rows.push((one, times.unwrap_or_default()));
    }
    let may = visit.may("POST", "/v1/schedules");
    let body = html! {
        h1 { "Schedules" }
        div #schedules data-live="" {
            @if rows.is_empty() { p .quiet { "There is none yet." } } @else { (table(visit, &rows, may)) }
        }
        @if let Some(next) = list.next { p { a href={ "/schedules?cursor=" (next) } rel="next" { "More" } } }
        @if may { section { h2 { "Add" } (add(visit)) } }
    };
    Ok(Page::new("Schedules", "/schedules", body))
}

fn table(visit: &Visit, rows: &[(&ScheduleInfo, Vec<Stamp>)], may: bool) -> Markup {
    let now = clock::now();
    html! {
        div .wide tabindex="0" role="region" aria-label="Schedules" {
            table .schedules {
                thead { tr {
                    th scope="col" { "Schedule" } th scope="col" { "When" } th .number scope="col" { "Next" }
                    th .strip scope="col" { span .unseen { "The next 24 hours" } (strip::hours(now)) }
                    @if may { th scope="col" { "Change" } }
                } }
                tbody { @for (one, times) in rows { (row(visit, one, times, may)) } }
            }
        }
    }
}

fn row(visit: &Visit, one: &ScheduleInfo, times: &[Stamp], may: bool) -> Markup {
    let act = |verb: &str| format!("/schedules/{}/{verb}", one.id);
    html! {
        tr id={ "s" (one.id) } {
            th scope="row" {
                (one.name) @if one.paused { " " (state("paused")) }
                div .quiet { code { (brief(&one.command)) } " in " (one.queue) }
            }
            td { code { (one.when) } div .quiet { (one.zone) } }
            td .number data-label="next" { (maybe(one.next_at)) }
            td .strip { (strip::day(clock::now(), times)) }
            @if may {
                td {
                    div .acts {
                        (button(visit, &act("trigger"), "Run now", "main"))
                        @if one.paused { (button(visit, &act("resume"), "Resume", "")) }
                        @else { (button(visit, &act("pause"), "Pause", "")) }
                        (careful(visit, &act("remove"), "Remove", &format!("Remove schedule {}?", one.name)))
                    }
                }
            }
        }
    }
}

fn add(visit: &Visit) -> Markup {
    let overlaps = [
        ("skip", "leave it out"),
        ("queue", "wait for it"),
        ("replace", "cancel it"),
        ("allow", "run beside it"),
    ];
    let body = html! {
        div .grid {
            p .field {
                label for="schedule-name" { "Name" }
                input type="text" id="schedule-name" name="name" required autocomplete="off" spellcheck="false";
            }
            p .field {
                label for="when" { "When" }
                input type="text" id="when" name="when" required placeholder="every 1h, or 0 5 * * *"
                    autocomplete="off" spellcheck="false";
            }
            (field("zone", "zone", "Time zone", "this host's", ""))
            p .field .long {
                label for="schedule-command" { "Command, as a shell reads it" }
                input type="text" id="schedule-command" name="command" required
                    autocomplete="off" autocapitalize="off" spellcheck="false";
            }
            (field("schedule-queue", "queue", "Queue", "default", ""))
            p .field {
                label for="overlap" { "If the one before still runs" }
                select id="overlap" name="overlap" {
                    @for (word, text) in overlaps { option value=(word) { (text) } }
                }
            }
        }
        button .main { "Add" }
    };
    form(visit, "/schedules", body)
}
