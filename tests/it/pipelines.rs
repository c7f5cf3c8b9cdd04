//! Tasks that read what another one wrote: a shell, a prompt and a shell in a row, whole graphs in one request, and that
//! nothing is ever started on half of its input.

use std::fs;

use serde_json::{Value, json};

use crate::batches::Echo;
use crate::bed::Bed;
use crate::cli::{at, text};
use crate::prompt::bed;

fn id(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

fn out(bed: &Bed, id: i64) -> String {
    let id = id.to_string();
    text(&at(bed, &["logs", &id, "--stream", "stdout"]).stdout)
}

#[test]
fn a_shell_a_prompt_and_a_shell_read_each_other() {
    let (port, _echo) = Echo::start();
    let (mut bed, dir) = bed(port);
    let gate = dir.path().join("go");
    let script = format!(
        "until test -e {}; do sleep 0.05; done; echo not-this >&2; printf 'a \"$(id)\" `b`\\n'",
        gate.display()
    );
    let first = id(&at(&bed, &["submit", "--", "sh", "-c", &script]));
    let second = id(&at(&bed, &["prompt", "--stdin-from", &first, "Say:"]));
    let bare = id(&at(&bed, &["prompt", "--stdin-from", &first]));
    let third = id(&at(
        &bed,
        &[
            "submit",
            "--stdin-from",
            &second,
            "--",
            "sh",
            "-c",
            "cat; wc -c </dev/stdin",
        ],
    ));
    let shown = text(&at(&bed, &["show", &third]).stdout);
    assert!(shown.contains("stdin     output of task 2"), "{shown}");
    assert!(shown.contains("after     2 "), "{shown}");
    // Whose output is read is on disk like all else.
    bed.kill();
    fs::write(&gate, "").expect("open the gate");
    bed.restart();
    let number = |id: &str| id.parse::<i64>().expect("a number");
    let task = bed.wait(number(&third));
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["stdin_from"], 2, "{task}");
    let answer = "echo: Say:\n\na \"$(id)\" `b`\n";
    assert_eq!(out(&bed, number(&second)), answer);
    let length = answer.len();
    assert_eq!(out(&bed, number(&third)), format!("{answer}{length}\n"));
    bed.wait(number(&bare));
    assert_eq!(out(&bed, number(&bare)), "echo: a \"$(id)\" `b`\n");
}

#[test]
fn tasks_of_one_request_read_each_other_and_long_output_is_whole() {
    let (port, _echo) = Echo::start();
    let (bed, dir) = bed(port);
    let file = dir.path().join("graph.yaml");
    fs::write(
        &file,
        "task:\n\
         - {ref: make, command: [sh, -c, 'seq 1000000']}\n\
         - {ref: sum, command: [sha256sum], stdin_from: make}\n\
         - {ref: ask, prompt: {text: 'Of what?'}, stdin_from: sum, after: ['make:any']}\n\
         - {ref: tell, command: [cat], stdin_from: ask}\n",
    )
    .expect("write");
    let file = file.display().to_string();
    let output = at(&bed, &["submit", "--file", &file, "--wait"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Of `seq 1000000`, 6,888,896 bytes.
    let sum = "90433fcbd9e16297e6a7c1dacb1056394743194776e52f78ebf0a44b80b6b14f  -\n";
    assert_eq!(out(&bed, 2), sum);
    assert_eq!(out(&bed, 4), format!("echo: Of what?\n\n{sum}"));
}

/// A task that reads another's output and does not start, and why.
fn refused(bed: &Bed, task: &Value) -> String {
    let id = bed.submit(task);
    let task = bed.wait(id);
    assert_eq!(task["state"], "failed", "{task}");
    assert_eq!(task["outcome"]["class"], "skipped", "{task}");
    let attempts = task["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 1, "{task}");
    assert_eq!(attempts[0]["pid"], Value::Null, "nothing was started");
    task["outcome"]["message"].as_str().expect("why").to_owned()
}

#[test]
fn a_task_whose_input_is_not_whole_does_not_start() {
    let (port, echo) = Echo::start();
    let (bed, _dir) = bed(port);
    let shell = |script: &str| bed.submit(&json!({"command": ["sh", "-c", script]}));
    let capped = bed.submit(&json!({
        "command": ["sh", "-c", "yes | head -c 100000"], "output_cap": "4KiB",
    }));
    let gone = shell("echo gone");
    let bytes = shell("printf '\\377'");
    let empty = shell("true");
    let long = shell("yes | head -c 1100000");
    for id in [capped, gone, bytes, empty, long] {
        assert_eq!(bed.wait(id)["state"], "succeeded");
    }
    let kept = bed.path(&format!("state/output/0/{gone}.1"));
    fs::remove_file(&kept).expect("its output");
    // No rule tries again what does not become whole.
    let cat = |id: i64| {
        let retry = json!({"max_attempts": 3, "retry_on": ["spawn", "exit"], "backoff": "10ms"});
        json!({"command": ["cat"], "stdin_from": id, "retry": retry})
    };
    let ask = |id: i64| json!({"prompt": {"text": ""}, "stdin_from": id});
    for (task, words) in [
        (cat(capped), "over its output cap"),
        (ask(capped), "over its output cap"),
        (cat(gone), "is no longer kept"),
        (ask(gone), "is no longer kept"),
        (ask(bytes), "is not UTF-8 text"),
        (ask(empty), "is empty, so there is nothing to ask"),
        (ask(long), "is too long for a prompt"),
    ] {
        let why = refused(&bed, &task);
        assert!(why.contains(words), "{task}: {why}");
        let named = task["stdin_from"].to_string();
        assert!(why.contains(&format!("task {named}")), "{why}");
    }
    // To a command, bytes are bytes, and nothing is nothing.
    for from in [bytes, empty, long] {
        assert_eq!(bed.wait(bed.submit(&cat(from)))["state"], "succeeded");
    }
    // What failed has no output that counts.
    let failed = shell("echo half; exit 1");
    let task = bed.wait(bed.submit(&cat(failed)));
    assert_eq!(task["state"], "skipped", "{task}");
    assert_eq!(echo.asked(), 0, "no prompt of these was asked");
}

#[test]
fn input_that_makes_no_sense_is_refused_at_the_door() {
    let (bed, _dir) = bed(1);
    let cat = |from: Value| json!({"command": ["cat"], "stdin_from": from});
    for (body, words) in [
        (cat(json!(77)), "there is no task 77"),
        (
            cat(json!("77:any")),
            "stdin_from: `77:any`: write the task alone",
        ),
        (cat(json!("nobody")), "stdin_from: "),
        (
            json!({"command": ["cat"], "stdin_from": 1, "stdin": "x"}),
            "stdin_from: cannot be combined with stdin",
        ),
        (
            json!({"tasks": [
                {"ref": "b", "command": ["cat"], "stdin_from": "a"}, {"ref": "a", "command": ["a"]},
            ]}),
            "tasks[0].stdin_from: names tasks[1], which has to stand before it",
        ),
        (
            json!({"tasks": [{"ref": "a", "command": ["cat"], "stdin_from": "a"}]}),
            "stdin_from: names tasks[0]",
        ),
        (json!({"prompt": {"text": ""}}), "prompt.text: is empty"),
    ] {
        let (status, problem) = bed.post("/v1/tasks", &body).expect("answer");
        assert_eq!(status, 400, "{problem}");
        let detail = problem["detail"].as_str().expect("detail");
        assert!(detail.contains(words), "{words}: {detail}");
    }
    let body = json!({"name": "s", "when": "30 3 * * *", "task": cat(json!(1))});
    let (status, problem) = bed.post("/v1/schedules", &body).expect("answer");
    assert_eq!(status, 400, "{problem}");
    assert!(problem.to_string().contains("task.stdin_from"), "{problem}");
    let (_, tasks) = bed.get("/v1/tasks").expect("list");
    assert_eq!(tasks["tasks"], json!([]), "nothing was made");
}
