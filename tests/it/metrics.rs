//! `GET /metrics`: what it says is what there is, and Prometheus' own tool finds nothing wrong with how.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bed::{Bed, request};
use crate::prompt::{bed_with, provider};

/// The page.
fn page(bed: &Bed) -> String {
    let (status, page) = bed.get("/metrics").expect("the page");
    assert_eq!(status, 200, "{page}");
    page.as_str().expect("text, no JSON").to_owned()
}

/// Its rows: what stands before the value, and the value.
fn rows(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(row).collect()
}

#[test]
fn metrics_say_what_there_is() {
    let bed = Bed::start(&[]);
    let ended = [
        bed.submit(&json!({ "command": ["true"] })),
        bed.submit(&json!({ "command": ["false"] })),
    ];
    for id in ended {
        bed.wait(id);
    }
    let paused = bed.post("/v1/queues/default/pause", &Value::Null);
    assert_eq!(paused.expect("pause").0, 200);
    for _ in 0..3 {
        bed.submit(&json!({ "command": ["true"] }));
    }
    let (status, _) = bed.get("/v1/tasks/4711").expect("an answer");
    assert_eq!(status, 404);
    let rows = rows(&page(&bed));
    let is = |name: &str, value: f64| {
        let found = rows.get(name).copied();
        assert_eq!(found, Some(value), "{name}: {rows:#?}");
    };
    is("taskdaemon_tasks{state=\"succeeded\"}", 1.0);
    is("taskdaemon_tasks{state=\"failed\"}", 1.0);
    is("taskdaemon_tasks{state=\"queued\"}", 3.0);
    is(
        "taskdaemon_queue_tasks{queue=\"default\",state=\"queued\"}",
        3.0,
    );
    is("taskdaemon_queue_paused{queue=\"default\"}", 1.0);
    is("taskdaemon_engine_answered", 1.0);
    is("taskdaemon_running", 1.0);
    is("taskdaemon_runner_connected", 1.0);
    is("taskdaemon_degraded", 0.0);
    is("taskdaemon_log_dropped_total", 0.0);
    let answered = |method: &str, outcome: &str, route: &str| {
        format!(
            "taskdaemon_http_requests_total{{method=\"{method}\",outcome=\"{outcome}\",route=\"{route}\"}}"
        )
    };
    is(&answered("POST", "ok", "/v1/tasks"), 5.0);
    is(&answered("GET", "refused", "/v1/tasks/{id}"), 1.0);
    is(
        "taskdaemon_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/tasks\"}",
        5.0,
    );
    let (_, status) = bed.get("/v1/status").expect("status");
    let pid = status["pid"].as_i64().expect("a process");
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("threads")
        .count();
    is(
        "process_threads",
        f64::from(u32::try_from(threads).expect("few")),
    );
    assert!(rows["process_resident_memory_bytes"] > 1e6, "{rows:#?}");
}

/// A name of a queue is chosen by whoever submits: the page does not grow with them.
#[test]
fn metrics_stay_few_however_many_queues_there_are() {
    let bed = Bed::start(&[]);
    for number in 0..130 {
        let limits = json!({ "concurrency": 1 });
        let queue = format!("/v1/queues/q{number}");
        let made = request(&bed.socket(), "PATCH", &queue, Some(&limits));
        assert_eq!(made.expect("a queue").0, 200);
        let paused = bed.post(&format!("{queue}/pause"), &Value::Null);
        assert_eq!(paused.expect("pause").0, 200);
        bed.submit(&json!({ "command": ["true"], "queue": format!("q{number}") }));
    }
    let rows = rows(&page(&bed));
    let queued = |name: &&String| {
        name.starts_with("taskdaemon_queue_tasks{") && name.contains("state=\"queued\"")
    };
    assert_eq!(rows.keys().filter(queued).count(), 101);
    let all: f64 = rows
        .iter()
        .filter(|(name, _)| queued(name))
        .map(|(_, value)| value)
        .sum();
    assert!(
        (all - 130.0).abs() < 0.5,
        "the others are counted together: {all}"
    );
    assert!(rows.contains_key("taskdaemon_queue_tasks{queue=\"(others)\",state=\"queued\"}"));
}

/// `promtool check metrics` reads the page as a server does, and judges names, units and help texts.
#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("left out: there is no promtool (apt install prometheus)");
        return;
    }
    let (port, _seen) = provider(Vec::new());
    let (bed, _dir) = bed_with(port, "limits = { requests = \"10/1m\" }");
    bed.wait(bed.submit(&json!({ "command": ["true"] })));
    let page = page(&bed);
    assert!(page.contains("taskdaemon_model_limit_left{"), "{page}");
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let mut input = tool.stdin.take().expect("a pipe");
    input.write_all(page.as_bytes()).expect("write");
    drop(input);
    let judged = tool.wait_with_output().expect("promtool");
    let said = [judged.stdout, judged.stderr].concat();
    assert!(
        judged.status.success(),
        "{}\n{page}",
        String::from_utf8_lossy(&said)
    );
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
