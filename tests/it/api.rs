//! The API over its sockets: bad input, slow and idle clients, shutdown, who
//! may see what, output. A real daemon each time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use taskdaemon::clock;

use crate::bed::{Bed, request};

const PATIENCE: Duration = Duration::from_secs(20);

fn connect(bed: &Bed) -> UnixStream {
    let stream = UnixStream::connect(bed.socket()).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Reads until the other side closes; a reset counts as a close.
fn rest(mut stream: impl Read) -> String {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..len]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends bytes and reads what comes until the connection is closed.
pub(crate) fn raw(bed: &Bed, bytes: &[u8]) -> String {
    let mut stream = connect(bed);
    // The daemon may have answered and closed before it has everything.
    drop(stream.write_all(bytes));
    rest(stream)
}

fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

fn problem(answer: &str) -> Value {
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    serde_json::from_str(body).unwrap_or(Value::Null)
}

fn with_head(lines: &str) -> Vec<u8> {
    format!("{lines}Connection: close\r\n\r\n").into_bytes()
}

/// What is wrong, the request, the statuses it may get, the code it must get.
pub(crate) type Row = (&'static str, Vec<u8>, &'static [u16], &'static str);

fn get(path: &str) -> Vec<u8> {
    with_head(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n"))
}

fn post(lines: &str, body: &str) -> Vec<u8> {
    let head = "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    format!("{head}{lines}\r\n\r\n{body}").into_bytes()
}

const JSON: &str = "Content-Type: application/json\r\n";

/// Heads that no server should take.
fn bad_heads() -> Vec<Row> {
    vec![
        ("unknown path", get("/v1/nothing"), &[404], "no_route"),
        ("trailing slash", get("/v1/tasks/"), &[404, 400], ""),
        ("double slash", get("//v1/tasks"), &[404, 400], ""),
        ("dots", get("/v1/tasks/%2e%2e"), &[400], "bad_id"),
        ("NUL in the path", get("/v1/tasks/%00"), &[400], "bad_id"),
        (
            "wrong method",
            with_head("DELETE /v1/tasks HTTP/1.1\r\nHost: x\r\n"),
            &[405],
            "method_not_allowed",
        ),
        (
            "no host",
            with_head("GET /v1/tasks HTTP/1.1\r\n"),
            &[400],
            "bad_host",
        ),
        (
            "two hosts",
            with_head("GET /live HTTP/1.1\r\nHost: x\r\nHost: x\r\n"),
            &[400],
            "bad_host",
        ),
        (
            "host with a path",
            with_head("GET /live HTTP/1.1\r\nHost: a/b?c\r\n"),
            &[400],
            "bad_host",
        ),
        (
            "unlike lengths",
            post("Content-Length: 5\r\nContent-Length: 6", "xxxxx"),
            &[400],
            "",
        ),
        (
            "signed length",
            post("Content-Length: +5", "xxxxx"),
            &[400],
            "",
        ),
        (
            "negative length",
            post("Content-Length: -5", "xxxxx"),
            &[400],
            "",
        ),
        (
            "length of 2^64",
            post("Content-Length: 18446744073709551616", "x"),
            &[400, 413],
            "",
        ),
    ]
}

/// Heads and bodies that are too large or not what they should be.
fn bad_bodies() -> Vec<Row> {
    let big = "x".repeat(1024 * 1024);
    vec![
        ("huge head", get(&format!("/{big}")), &[414, 431, 400], ""),
        (
            "many headers",
            with_head(&format!(
                "GET /live HTTP/1.1\r\n{}",
                "a: b\r\n".repeat(10_000)
            )),
            &[431, 400],
            "",
        ),
        (
            "control byte",
            with_head("GET /live HTTP/1.1\r\nHost: x\r\na: \x01\r\n"),
            &[400],
            "",
        ),
        (
            "announced too large",
            post(&format!("{JSON}Content-Length: 10000000000"), "x"),
            &[413],
            "body_too_large",
        ),
        (
            "too large",
            post(&format!("{JSON}Content-Length: {}", 64 << 20), ""),
            &[413],
            "body_too_large",
        ),
        (
            "compressed",
            post(
                &format!("{JSON}Content-Encoding: gzip\r\nContent-Length: 1"),
                "x",
            ),
            &[415],
            "compressed_body",
        ),
        (
            "a form",
            post(
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3",
                "a=b",
            ),
            &[415],
            "not_json",
        ),
        (
            "no type",
            post("Content-Length: 2", "{}"),
            &[415],
            "not_json",
        ),
    ]
}

/// What is not HTTP/1.1.
fn other_protocols() -> Vec<Row> {
    vec![
        (
            "upgrade",
            with_head("GET /live HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n"),
            &[400],
            "upgrade_refused",
        ),
        (
            "connect",
            with_head("CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n"),
            &[400],
            "connect_refused",
        ),
        ("HTTP/0.9", b"GET /live\r\n".to_vec(), &[400], ""),
        (
            "HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            &[400, 0],
            "",
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
            &[400, 0],
            "",
        ),
    ]
}

/// Questions that have no answer.
fn bad_questions() -> Vec<Row> {
    vec![
        ("bad id", get("/v1/tasks/007"), &[400], "bad_id"),
        ("no such task", get("/v1/tasks/7"), &[404], "task_not_found"),
        ("limit", get("/v1/tasks?limit=0"), &[400], "invalid"),
        (
            "parameter",
            get("/v1/tasks?limt=1"),
            &[400],
            "unknown_parameter",
        ),
        ("cursor", get("/v1/tasks?cursor=abc"), &[400], "bad_cursor"),
        ("state", get("/v1/tasks?state=asleep"), &[400], "invalid"),
        (
            "log of nothing",
            get("/v1/tasks/7/log?follow=true"),
            &[404],
            "task_not_found",
        ),
        (
            "empty body",
            post(&format!("{JSON}Content-Length: 0"), ""),
            &[400],
            "bad_json",
        ),
        (
            "empty key",
            post(
                &format!("{JSON}Idempotency-Key: \r\nContent-Length: 2"),
                "{}",
            ),
            &[400],
            "invalid",
        ),
    ]
}

/// All that a server should refuse.
pub(crate) fn bad_requests() -> Vec<Row> {
    [
        bad_heads(),
        bad_bodies(),
        other_protocols(),
        bad_questions(),
    ]
    .concat()
}

#[test]
fn bad_http_gets_one_clear_answer_and_changes_nothing() {
    let bed = Bed::start(&[]);
    for (what, bytes, allowed, code) in bad_requests() {
        let answer = raw(&bed, &bytes);
        assert!(allowed.contains(&status(&answer)), "{what}: {answer}");
        if !code.is_empty() {
            assert_eq!(problem(&answer)["code"], code, "{what}: {answer}");
            assert!(
                answer.contains("application/problem+json"),
                "{what}: {answer}"
            );
            assert!(
                answer.to_lowercase().contains("x-request-id: "),
                "{what}: {answer}"
            );
        }
    }
    let (_, page) = bed.get("/v1/tasks").expect("list");
    assert_eq!(page["tasks"], json!([]), "nothing changed");
}

#[test]
fn a_405_names_the_methods_there_are() {
    let bed = Bed::start(&[]);
    let answer = raw(&bed, &with_head("PUT /v1/tasks HTTP/1.1\r\nHost: x\r\n"));
    let allow = answer
        .lines()
        .find(|line| line.to_lowercase().starts_with("allow:"));
    assert!(
        allow.is_some_and(|line| line.contains("POST") && line.contains("GET")),
        "{answer}"
    );
}

#[test]
fn slow_clients_are_cut_at_their_deadlines() {
    let bed = Bed::start(&[
        ("API__HEADER_TIMEOUT", "300ms"),
        ("API__BODY_TIMEOUT", "300ms"),
        ("API__IDLE_TIMEOUT", "300ms"),
    ]);
    let begun = clock::instant();
    let half = raw(&bed, b"GET /live HTTP/1.1\r\nHost:");
    assert_eq!(problem(&half)["code"], "head_timeout", "{half}");
    let silent = raw(&bed, b"");
    assert_eq!(silent, "");
    let body = raw(&bed, b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"co");
    assert_eq!(problem(&body)["code"], "body_timeout", "{body}");
    let idle = raw(&bed, b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status(&idle), 200, "answered, then closed as idle: {idle}");
    // Not tighter: one deadline that is not as set is at least its default, of which this is the shortest.
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

/// Raises the limit on descriptors as far as it goes, and returns it.
fn descriptors() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("limit");
    usize::try_from(hard).unwrap_or(usize::MAX)
}

#[test]
fn idle_connections_make_room_and_requests_at_work_are_left_alone() {
    // Were room not made, nobody would be let in before the header's deadline, and the question below goes unanswered.
    let bed = Bed::start(&[
        ("API__CONNECTIONS", "60"),
        ("API__CONNECTIONS_PER_PEER", "50"),
        ("API__HEADER_TIMEOUT", "10m"),
    ]);
    let id = bed.submit(&json!({"command": ["sleep", "3"]}));
    let mut waiting = connect(&bed);
    write!(
        waiting,
        "GET /v1/tasks/{id}/wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .expect("ask");
    let count = 2000.min(descriptors().saturating_sub(200));
    let mut idle = Vec::new();
    for number in 0..count {
        let mut stream = connect(&bed);
        if number % 2 == 0 {
            drop(stream.write_all(b"GET /live HTTP/1.1\r\nHo"));
        }
        idle.push(stream);
    }
    assert_eq!(bed.get("/live").expect("answer").0, 200);
    let first = idle.remove(1);
    assert_eq!(rest(first), "", "the longest-idle one was closed");
    let answer = rest(waiting);
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(
        problem(&answer)["state"],
        "succeeded",
        "the waiting one was not disturbed"
    );
}

#[test]
fn connections_beyond_the_cap_are_told_so_when_all_are_at_work() {
    let bed = Bed::start(&[
        ("API__CONNECTIONS", "4"),
        ("API__CONNECTIONS_PER_PEER", "4"),
    ]);
    let id = bed.submit(&json!({"command": ["sleep", "300"]}));
    // Four, and the sixteen that are kept for the admin this test runs as.
    let waiting: Vec<UnixStream> = (0..20)
        .map(|_| {
            let mut stream = connect(&bed);
            write!(
                stream,
                "GET /v1/tasks/{id}/wait HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            .expect("ask");
            stream
        })
        .collect();
    // Long enough for all to be at work.
    std::thread::park_timeout(Duration::from_millis(300));
    let mut answer = String::new();
    bed.until("all of them are at work", |bed| {
        answer = rest(connect(bed));
        !answer.is_empty()
    });
    assert_eq!(problem(&answer)["code"], "too_many_connections", "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    drop(waiting);
    bed.until("there is room again", |bed| {
        bed.get("/live").is_ok_and(|(status, _)| status == 200)
    });
}

#[test]
fn shutdown_answers_what_is_asked_and_waits_for_no_slow_client() {
    // Longer than anybody's patience here: nothing that waited for the drain's end would pass.
    let mut bed = Bed::start(&[("API__DRAIN", "25s")]);
    let id = bed.submit(&json!({"command": ["sleep", "30"]}));
    let mut waiting = connect(&bed);
    write!(
        waiting,
        "GET /v1/tasks/{id}/wait HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    .expect("ask");
    let mut following = connect(&bed);
    write!(
        following,
        "GET /v1/tasks/{id}/log?follow=true HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    .expect("ask");
    let mut half_head = connect(&bed);
    half_head
        .write_all(b"GET /live HTTP/1.1\r\nHos")
        .expect("send");
    let mut half_body = connect(&bed);
    half_body
        .write_all(b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        .expect("send");
    let mut kept = connect(&bed);
    let ask = |stream: &mut UnixStream| stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n");
    ask(&mut kept).expect("send");
    let mut piece = [0; 4096];
    let len = kept.read(&mut piece).expect("answer");
    assert!(String::from_utf8_lossy(&piece[..len]).starts_with("HTTP/1.1 200"));
    let silent = connect(&bed);
    let begun = clock::instant();
    kill(bed.pid(), Signal::SIGTERM).expect("signal");
    let answer = rest(waiting);
    assert_eq!(problem(&answer)["code"], "stopping", "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    ask(&mut kept).expect("an idle connection is still served for a moment");
    let answer = rest(kept);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(
        !rest(following).ends_with("0\r\n\r\n"),
        "cut off, which is not the end"
    );
    assert_eq!(rest(half_head), "");
    assert_eq!(problem(&rest(half_body))["code"], "stopping");
    drop(silent);
    assert_eq!(bed.end(Signal::SIGCONT), Some(0));
    // Not tighter: a half-sent body rightly has two seconds. Only the end of the drain is ruled out.
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    bed.restart();
    bed.post(&format!("/v1/tasks/{id}/cancel"), &json!({}))
        .expect("cancel");
    assert_eq!(bed.wait(id)["state"], "cancelled");
}

/// Asks on a connection that is kept, and reads the answer, which is a short one.
fn ask_kept(stream: &mut UnixStream) -> String {
    stream
        .write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("ask");
    let mut piece = [0; 4096];
    let len = stream.read(&mut piece).expect("answer");
    String::from_utf8_lossy(&piece[..len]).into_owned()
}

/// Connections older than the time for which a stopping daemon keeps them.
fn long_idle(bed: &Bed) -> [UnixStream; 2] {
    let mut used = connect(bed);
    assert_eq!(status(&ask_kept(&mut used)), 200);
    let unused = connect(bed);
    // It is the passing of time that makes them what they are.
    std::thread::park_timeout(Duration::from_millis(700));
    [used, unused]
}

#[test]
fn shutdown_lets_long_idle_connections_go_before_those_in_use() {
    let mut bed = Bed::start(&[]);
    let idle = long_idle(&bed);
    let mut kept = connect(&bed);
    assert_eq!(status(&ask_kept(&mut kept)), 200);
    kill(bed.pid(), Signal::SIGTERM).expect("signal");
    for stream in idle {
        assert_eq!(rest(stream), "", "closed without a word");
    }
    let answer = ask_kept(&mut kept);
    assert_eq!(status(&answer), 200, "and this one is still open: {answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(rest(kept), "");
    assert_eq!(bed.end(Signal::SIGCONT), Some(0));
}

#[test]
fn an_answer_under_way_at_shutdown_is_not_the_last_unless_it_said_so() {
    let mut bed = Bed::start(&[("API__DRAIN", "25s")]);
    // More than the buffers between the daemon and a client that does not read.
    let id = bed.submit(&json!({"command": ["head", "-c", "8000000", "/dev/zero"]}));
    assert_eq!(bed.wait(id)["state"], "succeeded");
    let mut stream = connect(&bed);
    write!(stream, "GET /v1/tasks/{id}/log HTTP/1.1\r\nHost: x\r\n\r\n").expect("ask");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("head");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(!head.contains("connection: close"), "{head}");
    assert!(head.contains("content-length: 8000000\r\n"), "{head}");
    // One that is never used is closed when what was in use at the signal has had its time.
    let unused = connect(&bed);
    let mut kept = connect(&bed);
    assert_eq!(status(&ask_kept(&mut kept)), 200, "accepted, all of them");
    kill(bed.pid(), Signal::SIGTERM).expect("signal");
    assert_eq!(rest(unused), "");
    let mut body = vec![0; 8_000_000];
    stream.read_exact(&mut body).expect("the whole body");
    let answer = ask_kept(&mut stream);
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    drop(kept);
    assert_eq!(bed.end(Signal::SIGCONT), Some(0));
}

#[test]
fn what_is_sent_after_the_last_request_costs_no_answer() {
    let bed = Bed::start(&[]);
    let mut stream = connect(&bed);
    let mut bytes = get("/live");
    // More than is read along with the request.
    bytes.resize(bytes.len() + 150_000, b'x');
    stream.write_all(&bytes).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("no reset");
    assert_eq!(status(&answer), 200, "{answer}");
}

#[test]
fn a_key_makes_one_task_and_a_list_is_all_or_nothing() {
    let bed = Bed::start(&[]);
    let one = json!({"command": ["true"], "key": "k"});
    let (first, accepted) = bed.post("/v1/tasks", &one).expect("submit");
    let (second, again) = bed.post("/v1/tasks", &one).expect("submit");
    assert_eq!((first, second), (201, 200));
    assert_eq!(
        (&again["id"], &again["created"]),
        (&accepted["id"], &json!(false))
    );
    let (reused, answer) = bed
        .post("/v1/tasks", &json!({"command": ["false"], "key": "k"}))
        .expect("submit");
    assert_eq!((reused, &answer["code"]), (409, &json!("key_reused")));

    let mut list: Vec<Value> = (0..100).map(|_| json!({"command": ["true"]})).collect();
    list[57]["cwd"] = json!("relative");
    let (refused, answer) = bed
        .post("/v1/tasks", &json!({ "tasks": list }))
        .expect("submit");
    assert_eq!(
        (refused, &answer["field"]),
        (400, &json!("tasks[57].cwd")),
        "{answer}"
    );
    list[57]["cwd"] = json!("/");
    let (created, answer) = bed
        .post("/v1/tasks", &json!({ "tasks": list }))
        .expect("submit");
    assert_eq!(created, 201, "{answer}");
    assert_eq!(answer["tasks"].as_array().map(Vec::len), Some(100));

    let mut seen = Vec::new();
    let mut path = "/v1/tasks?limit=40".to_owned();
    loop {
        let (_, page) = bed.get(&path).expect("list");
        let ids = page["tasks"]
            .as_array()
            .expect("tasks")
            .iter()
            .map(|task| task["id"].as_i64());
        seen.extend(ids.map(|id| id.expect("id")));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/tasks?limit=40&cursor={next}");
    }
    assert_eq!(
        seen,
        (1..=101).rev().collect::<Vec<i64>>(),
        "each once, newest first"
    );
    let (mixed, answer) = bed.get(&format!("{path}&queue=other")).expect("list");
    assert_eq!((mixed, &answer["code"]), (400, &json!("bad_cursor")));
    for literal in ["%25", "_", "%27", "%3B--", "(a%2B)%2B%24"] {
        let (status, page) = bed.get(&format!("/v1/tasks?name={literal}")).expect("list");
        assert_eq!((status, &page["tasks"]), (200, &json!([])), "{literal}");
    }
}

/// Status and body of a request over TCP.
fn over_tcp(port: u16, head: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
        .write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())
        .expect("send");
    let answer = rest(stream);
    (status(&answer), problem(&answer))
}

#[test]
fn over_tcp_a_token_says_who_asks_and_strangers_see_nothing() {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .expect("port")
        .port();
    // SHA-256 of "abc".
    let token = "[{name=\"ci\",sha256=\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\",uid=4242}]";
    let bed = Bed::start(&[
        ("API__LISTEN", &format!("[\"127.0.0.1:{port}\"]")),
        ("API__TOKENS", token),
    ]);
    let own = bed.submit(&json!({"command": ["true"]}));
    let host = format!("Host: 127.0.0.1:{port}\r\n");
    let bearer = "Authorization: Bearer abc\r\n";
    let get = |path: &str, lines: &str| over_tcp(port, &format!("GET {path} HTTP/1.1\r\n{lines}"));
    assert_eq!(get("/live", &host).0, 200, "monitors need no token");
    for lines in [
        String::new(),
        "Authorization: Bearer abd\r\n".to_owned(),
        "Authorization: abc\r\n".to_owned(),
    ] {
        let (status, answer) = get("/v1/tasks", &format!("{host}{lines}"));
        assert_eq!(
            (status, &answer["code"]),
            (401, &json!("unauthorized")),
            "{lines}"
        );
    }
    let (status, answer) = get("/v1/tasks", &format!("Host: evil.example\r\n{bearer}"));
    assert_eq!((status, &answer["code"]), (421, &json!("foreign_host")));
    let (status, answer) = get(
        "/v1/tasks",
        &format!("{host}{bearer}Origin: http://evil.example\r\n"),
    );
    assert_eq!((status, &answer["code"]), (403, &json!("foreign_origin")));
    let (status, page) = get("/v1/tasks", &format!("{host}{bearer}"));
    assert_eq!(
        (status, &page["tasks"]),
        (200, &json!([])),
        "others' tasks are not listed"
    );
    let (status, page) = get("/v1/events", &format!("{host}{bearer}"));
    assert_eq!(
        (status, &page["events"]),
        (200, &json!([])),
        "nor is what happened to them told"
    );
    for (path, expected) in [
        (format!("/v1/tasks/{own}"), 404),
        (format!("/v1/tasks/{own}/log"), 404),
        (format!("/v1/tasks/{own}/log?follow=true"), 404),
        (format!("/v1/tasks/{own}/wait"), 404),
        ("/v1/tasks?owner=0".to_owned(), 403),
    ] {
        assert_eq!(get(&path, &format!("{host}{bearer}")).0, expected, "{path}");
    }
    for path in [
        format!("/v1/tasks/{own}/cancel"),
        format!("/v1/tasks/{own}/retry"),
        "/v1/reload".to_owned(),
    ] {
        let (status, _) = over_tcp(
            port,
            &format!("POST {path} HTTP/1.1\r\n{host}{bearer}Content-Length: 0\r\n"),
        );
        assert!([403, 404].contains(&status), "{path}: {status}");
    }
}

#[test]
fn output_is_served_whole_in_ranges_and_by_stream() {
    let bed = Bed::start(&[]);
    let line = "printf 'one\\000\\377\\n'; sleep 0.2; printf err >&2; sleep 0.2; printf two";
    let id = bed.submit(&json!({"command": ["sh", "-c", line]}));
    bed.wait(id);
    let path = format!("/v1/tasks/{id}/log");
    let fetch = |query: &str, range: &str| {
        let mut stream = connect(&bed);
        write!(
            stream,
            "GET {path}{query} HTTP/1.1\r\nHost: x\r\n{range}Connection: close\r\n\r\n"
        )
        .expect("ask");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answer");
        let end = answer
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        (status(&head), head, answer[end + 4..].to_vec())
    };
    let whole = b"one\0\xff\nerrtwo";
    assert_eq!(fetch("", "").2, whole);
    assert_eq!(fetch("?stream=stdout", "").2, b"one\0\xff\ntwo");
    assert_eq!(fetch("?stream=stderr&attempt=1", "").2, b"err");
    let (code, head, part) = fetch("", "Range: bytes=3-6\r\n");
    assert_eq!((code, part.as_slice()), (206, &whole[3..7]));
    assert!(head.contains("content-range: bytes 3-6/12"), "{head}");
    assert_eq!(fetch("", "Range: bytes=-3\r\n").2, b"two");
    for beyond in ["bytes=12-", "bytes=9223372036854775808-", "bytes=--1"] {
        let (code, head, _) = fetch("", &format!("Range: {beyond}\r\n"));
        assert_eq!(code, 416, "{beyond}");
        assert!(head.contains("content-range: bytes */12"), "{head}");
    }
    assert_eq!(fetch("?attempt=2", "").0, 404);
    assert_eq!(fetch("?stream=both", "").0, 400);
    assert_eq!(
        fetch("?follow=true", "").2.len(),
        fetch("?follow=true", "").2.len()
    );
}

/// Events of a followed log: id, kind, data.
fn events(text: &str) -> Vec<(String, String, Value)> {
    // Chunk sizes stand on lines of their own between the events' lines.
    let mut found = Vec::new();
    let (mut id, mut kind) = (String::new(), String::new());
    for line in text.split('\n').map(|line| line.trim_end_matches('\r')) {
        if let Some(text) = line.strip_prefix("id: ") {
            text.clone_into(&mut id);
        } else if let Some(text) = line.strip_prefix("event: ") {
            text.clone_into(&mut kind);
        } else if let Some(text) = line.strip_prefix("data: ") {
            let data = serde_json::from_str(text).unwrap_or(Value::Null);
            found.push((id.clone(), kind.clone(), data));
        }
    }
    found
}

#[test]
fn a_followed_log_goes_on_over_attempts_and_from_any_event() {
    let bed = Bed::start(&[]);
    let line = "printf a$TASKDAEMON_ATTEMPT; sleep 0.3; printf b >&2; [ $TASKDAEMON_ATTEMPT = 2 ]";
    let retry = json!({"max_attempts": 2, "backoff": "100ms"});
    let id = bed.submit(&json!({"command": ["sh", "-c", line], "retry": retry, "delay": "300ms"}));
    let follow = |lines: &str| {
        let mut stream = connect(&bed);
        write!(
            stream,
            "GET /v1/tasks/{id}/log?follow=true HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{lines}Connection: close\r\n\r\n"
        )
        .expect("ask");
        events(&rest(stream))
    };
    // Asked before the first attempt has begun.
    let all = follow("Last-Event-ID: 1.0\r\n");
    let kinds: Vec<&str> = all.iter().map(|(_, kind, _)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "attempt", "output", "output", "attempt", "output", "output", "end"
        ],
        "{all:?}"
    );
    let texts: Vec<&str> = all
        .iter()
        .filter_map(|(_, _, data)| data["base64"].as_str())
        .collect();
    assert_eq!(texts, ["YTE=", "Yg==", "YTI=", "Yg=="]);
    assert_eq!(all[2].2["stream"], "stderr");
    assert_eq!(all[6].2["state"], "succeeded");
    for (place, (event, _, _)) in all.iter().enumerate().take(6) {
        let later = follow(&format!("Last-Event-ID: {event}\r\n"));
        let outputs = |list: &[(String, String, Value)]| -> Vec<Value> {
            list.iter()
                .filter(|(_, kind, _)| kind == "output")
                .map(|(_, _, data)| data.clone())
                .collect()
        };
        assert_eq!(outputs(&later), outputs(&all[place + 1..]), "after {event}");
    }
    let mut stream = connect(&bed);
    write!(
        stream,
        "GET /v1/tasks/{id}/log?follow=true&attempt=1 HTTP/1.0\r\nHost: x\r\n\r\n"
    )
    .expect("ask");
    assert!(
        rest(stream).ends_with("\r\n\r\na1b"),
        "plain bytes for who asks for no events"
    );
}

#[test]
fn requests_keep_their_ids_and_json_errors_their_place() {
    let bed = Bed::start(&[]);
    let answer = raw(
        &bed,
        &with_head("GET /live HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine-1\r\n"),
    );
    assert!(answer.contains("x-request-id: mine-1"), "{answer}");
    let (status, answer) = request(
        &bed.socket(),
        "POST",
        "/v1/tasks",
        Some(&json!({"command": ["a"], "timout": "1s"})),
    )
    .expect("answer");
    assert_eq!(
        (status, &answer["code"], &answer["field"]),
        (400, &json!("unknown_field"), &json!("timout"))
    );
    assert!(
        answer["detail"]
            .as_str()
            .is_some_and(|text| text.contains("`timeout`") && text.contains("column")),
        "{answer}"
    );
    let conflict = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: a\r\nContent-Length: 30\r\nConnection: close\r\n\r\n{\"command\":[\"true\"],\"key\":\"b\"}";
    assert_eq!(problem(&raw(&bed, conflict))["field"], "key");
}
