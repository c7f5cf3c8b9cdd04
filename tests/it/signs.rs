//! What a running task says of itself, from its notify socket to the answer of the API, and what it is held to.

use serde_json::{Value, json};

use crate::bed::Bed;

/// Tells the daemon something through the service manager's own tool, which has its socket from the environment.
fn say(words: &str) -> String {
    format!("systemd-notify {words}")
}

fn shell(lines: &[&str]) -> Value {
    json!({"command": ["sh", "-ec", lines.join("\n")]})
}

fn with(mut task: Value, field: &str, value: Value) -> Value {
    task[field] = value;
    task
}

fn show(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("an answer").1
}

#[test]
fn progress_and_status_are_shown_while_it_runs_and_after_a_restart() {
    let mut bed = Bed::start(&[]);
    let gate = bed.path("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let told = say("--ready --status='half of it' X_PROGRESS=42.5");
    let id = bed.submit(&shell(&[&told, &wait]));
    let told = |bed: &Bed| {
        let task = show(bed, id);
        task["progress"] == 42.5 && task["status"] == "half of it" && task["ready"] == true
    };
    bed.until("it is shown", told);
    let list = bed.get("/v1/tasks").expect("an answer").1;
    assert_eq!(list["tasks"][0]["progress"], 42.5, "{list}");
    bed.kill();
    bed.restart();
    bed.until("it is shown again", told);
    std::fs::write(&gate, "").expect("open the gate");
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task.get("progress"), None, "nothing is live: {task}");
}

#[test]
fn a_task_that_falls_silent_is_ended_and_one_that_does_not_is_left_alone() {
    let bed = Bed::start(&[]);
    let second = json!("1s");
    let silent = shell(&["sleep 600"]);
    let silent = bed.submit(&with(silent, "heartbeat", second.clone()));
    let beat = say("WATCHDOG=1");
    let lively =
        format!("for i in 1 2 3 4 5 6 7 8 9 10; do {beat}; sleep 0.3; done; echo $WATCHDOG_USEC");
    let lively = bed.submit(&with(shell(&[&lively]), "heartbeat", second));
    let task = bed.wait(silent);
    assert_eq!(task["state"], "failed", "{task}");
    assert_eq!(task["outcome"]["class"], "timeout", "{task}");
    let message = task["outcome"]["message"].as_str().expect("a message");
    assert!(message.contains("heartbeat"), "{message}");
    let task = bed.wait(lively);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(bed.output(lively), b"1000000\n");
}

#[test]
fn a_task_that_says_it_has_gone_wrong_is_believed() {
    let bed = Bed::start(&[]);
    let trigger = say("WATCHDOG=trigger");
    let id = bed.submit(&shell(&[&trigger, "sleep 600"]));
    let task = bed.wait(id);
    assert_eq!(task["outcome"]["class"], "timeout", "{task}");
}

#[test]
fn a_task_gets_the_time_it_asks_for() {
    let bed = Bed::start(&[]);
    let timeout = json!("2s");
    let extend = say("EXTEND_TIMEOUT_USEC=60000000");
    let asks = bed.submit(&with(
        shell(&[&extend, "sleep 4", "echo done"]),
        "timeout",
        timeout.clone(),
    ));
    let does_not = bed.submit(&with(shell(&["sleep 600"]), "timeout", timeout));
    assert_eq!(bed.wait(does_not)["outcome"]["class"], "timeout");
    let task = bed.wait(asks);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(bed.output(asks), b"done\n");
}

#[test]
fn a_pause_that_this_host_cannot_do_is_refused_with_a_reason() {
    let bed = Bed::start(&[]);
    let (_, status) = bed.get("/v1/status").expect("an answer");
    let can = status["runner"]["enforces"]["freeze"] == true;
    let id = bed.submit(&shell(&["sleep 600"]));
    bed.until("it runs", |bed| show(bed, id)["state"] == "running");
    let (code, answer) = bed
        .post(&format!("/v1/tasks/{id}/pause"), &json!(null))
        .expect("an answer");
    if can {
        assert_eq!(
            (code, &answer["state"]),
            (200, &json!("paused")),
            "{answer}"
        );
    } else {
        assert_eq!(
            (code, &answer["code"]),
            (422, &json!("unenforceable")),
            "{answer}"
        );
        assert_eq!(show(&bed, id)["state"], "running");
    }
    let (code, _) = bed
        .post(&format!("/v1/tasks/{id}/cancel"), &json!(null))
        .expect("an answer");
    assert_eq!(code, 200);
    assert_eq!(bed.wait(id)["state"], "cancelled");
    let (code, answer) = bed
        .post(&format!("/v1/tasks/{id}/pause"), &json!(null))
        .expect("an answer");
    assert_eq!(
        (code, &answer["code"]),
        (409, &json!("already_over")),
        "{answer}"
    );
}
