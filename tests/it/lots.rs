//! Providers' own batches: made once whatever is killed, found again by their mark, cancelled with their task, and at
//! half the price. The provider is here, for both vendors.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::cli::{at, text};
use crate::prompt::{KEY, bed, bed_with};

/// A batch at its provider.
struct Made {
    mark: Value,
    rows: Vec<Value>,
    cancelled: bool,
}

/// What the provider has, and how it behaves.
#[derive(Default)]
struct State {
    file: Vec<Value>,
    made: Vec<Made>,
    /// Batches are over, and so many of their prompts answered.
    over: Option<usize>,
    /// Of so many batches that are made nobody hears.
    deaf: usize,
    keys: Vec<String>,
}

#[derive(Clone, Default)]
struct Vendor(Arc<Mutex<State>>);

impl Vendor {
    fn serve() -> (u16, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let vendor = Self::default();
        let own = vendor.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, own) = (stream.expect("a connection"), own.clone());
                std::thread::spawn(move || own.answer(stream));
            }
        });
        (port, vendor)
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().expect("no test panicked here"))
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
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
        let body = String::from_utf8(body).expect("text");
        let mut words = head.split(' ');
        let (method, path) = (words.next().expect("method"), words.next().expect("path"));
        let answer = self.with(|state| {
            state.keys.push(head.clone());
            state.answer(method, path, &body)
        });
        if let Some((status, body)) = answer {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            drop(stream.write_all(format!("{head}{body}").as_bytes()));
        }
    }
}

/// The answer to a prompt as the vendor has it who was asked so.
fn said(body: &Value) -> Value {
    if let Some(input) = body.get("input") {
        let words = format!("to {}", input[0]["content"].as_str().expect("text"));
        let content = json!([{"type": "output_text", "text": words}]);
        return json!({"status": "completed", "error": null, "output": [{"type": "message", "content": content}],
            "usage": {"input_tokens": 7, "output_tokens": 2}});
    }
    let last = body["messages"]
        .as_array()
        .expect("messages")
        .last()
        .expect("one");
    let words = format!("to {}", last["content"].as_str().expect("text"));
    json!({"choices": [{"message": {"content": words}, "finish_reason": "stop"}], "content": [{"type": "text", "text": words}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "input_tokens": 7, "output_tokens": 2}})
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let good = |value: Value| Some((200, value.to_string()));
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        let ours = path.starts_with("/v1/messages/");
        let rest = path
            .trim_start_matches("/v1/messages")
            .trim_start_matches("/v1");
        let parts: Vec<_> = rest.split('/').skip(1).collect();
        match (method, parts.as_slice()) {
            ("POST", ["files"]) => {
                assert!(body.contains("name=\"purpose\"\r\n\r\nbatch\r\n"), "{body}");
                let lines = body
                    .lines()
                    .filter(|line| line.starts_with("{\"custom_id\""));
                self.file = lines
                    .map(|line| serde_json::from_str(line).expect("JSON"))
                    .collect();
                good(json!({"id": "file-in"}))
            }
            ("POST", ["batches"]) => {
                let body: Value = serde_json::from_str(body).expect("JSON");
                let (mark, rows) = if ours {
                    (
                        Value::Null,
                        body["requests"].as_array().expect("requests").clone(),
                    )
                } else {
                    assert_eq!(body["input_file_id"], "file-in");
                    assert_eq!(body["completion_window"], "24h");
                    assert_eq!(body["endpoint"], self.file[0]["url"]);
                    (body["metadata"].clone(), self.file.clone())
                };
                let cancelled = false;
                self.made.push(Made {
                    mark,
                    rows,
                    cancelled,
                });
                if self.deaf > 0 {
                    self.deaf -= 1;
                    return None;
                }
                good(self.shown(self.made.len() - 1, ours))
            }
            ("GET", ["batches"]) => {
                let all = (0..self.made.len()).rev().map(|at| self.shown(at, ours));
                good(json!({"data": all.collect::<Vec<_>>(), "has_more": false}))
            }
            ("GET", ["batches", id]) => good(self.shown(number(id), ours)),
            ("POST", ["batches", id, "cancel"]) => {
                self.made[number(id)].cancelled = true;
                good(self.shown(number(id), ours))
            }
            ("GET", ["batches", id, "results"]) => Some((200, self.results(number(id), true))),
            ("GET", ["files", id, "content"]) => Some((200, self.results(number(id), false))),
            _ => unreachable!("{method} {path}"),
        }
    }

    fn shown(&self, at: usize, ours: bool) -> Value {
        let made = &self.made[at];
        let (all, done) = (made.rows.len(), self.over.unwrap_or(0).min(made.rows.len()));
        let is_over = self.over.is_some() || made.cancelled;
        if ours {
            let left = all - done;
            let counts = json!({"processing": if is_over { 0 } else { all }, "succeeded": done, "errored": 0,
                "canceled": 0, "expired": if is_over { left } else { 0 }});
            let now = jiff::Timestamp::from_microsecond(taskdaemon::clock::now().micros())
                .expect("a time");
            return json!({"id": format!("msgbatch_{at}"), "created_at": now.to_string(), "request_counts": counts,
                "processing_status": if is_over { "ended" } else { "in_progress" }});
        }
        let status = match (made.cancelled, self.over) {
            (true, _) => "cancelled",
            (_, None) => "in_progress",
            (_, Some(count)) if count < all => "expired",
            (_, Some(_)) => "completed",
        };
        let file = is_over.then(|| format!("file-out_{at}"));
        json!({"id": format!("batch_{at}"), "status": status, "metadata": made.mark, "output_file_id": file,
            "error_file_id": null, "request_counts": {"total": all, "completed": done, "failed": 0}})
    }

    /// In the wrong order, as they may come.
    fn results(&self, at: usize, ours: bool) -> String {
        let rows = self.made[at].rows.iter().take(self.over.unwrap_or(0)).rev();
        let line = |row: &Value| {
            let id = &row["custom_id"];
            if ours {
                let message = said(&row["params"]);
                return json!({"custom_id": id, "result": {"type": "succeeded", "message": message}}).to_string();
            }
            let response = json!({"status_code": 200, "body": said(&row["body"])});
            json!({"custom_id": id, "response": response, "error": null}).to_string()
        };
        rows.map(line).collect::<Vec<_>>().join("\n")
    }
}

fn number(id: &str) -> usize {
    id.rsplit('_')
        .next()
        .expect("a number")
        .parse()
        .expect("a number")
}

const ROWS: &str = "{\"text\":\"one\",\"id\":\"a\"}\n\"two\"\n{\"text\":\"three\",\"max_tokens\":5,\"system\":\"Be short.\"}\n";

fn lot(model: &str) -> Value {
    let text = "{\"id\":\"1\",\"text\":\"one\"}\n{\"id\":\"2\",\"text\":\"two\"}\n";
    json!({"prompt": {"model": model, "text": text, "provider_batch": true, "max_tokens": 50}})
}

fn task(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("show").1
}

/// Waits until the provider's name of a batch is kept with its task.
fn named(bed: &Bed, id: i64) -> Value {
    bed.until("its batch has a name", |bed| {
        !task(bed, id)["prompt"]["lot"]["batch"].is_null()
    });
    task(bed, id)
}

#[expect(clippy::too_many_lines, reason = "one story")]
#[test]
fn a_file_of_prompts_goes_to_its_provider_as_one_batch_in_all_dialects() {
    let (port, vendor) = Vendor::serve();
    vendor.with(|state| state.over = Some(9));
    let (bed, dir) = bed(port);
    let (file, out) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
    fs::write(&file, ROWS).expect("write");
    let (file, out) = (file.display().to_string(), out.display().to_string());
    for (place, model) in ["chat", "responses", "messages"].into_iter().enumerate() {
        let words = [
            "prompt",
            "--model",
            model,
            "--batch",
            &file,
            "--provider-batch",
            "--out",
            &out,
        ];
        let done = at(&bed, &words);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        assert!(
            text(&done.stderr).contains("3 of 3 prompts answered"),
            "{}",
            text(&done.stderr)
        );
        let lines = fs::read_to_string(&out).expect("answers");
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let told: Vec<_> = lines
            .iter()
            .map(|line| (&line["line"], &line["id"], &line["answer"]))
            .collect();
        let expected = [
            (&json!(1), &json!("a"), &json!("to one")),
            (&json!(2), &Value::Null, &json!("to two")),
            (&json!(3), &Value::Null, &json!("to three")),
        ];
        assert_eq!(told, expected, "{model}");
        assert_eq!(lines[0]["tokens"], json!({"input": 7, "output": 2}));
        let id = lines[0]["task"].as_i64().expect("a number");
        let call = &task(&bed, id)["attempts"][0]["call"];
        assert_eq!(
            (&call["end"], &call["input_tokens"], &call["output_tokens"]),
            (&json!("answered"), &json!(21), &json!(6))
        );
        // The same command again asks nothing.
        assert_eq!(at(&bed, &words).status.code(), Some(0));
        vendor.with(|state| {
            assert_eq!(state.made.len(), place + 1, "{model}");
            let rows = &state.made[place].rows;
            let body = |at: usize| {
                if model == "messages" {
                    &rows[at]["params"]
                } else {
                    &rows[at]["body"]
                }
            };
            assert_eq!(
                (&body(0)["model"], &body(0)["stream"]),
                (&json!("m-1"), &Value::Null)
            );
            let most = if model == "responses" {
                "max_output_tokens"
            } else {
                "max_tokens"
            };
            assert_eq!((&body(1)[most], &body(2)[most]), (&json!(1024), &json!(5)));
            assert!(
                body(2).to_string().contains("Be short.")
                    && !body(1).to_string().contains("Be short.")
            );
            assert!(
                state.keys.iter().all(|head| head.contains(KEY)),
                "everything is asked with the key"
            );
        });
    }
}

#[test]
fn a_batch_outlives_kills_of_everything_and_is_made_once() {
    for model in ["chat", "messages"] {
        let (port, vendor) = Vendor::serve();
        let (mut bed, _dir) = bed(port);
        let id = bed.submit(&lot(model));
        let shown = named(&bed, id);
        assert_eq!(shown["prompt"]["lot"]["rows"], 2, "{shown}");
        let (_, status) = bed.get("/v1/status").expect("status");
        let pid = |value: &Value| {
            Pid::from_raw(i32::try_from(value.as_i64().expect("a process")).expect("small"))
        };
        let (runner, call) = (
            pid(&status["runner"]["pid"]),
            pid(&shown["attempts"][0]["pid"]),
        );
        bed.kill();
        for pid in [runner, call] {
            // Without cgroups the second ends with the first.
            let _gone = kill(pid, Signal::SIGKILL).is_err();
        }
        vendor.with(|state| state.over = Some(2));
        bed.restart();
        let done = bed.wait(id);
        assert_eq!(done["state"], "succeeded", "{done}");
        assert_eq!(done["attempts"].as_array().map(Vec::len), Some(2), "{done}");
        assert_eq!(vendor.with(|state| state.made.len()), 1, "{model}");
        let output = String::from_utf8(bed.output(id)).expect("text");
        assert!(
            output.contains("to one") && output.contains("to two"),
            "{output}"
        );
        // What the first has made is charged to it, and not again.
        let calls = |at: usize| {
            (
                done["attempts"][at]["call"]["end"].clone(),
                done["attempts"][at]["call"]["output_tokens"].clone(),
            )
        };
        assert_eq!(
            (calls(0), calls(1)),
            (
                (json!("unknown"), Value::Null),
                (json!("answered"), json!(0))
            )
        );
    }
}

#[test]
fn a_batch_of_which_nobody_heard_is_found_by_its_mark_and_not_made_again() {
    for model in ["chat", "messages"] {
        let (port, vendor) = Vendor::serve();
        vendor.with(|state| state.deaf = 1);
        let (bed, _dir) = bed(port);
        let id = bed.submit(&lot(model));
        bed.until("it was made", |_| {
            vendor.with(|state| !state.made.is_empty())
        });
        if model == "messages" {
            // Of these nobody knows whose they are before they are over.
            bed.until("it says what it waits for", |bed| {
                task(bed, id)["attempts"][0]["status"]
                    .to_string()
                    .contains("may be this one")
                    || task(bed, id)["status"]
                        .to_string()
                        .contains("may be this one")
                    || task(bed, id).to_string().contains("may be this one")
            });
        }
        vendor.with(|state| state.over = Some(2));
        let done = bed.wait(id);
        assert_eq!(done["state"], "succeeded", "{done}");
        assert_eq!(vendor.with(|state| state.made.len()), 1, "{model}");
        // It was made by this attempt, which is charged for it.
        assert_eq!(done["attempts"][0]["call"]["output_tokens"], 4, "{done}");
    }
}

#[test]
fn a_batch_is_cancelled_at_its_provider_with_its_task() {
    for model in ["chat", "messages"] {
        let (port, vendor) = Vendor::serve();
        let (bed, _dir) = bed(port);
        let id = bed.submit(&lot(model));
        named(&bed, id);
        bed.post(&format!("/v1/tasks/{id}/cancel"), &json!({}))
            .expect("cancel");
        assert_eq!(bed.wait(id)["state"], "cancelled");
        bed.until("it is cancelled there", |_| {
            vendor.with(|state| state.made[0].cancelled)
        });
        let next = bed.wait(id + 1);
        assert_eq!(next["state"], "succeeded", "{next}");
        assert_eq!(next["attempts"][0]["call"]["end"], "answered", "{next}");
        assert_eq!(vendor.with(|state| state.made.len()), 1, "{model}");
    }
}

#[test]
fn a_batch_that_expires_answers_what_it_has_and_says_of_the_rest_so() {
    for model in ["chat", "messages"] {
        let (port, vendor) = Vendor::serve();
        vendor.with(|state| state.over = Some(1));
        let (bed, dir) = bed(port);
        let (file, out) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
        fs::write(&file, ROWS).expect("write");
        let (file, out) = (file.display().to_string(), out.display().to_string());
        let words = [
            "prompt",
            "--model",
            model,
            "--batch",
            &file,
            "--provider-batch",
            "--out",
            &out,
        ];
        let done = at(&bed, &words);
        assert_eq!(done.status.code(), Some(1), "{}", text(&done.stderr));
        assert!(
            text(&done.stderr).contains("1 of 3 prompts answered, 2 failed"),
            "{}",
            text(&done.stderr)
        );
        let lines = fs::read_to_string(&out).expect("answers");
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let states: Vec<_> = lines.iter().map(|line| &line["state"]).collect();
        assert_eq!(states, ["succeeded", "failed", "failed"], "{model}");
        assert!(
            lines[2]["error"]
                .to_string()
                .contains("before it was its turn"),
            "{}",
            lines[2]
        );
    }
}

#[test]
fn half_the_price_of_a_batch_is_held_and_what_is_asked_wrongly_is_refused() {
    let (port, vendor) = Vendor::serve();
    let (bed, _dir) = bed_with(port, "price = { input = 0, output = 1000 }");
    let mut order = lot("chat");
    // Two answers of 50 tokens at half a thousandth each.
    order["budget"] = json!({"cost": 0.049});
    let id = bed.submit(&order);
    let done = bed.wait(id);
    assert_eq!(
        (&done["state"], &done["outcome"]["class"]),
        (&json!("failed"), &json!("budget")),
        "{done}"
    );
    assert_eq!(vendor.with(|state| state.made.len()), 0);
    order["budget"] = json!({"cost": 0.05});
    let id = bed.submit(&order);
    named(&bed, id);
    let held = &task(&bed, id)["budgets"][0]["cost_held"];
    assert_eq!(held, 0.05, "{held}");
    vendor.with(|state| state.over = Some(2));
    let done = bed.wait(id);
    assert_eq!(done["attempts"][0]["call"]["cost"], 0.002, "{done}");
    assert_eq!(done["budgets"][0]["cost_spent"], 0.002, "{done}");
    for (change, why) in [
        (json!({"text": "not JSON"}), "line 1"),
        (
            json!({"text": "{\"id\":\"1\",\"text\":\"\"}"}),
            "line 1: text is empty",
        ),
        (json!({"schema": {"type": "object"}}), "provider_batch"),
    ] {
        let mut order = lot("chat");
        for (name, value) in change.as_object().expect("an object") {
            order["prompt"][name] = value.clone();
        }
        let (status, problem) = bed.post("/v1/tasks", &order).expect("an answer");
        assert_eq!(status, 400, "{problem}");
        assert!(
            problem["detail"].to_string().contains(why),
            "{why}: {problem}"
        );
    }
}
