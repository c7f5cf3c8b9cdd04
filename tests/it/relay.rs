//! Models for the programs of tasks: who may ask, what is passed on, what waits for a limit, and what is written down.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde_json::{Value, json};
use taskdaemon::clock;

use crate::bed::Bed;
use crate::prompt::{BEGIN, CHAT_END, KEY, Says, bed_of, chat, delta, provider, refusal, response};

/// A task that may ask models, and how its programs find them.
pub(crate) struct Asker {
    pub(crate) id: i64,
    pub(crate) at: String,
    pub(crate) badge: String,
}

/// A daemon with an endpoint, and a task that runs.
fn begin(port: u16, more: &str) -> (Bed, tempfile::TempDir, Asker) {
    begin_with(port, "[llm]\nlisten = \"127.0.0.1:0\"\n", more)
}

/// The same, with lines ahead of all models, the endpoint among them.
pub(crate) fn begin_with(port: u16, head: &str, more: &str) -> (Bed, tempfile::TempDir, Asker) {
    let (bed, dir) = bed_of(port, head, more);
    let script = "env | grep -E '^(OPENAI|ANTHROPIC)_'; echo; sleep 60";
    let id = bed.submit(&json!({"command": ["sh", "-c", script], "llm": true}));
    let mut said = String::new();
    bed.until("it has said what it was given", |bed| {
        said = String::from_utf8(bed.output(id)).expect("text");
        said.ends_with("\n\n")
    });
    assert!(!said.contains(KEY), "{said}");
    let value = |name: &str| {
        let mut lines = said.lines().filter_map(|line| line.split_once('='));
        lines
            .find(|(known, _)| *known == name)
            .expect(name)
            .1
            .to_owned()
    };
    let base = value("OPENAI_BASE_URL");
    let at = base
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix("/openai/v1"));
    let at = at.expect("an address").to_owned();
    assert_eq!(
        value("ANTHROPIC_BASE_URL"),
        format!("http://{at}/anthropic")
    );
    let badge = value("OPENAI_API_KEY");
    assert_eq!(value("ANTHROPIC_API_KEY"), badge);
    (bed, dir, Asker { id, at, badge })
}

impl Asker {
    fn send(&self, path: &str, badge: &str, body: &Value) -> TcpStream {
        let mut stream = TcpStream::connect(&self.at).expect("connect");
        let body = body.to_string();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {badge}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("write");
        stream
    }

    /// Status and body.
    fn ask(&self, path: &str, badge: &str, body: &Value) -> (u16, String) {
        let mut text = String::new();
        let mut stream = self.send(path, badge, body);
        stream.read_to_string(&mut text).expect("an answer");
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        let (_, body) = text.split_once("\r\n\r\n").expect("a head");
        (status.expect("a status"), body.to_owned())
    }

    pub(crate) fn chat(&self, body: &Value) -> (u16, String) {
        self.ask("/openai/v1/chat/completions", &self.badge, body)
    }

    /// What is written down of its calls.
    fn relayed(&self, bed: &Bed) -> Value {
        let (_, task) = bed.get(&format!("/v1/tasks/{}", self.id)).expect("show");
        task["attempts"][0]["relayed"].clone()
    }
}

/// An answer in one piece.
pub(crate) fn whole() -> Says {
    let body = json!({
        "choices": [{"message": {"content": "Paris"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    });
    Says::All(refusal(
        "200 OK",
        "Content-Type: application/json\r\n",
        &body.to_string(),
    ))
}

pub(crate) fn question() -> Value {
    json!({"model": "chat", "messages": [{"role": "user", "content": "?"}], "max_tokens": 10})
}

#[test]
fn a_tasks_program_asks_by_its_badge_and_never_sees_the_key() {
    let (port, seen) = provider(vec![
        whole(),
        Says::All(format!("{BEGIN}{}{CHAT_END}", chat("Paris"))),
    ]);
    let (bed, _dir, asker) = begin(port, "price = { input = 3, output = 15 }");
    let (status, body) = asker.chat(&question());
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("Paris"), "{body}");
    let asked = seen.recv().expect("a call");
    assert!(
        asked.head.contains(&format!("Bearer {KEY}")),
        "{}",
        asked.head
    );
    assert!(!asked.head.contains(&asker.badge), "{}", asked.head);
    assert_eq!(asked.body["model"], "m-1");
    assert_eq!(asked.body["max_tokens"], 10);
    let mut stream = question();
    stream["stream"] = json!(true);
    let (status, body) = asker.chat(&stream);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("Paris") && body.contains("[DONE]"), "{body}");
    let asked = seen.recv().expect("a call");
    assert_eq!(asked.body["stream_options"]["include_usage"], true);
    bed.until("both are written down", |bed| {
        let relayed = asker.relayed(bed);
        let ends: Vec<_> = relayed
            .as_array()
            .into_iter()
            .flatten()
            .map(|call| &call["end"])
            .collect();
        ends == ["answered", "answered"]
    });
    let relayed = asker.relayed(&bed);
    for call in relayed.as_array().expect("calls") {
        assert_eq!(
            (&call["input_tokens"], &call["output_tokens"]),
            (&json!(7), &json!(2))
        );
        assert_eq!(call["cost"], 0.000_051);
    }
    let (_, model) = bed.get("/v1/models/chat").expect("show");
    assert_eq!(model["spent"]["calls"], 2, "{model}");
    assert_eq!(model["running"], 0, "{model}");
}

#[test]
fn a_tasks_program_asks_by_responses_in_pieces_and_in_one() {
    let stream = format!(
        "{BEGIN}{}{}",
        delta("Paris"),
        response("completed", &json!({}))
    );
    let usage = json!({"input_tokens": 9, "output_tokens": 3});
    let one = |status: &str, error: Value| {
        let body = json!({"object": "response", "status": status, "error": error, "usage": usage});
        let json = "Content-Type: application/json\r\n";
        Says::All(refusal("200 OK", json, &body.to_string()))
    };
    let failed = json!({"code": "server_error", "message": "x"});
    let (port, seen) = provider(vec![
        Says::All(stream),
        one("completed", Value::Null),
        one("failed", failed),
    ]);
    let (bed, _dir, asker) = begin(port, "");
    let path = "/openai/v1/responses";
    for stream in [true, false, false] {
        let body = json!({"model": "responses", "input": "?", "stream": stream});
        let (status, text) = asker.ask(path, &asker.badge, &body);
        assert_eq!(status, 200, "{text}");
        let asked = seen.recv().expect("a call");
        assert!(
            asked.head.starts_with("POST /v1/responses "),
            "{}",
            asked.head
        );
        assert!(
            asked.head.contains(&format!("Bearer {KEY}")),
            "{}",
            asked.head
        );
        let expected = json!({"model": "m-1", "input": "?", "stream": stream});
        assert_eq!(asked.body, expected);
    }
    bed.until("all are written down", |bed| {
        let relayed = asker.relayed(bed);
        let calls = relayed.as_array().into_iter().flatten();
        let told: Vec<_> = calls
            .map(|call| (call["end"].clone(), call["output_tokens"].clone()))
            .collect();
        let told_as = |end: &str| (json!(end), json!(3));
        told == ["answered", "answered", "broken"].map(told_as)
    });
    let later = json!({"model": "responses", "input": "?", "background": true});
    let chat = json!({"model": "chat", "input": "?"});
    for (body, why) in [(later, "background"), (chat, "another dialect")] {
        let (status, text) = asker.ask(path, &asker.badge, &body);
        assert_eq!(status, 400, "{text}");
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn who_may_not_ask_is_told_so_in_the_words_of_the_dialect() {
    let (port, _seen) = provider(vec![]);
    let (bed, _dir, asker) = begin(port, "");
    let openai = "/openai/v1/chat/completions";
    let anthropic = "/anthropic/v1/messages";
    let (begin, last) = asker.badge.split_at(asker.badge.len() - 1);
    let other = format!("{begin}{}", if last == "0" { "1" } else { "0" });
    let mut unknown = question();
    unknown["model"] = json!("large");
    for (path, badge, body, status, kind) in [
        (openai, "", question(), 401, "authentication_error"),
        (openai, &*other, question(), 401, "authentication_error"),
        (anthropic, "x", question(), 401, "authentication_error"),
        (openai, &*asker.badge, unknown, 404, "not_found_error"),
        (
            anthropic,
            &*asker.badge,
            question(),
            400,
            "invalid_request_error",
        ),
        (
            openai,
            &*asker.badge,
            json!([1]),
            400,
            "invalid_request_error",
        ),
        (
            "/openai/v1/files",
            &*asker.badge,
            question(),
            404,
            "not_found_error",
        ),
    ] {
        let (answered, text) = asker.ask(path, badge, &body);
        assert_eq!(answered, status, "{path} {text}");
        let told: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(told["error"]["type"], kind, "{told}");
        assert_eq!(told["type"] == "error", path == anthropic, "{told}");
    }
    // Its badge is good as long as it runs.
    bed.post(&format!("/v1/tasks/{}/cancel", asker.id), &json!({}))
        .expect("cancel");
    bed.wait(asker.id);
    assert_eq!(asker.chat(&question()).0, 401);
    let none = Bed::start(&[]);
    let task = json!({"command": ["true"], "llm": true});
    let schedule = json!({"name": "s", "when": "@yearly", "task": task});
    let (status, problem) = none.post("/v1/schedules", &schedule).expect("answer");
    assert_eq!(status, 400, "{problem}");
    assert!(
        problem["detail"].to_string().contains("task.llm"),
        "{problem}"
    );
    let (status, problem) = none.post("/v1/tasks", &task).expect("answer");
    assert_eq!(status, 400, "{problem}");
    assert!(
        problem["detail"].to_string().contains("`listen`"),
        "{problem}"
    );
}

#[test]
fn a_barred_account_is_told_at_once_to_who_can_do_something_else() {
    let (port, _seen) = provider(vec![Says::All(refusal(
        "401 Unauthorized",
        "",
        &format!("{{\"error\":{{\"message\":\"no such key {KEY}\"}}}}"),
    ))]);
    let (bed, _dir, asker) = begin(port, "");
    for _ in 0..2 {
        let (status, body) = asker.chat(&question());
        assert_eq!(status, 403, "{body}");
        assert!(
            body.contains("no such key") && !body.contains(KEY),
            "{body}"
        );
    }
    // Some providers repeat the key in what they complain of, and that is kept.
    let found = Command::new("grep")
        .args(["--recursive", "--text", "--files-with-matches", KEY])
        .arg(bed.dir.path())
        .output()
        .expect("grep");
    assert_eq!(
        String::from_utf8_lossy(&found.stdout),
        "",
        "files with the key"
    );
}

#[test]
fn a_relayed_call_waits_for_a_limit_instead_of_failing() {
    let (port, seen) = provider(vec![
        whole(),
        Says::All(refusal("429 Too Many Requests", "Retry-After: 1\r\n", "")),
        whole(),
    ]);
    let (bed, _dir, asker) = begin(port, "limits = { requests = \"1/2s\" }");
    let begun = clock::instant();
    assert_eq!(asker.chat(&question()).0, 200);
    // The bucket, and then the provider, let it wait.
    assert_eq!(asker.chat(&question()).0, 200);
    let passed = begun.elapsed();
    assert!(passed >= Duration::from_millis(2_900), "{passed:?}");
    (0..3).for_each(|_| drop(seen.recv().expect("a call")));
    bed.until("all are written down", |bed| {
        let relayed = asker.relayed(bed);
        let ends: Vec<_> = relayed
            .as_array()
            .into_iter()
            .flatten()
            .map(|call| &call["end"])
            .collect();
        ends == ["answered", "refused", "answered"]
    });
}

#[test]
fn a_program_that_leaves_ends_its_call_and_one_of_a_killed_daemon_is_unknown() {
    let (go, wait_one) = sync_channel(1);
    let (_two, wait_two) = sync_channel(1);
    let first = format!("{BEGIN}{}", chat("x"));
    let (port, seen) = provider(vec![
        Says::Halves(first.clone(), wait_one, String::new()),
        Says::Halves(first, wait_two, String::new()),
    ]);
    let (mut bed, _dir, asker) = begin(port, "");
    let mut body = question();
    body["stream"] = json!(true);
    let path = "/openai/v1/chat/completions";
    let mut stream = asker.send(path, &asker.badge, &body);
    seen.recv().expect("a call");
    stream.read_exact(&mut [0; 16]).expect("it begins");
    assert_eq!(bed.get("/v1/models/chat").expect("show").1["running"], 1);
    drop(stream);
    // The provider says nothing more: that its reader is gone shows.
    bed.until("it is over", |bed| {
        bed.get("/v1/models/chat").expect("show").1["running"] == 0
    });
    assert_eq!(asker.relayed(&bed)[0]["end"], "unknown");
    go.send(()).expect("the provider waits");
    let _stream = asker.send(path, &asker.badge, &body);
    seen.recv().expect("another call");
    bed.kill();
    bed.restart();
    assert_eq!(asker.relayed(&bed)[1]["end"], "unknown");
    assert_eq!(bed.get("/v1/models/chat").expect("show").1["running"], 0);
}

#[test]
fn programs_that_leave_at_any_moment_leave_no_call_behind() {
    let (port, seen) = provider((0..400).map(|_| whole()).collect());
    let heard = std::thread::spawn(move || seen.into_iter().count());
    let (bed, _dir, asker) = begin(port, "limits = { concurrency = 2 }");
    let path = "/openai/v1/chat/completions";
    for number in 0..150_u64 {
        let stream = asker.send(path, &asker.badge, &question());
        // Before it is in line, in it, on its way, or answered.
        stream
            .set_read_timeout(Some(Duration::from_micros(1 + number * 60)))
            .expect("time limit");
        let _seen = (&stream).read(&mut [0; 1]);
        drop(stream);
    }
    assert_eq!(asker.chat(&question()).0, 200);
    bed.until("all are over", |bed| {
        let (_, model) = bed.get("/v1/models/chat").expect("show");
        let relayed = asker.relayed(bed);
        let mut calls = relayed.as_array().expect("calls").iter();
        model["running"] == 0 && calls.all(|call| call["end"] != Value::Null)
    });
    assert!(!heard.is_finished(), "the provider was there to the end");
}

/// It was passed on to its end, and 16 MiB of it were kept to look for its cost.
#[test]
fn sec_26_an_answer_in_one_piece_that_is_too_long_is_broken_off() {
    let body = format!(
        "{{\"usage\":{{}},\"x\":\"{}\"}}",
        "x".repeat(32 * 1024 * 1024)
    );
    let json = "Content-Type: application/json\r\n";
    let (port, _seen) = provider(vec![Says::All(refusal("200 OK", json, &body))]);
    let (bed, _dir, asker) = begin(port, "");
    let (status, body) = asker.chat(&question());
    assert_eq!(status, 200);
    assert!(body.len() < 9 * 1024 * 1024, "{} bytes", body.len());
    assert!(!body.ends_with("0\r\n\r\n"), "it looks whole");
    bed.until("it is written down", |bed| {
        asker.relayed(bed)[0]["end"] == "answered"
    });
    let memory = format!("/proc/{}/status", bed.pid());
    let memory = std::fs::read_to_string(memory).expect("its memory");
    let line = memory.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let size: u64 = size.expect("a size").parse().expect("a number");
    assert!(size < 128 * 1024, "{size} kB");
}
