//! The command line: exit codes, hints, what reaches a terminal, and the demo.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use taskdaemon::clock;

use crate::bed::Bed;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
    command.stdin(Stdio::null()).env_remove("TASKDAEMON_HOST");
    command
}

pub(crate) fn at(bed: &Bed, args: &[&str]) -> Output {
    let host = format!("unix:{}", bed.socket().display());
    program()
        .env("TASKDAEMON_HOST", host)
        .args(args)
        .output()
        .expect("run")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn each_mistake_has_its_exit_code_and_one_line() {
    let bed = Bed::start(&[]);
    at(&bed, &["submit", "--wait", "--", "true"]);
    let rows: [(&[&str], i32, &str); 24] = [
        (&["--json"], 2, "JSON"),
        (&["sbmit"], 2, "similar"),
        (&["submit"], 2, "COMMAND"),
        (&["submit", "--"], 2, "COMMAND"),
        (&["submit", "ls"], 2, ""),
        (&["submit", "--queue"], 2, "value"),
        (
            &["submit", "--queue", "a", "--queue", "b", "--", "x"],
            2,
            "multiple times",
        ),
        (&["submit", "--timeout", "30", "--", "x"], 2, "unit"),
        (&["submit", "--memory", "1G", "--", "x"], 2, "unit"),
        (&["submit", "--cpu", "many", "--", "x"], 2, "cores"),
        (&["submit", "--at", "tomorrow", "--", "x"], 2, "--at"),
        (&["submit", "--env", "X", "--", "x"], 2, "NAME=VALUE"),
        (
            &["submit", "--label", "a=1", "--label", "a=2", "--", "x"],
            2,
            "twice",
        ),
        (&["submit", "--backoff", "1s", "--", "x"], 2, "--retries"),
        (&["submit", "--queue", "no spaces", "--", "x"], 2, "queue"),
        (&["submit", "--", ""], 2, "command"),
        (&["show", "0"], 2, ""),
        (&["show", "x"], 2, ""),
        (&["show", "77"], 3, "77"),
        (&["logs", "77"], 3, "77"),
        (&["logs", "1", "--attempt", "9"], 3, "attempt 9"),
        (&["cancel", "1"], 4, "already succeeded"),
        (&["wait", "77"], 3, "77"),
        (&["list", "--state", "asleep"], 2, "state"),
    ];
    for (args, code, words) in rows {
        let output = at(&bed, args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        if code != 2 {
            assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
            assert!(said.starts_with("taskdaemon: "), "{args:?}: {said}");
        }
    }
}

#[test]
fn a_task_passes_its_exit_code_on() {
    let bed = Bed::start(&[]);
    for (line, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
    ] {
        for how in ["--wait", "--follow"] {
            let output = at(&bed, &["submit", how, "--", "sh", "-c", line]);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{how} {line}: {}",
                text(&output.stderr)
            );
        }
    }
    let missing = at(&bed, &["submit", "--wait", "--", "/no/such/program"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/no/such/program"));
    let output = at(&bed, &["wait", "2"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn submit_passes_arguments_and_input_on_as_they_are() {
    let bed = Bed::start(&[]);
    let odd = [
        "$(id)",
        "`id`",
        ";",
        "a\nb",
        "*",
        "--help",
        "-rf",
        "",
        "\u{202e}x",
        "\u{1f980}",
    ];
    let mut args = vec!["submit", "--follow", "--", "printf", "%s|"];
    args.extend(odd);
    let output = at(&bed, &args);
    assert_eq!(text(&output.stdout), odd.join("|") + "|");
    let host = format!("unix:{}", bed.socket().display());
    let mut child = program()
        .args([
            "--host",
            &host,
            "submit",
            "--stdin",
            "--follow",
            "--env",
            "X=1 2",
            "--cwd",
            "/",
            "--",
            "sh",
            "-c",
            "cat; echo \"$X\"; pwd; echo no >&2",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let bytes = b"\x00\xff\x1b[31m\n";
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(bytes)
        .expect("write");
    let output = child.wait_with_output().expect("output");
    assert_eq!(
        output.stdout,
        [bytes, &b"1 2\n/\n"[..]].concat(),
        "byte by byte where there is no terminal"
    );
    assert!(text(&output.stderr).ends_with("no\n"));
    let not_text = program()
        .args(["--host", &host, "submit", "--", "echo"])
        .arg(std::ffi::OsStr::from_bytes(b"\xff"))
        .output()
        .expect("run");
    assert_eq!(not_text.status.code(), Some(2));
    assert!(text(&not_text.stderr).contains("UTF-8"));
}

#[test]
fn names_and_output_are_shown_escaped() {
    let bed = Bed::start(&[]);
    at(
        &bed,
        &[
            "submit",
            "--wait",
            "--name",
            "user\u{202e}txt",
            "--",
            "printf",
            "\\033]52;c;x\\007",
        ],
    );
    let list = text(&at(&bed, &["list"]).stdout);
    assert!(list.contains("user\\u{202e}txt"), "{list}");
    let show = text(&at(&bed, &["show", "1"]).stdout);
    assert!(
        show.contains("user\\u{202e}txt") && show.contains("succeeded"),
        "{show}"
    );
    assert_eq!(
        at(&bed, &["logs", "1"]).stdout,
        b"\x1b]52;c;x\x07",
        "exact where there is no terminal"
    );
    // `script` gives the program a terminal.
    let command = format!(
        "{} --host unix:{} logs 1",
        env!("CARGO_BIN_EXE_taskdaemon"),
        bed.socket().display()
    );
    let Ok(output) = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
    else {
        return;
    };
    let shown = text(&output.stdout);
    assert!(shown.contains("\\x1b]52;c;x\\x07"), "{shown:?}");
    assert!(!shown.contains('\x1b'), "{shown:?}");
}

#[test]
fn json_is_one_object_a_line() {
    let bed = Bed::start(&[]);
    let output = at(
        &bed,
        &["submit", "--json", "--wait", "--", "sh", "-c", "exit 3"],
    );
    assert_eq!(output.status.code(), Some(3));
    let task: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(
        (&task["id"], &task["attempts"][0]["exit_code"]),
        (&1.into(), &3.into())
    );
    let output = at(&bed, &["submit", "--json", "--key", "k", "--", "true"]);
    let accepted: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(
        (&accepted["id"], &accepted["created"]),
        (&2.into(), &true.into())
    );
    let again = at(&bed, &["submit", "--json", "--key", "k", "--", "true"]);
    let accepted: serde_json::Value = serde_json::from_slice(&again.stdout).expect("json");
    assert_eq!(
        (&accepted["id"], &accepted["created"]),
        (&2.into(), &false.into())
    );
    let list = text(&at(&bed, &["list", "--json"]).stdout);
    assert_eq!(list.lines().count(), 2);
    let status: serde_json::Value =
        serde_json::from_slice(&at(&bed, &["status", "--json"]).stdout).expect("json");
    assert_eq!(status["phase"], "running");
    assert!(text(&at(&bed, &["health"]).stdout).starts_with("healthy\n"));
}

#[test]
fn an_unreachable_daemon_is_told_with_a_hint_within_seconds() {
    let dir = tempfile::tempdir().expect("directory");
    let missing = dir.path().join("missing.sock");
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "x").expect("file");
    let dead = dir.path().join("dead.sock");
    drop(UnixListener::bind(&dead).expect("bind"));
    let deaf = dir.path().join("deaf.sock");
    let _listener = UnixListener::bind(&deaf).expect("bind");
    for (path, hint) in [
        (&missing, "no such socket"),
        (&plain, "plain file"),
        (&dead, "nobody listens"),
        (&deaf, "did not answer within 5 s"),
    ] {
        let begun = clock::instant();
        let output = program()
            .args(["--host", &format!("unix:{}", path.display()), "status"])
            .output()
            .expect("run");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert!(said.contains(hint), "{said}");
        assert!(
            begun.elapsed() < Duration::from_secs(7),
            "{:?}",
            begun.elapsed()
        );
    }
    let output = program()
        .args(["--host", "nonsense", "status"])
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(2));
    let output = program()
        .args(["--host", "http://127.0.0.1:9", "status"])
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(69), "{}", text(&output.stderr));
}

#[test]
fn a_reader_that_goes_away_is_no_error_message() {
    let bed = Bed::start(&[]);
    at(
        &bed,
        &[
            "submit",
            "--wait",
            "--",
            "sh",
            "-c",
            "yes | head -c 3000000",
        ],
    );
    let host = format!("unix:{}", bed.socket().display());
    let mut child = program()
        .args(["--host", &host, "logs", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("output");
    assert_eq!(text(&output.stderr), "");
    assert_ne!(output.status.code(), Some(0));
}

#[test]
fn waiting_and_following_go_on_over_a_restart() {
    let mut bed = Bed::start(&[]);
    let line = "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.3; done; exit 7";
    let id = text(&at(&bed, &["submit", "--json", "--", "sh", "-c", line]).stdout);
    let id: serde_json::Value = serde_json::from_str(&id).expect("json");
    let (id, host) = (
        id["id"].to_string(),
        format!("unix:{}", bed.socket().display()),
    );
    let start = |args: &[&str]| {
        let mut command = program();
        command
            .args(["--host", &host])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("run")
    };
    let waiting = start(&["wait", &id]);
    let mut following = start(&["logs", "--follow", &id]);
    let mut first = [0; 7];
    following
        .stdout
        .as_mut()
        .expect("stdout")
        .read_exact(&mut first)
        .expect("a line");
    bed.kill();
    std::thread::park_timeout(Duration::from_millis(500));
    bed.restart();
    bed.end(nix::sys::signal::Signal::SIGTERM);
    bed.restart();
    let waited = waiting.wait_with_output().expect("output");
    assert_eq!(waited.status.code(), Some(7), "{}", text(&waited.stderr));
    let followed = following.wait_with_output().expect("output");
    let wanted: String = (1..=8).map(|n| format!("line {n}\n")).collect();
    assert_eq!(
        text(&first) + &text(&followed.stdout),
        wanted,
        "each byte once"
    );
}

#[test]
fn the_demo_shows_that_nothing_is_lost_and_nothing_runs_twice() {
    let begun = clock::instant();
    let output = program()
        .arg("demo")
        .env("TASKDAEMON_STATE_DIR", "/nonsense")
        .output()
        .expect("run");
    let said = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{said}\n{}",
        text(&output.stderr)
    );
    assert!(
        said.contains("kill -9") && said.contains("Nothing was lost"),
        "{said}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    let dir = said
        .split("everything is in ")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .expect("a directory");
    assert!(!std::path::Path::new(dir).exists(), "{dir} is removed");
}

/// A daemon that takes what is handed in and answers when told to, if ever.
fn slow_daemon(listener: &UnixListener, answer: Option<&[u8]>, pid: &mpsc::Receiver<u32>) {
    let (mut stream, _) = listener.accept().expect("a client");
    let mut asked = [0; 4096];
    assert!(stream.read(&mut asked).expect("read") > 0);
    let child = nix::unistd::Pid::from_raw(pid.recv().expect("pid").cast_signed());
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGINT).expect("signal");
    if let Some(answer) = answer {
        stream.write_all(answer).expect("write");
    } else {
        // Until the client leaves.
        let _left = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn ctrl_c_before_the_answer_still_names_the_task_or_says_that_nobody_knows() {
    let dir = tempfile::tempdir().expect("directory");
    let accepted: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n\
        content-length: 43\r\n\r\n{\"id\":4711,\"state\":\"queued\",\"created\":true}";
    for (name, answer, told) in [
        ("late", Some(accepted), "task 4711 goes on"),
        ("never", None, "`taskdaemon list` tells"),
    ] {
        let path = dir.path().join(name);
        let listener = UnixListener::bind(&path).expect("bind");
        let (send, pid) = mpsc::sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(move || slow_daemon(&listener, answer, &pid));
            let child = program()
                .env("TASKDAEMON_HOST", format!("unix:{}", path.display()))
                .args(["submit", "--wait", "--", "true"])
                .stderr(Stdio::piped())
                .spawn()
                .expect("run");
            send.send(child.id()).expect("pid");
            let output = child.wait_with_output().expect("output");
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(130), "{name}: {said}");
            assert!(said.contains(told), "{name}: {said}");
        });
    }
}

#[test]
fn the_runner_reads_its_arguments_alone_and_says_what_is_wrong_with_them() {
    for (args, code, told) in [
        (
            &["runner", "--users", "all"][..],
            2,
            "must be `policy` or `own`",
        ),
        (&["runner", "--nonsense"], 2, "taskdaemon runner"),
        (&["runner", "--options", "{"], 2, "--options: "),
        (&["--json", "runner", "--options", "{"], 2, "--options: "),
        (&["runner", "--help"], 0, "Whom tasks run as"),
    ] {
        let output = program().args(args).output().expect("run");
        let said = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(told), "{args:?}: {said}");
    }
}
