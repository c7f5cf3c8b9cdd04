//! `GET /health`: each part with its reason and since when, in time whatever is stuck, and to whom it says what.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::{Value, json};
use taskdaemon::clock;

use crate::bed::Bed;
use crate::cli::{at, text};
use crate::runner::root;
use crate::security::{free_port, hash, over_tcp};

/// In which `/health` and its kin have to answer where there are processors free. `tests/bench health` measures it.
const LIMIT: Duration = Duration::from_millis(100);
/// In which they answer however many tests run beside this one, if they wait for nobody: what is stuck here is so for longer.
const LATE: Duration = Duration::from_secs(1);

/// Status and body of a timed `GET`.
fn timed(bed: &Bed, path: &str) -> (u16, Value, Duration) {
    let begun = clock::instant();
    let (status, body) = bed.get(path).expect("an answer");
    (status, body, begun.elapsed())
}

fn part<'v>(health: &'v Value, name: &str) -> &'v Value {
    let parts = health["parts"].as_array().expect("parts");
    let found = parts.iter().find(|part| part["name"] == name);
    assert!(found.is_some(), "no part {name} in {health}");
    found.unwrap_or(health)
}

/// A thread of another process that stands still while this lives. The kernel lets it stop and go for this thread only.
struct Stopped(Pid);

#[expect(unsafe_code, reason = "nix is built without it")]
impl Stopped {
    fn thread(process: Pid, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("threads");
        let thread = tasks
            .map(|task| task.expect("a thread").path())
            .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|is| is.trim() == name))
            .expect("the thread");
        let number = thread.file_name().and_then(|name| name.to_str());
        let thread = Pid::from_raw(number.expect("a number").parse().expect("a number"));
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: takes numbers and touches no memory of this process.
            let done = unsafe { libc::ptrace(request, thread.as_raw(), 0, 0) };
            assert_eq!(
                done,
                0,
                "stop the thread {name}: {}",
                std::io::Error::last_os_error()
            );
        }
        nix::sys::wait::waitpid(thread, Some(nix::sys::wait::WaitPidFlag::__WALL))
            .expect("it stops");
        Self(thread)
    }
}

impl Drop for Stopped {
    #[expect(unsafe_code, reason = "as above")]
    fn drop(&mut self) {
        // SAFETY: as above.
        let _gone = unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0.as_raw(), 0, 0) };
    }
}

#[test]
fn health_names_each_part_with_reason_and_since_when() {
    let bed = Bed::start(&[("RUN__START_RUNNER", "never")]);
    let (status, health, _) = timed(&bed, "/health");
    assert_eq!(status, 200);
    for name in [
        "engine",
        "store",
        "disk",
        "runner",
        "run_as",
        "schedules",
        "journal",
        "process",
    ] {
        assert!(part(&health, name)["status"].is_string(), "{health}");
    }
    bed.until("it misses its runner", |bed| {
        bed.get("/health")
            .is_ok_and(|(_, health)| health["status"] == "degraded")
    });
    let (status, health, _) = timed(&bed, "/health");
    let runner = part(&health, "runner").clone();
    assert_eq!((status, &runner["status"]), (200, &json!("degraded")));
    assert!(
        runner["why"]
            .as_str()
            .is_some_and(|why| why.contains("tasks wait")),
        "{runner}"
    );
    let since: jiff::Timestamp = runner["since"]
        .as_str()
        .expect("since")
        .parse()
        .expect("a time");
    let age = jiff::Timestamp::now().duration_since(since);
    assert!(
        (4..60).contains(&age.as_secs()),
        "since its start, and not since it was asked: {age}"
    );
    let (_, later, _) = timed(&bed, "/health");
    assert_eq!(part(&later, "runner")["since"], runner["since"], "{later}");
    assert_eq!(part(&later, "store")["status"], "healthy", "{later}");

    let told = at(&bed, &["health"]);
    let lines = text(&told.stdout);
    assert_eq!(told.status.code(), Some(1), "{lines}");
    assert!(
        lines.starts_with("degraded: no runner is connected: tasks wait\n"),
        "{lines}"
    );
    let line = lines
        .lines()
        .find(|line| line.starts_with("runner "))
        .expect("a line");
    assert!(
        line.contains("degraded") && line.contains("since 20"),
        "{line}"
    );
    assert!(
        lines.contains("\nengine               healthy    answer_us "),
        "{lines}"
    );
    let json: Value =
        serde_json::from_slice(&at(&bed, &["--json", "health"]).stdout).expect("JSON");
    assert_eq!(
        json["parts"].as_array().map(Vec::len),
        health["parts"].as_array().map(Vec::len)
    );
}

#[test]
fn the_word_is_for_everybody_and_the_parts_for_those_who_may_read() {
    let port = free_port();
    let tokens = format!(
        "[{{name=\"eye\",sha256=\"{}\",uid=0,role=\"read\"}}]",
        hash("eye")
    );
    let listen = format!("[\"127.0.0.1:{port}\"]");
    let bed = Bed::start(&[("API__LISTEN", &listen), ("API__TOKENS", &tokens)]);
    bed.until("it is well", |bed| {
        bed.get("/health")
            .is_ok_and(|(_, health)| health["status"] == "healthy")
    });
    let bare = json!({ "status": "healthy" });
    assert_eq!(
        over_tcp(port, "", "GET", "/health", ""),
        (200, bare.clone())
    );
    let (status, known) = over_tcp(port, "eye", "GET", "/health", "");
    assert_eq!(
        (status, &known["status"]),
        (200, &json!("healthy")),
        "{known}"
    );
    assert_eq!(part(&known, "store")["status"], "healthy");
    // A guess learns nothing, and is counted like one at any other door.
    let mut blocked = false;
    for _ in 0..50 {
        assert_eq!(
            over_tcp(port, "guess", "GET", "/health", ""),
            (200, bare.clone())
        );
        blocked = over_tcp(port, "", "GET", "/live", "").0 == 200
            && over_tcp(port, "eye", "GET", "/v1/status", "").0 == 429;
        if blocked {
            break;
        }
    }
    assert!(blocked, "guesses at /health were not counted");
    assert_eq!(over_tcp(port, "eye", "GET", "/health", ""), (200, bare));
}

/// What answers when the engine stands still, and that it is in time.
#[test]
fn health_and_metrics_answer_in_time_while_the_engine_is_stuck() {
    if !root() {
        return;
    }
    let bed = Bed::start(&[]);
    bed.until("it is well", |bed| {
        bed.get("/health")
            .is_ok_and(|(_, health)| health["status"] == "healthy")
    });
    let stopped = Stopped::thread(bed.pid(), "engine");
    let begun = clock::instant();
    let (mut words, mut quickest) = (Vec::new(), LATE);
    while words.last() != Some(&(503, "unhealthy".to_owned())) {
        let (status, health, took) = timed(&bed, "/health");
        assert!(took < LATE, "answered after {took:?}");
        quickest = quickest.min(took);
        assert!(begun.elapsed() < Duration::from_secs(20), "{words:?}");
        let word = health["status"].as_str().expect("a word").to_owned();
        let engine = part(&health, "engine");
        assert_eq!(engine["status"].as_str(), Some(word.as_str()), "{health}");
        assert!(
            engine["since"].is_string() && engine["why"].is_string(),
            "{health}"
        );
        if words.last() != Some(&(status, word.clone())) {
            words.push((status, word));
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
    assert_eq!(
        words,
        [(200, "degraded".to_owned()), (503, "unhealthy".to_owned())]
    );
    assert!(quickest < LIMIT, "{quickest:?} at best");
    let (status, page, took) = timed(&bed, "/metrics");
    let page = page.as_str().expect("text").to_owned();
    assert_eq!(status, 200, "{page}");
    assert!(took < LATE, "the page took {took:?}");
    for row in [
        "taskdaemon_engine_answered 0",
        "taskdaemon_health{part=\"engine\"} 2",
        "taskdaemon_reader_answered 1",
    ] {
        assert!(page.contains(row), "{row}: {page}");
    }
    assert!(timed(&bed, "/live").2 < LATE);
    let told = at(&bed, &["health"]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    drop(stopped);
    bed.until("it is well again", |bed| {
        bed.get("/health")
            .is_ok_and(|(status, health)| status == 200 && health["status"] == "healthy")
    });
}

/// Holds the lock of a bed's database, as another program would.
fn lock(bed: &Bed) -> rusqlite::Connection {
    let raw = rusqlite::Connection::open(bed.path("state/taskdaemon.db")).expect("open");
    raw.busy_timeout(Duration::from_secs(5)).expect("patience");
    raw.execute_batch("BEGIN IMMEDIATE").expect("lock");
    raw
}

#[test]
fn health_says_in_time_that_another_process_holds_the_database() {
    let bed = Bed::start(&[]);
    bed.until("it is well", |bed| {
        bed.get("/health")
            .is_ok_and(|(_, health)| health["status"] == "healthy")
    });
    let raw = lock(&bed);
    let begun = clock::instant();
    let mut quickest = LATE;
    loop {
        let (status, health, took) = timed(&bed, "/health");
        assert!(took < LATE, "answered after {took:?}");
        quickest = quickest.min(took);
        let store = part(&health, "store");
        if store["status"] == "unhealthy" {
            assert_eq!(status, 503, "{health}");
            assert!(
                store["why"]
                    .as_str()
                    .is_some_and(|why| why.contains("holds the lock")),
                "{store}"
            );
            assert!(store["since"].is_string(), "{store}");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{health}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(quickest < LIMIT, "{quickest:?} at best");
    drop(raw);
    bed.until("it is well again", |bed| {
        bed.get("/health")
            .is_ok_and(|(_, health)| health["status"] == "healthy")
    });
}

/// `health --check-db` as it is called without the name of a directory.
fn check(bed: &Bed) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args(["--host", &format!("unix:{}", bed.socket().display())])
        .args(["health", "--check-db", "--json"])
        .env("TASKDAEMON_STATE_DIR", bed.path("state"))
        .output()
        .expect("run");
    let said = text(&output.stdout) + &text(&output.stderr);
    (output, said)
}

#[test]
fn a_check_of_the_database_writes_through_the_daemon_or_beside_it() {
    let mut bed = Bed::start(&[]);
    let said = |bed: &Bed, code: i32| -> Value {
        let (output, said) = check(bed);
        assert_eq!(output.status.code(), Some(code), "{said}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let well = said(&bed, 0);
    assert_eq!(
        (&well["status"], &well["write"]["by"]),
        (&json!("ok"), &json!("daemon")),
        "{well}"
    );
    assert!(
        well["write"]["took_us"]
            .as_u64()
            .is_some_and(|took| took > 0),
        "{well}"
    );

    let raw = lock(&bed);
    let start = clock::instant();
    let ill = said(&bed, 1);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(
        (&ill["status"], &ill["write"]["ok"]),
        (&json!("unwritable"), &json!(false)),
        "{ill}"
    );
    assert!(
        ill["write"]["why"]
            .as_str()
            .is_some_and(|why| why.contains("another process")),
        "{ill}"
    );
    drop(raw);

    bed.kill();
    let alone = said(&bed, 0);
    assert_eq!(alone["write"]["by"], "file", "{alone}");
    let left: Vec<_> = fs::read_dir(bed.path("state"))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name())
        .filter(|name| !name.to_string_lossy().starts_with("taskdaemon.db"))
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().contains("probe")),
        "{left:?}"
    );
    bed.restart();
}
