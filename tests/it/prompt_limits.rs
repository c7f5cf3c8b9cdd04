//! Limits of models: what a prompt waits for, who pays, and what becomes of it when the provider refuses, fails, or the
//! daemon is killed.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};
use taskdaemon::clock;

use crate::bed::Bed;
use crate::prompt::{BEGIN, CHAT_END, Says, Seen, bed_with, chat, provider, refusal};

/// An answer of two tokens, seven of the question.
fn answer() -> Says {
    Says::All(format!("{BEGIN}{}{CHAT_END}", chat("ok")))
}

fn task(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("show").1
}

fn model(bed: &Bed, name: &str) -> Value {
    bed.get(&format!("/v1/models/{name}")).expect("show").1
}

/// Waits until a task says that it waits for its model, and why.
fn waits_for_model(bed: &Bed, id: i64, why: &str) {
    bed.until("it says what it waits for", |bed| {
        let task = task(bed, id);
        task["reason_code"] == "model" && task["reason"].to_string().contains(why)
    });
}

fn is_quiet(seen: &Receiver<Seen>, time: Duration) -> bool {
    seen.recv_timeout(time).is_err()
}

#[test]
fn a_limit_that_is_used_up_is_waited_for_and_outlives_a_kill_of_the_daemon() {
    let (port, seen) = provider(vec![answer(), answer()]);
    let (mut bed, _dir) = bed_with(port, "limits = { output_tokens = \"100/9s\" }");
    let ask = json!({"prompt": {"text": "?", "max_tokens": 100}});
    let first = bed.submit(&ask);
    let begun = clock::instant();
    let done = bed.wait(first);
    assert_eq!(done["state"], "succeeded", "{done}");
    seen.recv().expect("the first call");
    let second = bed.submit(&ask);
    waits_for_model(&bed, second, "its output tokens are used up");
    bed.kill();
    bed.restart();
    waits_for_model(&bed, second, "its output tokens are used up");
    let shown = model(&bed, "chat");
    assert!(
        shown["limits"][0]["left"].as_i64().expect("a number") < 100,
        "{shown}"
    );
    assert_eq!(shown["limits"][0]["most"], 100, "{shown}");
    let done = bed.wait(second);
    assert_eq!(done["state"], "succeeded", "{done}");
    let passed = begun.elapsed();
    assert!(passed >= Duration::from_millis(8_900), "{passed:?}");
    assert_eq!(done["tries"], 0, "{done}");
    assert_eq!(done["attempts"].as_array().expect("attempts").len(), 1);
}

#[test]
fn what_a_call_cost_is_in_the_task_and_in_the_sums() {
    let (port, _seen) = provider(vec![answer()]);
    let (bed, _dir) = bed_with(port, "price = { input = 3, output = 15 }");
    let id = bed.submit(&json!({"prompt": {"text": "?", "max_tokens": 50}}));
    let done = bed.wait(id);
    let call = &done["attempts"][0]["call"];
    let expected = json!({
        "model": "chat", "end": "answered", "input_tokens": 7, "output_tokens": 2,
        "input_tokens_reserved": call["input_tokens_reserved"], "output_tokens_reserved": 50,
        "cost": 0.000_051,
    });
    assert_eq!(*call, expected, "{done}");
    let spent = &model(&bed, "chat")["spent"];
    let expected = json!({
        "calls": 1, "input_tokens": 7, "output_tokens": 2, "cost": 0.000_051, "unknown": 0,
    });
    assert_eq!(*spent, expected);
}

#[test]
fn one_call_at_a_time_is_one_call_at_a_time() {
    let (go, wait) = sync_channel(1);
    let (port, seen) = provider(vec![
        Says::Halves(format!("{BEGIN}{}", chat("x")), wait, CHAT_END.to_owned()),
        answer(),
    ]);
    let (bed, _dir) = bed_with(port, "limits = { concurrency = 1 }");
    let first = bed.submit(&json!({"prompt": {"text": "?"}}));
    seen.recv().expect("the first call");
    let second = bed.submit(&json!({"prompt": {"text": "?"}}));
    waits_for_model(&bed, second, "1 calls at a time");
    // A model of its own is not held up by it.
    assert_eq!(model(&bed, "chat")["running"], 1);
    assert_eq!(model(&bed, "messages")["running"], 0);
    go.send(()).expect("the provider waits");
    assert_eq!(bed.wait(first)["state"], "succeeded");
    assert_eq!(bed.wait(second)["state"], "succeeded");
}

#[test]
fn an_account_that_is_barred_waits_for_a_person_and_a_reload_tries_again() {
    let (port, seen) = provider(vec![
        Says::All(refusal(
            "401 Unauthorized",
            "",
            "{\"error\":{\"message\":\"no such key\"}}",
        )),
        answer(),
    ]);
    let (bed, _dir) = bed_with(port, "");
    let id = bed.submit(&json!({"prompt": {"text": "?"}, "retry": {"max_attempts": 1}}));
    seen.recv().expect("a call");
    waits_for_model(&bed, id, "no such key");
    assert_eq!(model(&bed, "chat")["health"], "barred");
    assert!(
        is_quiet(&seen, Duration::from_millis(500)),
        "nothing is asked"
    );
    let (status, told) = bed.post("/v1/reload", &json!({})).expect("reload");
    assert_eq!(status, 200, "{told}");
    assert_eq!(bed.wait(id)["state"], "succeeded");
    assert_eq!(model(&bed, "chat")["health"], "good");
}

#[test]
fn another_model_answers_where_the_first_cannot() {
    let messages = "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"B\"}}\n\n\
        data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n\
        data: {\"type\":\"message_stop\"}\n\n";
    let (port, seen) = provider(vec![
        Says::All(refusal("402 Payment Required", "", "")),
        Says::All(format!("{BEGIN}{messages}")),
    ]);
    let (bed, _dir) = bed_with(port, "fallback = [\"messages\"]");
    let id = bed.submit(&json!({"prompt": {"text": "?"}, "retry": {"max_attempts": 1}}));
    let done = bed.wait(id);
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(bed.output(id), b"B");
    let models: Vec<_> = (0..2)
        .map(|n| done["attempts"][n]["call"]["model"].clone())
        .collect();
    assert_eq!(models, ["chat", "messages"], "{done}");
    let paths = [seen.recv().expect("a call"), seen.recv().expect("another")];
    assert!(paths[1].head.starts_with("POST /v1/messages "));
}

#[test]
fn a_provider_that_fails_three_times_is_left_alone() {
    let failure = || Says::All(refusal("500 Internal Server Error", "", "oh"));
    let (port, seen) = provider(vec![failure(), failure(), failure(), answer()]);
    let (bed, _dir) = bed_with(port, "");
    let quick = json!({"max_attempts": 9, "backoff": "10ms"});
    let id = bed.submit(&json!({"prompt": {"text": "?"}, "retry": quick}));
    waits_for_model(&bed, id, "it failed too often");
    let shown = task(&bed, id);
    assert_eq!(shown["tries"], 3, "{shown}");
    assert_eq!(shown["attempts"][2]["outcome"], "provider", "{shown}");
    (0..3).for_each(|_| drop(seen.recv().expect("a call")));
    assert!(
        is_quiet(&seen, Duration::from_millis(500)),
        "nothing is asked"
    );
    assert_eq!(model(&bed, "chat")["health"], "open");
}

#[test]
fn a_call_that_was_cancelled_counts_as_spent_with_an_unknown_end() {
    let (_go, wait) = sync_channel(1);
    let (port, seen) = provider(vec![Says::Halves(
        format!("{BEGIN}{}", chat("x")),
        wait,
        String::new(),
    )]);
    let (bed, _dir) = bed_with(
        port,
        "price = { input = 0, output = 10 }\nlimits = { output_tokens = \"1000/1d\" }",
    );
    let id = bed.submit(&json!({"prompt": {"text": "?", "max_tokens": 100}}));
    seen.recv().expect("a call");
    let (status, _) = bed
        .post(&format!("/v1/tasks/{id}/cancel"), &json!({}))
        .expect("cancel");
    assert_eq!(status, 200);
    let done = bed.wait(id);
    assert_eq!(done["state"], "cancelled", "{done}");
    assert_eq!(done["attempts"][0]["call"]["end"], "unknown", "{done}");
    let shown = model(&bed, "chat");
    assert_eq!(shown["spent"]["unknown"], 1, "{shown}");
    assert_eq!(shown["spent"]["cost"], 0.001, "{shown}");
    assert_eq!(shown["limits"][0]["left"], 900, "{shown}");
}

#[test]
fn prompts_of_a_model_that_waits_hold_up_no_other_model() {
    let (port, seen) = provider(vec![
        Says::All(refusal("429 Too Many Requests", "Retry-After: 60\r\n", "")),
        Says::All(refusal("400 Bad Request", "", "no")),
    ]);
    let (bed, _dir) = bed_with(port, "");
    let ask = json!({"prompt": {"text": "?"}});
    let first = bed.submit(&ask);
    seen.recv().expect("a call");
    waits_for_model(&bed, first, "it asked to wait");
    let more: Vec<_> = (0..20).map(|_| bed.submit(&ask)).collect();
    let other = bed.submit(&json!({"prompt": {"text": "?", "model": "messages"}}));
    assert_eq!(bed.wait(other)["state"], "failed");
    for id in more {
        let task = task(&bed, id);
        assert_eq!(task["attempts"], json!([]), "{task}");
    }
}
