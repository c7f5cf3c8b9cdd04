//! What is asked, put together from templates and files: what the provider gets, and what is refused before anything is
//! handed in.

use std::fs;

use serde_json::json;

use crate::cli::{at, text};
use crate::prompt::{BEGIN, CHAT_END, Says, bed, chat, provider};

#[test]
fn a_template_and_files_become_the_text_that_the_provider_gets() {
    let answer = || Says::All(format!("{BEGIN}{}{CHAT_END}", chat("ok")));
    let (port, seen) = provider(vec![answer(), answer(), answer()]);
    let (bed, dir) = bed(port);
    let path = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("write");
        path.display().to_string()
    };
    let template = path(
        "t.txt",
        "Review this {{ language|upper }}:\n{{ diff }}\n{% if tone is defined %}{{ tone }}{% endif %}",
    );
    let diff = path("diff", "-a\n+$(touch /tmp/never) `x`");
    let notes = path("notes", "Some notes.");
    for (args, expected) in [
        (
            vec![
                "--template",
                &template,
                "--var",
                "language=rust",
                "--var-file",
            ],
            "Review this RUST:\n-a\n+$(touch /tmp/never) `x`\n\n\nSome notes.".to_owned(),
        ),
        (
            vec!["What is this?"],
            "What is this?\n\nSome notes.".to_owned(),
        ),
        (vec![], "Some notes.".to_owned()),
    ] {
        let mut all = vec!["prompt", "--wait"];
        let diff = format!("diff={diff}");
        all.extend(args);
        if all.last() == Some(&"--var-file") {
            all.push(&diff);
        }
        all.extend(["--file", &notes]);
        let output = at(&bed, &all);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let body = seen.recv().expect("a request").body;
        assert_eq!(body["messages"][0]["content"], json!(expected), "{all:?}");
    }
}

#[test]
fn what_is_wrong_with_a_template_or_a_file_is_told_and_nothing_is_handed_in() {
    let (bed, dir) = bed(1);
    let path = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("write");
        path.display().to_string()
    };
    let good = path("good", b"Hello {{ name }}.");
    let wrong = path("wrong", b"Hello\n{% if %}");
    let bytes = path("bytes", b"\xff\xfe");
    let long = path("long", "x".repeat(1024 * 1024 + 1).as_bytes());
    let half = path("half", "x".repeat(600 * 1024).as_bytes());
    let rows: [(&[&str], &str); 12] = [
        (&["--template", &good], "good:1: `name` is undefined"),
        (&["--template", &wrong], "wrong:2: syntax error: "),
        (
            &["--template", "/nowhere"],
            "--template /nowhere: cannot be read: No such",
        ),
        (
            &["--template", &good, "--var", "name=a", "--var", "nmae=b"],
            "--var nmae: ",
        ),
        (
            &["--template", &good, "--var", "name"],
            "--var name: write NAME=VALUE",
        ),
        (
            &[
                "--template",
                &good,
                "--var",
                "name=a",
                "--var-file",
                "name=/x",
            ],
            "/x: cannot be read",
        ),
        (
            &["--template", &good, "--var", "name=a", "text"],
            "cannot be used with",
        ),
        (
            &["--var", "name=a", "text"],
            "--var goes with --template only",
        ),
        (&["--file", &bytes, "text"], "is not UTF-8 text"),
        (&["--file", &long, "text"], "is longer than 1MiB"),
        (
            &["--file", &half, "--file", &half],
            "the text is longer than 1MiB",
        ),
        (&[], "TEXT"),
    ];
    for (args, words) in rows {
        let all = [&["prompt"], args].concat();
        let output = at(&bed, &all);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    let (_, tasks) = bed.get("/v1/tasks").expect("list");
    assert_eq!(tasks["tasks"], json!([]), "nothing was made");
}
