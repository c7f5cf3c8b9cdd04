//! Floor 4: pages for people.
//!
//! Each is made of what the API's own routes answer to the one who looks
//! (`api/visit.rs`), and each of its forms becomes a request to one of them:
//! nothing is decided here, and nothing is kept.
//!
//! Everything a page needs is in this program, and it reads well without its
//! script. That one (`page.js`) sends forms without leaving the page, and asks
//! for the page again when something has happened.

use axum::body::Body;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, SET_COOKIE};

use crate::api::problem::Wire;
use crate::api::visit::{Answering, Pages, Visit};

mod acts;
mod agents;
mod events;
mod frame;
mod graph;
mod overview;
mod parts;
mod providers;
mod queues;
mod schedules;
mod sign_in;
mod strip;
mod task;
mod tasks;

use frame::Page;

/// The pages.
pub const PAGES: Pages = Pages { hold, answer };

/// What a page may load, and from where: only what this program itself serves,
/// and nothing that stands in the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; \
                      base-uri 'none'";

/// Headers of every answer.
const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("x-frame-options", "DENY"),
    // With `no-referrer` forms would come without their origin.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// Files that pages load.
const FILES: [(&str, &str, &str); 3] = [
    ("style.css", "text/css", include_str!("style.css")),
    ("page.js", "text/javascript", include_str!("page.js")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

fn segments(path: &str) -> Vec<&str> {
    path.strip_prefix('/').unwrap_or(path).split('/').collect()
}

fn hold(path: &str) -> bool {
    match *segments(path) {
        [first] => {
            let is_file = FILES.iter().any(|(name, ..)| *name == first);
            let is_page = frame::SECTIONS
                .iter()
                .any(|(_, known)| known[1..] == *first);
            is_file || is_page || ["sign-in", "sign-out"].contains(&first)
        }
        ["tasks", _] | ["tasks" | "queues" | "schedules" | "agents", _, _] => true,
        _ => false,
    }
}

fn answer(visit: Visit) -> Answering {
    Box::pin(async move { respond(&visit).await })
}

async fn respond(visit: &Visit) -> Response {
    let path = segments(&visit.path);
    let is_post = visit.method == hyper::Method::POST;
    let looks = [hyper::Method::GET, hyper::Method::HEAD].contains(&visit.method);
    if let [name] = *path
        && let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == name)
    {
        let mut response = sent(StatusCode::OK, kind, (*text).to_owned());
        let fresh = HeaderValue::from_static("no-cache");
        response.headers_mut().insert(CACHE_CONTROL, fresh);
        return response;
    }
    let page = match *path {
        ["sign-in"] if is_post => return sign_in::enter(visit),
        ["sign-in"] if looks => return sign_in::page(visit, StatusCode::OK, None),
        _ if visit.who.is_none() => return sign_in::page(visit, StatusCode::UNAUTHORIZED, None),
        _ if is_post && !visit.is_stamped() => Err(stale()),
        ["sign-out"] if is_post => return sign_in::leave(visit),
        _ if is_post => match acts::act(visit, &path).await {
            Ok(acts::Done::See(place)) => return see(&place),
            Ok(acts::Done::Show(page)) => Ok(page),
            Err(wire) => Err(wire),
        },
        _ if !looks => Err(refusal(
            405,
            "method_not_allowed",
            "pages are read, and forms sent",
        )),
        [""] => overview::page(visit).await,
        ["tasks"] => tasks::page(visit).await,
        ["tasks", id] => task::page(visit, id).await,
        ["queues"] => queues::page(visit).await,
        ["schedules"] => schedules::page(visit).await,
        ["agents"] => agents::page(visit).await,
        ["providers"] => providers::page(visit).await,
        ["events"] => events::page(visit).await,
        _ => Err(refusal(
            404,
            "no_page",
            "there is no page here; the names above lead to those there are",
        )),
    };
    match page {
        Ok(page) => frame::page(visit, StatusCode::OK, &page),
        Err(wire) => {
            let status = StatusCode::from_u16(wire.status);
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            frame::page(visit, status, &Page::of_problem(&wire))
        }
    }
}

fn refusal(status: u16, code: &str, detail: &str) -> Wire {
    Wire {
        status,
        code: code.to_owned(),
        detail: detail.to_owned(),
        ..Wire::default()
    }
}

fn stale() -> Wire {
    let detail = "this form was made before you signed in, or before the daemon was started again: \
                  load the page again and send it once more; nothing was changed";
    refusal(403, "stale_form", detail)
}

/// An answer with what every answer has.
fn sent(status: StatusCode, kind: &str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    if let Ok(kind) = HeaderValue::try_from(format!("{kind}; charset=utf-8")) {
        headers.insert(CONTENT_TYPE, kind);
    }
    response
}

/// Sends a browser on to a page.
fn see(place: &str) -> Response {
    let mut response = sent(StatusCode::SEE_OTHER, "text/plain", String::new());
    if let Ok(place) = HeaderValue::try_from(place) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

/// The same with a cookie.
fn see_with(place: &str, cookie: &str) -> Response {
    let mut response = see(place);
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_their_own_paths_and_none_of_the_api() {
        for path in [
            "/",
            "/tasks",
            "/tasks/7",
            "/tasks/7/cancel",
            "/queues",
            "/sign-in",
            "/page.js",
        ] {
            assert!(hold(path), "{path}");
        }
        for row in crate::api::access::table() {
            assert!(!hold(row.path), "{}", row.path);
        }
        for path in ["", "/nothing", "/tasks/7/8/9", "/v1", "/style.css/x", "//"] {
            assert_eq!(hold(path), path.is_empty(), "{path}");
        }
    }
}
