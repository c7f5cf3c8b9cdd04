//! Queues of a real daemon: what tasks themselves write down about how many
//! ran at once, and what HTTP and the command line say and refuse.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::bed::{Bed, request};

fn set(bed: &Bed, queue: &str, limits: &Value) -> (u16, Value) {
    let path = format!("/v1/queues/{queue}");
    request(&bed.socket(), "PATCH", &path, Some(limits)).expect("an answer")
}

fn cli(bed: &Bed, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .env(
            "TASKDAEMON_HOST",
            format!("unix:{}", bed.socket().display()),
        )
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("run")
}

/// Tasks that write down when they begin and when they end, in one file.
fn submit_recorders(bed: &Bed, count: usize, more: &Value) -> Vec<i64> {
    let record = bed.path("record").display().to_string();
    let line =
        r#"echo "+ $TASKDAEMON_TASK_ID" >> "$0"; sleep 0.05; echo "- $TASKDAEMON_TASK_ID" >> "$0""#;
    let mut task = json!({"command": ["sh", "-c", line, record], "queue": "narrow"});
    for (name, value) in more.as_object().expect("an object") {
        task[name] = value.clone();
    }
    let body = json!({"tasks": vec![task; count]});
    let (status, answer) = bed.post("/v1/tasks", &body).expect("submit");
    assert_eq!(status, 201, "{answer}");
    let id = |one: &Value| one["id"].as_i64().expect("a number");
    let tasks = answer["tasks"].as_array().or_else(|| answer.as_array());
    tasks.expect("a list").iter().map(id).collect()
}

/// The most that were at work at once, by their own word.
fn most_at_once(bed: &Bed, count: usize) -> usize {
    let record = std::fs::read_to_string(bed.path("record")).expect("read");
    assert_eq!(record.lines().count(), 2 * count, "{record}");
    let (mut now, mut most) = (0, 0);
    for line in record.lines() {
        now = if line.starts_with('+') {
            now + 1
        } else {
            now - 1
        };
        most = most.max(now);
    }
    assert_eq!(now, 0, "{record}");
    most
}

#[test]
fn by_the_tasks_own_word_no_more_run_at_once_than_may() {
    let mut bed = Bed::start(&[("ENGINE__SLOTS", "8")]);
    let (status, answer) = set(&bed, "narrow", &json!({"concurrency": 2}));
    assert_eq!(status, 200, "{answer}");
    let ids = submit_recorders(&bed, 20, &json!({}));
    // A daemon that is killed forgets no slot and finds none.
    bed.until("some are over", |bed| {
        bed.get("/v1/status")
            .is_ok_and(|(_, status)| status["tasks"]["succeeded"].as_u64() >= Some(4))
    });
    bed.kill();
    bed.restart();
    for id in &ids {
        assert_eq!(bed.wait(*id)["state"], "succeeded");
    }
    assert_eq!(most_at_once(&bed, 20), 2);
}

#[test]
fn by_the_tasks_own_word_a_group_key_excludes() {
    let bed = Bed::start(&[("ENGINE__SLOTS", "8")]);
    let ids = submit_recorders(&bed, 8, &json!({"group": "db"}));
    for id in &ids {
        assert_eq!(bed.wait(*id)["state"], "succeeded");
    }
    assert_eq!(most_at_once(&bed, 8), 1);
}

#[test]
fn bad_limits_are_refused_and_change_nothing() {
    let bed = Bed::start(&[]);
    let (status, before) = set(&bed, "q", &json!({"concurrency": 3, "rate": "10/1m"}));
    assert_eq!(status, 200, "{before}");
    for (limits, code) in [
        (json!({"concurrency": 0}), "invalid"),
        (json!({"concurrency": 1_000_001}), "invalid"),
        (json!({"group_limit": 0}), "invalid"),
        (json!({"group_limit": 1_001}), "invalid"),
        (json!({"concurrency": -1}), "bad_json"),
        (json!({"concurrency": 1.5}), "bad_json"),
        (json!({"concurrency": "none"}), "bad_json"),
        (json!({"rate": "10"}), "bad_json"),
        (json!({"rate": "0/1m"}), "bad_json"),
        (json!({"rate": 10}), "bad_json"),
        (json!({"rate": {"count": 10}}), "bad_json"),
        (json!({"concurency": 3}), "unknown_field"),
        (json!({"paused": true}), "unknown_field"),
        (json!([3]), "bad_json"),
    ] {
        let (status, answer) = set(&bed, "q", &limits);
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!(code)),
            "{limits}: {answer}"
        );
    }
    let (_, after) = bed.get("/v1/queues/q").expect("show");
    assert_eq!(after, before);
    for name in ["-q", "a%20b", ".", "%F0%9F%A6%80", &"q".repeat(65)] {
        let (status, answer) = set(&bed, name, &json!({"concurrency": 1}));
        assert!(status == 400 || status == 404, "{name}: {answer}");
    }
    let (_, list) = bed.get("/v1/queues").expect("list");
    // `hooks` is made with the database.
    assert_eq!(list["queues"].as_array().map(Vec::len), Some(2), "{list}");
    assert_eq!(bed.get("/v1/queues/none").expect("show").0, 404);
    let verb = bed
        .post("/v1/queues/q/stop", &json!({}))
        .expect("an answer");
    assert_eq!(verb.0, 404);
}

#[test]
fn queues_on_the_command_line() {
    let bed = Bed::start(&[]);
    let run = |args: &[&str], code: i32, holds: &str| {
        let output = cli(&bed, args);
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(holds), "{args:?}: {said}");
        said
    };
    run(&["queue", "pause", "mail"], 3, "no queue `mail`");
    let limits = [
        "--concurrency",
        "2",
        "--rate",
        "10/1m",
        "--group-limit",
        "3",
    ];
    let set = [&["queue", "set", "mail"][..], &limits].concat();
    run(&set, 0, "10/1m");
    run(&["queue", "set", "mail", "--rate", "none"], 0, "mail");
    let shown = run(&["queue", "show", "mail", "--json"], 0, "mail");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let wanted = json!({
        "name": "mail", "paused": false, "draining": false, "concurrency": 2, "rate": null,
        "group_limit": 3, "blocked": 0, "scheduled": 0, "queued": 0, "running": 0,
    });
    assert_eq!(shown, wanted);
    run(&["queue", "pause", "mail"], 0, "paused");
    run(&["submit", "--queue", "mail", "--", "true"], 0, "");
    run(&["show", "1"], 0, "paused queue `mail`");
    run(&["queue", "remove", "mail"], 4, "1 unfinished");
    run(&["queue", "drain", "mail"], 0, "paused, draining");
    run(&["submit", "--queue", "mail", "--", "true"], 4, "draining");
    run(&["queue", "resume", "mail"], 0, "open");
    bed.wait(1);
    run(&["queue", "remove", "mail"], 0, "removed");
    run(&["queue", "show", "mail"], 3, "no queue");
    for args in [
        &["queue", "set", "mail"][..],
        &["queue", "set", "mail", "--concurrency", "0x"],
        &["queue", "set", "mail", "--concurrency", "-1"],
        &["queue", "set", "mail", "--rate", "10"],
        &["queue", "set", "mail", "--rate", "10/m"],
        &["queue", "set", "no spaces", "--concurrency", "1"],
        &["queue", "set", "mail", "--concurrency", "0"],
        &["queue", "stop", "mail"],
    ] {
        run(args, 2, "");
    }
    let listed = cli(&bed, &["queue", "list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(
        listed.lines().count(),
        2,
        "the head and `hooks` only: {listed}"
    );
}

#[test]
fn a_user_who_submits_too_often_is_told_when_to_come_back() {
    let bed = Bed::start(&[("ENGINE__USER_SUBMITS", "2/1h")]);
    let task = json!({"command": ["true"]});
    bed.submit(&task);
    bed.submit(&task);
    let (status, answer) = bed.post("/v1/tasks", &task).expect("an answer");
    assert_eq!(
        (status, &answer["code"]),
        (429, &json!("rate_limited")),
        "{answer}"
    );
    let output = cli(&bed, &["submit", "--", "true"]);
    assert_eq!(output.status.code(), Some(75));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story")]
fn hooks_of_a_queue_on_the_command_line() {
    let bed = Bed::start(&[]);
    let run = |args: &[&str]| {
        let output = cli(&bed, args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    assert_eq!(
        run(&["queue", "hooks", "mail"]),
        (Some(0), String::new(), String::new())
    );
    let file = bed.path("hooks.json");
    std::fs::write(
        &file,
        r#"{"hooks": [{"on": ["failed"], "command": ["touch", "a b"]}]}"#,
    )
    .expect("write");
    let file = file.display().to_string();
    let (code, out, said) = run(&["queue", "hooks", "mail", "--set", &file]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "command touch 'a b' when failed\n"),
        "{said}"
    );
    assert_eq!(run(&["queue", "hooks", "mail"]).1, out);
    let (code, json, _) = run(&["queue", "hooks", "mail", "--json"]);
    assert_eq!(code, Some(0));
    // What is printed can be set.
    std::fs::write(&file, &json).expect("write");
    assert_eq!(run(&["queue", "hooks", "mail", "--set", &file]).1, out);
    let webhook = [
        "queue",
        "hooks",
        "mail",
        "--hook-webhook",
        "https://example.org/x",
    ];
    assert_eq!(run(&webhook).1, "webhook https://example.org/x\n");
    for (content, words) in [
        ("{", "EOF"),
        ("[]", "must look like"),
        (r#"{"hook": []}"#, "hook"),
        (r#"{"hooks": [{"on": ["later"]}]}"#, "later"),
        (r#"{"hooks": [{"command": []}]}"#, "command"),
        (r#"{"hooks": [{"webhook": "ftp://x"}]}"#, "https://"),
    ] {
        std::fs::write(&file, content).expect("write");
        let (code, _, said) = run(&["queue", "hooks", "mail", "--set", &file]);
        assert_eq!(code, Some(2), "{content}: {said}");
        assert!(
            said.contains(words) && said.lines().count() == 1,
            "{content}: {said}"
        );
    }
    let (code, _, said) = run(&["queue", "hooks", "mail", "--set", "/no/such/file"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("cannot read /no/such/file"), "{said}");
    assert_eq!(
        run(&["queue", "hooks", "mail"]).1,
        "webhook https://example.org/x\n",
        "nothing changed"
    );
    let (code, out, said) = run(&["queue", "hooks", "mail", "--clear"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{said}");
    let both = [
        "queue",
        "hooks",
        "mail",
        "--clear",
        "--hook-command",
        "true",
    ];
    assert_eq!(run(&both).0, Some(2));
}
