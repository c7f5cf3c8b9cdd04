//! Signing in with a token, and out again.

use axum::response::Response;
use hyper::StatusCode;
use maud::html;

use crate::api::visit::Visit;

use super::frame::{self, Page};
use super::{hold, see, see_with};

/// The page on which one says who one is.
pub(super) fn page(visit: &Visit, status: StatusCode, why: Option<&str>) -> Response {
    if visit.who.is_some() {
        return see("/");
    }
    let back = if visit.path == "/sign-in" {
        Visit::value(&visit.form, "to").unwrap_or("/")
    } else {
        &visit.path
    };
    let body = html! {
        div .narrow {
            h1 { "Sign in" }
            p { "With a token, such as " code { "taskdaemon token new" } " makes. On the daemon's own host "
                code { "taskdaemon web" } " needs none." }
            @if let Some(why) = why { div .problem role="alert" { p { (why) } } }
            form method="post" action="/sign-in" data-plain="" {
                input type="hidden" name="to" value=(back);
                p .field {
                    label for="token" { "Token" }
                    input type="password" id="token" name="token" required
                        autocomplete="current-password" autofocus;
                }
                button .main { "Sign in" }
            }
        }
    };
    frame::page(visit, status, &Page::new("Sign in", "", body))
}

/// What the form of that page does.
pub(super) fn enter(visit: &Visit) -> Response {
    let token = Visit::value(&visit.form, "token").unwrap_or_default();
    match visit.sign_in(token) {
        Ok(cookie) => {
            let to = Visit::value(&visit.form, "to").unwrap_or("/");
            let is_ours = to.starts_with('/') && !to.starts_with("//") && hold(to);
            see_with(if is_ours { to } else { "/" }, &cookie)
        }
        Err(problem) => page(visit, problem.status, Some(&problem.detail)),
    }
}

/// Signs out.
pub(super) fn leave(visit: &Visit) -> Response {
    see_with("/sign-in", &visit.sign_out())
}
