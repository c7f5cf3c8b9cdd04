//! How files are written, in the kernel's words: through no link, and what has to last in steps that do.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::host::{Host, append};
use crate::inject::{Tracer, why_not};

/// The calls by which files come to be and last.
const CALLS: &str = "trace=open,openat,creat,link,linkat,rename,renameat,renameat2,fsync,fdatasync";

/// Leaves a test that needs a tracer where there is none.
macro_rules! need_a_tracer {
    () => {
        if let Some(why) = why_not() {
            println!("skipped: {why}");
            return;
        }
    };
}

/// A call that opens a file to write to it: its path, and how.
fn writing(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("open")?;
    let mut parts = rest.split('"');
    let path = parts.nth(1)?;
    let how = parts.next()?.split(')').next()?;
    let writes = ["O_WRONLY", "O_RDWR", "O_CREAT"];
    writes
        .iter()
        .any(|flag| how.contains(flag))
        .then_some((path, how))
}

/// Whether a call follows a link in the last part of its path: not if it is told so, and not if the file must be new.
fn follows(how: &str) -> bool {
    let safe = ["O_NOFOLLOW", "O_EXCL", "O_TMPFILE"];
    !safe.iter().any(|flag| how.contains(flag))
}

/// All paths that were written to below a directory, each checked.
fn written(trace: &Path, below: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(trace).expect("a trace");
    let below = below.display().to_string();
    let mut paths = BTreeSet::new();
    for (path, how) in text.lines().filter_map(writing) {
        if let Some(path) = path.strip_prefix(&below) {
            assert!(!follows(how), "{path} is written through a link:{how}");
            paths.insert(path.trim_start_matches('/').to_owned());
        }
    }
    paths
}

/// Each name must be among the paths that were written.
fn must_have(paths: &BTreeSet<String>, names: &[&str]) {
    for name in names {
        let there = paths.iter().any(|path| path.starts_with(name));
        assert!(there, "{name} was not written: {paths:?}");
    }
}

#[test]
fn sec_32_what_is_written_is_written_through_no_link() {
    need_a_tracer!();
    let mut host = Host::new();
    let trace = host.path("trace-of-run");
    let words = Tracer::watching(&trace.display().to_string(), CALLS);
    host.run_under(&words.iter().map(String::as_str).collect::<Vec<_>>());
    host.start();
    let id = host.submit(&json!({"command": ["echo", "seen"]}));
    assert_eq!(host.wait(id)["state"], "succeeded");
    host.signal(Signal::SIGTERM);
    assert!(host.ended().success());
    let paths = written(&trace, &host.path(""));
    let names = [
        "state/lock",
        "state/ballast",
        "state/output",
        "state/taskdaemon.db",
        "run/runner.mark",
    ];
    must_have(&paths, &names);
    // The name of the database lasts: its directory is synced after it was made.
    let text = fs::read_to_string(&trace).expect("a trace");
    let made = text
        .lines()
        .position(|line| line.contains("state/taskdaemon.db\"") && line.contains("O_EXCL"));
    let after = text.lines().skip(made.expect("it was made"));
    let state = format!("<{}>", host.state().display());
    assert!(
        after
            .into_iter()
            .any(|line| line.contains("sync(") && line.contains(&state)),
        "the directory is not synced"
    );

    // And what a daemon that goes to the background writes beside that.
    let (trace, pid_file) = (host.path("trace-of-start"), host.path("run.pid"));
    let words = Tracer::watching(&trace.display().to_string(), CALLS);
    let background = |under: &[String], verb: &str, more: &[&str]| {
        let program = env!("CARGO_BIN_EXE_taskdaemon").to_owned();
        let line = [under, &[program, verb.to_owned()]].concat();
        let done = Command::new(&line[0])
            .args(&line[1..])
            .args(more)
            .arg("--pid-file")
            .arg(&pid_file)
            .env("FAULTS_HOST", host.path(""))
            .env("TASKDAEMON_RUN__USERS", "own")
            .env("TASKDAEMON_STORE__BALLAST", "1MiB")
            .stdin(std::process::Stdio::null())
            .stdout(append(&host.path("log")))
            .stderr(append(&host.path("log")))
            .status()
            .expect("run");
        assert!(done.success(), "{verb}: {done}\n{}", host.log());
    };
    let (state, run) = (
        host.state().display().to_string(),
        host.path("run").display().to_string(),
    );
    let places = [
        "--fork",
        "--supervised",
        "--state-dir",
        &state,
        "--runtime-dir",
        &run,
    ];
    background(&words, "start", &places);
    background(&[], "stop", &["--tasks"]);
    let paths = written(&trace, &host.path(""));
    must_have(&paths, &["run.pid", "run.supervisor", "state/lock"]);
}

#[test]
fn sec_32_a_backup_lasts_under_its_name_or_is_not_there() {
    need_a_tracer!();
    let host = Host::started();
    let id = host.submit(&json!({"command": ["true"]}));
    host.wait(id);
    let (trace, copy) = (host.path("trace-of-backup"), host.path("copy.db"));
    let done = Command::new("strace")
        .args(["-f", "-y", "-o"])
        .arg(&trace)
        .args(["-e", CALLS])
        .args([env!("CARGO_BIN_EXE_taskdaemon"), "backup", "--state-dir"])
        .args([host.state(), &copy])
        .stdout(append(&host.path("log")))
        .stderr(append(&host.path("log")))
        .status()
        .expect("run");
    assert!(done.success(), "{}", host.log());
    let paths = written(&trace, &host.path(""));
    must_have(&paths, &["copy.db.unfinished"]);
    let text = fs::read_to_string(&trace).expect("a trace");
    let copy = copy.display();
    let place = copy.to_string();
    let dir = place.rsplit_once('/').expect("a directory").0;
    let unfinished = format!("{copy}.unfinished");
    let steps: [(&str, &[&str]); 4] = [
        (
            "it is made anew",
            &["open", &format!("\"{unfinished}\""), "O_EXCL"],
        ),
        ("it is synced", &["sync(", &format!("<{unfinished}>")]),
        (
            "it gets its name",
            &["link", &format!("\"{unfinished}\""), &format!("\"{copy}\"")],
        ),
        ("its directory is synced", &["sync(", &format!("<{dir}>")]),
    ];
    let mut lines = text.lines();
    for (what, parts) in steps {
        let found = lines.any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "{what}, in this order:\n{text}");
    }
}
