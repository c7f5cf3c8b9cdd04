//! Schedules from outside: over HTTP and on the command line, with a real daemon that runs what they make.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::bed::{Bed, request};

fn at(bed: &Bed, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .env(
            "TASKDAEMON_HOST",
            format!("unix:{}", bed.socket().display()),
        )
        .stdin(Stdio::null())
        .args(args)
        .output()
        .expect("run")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn good(bed: &Bed, args: &[&str]) -> String {
    let output = at(bed, args);
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    said(&output)
}

#[test]
fn a_schedule_makes_tasks_that_run_and_survives_a_kill() {
    let mut bed = Bed::start(&[]);
    let marks = bed.path("marks");
    let line = format!("echo $TASKDAEMON_TASK_ID >> {}", marks.display());
    let told = good(
        &bed,
        &[
            "schedule",
            "add",
            "tick",
            "every 1s",
            "--overlap",
            "allow",
            "--",
            "sh",
            "-c",
            &line,
        ],
    );
    assert!(told.contains("fires next at"), "{told}");
    let count = || std::fs::read_to_string(&marks).map_or(0, |text| text.lines().count());
    bed.until("it has fired twice", |_| count() >= 2);
    bed.kill();
    bed.restart();
    let before = count();
    bed.until("it goes on after a kill", |_| count() >= before + 2);
    good(&bed, &["schedule", "pause", "tick"]);
    let (_, page) = bed.get("/v1/tasks?limit=1000").expect("an answer");
    let mut ids: Vec<i64> = page["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .map(|task| task["id"].as_i64().expect("a number"))
        .collect();
    for id in &ids {
        assert_eq!(bed.wait(*id)["state"], "succeeded");
    }
    ids.sort_unstable();
    let text = std::fs::read_to_string(&marks).expect("marks");
    let mut ran: Vec<i64> = text
        .lines()
        .map(|id| id.parse().expect("a number"))
        .collect();
    ran.sort_unstable();
    assert_eq!(ran, ids, "each task once, by its own account");
    let shown = good(&bed, &["schedule", "show", "tick"]);
    assert!(
        shown.contains("is paused") && shown.contains("succeeded"),
        "{shown}"
    );
}

#[test]
fn schedules_are_listed_shown_changed_and_removed() {
    let bed = Bed::start(&[]);
    let told = good(
        &bed,
        &[
            "schedule",
            "add",
            "nightly",
            "30 3 * * 1-5",
            "--zone",
            "Europe/Berlin",
            "--jitter",
            "5m",
            "--missed",
            "all",
            "--missed-most",
            "3",
            "--queue",
            "backup",
            "--",
            "true",
        ],
    );
    assert!(told.contains("schedule nightly fires next at"), "{told}");
    let next = good(&bed, &["schedule", "next", "nightly", "--count", "3"]);
    assert_eq!(next.lines().count(), 3, "{next}");
    assert!(
        next.lines()
            .all(|line| line.contains("T03:30:00") && line.contains("[Europe/Berlin]")),
        "{next}"
    );
    let list = good(&bed, &["schedule", "list"]);
    assert!(
        list.contains("nightly") && list.contains("30 3 * * 1-5"),
        "{list}"
    );
    let (status, shown) = bed.get("/v1/schedules/nightly").expect("an answer");
    assert_eq!(status, 200);
    for (field, value) in [
        ("when", json!("30 3 * * 1-5")),
        ("zone", json!("Europe/Berlin")),
        ("missed", json!("all")),
        ("missed_most", json!(3)),
        ("overlap", json!("skip")),
        ("jitter", json!("5m")),
        ("queue", json!("backup")),
        ("paused", json!(false)),
    ] {
        assert_eq!(shown[field], value, "{field}: {shown}");
    }
    let told = good(&bed, &["schedule", "trigger", "nightly"]);
    assert!(told.starts_with("task "), "{told}");
    assert!(
        good(&bed, &["schedule", "pause", "1"]).contains("is paused"),
        "by its number"
    );
    assert!(good(&bed, &["schedule", "resume", "nightly"]).contains("fires next"));
    assert!(good(&bed, &["schedule", "remove", "nightly"]).contains("removed"));
    let gone = at(&bed, &["schedule", "show", "nightly"]);
    assert_eq!(gone.status.code(), Some(3), "{}", said(&gone));
}

/// A request body, and the field and words of the answer to it.
type Row = (&'static str, &'static str, &'static str);

const BAD: [Row; 26] = [
    // BI-39
    (r#"{"name":"s","when":"* * * *"}"#, "when", "field"),
    (r#"{"name":"s","when":"* * * * * *"}"#, "when", "field"),
    (r#"{"name":"s","when":"60 * * * *"}"#, "when", "minute"),
    (r#"{"name":"s","when":"* 24 * * *"}"#, "when", "hour"),
    (r#"{"name":"s","when":"* * * 13 *"}"#, "when", "month"),
    // BI-40
    (r#"{"name":"s","when":"*/0 * * * *"}"#, "when", "step"),
    (r#"{"name":"s","when":"5-1 * * * *"}"#, "when", "backwards"),
    (r#"{"name":"s","when":"1,,2 * * * *"}"#, "when", ""),
    (r#"{"name":"s","when":"1 * * * * # daily"}"#, "when", ""),
    // BI-41
    (r#"{"name":"s","when":"0 0 30 2 *"}"#, "when", "never fires"),
    (
        r#"{"name":"s","when":"2020-01-01"}"#,
        "when",
        "never fires again",
    ),
    // BI-42
    (r#"{"name":"s","when":"0 0 L * *"}"#, "when", ""),
    (r#"{"name":"s","when":"@reboot"}"#, "when", "@reboot"),
    // BI-43
    (
        r#"{"name":"s","when":"@daily","zone":"UTC+25"}"#,
        "zone",
        "",
    ),
    (r#"{"name":"s","when":"@daily","zone":""}"#, "zone", ""),
    (
        r#"{"name":"s","when":"@daily","zone":"Mars/Base"}"#,
        "zone",
        "Mars/Base",
    ),
    (
        r#"{"name":"s","when":"@daily","zone":"../zone"}"#,
        "zone",
        "",
    ),
    // BI-44
    (r#"{"name":"s","when":"every 0s"}"#, "when", ""),
    (r#"{"name":"s","when":"every 1ms"}"#, "when", ""),
    (
        r#"{"name":"s","when":"every 30s","jitter":"31s"}"#,
        "jitter",
        "",
    ),
    // And the rest of the body.
    (r#"{"name":"17","when":"@daily"}"#, "name", "number"),
    (r#"{"name":"a b","when":"@daily"}"#, "name", ""),
    (
        r#"{"name":"s","when":"@daily","missed":"some"}"#,
        "missed",
        "skip",
    ),
    (
        r#"{"name":"s","when":"@daily","missed":"all","missed_most":0}"#,
        "missed",
        "1",
    ),
    (
        r#"{"name":"s","when":"@daily","missed_most":3}"#,
        "missed_most",
        "all",
    ),
    (
        r#"{"name":"s","when":"@daily","task":{"command":["x"],"run_at":"2030-01-01T00:00:00Z"}}"#,
        "task.run_at",
        "again",
    ),
];

#[test]
fn bi_39_to_44_bad_schedules_get_one_error_that_names_the_field() {
    let bed = Bed::start(&[]);
    for (body, field, words) in BAD {
        let mut body: Value = serde_json::from_str(body).expect("a row");
        if body.get("task").is_none() {
            body["task"] = json!({"command": ["true"]});
        }
        let (status, answer) = bed.post("/v1/schedules", &body).expect("an answer");
        assert_eq!(
            (status, &answer["field"]),
            (400, &json!(field)),
            "{body}: {answer}"
        );
        let detail = answer["detail"].as_str().expect("a detail");
        assert!(detail.contains(words), "{body}: {detail}");
    }
    let (status, answer) = bed
        .post("/v1/schedules", &json!({"name": "s", "when": "@daily"}))
        .expect("an answer");
    assert_eq!(
        (status, &answer["field"]),
        (400, &json!("task")),
        "{answer}"
    );
    let typo = json!({"name": "s", "wen": "@daily", "task": {"command": ["true"]}});
    let (status, answer) = bed.post("/v1/schedules", &typo).expect("an answer");
    assert_eq!(status, 400);
    assert!(
        answer["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("`when`")),
        "{answer}"
    );
    let (_, page) = bed.get("/v1/schedules").expect("an answer");
    assert_eq!(page["schedules"], json!([]), "nothing was kept");
    for (method, path) in [
        ("GET", "/v1/schedules/none"),
        ("GET", "/v1/schedules/7/next"),
        ("DELETE", "/v1/schedules/none"),
        ("POST", "/v1/schedules/none/pause"),
    ] {
        let (status, answer) = request(&bed.socket(), method, path, None).expect("an answer");
        assert_eq!(
            (status, &answer["code"]),
            (404, &json!("schedule_not_found")),
            "{path}"
        );
    }
}
