//! Budgets of a real daemon: what is spent and held never goes beyond them, and whoever has to wait or fails is told by
//! which, with the numbers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::Bed;
use crate::cli::at;
use crate::prompt::{BEGIN, CHAT_END, Says, Seen, bed_of, chat, provider, refusal};

/// A thousandth for each token of an answer.
const PRICE: &str = "price = { input = 0, output = 1000 }";

/// An answer of which the provider counts so many tokens.
fn counted(input: u64, output: u64) -> Says {
    let end = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]});
    let usage =
        json!({"choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output}});
    Says::All(format!(
        "{BEGIN}{}data: {end}\n\ndata: {usage}\n\ndata: [DONE]\n\n",
        chat("ok")
    ))
}

fn broken() -> Says {
    Says::All(refusal("500 Internal Server Error", "", "oh"))
}

fn task(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("show").1
}

/// Waits until a task waits for a budget; what it says of that.
fn waits(bed: &Bed, id: i64) -> (String, Value) {
    let mut shown = Value::Null;
    bed.until("it waits for a budget", |bed| {
        shown = task(bed, id);
        shown["reason_code"] == "budget"
    });
    (shown["reason"].as_str().expect("why").to_owned(), shown)
}

fn nobody_asks(seen: &Receiver<Seen>) {
    assert!(
        seen.recv_timeout(Duration::from_millis(300)).is_err(),
        "nothing is asked"
    );
}

/// Writes other settings, and puts them in force.
fn reload(bed: &Bed, dir: &Path, old: &str, new: &str) {
    let file = dir.join("config.toml");
    let text = std::fs::read_to_string(&file).expect("read");
    assert!(text.contains(old), "{text}");
    std::fs::write(&file, text.replace(old, new)).expect("write");
    let (status, told) = bed.post("/v1/reload", &json!({})).expect("reload");
    assert_eq!(status, 200, "{told}");
}

#[test]
fn a_task_whose_budget_is_spent_fails_with_the_numbers() {
    let (port, seen) = provider(vec![broken(), counted(7, 2)]);
    let (bed, _dir) = bed_of(port, "", PRICE);
    let quick = json!({"max_attempts": 9, "backoff": "10ms"});
    let id = bed.submit(&json!({
        "prompt": {"text": "?", "max_tokens": 50}, "budget": {"cost": 0.09}, "retry": quick,
    }));
    let done = bed.wait(id);
    assert_eq!(done["state"], "failed", "{done}");
    assert_eq!(done["outcome"]["class"], "budget", "{done}");
    let told = "over the budget of this task: 0.05 of 0.09 spent, and this call may come to 0.05";
    assert_eq!(done["outcome"]["message"], told, "{done}");
    // Nobody knows what the one that broke came to: all that it might have.
    assert_eq!(
        done["attempts"].as_array().expect("attempts").len(),
        1,
        "{done}"
    );
    assert_eq!(done["budgets"][0]["cost_spent"], 0.05, "{done}");
    assert_eq!(done["budgets"][0]["cost_held"], 0.0, "{done}");
    seen.recv().expect("the first call");
    nobody_asks(&seen);
    let shown = at(&bed, &["show", &id.to_string()]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("this task  0.05   0.00  0.09"), "{shown}");
    // It was spent, so trying again does not help; another task has its own.
    bed.post(&format!("/v1/tasks/{id}/retry"), &json!({}))
        .expect("retry");
    assert_eq!(bed.wait(id)["outcome"]["class"], "budget");
    let id =
        bed.submit(&json!({"prompt": {"text": "?", "max_tokens": 50}, "budget": {"cost": 0.09}}));
    assert_eq!(bed.wait(id)["state"], "succeeded");
}

#[test]
fn a_budget_that_nobody_could_keep_is_refused_and_changes_nothing() {
    let (bed, _dir) = bed_of(1, "", "");
    for (body, field, why) in [
        (
            json!({"prompt": {"text": "?"}, "budget": {"cost": 1}}),
            "budget",
            "model `chat` has none",
        ),
        (
            json!({"prompt": {"text": "?"}, "budget": {"batch": {"name": "b", "cost": 1}}}),
            "budget",
            "`price` of it in section [llm]",
        ),
        (
            json!({"command": ["true"], "budget": {"tokens": 9}}),
            "budget",
            "a prompt",
        ),
        (
            json!({"prompt": {"text": "?"}, "budget": {}}),
            "budget",
            "needs tokens, cost, or both",
        ),
        (
            json!({"prompt": {"text": "?"}, "budget": {"tokens": 0}}),
            "budget",
            "at least 1",
        ),
        (
            json!({"prompt": {"text": "?"}, "budget": {"cost": -1}}),
            "",
            "between 0 and 1000000",
        ),
        (
            json!({"prompt": {"text": "?"}, "budget": {"batch": {"name": "b"}}}),
            "budget.batch",
            "needs tokens",
        ),
        (
            json!({"prompt": {"text": "?"}, "budget": {"batch": {"name": "a\nb", "tokens": 9}}}),
            "budget.batch.name",
            "control characters",
        ),
        (
            json!({"prompt": {"text": "?"}, "budget": 3}),
            "",
            "JSON object",
        ),
    ] {
        let (status, problem) = bed.post("/v1/tasks", &body).expect("answer");
        assert_eq!(status, 400, "{body}: {problem}");
        let detail = problem["detail"].as_str().expect("detail");
        assert!(detail.contains(why), "{body}: {detail}");
        assert!(detail.contains(field), "{body}: {detail}");
    }
    let (_, tasks) = bed.get("/v1/tasks").expect("list");
    assert_eq!(tasks["tasks"], json!([]), "nothing was made");
    let schedule = json!({"name": "a", "when": "@yearly", "task": {
        "prompt": {"text": "?"}, "budget": {"batch": {"name": "b", "tokens": 9}},
    }});
    let (status, problem) = bed.post("/v1/schedules", &schedule).expect("answer");
    assert_eq!(
        (status, &problem["field"]),
        (400, &json!("task.budget.batch")),
        "{problem}"
    );
}

#[test]
fn settings_of_budgets_that_make_no_sense_are_refused() {
    let (bed, dir) = bed_of(1, "", "");
    let file = dir.path().join("config.toml");
    let good = std::fs::read_to_string(&file).expect("read");
    for (budgets, why) in [
        ("{ user = \"*\", cost = 1 }", "`chat` has none"),
        (
            "{ user = \"*\", queue = \"q\", tokens = 1 }",
            "either user or queue",
        ),
        ("{ tokens = 1 }", "either user or queue"),
        ("{ queue = \"q\" }", "needs tokens, cost, or both"),
        (
            "{ queue = \"q\", tokens = 1 }, { queue = \"q\", tokens = 2 }",
            "queue `q` has two",
        ),
        (
            "{ user = \"nobody-has-this-name\", tokens = 1 }",
            "no user `nobody-has-this-name`",
        ),
    ] {
        let text = format!("[llm]\nbudgets = [{budgets}]\n{good}").replace("log = \"debug\"\n", "");
        std::fs::write(&file, text).expect("write");
        let (status, problem) = bed.post("/v1/reload", &json!({})).expect("answer");
        assert_ne!(status, 200, "{budgets}");
        assert!(problem.to_string().contains(why), "{budgets}: {problem}");
    }
}

#[test]
fn a_users_budget_of_the_day_is_waited_for_until_midnight_or_until_there_is_more() {
    let (port, seen) = provider(vec![counted(40, 50), counted(7, 2)]);
    let head = "[llm]\nbudgets = [{ user = \"*\", tokens = 100 }]\n";
    let (mut bed, dir) = bed_of(port, head, "");
    let ask = json!({"prompt": {"text": "?", "max_tokens": 60}});
    assert_eq!(bed.wait(bed.submit(&ask))["state"], "succeeded");
    seen.recv().expect("the first call");
    let id = bed.submit(&ask);
    let (why, shown) = waits(&bed, id);
    assert!(why.starts_with("waits for the budget of uid "), "{why}");
    assert!(
        why.ends_with("today: 90 of 100 tokens spent, and this call may come to 77"),
        "{why}"
    );
    let until = shown["until"].as_str().expect("a time");
    assert!(until.contains("T00:00:00"), "{until}");
    bed.kill();
    bed.restart();
    assert_eq!(waits(&bed, id).0, why, "it outlives the daemon");
    nobody_asks(&seen);
    // Those of others and of queues are not told; one's own is.
    let (_, models) = bed.get("/v1/models").expect("models");
    assert_eq!(models["budgets"][0]["tokens_spent"], 90, "{models}");
    let listed = at(&bed, &["provider", "list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("100 tokens"), "{listed}");
    // A call that is larger than a day's budget never can be made.
    let large = bed.submit(&json!({"prompt": {"text": "?", "max_tokens": 200}}));
    let done = bed.wait(large);
    assert_eq!(done["outcome"]["class"], "budget", "{done}");
    reload(&bed, dir.path(), "tokens = 100", "tokens = 200");
    assert_eq!(bed.wait(id)["state"], "succeeded");
}

#[test]
fn a_queues_budget_of_the_day_holds_up_no_other_queue() {
    let (port, _seen) = provider(vec![counted(40, 50), counted(7, 2)]);
    let head = "[llm]\nbudgets = [{ queue = \"prompt\", tokens = 100 }]\n";
    let (bed, _dir) = bed_of(port, head, "");
    let ask = |queue: &str| json!({"prompt": {"text": "?", "max_tokens": 60}, "queue": queue});
    assert_eq!(bed.wait(bed.submit(&ask("prompt")))["state"], "succeeded");
    let id = bed.submit(&ask("prompt"));
    let (why, _) = waits(&bed, id);
    assert!(why.contains("the budget of queue `prompt` today"), "{why}");
    assert_eq!(bed.wait(bed.submit(&ask("other")))["state"], "succeeded");
    assert_eq!(task(&bed, id)["state"], "queued");
}

/// A task that may ask, its address and its badge.
fn asker(bed: &Bed, budget: &Value) -> (i64, String, String) {
    let script = "echo $OPENAI_BASE_URL $OPENAI_API_KEY; sleep 60";
    let id = bed.submit(&json!({
        "command": ["sh", "-c", script], "llm": true, "budget": budget,
    }));
    let mut said = String::new();
    bed.until("it has said where", |bed| {
        said = String::from_utf8(bed.output(id)).expect("text");
        said.ends_with('\n')
    });
    let (base, badge) = said.trim().split_once(' ').expect("two words");
    let at = base
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix("/openai/v1"));
    (id, at.expect("an address").to_owned(), badge.to_owned())
}

fn question(at: &str, badge: &str, path: &str, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(at).expect("connect");
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

fn answer(mut stream: TcpStream) -> (u16, Value) {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    let (_, body) = text.split_once("\r\n\r\n").expect("a head");
    let json = body
        .find('{')
        .map(|start| &body[start..])
        .unwrap_or_default();
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<Value>();
    let body = values.next().and_then(Result::ok).unwrap_or_default();
    (status.expect("a status"), body)
}

/// An answer in one piece.
fn whole(output: u64) -> Says {
    let body = json!({
        "choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": output},
    });
    let json = "Content-Type: application/json\r\n";
    Says::All(refusal("200 OK", json, &body.to_string()))
}

#[test]
fn calls_that_a_task_makes_are_refused_beyond_its_budget_in_its_dialect() {
    let (port, seen) = provider(vec![whole(40)]);
    let (bed, _dir) = bed_of(port, "[llm]\nlisten = \"127.0.0.1:0\"\n", PRICE);
    let (id, at, badge) = asker(&bed, &json!({"cost": 0.08}));
    let chat = "/openai/v1/chat/completions";
    let ask = |path: &str, body: &Value| answer(question(&at, &badge, path, body));
    let asked = json!({"model": "chat", "messages": [], "max_tokens": 50});
    assert_eq!(ask(chat, &asked).0, 200);
    seen.recv().expect("a call");
    let (status, told) = ask(chat, &asked);
    assert_eq!(status, 402, "{told}");
    assert_eq!(told["error"]["code"], "insufficient_quota", "{told}");
    let why = "over the budget of this task: 0.04 of 0.08 spent, and this call may come to 0.05";
    assert_eq!(told["error"]["message"], why);
    // A model without a price is nothing that could be kept within one.
    let message = json!({"model": "messages", "messages": [], "max_tokens": 5});
    let (status, told) = ask("/anthropic/v1/messages", &message);
    assert_eq!(status, 402, "{told}");
    assert_eq!(told["error"]["type"], "billing_error", "{told}");
    assert!(
        told.to_string().contains("model `messages` has no price"),
        "{told}"
    );
    nobody_asks(&seen);
    assert_eq!(task(&bed, id)["budgets"][0]["cost_spent"], 0.04);
}

#[test]
fn under_a_budget_an_answer_is_bounded_that_was_not_and_a_killed_daemon_counts_it_as_spent() {
    let (_go, wait) = std::sync::mpsc::sync_channel(1);
    let begin = format!("{BEGIN}{}", chat("x"));
    let (port, seen) = provider(vec![Says::Halves(begin, wait, CHAT_END.to_owned())]);
    let (mut bed, _dir) = bed_of(port, "[llm]\nlisten = \"127.0.0.1:0\"\n", PRICE);
    let (id, at, badge) = asker(&bed, &json!({"cost": 2}));
    let asked = json!({"model": "chat", "messages": [], "stream": true});
    let _open = question(&at, &badge, "/openai/v1/chat/completions", &asked);
    let sent = seen.recv().expect("a call");
    assert_eq!(sent.body["max_completion_tokens"], 1024, "{}", sent.body);
    bed.until("it is held", |bed| {
        task(bed, id)["budgets"][0]["cost_held"] == 1.024
    });
    bed.kill();
    bed.restart();
    let budget = &task(&bed, id)["budgets"][0];
    assert_eq!(budget["cost_spent"], 1.024, "{budget}");
    assert_eq!(budget["cost_held"], 0.0, "{budget}");
}

#[test]
fn a_file_of_prompts_stops_before_its_budget_and_goes_on_with_a_larger_one() {
    // A hundredth each, and five of them may come to five hundredths at once.
    let answers = (0..8).map(|_| counted(7, 10)).collect();
    let (port, seen) = provider(answers);
    let (bed, dir) = bed_of(
        port,
        "",
        &format!("{PRICE}\nlimits = {{ concurrency = 1 }}"),
    );
    let file = dir.path().join("questions.jsonl");
    let lines: String = (0..8).map(|n| format!("\"question {n}\"\n")).collect();
    std::fs::write(&file, lines).expect("write");
    let out = dir.path().join("answers.jsonl");
    let (file, out) = (file.display().to_string(), out.display().to_string());
    let asked = |more: &[&str]| {
        let words = [
            "prompt",
            "--batch",
            &file,
            "--out",
            &out,
            "--max-tokens",
            "20",
        ];
        let done = at(&bed, &[&words[..], more].concat());
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code(), said)
    };
    let (code, said) = asked(&["--max-cost", "0.05"]);
    assert_eq!(code, Some(1), "{said}");
    // Four came to 0.04; a fifth might have come to 0.06 in all.
    assert!(
        said.contains("0.04 of 0.05 spent of the budget of this batch"),
        "{said}"
    );
    assert!(said.contains("4 of 8 prompts answered, 4 failed"), "{said}");
    let answers = std::fs::read_to_string(&out).expect("answers");
    let why = "over the budget of this batch: 0.04 of 0.05 spent, and this call may come to 0.02";
    assert_eq!(answers.matches(why).count(), 4, "{answers}");
    (0..4).for_each(|_| drop(seen.recv().expect("a call")));
    nobody_asks(&seen);
    let (code, said) = asked(&["--max-cost", "0.2", "--retry-failed"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("all 8 prompts of"),
        "none is asked twice: {said}"
    );
    assert!(
        said.contains("0.08 of 0.20 spent of the budget of this batch"),
        "{said}"
    );
    assert!(said.contains("8 of 8 prompts answered"), "{said}");
}

/// An agent that may ask, and says where and by which badge in a file.
fn bot(dir: &Path, budget: &Value) -> Value {
    json!({
        "name": "bot", "budget": budget, "task": {
            "command": ["sh", "-c", "echo $OPENAI_BASE_URL $OPENAI_API_KEY > door; sleep 600"],
            "llm": true, "cwd": dir,
        },
    })
}

/// A question of its latest run, which may be answered by so many tokens.
fn of_bot(bed: &Bed, dir: &Path, most: u32) -> TcpStream {
    let mut said = String::new();
    bed.until("it has said where", |_| {
        said = std::fs::read_to_string(dir.join("door")).unwrap_or_default();
        said.ends_with('\n')
    });
    let (base, badge) = said.trim().split_once(' ').expect("two words");
    let at = base
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix("/openai/v1"));
    let asked = json!({"model": "chat", "messages": [], "max_tokens": most});
    let path = "/openai/v1/chat/completions";
    question(at.expect("an address"), badge, path, &asked)
}

/// The task that is its latest run.
fn run_of_bot(bed: &Bed) -> i64 {
    let (_, agent) = bed.get("/v1/agents/bot").expect("show");
    agent["instances"][0]["task"].as_i64().expect("a run")
}

#[test]
fn calls_of_an_agent_are_bounded_over_all_its_runs() {
    let (port, seen) = provider(vec![whole(40), whole(40)]);
    let (bed, dir) = bed_of(port, "[llm]\nlisten = \"127.0.0.1:0\"\n", PRICE);
    let dir = dir.path();
    let nothing = bed.post("/v1/agents", &bot(dir, &json!({}))).expect("ask");
    assert_eq!((nothing.0, &nothing.1["field"]), (400, &json!("budget")));
    let budget = json!({ "cost": 0.1, "tokens_per_minute": 100_000 });
    let (status, told) = bed.post("/v1/agents", &bot(dir, &budget)).expect("add");
    assert_eq!(status, 201, "{told}");
    assert_eq!(answer(of_bot(&bed, dir, 50)).0, 200);
    seen.recv().expect("a call");
    // Another run of it draws on the same money.
    std::fs::remove_file(dir.join("door")).expect("remove");
    let (status, _) = bed
        .post("/v1/agents/bot/restart", &Value::Null)
        .expect("restart");
    assert_eq!(status, 200);
    assert_eq!(answer(of_bot(&bed, dir, 50)).0, 200);
    seen.recv().expect("a call");
    let id = run_of_bot(&bed);
    let of = |shown: &Value, name: &str| {
        let mut budgets = shown["budgets"].as_array().expect("budgets").iter();
        let found = budgets.find(|budget| budget["of"] == name);
        found.unwrap_or_else(|| panic!("{name}: {shown}")).clone()
    };
    bed.until("both are counted", |bed| {
        of(&task(bed, id), "agent `bot` today")["cost_spent"] == 0.08
    });
    let minute = of(&task(&bed, id), "agent `bot` in this minute");
    assert_eq!(minute["tokens"], 100_000);
    let (status, told) = answer(of_bot(&bed, dir, 200));
    assert_eq!(status, 402, "more than there ever is: {told}");
    let why = told["error"]["message"].as_str().expect("why");
    assert!(why.contains("the budget of agent `bot` today"), "{why}");
    nobody_asks(&seen);
}

#[test]
fn a_task_whose_program_waits_for_a_call_shows_what_for_and_until_when() {
    let (port, seen) = provider(vec![whole(40)]);
    let (bed, dir) = bed_of(port, "[llm]\nlisten = \"127.0.0.1:0\"\n", PRICE);
    let dir = dir.path();
    let budget = json!({ "cost": 0.08 });
    let (status, told) = bed.post("/v1/agents", &bot(dir, &budget)).expect("add");
    assert_eq!(status, 201, "{told}");
    assert_eq!(answer(of_bot(&bed, dir, 50)).0, 200);
    seen.recv().expect("a call");
    let id = run_of_bot(&bed);
    assert_eq!(task(&bed, id)["reason_code"], "running");
    let waiting = of_bot(&bed, dir, 50);
    let (why, shown) = waits(&bed, id);
    assert!(why.contains("the budget of agent `bot` today"), "{why}");
    assert!(shown["until"].is_string(), "{shown}");
    assert_eq!(shown["state"], "running");
    nobody_asks(&seen);
    // One that left waits no more.
    drop(waiting);
    bed.until("it only runs", |bed| {
        task(bed, id)["reason_code"] == "running"
    });
}
