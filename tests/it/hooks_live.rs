//! Hooks of a real daemon: programs that run, requests that arrive, and what is refused.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};
use taskdaemon::model::hook::check_url;
use taskdaemon::model::id::TaskId;
use taskdaemon::model::retry::Retry;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::bed::{Bed, request};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A request as a server has seen it.
#[derive(Debug)]
struct Seen {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let named = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(named)
            .map(|(_, value)| value.as_str())
    }
}

fn read_request(stream: impl Read) -> Option<(Seen, impl Read)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let seen = Seen {
        line: line.trim().to_owned(),
        headers,
        body: String::from_utf8(body).ok()?,
    };
    Some((seen, reader))
}

/// A server that gives these answers, one to each connection, and its port.
fn server(answers: Vec<String>) -> (u16, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let (tell, seen) = sync_channel(answers.len());
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            let copy = stream.try_clone().expect("a copy");
            let request = read_request(copy).map(|(seen, _)| seen);
            // Whoever has enough of a long answer hangs up.
            drop(stream.write_all(answer.as_bytes()));
            if let Some(request) = request {
                drop(tell.try_send(request));
            }
        }
    });
    (port, seen)
}

fn answer(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

/// A port on which nobody listens.
fn nobody() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").port()
}

fn show(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("an answer").1
}

/// The hooks of a task, oldest first.
fn hooks_of(bed: &Bed, id: i64) -> Vec<i64> {
    let (status, list) = bed
        .get(&format!("/v1/tasks?label=hook-of%3D{id}"))
        .expect("an answer");
    assert_eq!(status, 200, "{list}");
    let tasks = list["tasks"].as_array().expect("a list");
    let ids = tasks.iter().map(|task| task["id"].as_i64());
    let mut ids: Vec<_> = ids.map(|id| id.expect("a number")).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_command_hook_runs_with_what_there_is_to_know() {
    let bed = Bed::start(&[]);
    let (variables, input) = (bed.path("variables"), bed.path("input"));
    let line = format!(
        "env | grep ^TASKDAEMON_HOOK_ | sort > {}; cat > {}",
        variables.display(),
        input.display()
    );
    let id = bed.submit(&json!({
        "command": ["sh", "-c", "exit 7"],
        "name": "nightly",
        "hooks": [
            {"on": ["failed"], "command": ["sh", "-c", line]},
            {"on": ["succeeded"], "command": ["false"]},
        ],
    }));
    let shown = bed.wait(id);
    assert_eq!(shown["hooks"][0]["on"], json!(["failed"]), "{shown}");
    assert_eq!(shown["hooks"][1]["command"], json!(["false"]), "{shown}");
    let hooks = hooks_of(&bed, id);
    assert_eq!(hooks.len(), 1, "one end, one hook");
    let hook = bed.wait(hooks[0]);
    assert_eq!(hook["state"], "succeeded", "{hook}");
    assert_eq!(hook["hook_of"], id);
    let variables = std::fs::read_to_string(variables).expect("written");
    let expected = format!(
        "TASKDAEMON_HOOK_CLASS=exit\nTASKDAEMON_HOOK_EXIT_CODE=7\nTASKDAEMON_HOOK_NAME=nightly\n\
         TASKDAEMON_HOOK_QUEUE=default\nTASKDAEMON_HOOK_STATE=failed\nTASKDAEMON_HOOK_TASK={id}\n"
    );
    assert_eq!(variables, expected);
    let told: Value =
        serde_json::from_slice(&std::fs::read(input).expect("written")).expect("json");
    // The same words as the API's.
    for field in [
        "id",
        "state",
        "name",
        "queue",
        "labels",
        "owner",
        "key",
        "created_at",
        "due_at",
        "ended_at",
        "tries",
        "max_attempts",
        "outcome",
    ] {
        assert_eq!(told[field], shown[field], "{field}");
    }
}

/// How many tasks to submit before one whose hook waits at most 2 s in all
/// before its first retries.
fn padding() -> i64 {
    let rule = Retry {
        base_ms: 10_000,
        cap_ms: 600_000,
        ..Retry::default()
    };
    let soon = |id: &i64| {
        let wait = |tries| rule.wait(TaskId(id + 2), tries);
        wait(1) + wait(2) < Duration::from_secs(2)
    };
    (1..10_000).find(soon).expect("some wait is short")
}

/// The signature as another program computes it.
fn openssl(text: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-r", "-hmac", SECRET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("ended");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split(' ').next().expect("a sum").to_owned()
}

fn secret_file(dir: &std::path::Path, text: &str, mode: u32) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("secret");
    std::fs::write(&path, text).expect("written");
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&path, mode).expect("mode");
    path.display().to_string()
}

#[test]
fn a_webhook_is_sent_until_it_is_taken_and_signed() {
    let dir = tempfile::tempdir().expect("directory");
    let file = secret_file(dir.path(), &format!("{SECRET}\n"), 0o600);
    let bad = answer("500 Internal Server Error");
    let (port, seen) = server(vec![bad.clone(), bad, answer("200 OK")]);
    let url = format!("http://127.0.0.1:{port}/tasks?from=test");
    let bed = Bed::start(&[("HOOKS__SECRET_FILE", &file)]);
    let later = json!({"command": ["true"], "delay": "1d"});
    let tasks: Vec<_> = (0..padding()).map(|_| later.clone()).collect();
    let (status, _) = bed
        .post("/v1/tasks", &json!({"tasks": tasks}))
        .expect("an answer");
    assert_eq!(status, 201);
    let id = bed.submit(&json!({"command": ["true"], "hooks": [{"webhook": url}]}));
    bed.wait(id);
    let hook = hooks_of(&bed, id)[0];
    let hook = bed.wait(hook);
    assert_eq!(hook["state"], "succeeded", "{hook}");
    let codes: Vec<_> = hook["attempts"]
        .as_array()
        .expect("attempts")
        .iter()
        .map(|attempt| attempt["exit_code"].clone())
        .collect();
    assert_eq!(codes, [75, 75, 0]);
    let all: Vec<_> = seen.iter().collect();
    assert_eq!(all.len(), 3);
    for request in &all {
        assert_eq!(request.line, "POST /tasks?from=test HTTP/1.1");
        assert_eq!(request.header("host"), Some(&*format!("127.0.0.1:{port}")));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("taskdaemon-event"), Some("task.succeeded"));
        assert_eq!(request.body, all[0].body);
        let delivery = request.header("taskdaemon-delivery").expect("a number");
        assert_eq!(Some(delivery), all[0].header("taskdaemon-delivery"));
        let told: Value = serde_json::from_str(&request.body).expect("json");
        assert_eq!(told["id"], id);
        let signature = request.header("taskdaemon-signature").expect("signed");
        let (time, sum) = signature.split_once(',').expect("two parts");
        let time = time.strip_prefix("t=").expect("a time");
        let expected = openssl(&format!("{time}.{}", request.body));
        assert_eq!(sum, format!("v1={expected}"));
    }
}

#[test]
fn a_receiver_that_is_down_shows_as_waiting_and_holds_up_nobody() {
    let bed = Bed::start(&[("ENGINE__SLOTS", "1")]);
    let url = format!("http://127.0.0.1:{}/", nobody());
    let id = bed.submit(&json!({"command": ["true"], "hooks": [{"webhook": url}]}));
    bed.wait(id);
    let hook = hooks_of(&bed, id)[0];
    bed.until("the first attempt has failed", |bed| {
        let first = &show(bed, hook)["attempts"][0];
        first["exit_code"] == 75
    });
    let shown = show(&bed, hook);
    assert_eq!(shown["max_attempts"], 5, "{shown}");
    if shown["state"] == "scheduled" {
        assert_eq!(shown["reason_code"], "backoff", "{shown}");
    }
    // One slot, and it is free.
    let other = bed.submit(&json!({"command": ["true"]}));
    assert_eq!(bed.wait(other)["state"], "succeeded");
    let cancel = format!("/v1/tasks/{hook}/cancel");
    let (status, _) = bed.post(&cancel, &Value::Null).expect("an answer");
    assert_eq!(status, 200);
    assert_eq!(bed.wait(hook)["state"], "cancelled");
}

fn put(bed: &Bed, path: &str, body: &Value) -> (u16, Value) {
    request(&bed.socket(), "PUT", path, Some(body)).expect("an answer")
}

#[test]
fn hooks_of_a_queue_are_set_shown_and_happen() {
    let bed = Bed::start(&[]);
    let path = "/v1/queues/builds/hooks";
    assert_eq!(
        bed.get(path).expect("an answer"),
        (200, json!({"hooks": []}))
    );
    let hooks = json!({"hooks": [{"on": ["succeeded"], "command": ["true"]}]});
    assert_eq!(put(&bed, path, &hooks), (200, hooks.clone()));
    assert_eq!(bed.get(path).expect("an answer"), (200, hooks));
    let id = bed.submit(&json!({"command": ["true"], "queue": "builds"}));
    bed.wait(id);
    let made = hooks_of(&bed, id);
    assert_eq!(made.len(), 1);
    assert_eq!(bed.wait(made[0])["state"], "succeeded");
    for (path, body, status, words) in [
        (path, json!({}), 400, "hooks"),
        (path, json!({"hooks": {}}), 400, "sequence"),
        (path, json!({"hooks": [], "x": 1}), 400, "unknown field"),
        (path, json!({"hooks": [{}]}), 400, "command or a webhook"),
        (
            "/v1/queues/no%20name/hooks",
            json!({"hooks": []}),
            400,
            "queue",
        ),
        ("/v1/queues/-/hooks", json!({"hooks": []}), 400, "queue"),
    ] {
        let (told, answer) = put(&bed, path, &body);
        assert_eq!(told, status, "{path} {body}: {answer}");
        let detail = answer["detail"].as_str().expect("a detail");
        assert!(detail.contains(words), "{path} {body}: {answer}");
    }
    let (_, kept) = bed.get(path).expect("an answer");
    assert_eq!(kept["hooks"].as_array().map(Vec::len), Some(1), "unchanged");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn bad_hooks_are_refused_with_their_field_and_nothing_is_kept() {
    let bed = Bed::start(&[]);
    let nine: Vec<_> = (0..9).map(|_| json!({"command": ["x"]})).collect();
    let long = format!("https://example.org/{}", "x".repeat(2048));
    let rows = [
        (json!("true"), "bad_json", "sequence"),
        (json!([["failed"]]), "bad_json", "a JSON object"),
        (json!([null]), "bad_json", "a JSON object"),
        (json!([{}]), "invalid", "a command or a webhook"),
        (
            json!([{"on": ["failed"]}]),
            "invalid",
            "a command or a webhook",
        ),
        (
            json!([{"command": ["x"], "webhook": "https://example.org"}]),
            "invalid",
            "not both",
        ),
        (
            json!([{"command": []}]),
            "invalid",
            "hooks.command: is empty",
        ),
        (json!([{"command": [""]}]), "invalid", "empty program"),
        (json!([{"command": ["x\u{0}"]}]), "invalid", "NUL"),
        (
            json!([{"command": ["x".repeat(200_000)]}]),
            "invalid",
            "131071",
        ),
        (json!([{"command": "x"}]), "bad_json", "sequence"),
        (
            json!([{"command": ["x"], "on": ["running"]}]),
            "bad_json",
            "`succeeded`",
        ),
        (
            json!([{"command": ["x"], "on": "faled"}]),
            "bad_json",
            "`failed`",
        ),
        (
            json!([{"command": ["x"], "on": 3}]),
            "bad_json",
            "final states",
        ),
        (
            json!([{"command": ["x"], "on": {}}]),
            "bad_json",
            "final states",
        ),
        (
            json!([{"comand": ["x"]}]),
            "unknown_field",
            "did you mean `command`",
        ),
        (json!([{"webhook": 3}]), "bad_json", "string"),
        (
            json!([{"webhook": ""}]),
            "invalid",
            "hooks.webhook: must begin",
        ),
        (
            json!([{"webhook": "file:///etc/passwd"}]),
            "invalid",
            "must begin",
        ),
        (
            json!([{"webhook": "https://a:b@example.org"}]),
            "invalid",
            "password",
        ),
        (
            json!([{"webhook": "https://example.org/#x"}]),
            "invalid",
            "fragment",
        ),
        (
            json!([{"webhook": "https://example.org/\r\nX: y"}]),
            "invalid",
            "hexadecimal",
        ),
        (json!([{"webhook": long}]), "invalid", "2048"),
        (json!(nine), "invalid", "more than 8"),
    ];
    for (hooks, code, words) in rows {
        let body = json!({"command": ["true"], "hooks": hooks});
        let (status, answer) = bed.post("/v1/tasks", &body).expect("an answer");
        let shown: String = body.to_string().chars().take(120).collect();
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!(code)),
            "{shown}: {answer}"
        );
        let detail = answer["detail"].as_str().expect("a detail");
        assert!(detail.contains(words), "{shown}: {answer}");
    }
    let own = json!({"command": ["true"], "queue": "hooks"});
    let (status, answer) = bed.post("/v1/tasks", &own).expect("an answer");
    assert_eq!(
        (status, &answer["field"]),
        (400, &json!("queue")),
        "{answer}"
    );
    let forged = json!({"command": ["true"], "hook_of": 1});
    let (status, answer) = bed.post("/v1/tasks", &forged).expect("an answer");
    assert_eq!((status, &answer["code"]), (400, &json!("unknown_field")));
    let (_, list) = bed.get("/v1/tasks").expect("an answer");
    assert_eq!(list["tasks"], json!([]));
}

#[test]
fn hooks_of_the_host_come_with_a_reload_and_a_bad_secret_changes_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let config = dir.path().join("config.toml");
    let write = |text: &str| std::fs::write(&config, text).expect("written");
    write("log = 'info'\n");
    let mut bed = Bed::start(&[("CONFIG", &config.display().to_string())]);
    let reload = |bed: &Bed| bed.post("/v1/reload", &Value::Null).expect("an answer");
    let made = |bed: &Bed, code: &str| {
        let id = bed.submit(&json!({"command": ["sh", "-c", format!("exit {code}")]}));
        bed.wait(id);
        hooks_of(bed, id).len()
    };
    assert_eq!(made(&bed, "1"), 0);
    write("hooks.on = 'failed'\nhooks.command = ['true']\n");
    let (status, answer) = reload(&bed);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(made(&bed, "1"), 1);
    assert_eq!(made(&bed, "0"), 0);
    for (text, mode, why) in [
        ("short", 0o600, "must hold 16"),
        ("", 0o600, "must hold 16"),
        (SECRET, 0o604, "can be read by everybody"),
    ] {
        let file = secret_file(dir.path(), text, mode);
        write(&format!("hooks.secret_file = '{file}'\n"));
        let (status, answer) = reload(&bed);
        assert_eq!((status, &answer["code"]), (422, &json!("config_refused")));
        let detail = answer["detail"].as_str().expect("a detail");
        assert!(detail.contains(why), "{detail}");
        assert!(!detail.contains("short"), "{detail}");
    }
    assert_eq!(made(&bed, "1"), 1, "the old ones are in force");
    bed.kill();
    let output = bed.command().stderr(Stdio::piped()).output().expect("ran");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    write("log = 'info'\n");
    bed.restart();
}

/// What `deliver` says of an order on its standard input.
fn deliver(order: &str, certificates: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
    command.arg("deliver").env_remove("SSL_CERT_FILE");
    if let Some(path) = certificates {
        command.env("SSL_CERT_FILE", path);
        command.env("SSL_CERT_DIR", "/nonexistent");
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(order.as_bytes()).expect("written");
    drop(stdin);
    child.wait_with_output().expect("ended")
}

fn order(url: &str) -> String {
    json!({"url": url, "headers": {"X-One": "1"}, "body": "{}"}).to_string()
}

#[test]
fn each_answer_to_a_delivery_has_its_exit_code() {
    let status = |line: &str| answer(line);
    let huge = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1 << 20));
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{}/\r\nContent-Length: 0\r\n\r\n",
        nobody()
    );
    for (text, code, words) in [
        (status("200 OK"), 0, ""),
        (status("204 No Content"), 0, ""),
        (huge, 0, ""),
        (redirect, 1, "redirects are not followed"),
        (status("400 Bad Request"), 1, "will not later"),
        (status("404 Not Found"), 1, "will not later"),
        (status("410 Gone"), 1, "will not later"),
        (status("408 Request Timeout"), 75, "408"),
        (status("429 Too Many Requests"), 75, "429"),
        (status("500 Internal Server Error"), 75, "500"),
        (status("503 Service Unavailable"), 75, "503"),
        (status("599 Odd"), 75, "599"),
        (String::new(), 75, "127.0.0.1"),
        ("SSH-2.0-x\r\n".to_owned(), 75, "127.0.0.1"),
        ("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), 75, "127.0.0.1"),
    ] {
        let (port, seen) = server(vec![text.clone()]);
        let output = deliver(&order(&format!("http://127.0.0.1:{port}")), None);
        let shown: String = text.chars().take(40).collect();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{shown:?}: {told}");
        assert!(told.contains(words), "{shown:?}: {told}");
        assert!(output.stdout.len() < 2048, "{shown:?}: only the beginning");
        let seen = seen.recv().expect("asked once");
        assert_eq!(seen.line, "POST / HTTP/1.1");
        assert_eq!(seen.header("x-one"), Some("1"));
        assert_eq!(seen.body, "{}");
    }
    let refused = deliver(&order(&format!("http://127.0.0.1:{}", nobody())), None);
    assert_eq!(refused.status.code(), Some(75));
    for bad in [
        "",
        "{}",
        "[]",
        &order("ftp://127.0.0.1/"),
        &order("http://a b/"),
        r#"{"url":"http://127.0.0.1:1/","headers":{"a b":"c"},"body":""}"#,
        r#"{"url":"http://127.0.0.1:1/","headers":{"a":"c\nd"},"body":""}"#,
    ] {
        let output = deliver(bad, None);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{bad}: {told}");
        assert_eq!(told.lines().count(), 1, "{bad}: {told}");
    }
}

/// What a server says cannot steer the terminal of whoever reads the log.
#[test]
fn a_servers_answer_is_printed_without_control_characters() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\u{1b}[31mred\n";
    let (port, _seen) = server(vec![text.to_owned()]);
    let output = deliver(&order(&format!("http://127.0.0.1:{port}")), None);
    assert_eq!(output.status.code(), Some(0));
    assert!(!output.stdout.contains(&0x1b), "{:?}", output.stdout);
}

pub(crate) fn tls_file(name: &str) -> String {
    format!("{}/tests/it/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What a server needs that speaks TLS, with a certificate for `localhost` and
/// 127.0.0.1.
pub(crate) fn tls_config() -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(tls_file("server.pem")).expect("a file");
    let chain = chain.map(|one| one.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a server");
    Arc::new(config)
}

/// A server that speaks TLS, and its port. It serves as many connections as
/// asked.
fn tls_server(address: &str, connections: usize) -> u16 {
    let config = tls_config();
    let listener = TcpListener::bind((address, 0)).expect("bind");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().expect("a connection");
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream: StreamOwned<_, TcpStream> = StreamOwned::new(session, stream);
            // A client that does not believe the certificate hangs up.
            let Some((_, _)) = read_request(&mut stream) else {
                continue;
            };
            drop(stream.write_all(answer("200 OK").as_bytes()));
            stream.conn.send_close_notify();
            drop(stream.flush());
        }
    });
    port
}

#[test]
fn a_server_is_believed_by_a_certificate_that_the_host_trusts_and_by_no_other() {
    let (port, other) = (tls_server("127.0.0.1", 4), tls_server("127.0.0.2", 1));
    let trusted = tls_file("ca.pem");
    for (host, certificates, code, words) in [
        ("localhost", Some(&*trusted), 0, ""),
        ("127.0.0.1", Some(&*trusted), 0, ""),
        ("127.0.0.2", Some(&*trusted), 75, "certificate"),
        ("localhost", None, 75, "certificate"),
        ("localhost", Some("/dev/null"), 75, "trusts no certificates"),
    ] {
        let port = if host == "127.0.0.2" { other } else { port };
        let url = format!("https://{host}:{port}/x");
        let output = deliver(&order(&url), certificates);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{url}: {told}");
        assert!(told.contains(words), "{url}: {told}");
    }
    // Plain HTTP to a port that speaks TLS, and TLS to one that does not.
    let plain = deliver(
        &order(&format!("http://localhost:{}/", tls_server("127.0.0.1", 1))),
        None,
    );
    assert_ne!(plain.status.code(), Some(0));
    let (port, _seen) = server(vec![answer("200 OK")]);
    let url = format!("https://localhost:{port}/");
    let output = deliver(&order(&url), Some(&trusted));
    assert_eq!(output.status.code(), Some(75));
}

#[test]
fn the_command_line_makes_hooks() {
    let bed = Bed::start(&[]);
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
            .env(
                "TASKDAEMON_HOST",
                format!("unix:{}", bed.socket().display()),
            )
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("run")
    };
    let url = format!("http://127.0.0.1:{}/", nobody());
    let output = run(&[
        "submit",
        "--hook-command",
        "/bin/true",
        "--hook-webhook",
        &url,
        "--hook-on",
        "failed,cancelled",
        "--",
        "true",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let id = String::from_utf8_lossy(&output.stdout);
    let id = id.trim().parse().expect("a number");
    let on = json!(["failed", "cancelled"]);
    let expected = json!([{"on": on, "command": ["/bin/true"]}, {"on": on, "webhook": url}]);
    assert_eq!(bed.wait(id)["hooks"], expected);
    assert_eq!(hooks_of(&bed, id), [0_i64; 0], "it succeeded");
    for (args, words) in [
        (&["--hook-on", "failed"][..], "--hook-command"),
        (
            &["--hook-on", "never", "--hook-command", "x"][..],
            "`succeeded`",
        ),
        (&["--hook-webhook", "ftp://x"][..], "https://"),
        (&["--hook-command", ""][..], "empty program"),
    ] {
        let all: Vec<_> = ["submit"]
            .iter()
            .chain(args)
            .chain(&["--", "x"])
            .copied()
            .collect();
        let output = run(&all);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(words), "{args:?}: {told}");
    }
}

proptest::proptest! {
    /// What passes the check can be sent.
    #[test]
    fn every_address_that_is_accepted_is_one_for_the_client_too(
        rest in "[a-zA-Z0-9.:@/?#%\\[\\]_~!$&'()*+,;=\\-\"<>\\\\^`{|} é\u{0}\n]{0,24}",
        scheme in "(https?://)(a|127.0.0.1|\\[::1\\])?",
    ) {
        let url = format!("{scheme}{rest}");
        if check_url(&url).is_ok() {
            let read: hyper::Uri = url.parse().expect(&url);
            proptest::prop_assert!(read.host().is_some_and(|host| !host.is_empty()));
            proptest::prop_assert!(read.scheme_str().is_some());
        }
    }
}
