//! What every request's head must be before anything else looks at it: the
//! checks that browsers, proxies and other protocols fail, and the number by
//! which a request is found again in the journal.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    ORIGIN, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};

use super::peer::Peer;
use super::problem::Problem;

/// Names a request to its client and in the journal.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Checks a head. What changes something by a page is a form, which a browser
/// would send for a foreign page too: the page looks for its own mark in it.
pub(super) fn check(
    parts: &Parts,
    peer: Peer,
    names: &[String],
    is_page: bool,
) -> Result<(), Problem> {
    if parts.method == Method::CONNECT {
        return Err(Problem::bad("connect_refused", "this is not a proxy"));
    }
    if parts.headers.contains_key(UPGRADE) {
        let detail = "no other protocol is spoken here: leave out `Upgrade`";
        return Err(Problem::bad("upgrade_refused", detail));
    }
    let host = host(parts)?;
    if let Some(coding) = parts.headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "compressed_body",
            "compressed bodies are not accepted: send it as it is",
        ));
    }
    match peer {
        Peer::Unix { .. } => Ok(()),
        Peer::Tcp(_) => {
            local(host, &parts.headers, names)?;
            if is_page { Ok(()) } else { deliberate(parts) }
        }
    }
}

/// The one host a request is for.
fn host(parts: &Parts) -> Result<Option<&str>, Problem> {
    let bad = |detail: &str| Err(Problem::bad("bad_host", detail));
    let mut hosts = parts.headers.get_all(HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return bad("more than one `Host` header");
    }
    if first.is_none() && parts.version >= Version::HTTP_11 {
        return bad("the `Host` header is missing");
    }
    let Some(value) = first else {
        return Ok(None);
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b);
    match value.to_str() {
        Ok(host) if host.bytes().all(plain) => match parts.uri.authority() {
            Some(other) if !other.as_str().eq_ignore_ascii_case(host) => {
                bad("the `Host` header and the request's address differ")
            }
            Some(_) | None => Ok(Some(host)),
        },
        Ok(_) | Err(_) => bad("the `Host` header is not a host name"),
    }
}

/// Refuses a change that a foreign page could have a browser send without
/// asking: one of a plain content type, and nothing that only a program or a
/// page of our own can add. Client certificates go along with those by
/// themselves.
fn deliberate(parts: &Parts) -> Result<(), Problem> {
    let harmless = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method);
    if harmless || parts.headers.contains_key(AUTHORIZATION) {
        return Ok(());
    }
    require_json(&parts.headers)
}

/// Refuses what a browser would send on behalf of a foreign page. A page can
/// be made to reach this address under a name of its own (DNS rebinding), but
/// not under an address, `localhost`, or a name that the settings have.
fn local(host: Option<&str>, headers: &HeaderMap, names: &[String]) -> Result<(), Problem> {
    let Some(host) = host else {
        return Ok(());
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let known = |known: &String| known.eq_ignore_ascii_case(name);
    if !name.eq_ignore_ascii_case("localhost")
        && name.parse::<IpAddr>().is_err()
        && !names.iter().any(known)
    {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "foreign_host",
            "this server is not known by that name: use its address, `localhost`, or a name in api.names",
        ));
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let own = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .is_some_and(|(_, site)| site.eq_ignore_ascii_case(host));
    if own {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "foreign_origin",
        "requests from other sites' pages are refused",
    ))
}

/// Checks that the body is said to be JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if json {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not_json",
        "send JSON, with `Content-Type: application/json`",
    ))
}

/// The client's own name for its request, when that is harmless.
pub(super) fn own_name(headers: &HeaderMap) -> Option<&str> {
    let name = headers.get(REQUEST_ID)?.to_str().ok()?;
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b);
    ((1..=64).contains(&name.len()) && name.bytes().all(harmless)).then_some(name)
}

/// Gives each request a number.
#[derive(Debug)]
pub(super) struct RequestIds {
    life: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Numbers for one life of the daemon, which began at `life`.
    pub(super) const fn new(life: u64) -> Self {
        Self {
            life,
            next: AtomicU64::new(1),
        }
    }

    /// The client's own name for its request when that is harmless, otherwise
    /// a new one.
    pub(super) fn name(&self, headers: &HeaderMap) -> HeaderValue {
        if let (Some(_), Some(value)) = (own_name(headers), headers.get(REQUEST_ID)) {
            return value.clone();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        HeaderValue::from_maybe_shared(format!("{:x}-{number}", self.life).into_bytes())
            .unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;
    use std::net::Ipv4Addr;

    type Row = (
        Peer,
        &'static [(&'static str, &'static str)],
        Result<(), &'static str>,
    );

    fn verdict(peer: Peer, lines: &[(&str, &str)]) -> Result<(), &'static str> {
        let mut request = Request::get("/v1/status");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(&parts, peer, &["queue.example".to_owned()], false).map_err(|problem| problem.code)
    }

    #[test]
    fn heads_are_judged_by_host_origin_and_coding() {
        let tcp = Peer::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let unix = Peer::Unix {
            uid: 1,
            gid: 1,
            pid: None,
        };
        let rows: [Row; 19] = [
            (unix, &[("host", "localhost")], Ok(())),
            (unix, &[("host", "anything.example")], Ok(())),
            (unix, &[], Err("bad_host")),
            (unix, &[("host", "a"), ("host", "a")], Err("bad_host")),
            (unix, &[("host", "a/b?c")], Err("bad_host")),
            (unix, &[("host", "user@a")], Err("bad_host")),
            (
                unix,
                &[("host", "a"), ("upgrade", "h2c")],
                Err("upgrade_refused"),
            ),
            (
                unix,
                &[("host", "a"), ("content-encoding", "gzip")],
                Err("compressed_body"),
            ),
            (
                unix,
                &[("host", "a"), ("content-encoding", "identity")],
                Ok(()),
            ),
            (tcp, &[("host", "127.0.0.1:8377")], Ok(())),
            (tcp, &[("host", "[::1]:8377")], Ok(())),
            (tcp, &[("host", "LOCALHOST")], Ok(())),
            (tcp, &[("host", "evil.example")], Err("foreign_host")),
            (tcp, &[("host", "Queue.Example:8377")], Ok(())),
            (tcp, &[("host", "queue.example.evil")], Err("foreign_host")),
            (
                tcp,
                &[("host", "localhost.evil.example:80")],
                Err("foreign_host"),
            ),
            (
                tcp,
                &[("host", "localhost:1"), ("origin", "http://localhost:1")],
                Ok(()),
            ),
            (
                tcp,
                &[("host", "localhost:1"), ("origin", "http://evil")],
                Err("foreign_origin"),
            ),
            (
                tcp,
                &[("host", "localhost:1"), ("origin", "null")],
                Err("foreign_origin"),
            ),
        ];
        for (peer, lines, expected) in rows {
            assert_eq!(verdict(peer, lines), expected, "{peer:?} {lines:?}");
        }
    }

    #[test]
    fn a_change_over_the_network_is_none_that_a_page_could_send() {
        let tcp = Peer::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let unix = Peer::Unix {
            uid: 1,
            gid: 1,
            pid: None,
        };
        let form = ("content-type", "application/x-www-form-urlencoded");
        for (peer, method, lines, good) in [
            (tcp, "POST", &[][..], false),
            (tcp, "POST", &[form], false),
            (tcp, "POST", &[("content-type", "text/plain")], false),
            (tcp, "DELETE", &[form], false),
            (tcp, "POST", &[("content-type", "application/json")], true),
            (tcp, "POST", &[("authorization", "Bearer x")], true),
            (tcp, "GET", &[form], true),
            (unix, "POST", &[form], true),
        ] {
            let mut request = Request::builder().method(method).uri("/v1/reload");
            for (name, value) in lines.iter().chain(&[("host", "localhost")]) {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let verdict = check(&parts, peer, &[], false).map_err(|problem| problem.code);
            let expected = if good { Ok(()) } else { Err("not_json") };
            assert_eq!(verdict, expected, "{method} {lines:?}");
        }
    }

    #[test]
    fn a_harmless_request_id_is_kept_and_others_are_replaced() {
        let ids = RequestIds::new(0xab);
        for (sent, kept) in [
            ("a-1", true),
            ("", false),
            ("a b", false),
            (&"x".repeat(65), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(sent).unwrap());
            let given = ids.name(&headers);
            assert_eq!(given == sent, kept, "{sent}");
        }
        assert_eq!(ids.name(&HeaderMap::new()), "ab-4");
    }
}
