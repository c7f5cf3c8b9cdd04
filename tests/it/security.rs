//! Who may do what, and what is kept of it: roles and routes, tokens, the
//! record. The table of all security requirements is `tests/security.md`.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use taskdaemon::api::access::{self, Row};
use taskdaemon::api::number::Stamp;
use taskdaemon::clock;
use taskdaemon::model::role::Role;

use crate::bed::{Bed, request};
use crate::runner::root;

/// A user of no name, who is no admin.
const STRANGER: u32 = 54_321;
/// The user `nobody` of every Debian.
const NOBODY: u32 = 65_534;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does something as another user: the kernel says so to whoever is connected
/// to. The user is the thread's alone, which ends with it.
#[expect(unsafe_code, reason = "the library's own call changes all threads")]
pub(crate) fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: takes three numbers and touches no memory.
            let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            assert_eq!(done, 0, "become user {uid}");
            work()
        });
        thread.join().expect("the other user's thread")
    })
}

/// A bed whose socket others can reach.
fn open_bed(settings: &[(&str, &str)]) -> Bed {
    let bed = Bed::start(settings);
    let all = std::fs::Permissions::from_mode;
    std::fs::set_permissions(bed.dir.path(), all(0o711)).expect("mode");
    std::fs::set_permissions(bed.socket(), all(0o666)).expect("mode");
    bed
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .expect("port")
        .port()
}

pub(crate) fn hash(secret: &str) -> String {
    let hash = Sha256::digest(secret);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token for root whose secret is its name.
fn token(name: &str, more: &str) -> String {
    format!("{{name=\"{name}\",sha256=\"{}\",uid=0{more}}}", hash(name))
}

/// Status and body of a request over TCP with a token.
pub(crate) fn over_tcp(
    port: u16,
    token: &str,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, Value) {
    let mut stream = connect(port, token, method, path, body);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    // What is no JSON is text.
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    (status.expect("a status"), body)
}

fn connect(port: u16, token: &str, method: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("send");
    stream
}

/// A request that a row of the table answers: path and body. A new row needs a
/// line here.
pub(crate) fn asked(row: Row, task: i64, schedule: i64) -> (String, Value) {
    let path = row.path.replace("{id}", &task.to_string());
    let path = path.replace("{schedule}", &schedule.to_string());
    let path = path.replace("{agent}", "steady");
    let verb = if row.path.contains("{agent}") {
        "stop"
    } else {
        "pause"
    };
    let path = path.replace("{queue}", "spare").replace("{verb}", verb);
    let (more, body) = match (row.method, row.path) {
        ("GET", "/v1/tasks/{id}/wait") => ("?timeout=1ms", Value::Null),
        ("GET", "/v1/events" | "/v1/activity" | "/v1/tasks") => ("?limit=10", Value::Null),
        ("GET", _) => ("", Value::Null),
        ("POST", "/v1/tasks") => ("", json!({ "command": ["true"] })),
        ("POST", "/v1/tasks/retry" | "/v1/tasks/cancel" | "/v1/tasks/discard") => {
            ("", json!({ "all": true }))
        }
        ("PATCH", "/v1/tasks/{id}") => ("", json!({ "priority": 3 })),
        ("POST", "/v1/tasks/{id}/cancel") => ("", Value::Null),
        ("POST", "/v1/tasks/{id}/retry") => ("", Value::Null),
        ("POST", "/v1/tasks/{id}/pause" | "/v1/tasks/{id}/resume") => ("", Value::Null),
        ("PATCH", "/v1/queues/{queue}") => ("", json!({ "concurrency": 3 })),
        ("DELETE", "/v1/queues/{queue}" | "/v1/schedules/{schedule}" | "/v1/agents/{agent}") => {
            ("", Value::Null)
        }
        ("POST", "/v1/agents/{agent}/{verb}") => ("", Value::Null),
        ("POST", "/v1/agents") => (
            "",
            json!({ "name": "new", "stopped": true, "task": { "command": ["true"] } }),
        ),
        ("PUT", "/v1/queues/{queue}/hooks") => ("", json!({ "hooks": [] })),
        ("POST", "/v1/queues/{queue}/{verb}" | "/v1/schedules/{schedule}/{verb}") => {
            ("", Value::Null)
        }
        ("POST", "/v1/schedules") => (
            "",
            json!({ "name": "new", "when": "every 1h", "task": { "command": ["true"] } }),
        ),
        ("POST", "/v1/reload" | "/v1/probe") => ("", Value::Null),
        other => unreachable!("{other:?} is in the table of routes and not in this test"),
    };
    (format!("{path}{more}"), body)
}

/// Everything there is, as root sees it.
fn world(bed: &Bed) -> Vec<Value> {
    let paths = [
        "/v1/tasks?limit=1000",
        "/v1/queues",
        "/v1/schedules",
        "/v1/agents",
    ];
    let get = |path: &&str| bed.get(path).expect("look").1;
    paths.iter().map(get).collect()
}

/// A task of root's that waits in a queue that stands still, and a schedule.
pub(crate) fn furnish(bed: &Bed) -> (i64, i64) {
    // What is compared before and after says what tasks wait for.
    bed.until("a runner is there", |bed| {
        let (_, status) = bed.get("/v1/status").expect("status");
        status["runner"].is_object()
    });
    let limits = json!({ "concurrency": 1 });
    let patched = request(&bed.socket(), "PATCH", "/v1/queues/spare", Some(&limits));
    assert_eq!(patched.expect("a queue").0, 200);
    for name in ["default", "hooks"] {
        let limits = json!({ "concurrency": 1 });
        let path = format!("/v1/queues/{name}");
        let made = request(&bed.socket(), "PATCH", &path, Some(&limits));
        assert_eq!(made.expect("a queue").0, 200);
        let paused = bed.post(&format!("{path}/pause"), &Value::Null);
        assert_eq!(paused.expect("pause").0, 200);
    }
    let task = bed.submit(&json!({ "command": ["true"] }));
    let schedule = json!({
        "name": "yearly", "when": "0 0 1 1 *", "task": { "command": ["true"] },
    });
    let (status, made) = bed.post("/v1/schedules", &schedule).expect("a schedule");
    assert_eq!(status, 201, "{made}");
    (task, made["id"].as_i64().expect("a number"))
}

/// Sends a request of each row and judges the answers.
fn walk(
    bed: &Bed,
    who: &str,
    role: Role,
    owns: bool,
    send: impl Fn(&Row, &str, &Value) -> (u16, Value),
) {
    for row in access::table() {
        // Fresh for each row: the one before may have used them up.
        let (task, schedule) = (bed.submit(&json!({ "command": ["true"] })), schedule(bed));
        let (path, body) = asked(row, task, schedule);
        let path = path.replace("steady", &agent(bed));
        let before = world(bed);
        let (status, answer) = send(&row, &path, &body);
        let what = format!("{who}: {} {path}: {status} {answer}", row.method);
        if row.least.is_none_or(|least| role.covers(least)) {
            assert!(![401, 403].contains(&status), "{what}");
            let named = ["{id}", "{schedule}", "{agent}"];
            let foreign = named.iter().any(|name| row.path.contains(name));
            if foreign && !owns {
                assert_eq!(status, 404, "of others there is nothing: {what}");
                assert_eq!(world(bed), before, "{what}");
            }
        } else {
            assert_eq!(
                (status, &answer["code"]),
                (403, &json!("not_permitted")),
                "{what}"
            );
            assert_eq!(world(bed), before, "a refusal changes nothing: {what}");
        }
    }
}

/// The number of root's agent, made anew where it was removed.
pub(crate) fn agent(bed: &Bed) -> String {
    let asked = json!({
        "name": "steady", "stopped": true, "replace": true, "task": { "command": ["true"] },
    });
    let (status, made) = bed.post("/v1/agents", &asked).expect("an agent");
    assert_eq!(status, 201, "{made}");
    made["id"].to_string()
}

/// The number of root's schedule, made anew where it was removed.
fn schedule(bed: &Bed) -> i64 {
    let (_, list) = bed.get("/v1/schedules").expect("list");
    let all = list["schedules"].as_array().expect("schedules");
    let own = all.iter().find(|one| one["name"] == "yearly");
    let Some(one) = own else {
        let asked = json!({
            "name": "yearly", "when": "0 0 1 1 *", "task": { "command": ["true"] },
        });
        let (status, made) = bed.post("/v1/schedules", &asked).expect("a schedule");
        assert_eq!(status, 201, "{made}");
        return made["id"].as_i64().expect("a number");
    };
    one["id"].as_i64().expect("a number")
}

#[test]
fn each_route_asks_users_for_its_role_and_a_refusal_changes_nothing() {
    if !root() {
        return;
    }
    let bed = open_bed(&[("API__READERS", "[\"nobody\"]")]);
    furnish(&bed);
    let socket = bed.socket();
    for (uid, role, owns) in [
        (NOBODY, Role::Read, true),
        (STRANGER, Role::Own, false),
        (0, Role::Admin, true),
    ] {
        walk(
            &bed,
            &format!("user {uid}"),
            role,
            owns,
            |row, path, body| {
                let body = (!body.is_null()).then_some(body);
                as_user(uid, || request(&socket, row.method, path, body)).expect("an answer")
            },
        );
    }
}

#[test]
fn a_token_gives_no_more_than_its_role() {
    let port = free_port();
    let tokens = Role::ALL.map(|role| token(role.word(), &format!(",role=\"{}\"", role.word())));
    let bed = Bed::start(&[
        ("API__LISTEN", &format!("[\"127.0.0.1:{port}\"]")),
        ("API__TOKENS", &format!("[{}]", tokens.join(","))),
    ]);
    furnish(&bed);
    for role in Role::ALL {
        walk(&bed, role.word(), role, true, |row, path, body| {
            let body = if body.is_null() {
                String::new()
            } else {
                body.to_string()
            };
            over_tcp(port, role.word(), row.method, path, &body)
        });
    }
}

#[test]
fn who_may_only_submit_replaces_nothing() {
    let port = free_port();
    let bed = Bed::start(&[
        ("API__LISTEN", &format!("[\"127.0.0.1:{port}\"]")),
        (
            "API__TOKENS",
            &format!("[{}]", token("t", ",role=\"submit\"")),
        ),
    ]);
    furnish(&bed);
    let unique = |conflict: &str| json!({ "command": ["true"], "unique": { "key": "k", "on_conflict": conflict } });
    let send = |conflict| {
        over_tcp(
            port,
            "t",
            "POST",
            "/v1/tasks",
            &unique(conflict).to_string(),
        )
    };
    assert_eq!(send("reject").0, 201);
    let before = world(&bed);
    let (status, answer) = send("replace");
    assert_eq!(
        (status, &answer["code"]),
        (403, &json!("not_permitted")),
        "{answer}"
    );
    assert_eq!(world(&bed), before);
    assert_eq!(send("return").0, 200);
}

fn soon() -> Stamp {
    Stamp(clock::now().after(Duration::from_secs(12)))
}

#[test]
fn a_token_that_expires_ends_its_streams_and_opens_nothing_more() {
    let port = free_port();
    let until = soon();
    let bed = Bed::start(&[
        ("API__LISTEN", &format!("[\"127.0.0.1:{port}\"]")),
        (
            "API__TOKENS",
            &format!("[{}]", token("brief", &format!(",expires=\"{until}\""))),
        ),
    ]);
    let paths = ["/v1/events?follow=true", "/v1/tasks/1/wait?timeout=1h"];
    furnish(&bed);
    let open: Vec<_> = paths
        .iter()
        .map(|path| connect(port, "brief", "GET", path, ""))
        .collect();
    for (path, mut stream) in paths.iter().zip(open) {
        let mut text = Vec::new();
        // However it ends: it ends.
        let _cut = stream.read_to_end(&mut text).is_err();
        let late = clock::now().since(until.0);
        assert!(
            late < Duration::from_secs(5),
            "{path}: {late:?} after it expired"
        );
        assert!(clock::now() >= until.0, "{path}: cut before its time");
        let text = String::from_utf8_lossy(&text);
        assert!(
            !text.ends_with("\r\n0\r\n\r\n"),
            "{path}: cut, not ended: {text}"
        );
    }
    let (status, answer) = over_tcp(port, "brief", "GET", "/v1/tasks", "");
    assert_eq!(status, 401, "{answer}");
    assert!(answer["detail"].to_string().contains("expired"), "{answer}");
}

#[test]
fn a_token_that_is_taken_away_ends_its_streams() {
    let port = free_port();
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("config.toml");
    let write = |tokens: &[String]| {
        let text = format!(
            "[api]\nlisten = [\"127.0.0.1:{port}\"]\ntokens = [{}]\n",
            tokens.join(",")
        );
        std::fs::write(&file, text).expect("write");
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(&file, mode).expect("mode");
    };
    write(&[token("a", ""), token("b", "")]);
    let bed = Bed::start(&[("CONFIG", &file.display().to_string())]);
    let mut stream = connect(port, "a", "GET", "/v1/events?follow=true", "");
    let mut stays = connect(port, "b", "GET", "/v1/events?follow=true", "");
    for stream in [&mut stream, &mut stays] {
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("it begins");
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    write(&[token("b", "")]);
    let (status, changed) = bed.post("/v1/reload", &Value::Null).expect("reload");
    assert_eq!(status, 200, "{changed}");
    let mut rest = Vec::new();
    let _cut = stream.read_to_end(&mut rest).is_err();
    bed.submit(&json!({ "command": ["true"] }));
    let mut more = String::new();
    while !more.contains("submitted") {
        let mut piece = [0; 4096];
        let length = stays.read(&mut piece).expect("the other one goes on");
        assert!(length > 0, "the other one goes on: {more}");
        more.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
}

#[test]
fn after_twenty_failures_in_a_minute_an_address_has_to_wait() {
    let port = free_port();
    let bed = Bed::start(&[
        ("API__LISTEN", &format!("[\"127.0.0.1:{port}\"]")),
        ("API__TOKENS", &format!("[{}]", token("right", ""))),
    ]);
    assert_eq!(over_tcp(port, "right", "GET", "/v1/status", "").0, 200);
    for attempt in 0..20 {
        let (status, _) = over_tcp(port, "wrong", "GET", "/v1/status", "");
        assert_eq!(status, 401, "{attempt}");
    }
    for token in ["wrong", "right"] {
        let mut stream = connect(port, token, "GET", "/v1/status", "");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        let head = answer.to_lowercase();
        let after = head.split("retry-after: ").nth(1).expect("Retry-After");
        let after: u64 = after.lines().next().expect("line").parse().expect("number");
        assert!((1..=60).contains(&after), "{after}");
    }
    // Another address of this host, and another door, are free.
    let socket = socket2();
    let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    socket.bind(other).expect("bind");
    let status = socket.ask(port, "right");
    assert_eq!(status, 200, "others do not wait");
    assert_eq!(bed.get("/v1/status").expect("status").0, 200);
    assert_eq!(over_tcp(port, "", "GET", "/live", "").0, 200);
}

/// A socket of which the near end can be chosen.
struct Bound(std::os::fd::OwnedFd);

fn socket2() -> Bound {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let kind = (
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
    );
    Bound(socket(kind.0, kind.1, kind.2, None).expect("socket"))
}

impl Bound {
    fn bind(&self, near: SocketAddr) -> nix::Result<()> {
        use std::os::fd::AsRawFd as _;
        let near = nix::sys::socket::SockaddrStorage::from(near);
        nix::sys::socket::bind(self.0.as_raw_fd(), &near)
    }

    fn ask(self, port: u16, token: &str) -> u16 {
        use std::os::fd::AsRawFd as _;
        let far = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let far = nix::sys::socket::SockaddrStorage::from(far);
        nix::sys::socket::connect(self.0.as_raw_fd(), &far).expect("connect");
        let mut stream = TcpStream::from(self.0);
        write!(
            stream,
            "GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\
             Connection: close\r\n\r\n"
        )
        .expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        answer[9..12].parse().expect("a status")
    }
}

#[test]
fn tcp_is_off_unless_somebody_may_use_it() {
    let port = free_port();
    let dir = tempfile::tempdir().expect("directory");
    let key = dir.path().join("key");
    let path = key.display().to_string();
    let listen = format!("[\"127.0.0.1:{port}\"]");
    for (settings, word) in [
        (vec![], "token"),
        (vec![("API__TLS_CERTIFICATE", path.as_str())], "token"),
        (
            vec![("API__TOKENS", "[{name=\"a\",sha256=\"00\",uid=1}]")],
            "hexadecimal",
        ),
        (
            vec![
                ("API__TLS_CLIENT_CA", path.as_str()),
                ("API__CERTIFICATES", "[{name=\"a\",uid=1}]"),
            ],
            "tls_certificate",
        ),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
        command
            .args(["run", "--state-dir"])
            .arg(dir.path().join("state"))
            .arg("--runtime-dir")
            .arg(dir.path().join("run"))
            .env("TASKDAEMON_API__LISTEN", &listen);
        for (name, value) in &settings {
            command.env(format!("TASKDAEMON_{name}"), value);
        }
        let done = command.output().expect("run");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(78), "{settings:?}: {said}");
        assert!(said.contains(word), "{settings:?}: {said}");
    }
    let bed = Bed::start(&[]);
    if !root() {
        return;
    }
    let pid = bed.pid();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("table");
    let sockets: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("descriptors")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[").map(str::to_owned))
        .map(|number| number.trim_end_matches(']').to_owned())
        .collect();
    for line in table.lines().skip(1) {
        let inode = line
            .split_whitespace()
            .nth(9)
            .unwrap_or_default()
            .to_owned();
        assert!(!sockets.contains(&inode), "a TCP socket by default: {line}");
    }
}

fn events(bed: &Bed, kind: &str) -> Vec<Value> {
    let (status, page) = bed
        .get(&format!("/v1/events?limit=1000&kind={kind}"))
        .expect("events");
    assert_eq!(status, 200, "{page}");
    page["events"].as_array().expect("events").clone()
}

/// One request with a name of its own.
fn named(bed: &Bed, id: &str, method: &str, path: &str, body: &Value) -> u16 {
    let mut stream = UnixStream::connect(bed.socket()).expect("connect");
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {id}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer[9..12].parse().expect("a status")
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn the_record_says_who_asked_by_which_process_and_request() {
    let mut bed = open_bed(&[]);
    furnish(&bed);
    let submit = json!({ "command": ["true"], "user": "daemon" });
    let schedule = json!({ "name": "s", "when": "every 1h", "task": { "command": ["true"] } });
    for (id, method, path, body, status) in [
        ("r-submit", "POST", "/v1/tasks", submit, 201),
        (
            "r-edit",
            "PATCH",
            "/v1/tasks/2",
            json!({ "priority": 2 }),
            200,
        ),
        ("r-cancel", "POST", "/v1/tasks/2/cancel", Value::Null, 200),
        (
            "r-bulk",
            "POST",
            "/v1/tasks/cancel",
            json!({ "all": true }),
            200,
        ),
        (
            "r-discard",
            "POST",
            "/v1/tasks/discard",
            json!({ "all": true }),
            200,
        ),
        (
            "r-queue",
            "PATCH",
            "/v1/queues/spare",
            json!({ "concurrency": 2 }),
            200,
        ),
        (
            "r-hooks",
            "PUT",
            "/v1/queues/spare/hooks",
            json!({ "hooks": [] }),
            200,
        ),
        ("r-schedule", "POST", "/v1/schedules", schedule, 201),
        ("r-remove", "DELETE", "/v1/schedules/s", Value::Null, 200),
        ("r-reload", "POST", "/v1/reload", Value::Null, 200),
    ] {
        assert_eq!(named(&bed, id, method, path, &body), status, "{id}");
    }
    let socket = bed.socket();
    if root() {
        let refused = as_user(STRANGER, || request(&socket, "POST", "/v1/reload", None));
        assert_eq!(refused.expect("an answer").0, 403);
        bed.until("the refusal is on the record", |bed| {
            !events(bed, "denied").is_empty()
        });
        let denied = events(&bed, "denied");
        assert_eq!(denied[0]["actor"], STRANGER, "{denied:?}");
        assert_eq!(denied[0]["data"]["path"], "/v1/reload", "{denied:?}");
    }
    // What was answered is on disk, whatever happens next.
    bed.kill();
    bed.start_again();
    bed.until("it is ready", |bed| {
        bed.get("/ready").is_ok_and(|answer| answer.0 == 200)
    });
    for (kind, id) in [
        ("submitted", "r-submit"),
        ("edited", "r-edit"),
        ("cancel_asked", "r-cancel"),
        ("cancelled", "r-cancel"),
        ("cancel_asked", "r-bulk"),
        ("removed", "r-discard"),
        ("queue_changed", "r-queue"),
        ("queue_changed", "r-hooks"),
        ("schedule_changed", "r-schedule"),
        ("schedule_changed", "r-remove"),
        ("reloaded", "r-reload"),
    ] {
        let all = events(&bed, kind);
        let row = all.iter().find(|event| event["request"] == id);
        let row = row.unwrap_or_else(|| panic!("no {kind} of {id}: {all:?}"));
        assert_eq!(row["pid"], std::process::id(), "{row}");
        assert_eq!(row["actor"], nix::unistd::getuid().as_raw(), "{row}");
    }
    let run_as = &events(&bed, "submitted")[1]["data"]["run_as"];
    assert_eq!(run_as, "daemon");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn a_secret_of_256_bits_is_made_and_only_its_hash_is_kept() {
    let make = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
        command
            .args(["token", "new"])
            .args(args)
            .output()
            .expect("run")
    };
    let done = make(&[
        "ci",
        "--user",
        "4242",
        "--role",
        "submit",
        "--expires",
        "90d",
        "--json",
    ]);
    let said: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let secret = said["secret"].as_str().expect("a secret");
    assert_eq!(secret.len(), 64, "256 bits");
    assert_eq!(said["token"]["sha256"], hash(secret));
    assert_eq!(
        (&said["token"]["uid"], &said["token"]["role"]),
        (&json!(4242), &json!("submit"))
    );
    let other: Value =
        serde_json::from_slice(&make(&["ci", "--user", "1", "--json"]).stdout).expect("JSON");
    assert_ne!(other["secret"], said["secret"]);
    for (args, word) in [
        (&["a b", "--user", "1"][..], "letters"),
        (
            &["a", "--user", "1", "--role", "king"],
            "read, submit, own, admin",
        ),
        (
            &["a", "--user", "1", "--expires", "2001-01-01T00:00:00Z"],
            "past",
        ),
        (&["a", "--user", "1", "--expires", "soon"], "90d"),
        (&["a", "--user", "no-such-user-here"], "no-such-user-here"),
    ] {
        let done = make(args);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
    // The lines go into the configuration as they are, and the secret opens.
    let made = make(&["ci", "--user", "0", "--role", "read"]);
    let lines = String::from_utf8(made.stdout).expect("text");
    let told = String::from_utf8(made.stderr).expect("text");
    let secret = told
        .split(": ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .expect("secret");
    assert!(!lines.contains(secret));
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("config.toml");
    let port = free_port();
    let text = format!("{lines}[api]\nlisten = [\"127.0.0.1:{port}\"]\n");
    std::fs::write(&file, text).expect("write");
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode));
    mode(0o644).expect("mode");
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
        command
            .args(["config", "check", "--config"])
            .arg(&file)
            .output()
            .expect("run")
    };
    let open = check();
    let said = String::from_utf8_lossy(&open.stderr).into_owned();
    assert_eq!(open.status.code(), Some(78), "{said}");
    assert!(
        said.contains("read by everybody") && said.contains("0640"),
        "{said}"
    );
    mode(0o640).expect("mode");
    assert_eq!(check().status.code(), Some(0));
    let bed = Bed::start(&[("CONFIG", &file.display().to_string())]);
    assert_eq!(over_tcp(port, secret, "GET", "/v1/status", "").0, 200);
    assert_eq!(over_tcp(port, secret, "POST", "/v1/reload", "").0, 403);
    // Neither the database nor the log has it.
    for name in ["state/taskdaemon.db", "state/taskdaemon.db-wal", "log"] {
        let bytes = std::fs::read(bed.path(name)).unwrap_or_default();
        let found = bytes
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "{name} has the secret");
    }
}
