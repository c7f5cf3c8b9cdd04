//! Prompts of a real daemon, answered by a provider that says what the test has written, byte by byte: what counts as
//! an answer, what is tried again, and where the key is not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde_json::{Value, json};

use crate::bed::Bed;

/// A key that must be seen by the provider and by nobody else.
pub(crate) const KEY: &str = "canary-8f0e2c7d5b";

/// What the provider does with one request.
pub(crate) enum Says {
    /// Sends this and closes.
    All(String),
    /// Sends the first part, then the second when it is told to.
    Halves(String, Receiver<()>, String),
}

/// A request as the provider has seen it.
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Value,
}

/// Answers one request after the other.
pub(crate) fn provider(says: Vec<Says>) -> (u16, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let (tell, seen) = sync_channel(64);
    std::thread::spawn(move || {
        for one in says {
            let Ok((stream, _)) = listener.accept() else {
                return;
            };
            serve(stream, one, &tell);
        }
    });
    (port, seen)
}

fn serve(mut stream: TcpStream, says: Says, tell: &SyncSender<Seen>) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        // A client that has left asks nothing.
        if reader.read_line(&mut line).unwrap_or_default() == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let body = serde_json::from_slice(&body).expect("JSON");
    tell.send(Seen { head, body }).expect("the test goes on");
    // A client that has left is no matter.
    match says {
        Says::All(text) => drop(stream.write_all(text.as_bytes())),
        Says::Halves(first, go, second) => {
            stream.write_all(first.as_bytes()).expect("write");
            go.recv().expect("the word to go on");
            drop(stream.write_all(second.as_bytes()));
        }
    }
}

pub(crate) const BEGIN: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

pub(crate) fn chat(words: &str) -> String {
    let chunk = json!({"choices": [{"delta": {"content": words}}]});
    format!("data: {chunk}\n\n")
}

pub(crate) const CHAT_END: &str = ": a comment\r\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

pub(crate) fn refusal(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The event with this piece of a response.
pub(crate) fn delta(words: &str) -> String {
    let data = json!({"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "delta": words});
    format!("event: response.output_text.delta\ndata: {data}\n\n")
}

/// The event that ends a response, of which these are the differences to a plain one.
pub(crate) fn response(end: &str, differences: &Value) -> String {
    let mut response = json!({"id": "resp_1", "object": "response", "status": end, "error": null,
        "incomplete_details": null, "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12,
        "input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 1}}});
    for (name, value) in differences.as_object().expect("an object") {
        response[name] = value.clone();
    }
    let data =
        json!({"type": format!("response.{end}"), "sequence_number": 9, "response": response});
    format!("event: response.{end}\ndata: {data}\n\n")
}

/// A daemon with the models `chat`, `messages` and `responses`, all at this port.
pub(crate) fn bed(port: u16) -> (Bed, tempfile::TempDir) {
    bed_with(port, "")
}

/// The same, with more lines about model `chat`.
pub(crate) fn bed_with(port: u16, more: &str) -> (Bed, tempfile::TempDir) {
    bed_of(port, "", more)
}

/// The same, with lines ahead of all models.
pub(crate) fn bed_of(port: u16, head: &str, more: &str) -> (Bed, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("directory");
    let key = dir.path().join("key");
    std::fs::write(&key, format!("{KEY}\n")).expect("key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("mode");
    let config = dir.path().join("config.toml");
    let provider = |name: &str, dialect: &str, path: &str| {
        format!(
            "[[llm.providers]]\nname = \"{name}\"\ndialect = \"{dialect}\"\n\
             base_url = \"http://127.0.0.1:{port}{path}\"\nkey_file = {:?}\n",
            key.display().to_string()
        )
    };
    let model = |name: &str, provider: &str| {
        format!("[[llm.models]]\nname = \"{name}\"\nprovider = \"{provider}\"\nmodel = \"m-1\"\n")
    };
    let text = [
        format!("log = \"debug\"\n{head}"),
        provider("one", "openai", "/v1/"),
        provider("two", "anthropic", ""),
        model("chat", "one"),
        format!("{more}\n"),
        model("messages", "two"),
        provider("three", "responses", "/v1"),
        model("responses", "three"),
    ];
    std::fs::write(&config, text.concat()).expect("config");
    let config = config.display().to_string();
    (Bed::start(&[("CONFIG", &config)]), dir)
}

#[expect(clippy::too_many_lines, reason = "one story")]
#[test]
fn a_prompt_is_answered_in_all_dialects() {
    let messages = "event: message_start\n\
        data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9}}}\n\n\
        event: content_block_delta\n\
        data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Paris.\"}}\n\n\
        event: message_delta\n\
        data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let (port, seen) = provider(vec![
        Says::All(format!("{BEGIN}{}{}{CHAT_END}", chat("Par"), chat("is\n"))),
        Says::All(format!("{BEGIN}{messages}")),
        Says::All(format!(
            "{BEGIN}event: response.created\ndata: {{\"type\":\"response.created\",\"response\":{{\"error\":null}}}}\n\n\
             {}{}{}",
            delta("Pa"),
            delta("ris!"),
            response("completed", &json!({}))
        )),
    ]);
    let (bed, _dir) = bed(port);
    // The first model of the configuration is the default.
    let id = bed.submit(&json!({"prompt": {"text": "Capital of France?", "max_tokens": 5}}));
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["queue"], "prompt");
    assert_eq!(task["prompt"], json!({"model": "chat", "max_tokens": 5}));
    assert_eq!(bed.output(id), b"Paris\n");
    let asked = seen.recv().expect("a request");
    assert!(
        asked.head.starts_with("POST /v1/chat/completions "),
        "{}",
        asked.head
    );
    assert!(
        asked.head.contains(&format!("Bearer {KEY}")),
        "{}",
        asked.head
    );
    assert_eq!(
        asked.body["messages"],
        json!([{"role": "user", "content": "Capital of France?"}])
    );
    assert_eq!(asked.body["model"], "m-1");
    assert_eq!(asked.body["max_tokens"], 5);

    let id =
        bed.submit(&json!({"prompt": {"model": "messages", "system": "Be short.", "text": "?"}}));
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(bed.output(id), b"Paris.");
    let asked = seen.recv().expect("a request");
    assert!(
        asked.head.starts_with("POST /v1/messages "),
        "{}",
        asked.head
    );
    assert!(
        asked
            .head
            .to_lowercase()
            .contains(&format!("x-api-key: {KEY}")),
        "{}",
        asked.head
    );
    assert_eq!(asked.body["system"], "Be short.");

    let id = bed.submit(
        &json!({"prompt": {"model": "responses", "system": "Be short.", "text": "?", "max_tokens": 20}}),
    );
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(bed.output(id), b"Paris!");
    let call = &task["attempts"][0]["call"];
    let used = (&call["input_tokens"], &call["output_tokens"]);
    assert_eq!(used, (&json!(9), &json!(3)), "{call}");
    let asked = seen.recv().expect("a request");
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
    let expected = json!({
        "model": "m-1", "input": [{"role": "user", "content": "?"}], "max_output_tokens": 20,
        "store": false, "stream": true, "instructions": "Be short.",
    });
    assert_eq!(asked.body, expected);
}

#[test]
fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let quick = json!({"max_attempts": 3, "backoff": "10ms", "retry_on": [75]});
    let (port, _seen) = provider(vec![
        // Broken off, an error inside, a server's error, then an answer.
        Says::All(format!("{BEGIN}{}", chat("half"))),
        Says::All(format!(
            "{BEGIN}data: {{\"error\":{{\"type\":\"overloaded_error\",\"message\":\"x\"}}}}\n\n"
        )),
        Says::All(format!("{BEGIN}{}{CHAT_END}", chat("whole"))),
        // A refusal that stands, with the key in it.
        Says::All(refusal(
            "400 Bad Request",
            "",
            &format!("{{\"error\":{{\"message\":\"context too long {KEY}\"}}}}"),
        )),
    ]);
    let (bed, _dir) = bed(port);
    let id = bed.submit(&json!({"prompt": {"text": "?"}, "retry": quick}));
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(
        task["attempts"].as_array().expect("attempts").len(),
        3,
        "{task}"
    );
    assert_eq!(bed.output(id), b"whole", "the last attempt's");
    let id = bed.submit(&json!({"prompt": {"text": "?"}, "retry": quick}));
    let task = bed.wait(id);
    assert_eq!(task["state"], "failed", "{task}");
    assert_eq!(
        task["attempts"].as_array().expect("attempts").len(),
        1,
        "{task}"
    );
    let said = String::from_utf8(bed.output(id)).expect("text");
    assert!(said.contains("context too long …"), "{said}");
}

#[test]
fn a_busy_provider_is_waited_for_as_long_as_it_says_and_costs_no_attempt() {
    let once = json!({"max_attempts": 1});
    let (port, seen) = provider(vec![
        Says::All(refusal("429 Too Many Requests", "Retry-After: 1\r\n", "")),
        Says::All(format!("{BEGIN}{}{CHAT_END}", chat("at last"))),
    ]);
    let (bed, _dir) = bed(port);
    let id = bed.submit(&json!({"prompt": {"text": "?"}, "retry": once}));
    seen.recv().expect("the first request");
    bed.until("it says what it waits for", |bed| {
        let (_, task) = bed.get(&format!("/v1/tasks/{id}")).expect("show");
        task["reason_code"] == "model" && {
            let why = task["reason"].as_str().expect("a reason");
            assert!(
                why.contains("waits for model `chat`: it asked to wait"),
                "{why}"
            );
            assert!(task["until"].is_string(), "{task}");
            true
        }
    });
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    let attempts = task["attempts"].as_array().expect("attempts");
    let outcomes: Vec<_> = attempts.iter().map(|one| &one["outcome"]).collect();
    assert_eq!(outcomes, ["provider", "success"], "{task}");
    assert_eq!(task["tries"], 0, "{task}");
    assert_eq!(attempts[0]["call"]["end"], "refused", "{task}");
}

#[test]
fn an_answer_comes_through_a_kill_of_the_daemon() {
    let (go, wait) = sync_channel(1);
    let (port, seen) = provider(vec![Says::Halves(
        format!("{BEGIN}{}", chat("before, ")),
        wait,
        format!("{}{CHAT_END}", chat("after")),
    )]);
    let (mut bed, _dir) = bed(port);
    let id = bed.submit(&json!({"prompt": {"text": "?"}}));
    seen.recv().expect("a request");
    bed.until("the first words are there", |bed| {
        bed.output(id) == b"before, "
    });
    bed.kill();
    go.send(()).expect("the provider waits");
    bed.restart();
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(
        task["attempts"].as_array().expect("attempts").len(),
        1,
        "{task}"
    );
    assert_eq!(bed.output(id), b"before, after");
}

#[test]
fn the_key_is_for_the_provider_alone() {
    let (go, wait) = sync_channel(1);
    let (port, seen) = provider(vec![
        Says::Halves(format!("{BEGIN}{}", chat("x")), wait, CHAT_END.to_owned()),
        Says::All(refusal("401 Unauthorized", "", &format!("bad key {KEY}"))),
    ]);
    let (bed, dir) = bed(port);
    let id = bed.submit(&json!({"prompt": {"text": "?"}}));
    let asked = seen.recv().expect("a request");
    assert!(asked.head.contains(KEY), "the provider has it");
    let mut pid = Value::Null;
    bed.until("it runs", |bed| {
        let (_, task) = bed.get(&format!("/v1/tasks/{id}")).expect("show");
        pid = task["attempts"][0]["pid"].clone();
        pid.is_number() && bed.output(id) == b"x"
    });
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).expect("its process");
        assert!(!String::from_utf8_lossy(&bytes).contains(KEY), "{file}");
    }
    go.send(()).expect("the provider waits");
    bed.wait(id);
    let id = bed.submit(&json!({"prompt": {"text": "?"}}));
    bed.until("its account is barred", |bed| {
        let (_, task) = bed.get(&format!("/v1/tasks/{id}")).expect("show");
        task["reason"].to_string().contains("put right")
    });
    for path in [
        "/v1/tasks",
        "/v1/tasks/1",
        "/v1/tasks/2",
        "/v1/events",
        "/v1/status",
        "/v1/models",
    ] {
        let (_, answer) = bed.get(path).expect(path);
        assert!(!answer.to_string().contains(KEY), "{path}");
    }
    let shown = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args(["config", "show"])
        .env("TASKDAEMON_CONFIG", dir.path().join("config.toml"))
        .output()
        .expect("config show");
    assert!(shown.status.success());
    assert!(!String::from_utf8_lossy(&shown.stdout).contains(KEY));
    // The log at its most talkative, the database, the output.
    let found = Command::new("grep")
        .args(["--recursive", "--text", "--files-with-matches", KEY])
        .arg(bed.dir.path())
        .output()
        .expect("grep");
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert_eq!(found, "", "files with the key");
}

#[test]
fn a_prompt_that_makes_no_sense_is_refused_and_changes_nothing() {
    let (bed, dir) = bed(1);
    let long = "x".repeat(1024 * 1024 + 1);
    for (body, field) in [
        (json!({"prompt": {"text": "  "}}), "prompt.text"),
        (json!({"prompt": {"text": long}}), "prompt.text"),
        (
            json!({"prompt": {"text": "?", "model": "large"}}),
            "prompt.model",
        ),
        (
            json!({"prompt": {"text": "?", "max_tokens": 0}}),
            "prompt.max_tokens",
        ),
        (
            json!({"prompt": {"text": "?"}, "command": ["true"]}),
            "command",
        ),
        (json!({"prompt": {"text": "?"}, "stdin": "x"}), "stdin"),
        (json!({"prompt": {"text": "?"}, "user": "root"}), "user"),
        (
            json!({"prompt": {"text": "?"}, "memory": "64MiB"}),
            "memory",
        ),
        (json!({"prompt": {"text": "?"}, "cpu": "50%"}), "cpu"),
        (json!({"prompt": {"text": "?"}, "pids": 5}), "pids"),
        (json!({"prompt": {"text": "?"}, "env": {"A": "1"}}), "env"),
        (
            json!({"prompt": {"text": "?"}, "profile": "strict"}),
            "profile",
        ),
        (
            json!({"prompt": {"text": "?", "temperature": 1}}),
            "temperature",
        ),
        (json!({"prompt": "?"}), "JSON object"),
        (json!({}), "command"),
    ] {
        let (status, problem) = bed.post("/v1/tasks", &body).expect("answer");
        assert_eq!(status, 400, "{problem}");
        assert!(
            problem["detail"].as_str().expect("detail").contains(field),
            "{field}: {problem}"
        );
        // One alone has no place among others.
        let told = problem["detail"].as_str().expect("detail");
        assert!(!told.contains("tasks["), "{told}");
    }
    let (_, tasks) = bed.get("/v1/tasks").expect("list");
    assert_eq!(tasks["tasks"], json!([]), "nothing was made");
    let key = dir.path().join("key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).expect("mode");
    let (status, problem) = bed.post("/v1/reload", &json!({})).expect("answer");
    assert_ne!(status, 200, "whoever may submit is in that group");
    assert!(problem.to_string().contains("chmod 0600"), "{problem}");
    let none = Bed::start(&[]);
    let (status, problem) = none
        .post("/v1/tasks", &json!({"prompt": {"text": "?"}}))
        .expect("answer");
    assert_eq!(status, 400, "{problem}");
    assert!(
        problem["detail"]
            .as_str()
            .expect("detail")
            .contains("[llm]"),
        "{problem}"
    );
}

#[test]
fn sec_24_a_redirect_takes_neither_question_nor_key_anywhere() {
    let (elsewhere, followed) = provider(vec![Says::All(refusal("200 OK", "", "{}"))]);
    let to = format!("Location: http://127.0.0.1:{elsewhere}/v1/chat/completions\r\n");
    let (port, seen) = provider(vec![Says::All(refusal("302 Found", &to, ""))]);
    let (bed, _dir) = bed(port);
    let done =
        bed.wait(bed.submit(&json!({"prompt": {"text": "?"}, "retry": {"max_attempts": 1}})));
    assert_eq!(done["state"], "failed", "{done}");
    seen.recv().expect("it was asked");
    assert!(followed.try_recv().is_err(), "nobody else was");
}

#[test]
fn sec_24_a_key_leaves_the_host_by_tls_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("config.toml");
    let check = |provider: &str| {
        let text =
            format!("llm.providers = [{{ name = \"a\", dialect = \"openai\", {provider} }}]\n");
        std::fs::write(&file, text).expect("write");
        let done = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
            .args(["config", "check", "--config"])
            .arg(&file)
            .output()
            .expect("config check");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.success(), said)
    };
    let clear = "base_url = \"http://models.example/v1\"";
    let (good, said) = check(&format!("{clear}, key_file = \"/key\""));
    assert!(!good && said.contains("insecure = true"), "{said}");
    for other in [
        clear.to_owned(),
        format!("{clear}, key_file = \"/key\", insecure = true"),
        "base_url = \"https://models.example/v1\", key_file = \"/key\"".to_owned(),
        "base_url = \"http://127.0.0.1:9/v1\", key_file = \"/key\"".to_owned(),
    ] {
        let (_, said) = check(&other);
        assert!(!said.contains("without TLS"), "{other}: {said}");
    }
}

/// It was taken in, and each of its tasks failed.
#[test]
fn a_schedule_whose_prompt_asks_a_model_that_is_not_there_is_refused() {
    let (bed, _dir) = bed(1);
    let schedule = |model: Option<&str>, replace: bool| {
        let mut prompt = json!({"text": "?"});
        if let Some(model) = model {
            prompt["model"] = json!(model);
        }
        json!({"name": "ask", "when": "@yearly", "task": {"prompt": prompt}, "replace": replace})
    };
    let add = |body: &Value| bed.post("/v1/schedules", body).expect("answer");
    let refused = |(status, problem): (u16, Value)| {
        assert_eq!(status, 400, "{problem}");
        assert_eq!(problem["field"], "task.prompt.model", "{problem}");
        problem["detail"].as_str().expect("detail").to_owned()
    };
    let detail = refused(add(&schedule(Some("large"), false)));
    assert!(detail.contains("chat, messages"), "{detail}");
    let (_, schedules) = bed.get("/v1/schedules").expect("list");
    assert_eq!(schedules["schedules"], json!([]), "nothing was made");
    for model in [Some("messages"), None] {
        let (status, answer) = add(&schedule(model, true));
        assert_eq!(status, 201, "{answer}");
    }
    let (_, before) = bed.get("/v1/schedules/ask").expect("show");
    refused(add(&schedule(Some("large"), true)));
    let (_, after) = bed.get("/v1/schedules/ask").expect("show");
    assert_eq!(before, after, "it is as it was");
    let none = Bed::start(&[]);
    let detail = refused(
        none.post("/v1/schedules", &schedule(None, false))
            .expect("answer"),
    );
    assert!(detail.contains("[llm]"), "{detail}");
}
