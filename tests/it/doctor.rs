//! `doctor` on a real house, well and broken.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::bed::Bed;
use crate::cli::{at, text};

/// The bed's settings in a file, with more lines.
fn settings(bed: &Bed, more: &str) -> PathBuf {
    let file = bed.path("doctor.toml");
    let (state, run) = (bed.path("state"), bed.path("run"));
    let lines = format!("state_dir = {state:?}\nruntime_dir = {run:?}\n{more}");
    fs::write(&file, lines).expect("write");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("chmod");
    file
}

/// What it finds, and with which code it ends.
fn doctor(bed: &Bed, more: &str) -> (i32, Vec<Value>) {
    let file = settings(bed, more);
    let file = file.to_str().expect("text");
    let output = at(bed, &["doctor", "--json", "--config", file]);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = said["findings"].as_array().expect("findings").clone();
    (output.status.code().expect("a code"), found)
}

/// How it found something, and what it says of it.
fn of<'f>(found: &'f [Value], topic: &str) -> (&'f str, String) {
    let mut all = found.iter().filter(|one| one["topic"] == topic);
    let worst = all.clone().find(|one| one["status"] != "ok");
    let one = worst.or_else(|| all.next()).expect(topic);
    let status = one["status"].as_str().expect("a word");
    (status, one.to_string())
}

#[test]
fn doctor_finds_nothing_bad_in_a_house_that_is_well() {
    let bed = Bed::start(&[]);
    bed.until("a runner is there", |bed| {
        let (_, status) = bed.get("/v1/status").expect("status");
        status["runner"].is_object()
    });
    let (code, found) = doctor(&bed, "");
    assert_eq!(code, 0, "{found:#?}");
    for topic in ["config", "state", "disk", "sockets", "daemon", "runner"] {
        assert_eq!(of(&found, topic).0, "ok", "{found:#?}");
    }
    for one in &found {
        assert_eq!(one["status"] == "ok", one["fix"].is_null(), "{one}");
    }
    let file = settings(&bed, "");
    let lines = at(&bed, &["doctor", "--config", file.to_str().expect("text")]);
    let lines = text(&lines.stdout);
    assert!(lines.contains("ok    daemon"), "{lines}");
    assert!(lines.ends_with(" 0 bad\n"), "{lines}");
}

#[test]
fn doctor_names_what_is_broken_and_what_mends_it() {
    let mut bed = Bed::start(&[]);
    fs::set_permissions(bed.path("state"), Permissions::from_mode(0o755)).expect("chmod");
    let (code, found) = doctor(&bed, "");
    let (status, said) = of(&found, "state");
    assert_eq!((code, status), (1, "bad"), "{said}");
    assert!(said.contains("chmod 0700"), "{said}");
    fs::set_permissions(bed.path("state"), Permissions::from_mode(0o700)).expect("chmod");
    // A port where nobody listens: taken, and left.
    let port = crate::security::free_port();
    let llm = format!(
        "[llm]\nproviders = [{{ name = \"far\", dialect = \"openai\", base_url = \
         \"http://127.0.0.1:{port}/v1\" }}]\n"
    );
    let (code, found) = doctor(&bed, &llm);
    let (status, said) = of(&found, "providers");
    assert_eq!((code, status), (0, "warn"), "{said}");
    assert!(said.contains("far cannot be reached"), "{said}");
    let (code, found) = doctor(&bed, "engine.slotz = 3\n");
    let (status, said) = of(&found, "config");
    assert_eq!((code, status), (1, "bad"), "{said}");
    assert!(said.contains("doctor.toml:3"), "{said}");
    bed.kill();
    let (code, found) = doctor(&bed, "");
    let (status, said) = of(&found, "daemon");
    assert_eq!((code, status), (1, "bad"), "{said}");
    assert!(said.contains("cannot reach the daemon"), "{said}");
}
