//! What providers are documented to send and no mock of them does, byte by byte: waits in all their forms, refusals
//! without one, accounts without money, and answers that break off in the middle, in all dialects.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskdaemon::clock;

use crate::bed::Bed;
use crate::prompt::{
    BEGIN, CHAT_END, Says, Seen, bed, bed_with, chat, delta, provider, refusal, response,
};

/// How much sooner than it should a clock of whole seconds may show something.
const SLACK: Duration = Duration::from_millis(50);

fn good() -> Says {
    Says::All(format!("{BEGIN}{}{CHAT_END}", chat("whole")))
}

fn busy(headers: &str, body: &str) -> Says {
    Says::All(refusal("429 Too Many Requests", headers, body))
}

/// A whole answer of this model.
fn whole(model: &str) -> Says {
    match model {
        "chat" => good(),
        "responses" => {
            let end = response("completed", &json!({}));
            Says::All(format!("{BEGIN}{}{end}", delta("whole")))
        }
        _ => Says::All(format!("{BEGIN}{MESSAGE}")),
    }
}

/// Twenty pieces of an answer of this model, and what comes then.
fn half_of(model: &str, rest: &str) -> Says {
    let piece = match model {
        "responses" => delta("half "),
        _ => chat("half "),
    };
    Says::All(format!("{BEGIN}{}{rest}", piece.repeat(20)))
}

fn arrival(seen: &Receiver<Seen>) -> Instant {
    let time = Duration::from_secs(20);
    seen.recv_timeout(time).expect("a call");
    clock::instant()
}

fn ask(bed: &Bed, model: &str, attempts: u32) -> i64 {
    let retry = json!({
        "max_attempts": attempts, "backoff": "10ms", "retry_on": [75, "provider"],
    });
    bed.submit(&json!({"prompt": {"text": "?", "model": model}, "retry": retry}))
}

fn outcomes(done: &Value) -> Vec<&str> {
    let attempts = done["attempts"].as_array().expect("attempts");
    let end = |attempt: &'_ Value| attempt["call"]["end"].as_str().map(str::to_owned);
    let ends: Vec<_> = attempts.iter().map(end).collect();
    let known = [
        "answered",
        "refused",
        "overloaded",
        "barred",
        "broken",
        "rejected",
    ];
    let word = |end: Option<String>| {
        known
            .into_iter()
            .find(|known| end.as_deref() == Some(*known))
    };
    ends.into_iter()
        .map(|end| word(end).unwrap_or("?"))
        .collect()
}

#[test]
fn a_wait_is_kept_in_whatever_form_it_is_asked_for() {
    let body = json!([{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED", "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"},
    ]}}]);
    let until = clock::now().after(Duration::from_secs(30));
    let until = jiff::Timestamp::from_microsecond(until.micros()).expect("a time");
    let date = jiff::fmt::rfc2822::DateTimePrinter::new();
    let date = date.timestamp_to_rfc9110_string(&until).expect("a date");
    for (headers, body, least) in [
        ("Retry-After: 2\r\n".to_owned(), String::new(), 2_000),
        (
            "retry-after-ms: 1200\r\nRetry-After: 9\r\n".to_owned(),
            String::new(),
            1_200,
        ),
        (String::new(), body.to_string(), 1_500),
    ] {
        let (port, seen) = provider(vec![busy(&headers, &body), good()]);
        let (bed, _dir) = bed(port);
        let id = ask(&bed, "chat", 1);
        let first = arrival(&seen);
        let waited = arrival(&seen).duration_since(first) + SLACK;
        let least = Duration::from_millis(least);
        assert!(
            waited >= least && waited < least * 2 + least,
            "{headers}{body}: {waited:?}"
        );
        let done = bed.wait(id);
        assert_eq!(outcomes(&done), ["refused", "answered"], "{done}");
        assert_eq!(done["tries"], 0, "{done}");
    }
    // A date is until when it says.
    let (port, seen) = provider(vec![busy(&format!("Retry-After: {date}\r\n"), "")]);
    let (bed, _dir) = bed(port);
    let id = ask(&bed, "chat", 1);
    arrival(&seen);
    bed.until("it waits until the date", |bed| {
        let (_, task) = bed.get(&format!("/v1/tasks/{id}")).expect("show");
        let shown = task["until"]
            .as_str()
            .and_then(|until| until.parse::<jiff::Timestamp>().ok());
        // Up to a twentieth of the wait is added, so that not all come at once.
        shown.is_some_and(|shown| (-1..=3).contains(&shown.duration_since(until).as_secs()))
    });
}

#[test]
fn a_refusal_that_names_no_time_is_waited_for_longer_each_time() {
    let (port, seen) = provider(vec![busy("", ""), busy("", "{}"), good()]);
    let (bed, _dir) = bed(port);
    let id = ask(&bed, "chat", 1);
    let times: Vec<_> = (0..3).map(|_| arrival(&seen)).collect();
    let gap = |n: usize| times[n + 1].duration_since(times[n]) + SLACK;
    assert!(gap(0) >= Duration::from_secs(1), "{:?}", gap(0));
    assert!(gap(1) >= Duration::from_secs(2), "{:?}", gap(1));
    let done = bed.wait(id);
    assert_eq!(
        outcomes(&done),
        ["refused", "refused", "answered"],
        "{done}"
    );
}

#[test]
fn a_refusal_that_names_no_time_lets_another_model_answer() {
    let messages = "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"B\"}}\n\n\
        data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n\
        data: {\"type\":\"message_stop\"}\n\n";
    for first in [busy("", ""), Says::All(refusal("529 Overloaded", "", ""))] {
        let (port, seen) = provider(vec![first, Says::All(format!("{BEGIN}{messages}"))]);
        let more = "fallback = [\"messages\"]\nfallback_after = \"0s\"";
        let (bed, _dir) = bed_with(port, more);
        let id = ask(&bed, "chat", 1);
        let first = arrival(&seen);
        assert!(arrival(&seen).duration_since(first) < Duration::from_secs(1));
        let done = bed.wait(id);
        assert_eq!(done["attempts"][1]["call"]["model"], "messages", "{done}");
        assert_eq!(bed.output(id), b"B");
    }
}

#[test]
fn an_account_without_money_is_asked_once_and_then_by_a_reload_alone() {
    let error = |kind: &str, code: &str, words: &str| {
        json!({"type": "error", "error": {"type": kind, "code": code, "message": words}})
            .to_string()
    };
    let spent = error(
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your quota.",
    );
    let low = "Your credit balance is too low to ask for more.";
    let limit = "You have reached your specified API usage limits until the first of May.";
    for (status, body, model) in [
        ("429 Too Many Requests", spent, "chat"),
        ("402 Payment Required", String::new(), "chat"),
        (
            "400 Bad Request",
            error("invalid_request_error", "", low),
            "messages",
        ),
        (
            "400 Bad Request",
            error("invalid_request_error", "", limit),
            "messages",
        ),
    ] {
        let refused = || Says::All(refusal(status, "Retry-After: 1\r\n", &body));
        let (port, seen) = provider(vec![refused(), refused()]);
        let (bed, _dir) = bed(port);
        let id = ask(&bed, model, 1);
        arrival(&seen);
        bed.until("it waits for a person", |bed| {
            let (_, task) = bed.get(&format!("/v1/tasks/{id}")).expect("show");
            task["reason"].to_string().contains("put right")
        });
        let time = Duration::from_millis(1_500);
        assert!(
            seen.recv_timeout(time).is_err(),
            "{status} {body}: it is asked again"
        );
        bed.post("/v1/reload", &json!({})).expect("reload");
        arrival(&seen);
    }
}

#[expect(clippy::too_many_lines, reason = "one table")]
#[test]
fn an_error_in_the_middle_of_an_answer_is_told_apart_by_its_kind() {
    let event = |kind: &str| {
        let data = json!({"type": "error", "error": {"type": kind, "message": "x"}});
        format!("event: error\ndata: {data}\n\n")
    };
    let chunk = |code: u32| {
        let data = json!({"id": "gen-1", "object": "chat.completion.chunk", "error": {"code": code, "message": "x"},
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]});
        format!(": PROCESSING\n\n: PROCESSING\n\ndata: {data}\n\n")
    };
    let limit = json!({"error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "x"}});
    let failed = |code: &str| {
        let error = json!({"code": code, "message": "x"});
        response("failed", &json!({"error": error, "usage": null}))
    };
    let error = |code: &str| {
        let data = json!({"type": "error", "code": code, "message": "x", "param": null, "sequence_number": 7});
        format!("event: error\ndata: {data}\n\n")
    };
    for (rest, model, end, state) in [
        (
            event("overloaded_error"),
            "messages",
            "overloaded",
            "succeeded",
        ),
        (
            event("rate_limit_error"),
            "messages",
            "refused",
            "succeeded",
        ),
        (event("api_error"), "messages", "broken", "succeeded"),
        (
            event("invalid_request_error"),
            "messages",
            "rejected",
            "failed",
        ),
        (chunk(502), "chat", "broken", "succeeded"),
        (chunk(503), "chat", "overloaded", "succeeded"),
        (chunk(429), "chat", "refused", "succeeded"),
        (chunk(400), "chat", "rejected", "failed"),
        (format!("data: {limit}\n\n"), "chat", "refused", "succeeded"),
        (failed("server_error"), "responses", "broken", "succeeded"),
        (
            failed("rate_limit_exceeded"),
            "responses",
            "refused",
            "succeeded",
        ),
        (
            failed("server_is_overloaded"),
            "responses",
            "overloaded",
            "succeeded",
        ),
        (failed("invalid_prompt"), "responses", "rejected", "failed"),
        (error("server_error"), "responses", "broken", "succeeded"),
        (
            error("context_length_exceeded"),
            "responses",
            "rejected",
            "failed",
        ),
        (
            response("cancelled", &json!({})),
            "responses",
            "broken",
            "succeeded",
        ),
    ] {
        let (port, _seen) = provider(vec![half_of(model, &rest), whole(model)]);
        let (bed, _dir) = bed(port);
        let id = ask(&bed, model, 2);
        let done = bed.wait(id);
        assert_eq!(done["state"], state, "{rest}: {done}");
        let expected = [
            &[end][..],
            if state == "failed" {
                &[]
            } else {
                &["answered"]
            },
        ]
        .concat();
        assert_eq!(outcomes(&done), expected, "{rest}: {done}");
        let output = String::from_utf8(bed.output(id)).expect("text");
        if state == "succeeded" {
            assert_eq!(output, "whole", "{rest}: what came before is no part of it");
        }
        // Only what the provider did not want is no try of the task.
        let tries = u32::from(!["overloaded", "refused"].contains(&end));
        assert_eq!(done["tries"], tries, "{rest}: {done}");
    }
}

/// A whole answer in messages.
const MESSAGE: &str = "event: message_start\n\
    data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9}}}\n\n\
    event: ping\ndata: {\"type\":\"ping\"}\n\n\
    data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"whole\"}}\n\n\
    data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\n\
    data: {\"type\":\"message_stop\"}\n\n";

#[test]
fn an_answer_that_is_cut_broken_off_or_malformed_is_asked_for_again_in_all_dialects() {
    let text = "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"h\"}}\n\n";
    let stop = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n";
    // A length that it does not come to: whoever reads notices that it was cut.
    let long =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100000\r\n\r\n";
    for (model, broken) in [
        ("chat", format!("{BEGIN}{}", chat("h"))),
        ("chat", format!("{long}{}", chat("h"))),
        (
            "chat",
            format!("{BEGIN}{}data: {{\"choices\":[{{\n\n", chat("h")),
        ),
        ("chat", format!("{BEGIN}{}data: [DONE]\n\n", chat("h"))),
        ("messages", format!("{BEGIN}{text}")),
        ("messages", format!("{BEGIN}{text}{stop}")),
        ("messages", format!("{long}{text}{stop}")),
        ("messages", format!("{BEGIN}{text}data: {{\"type\"\n\n")),
        ("responses", format!("{BEGIN}{}", delta("h"))),
        (
            "responses",
            format!("{BEGIN}{}data: [DONE]\n\n", delta("h")),
        ),
        ("responses", format!("{long}{}", delta("h"))),
        (
            "responses",
            format!("{BEGIN}{}data: {{\"type\"\n\n", delta("h")),
        ),
        (
            "responses",
            format!(
                "{BEGIN}{}data: {{\"type\":\"response.output_text.done\",\"text\":\"h\"}}\n\n",
                delta("h")
            ),
        ),
    ] {
        let (port, _seen) = provider(vec![Says::All(broken.clone()), whole(model)]);
        let (bed, _dir) = bed(port);
        let id = ask(&bed, model, 2);
        let done = bed.wait(id);
        assert_eq!(outcomes(&done), ["broken", "answered"], "{broken}: {done}");
        assert_eq!(bed.output(id), b"whole", "{broken}");
    }
}

#[test]
fn a_response_that_ends_before_its_end_says_so_and_counts() {
    let short = |reason: &str| {
        let details = json!({"incomplete_details": {"reason": reason}});
        let end = response("incomplete", &details);
        Says::All(format!("{BEGIN}{}{end}", delta("half")))
    };
    let (port, _seen) = provider(vec![short("max_output_tokens"), short("content_filter")]);
    let (bed, _dir) = bed(port);
    for told in ["as long as max_tokens allows", "would not go on"] {
        let id = ask(&bed, "responses", 2);
        let done = bed.wait(id);
        assert_eq!(done["state"], "succeeded", "{done}");
        assert_eq!(outcomes(&done), ["answered"], "{done}");
        assert_eq!(done["attempts"][0]["call"]["output_tokens"], 3, "{done}");
        let output = String::from_utf8(bed.output(id)).expect("text");
        assert!(output.contains("half") && output.contains(told), "{output}");
    }
}
