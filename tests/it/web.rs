//! The web page as any HTTP client sees it: what it lets a browser load, who gets in, and that its forms do what the
//! routes of the API do and nothing else. In a real browser it is tried by `tests/web/run`.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getuid};
use serde_json::{Value, json};
use taskdaemon::api::access;
use taskdaemon::api::pairs::encode;
use taskdaemon::model::role::Role;

use crate::bed::Bed;
use crate::prompt::bed_of;
use crate::security::{free_port, hash};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// What could make a browser do something, were it not text.
const BAD: &str =
    "</title></pre><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload='x";
/// What pages may load.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }

    /// What a browser sends back of a cookie.
    fn cookie(&self) -> String {
        let whole = self.header("set-cookie").expect("a cookie");
        whole.split(';').next().unwrap_or_default().to_owned()
    }

    /// What shows that a form is the page's.
    fn stamp(&self) -> String {
        let rest = self.body.split("name=\"stamp\" value=\"").nth(1);
        let stamp = rest.and_then(|rest| rest.split('"').next());
        stamp.expect("a form with a stamp").to_owned()
    }
}

fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.expect("a status"),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{}={}", encode(name), encode(value));
    fields.iter().map(pair).collect::<Vec<_>>().join("&")
}

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// A request on the bed's socket, as the user that runs the tests.
fn local(bed: &Bed, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let stream = UnixStream::connect(bed.socket()).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    exchange(
        stream,
        method,
        path,
        &[("Host", "localhost"), FORM],
        &form(fields),
    )
}

/// A form that is filled in on a page and sent.
fn send(bed: &Bed, path: &str, fields: &[(&str, &str)]) -> Answer {
    let stamp = local(bed, "GET", "/tasks", &[]).stamp();
    let mut all = fields.to_vec();
    all.push(("stamp", &stamp));
    local(bed, "POST", path, &all)
}

fn over_tcp(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    fields: &[(&str, &str)],
) -> Answer {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let host = format!("127.0.0.1:{port}");
    let mut all = vec![("Host", host.as_str())];
    all.extend(headers);
    let body = form(fields);
    if !body.is_empty() {
        all.push(FORM);
    }
    exchange(stream, method, path, &all, &body)
}

/// Tags of a page, each with what stands in it.
fn tags(page: &str) -> Vec<String> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some((_, tag)) = rest.split_once('<') {
        let (mut quoted, mut end) = (false, tag.len());
        for (place, letter) in tag.char_indices() {
            match letter {
                '"' => quoted = !quoted,
                '>' if !quoted => {
                    end = place;
                    break;
                }
                _ => {}
            }
        }
        tags.push(tag[..end].to_owned());
        rest = &tag[end..];
    }
    tags
}

/// Checks that all that a browser would run or load is a file of ours.
fn is_harmless(what: &str, page: &str) {
    let all = tags(page);
    assert!(all.len() > 10, "{what}: {page}");
    let mut scripts = 0;
    for tag in all {
        let name = tag.split([' ', '>']).next().unwrap_or_default();
        scripts += usize::from(name == "script");
        assert!(
            !["img", "style", "iframe", "base", "object"].contains(&name),
            "{what}: <{tag}>"
        );
        // Values are between quotes; what is outside of them is names.
        for attribute in tag.split('"').step_by(2).flat_map(str::split_whitespace) {
            let handler = attribute.starts_with("on") && attribute.ends_with('=');
            assert!(
                !handler && !attribute.starts_with("style="),
                "{what}: <{tag}>"
            );
        }
        for key in ["href=\"", "src=\"", "action=\""] {
            for value in tag.split(key).skip(1) {
                assert!(
                    value.starts_with("#main")
                        || (value.starts_with('/') && !value.starts_with("//")),
                    "{what}: <{tag}>"
                );
            }
        }
    }
    assert_eq!(scripts, 1, "{what}: {page}");
    assert!(
        page.contains("<script src=\"/page.js\" defer></script>"),
        "{what}"
    );
}

/// Tasks and a schedule in all of whose names is what must stay text: a failed one, and one behind it.
fn furnish(bed: &Bed) -> (i64, i64) {
    let id = bed.submit(&json!({
        "command": ["sh", "-c", "printf %s \"$0\"; exit 3", BAD], "name": BAD, "labels": { "a": BAD },
        "env": { "BAD": BAD }, "group": BAD,
    }));
    bed.wait(id);
    let after =
        bed.submit(&json!({ "command": [BAD], "name": BAD, "after": [format!("{id}:any")] }));
    bed.wait(after);
    let (status, made) = bed
        .post(
            "/v1/schedules",
            &json!({ "name": "s", "when": "every 1h", "task": { "command": [BAD] } }),
        )
        .expect("a schedule");
    assert_eq!(status, 201, "{made}");
    (id, after)
}

#[test]
fn sec_39_pages_load_nothing_but_their_own_files_and_escape_everything() {
    let bed = Bed::start(&[]);
    let (id, after) = furnish(&bed);
    let bad = encode(BAD);
    for (path, status) in [
        ("/".to_owned(), 200),
        ("/tasks".to_owned(), 200),
        (format!("/tasks?name={bad}"), 200),
        (format!("/tasks?queue={bad}&label=a%3D{bad}&did={bad}"), 200),
        (format!("/tasks?state={bad}"), 400),
        (format!("/tasks?cursor={bad}"), 400),
        (format!("/tasks/{id}"), 200),
        (format!("/tasks/{after}"), 200),
        (format!("/tasks/{bad}"), 400),
        ("/tasks/9999".to_owned(), 404),
        ("/queues".to_owned(), 200),
        ("/schedules".to_owned(), 200),
        ("/agents".to_owned(), 200),
        ("/providers".to_owned(), 200),
        ("/events".to_owned(), 200),
    ] {
        let page = local(&bed, "GET", &path, &[]);
        assert_eq!(page.status, status, "{path}: {}", page.body);
        is_harmless(&path, &page.body);
        for (name, value) in [
            ("content-security-policy", POLICY),
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("content-type", "text/html; charset=utf-8"),
        ] {
            assert_eq!(page.header(name), Some(value), "{path}: {}", page.head);
        }
    }
    let page = local(&bed, "GET", &format!("/tasks/{id}"), &[]);
    let escaped = "&lt;script&gt;alert(1)&lt;/script&gt;";
    assert!(
        page.body.matches(escaped).count() >= 5,
        "name, label, variable, command, output: {}",
        page.body
    );
    for (path, kind) in [
        ("/style.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let file = local(&bed, "GET", path, &[]);
        assert_eq!((file.status, file.body.is_empty()), (200, false), "{path}");
        assert_eq!(
            file.header("content-type"),
            Some(format!("{kind}; charset=utf-8").as_str()),
            "{path}"
        );
        assert!(
            !file.body.contains("http://") || path == "/icon.svg",
            "{path} is whole in itself"
        );
    }
}

/// A bed that browsers reach over TCP, with a token of each of these roles whose secret is the role.
fn tcp_bed(roles: &[&str]) -> (Bed, u16) {
    let port = free_port();
    let token = |role: &&str| {
        format!(
            "{{name=\"{role}\",sha256=\"{}\",uid=0,role=\"{role}\"}}",
            hash(role)
        )
    };
    let tokens: Vec<_> = roles.iter().map(token).collect();
    let bed = Bed::start(&[
        ("API__LISTEN", &format!("[\"127.0.0.1:{port}\"]")),
        ("API__TOKENS", &format!("[{}]", tokens.join(","))),
    ]);
    (bed, port)
}

fn sign_in(port: u16, token: &str) -> Answer {
    over_tcp(
        port,
        "POST",
        "/sign-in",
        &[],
        &[("token", token), ("to", "/tasks")],
    )
}

/// Over TCP, with a session's cookie.
fn signed_in(port: u16, cookie: &str, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    over_tcp(port, method, path, &[("Cookie", cookie)], fields)
}

#[test]
fn a_browser_signs_in_by_a_token_and_has_its_rights_until_it_signs_out() {
    let (bed, port) = tcp_bed(&["admin", "read"]);
    let task = bed.submit(&json!({ "command": ["sleep", "600"], "name": "a-secret-name" }));
    let wrong = sign_in(port, "wrong");
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    let good = sign_in(port, "admin");
    let place = (good.status, good.header("location"));
    assert_eq!(place, (303, Some("/tasks")), "{}", good.head);
    let whole = good.header("set-cookie").expect("a cookie");
    let is_kept = whole.contains("HttpOnly; SameSite=Strict") && !whole.contains("admin");
    assert!(is_kept, "{whole}");
    let (cookie, reader) = (good.cookie(), sign_in(port, "read").cookie());
    let with = |method: &str, path: &str, fields: &[(&str, &str)]| {
        signed_in(port, &cookie, method, path, fields)
    };
    let look = |method: &str, path: &str, fields: &[(&str, &str)]| {
        signed_in(port, &reader, method, path, fields)
    };
    let page = with("GET", "/tasks", &[]);
    assert!(
        page.status == 200 && page.body.contains("a-secret-name"),
        "{}",
        page.body
    );
    let stamp = page.stamp();
    let made = with("POST", "/tasks", &[("command", "true"), ("stamp", &stamp)]);
    assert_eq!(made.status, 303, "{}", made.body);
    // The rights are the token's: one that may look sees no button, and what it sends all the same is refused.
    let shown = look("GET", &format!("/tasks/{task}"), &[]);
    assert!(
        shown.status == 200 && !shown.body.contains(">Cancel<"),
        "{}",
        shown.body
    );
    let own = shown.stamp();
    for fields in [[("stamp", stamp.as_str())], [("stamp", own.as_str())]] {
        let path = format!("/tasks/{task}/cancel");
        assert_eq!(look("POST", &path, &fields).status, 403);
    }
    let state = state(&bed, task);
    assert!(state == "queued" || state == "running", "{state}");
    let left = with("POST", "/sign-out", &[("stamp", &stamp)]);
    let forgets = left
        .header("set-cookie")
        .is_some_and(|set| set.contains("Max-Age=0"));
    assert!(left.status == 303 && forgets, "{}", left.head);
    assert_eq!(
        with("GET", "/tasks", &[]).status,
        401,
        "the cookie is worth nothing any more"
    );
    assert_eq!(with("GET", "/v1/tasks", &[]).status, 401);
    assert_eq!(
        look("GET", "/tasks", &[]).status,
        200,
        "others stay signed in"
    );
}

#[test]
fn who_has_not_signed_in_sees_nothing_but_where_to() {
    let (bed, port) = tcp_bed(&["admin"]);
    let task = bed.submit(&json!({ "command": ["true"], "name": "a-secret-name" }));
    for path in ["/", "/tasks", &format!("/tasks/{task}"), "/events"] {
        for cookie in ["", "taskdaemon=0", "taskdaemon=0; taskdaemon=0"] {
            let page = signed_in(port, cookie, "GET", path, &[]);
            assert_eq!(page.status, 401, "{path}");
            let is_asked = page.body.contains("name=\"token\"");
            assert!(
                is_asked && !page.body.contains("a-secret-name"),
                "{}",
                page.body
            );
            is_harmless(path, &page.body);
        }
    }
}

#[test]
fn a_session_reads_the_api_and_changes_things_by_forms_only() {
    let (bed, port) = tcp_bed(&["admin"]);
    let cookie = sign_in(port, "admin").cookie();
    assert_eq!(
        signed_in(port, &cookie, "GET", "/v1/tasks", &[]).status,
        200
    );
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let host = format!("127.0.0.1:{port}");
    let headers = [
        ("Host", host.as_str()),
        ("Cookie", &cookie),
        ("Content-Type", "application/json"),
    ];
    let body = json!({ "command": ["true"] }).to_string();
    let direct = exchange(stream, "POST", "/v1/tasks", &headers, &body);
    assert_eq!(direct.status, 401, "{}", direct.body);
    assert_eq!(bed.get("/v1/tasks").expect("list").1["tasks"], json!([]));
}

#[test]
fn forms_take_the_role_of_their_routes() {
    let roles = Role::ALL.map(Role::word);
    let (bed, port) = tcp_bed(&roles);
    let new = json!({ "name": "s", "when": "every 1h", "task": { "command": ["true"] } });
    assert_eq!(bed.post("/v1/schedules", &new).expect("schedule").0, 201);
    let id = bed.submit(&json!({ "command": ["true"], "delay": "1h" }));
    let task = |verb: &str| format!("/tasks/{id}/{verb}");
    let schedule = [("name", "t"), ("when", "every 1h"), ("command", "true")];
    let none: &[(&str, &str)] = &[];
    let forms = [
        ("/tasks", &[("command", "true")][..], "POST", "/v1/tasks"),
        (&task("pause"), none, "POST", "/v1/tasks/{id}/pause"),
        (&task("resume"), none, "POST", "/v1/tasks/{id}/resume"),
        (&task("cancel"), none, "POST", "/v1/tasks/{id}/cancel"),
        (&task("retry"), none, "POST", "/v1/tasks/{id}/retry"),
        ("/tasks/cancel", &[("all", "1")], "POST", "/v1/tasks/cancel"),
        (
            "/tasks/retry",
            &[("id", "1")],
            "POST",
            "/v1/tasks/{id}/retry",
        ),
        ("/queues", &[("name", "x")], "PATCH", "/v1/queues/{queue}"),
        ("/queues/x/pause", none, "POST", "/v1/queues/{queue}/{verb}"),
        ("/queues/x/remove", none, "DELETE", "/v1/queues/{queue}"),
        ("/schedules", &schedule, "POST", "/v1/schedules"),
        (
            "/agents",
            &[("name", "a"), ("command", "sleep 600")],
            "POST",
            "/v1/agents",
        ),
        ("/agents/1/stop", none, "POST", "/v1/agents/{agent}/{verb}"),
        ("/agents/1/remove", none, "DELETE", "/v1/agents/{agent}"),
        (
            "/schedules/1/pause",
            none,
            "POST",
            "/v1/schedules/{schedule}/{verb}",
        ),
        (
            "/schedules/1/remove",
            none,
            "DELETE",
            "/v1/schedules/{schedule}",
        ),
    ];
    for role in Role::ALL {
        let cookie = sign_in(port, role.word()).cookie();
        let stamp = signed_in(port, &cookie, "GET", "/", &[]).stamp();
        for (path, fields, method, route) in forms {
            let table = access::table();
            let mut rows = table.iter();
            let row = rows.find(|row| row.method == method && row.path == route);
            let least = row.and_then(|row| row.least).expect("a row of the table");
            let all = [fields, &[("stamp", stamp.as_str())]].concat();
            let answer = signed_in(port, &cookie, "POST", path, &all);
            let what = format!("{role:?} {path}: {} {}", answer.status, answer.body);
            let refused = answer.status == 403 && answer.body.contains("this takes the role");
            assert_eq!(refused, !role.covers(least), "{what}");
            assert!(![401, 500].contains(&answer.status), "{what}");
        }
    }
}

#[test]
fn a_session_ends_with_its_token() {
    let port = free_port();
    let until = taskdaemon::clock::now().after(Duration::from_secs(12));
    let until = taskdaemon::api::number::Stamp(until);
    let bed = Bed::start(&[
        ("API__LISTEN", &format!("[\"127.0.0.1:{port}\"]")),
        (
            "API__TOKENS",
            &format!(
                "[{{name=\"t\",sha256=\"{}\",uid=0,expires=\"{until}\"}}]",
                hash("t")
            ),
        ),
    ]);
    let cookie = sign_in(port, "t").cookie();
    let get = |path: &str| over_tcp(port, "GET", path, &[("Cookie", &cookie)], &[]).status;
    assert_eq!((get("/tasks"), get("/v1/tasks")), (200, 200));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    write!(
        stream,
        "GET /v1/events?follow=true HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
    )
    .expect("ask");
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).expect("an end in time");
    assert!(
        seen.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&seen)
    );
    bed.until("the session is over", |_| get("/tasks") == 401);
    assert_eq!(get("/v1/tasks"), 401);
}

#[test]
fn a_guesser_of_tokens_has_to_wait_at_the_sign_in_too() {
    let (_bed, port) = tcp_bed(&["admin"]);
    for _ in 0..20 {
        assert_eq!(sign_in(port, "guess").status, 401);
    }
    assert_eq!(
        sign_in(port, "admin").status,
        429,
        "it is not even looked at"
    );
}

#[test]
fn a_form_of_another_page_changes_nothing() {
    let (bed, port) = tcp_bed(&["admin"]);
    let cookie = sign_in(port, "admin").cookie();
    let other = sign_in(port, "admin").cookie();
    let page = |cookie: &str| over_tcp(port, "GET", "/tasks", &[("Cookie", cookie)], &[]).stamp();
    let (own, foreign) = (page(&cookie), page(&other));
    let count = |bed: &Bed| {
        bed.get("/v1/tasks").expect("list").1["tasks"]
            .as_array()
            .map(Vec::len)
    };
    let host = format!("http://127.0.0.1:{port}");
    for (origin, stamp, code) in [
        ("http://evil.example", own.as_str(), 403),
        ("null", &own, 403),
        (&host, &foreign, 403),
        (&host, "", 403),
        (&host, "0", 403),
        (&host, &own, 303),
    ] {
        let before = count(&bed);
        let headers = [("Cookie", cookie.as_str()), ("Origin", origin)];
        let answer = over_tcp(
            port,
            "POST",
            "/tasks",
            &headers,
            &[("command", "true"), ("stamp", stamp)],
        );
        assert_eq!(answer.status, code, "{origin} {stamp}: {}", answer.body);
        assert_eq!(count(&bed) == before, code == 403, "{origin} {stamp}");
    }
    // Of another kind than a form, and of a user of the socket.
    let headers = [("Host", "localhost"), ("Content-Type", "text/plain")];
    let stream = UnixStream::connect(bed.socket()).expect("connect");
    assert_eq!(
        exchange(stream, "POST", "/tasks", &headers, "command=true").status,
        415
    );
    assert_eq!(
        local(&bed, "POST", "/tasks", &[("command", "true")]).status,
        403
    );
    assert_eq!(local(&bed, "PUT", "/tasks", &[]).status, 405);
}

fn state(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("task").1["state"].clone()
}

/// The number in the address of a task's page.
fn number(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 303, "{}", answer.body);
    let place = answer.header("location").expect("a place");
    let number = place.strip_prefix("/tasks/").and_then(|id| id.parse().ok());
    number.unwrap_or_else(|| unreachable!("{place}"))
}

#[test]
fn forms_hand_in_cancel_and_retry() {
    let bed = Bed::start(&[]);
    let fields = [
        ("command", "echo $((6 * 7))"),
        ("name", "sum"),
        ("once", "x1"),
        ("tries", "2"),
    ];
    let id = number(&send(&bed, "/tasks", &fields));
    assert_eq!(
        number(&send(&bed, "/tasks", &fields)),
        id,
        "sent twice, it is one task"
    );
    let task = bed.wait(id);
    assert_eq!(
        (&task["state"], &task["max_attempts"]),
        (&json!("succeeded"), &json!(2))
    );
    assert_eq!(bed.output(id), b"42\n");
    let page = local(&bed, "GET", &format!("/tasks/{id}"), &[]);
    assert!(
        page.body.contains(">42\n</pre>"),
        "the output stands in the page: {}",
        page.body
    );
    let long = number(&send(
        &bed,
        "/tasks",
        &[("command", "sleep 600"), ("delay", "1h")],
    ));
    assert_eq!(state(&bed, long), "scheduled");
    let page = local(&bed, "GET", &format!("/tasks/{long}"), &[]);
    assert!(
        page.body.contains("waits for its start time, <time"),
        "why it waits, and until when: {}",
        page.body
    );
    assert_eq!(
        number(&send(&bed, &format!("/tasks/{long}/cancel"), &[])),
        long
    );
    assert_eq!(bed.wait(long)["state"], "cancelled");
    let again = send(&bed, &format!("/tasks/{long}/pause"), &[]);
    assert!(
        again.status == 409 && again.body.contains("already_over"),
        "{}",
        again.body
    );
    assert_eq!(number(&send(&bed, &format!("/tasks/{id}/retry"), &[])), id);
    assert_eq!(bed.wait(id)["attempts"].as_array().map(Vec::len), Some(2));
    for (fields, code) in [
        ([("command", "true"), ("queue", "no such queue!")], "queue"),
        ([("command", "true"), ("delay", "soon")], "delay: `soon`"),
        ([("command", "true"), ("tries", "many")], "tries: `many`"),
    ] {
        let answer = send(&bed, "/tasks", &fields);
        assert!(
            answer.status == 400 && answer.body.contains(code),
            "{fields:?}: {}",
            answer.body
        );
    }
}

#[test]
fn forms_change_chosen_tasks_and_all_that_a_filter_selects_once_that_is_sure() {
    let bed = Bed::start(&[]);
    let task =
        |name: &str| bed.submit(&json!({ "command": ["true"], "name": name, "delay": "1h" }));
    let (one, two, three, four) = (task("a"), task("a"), task("b"), task("b"));
    let ids = [one.to_string(), two.to_string()];
    let chosen = [("id", ids[0].as_str()), ("id", &ids[1]), ("name", "a")];
    let done = send(&bed, "/tasks/cancel", &chosen);
    assert_eq!(
        done.header("location"),
        Some("/tasks?name=a&did=cancel&changed=2&refused=0"),
        "{}",
        done.body
    );
    assert_eq!(
        (state(&bed, one), state(&bed, two)),
        (json!("cancelled"), json!("cancelled"))
    );
    let fourth = four.to_string();
    let mixed = [("id", ids[0].as_str()), ("id", &fourth)];
    let done = send(&bed, "/tasks/retry", &mixed);
    assert_eq!(
        done.header("location"),
        Some("/tasks?did=retry&changed=1&refused=1"),
        "{}",
        done.body
    );
    let asked = send(&bed, "/tasks/cancel", &[("name", "b"), ("all", "1")]);
    assert!(
        asked.status == 200 && asked.body.contains("Really cancel 2 tasks?"),
        "{}",
        asked.body
    );
    assert_eq!(
        (state(&bed, three), state(&bed, four)),
        (json!("scheduled"), json!("scheduled"))
    );
    let done = send(
        &bed,
        "/tasks/cancel",
        &[("name", "b"), ("all", "1"), ("sure", "1")],
    );
    assert_eq!(
        done.header("location"),
        Some("/tasks?name=b&did=cancel&changed=2&refused=0"),
        "{}",
        done.body
    );
    assert_eq!(state(&bed, four), "cancelled");
    let done = send(
        &bed,
        "/tasks/retry",
        &[("state", "cancelled"), ("all", "1"), ("sure", "1")],
    );
    assert_eq!(
        done.header("location"),
        Some("/tasks?state=cancelled&did=retry&changed=3&refused=0"),
        "{}",
        done.body
    );
    let none = send(&bed, "/tasks/retry", &[]);
    assert!(
        none.status == 400 && none.body.contains("no task is chosen"),
        "{}",
        none.body
    );
}

#[test]
fn forms_change_queues_and_schedules() {
    let bed = Bed::start(&[]);
    let queue = |name: &str| bed.get(&format!("/v1/queues/{name}")).expect("queue").1;
    let set = [("name", "mail"), ("concurrency", "2"), ("rate", "10/1m")];
    assert_eq!(send(&bed, "/queues", &set).status, 303);
    let mail = queue("mail");
    assert_eq!(
        (&mail["concurrency"], &mail["rate"]),
        (&json!(2), &json!("10/1m"))
    );
    assert_eq!(send(&bed, "/queues", &[("name", "mail")]).status, 303);
    assert_eq!(
        queue("mail")["concurrency"],
        Value::Null,
        "what is empty is taken away"
    );
    for (verb, field, value) in [
        ("pause", "paused", true),
        ("resume", "paused", false),
        ("drain", "draining", true),
    ] {
        assert_eq!(send(&bed, &format!("/queues/mail/{verb}"), &[]).status, 303);
        assert_eq!(queue("mail")[field], value, "{verb}");
    }
    assert_eq!(send(&bed, "/queues/mail/remove", &[]).status, 303);
    assert_eq!(queue("mail")["code"], "queue_not_found");
    assert_eq!(send(&bed, "/queues/mail/explode", &[]).status, 404);
    let add = [
        ("name", "hourly"),
        ("when", "every 1h"),
        ("command", "echo hello"),
        ("overlap", "allow"),
    ];
    assert_eq!(send(&bed, "/schedules", &add).status, 303);
    let (_, hourly) = bed.get("/v1/schedules/hourly").expect("schedule");
    assert_eq!(
        (&hourly["overlap"], &hourly["command"]),
        (&json!("allow"), &json!(["sh", "-c", "echo hello"]))
    );
    let page = local(&bed, "GET", "/schedules", &[]);
    assert!(
        page.body.contains("24 in the next 24 hours"),
        "{}",
        page.body
    );
    let act = |verb: &str| send(&bed, &format!("/schedules/{}/{verb}", hourly["id"]), &[]).status;
    assert_eq!(
        (act("pause"), act("trigger"), act("remove")),
        (303, 303, 303)
    );
    let (_, list) = bed.get("/v1/tasks").expect("list");
    assert_eq!(
        list["tasks"].as_array().map(Vec::len),
        Some(1),
        "it ran once, now"
    );
    let wrong = send(
        &bed,
        "/schedules",
        &[("name", "x"), ("when", "now and then"), ("command", "true")],
    );
    assert!(
        wrong.status == 400 && wrong.body.contains("when"),
        "{}",
        wrong.body
    );
}

#[test]
fn forms_keep_agents() {
    let bed = Bed::start(&[]);
    let add = [
        ("name", "bot"),
        ("command", "echo up; exec sleep 600"),
        ("instances", "2"),
        ("restart", "on-failure"),
    ];
    let made = send(&bed, "/agents", &add);
    assert_eq!(made.header("location"), Some("/agents"), "{}", made.body);
    let agent = || bed.get("/v1/agents/bot").expect("agent").1;
    assert_eq!(agent()["instances"].as_array().map(Vec::len), Some(2));
    let page = local(&bed, "GET", "/agents", &[]);
    let is_shown = page.body.contains("echo up; exec sleep 600") && page.body.contains(">Restart<");
    assert!(page.status == 200 && is_shown, "{}", page.body);
    let act = |verb: &str| send(&bed, &format!("/agents/{}/{verb}", agent()["id"]), &[]).status;
    assert_eq!((act("restart"), act("stop")), (303, 303));
    assert_eq!(agent()["instances"][0]["wanted"], false);
    assert!(local(&bed, "GET", "/agents", &[]).body.contains(">Start<"));
    assert_eq!(
        (act("start"), act("explode"), act("remove")),
        (303, 404, 303)
    );
    let again = send(
        &bed,
        "/agents",
        &[("name", "bot"), ("command", "true"), ("instances", "some")],
    );
    assert!(
        again.status == 400 && again.body.contains("instances: `some`"),
        "{}",
        again.body
    );
}

/// `taskdaemon web` for a bed, and the address that it has printed.
struct Web(Child, u16, String);

impl Web {
    fn open(bed: &Bed, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
            .args(["--host", &format!("unix:{}", bed.socket().display()), "web"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start");
        let mut line = String::new();
        let out = child.stdout.take().expect("output");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("an address");
        let rest = line
            .trim()
            .strip_prefix("http://127.0.0.1:")
            .expect("loopback");
        let (port, path) = rest.split_once('/').expect("a path");
        Self(child, port.parse().expect("a port"), format!("/{path}"))
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        fields: &[(&str, &str)],
    ) -> Answer {
        over_tcp(self.1, method, path, headers, fields)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn web_opens_an_address_that_is_good_once_and_acts_as_its_user() {
    let mut bed = Bed::start(&[]);
    let web = Web::open(&bed, &[]);
    let guess = "/open/0123456789abcdef0123456789abcdef";
    for path in ["/", "/v1/tasks", "/style.css", "/open/", guess] {
        let shut = web.ask("GET", path, &[], &[]);
        assert!([401, 403].contains(&shut.status), "{path}: {}", shut.status);
    }
    let opened = web.ask("GET", &web.2, &[], &[]);
    assert_eq!((opened.status, opened.header("location")), (303, Some("/")));
    let whole = opened.header("set-cookie").expect("a cookie");
    assert!(whole.contains("HttpOnly; SameSite=Strict"), "{whole}");
    assert_eq!(web.ask("GET", &web.2, &[], &[]).status, 403, "once");
    let cookie = opened.cookie();
    let with = [("Cookie", cookie.as_str())];
    let page = web.ask("GET", "/", &with, &[]);
    let who = format!("user {}, admin", getuid());
    assert!(
        page.status == 200 && page.body.contains(&who),
        "{}",
        page.body
    );
    assert_eq!(page.header("content-security-policy"), Some(POLICY));
    let stamp = page.stamp();
    let fields = [("command", "true"), ("stamp", stamp.as_str())];
    let made = web.ask("POST", "/tasks", &with, &fields);
    assert_eq!(bed.wait(number(&made))["owner"], getuid().as_raw());
    bed.kill();
    let gone = web.ask("GET", "/", &with, &[]);
    assert!(
        gone.status == 502 && gone.body.contains("cannot reach the daemon"),
        "{}",
        gone.body
    );
    bed.restart();
    assert_eq!(
        web.ask("GET", "/", &with, &[]).status,
        200,
        "it is there again"
    );
}

#[test]
fn web_passes_on_what_its_own_pages_ask_and_nothing_else() {
    let bed = Bed::start(&[]);
    let web = Web::open(&bed, &[]);
    let cookie = web.ask("GET", &web.2, &[], &[]).cookie();
    let with = ("Cookie", cookie.as_str());
    let stamp = web.ask("GET", "/", &[with], &[]).stamp();
    let fields = [("command", "true"), ("stamp", stamp.as_str())];
    let foreign = ("Origin", "http://evil.example");
    for (headers, method, path) in [
        (&[with, foreign][..], "POST", "/tasks"),
        (&[with, foreign], "GET", "/tasks"),
        (&[with], "POST", "/v1/tasks"),
        (&[with], "DELETE", "/v1/queues/default"),
    ] {
        let refused = web.ask(method, path, headers, &fields);
        assert_eq!(refused.status, 403, "{method} {path}: {}", refused.body);
    }
    let stream = TcpStream::connect(("127.0.0.1", web.1)).expect("connect");
    let named = [("Host", "evil.example"), with];
    assert_eq!(
        exchange(stream, "GET", "/", &named, "").status,
        403,
        "known by no other name"
    );
    assert_eq!(bed.get("/v1/tasks").expect("list").1["tasks"], json!([]));
    let own = format!("http://127.0.0.1:{}", web.1);
    let made = web.ask("POST", "/tasks", &[with, ("Origin", &own)], &fields);
    assert_eq!(made.status, 303, "{}", made.body);
}

#[test]
fn who_connects_to_web_and_says_nothing_keeps_nobody_out() {
    let bed = Bed::start(&[]);
    let web = Web::open(&bed, &[]);
    let connect = |_| TcpStream::connect(("127.0.0.1", web.1)).expect("connect");
    let silent: Vec<_> = (0..64).map(connect).collect();
    // All places are taken: this one waits for those to be closed, which takes ten seconds.
    assert_eq!(web.ask("GET", &web.2, &[], &[]).status, 303);
    drop(silent);
}

#[test]
fn web_closes_when_nobody_is_there_and_at_ctrl_c() {
    let bed = Bed::start(&[]);
    let mut idle = Web::open(&bed, &["--idle", "200ms"]);
    assert_eq!(idle.0.wait().expect("end").code(), Some(0));
    let mut asked = Web::open(&bed, &[]);
    let pid = i32::try_from(asked.0.id()).expect("pid");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("signal");
    assert_eq!(asked.0.wait().expect("end").code(), Some(0));
}

#[test]
fn the_page_of_providers_has_the_budgets_of_the_day() {
    let (bed, _dir) = bed_of(
        free_port(),
        "[llm]\nbudgets = [{ queue = \"prompt\", tokens = 100 }]\n",
        "",
    );
    let page = local(&bed, "GET", "/providers", &[]);
    assert_eq!(page.status, 200, "{}", page.body);
    let (_, table) = page.body.split_once("Budgets").expect("budgets");
    for told in [
        "queue `prompt` today",
        "0 tokens",
        "100 of 100 tokens",
        "Begins anew",
    ] {
        assert!(table.contains(told), "{told}: {table}");
    }
    is_harmless("/providers", &page.body);
}
