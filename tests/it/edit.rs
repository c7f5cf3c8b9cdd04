//! Editing a task that waits: over HTTP, by options and in an editor.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::bed::{Bed, request};
use crate::cli::{at, text};
use crate::terminal::Terminal;

fn patch(bed: &Bed, id: i64, body: &Value) -> (u16, Value) {
    request(
        &bed.socket(),
        "PATCH",
        &format!("/v1/tasks/{id}"),
        Some(body),
    )
    .expect("an answer")
}

fn show(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("show").1
}

#[test]
fn a_task_that_waits_is_changed_and_runs_as_changed() {
    let bed = Bed::start(&[("ENGINE__SLOTS", "1")]);
    let holder = bed.submit(&json!({"command": ["sleep", "300"]}));
    // Before there is a runner, whoever has the higher priority is first.
    bed.until("the slot is taken", |bed| {
        show(bed, holder)["state"] == "running"
    });
    let id = bed.submit(&json!({"command": ["false"], "name": "n", "labels": {"a": "1"}}));
    let (status, task) = patch(
        &bed,
        id,
        &json!({"command": ["sh", "-c", "echo edited $X"], "env": {"X": "1"}, "name": null,
                "queue": "other", "priority": 5, "labels": {"a": null, "b": "2"}, "timeout": "9s"}),
    );
    assert_eq!(status, 200, "{task}");
    let task = show(&bed, id);
    assert_eq!(task["queue"], "other");
    assert_eq!(task["name"], Value::Null);
    assert_eq!(task["labels"], json!({"b": "2"}));
    assert_eq!(task["timeout"], "9s");
    assert_eq!(task["state"], "queued");
    let cancelled = bed.post(&format!("/v1/tasks/{holder}/cancel"), &Value::Null);
    assert_eq!(cancelled.expect("cancel").0, 200);
    assert_eq!(bed.wait(id)["state"], "succeeded");
    assert_eq!(text(&bed.output(id)), "edited 1\n");
}

#[test]
fn an_edit_survives_the_daemon() {
    let mut bed = Bed::start(&[]);
    let id = bed.submit(&json!({"command": ["false"], "delay": "1h"}));
    let change = json!({"command": ["true"], "run_at": null});
    bed.kill();
    bed.restart();
    let (status, task) = patch(&bed, id, &json!({"priority": 3}));
    assert_eq!(status, 200, "{task}");
    bed.kill();
    bed.restart();
    assert_eq!(show(&bed, id)["priority"], 3);
    assert_eq!(patch(&bed, id, &change).0, 200);
    assert_eq!(bed.wait(id)["state"], "succeeded", "started at once");
}

#[test]
fn an_edit_that_cannot_be_changes_nothing() {
    let bed = Bed::start(&[]);
    let waits = bed.submit(&json!({"command": ["true"], "delay": "1h", "name": "n"}));
    let runs = bed.submit(&json!({"command": ["sleep", "300"]}));
    let over = bed.submit(&json!({"command": ["true"]}));
    bed.wait(over);
    bed.until("it runs", |bed| show(bed, runs)["state"] == "running");
    let before = show(&bed, waits);
    for (id, body, status, code) in [
        (waits, json!({}), 400, "empty_change"),
        (waits, json!([]), 400, "bad_json"),
        (waits, json!({"comand": ["x"]}), 400, "unknown_field"),
        (waits, json!({"key": "x"}), 400, "unknown_field"),
        (
            waits,
            json!({"priority": 1, "queue": "no spaces"}),
            400,
            "invalid",
        ),
        (waits, json!({"priority": 1001}), 400, "invalid"),
        (waits, json!({"name": "a\nb"}), 400, "invalid"),
        (
            waits,
            json!({"name": "x", "env": {"NOTIFY_SOCKET": "x"}}),
            400,
            "invalid",
        ),
        (runs, json!({"priority": 1}), 409, "wrong_state"),
        (over, json!({"priority": 1}), 409, "wrong_state"),
        (77, json!({"priority": 1}), 404, "task_not_found"),
    ] {
        let (answered, problem) = patch(&bed, id, &body);
        assert_eq!(answered, status, "{body}: {problem}");
        assert_eq!(problem["code"], code, "{body}: {problem}");
    }
    assert_eq!(show(&bed, waits), before);
}

#[test]
fn edit_on_the_command_line() {
    let bed = Bed::start(&[]);
    let id = bed.submit(&json!({"command": ["false"], "delay": "1h", "labels": {"a": "1"}}));
    let id = id.to_string();
    let output = at(
        &bed,
        &[
            "edit",
            &id,
            "--priority",
            "-3",
            "--name",
            "new",
            "--queue",
            "q",
            "--timeout",
            "5s",
            "--label",
            "b=2",
            "--in",
            "2h",
            "--",
            "echo",
            "--flag",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        format!("task {id} changed, scheduled\n")
    );
    let task = show(&bed, 1);
    assert_eq!(task["command"], json!(["echo", "--flag"]));
    assert_eq!(task["labels"], json!({"a": "1", "b": "2"}));
    assert_eq!(
        (&task["priority"], &task["queue"]),
        (&json!(-3), &json!("q"))
    );
    for (args, code, words) in [
        (&["edit"][..], 2, "ID"),
        (&["edit", "x"], 2, "number"),
        (&["edit", "1"], 2, "needs a terminal"),
        (&["edit", "1", "--priority"], 2, "value"),
        (
            &["edit", "1", "--priority", "1", "--priority", "2"],
            2,
            "multiple times",
        ),
        (
            &["edit", "1", "--in", "1h", "--at", "2030-01-01T00:00"],
            2,
            "cannot be used",
        ),
        (&["edit", "1", "--label", "x"], 2, "NAME=VALUE"),
        (&["edit", "1", "--timeout", "30"], 2, "unit"),
        (&["edit", "1", "--queue", "no spaces"], 2, "queue"),
        (&["edit", "1", "--", ""], 2, "command"),
        (&["edit", "77", "--priority", "1"], 3, "77"),
    ] {
        let output = at(&bed, args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    assert_eq!(show(&bed, 1), task, "bad input changes nothing");
    let output = at(&bed, &["edit", "1", "--name", "", "--json"]);
    let edited: Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!((&edited["id"], &edited["name"]), (&json!(1), &Value::Null));
}

#[test]
fn an_editor_is_opened_until_the_daemon_takes_it() {
    let bed = Bed::start(&[]);
    bed.submit(&json!({"command": ["false"], "delay": "1h", "labels": {"a": "1"}}));
    let editor = bed.path("editor");
    // First nonsense, then too little, then too much, then what is right.
    let script = format!(
        "#!/bin/sh\ncat \"$1\" >>{0}\necho >>{0}.count\nset -- \"$1\" $(wc -l <{0}.count)\n\
         case $2 in\n1) echo nonsense >\"$1\" ;;\n2) echo '{{\"priority\": 4}}' >\"$1\" ;;\n\
         3) echo '{{\"command\": [\"true\"], \"priority\": 5000, \"queue\": \"q\"}}' >\"$1\" ;;\n\
         4) echo '{{\"command\": [\"true\"], \"priority\": 4, \"queue\": \"q\", \"labels\": {{}}, \
         \"env\": {{}}}}' >\"$1\" ;;\nesac\n",
        bed.path("seen").display()
    );
    std::fs::write(&editor, script).expect("write");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let name = editor.display().to_string();
    let env = [("EDITOR", name.as_str())];
    let mut terminal = Terminal::start(&bed, (80, 24), &env, &["edit", "1"]);
    terminal.until("not JSON");
    terminal.until("[Y/n]");
    assert_eq!(show(&bed, 1)["priority"], 0);
    terminal.press("y\n");
    terminal.until("`command` is missing");
    terminal.until("[Y/n]");
    terminal.press("\n");
    terminal.until("priority: must lie");
    terminal.until("[Y/n]");
    assert_eq!(show(&bed, 1)["priority"], 0);
    terminal.press("\n");
    terminal.until("task 1 changed");
    assert_eq!(terminal.end().code(), Some(0));
    let task = show(&bed, 1);
    assert_eq!(task["command"], json!(["true"]));
    assert_eq!(
        (&task["priority"], &task["labels"]),
        (&json!(4), &json!({}))
    );
    let seen = std::fs::read_to_string(bed.path("seen")).expect("seen");
    assert!(
        seen.contains("\"false\"") && seen.contains("\"a\": \"1\""),
        "{seen}"
    );

    let failing = [("EDITOR", "false")];
    let mut terminal = Terminal::start(&bed, (80, 24), &failing, &["edit", "1"]);
    terminal.until("nothing was changed");
    assert_eq!(terminal.end().code(), Some(1));
    let untouched = [("EDITOR", "true")];
    let mut terminal = Terminal::start(&bed, (80, 24), &untouched, &["edit", "1"]);
    terminal.until("nothing was changed");
    assert_eq!(terminal.end().code(), Some(0));
}
