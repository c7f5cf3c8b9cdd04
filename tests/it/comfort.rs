//! The command line's comfort: columns, colours, several tasks at once, logs
//! that say why there are none, completions.

use std::process::Output;

use serde_json::{Value, json};

use crate::bed::Bed;
use crate::cli::{at, text};
use crate::terminal::Terminal;

fn lines(output: &Output) -> Vec<String> {
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_listing_shows_the_columns_that_are_asked_for() {
    let bed = Bed::start(&[]);
    let id = bed.submit(&json!({"command": ["true"], "labels": {"team": "a"}, "priority": 3}));
    bed.wait(id);
    let output = at(
        &bed,
        &["list", "--columns", "priority,id,labels,owner,tries"],
    );
    let shown = lines(&output);
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(&shown[0]),
        ["PRIORITY", "ID", "LABELS", "OWNER", "TRIES"]
    );
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).expect("users");
    let user = user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name);
    assert_eq!(words(&shown[1]), ["3", "1", "team=a", user.as_str(), "0/1"]);
    let unknown = at(&bed, &["list", "--columns", "id,colour"]);
    assert_eq!(unknown.status.code(), Some(2));
    let said = text(&unknown.stderr);
    assert!(
        said.contains("colour") && said.contains("priority"),
        "{said}"
    );
    let times = lines(&at(&bed, &["list", "--columns", "created"]));
    assert!(times[1].ends_with('Z') && times[1].len() == 20, "{times:?}");
}

#[test]
fn a_listing_that_is_cut_says_so_and_all_is_all() {
    let bed = Bed::start(&[]);
    let many: Vec<Value> = (0..1_203)
        .map(|_| json!({"command": ["true"], "delay": "1h"}))
        .collect();
    let (status, answer) = bed
        .post("/v1/tasks", &json!({"tasks": many}))
        .expect("submit");
    assert_eq!(status, 201, "{answer}");
    for how in [&["list"][..], &["list", "--json"]] {
        let output = at(&bed, how);
        let said = text(&output.stderr);
        assert!(
            said.contains("100 are shown") && said.contains("--all"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1);
    }
    let all = at(&bed, &["list", "--all"]);
    assert_eq!(lines(&all).len(), 1_204, "each task and the heading");
    assert_eq!(text(&all.stderr), "");
    assert_eq!(lines(&at(&bed, &["list", "--all", "--json"])).len(), 1_203);
    let both = at(&bed, &["list", "--all", "--limit", "3"]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn a_listing_on_a_terminal_fits_it_and_is_coloured() {
    let bed = Bed::start(&[]);
    let long = "x".repeat(300);
    let id =
        bed.submit(&json!({"command": ["sh", "-c", "exit 3", long], "name": "\u{202e}日本語"}));
    bed.wait(id);
    for width in [1, 10, 40, 80, 200] {
        let mut terminal = Terminal::start(&bed, (width, 24), &[], &["list"]);
        assert_eq!(terminal.end().code(), Some(0), "{}", terminal.seen);
        assert!(
            terminal.seen.contains("\x1b[31mfailed\x1b[0m"),
            "{}",
            terminal.seen
        );
        assert!(terminal.seen.contains("ago") || terminal.seen.contains("now"));
        for line in terminal.seen.lines() {
            let shown = line.replace("\x1b[31m", "").replace("\x1b[0m", "");
            let wide = ratatui::text::Line::raw(shown.trim_end()).width();
            // Below that not even the columns fit that are never cut.
            assert!(wide <= usize::from(width.max(70)), "{width}: {shown}");
        }
        assert!(
            !terminal.seen.contains('\u{202e}'),
            "no direction is turned"
        );
    }
    for (env, args, coloured) in [
        (("NO_COLOR", "1"), &["list"][..], false),
        (("TERM", "dumb"), &["list"], false),
        (("NO_COLOR", "1"), &["list", "--color", "always"], true),
        (("X", "x"), &["list", "--color", "never"], false),
    ] {
        let mut terminal = Terminal::start(&bed, (80, 24), &[env], args);
        terminal.end();
        assert_eq!(
            terminal.seen.contains("\x1b["),
            coloured,
            "{env:?} {args:?}"
        );
    }
    let plain = text(&at(&bed, &["list"]).stdout);
    assert!(!plain.contains('\x1b'), "{plain}");
    assert!(plain.contains(&long), "nothing is cut where nobody looks");
    let asked = text(&at(&bed, &["list", "--color", "always"]).stdout);
    assert!(asked.contains("\x1b[31m"));
    assert_eq!(at(&bed, &["list", "--color", "red"]).status.code(), Some(2));
}

#[test]
fn several_tasks_are_each_answered_and_the_worst_code_is_told() {
    let bed = Bed::start(&[]);
    for _ in 0..3 {
        bed.submit(&json!({"command": ["true"], "delay": "1h"}));
    }
    let output = at(&bed, &["cancel", "1", "77", "2"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(lines(&output), ["task 1 cancelled", "task 2 cancelled"]);
    assert!(text(&output.stderr).contains("no task 77"));
    let over = bed.submit(&json!({"command": ["true"]})).to_string();
    bed.until("it is over", |bed| {
        bed.get("/v1/tasks/4").expect("show").1["state"] == "succeeded"
    });
    let output = at(&bed, &["cancel", &over, "3", "77"]);
    assert_eq!(
        output.status.code(),
        Some(4),
        "refused is worse than missing"
    );
    assert_eq!(lines(&output), ["task 3 cancelled"]);
    let output = at(&bed, &["retry", "1", "2", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let ids: Vec<Value> = lines(&output)
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("json")["id"].clone())
        .collect();
    assert_eq!(ids, [json!(1), json!(2)], "one object per line");
    let output = at(&bed, &["pause", "3", "77"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(text(&output.stderr).lines().count(), 2);
    for verb in ["cancel", "retry", "pause", "resume", "wait"] {
        assert_eq!(at(&bed, &[verb, "1", "x"]).status.code(), Some(2), "{verb}");
    }
}

#[test]
fn waiting_for_several_ends_well_only_when_all_did() {
    let bed = Bed::start(&[]);
    let ends = |line: &str| {
        bed.submit(&json!({"command": ["sh", "-c", line]}))
            .to_string()
    };
    let (good, other, bad) = (ends("exit 0"), ends("sleep 0.3"), ends("exit 7"));
    assert_eq!(
        at(&bed, &["wait", &good, &other, &good]).status.code(),
        Some(0)
    );
    let output = at(&bed, &["wait", &good, &bad, &other]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("task 3 failed"), "{said}");
    assert_eq!(
        at(&bed, &["wait", &bad]).status.code(),
        Some(7),
        "alone: its own"
    );
    assert_eq!(at(&bed, &["wait", &bad, "77"]).status.code(), Some(3));
    let output = at(&bed, &["wait", &good, &bad, "--json"]);
    assert_eq!(lines(&output).len(), 2);
}

#[test]
fn waiting_on_a_terminal_tells_how_far_it_is() {
    let bed = Bed::start(&[]);
    let gate = bed.path("gate");
    let line = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    bed.submit(&json!({"command": ["sh", "-c", line], "name": "slow"}));
    bed.submit(&json!({"command": ["sh", "-c", "exit 7"]}));
    let mut terminal = Terminal::start(&bed, (60, 24), &[], &["wait", "1", "2"]);
    terminal.until("task 2 failed");
    terminal.until("1 of 2 over, 1 failed; 1 slow: running");
    std::fs::write(&gate, "").expect("gate");
    assert_eq!(terminal.end().code(), Some(1));
    assert!(
        terminal.seen.ends_with("\r\x1b[K"),
        "no line is left behind"
    );
}

#[test]
fn leaving_a_wait_for_several_leaves_the_tasks_alone() {
    let bed = Bed::start(&[]);
    for _ in 0..2 {
        bed.submit(&json!({"command": ["sleep", "300"]}));
    }
    let mut terminal = Terminal::start(&bed, (60, 24), &[], &["wait", "1", "2"]);
    terminal.until("0 of 2 over");
    terminal.press("\x03");
    terminal.until("the tasks go on");
    assert_eq!(terminal.end().code(), Some(130));
    assert_eq!(bed.get("/v1/tasks/1").expect("show").1["state"], "running");
}

#[test]
fn logs_say_why_there_are_none() {
    let bed = Bed::start(&[("ENGINE__SLOTS", "1")]);
    let first = bed.submit(&json!({"command": ["sh", "-c", "echo first; sleep 300"]}));
    bed.until("the first has the slot", |bed| {
        let shown = bed.get(&format!("/v1/tasks/{first}"));
        shown.is_ok_and(|(_, task)| task["state"] == "running")
    });
    bed.submit(&json!({"command": ["sh", "-c", "echo late"]}));
    bed.submit(&json!({"command": ["true"], "delay": "1h"}));
    for (id, words) in [
        ("2", "queued and has not run: waits for a slot"),
        ("3", "start time, until"),
    ] {
        let output = at(&bed, &["logs", id]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0));
        assert!(said.contains(words), "{said}");
        assert_eq!(text(&output.stdout), "");
    }
    bed.post("/v1/tasks/3/cancel", &Value::Null)
        .expect("cancel");
    let said = text(&at(&bed, &["logs", "3"]).stderr);
    assert!(said.contains("never ran: cancelled"), "{said}");
    let mut terminal = Terminal::start(&bed, (80, 24), &[], &["logs", "--follow", "2"]);
    terminal.until("its output comes here when it runs");
    bed.post("/v1/tasks/1/cancel", &Value::Null)
        .expect("cancel");
    terminal.until("late");
    assert_eq!(terminal.end().code(), Some(0));
    assert_eq!(text(&at(&bed, &["logs", "2"]).stderr), "", "it has run");
    let first = at(&bed, &["logs", "1"]);
    assert_eq!(text(&first.stdout), "first\n");
}

#[test]
fn logs_as_json_have_an_object_for_each_line() {
    let bed = Bed::start(&[]);
    let script = "echo out; printf 'a\\377b\\n' >&2; sleep 0.1; printf 'no end'";
    let id = bed.submit(&json!({"command": ["sh", "-c", script]}));
    bed.wait(id);
    for how in [&["logs", "1", "--json"][..], &["logs", "-f", "1", "--json"]] {
        let output = at(&bed, how);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let mut objects: Vec<Value> = lines(&output)
            .iter()
            .map(|line| serde_json::from_str(line).expect("json"))
            .collect();
        objects.sort_by_key(|line| line["stream"].to_string());
        assert_eq!(objects.len(), 3, "{objects:?}");
        assert_eq!(objects[0]["text"], "a\u{fffd}b");
        assert_eq!(objects[0]["base64"], "Yf9i");
        assert_eq!(
            (&objects[1]["text"], &objects[1]["stream"]),
            (&json!("out"), &json!("stdout"))
        );
        assert_eq!(objects[2]["text"], "no end");
        assert!(objects[2]["time"].as_str().expect("a time").ends_with('Z'));
    }
    let only = at(
        &bed,
        &[
            "logs",
            "1",
            "--json",
            "--stream",
            "stderr",
            "--attempt",
            "1",
        ],
    );
    assert_eq!(lines(&only).len(), 1);
    let live = bed.submit(&json!({"command": ["sh", "-c", "echo now; sleep 300"]}));
    bed.until("it has written", |bed| !bed.output(live).is_empty());
    let kept = at(&bed, &["logs", "2", "--json"]);
    assert_eq!(
        lines(&kept).len(),
        1,
        "what is there, without waiting for the end"
    );
}

#[test]
fn json_is_refused_where_there_is_none() {
    let bed = Bed::start(&[]);
    for args in [
        &["config", "show", "--json"][..],
        &["config", "default", "--json"],
        &["completions", "bash", "--json"],
        &["top", "--json"],
        &["list", "--json", "--columns", "id"],
    ] {
        let output = at(&bed, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
        assert!(text(&output.stderr).contains("--json"), "{args:?}");
    }
}

#[test]
fn completions_are_what_the_shell_can_read() {
    let bed = Bed::start(&[]);
    for (shell, words) in [
        ("bash", "complete -F _taskdaemon"),
        ("zsh", "#compdef taskdaemon"),
        ("fish", "complete -c taskdaemon"),
    ] {
        let output = at(&bed, &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = text(&output.stdout);
        assert!(script.contains(words), "{shell}");
        assert!(
            script.contains("priority") && script.contains("schedule"),
            "{shell}"
        );
        assert!(!script.contains("deliver"), "{shell}: no hidden verbs");
    }
    let script = bed.path("completion");
    std::fs::write(&script, at(&bed, &["completions", "bash"]).stdout).expect("write");
    let line = format!(
        ". {} && COMP_WORDS=(taskdaemon ca) COMP_CWORD=1 && _taskdaemon taskdaemon ca taskdaemon \
         && echo \"${{COMPREPLY[*]}}\"",
        script.display()
    );
    let completed = std::process::Command::new("bash")
        .args(["--norc", "-c", &line])
        .output()
        .expect("bash");
    assert_eq!(
        text(&completed.stdout),
        "cancel\n",
        "{}",
        text(&completed.stderr)
    );
    assert_eq!(at(&bed, &["completions", "tcsh"]).status.code(), Some(2));
    assert_eq!(at(&bed, &["completions"]).status.code(), Some(2));
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_a_reader_that_left_is_not_news() {
    let bed = Bed::start(&[]);
    let id = bed.submit(&json!({"command": ["sh", "-c", "yes | head -c 500000"]}));
    bed.wait(id);
    let own = env!("CARGO_BIN_EXE_taskdaemon");
    let host = format!("unix:{}", bed.socket().display());
    let run = |line: &str| {
        std::process::Command::new("bash")
            .args(["--norc", "-c", line])
            .env("TASKDAEMON_HOST", &host)
            .output()
            .expect("bash")
    };
    for verb in [
        "list",
        "list --json",
        "logs 1 --json",
        "completions bash",
        "cancel 1 77",
    ] {
        let full = run(&format!("{own} {verb} >/dev/full"));
        assert_ne!(full.status.code(), Some(0), "{verb}");
        assert!(!text(&full.stderr).contains("panicked"), "{verb}");
        let deaf = run(&format!("{own} {verb} >/dev/full 2>/dev/full"));
        assert_ne!(deaf.status.code(), Some(0), "{verb}");
    }
    for verb in ["list", "logs 1 --json", "completions bash"] {
        let left = run(&format!("{own} {verb} | true; echo ${{PIPESTATUS[0]}}"));
        assert!(!text(&left.stderr).contains("panicked"), "{verb}");
        assert!(
            text(&left.stderr).is_empty(),
            "{verb}: {}",
            text(&left.stderr)
        );
    }
}

#[test]
fn the_language_of_the_host_changes_nothing() {
    let bed = Bed::start(&[]);
    let id = bed.submit(&json!({"command": ["printf", "%s", "ıİ日本"], "name": "ıİ日本"}));
    bed.wait(id);
    let shown = |locale: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
            .args(["list"])
            .env(
                "TASKDAEMON_HOST",
                format!("unix:{}", bed.socket().display()),
            )
            .env("LC_ALL", locale)
            .env("TZ", "Asia/Tokyo")
            .env_remove("TERM")
            .output()
            .expect("run");
        assert_eq!(output.status.code(), Some(0));
        text(&output.stdout)
    };
    let plain = shown("C");
    assert!(plain.contains("ıİ日本"), "{plain}");
    for locale in ["tr_TR.UTF-8", "ja_JP.eucJP", "nonsense"] {
        assert_eq!(shown(locale), plain, "{locale}");
    }
}
