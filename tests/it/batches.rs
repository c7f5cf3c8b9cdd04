//! Files of prompts: each is asked once, whatever comes in between, and the answers come in the file's order.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::cli::{at, text};
use crate::prompt::{BEGIN, CHAT_END, bed, chat, refusal};

/// A provider that says what it was asked, and refuses what begins with "bad" as long as it is strict.
#[derive(Default)]
pub(crate) struct Echo {
    asked: AtomicUsize,
    strict: AtomicBool,
    /// It answers nobody.
    silent: AtomicBool,
}

impl Echo {
    pub(crate) fn start() -> (u16, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let echo = Arc::new(Self::default());
        echo.strict.store(true, Ordering::Relaxed);
        let own = Arc::clone(&echo);
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if own.silent.load(Ordering::Relaxed) {
                    kept.push(stream);
                } else {
                    own.serve(stream);
                }
            }
        });
        (port, echo)
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        let mut length = 0;
        loop {
            let mut line = String::new();
            // Who has left asks nothing: a call may be cancelled before it is heard here.
            if reader.read_line(&mut line).unwrap_or_default() == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let last = body["messages"].as_array().expect("messages").last();
        let asked = last.expect("one")["content"].as_str().expect("text");
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = if asked.starts_with("bad") && self.strict.load(Ordering::Relaxed) {
            refusal(
                "400 Bad Request",
                "",
                "{\"error\":{\"message\":\"will not\"}}",
            )
        } else if body["response_format"].is_object() {
            format!(
                "{BEGIN}{}{CHAT_END}",
                chat(&json!({"said": asked}).to_string())
            )
        } else {
            format!("{BEGIN}{}{CHAT_END}", chat(&format!("echo: {asked}")))
        };
        drop(stream.write_all(answer.as_bytes()));
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

struct Files {
    input: String,
    out: PathBuf,
    dir: tempfile::TempDir,
}

fn files(lines: &[Value]) -> Files {
    let dir = tempfile::tempdir().expect("directory");
    let input = dir.path().join("questions.jsonl");
    let lines: Vec<_> = lines.iter().map(Value::to_string).collect();
    fs::write(&input, lines.join("\n")).expect("write");
    Files {
        input: input.display().to_string(),
        out: dir.path().join("answers.jsonl"),
        dir,
    }
}

fn answers(files: &Files) -> Vec<Value> {
    let text = fs::read_to_string(&files.out).expect("answers");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn count(bed: &Bed) -> usize {
    let (_, page) = bed.get("/v1/tasks?limit=1000").expect("list");
    page["tasks"].as_array().expect("tasks").len()
}

#[test]
fn a_file_of_prompts_is_asked_once_and_answered_in_its_order() {
    let (port, echo) = Echo::start();
    let (bed, _dir) = bed(port);
    let mut lines: Vec<Value> = (0..30)
        .map(|n| json!({"text": format!("q{n}"), "id": n}))
        .collect();
    lines[7] = json!("plain");
    lines[11] = json!({"text": "bad one", "id": "b", "system": "Be short."});
    let files = files(&lines);
    let out = files.out.display().to_string();
    let ask = ["prompt", "--batch", &files.input, "--out", &out];
    // Handed in by one command that does not wait, and waited for by another.
    let output = at(&bed, &ask[..3]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().count(), 30, "a number each");
    assert!(!files.out.exists());
    let output = at(&bed, &ask);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("all 30 prompts of "), "{said}");
    assert!(
        said.contains("29 of 30 prompts answered, 1 failed"),
        "{said}"
    );
    assert_eq!((count(&bed), echo.asked()), (30, 30));
    let all = answers(&files);
    assert_eq!(all.len(), 30);
    for (place, row) in all.iter().enumerate() {
        assert_eq!(row["line"], place + 1, "{row}");
        assert!(row["task"].is_number(), "{row}");
        if place != 11 {
            let asked = if place == 7 {
                "plain".to_owned()
            } else {
                format!("q{place}")
            };
            assert_eq!(row["answer"], format!("echo: {asked}"), "{row}");
            assert_eq!(
                (&row["state"], &row["error"]),
                (&json!("succeeded"), &Value::Null)
            );
            assert_eq!(row["tokens"], json!({"input": 7, "output": 2}), "{row}");
        }
    }
    assert_eq!((&all[3]["id"], &all[7]["id"]), (&json!("3"), &Value::Null));
    assert_eq!(
        (&all[11]["state"], &all[11]["answer"]),
        (&json!("failed"), &Value::Null)
    );
    let error = all[11]["error"].as_str().expect("why");
    assert!(error.contains("will not"), "{error}");
    let labelled = text(&at(&bed, &["list", "--label", "batch=questions", "--json"]).stdout);
    assert_eq!(labelled.lines().count(), 30);
    // Those that failed, and no others, are asked again when that is said.
    echo.strict.store(false, Ordering::Relaxed);
    let output = at(&bed, &[&ask[..], &["--retry-failed"]].concat());
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 failed prompts are asked again"), "{said}");
    assert_eq!((count(&bed), echo.asked()), (30, 31));
    assert_eq!(answers(&files)[11]["answer"], "echo: bad one");
    // What is asked otherwise is another file of prompts.
    let output = at(
        &bed,
        &[&ask[..], &["--model", "chat", "--system", "Be kind."]].concat(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((count(&bed), echo.asked()), (60, 61));
    let left: Vec<_> = fs::read_dir(files.dir.path()).expect("directory").collect();
    assert_eq!(left.len(), 2, "nothing is left beside: {left:?}");
}

#[test]
fn answers_by_a_schema_are_json_in_the_file_of_answers() {
    let (port, _echo) = Echo::start();
    let (bed, _dir) = bed(port);
    let files = files(&[json!({"vars": {"n": 1}}), json!({"vars": {"n": [2, 3]}})]);
    let path = |name: &str, content: &str| {
        let path = files.dir.path().join(name);
        fs::write(&path, content).expect("write");
        path.display().to_string()
    };
    let schema = path("s.json", "{\"type\":\"object\",\"required\":[\"said\"]}");
    let template = path("t.txt", "{{ who }} says {{ n }}");
    let out = files.out.display().to_string();
    let output = at(
        &bed,
        &[
            "prompt",
            "--batch",
            &files.input,
            "--out",
            &out,
            "--schema",
            &schema,
            "--template",
            &template,
            "--var",
            "who=Ada",
            "--json",
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told, json!({"prompts": 2, "answered": 2, "failed": 0}));
    let all = answers(&files);
    assert_eq!(all[0]["answer"], json!({"said": "Ada says 1"}));
    assert_eq!(all[1]["answer"], json!({"said": "Ada says [2, 3]"}));
}

#[test]
fn a_file_of_prompts_that_makes_no_sense_is_refused_whole_with_its_line() {
    let (bed, dir) = bed(1);
    let path = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("write");
        path.display().to_string()
    };
    let good = path("good", "\"one\"\n\"two\"\n");
    let typo = path("typo", "\"one\"\n\n{\"txt\":\"two\"}\n");
    let model = path(
        "model",
        "\"one\"\n{\"text\":\"two\",\"model\":\"nobody\"}\n",
    );
    let empty = path("empty", "\n");
    let rows: [(&[&str], &str); 11] = [
        (
            &["--batch", &typo],
            "typo:3: unknown field `txt`: did you mean `text`?",
        ),
        (
            &["--batch", &model],
            "model:2: tasks[1].prompt.model: is none of those here",
        ),
        (&["--batch", &empty], "there is no prompt in it"),
        (&["--batch", "/nowhere"], "--batch /nowhere: cannot be read"),
        (&["--batch", "/dev/null"], "/dev/null: is not a file"),
        (
            &["--batch", &good, "--out", &good],
            "is the file with the prompts",
        ),
        (
            &["--batch", &good, "--out", "/proc/nowhere"],
            "--out /proc/nowhere: cannot be written",
        ),
        (&["--batch", &good, "--out", "/tmp"], "is a directory"),
        (&["--batch", &good, "text"], "cannot be used with"),
        (&["--out", "x", "text"], "--out goes with --batch only"),
        (
            &["--retry-failed", "text"],
            "--retry-failed goes with --batch only",
        ),
    ];
    for (args, words) in rows {
        let output = at(&bed, &[&["prompt"], args].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    assert_eq!(count(&bed), 0, "nothing was made");
    assert_eq!(
        fs::read_to_string(&good).expect("kept"),
        "\"one\"\n\"two\"\n"
    );
}

#[test]
fn ctrl_c_leaves_a_file_of_prompts_to_the_daemon() {
    let (port, echo) = Echo::start();
    let (bed, _dir) = bed(port);
    let files = files(&[json!("one"), json!("two")]);
    let out = files.out.display().to_string();
    let args = ["prompt", "--batch", &files.input, "--out", &out];
    echo.silent.store(true, Ordering::Relaxed);
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .env(
            "TASKDAEMON_HOST",
            format!("unix:{}", bed.socket().display()),
        )
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    // They may run before it has heard that they are accepted.
    let mut said = BufReader::new(waiting.stderr.take().expect("a pipe"));
    let mut accepted = String::new();
    said.read_line(&mut accepted).expect("text");
    assert!(accepted.contains("2 prompts accepted"), "{accepted}");
    bed.until("both run", |bed| {
        let (_, page) = bed.get("/v1/tasks?state=running").expect("list");
        page["tasks"]
            .as_array()
            .is_some_and(|tasks| tasks.len() == 2)
    });
    let pid = Pid::from_raw(i32::try_from(waiting.id()).expect("pid"));
    kill(pid, Signal::SIGINT).expect("signal");
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("text");
    let (status, said) = (waiting.wait().expect("end"), rest);
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(
        said.contains("the same command waits again and then writes ") && said.contains(&out),
        "{said}"
    );
    let left: Vec<_> = fs::read_dir(files.dir.path()).expect("directory").collect();
    assert_eq!(left.len(), 1, "nothing half written: {left:?}");
    // The provider is there again, for attempts that begin from now on.
    echo.silent.store(false, Ordering::Relaxed);
    for id in [1, 2] {
        let id = format!("{id}");
        at(&bed, &["cancel", &id]);
        bed.wait(id.parse().expect("a number"));
    }
    let output = at(&bed, &[&args[..], &["--retry-failed"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(count(&bed), 2);
    assert_eq!(answers(&files)[1]["answer"], "echo: two");
}
