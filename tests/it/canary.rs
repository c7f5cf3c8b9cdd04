//! Secrets with a name that cannot be overlooked, and a look for them wherever
//! a daemon writes, answers, or hands something on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use taskdaemon::api::access;

use crate::bed::Bed;
use crate::cli::at;
use crate::security::{asked, free_port, furnish, hash, over_tcp};

/// A token of the configuration.
const TOKEN: &str = "canary-of-a-token-5b1f0c77d2e94a68";
/// A token that is none.
const WRONG: &str = "canary-of-a-stranger-a3d0e2f49c1b7e50";
/// By which webhooks are signed.
const SECRET: &str = "canary-of-the-webhooks-09ce41b7aa83d652";
/// The key of a collector of traces.
const KEY: &str = "canary-of-a-collector-7e6d0f15c3b89a24";
/// What they have in common.
const CANARY: &[u8] = b"canary-of-";

/// Settings with all secrets that a daemon can have.
fn settings(dir: &Path, port: u16) {
    let secret = dir.join("secret");
    fs::write(&secret, format!("{SECRET}\n")).expect("write");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("mode");
    let headers = dir.join("headers");
    fs::write(&headers, format!("X-Key: {KEY}\n")).expect("write");
    fs::set_permissions(&headers, fs::Permissions::from_mode(0o600)).expect("mode");
    let text = format!(
        "log = \"trace\"\n[traces]\nendpoint = \"http://127.0.0.1:9\"\nheaders_file = \"{}\"\n[api]\nlisten = [\"127.0.0.1:{port}\"]\n\
         tokens = [{{ name = \"ci\", sha256 = \"{}\", uid = 0 }}]\n\
         [hooks]\nsecret_file = \"{}\"\n",
        headers.display(),
        hash(TOKEN),
        secret.display()
    );
    let file = dir.join("config.toml");
    fs::write(&file, text).expect("write");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("mode");
}

/// Sends bytes over TCP, and hears whatever comes.
fn send(port: u16, bytes: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.write_all(bytes.as_bytes()).expect("send");
    let mut answer = Vec::new();
    let _cut = stream.read_to_end(&mut answer).is_err();
    answer
}

/// Requests that go wrong in ways that somebody could want to write down.
fn stumble(port: u16) -> Vec<Vec<u8>> {
    let head = |line: &str, more: &str| {
        let request =
            format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{more}\r\n");
        send(port, &request)
    };
    let bearer = |secret: &str| format!("Authorization: Bearer {secret}\r\n");
    vec![
        head("GET /v1/tasks", &bearer(WRONG)),
        head(
            "GET /v1/tasks",
            &format!("Authorization: Basic {TOKEN}\r\n"),
        ),
        head("GET /v1/tasks", &(bearer(TOKEN) + &bearer(WRONG))),
        head(
            "GET /v1/tasks",
            &format!("{}\u{1}\r\n", bearer(TOKEN).trim()),
        ),
        head("GET /v1/nothing", &bearer(TOKEN)),
        head("GET /v1/tasks?limit=0", &bearer(TOKEN)),
        head("DELETE /v1/tasks", &bearer(TOKEN)),
        head(
            "POST /v1/tasks",
            &(bearer(TOKEN) + "Content-Length: +1\r\n"),
        ),
        head("GET /v1/events?limit=1", &bearer(TOKEN)),
    ]
}

/// All files below a directory.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn sings(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|part| part == CANARY)
}

/// Looks into everything that is said of the daemon and its tasks.
fn listen(bed: &Bed, port: u16) -> Vec<(String, Vec<u8>)> {
    let mut heard = Vec::new();
    let (task, schedule) = furnish(bed);
    for row in access::table()
        .into_iter()
        .filter(|row| row.method == "GET")
    {
        if row.path.ends_with("/wait") {
            continue;
        }
        let (path, _) = asked(row, task, schedule);
        let (_, answer) = over_tcp(port, TOKEN, "GET", &path, "");
        heard.push((path, answer.to_string().into_bytes()));
    }
    let config = bed.path("config.toml").display().to_string();
    for words in [
        &["config", "show", "--config", &config][..],
        &["config", "show", "--json", "--config", &config],
        &["config", "check", "--config", &config],
        &["status", "--json"],
        &["events", "--json"],
        &["list", "--json"],
        &["queue", "list", "--json"],
        &["schedule", "list", "--json"],
    ] {
        let done = at(bed, words);
        heard.push((words.join(" "), [done.stdout, done.stderr].concat()));
    }
    let over_net = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args([
            "--host",
            &format!("http://127.0.0.1:{port}"),
            "show",
            "4711",
        ])
        .env("TASKDAEMON_TOKEN", TOKEN)
        .output()
        .expect("run");
    heard.push((
        "a client".to_owned(),
        [over_net.stdout, over_net.stderr].concat(),
    ));
    let (_, status) = bed.get("/v1/status").expect("status");
    for pid in [
        i64::from(bed.pid().as_raw()),
        status["runner"]["pid"].as_i64().expect("a runner"),
    ] {
        for name in ["cmdline", "environ"] {
            let path = format!("/proc/{pid}/{name}");
            let bytes = fs::read(&path).unwrap_or_default();
            heard.push((path, bytes));
        }
    }
    heard
}

#[test]
fn sec_28_no_secret_is_in_what_is_logged_stored_answered_or_handed_on() {
    let dir = tempfile::tempdir().expect("directory");
    let port = free_port();
    settings(dir.path(), port);
    let config = dir.path().join("config.toml");
    let mut bed = Bed::start(&[("CONFIG", &config.display().to_string())]);
    fs::copy(&config, bed.path("config.toml")).expect("copy");
    let (status, _) = over_tcp(port, TOKEN, "GET", "/v1/status", "");
    assert_eq!(status, 200, "the token opens");
    for answer in stumble(port) {
        assert!(!sings(&answer), "{}", String::from_utf8_lossy(&answer));
    }
    // A webhook that nobody hears, tasks that look around, a reload that is
    // refused because the secret itself is where its hash should be.
    let closed = free_port();
    let url = format!("http://127.0.0.1:{closed}/");
    let look = "cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline; env; ps axeww";
    let task = json!({
        "command": ["sh", "-c", look], "hooks": [{ "on": ["succeeded"], "webhook": url }],
    });
    let id = bed.submit(&task);
    assert_eq!(bed.wait(id)["state"], "succeeded");
    let output = bed.output(id);
    assert!(!output.is_empty() && !sings(&output), "a task sees it");
    bed.until("the webhook was tried", |bed| {
        let (_, list) = bed
            .get(&format!("/v1/tasks?label=hook-of%3D{id}"))
            .expect("list");
        list["tasks"][0]["attempts"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
            || !list["tasks"][0]["reason"].is_null()
    });
    let right = fs::read_to_string(&config).expect("read");
    fs::write(&config, right.replace(&hash(TOKEN), TOKEN)).expect("write");
    let (status, refused) = bed.post("/v1/reload", &Value::Null).expect("reload");
    assert_ne!(status, 200, "{refused}");
    assert!(!sings(refused.to_string().as_bytes()), "{refused}");
    fs::write(&config, right).expect("write");
    for (what, bytes) in listen(&bed, port) {
        assert!(
            !sings(&bytes),
            "{what}: {}",
            String::from_utf8_lossy(&bytes)
        );
    }
    let copy = bed.path("copy.db");
    let state = bed.path("state");
    let done = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args(["backup", "--state-dir"])
        .args([&state, &copy])
        .output()
        .expect("run");
    assert!(done.status.success(), "{done:?}");
    bed.end(Signal::SIGTERM);
    let mut found = vec![bed.path("log"), copy];
    files(&state, &mut found);
    assert!(found.len() > 3, "{found:?}");
    for path in found {
        let bytes = fs::read(&path).expect("read");
        assert!(
            !bytes.is_empty() || path.extension().is_some(),
            "{}",
            path.display()
        );
        assert!(!sings(&bytes), "{} has a secret", path.display());
    }
    let log = fs::read_to_string(bed.path("log")).expect("the log");
    assert!(log.contains("DEBUG"), "everything was logged");
}
