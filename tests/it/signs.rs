//! What a running task says of itself, from its notify socket to the answer of the API, and what it is held to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use taskdaemon::clock;

use crate::bed::Bed;

/// Tells the daemon something through the service manager's own tool, which has its socket from the environment.
fn say(words: &str) -> String {
    format!("systemd-notify {words}")
}

fn shell(lines: &[&str]) -> Value {
    json!({"command": ["sh", "-ec", lines.join("\n")]})
}

fn with(mut task: Value, field: &str, value: Value) -> Value {
    task[field] = value;
    task
}

fn show(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("an answer").1
}

#[test]
fn progress_and_status_are_shown_while_it_runs_and_after_a_restart() {
    let mut bed = Bed::start(&[]);
    let gate = bed.path("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let told = say("--ready --status='half of it' X_PROGRESS=42.5");
    let id = bed.submit(&shell(&[&told, &wait]));
    let told = |bed: &Bed| {
        let task = show(bed, id);
        task["progress"] == 42.5 && task["status"] == "half of it" && task["ready"] == true
    };
    bed.until("it is shown", told);
    let list = bed.get("/v1/tasks").expect("an answer").1;
    assert_eq!(list["tasks"][0]["progress"], 42.5, "{list}");
    bed.kill();
    bed.restart();
    bed.until("it is shown again", told);
    std::fs::write(&gate, "").expect("open the gate");
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task.get("progress"), None, "nothing is live: {task}");
}

#[test]
fn a_task_that_falls_silent_is_ended_and_one_that_does_not_is_left_alone() {
    let bed = Bed::start(&[]);
    let second = json!("1s");
    let silent = shell(&["sleep 600"]);
    let silent = bed.submit(&with(silent, "heartbeat", second.clone()));
    let beat = say("WATCHDOG=1");
    let lively =
        format!("for i in 1 2 3 4 5 6 7 8 9 10; do {beat}; sleep 0.3; done; echo $WATCHDOG_USEC");
    let lively = bed.submit(&with(shell(&[&lively]), "heartbeat", second));
    let task = bed.wait(silent);
    assert_eq!(task["state"], "failed", "{task}");
    assert_eq!(task["outcome"]["class"], "timeout", "{task}");
    let message = task["outcome"]["message"].as_str().expect("a message");
    assert!(message.contains("heartbeat"), "{message}");
    let task = bed.wait(lively);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(bed.output(lively), b"1000000\n");
}

#[test]
fn a_task_that_says_it_has_gone_wrong_is_believed() {
    let bed = Bed::start(&[]);
    let trigger = say("WATCHDOG=trigger");
    let id = bed.submit(&shell(&[&trigger, "sleep 600"]));
    let task = bed.wait(id);
    assert_eq!(task["outcome"]["class"], "timeout", "{task}");
}

#[test]
fn a_task_gets_the_time_it_asks_for() {
    let bed = Bed::start(&[]);
    let timeout = json!("2s");
    let extend = say("EXTEND_TIMEOUT_USEC=60000000");
    let asks = bed.submit(&with(
        shell(&[&extend, "sleep 4", "echo done"]),
        "timeout",
        timeout.clone(),
    ));
    let does_not = bed.submit(&with(shell(&["sleep 600"]), "timeout", timeout));
    assert_eq!(bed.wait(does_not)["outcome"]["class"], "timeout");
    let task = bed.wait(asks);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(bed.output(asks), b"done\n");
}

#[test]
fn a_pause_that_this_host_cannot_do_is_refused_with_a_reason() {
    let bed = Bed::start(&[]);
    let (_, status) = bed.get("/v1/status").expect("an answer");
    let can = status["runner"]["enforces"]["freeze"] == true;
    let id = bed.submit(&shell(&["sleep 600"]));
    bed.until("it runs", |bed| show(bed, id)["state"] == "running");
    let (code, answer) = bed
        .post(&format!("/v1/tasks/{id}/pause"), &json!(null))
        .expect("an answer");
    if can {
        assert_eq!(
            (code, &answer["state"]),
            (200, &json!("paused")),
            "{answer}"
        );
    } else {
        assert_eq!(
            (code, &answer["code"]),
            (422, &json!("unenforceable")),
            "{answer}"
        );
        assert_eq!(show(&bed, id)["state"], "running");
    }
    let (code, _) = bed
        .post(&format!("/v1/tasks/{id}/cancel"), &json!(null))
        .expect("an answer");
    assert_eq!(code, 200);
    assert_eq!(bed.wait(id)["state"], "cancelled");
    let (code, answer) = bed
        .post(&format!("/v1/tasks/{id}/pause"), &json!(null))
        .expect("an answer");
    assert_eq!(
        (code, &answer["code"]),
        (409, &json!("already_over")),
        "{answer}"
    );
}

/// Blocks of an event stream, as they come.
struct Stream(BufReader<UnixStream>);

impl Stream {
    fn open(bed: &Bed, path: &str) -> Self {
        let mut stream = UnixStream::connect(bed.socket()).expect("connect");
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).expect("timeout");
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("ask");
        Self(BufReader::new(stream))
    }

    /// Reads up to a block that has this in it; all blocks up to there.
    fn until(&mut self, what: &str) -> Vec<String> {
        let mut blocks = vec![String::new()];
        loop {
            let mut line = String::new();
            let len = self.0.read_line(&mut line).expect("read in time");
            assert!(len > 0, "ended before `{what}`: {blocks:?}");
            let last = blocks.last_mut().expect("one");
            if line.trim_end_matches(['\r', '\n']).is_empty() {
                if last.contains(what) {
                    return blocks;
                }
                blocks.push(String::new());
            } else {
                last.push_str(&line);
            }
        }
    }
}

fn told(blocks: &[String]) -> Vec<Value> {
    let data = |block: &String| {
        let block = block.split("event: progress\n").nth(1)?;
        serde_json::from_str(block.strip_prefix("data: ")?).ok()
    };
    blocks.iter().filter_map(data).collect()
}

#[test]
fn progress_is_in_the_stream_and_not_in_the_record() {
    let bed = Bed::start(&[]);
    let gate = bed.path("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let steps = format!(
        "for i in $(seq 1 40); do {}; done; {}",
        say("X_PROGRESS=$i --status=\"step $i\""),
        say("X_PROGRESS=62.5 --status=there")
    );
    let mut stream = Stream::open(&bed, "/v1/events");
    stream.until("event: begin");
    let begun = clock::instant();
    let id = bed.submit(&with(shell(&[&steps, &wait]), "queue", json!("q")));
    let blocks = stream.until("\"status\":\"there\"");
    let pieces = told(&blocks);
    let last = pieces.last().expect("some").clone();
    for (field, value) in [
        ("kind", json!("progress")),
        ("task", json!(id)),
        ("attempt", json!(1)),
        ("queue", json!("q")),
        ("progress", json!(62.5)),
        ("status", json!("there")),
    ] {
        assert_eq!(last[field], value, "{last}");
    }
    for block in blocks
        .iter()
        .filter(|block| block.contains("event: progress"))
    {
        assert!(!block.contains("id: "), "it has no number: {block}");
    }
    let most = begun.elapsed().as_millis() / 500 + 2;
    assert!(pieces.len() as u128 <= most, "{} in {most}", pieces.len());
    let runs = blocks
        .iter()
        .position(|block| block.contains("\"running\""));
    let first = blocks
        .iter()
        .position(|block| block.contains("event: progress"));
    assert!(
        runs.expect("it runs") < first.expect("it says so"),
        "{blocks:?}"
    );
    // Whoever comes later gets what holds then; others nothing.
    let mut late = Stream::open(&bed, "/v1/events?queue=q&kind=progress");
    let blocks = late.until("event: progress");
    assert_eq!(told(&blocks)[0]["status"], "there");
    let mut other = Stream::open(&bed, "/v1/events?queue=other");
    let mut real = Stream::open(&bed, "/v1/events?kind=submitted,succeeded");
    for stream in [&mut other, &mut real] {
        stream.until("event: begin");
    }
    let second = bed.submit(&with(shell(&["true"]), "queue", json!("other")));
    bed.wait(second);
    assert_eq!(told(&other.until("succeeded")), Vec::<Value>::new());
    assert_eq!(told(&real.until("succeeded")), Vec::<Value>::new());
    std::fs::write(&gate, "").expect("open the gate");
    bed.wait(id);
    let (_, page) = bed.get("/v1/events").expect("events");
    let kinds: Vec<_> = page["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| event["kind"].clone())
        .collect();
    assert!(!kinds.contains(&json!("progress")), "{kinds:?}");
}

/// A client that reads nothing for a while misses progress that is no longer
/// true, and no event.
#[test]
fn a_slow_reader_of_events_loses_progress_only() {
    let bed = Bed::start(&[("API__BODY_TIMEOUT", "1h")]);
    let mut stream = Stream::open(&bed, "/v1/events");
    stream.until("event: begin");
    let steps = format!(
        "for i in $(seq 1 30); do {}; done; echo",
        say("--status=\"$(head -c 180 /dev/zero | tr '\\0' x) $i\"")
    );
    let ids: Vec<i64> = (0..6).map(|_| bed.submit(&shell(&[&steps]))).collect();
    for id in &ids {
        assert_eq!(
            bed.wait(*id)["state"],
            "succeeded",
            "nobody waits for the reader"
        );
    }
    let last = bed.submit(&json!({"command": ["true"], "name": "the last one"}));
    bed.wait(last);
    let mut blocks = stream.until("the last one");
    blocks.extend(stream.until("succeeded"));
    let number = |block: &String| -> Option<i64> {
        let line = block.lines().find_map(|line| line.strip_prefix("id: "))?;
        block
            .contains("\"seq\"")
            .then(|| line.parse().ok())
            .flatten()
    };
    let numbers: Vec<i64> = blocks.iter().filter_map(number).collect();
    assert_eq!(
        numbers,
        (1..=numbers.len() as i64).collect::<Vec<_>>(),
        "each event once"
    );
    assert!(
        told(&blocks).len() < 6 * 30,
        "progress is a state and no event"
    );
}

#[test]
fn progress_is_shown_by_events_on_the_command_line() {
    let bed = Bed::start(&[]);
    let gate = bed.path("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let follow = |more: &[&str], file: &str| {
        let out = std::fs::File::create(bed.path(file)).expect("file");
        Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
            .env(
                "TASKDAEMON_HOST",
                format!("unix:{}", bed.socket().display()),
            )
            .args(["events", "--follow", "--after", "0"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(out)
            .spawn()
            .expect("start")
    };
    let mut people = follow(&[], "people");
    let mut programs = follow(&["--json"], "programs");
    let id = bed.submit(&shell(&[
        &say("--status='half of it' X_PROGRESS=50"),
        &wait,
    ]));
    let read = |bed: &Bed, file: &str| std::fs::read_to_string(bed.path(file)).expect("read");
    bed.until("both say so", |bed| {
        read(bed, "people").contains("half of it") && read(bed, "programs").contains("half of it")
    });
    let lines = read(&bed, "people");
    let line = lines
        .lines()
        .find(|line| line.contains("half of it"))
        .expect("a line");
    let said = format!("Z task {id} progress (attempt 1) queue default: 50 %, half of it");
    assert!(line.starts_with("- 2") && line.ends_with(&said), "{line}");
    let lines = read(&bed, "programs");
    let line = lines
        .lines()
        .find(|line| line.contains("half of it"))
        .expect("a line");
    let told: Value = serde_json::from_str(line).expect("json");
    assert_eq!(
        (&told["kind"], &told["progress"]),
        (&json!("progress"), &json!(50.0))
    );
    assert_eq!(told.get("seq"), None, "it is none of the record");
    for child in [&mut people, &mut programs] {
        child.kill().expect("end");
        child.wait().expect("wait");
    }
    std::fs::write(&gate, "").expect("open the gate");
    bed.wait(id);
}
