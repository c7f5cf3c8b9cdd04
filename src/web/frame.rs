//! What all pages have: the head, the ways to the others, who looks, and forms
//! that bring back the page's own stamp.

use axum::response::Response;
use hyper::StatusCode;
use maud::{DOCTYPE, Markup, html};

use crate::api::problem::Wire;
use crate::api::visit::Visit;

use super::sent;

/// The pages in the row of names at the top.
pub(super) const SECTIONS: [(&str, &str); 7] = [
    ("Overview", "/"),
    ("Tasks", "/tasks"),
    ("Queues", "/queues"),
    ("Schedules", "/schedules"),
    ("Agents", "/agents"),
    ("Providers", "/providers"),
    ("Events", "/events"),
];

/// What is peculiar to a page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) title: String,
    /// Path of the section that it belongs to.
    pub(super) section: &'static str,
    pub(super) body: Markup,
}

impl Page {
    pub(super) fn new(title: impl Into<String>, section: &'static str, body: Markup) -> Self {
        Self {
            title: title.into(),
            section,
            body,
        }
    }

    /// Why there is no page.
    pub(super) fn of_problem(wire: &Wire) -> Self {
        let title = match wire.status {
            403 => "Not permitted",
            404 => "Not found",
            400..=499 => "Not done",
            _ => "Not possible now",
        };
        let body = html! {
            h1 { (title) }
            div .problem role="alert" {
                p { (wire.detail) }
                p .quiet { code { (wire.code) } }
            }
        };
        Self::new(title, "", body)
    }
}

/// A whole page.
pub(super) fn page(visit: &Visit, status: StatusCode, page: &Page) -> Response {
    let whole = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.title) " · taskdaemon" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
                script src="/page.js" defer {}
            }
            body {
                a .skip href="#main" { "To the content" }
                header {
                    a .brand href="/" { span .sign aria-hidden="true" {} "taskdaemon" }
                    @if visit.who.is_some() {
                        (sections(page.section))
                        (who(visit))
                    }
                }
                main #main tabindex="-1" { (page.body) }
            }
        }
    };
    sent(status, "text/html", whole.into_string())
}

fn sections(here: &str) -> Markup {
    html! {
        nav aria-label="Pages" {
            @for (name, path) in SECTIONS {
                a href=(path) aria-current=[(path == here).then_some("page")] { (name) }
            }
        }
    }
}

fn who(visit: &Visit) -> Markup {
    html! {
        div .who {
            span #link .link role="status" { "not live" }
            @if let Some(who) = visit.who {
                span .quiet { "user " (who.uid) ", " (who.role.word()) }
                @if who.in_session {
                    (button(visit, "/sign-out", "Sign out", "plain"))
                }
            }
        }
    }
}

/// A form that is a button.
pub(super) fn button(visit: &Visit, action: &str, word: &str, class: &str) -> Markup {
    form(visit, action, html! { button class=(class) { (word) } })
}

/// The same for what cannot be undone: it is asked about first.
pub(super) fn careful(visit: &Visit, action: &str, word: &str, question: &str) -> Markup {
    html! {
        form .act method="post" action=(action) data-sure=(question) {
            (stamp(visit))
            button .risky { (word) }
        }
    }
}

/// A form.
pub(super) fn form(visit: &Visit, action: &str, body: Markup) -> Markup {
    html! {
        form .act method="post" action=(action) {
            (stamp(visit))
            (body)
        }
    }
}

/// What shows that a form is ours.
pub(super) fn stamp(visit: &Visit) -> Markup {
    html! { input type="hidden" name="stamp" value=(visit.stamp()); }
}

/// A field of a form with its name, and what it is for.
pub(super) fn field(id: &str, name: &str, label: &str, hint: &str, value: &str) -> Markup {
    html! {
        p .field {
            label for=(id) { (label) }
            input type="text" id=(id) name=(name) value=(value) placeholder=(hint)
                autocomplete="off" autocapitalize="off" spellcheck="false";
        }
    }
}
