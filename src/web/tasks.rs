//! The list of tasks: chosen by a filter, some or all of them cancelled or
//! retried; and the form that hands one in.

use maud::{Markup, html};

use crate::api::bulk::Counted;
use crate::api::dto;
use crate::api::pairs::encode;
use crate::api::problem::Wire;
use crate::api::visit::Visit;
use crate::model::task::State;

use super::frame::{self, Page, field};
use super::parts::rows;

/// Parameters by which tasks are chosen.
pub(super) const FILTER: [&str; 4] = ["state", "queue", "name", "label"];
/// Tasks on a page.
const PAGE: u32 = 50;

pub(super) async fn page(visit: &Visit) -> Result<Page, Wire> {
    let chosen = filter(&visit.query);
    let mut path = format!("/v1/tasks?limit={PAGE}");
    let cursor = Visit::value(&visit.query, "cursor").map(|value| ("cursor", value));
    for (name, value) in chosen.iter().copied().chain(cursor) {
        path.push_str(&format!("&{name}={}", encode(value)));
    }
    let page: dto::Page = visit.get(&path).await?;
    let may_change = visit.may("POST", "/v1/tasks/cancel");
    let body = html! {
        h1 { "Tasks" }
        (told(visit))
        (sieve(&chosen))
        form #several method="post" action="/tasks/cancel" {
            (frame::stamp(visit))
            @for (name, value) in &chosen { input type="hidden" name=(name) value=(value); }
            @if may_change && !page.tasks.is_empty() { (buttons()) }
            div #rows data-live="" {
                @if page.tasks.is_empty() { p .quiet { "No task is like that." } }
                @else { (rows(&page.tasks, may_change)) }
                @if !page.damaged.is_empty() {
                    p .problem { "Rows of tasks that cannot be read: " (list(&page.damaged)) }
                }
            }
        }
        @if let Some(next) = &page.next {
            p { a href={ "/tasks?" (query(&chosen)) "cursor=" (next) } rel="next" { "Older tasks" } }
        }
        @if visit.may("POST", "/v1/tasks") { section { h2 { "Hand in" } (hand_in(visit)) } }
    };
    Ok(Page::new("Tasks", "/tasks", body))
}

/// Which tasks are meant.
pub(super) fn filter(pairs: &[(String, String)]) -> Vec<(&'static str, &str)> {
    let given = FILTER.iter().map(|name| (*name, Visit::value(pairs, name)));
    given
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
}

/// The same as a part of an address, with `&` at its end.
pub(super) fn query(chosen: &[(&'static str, &str)]) -> String {
    let pairs = chosen.iter();
    pairs
        .map(|(name, value)| format!("{name}={}&", encode(value)))
        .collect()
}

fn list(numbers: &[i64]) -> String {
    let numbers: Vec<_> = numbers.iter().map(i64::to_string).collect();
    numbers.join(", ")
}

fn sieve(chosen: &[(&'static str, &str)]) -> Markup {
    let value = |wanted: &str| {
        let found = chosen.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| *value).unwrap_or_default()
    };
    // A link may ask for several states at once, which the list of words has not.
    let state = value("state");
    let is_known = State::from_word(state).is_some();
    html! {
        form .sieve method="get" action="/tasks" role="search" {
            p .field {
                label for="state" { "State" }
                select id="state" name="state" {
                    option value="" { "any" }
                    @if !state.is_empty() && !is_known { option value=(state) selected { (state) } }
                    @for word in State::ALL.map(State::word) {
                        option value=(word) selected[word == state] { (word) }
                    }
                }
            }
            (field("queue", "queue", "Queue", "any", value("queue")))
            (field("name", "name", "Name has", "any", value("name")))
            (field("label", "label", "Label", "name=value", value("label")))
            button { "Show" }
            @if !chosen.is_empty() { a href="/tasks" { "Show all" } }
        }
    }
}

fn buttons() -> Markup {
    html! {
        p .several {
            button formaction="/tasks/cancel" { "Cancel chosen" }
            button formaction="/tasks/retry" { "Retry chosen" }
            button .plain formaction="/tasks/cancel" name="all" value="1" { "Cancel all like these …" }
            button .plain formaction="/tasks/retry" name="all" value="1" { "Retry all like these …" }
        }
    }
}

/// What became of the tasks that were just changed, in numbers only.
fn told(visit: &Visit) -> Markup {
    let number = |name| Visit::value(&visit.query, name).and_then(|text| text.parse::<u64>().ok());
    let verb = match Visit::value(&visit.query, "did") {
        Some("cancel") => "cancelled",
        Some("retry") => "handed in again",
        _ => return html! {},
    };
    html! {
        p .told role="status" {
            (number("changed").unwrap_or(0)) " " (verb)
            @if let Some(refused) = number("refused").filter(|count| *count > 0) {
                ", " (refused) " not: they may not be as they are"
            }
        }
    }
}

/// Asks whether all tasks that a filter selects are really meant.
pub(super) fn sure(visit: &Visit, verb: &str, count: &Counted) -> Page {
    let chosen = filter(&visit.form);
    let title = format!("Really {verb} {} tasks?", count.matched);
    let body = html! {
        h1 { (title) }
        @if chosen.is_empty() { p { "All there are that this can be done to." } }
        @else { p { "Those with " @for (name, value) in &chosen { code { (name) " = " (value) } " " } } }
        form method="post" action={ "/tasks/" (verb) } {
            (frame::stamp(visit))
            @for (name, value) in &chosen { input type="hidden" name=(name) value=(value); }
            input type="hidden" name="all" value="1";
            p .several {
                button .risky name="sure" value="1" { "Yes, " (verb) " them" }
                a href={ "/tasks?" (query(&chosen)) } { "No" }
            }
        }
    };
    Page::new(title.clone(), "/tasks", body)
}

/// The form that hands in a command.
pub(super) fn hand_in(visit: &Visit) -> Markup {
    let body = html! {
        // Sent twice, it is one task.
        input type="hidden" name="once" value=(visit.once());
        div .grid {
            p .field .long {
                label for="command" { "Command, as a shell reads it" }
                input type="text" id="command" name="command" required placeholder="echo hello"
                    autocomplete="off" autocapitalize="off" spellcheck="false";
            }
            (field("task-name", "name", "Name", "none", ""))
            (field("task-queue", "queue", "Queue", "default", ""))
            (field("delay", "delay", "Not before", "now, or 10m", ""))
            (field("tries", "tries", "Tries", "1", ""))
        }
        button .main { "Run" }
    };
    frame::form(visit, "/tasks", body)
}
