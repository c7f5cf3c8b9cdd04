//! What stays shut: the state directory, the process's memory, what a terminal
//! and the journal are shown, what a name or a link could lead to.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};
use nix::unistd::Pid;
use serde_json::{Value, json};
use taskdaemon::cli::text::{Screen, escape};
use taskdaemon::telemetry::is_plain;

use crate::bed::{Bed, request};
use crate::prompt::{BEGIN, KEY, Says, Seen, chat, provider};
use crate::runner::root;
use crate::security::as_user;

/// The user `nobody` of every Debian.
const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
}

/// Exit code and words of a daemon on a state directory.
fn start_on(state: &Path) -> (Option<i32>, String) {
    let runtime = state.with_file_name("run");
    let done = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args(["run", "--state-dir"])
        .arg(state)
        .arg("--runtime-dir")
        .arg(runtime)
        .stdin(Stdio::null())
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code(), said)
}

#[test]
fn a_state_directory_that_others_could_have_prepared_is_refused() {
    type Spoil = fn(&Path);
    let rows: [(&str, Spoil, &str); 7] = [
        ("its mode", |state| mode(state, 0o755), "0700"),
        (
            "the database's mode",
            |state| mode(&state.join("taskdaemon.db"), 0o640),
            "0600",
        ),
        (
            "a second name",
            |state| {
                let database = state.join("taskdaemon.db");
                fs::hard_link(&database, state.with_file_name("link")).expect("link");
            },
            "hard link",
        ),
        (
            "a link",
            |state| {
                let (database, real) = (state.join("taskdaemon.db"), state.with_file_name("db"));
                fs::rename(&database, &real).expect("move");
                symlink(&real, &database).expect("link");
            },
            "regular file",
        ),
        (
            "a link for the log",
            |state| {
                let log = state.join("taskdaemon.db-wal");
                drop(fs::remove_file(&log));
                fs::write(state.with_file_name("wal"), "").expect("write");
                symlink(state.with_file_name("wal"), &log).expect("link");
            },
            "regular file",
        ),
        (
            "the directory's owner",
            |state| chown(state, Some(NOBODY), None).expect("owner"),
            "another user",
        ),
        (
            "the database's owner",
            |state| chown(state.join("taskdaemon.db"), Some(NOBODY), None).expect("owner"),
            "another user",
        ),
    ];
    for (what, spoil, word) in rows {
        if what.ends_with("owner") && !root() {
            continue;
        }
        let mut bed = Bed::start(&[]);
        bed.submit(&json!({ "command": ["true"] }));
        bed.end(Signal::SIGTERM);
        let state = bed.path("state");
        spoil(&state);
        let before = fs::read(state.join("taskdaemon.db")).expect("read");
        let (code, said) = start_on(&state);
        assert_eq!(code, Some(78), "{what}: {said}");
        assert!(said.contains(word), "{what}: {said}");
        let after = fs::read(state.join("taskdaemon.db")).expect("read");
        assert_eq!(before, after, "{what}: nothing is touched");
    }
}

/// Status and body of a request, however odd its path is.
fn get(bed: &Bed, path: &str) -> (u16, Vec<u8>) {
    let mut stream = UnixStream::connect(bed.socket()).expect("connect");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("send");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("read");
    // Nothing at all is an answer too: the connection was closed.
    let status = answer
        .get(9..12)
        .and_then(|part| std::str::from_utf8(part).ok());
    let status = status.and_then(|text| text.parse().ok()).unwrap_or(0);
    (status, answer)
}

#[test]
fn a_log_is_a_number_and_leads_nowhere_else() {
    let bed = Bed::start(&[]);
    let id = bed.submit(&json!({ "command": ["echo", "hello"] }));
    bed.wait(id);
    let secret = b"what is elsewhere";
    fs::write(bed.path("secret"), secret).expect("write");
    for path in [
        "/v1/tasks/../../secret/log",
        "/v1/tasks/..%2f..%2fsecret/log",
        "/v1/tasks/%2e%2e/log",
        "/v1/tasks/1%00/log",
        "/v1/tasks/1%2f../log",
        "/v1/tasks/+1/log",
        "/v1/tasks/01/log",
        "/v1/tasks/1/log?attempt=../1",
        "/v1/tasks/1/log?attempt=1%2f..%2f..",
        "/v1/tasks/1/log?stream=../x",
        "/v1/tasks/1/log/../../../secret",
    ] {
        let (status, answer) = get(&bed, path);
        assert!((400..500).contains(&status), "{path}: {status}");
        assert!(
            !answer.windows(secret.len()).any(|part| part == secret),
            "{path}"
        );
    }
    // And a link in the place of output is not followed, on no part of the way.
    let output = bed.path("state/output");
    let file = output.join(format!("{}/{id}.1", id / 1000 * 1000));
    assert!(file.is_file(), "{}", file.display());
    let log = format!("/v1/tasks/{id}/log");
    assert_eq!(get(&bed, &log).0, 200);
    fs::rename(&file, bed.path("moved")).expect("move");
    symlink(bed.path("moved"), &file).expect("link");
    for path in [log.clone(), format!("{log}?follow=true")] {
        let (_, answer) = get(&bed, &path);
        assert!(!answer.windows(5).any(|part| part == b"hello"), "{path}");
    }
    fs::remove_file(&file).expect("remove");
    let directory = file.parent().expect("directory").to_owned();
    fs::rename(bed.path("moved"), &file).expect("move back");
    fs::rename(&directory, bed.path("directory")).expect("move");
    symlink(bed.path("directory"), &directory).expect("link");
    let (_, answer) = get(&bed, &log);
    assert!(!answer.windows(5).any(|part| part == b"hello"));
}

#[test]
fn a_clients_socket_name_says_nothing_about_it() {
    if !root() {
        return;
    }
    let bed = Bed::start(&[]);
    mode(bed.dir.path(), 0o711);
    mode(&bed.socket(), 0o666);
    let theirs = bed.path("theirs");
    fs::create_dir(&theirs).expect("directory");
    mode(&theirs, 0o777);
    for name in [";uid=0;", "uid=0 gid=0", "\u{1}\n0"] {
        let near = theirs.join(name);
        let status = as_user(54_321, || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let own = socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("socket");
            let fd = std::os::fd::AsRawFd::as_raw_fd(&own);
            bind(
                fd,
                &UnixAddr::new(near.as_os_str().as_bytes()).expect("name"),
            )
            .expect("bind");
            connect(fd, &UnixAddr::new(&bed.socket()).expect("name")).expect("connect");
            let mut stream = UnixStream::from(own);
            stream
                .write_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .expect("send");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("read");
            answer
        });
        assert!(status.starts_with("HTTP/1.1 403 "), "{name}: {status}");
    }
}

#[test]
fn what_answers_without_a_token_says_nothing_of_tasks() {
    let bed = Bed::start(&[]);
    let canary = "canary-6b1f";
    let id = bed.submit(&json!({
        "command": ["true", canary], "name": canary, "queue": canary, "labels": { "a": canary },
    }));
    bed.wait(id);
    for path in ["/live", "/ready"] {
        let (status, body) = bed.get(path).expect("an answer");
        assert_eq!((status, body), (200, json!({ "status": "ok" })), "{path}");
    }
    // Its parts are for those who may read, and say as little.
    let (status, health) = bed.get("/health").expect("an answer");
    assert_eq!(status, 200, "{health}");
    assert!(!health.to_string().contains(canary), "{health}");
    let (_, status) = bed.get("/v1/status").expect("an answer");
    assert!(!status.to_string().contains(canary), "{status}");
}

/// A daemon of `nobody` in whose hands, and in those of a call that it has begun, is a key.
struct Kept {
    home: PathBuf,
    daemon: Child,
    runner: Pid,
    call: Pid,
    _provider: (Receiver<Seen>, SyncSender<()>),
    _dir: tempfile::TempDir,
}

/// Files of `nobody`: the key of a provider at this port, and the settings that name it.
fn key_and_settings(home: &Path, port: u16) -> PathBuf {
    let (key, config) = (home.join("key"), home.join("config.toml"));
    let text = format!(
        "[llm]\nproviders = [{{ name = \"one\", dialect = \"openai\", base_url = \"http://127.0.0.1:{port}\", \
         key_file = {key:?} }}]\nmodels = [{{ name = \"chat\", provider = \"one\", model = \"m\" }}]\n"
    );
    for (path, text) in [(&key, KEY), (&config, &text)] {
        fs::write(path, text).expect("write");
        mode(path, 0o600);
    }
    for path in [home, key.as_path(), config.as_path()] {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("owner");
    }
    config
}

/// Core dumps are allowed to all that it starts.
fn keeping() -> Kept {
    let dir = tempfile::tempdir().expect("directory");
    mode(dir.path(), 0o711);
    let home = dir.path().join("home");
    fs::create_dir(&home).expect("directory");
    // Where the program lies may be closed to others.
    let program = dir.path().join("taskdaemon");
    fs::copy(env!("CARGO_BIN_EXE_taskdaemon"), &program).expect("copy");
    mode(&program, 0o755);
    let (go, wait) = sync_channel(1);
    let half = format!("{BEGIN}{}", chat("half"));
    let (port, seen) = provider(vec![Says::Halves(half, wait, String::new())]);
    let config = key_and_settings(&home, port);
    let daemon = Command::new("sh")
        .args(["-c", "ulimit -c unlimited && exec \"$0\" \"$@\""])
        .arg(&program)
        .args(["run", "--state-dir"])
        .arg(home.join("state"))
        .arg("--runtime-dir")
        .arg(home.join("run"))
        .arg("--config")
        .arg(&config)
        .current_dir(&home)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &home)
        .env("TASKDAEMON_RUN__USERS", "own")
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    let socket = home.join("run/api.sock");
    let begun = taskdaemon::clock::instant();
    let until = |path: &str, holds: &dyn Fn(&Value) -> bool| loop {
        match request(&socket, "GET", path, None) {
            Ok((200, body)) if holds(&body) => break body,
            _ => assert!(begun.elapsed().as_secs() < 20, "{path} is not so"),
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    };
    let pid = |value: &Value| {
        let pid = value.as_i64().and_then(|pid| i32::try_from(pid).ok());
        Pid::from_raw(pid.expect("a process"))
    };
    let status = until("/v1/status", &|status| !status["runner"].is_null());
    let ask = json!({"prompt": {"text": "?"}});
    let asked = request(&socket, "POST", "/v1/tasks", Some(&ask));
    assert_eq!(asked.expect("an answer").0, 201);
    let call = |task: &Value| task["attempts"][0]["pid"].clone();
    let task = until("/v1/tasks/1", &|task| !call(task).is_null());
    let told = seen.recv().expect("a call");
    assert!(told.head.contains(KEY), "{}", told.head);
    Kept {
        runner: pid(&status["runner"]["pid"]),
        call: pid(&call(&task)),
        home,
        daemon,
        _provider: (seen, go),
        _dir: dir,
    }
}

/// Looks at a daemon and at a call as another process of their user.
#[test]
fn no_process_of_the_same_user_sees_into_the_daemon_or_a_call() {
    if !root() {
        return;
    }
    let mut kept = keeping();
    let daemon = Pid::from_raw(i32::try_from(kept.daemon.id()).expect("pid"));
    for (who, pid) in [("daemon", daemon), ("call", kept.call)] {
        let seen = as_user(NOBODY, || {
            ["environ", "mem", "maps", "auxv"]
                .map(|name| fs::File::open(format!("/proc/{pid}/{name}")).is_ok())
        });
        assert_eq!(seen, [false; 4], "environ, mem, maps, auxv of the {who}");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let soft = core.and_then(|line| line.split_whitespace().nth(4));
        assert_eq!(soft, Some("0"), "{who}: {core:?}");
    }
    kill(daemon, Signal::SIGTERM).expect("signal");
    kill(kept.runner, Signal::SIGTERM).expect("signal");
    assert!(kept.daemon.wait().expect("wait").success());
}

/// Whether a core was dumped is the kernel's own word of its child; the call is no child of this process, so its
/// directory is looked through as well.
#[test]
fn no_core_with_a_key_is_dumped_of_the_daemon_or_a_call() {
    if !root() {
        return;
    }
    let mut kept = keeping();
    // One that has nothing to hide, in the same directory, under the same limit, of the same user.
    let mut other = Command::new("sh")
        .args(["-c", "ulimit -c unlimited && exec sleep 600"])
        .current_dir(&kept.home)
        .uid(NOBODY)
        .gid(NOBODY)
        .spawn()
        .expect("start");
    let sleeps = format!("/proc/{}/comm", other.id());
    while fs::read_to_string(&sleeps).expect("a process").trim() != "sleep" {
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    let place = fs::read_link(format!("/proc/{}/cwd", kept.call)).expect("a directory");
    let before = fs::read_dir(&place).expect("directory").count();
    kill(kept.call, Signal::SIGABRT).expect("signal");
    let socket = kept.home.join("run/api.sock");
    let ended = loop {
        let (_, task) = request(&socket, "GET", "/v1/tasks/1", None).expect("a task");
        if !task["attempts"][0]["ended_at"].is_null() {
            break task;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    };
    assert_eq!(ended["attempts"][0]["outcome"], "lost", "{ended}");
    assert_eq!(fs::read_dir(&place).expect("directory").count(), before);
    let daemon = Pid::from_raw(i32::try_from(kept.daemon.id()).expect("pid"));
    kill(daemon, Signal::SIGABRT).expect("signal");
    let daemon = kept.daemon.wait().expect("wait");
    kill(kept.runner, Signal::SIGTERM).expect("signal");
    let unhidden = Pid::from_raw(i32::try_from(other.id()).expect("pid"));
    kill(unhidden, Signal::SIGABRT).expect("signal");
    let other = other.wait().expect("wait");
    assert_eq!((daemon.signal(), other.signal()), (Some(6), Some(6)));
    assert!(!daemon.core_dumped(), "a core of the daemon");
    if !other.core_dumped() {
        eprintln!("left out: this host dumps no core of anybody, so nothing was shown");
    }
    for entry in fs::read_dir(&kept.home).expect("directory") {
        let path = entry.expect("entry").path();
        if path.is_file() && !path.ends_with("key") {
            let bytes = fs::read(&path).expect("read");
            let found = bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes());
            assert!(!found, "the key is in {}", path.display());
        }
    }
}

/// What terminals obey, and how it is shown instead.
const GOLDEN: [(&str, &str); 14] = [
    ("\x1b]52;c;eA==\x07", "\\x1b]52;c;eA==\\x07"),
    ("\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
    ("\x1b]0;title\x1b\\", "\\x1b]0;title\\x1b\\"),
    ("\x1bP$q\x1b\\", "\\x1bP$q\\x1b\\"),
    ("\u{9b}31m", "\\u{9b}31m"),
    ("\u{9d}0;x\u{9c}", "\\u{9d}0;x\\u{9c}"),
    ("\u{90}", "\\u{90}"),
    ("a\rb\x08c", "a\\x0db\\x08c"),
    ("\x7f\0", "\\x7f\\x00"),
    ("txt\u{202e}exe", "txt\\u{202e}exe"),
    ("\u{2066}a\u{2069}", "\\u{2066}a\\u{2069}"),
    ("\u{200f}\u{61c}", "\\u{200f}\\u{61c}"),
    ("line\u{2028}line", "line\\u{2028}line"),
    ("grün 日本 🚀", "grün 日本 🚀"),
];

#[test]
fn what_a_terminal_would_obey_is_shown_to_it() {
    for (text, shown) in GOLDEN {
        assert_eq!(escape(text), shown);
        let mut screen = Screen::default();
        // Byte by byte, as output comes.
        let pieces = text.as_bytes().chunks(1).map(|byte| screen.show(byte));
        let pieces: String = pieces.collect();
        assert_eq!(pieces + &screen.finish(), shown);
        let plain = text.chars().all(is_plain);
        assert_eq!(plain, text == shown, "{text:?}");
    }
}

#[test]
fn names_of_tasks_cannot_forge_what_is_logged() {
    let bed = Bed::start(&[("LOG", "debug")]);
    for (text, shown) in GOLDEN {
        let body = json!({ "command": ["/no/such/program", text], "name": text });
        let (status, answer) = bed.post("/v1/tasks", &body).expect("an answer");
        if status != 201 {
            assert_eq!(status, 400, "{answer}");
            continue;
        }
        let id = answer["id"].as_i64().expect("a number");
        let done: Value = bed.wait(id);
        assert_eq!(done["state"], "failed", "{shown}");
    }
    let log = fs::read_to_string(bed.path("log")).expect("the log");
    let forged: Vec<_> = log
        .lines()
        .filter(|line| !line.chars().all(is_plain))
        .collect();
    assert!(forged.is_empty(), "{forged:?}");
}

#[test]
fn every_security_requirement_has_a_test_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("tests/security.md")).expect("the table");
    let mut code = String::new();
    let mut dirs = vec![
        root.join("src"),
        root.join("tests/it"),
        root.join("tests/system"),
        root.join("tests/faults"),
    ];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("directory") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                code.push_str(&fs::read_to_string(path).expect("source"));
            }
        }
    }
    let mut number = 0;
    for line in table.lines().filter(|line| line.starts_with("| SEC-")) {
        number += 1;
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        assert_eq!(cells[1], format!("SEC-{number:02}"), "{line}");
        let (tests, reason) = (cells[3], cells[4]);
        assert!(
            !tests.is_empty() || !reason.is_empty(),
            "neither test nor reason: {line}"
        );
        for test in tests.split('`').skip(1).step_by(2) {
            let there =
                code.contains(&format!("fn {test}(")) || code.contains(&format!("fn {test}<"));
            assert!(there, "there is no test {test}: {line}");
        }
    }
    assert_eq!(number, 45);
}
