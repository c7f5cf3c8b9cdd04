//! Files of tasks on the command line, and a real job from one: two hundred
//! log files of this machine packed two at a time, every one of them checked
//! at the end, with the daemon killed in between.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::bed::Bed;

const FILES: usize = 200;
/// Bytes of each file.
const SIZE: usize = 40_000;

fn command(bed: &Bed, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
    let host = format!("unix:{}", bed.socket().display());
    command.env("TASKDAEMON_HOST", host).args(args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(bed: &Bed, args: &[&str]) -> (i32, String, String) {
    said(&command(bed, args).output().expect("run"))
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    (code, text(&output.stdout), text(&output.stderr))
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => below(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Text that this machine has: its logs first, then these sources.
fn text(bytes: usize) -> Vec<u8> {
    let mut paths = Vec::new();
    below(Path::new("/var/log"), &mut paths);
    below(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut paths,
    );
    let mut text = Vec::new();
    for path in paths {
        let read = fs::read(&path).unwrap_or_default();
        if std::str::from_utf8(&read).is_ok() {
            text.extend(read);
        }
        if text.len() >= bytes {
            break;
        }
    }
    assert!(text.len() > SIZE, "this machine has nothing to read");
    text
}

/// What a step leaves behind: that it began, and that it ended.
const STEP: &str = r#"
echo "begin $1" >> marks
sha256sum < "logs/$1" > "sums/$1"
gzip -9 < "logs/$1" > "packed/$1.gz"
sleep 0.02
echo "end $1" >> marks
"#;

const CHECK: &str = r#"
echo "begin check" >> marks
for log in logs/*; do
    name=${log#logs/}
    gzip -dc "packed/$name.gz" | sha256sum | cmp - "sums/$name" || exit 1
    echo "$name" >> checked
done
echo "end check" >> marks
"#;

fn job(bed: &Bed) -> PathBuf {
    let mut text = format!(
        "[defaults]\nqueue = \"pack\"\ncwd = {:?}\n",
        bed.dir.path().display().to_string()
    );
    let mut after = Vec::new();
    for n in 0..FILES {
        let name = format!("log-{n:03}");
        write!(
            text,
            "\n[[task]]\nref = \"{name}\"\nname = \"{name}\"\n\
             command = [\"sh\", \"-ec\", '''{STEP}''', \"sh\", \"{name}\"]\n"
        )
        .expect("text");
        after.push(format!("{name:?}"));
    }
    write!(
        text,
        "\n[[task]]\nname = \"check\"\ncommand = [\"sh\", \"-ec\", '''{CHECK}''']\n\
         after = [{}]\n",
        after.join(", ")
    )
    .expect("text");
    let path = bed.path("pack.toml");
    fs::write(&path, text).expect("write");
    path
}

fn marks(bed: &Bed) -> Vec<String> {
    let text = fs::read_to_string(bed.path("marks")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn two_hundred_logs_are_packed_two_at_a_time_and_checked_over_a_killed_daemon() {
    let mut bed = Bed::start(&[]);
    let (code, _, err) = run(&bed, &["queue", "set", "pack", "--concurrency", "2"]);
    assert_eq!(code, 0, "{err}");
    for dir in ["logs", "sums", "packed"] {
        fs::create_dir(bed.path(dir)).expect("directory");
    }
    let source = text(FILES * SIZE);
    for n in 0..FILES {
        let start = n * SIZE % (source.len() - SIZE);
        let path = bed.path(&format!("logs/log-{n:03}"));
        fs::write(path, &source[start..start + SIZE]).expect("write");
    }
    let path = job(&bed);
    let path = path.to_str().expect("text");
    let waiting = command(&bed, &["submit", "--file", path, "--wait"])
        .spawn()
        .expect("run");
    bed.until("a quarter is done", |bed| marks(bed).len() > FILES / 2);
    bed.kill();
    bed.restart();
    let (code, _, err) = said(&waiting.wait_with_output().expect("wait"));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("201 of 201 done, 0 failed"), "{err}");

    // By the tasks' own marks: each once, never more than two, the check last.
    let marks = marks(&bed);
    let (mut live, mut most) = (0, 0);
    for mark in &marks {
        if mark.starts_with("begin") {
            live += 1;
            most = most.max(live);
        } else {
            live -= 1;
        }
    }
    assert!((1..=2).contains(&most), "{most} at once");
    let once: BTreeSet<_> = marks.iter().collect();
    assert_eq!(
        (marks.len(), once.len()),
        (2 * (FILES + 1), 2 * (FILES + 1)),
        "each once"
    );
    assert_eq!(marks[2 * FILES..], ["begin check", "end check"]);
    let checked = fs::read_to_string(bed.path("checked")).expect("read");
    assert_eq!(checked.lines().count(), FILES);
    let packed = |n: usize| fs::metadata(bed.path(&format!("packed/log-{n:03}.gz"))).expect("file");
    let bytes: u64 = (0..FILES).map(|n| packed(n).len()).sum();
    println!("{} bytes packed into {bytes}, {most} at once", FILES * SIZE);

    // The same file again makes nothing new.
    let (code, out, err) = run(&bed, &["submit", "--json", "--file", path]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("nothing new"), "{err}");
    let created = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert!(created.clone().all(|task| task["created"] == false));
    assert_eq!(created.count(), FILES + 1);
}

#[test]
fn a_file_of_more_than_one_call_is_handed_in_once_however_often_it_is_repeated() {
    let bed = Bed::start(&[]);
    let lines: String = (0..12_000)
        .map(|n| format!("{{\"command\":[\"true\"],\"name\":\"n{n}\",\"delay\":\"1h\"}}\n"))
        .collect();
    let path = bed.path("many.jsonl");
    fs::write(&path, &lines).expect("write");
    let path = path.to_str().expect("text");
    // As if the command had been interrupted behind the first call.
    let first: String = lines.split_inclusive('\n').take(10_000).collect();
    let part = bed.path("part.jsonl");
    fs::write(&part, first).expect("write");
    let part = part.to_str().expect("text");
    let (code, out, err) = run(&bed, &["submit", "--key", "k", "--file", part]);
    assert_eq!((code, out.lines().count()), (0, 10_000), "{err}");
    let (code, out, err) = run(&bed, &["submit", "--key", "k", "--file", path]);
    assert_eq!(code, 0, "{err}");
    assert!(
        err.contains("2000 tasks accepted, 10000 were there already"),
        "{err}"
    );
    let ids: BTreeSet<i64> = out
        .lines()
        .map(|line| line.parse().expect("number"))
        .collect();
    assert_eq!(ids.len(), 12_000);
    let (code, again, err) = run(&bed, &["submit", "--key", "k", "--file", path]);
    assert_eq!((code, again), (0, out), "{err}");
    let (code, out, err) = run(&bed, &["submit", "--file", path]);
    assert_eq!(
        (code, out.lines().count()),
        (0, 12_000),
        "another key: {err}"
    );
    let (_, status) = bed.get("/v1/status").expect("status");
    assert_eq!(status["tasks"]["scheduled"], 24_000);
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_line() {
    let bed = Bed::start(&[]);
    let file = bed.path("job.toml");
    let name = file.to_str().expect("text");
    let graph: String = (0..10_001)
        .map(|n| format!("{{\"command\":[\"true\"],\"ref\":\"r{n}\"}}\n"))
        .collect();
    let rows = [
        (
            "[[task]]\ncommand = [\"true\"]\nretries = 1\n",
            2,
            "job.toml:3:1: unknown field `retries`",
        ),
        (
            "[[task]]\ncommand = [\"true\"]\n\n[[task]]\ncommand = []\n",
            2,
            "job.toml:4: tasks[1].command",
        ),
        (
            "[[task]]\ncommand = [\"true\"]\nafter = [\"x\"]\n",
            2,
            "job.toml:1: tasks[0].after: no task",
        ),
        (
            "[[task]]\ncommand = [\"true\"]\nafter = [99]\n",
            2,
            "job.toml:1: tasks[0].after: there is no task 99",
        ),
        ("", 2, "missing field `task`"),
    ];
    for (text, code, words) in rows {
        fs::write(&file, text).expect("write");
        let (exit, out, err) = run(&bed, &["submit", "--file", name]);
        assert_eq!((exit, out.as_str()), (code, ""), "{text}: {err}");
        assert!(
            err.contains(words) && err.lines().count() == 1,
            "{text}: {err}"
        );
    }
    let lines = bed.path("graph.jsonl");
    fs::write(&lines, graph).expect("write");
    let (exit, _, err) = run(&bed, &["submit", "--file", lines.to_str().expect("text")]);
    assert!(exit == 2 && err.contains("10000 are allowed"), "{err}");
    let (exit, _, err) = run(&bed, &["submit", "--file", "/no/such/file"]);
    assert!(
        exit == 2 && err.contains("cannot read /no/such/file"),
        "{err}"
    );
    for flags in [
        &["--queue", "q"][..],
        &["--follow"],
        &["--stdin"],
        &["--", "true"],
    ] {
        let args = [&["submit", "--file", name], flags].concat();
        assert_eq!(run(&bed, &args).0, 2, "{flags:?}");
    }
    let (_, status) = bed.get("/v1/status").expect("status");
    assert_eq!(status["tasks"]["queued"], 0);
}

#[test]
fn graphs_are_handed_in_shown_and_waited_for_on_the_command_line() {
    let bed = Bed::start(&[]);
    let file = bed.path("job.yaml");
    let text = "task:\n- {ref: a, name: first, command: [sh, -c, exit 7]}\n\
                - {ref: b, name: second, command: ['true'], after: [a]}\n\
                - {name: third, command: ['true'], after: ['a:any']}\n";
    fs::write(&file, text).expect("write");
    let file = file.to_str().expect("text");
    let (code, out, err) = run(&bed, &["submit", "--file", file, "--wait", "--json"]);
    assert_eq!(code, 1, "{err}");
    let states: BTreeSet<String> = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["state"].to_string())
        .collect();
    assert_eq!(
        states.into_iter().collect::<Vec<_>>(),
        ["\"failed\"", "\"skipped\"", "\"succeeded\""]
    );
    let (code, out, _) = run(&bed, &["show", "--graph", "2"]);
    let wanted = "  1 failed first  (exit code 7)\n\
                  >   2 skipped second  after 1  (task 1 failed: exit code 7)\n    \
                  3 succeeded third  after 1:any\n";
    assert_eq!((code, out.as_str()), (0, wanted));
    let (_, out, _) = run(&bed, &["show", "2"]);
    assert!(out.contains("after     1 (failed)"), "{out}");
    let (code, out, err) = run(&bed, &["retry", "--dependants", "1"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "task 1 queued, and 1 behind it\n"),
        "{err}"
    );
    assert_eq!(bed.wait(2)["state"], "skipped");
    let (code, _, err) = run(&bed, &["retry", "2"]);
    assert!(code == 4 && err.contains("waits for task 1"), "{err}");
    let (code, out, _) = run(
        &bed,
        &[
            "submit", "--after", "3,1:any", "--wait", "--json", "--", "true",
        ],
    );
    let task: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, task["after"].as_array().map(Vec::len)),
        (0, Some(2)),
        "{task}"
    );
    let unique = |what: &str| {
        run(
            &bed,
            &[
                "submit",
                "--unique",
                "u",
                "--on-conflict",
                what,
                "--in",
                "1h",
                "--",
                "true",
            ],
        )
    };
    assert_eq!(unique("reject").0, 0);
    let (code, _, err) = unique("reject");
    assert!(code == 4 && err.contains("unique key `u`"), "{err}");
    assert_eq!(unique("replace").0, 0);
    assert_eq!(unique("panic").0, 2);
}
