//! Answers that have to be as a schema has them: what the provider is told, what is done with an answer that is not so,
//! and that nothing of such an answer is ever printed.

use std::fs;

use serde_json::{Value, json};

use crate::cli::{at, text};
use crate::prompt::{BEGIN, CHAT_END, Says, bed, chat, delta, provider, response};

/// In an order that is not the alphabet's: models answer in it.
const SCHEMA: &str = r#"{"type":"object","properties":{"why":{"type":"string"},"age":{"type":"integer"}},"required":["why","age"],"additionalProperties":false}"#;

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("JSON")
}

fn says(words: &str) -> Says {
    Says::All(format!("{BEGIN}{}{CHAT_END}", chat(words)))
}

/// The same in the words of responses.
fn responds(words: &str) -> Says {
    let end = response("completed", &json!({}));
    Says::All(format!("{BEGIN}{}{end}", delta(words)))
}

/// An answer in the words of messages, in these pieces.
fn message(deltas: &[Value], reason: &str) -> Says {
    let mut out = format!(
        "{BEGIN}data: {}\n\n",
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 9}}})
    );
    for delta in deltas {
        let event = json!({"type": "content_block_delta", "delta": delta});
        out.push_str(&format!("data: {event}\n\n"));
    }
    let end = json!({
        "type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 3},
    });
    out.push_str(&format!(
        "data: {end}\n\ndata: {{\"type\":\"message_stop\"}}\n\n"
    ));
    Says::All(out)
}

#[test]
fn a_schema_goes_to_each_provider_in_its_own_words_and_in_its_own_order() {
    let good = "{\"why\":\"so\",\"age\":3}";
    let (port, seen) = provider(vec![
        says(good),
        message(
            &[
                json!({"type": "text_delta", "text": "Let me see."}),
                json!({"type": "input_json_delta", "partial_json": "{\"why\":\"so\","}),
                json!({"type": "input_json_delta", "partial_json": "\"age\":3}"}),
            ],
            "tool_use",
        ),
        // One that does not know tools.
        message(&[json!({"type": "text_delta", "text": good})], "end_turn"),
        responds(good),
    ]);
    let (bed, _dir) = bed(port);
    let mut bodies = Vec::new();
    for model in ["chat", "messages", "messages", "responses"] {
        let id = bed.submit(&json!({"prompt": {"text": "?", "model": model, "schema": schema()}}));
        let task = bed.wait(id);
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(task["prompt"]["schema"], schema(), "{task}");
        assert_eq!(text(&bed.output(id)), format!("{good}\n"), "{model}");
        bodies.push(seen.recv().expect("a request").body);
    }
    let format = &bodies[0]["response_format"];
    assert_eq!(format["type"], "json_schema");
    assert_eq!(format["json_schema"]["strict"], true);
    assert_eq!(bodies[1]["tool_choice"]["type"], "tool");
    assert_eq!(
        bodies[1]["tools"][0]["name"],
        bodies[1]["tool_choice"]["name"]
    );
    let text_format = &bodies[3]["text"]["format"];
    assert_eq!(text_format["type"], "json_schema");
    assert_eq!(text_format["name"], "answer");
    assert_eq!(text_format["strict"], true);
    for sent in [
        &format["json_schema"]["schema"],
        &text_format["schema"],
        &bodies[1]["tools"][0]["input_schema"],
    ] {
        assert_eq!(sent.to_string(), SCHEMA, "in the order it was given in");
    }
    let (_, listed) = bed.get("/v1/tasks").expect("list");
    assert_eq!(listed["tasks"][0]["prompt"]["schema"], Value::Null);
    let shown = text(&at(&bed, &["show", "1"]).stdout);
    assert!(shown.contains("schema    "), "{shown}");
}

#[test]
fn an_answer_that_is_not_as_the_schema_has_it_is_mended_within_the_attempt() {
    let (port, seen) = provider(vec![
        says("{\"why\":\"secret-one\",\"age\":\"three\"}"),
        says("```json\n{\"why\":\"so\",\"age\":3}\n```"),
    ]);
    let (bed, dir) = bed(port);
    let file = dir.path().join("schema.json");
    fs::write(&file, SCHEMA).expect("schema");
    let file = file.display().to_string();
    let output = at(&bed, &["prompt", "--schema", &file, "--follow", "How old?"]);
    assert_eq!(text(&output.stdout), "{\"why\":\"so\",\"age\":3}\n");
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    assert!(
        said.contains("at /age: \"three\" is not of type \"integer\"; asking to mend it, 1 of 2"),
        "{said}"
    );
    let task = bed.wait(1);
    assert_eq!(task["attempts"].as_array().expect("attempts").len(), 1);
    assert_eq!(
        seen.recv().expect("a request").body["messages"][0]["content"],
        "How old?"
    );
    let mended = seen.recv().expect("a request").body;
    let messages = mended["messages"].as_array().expect("messages");
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert_eq!(messages[1]["role"], "assistant");
    assert_eq!(
        messages[1]["content"],
        "{\"why\":\"secret-one\",\"age\":\"three\"}"
    );
    let told = messages[2]["content"].as_str().expect("text");
    assert!(told.contains("at /age: "), "{told}");
    assert!(
        told.contains(SCHEMA),
        "some providers do not show it: {told}"
    );
}

#[test]
fn a_response_is_mended_with_what_it_was_before() {
    let (port, seen) = provider(vec![responds("{}"), responds("{\"why\":\"so\",\"age\":3}")]);
    let (bed, _dir) = bed(port);
    let prompt = json!({"text": "How old?", "model": "responses", "schema": schema()});
    let id = bed.submit(&json!({"prompt": prompt}));
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    let call = &task["attempts"][0]["call"];
    assert_eq!(call["output_tokens"], 6, "both answers: {call}");
    seen.recv().expect("a request");
    let mended = seen.recv().expect("a request").body;
    let input = mended["input"].as_array().expect("input");
    assert_eq!(input.len(), 3, "{input:?}");
    let content = json!([{"type": "output_text", "text": "{}", "annotations": []}]);
    let reply = json!({"type": "message", "role": "assistant", "content": content});
    assert_eq!(input[1], reply);
    assert_eq!(input[2]["role"], "user");
}

#[test]
fn an_answer_that_stays_bad_fails_once_with_its_place_and_prints_nothing() {
    let bad = "{\"why\":\"half\",\"age\":null}";
    let (port, _seen) = provider(vec![
        says("Of course!"),
        says(bad),
        says(bad),
        // Cut: no repair is of use.
        Says::All(format!(
            "{BEGIN}{}data: {}\n\ndata: [DONE]\n\n",
            chat("{\"why\":\"ha"),
            json!({"choices": [{"delta": {}, "finish_reason": "length"}]})
        )),
        // Would not.
        message(
            &[json!({"type": "text_delta", "text": "I cannot"})],
            "refusal",
        ),
        says(bad),
    ]);
    let (bed, _dir) = bed(port);
    for (prompt, words) in [
        (
            json!({"text": "?", "schema": schema()}),
            "3 times: at /age: null is not of type \"integer\"",
        ),
        (
            json!({"text": "?", "schema": schema(), "max_tokens": 7}),
            "as long as max_tokens allows (7)",
        ),
        (
            json!({"text": "?", "schema": schema(), "model": "messages"}),
            "would not answer",
        ),
        (
            json!({"text": "?", "schema": schema(), "repairs": 0}),
            "1 times: at /age",
        ),
    ] {
        let id = bed.submit(&json!({"prompt": prompt}));
        let task = bed.wait(id);
        assert_eq!(task["state"], "failed", "{task}");
        let attempts = task["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 1, "it costs, so it is not tried again");
        assert_eq!(attempts[0]["exit_code"], 1, "{task}");
        let id = id.to_string();
        let out = at(&bed, &["logs", &id, "--stream", "stdout"]);
        assert_eq!(text(&out.stdout), "", "{words}");
        let said = text(&at(&bed, &["logs", &id]).stdout);
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_schema_that_makes_no_sense_is_refused_at_the_door_and_by_the_client() {
    let (bed, dir) = bed(1);
    let different: Vec<_> = (0..101)
        .map(|n| json!({"prompt": {"text": "?", "schema": {"title": n.to_string()}}}))
        .collect();
    let of = |schema: Value| json!({"prompt": {"text": "?", "schema": schema}});
    for (body, words) in [
        (of(json!({"type": "strin"})), "prompt.schema: is no JSON"),
        (of(json!("x")), "prompt.schema: must be a JSON object"),
        (of(json!({"$ref": "http://127.0.0.1:1/x"})), "127.0.0.1"),
        (
            of(json!({"title": "x".repeat(65_536)})),
            "65536 are allowed",
        ),
        (
            json!({"tasks": [of(json!({})), of(json!({"type": 1}))]}),
            "tasks[1].prompt.schema: is no JSON schema",
        ),
        (
            json!({"tasks": different}),
            "tasks[100].prompt.schema: is one of more than 100",
        ),
        (
            json!({"prompt": {"text": "?", "repairs": 1}}),
            "prompt.repairs: goes with a schema",
        ),
        (
            json!({"prompt": {"text": "?", "schema": {}, "repairs": 11}}),
            "prompt.repairs: must not be more than 10",
        ),
    ] {
        let (status, problem) = bed.post("/v1/tasks", &body).expect("answer");
        assert_eq!(status, 400, "{problem}");
        let detail = problem["detail"].as_str().expect("detail");
        assert!(detail.contains(words), "{words}: {detail}");
    }
    let body = json!({"name": "s", "when": "30 3 * * *", "task": of(json!({"type": 1}))});
    let (status, problem) = bed.post("/v1/schedules", &body).expect("answer");
    assert_eq!(status, 400, "{problem}");
    assert!(
        problem.to_string().contains("task.prompt.schema"),
        "{problem}"
    );
    let path = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("write");
        path.display().to_string()
    };
    for (file, words) in [
        (path("a", "{\"type\":"), "is not JSON: EOF"),
        (path("b", "{\"type\":\"strin\"}"), "at /type"),
        (path("c", &"x".repeat(65_537)), "is longer than 64KiB"),
        ("/nowhere/schema".to_owned(), "cannot be read: No such file"),
    ] {
        let output = at(&bed, &["prompt", "--schema", &file, "?"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains(&file), "{said}");
    }
    let (_, tasks) = bed.get("/v1/tasks").expect("list");
    assert_eq!(tasks["tasks"], json!([]), "nothing was made");
}
