//! `health`: exit codes of a daemon that is well, lacks something, or is not there; and what `--check-db` and `backup`
//! make of a database that is not as it was written.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use taskdaemon::model::spec::{NewTask, Spec};
use taskdaemon::model::time::Time;
use taskdaemon::store::sqlite::Sqlite;
use taskdaemon::store::{Store as _, backup, sound};

use crate::bed::Bed;
use crate::cli::{at, text};
use crate::migrate::version_1;
use crate::store::{new_task, options};

/// What a command says that is to be found in the file.
const COMMAND: &str = "/bin/echo-a-very-particular-word";
const INPUT: &str = "an equally particular input";
const NOBODY: u32 = 65_534;

/// A state directory with three tasks, one of them with an input.
fn state() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("directory");
    let mut store = Sqlite::open(dir.path(), &options()).expect("open");
    store.begin().expect("begin");
    let particular = NewTask {
        stdin: Some(INPUT.as_bytes().to_vec()),
        spec: Spec {
            argv: vec![COMMAND.to_owned()],
            ..Spec::default()
        },
        ..new_task("true")
    };
    for new in [&new_task("true"), &particular, &new_task("false")] {
        store
            .insert(new, false, Time::from_micros(1))
            .expect("insert");
    }
    store.commit().expect("commit");
    dir
}

fn check(dir: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args(["health", "--check-db", "--state-dir"])
        .arg(dir)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .expect("run")
}

/// Changes one byte of a word in the database's file.
fn change_byte(dir: &Path, word: &str) {
    let path = dir.join("taskdaemon.db");
    let mut bytes = fs::read(&path).expect("read");
    let place = bytes
        .windows(word.len())
        .position(|window| window == word.as_bytes())
        .expect("the word is in the file");
    bytes[place + word.len() / 2] ^= 1;
    fs::write(&path, bytes).expect("damage");
}

fn findings(dir: &Path) -> sound::Findings {
    sound::check(dir, |_| {}).expect("checked")
}

#[test]
fn a_sound_database_is_told_with_its_figures() {
    let dir = state();
    let output = check(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = text(&output.stdout);
    assert!(line.starts_with("ok: the database in "), "{line}");
    // Three tasks, and the input of one.
    assert!(line.contains("3 tasks, 4 checksums"), "{line}");
    let said: Value = serde_json::from_slice(&check(dir.path(), &["--json"]).stdout).expect("json");
    assert_eq!(said["status"], "ok");
    assert_eq!(said["faults"], json!([]));
    assert_eq!((&said["tasks"], &said["checksums"]), (&json!(3), &json!(4)));
    // A thousand are one reading.
    let mut store = Sqlite::open(dir.path(), &options()).expect("open");
    store.begin().expect("begin");
    for _ in 0..2_500 {
        let new = new_task("true");
        store
            .insert(&new, false, Time::from_micros(1))
            .expect("insert");
    }
    store.commit().expect("commit");
    let found = findings(dir.path());
    assert_eq!(
        (found.tasks, found.sums, found.faults),
        (2_503, 2_504, vec![])
    );
}

#[test]
fn a_changed_byte_is_found_and_no_backup_of_it_is_called_good() {
    for (word, row) in [(COMMAND, "task 2: "), (INPUT, "input of task 2: ")] {
        let dir = state();
        change_byte(dir.path(), word);
        let output = check(dir.path(), &[]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        let (first, last) = said.trim_end().split_once('\n').expect("two lines");
        assert!(
            first.starts_with(row) && first.contains("checksum"),
            "{said}"
        );
        assert!(
            last.starts_with("damaged: ") && last.contains("1 fault;"),
            "{said}"
        );
        let json = check(dir.path(), &["--json"]);
        assert_eq!(json.status.code(), Some(1));
        let said: Value = serde_json::from_slice(&json.stdout).expect("json");
        assert_eq!(
            (&said["status"], &said["faults"][0]["row"]),
            (&json!("damaged"), &json!(2))
        );
        let copy = dir.path().join("copy.db");
        let refused = backup::copy(dir.path(), &copy)
            .expect_err("not good")
            .to_string();
        assert!(
            refused.contains(row) && refused.contains("--check-db"),
            "{refused}"
        );
        let left = fs::read_dir(dir.path()).expect("list");
        let left = left.filter_map(|entry| entry.expect("entry").file_name().into_string().ok());
        assert_eq!(left.filter(|name| name.starts_with("copy")).count(), 0);
    }
}

#[test]
fn every_damaged_row_is_named_and_the_counts_are_compared() {
    let dir = state();
    let raw = rusqlite::Connection::open(dir.path().join("taskdaemon.db")).expect("open");
    for sql in [
        "UPDATE task SET spec = '{' WHERE id = 1",
        "UPDATE task SET owner = 7 WHERE id = 2",
        "UPDATE task SET state = 77 WHERE id = 3",
        "UPDATE book SET number = 9 WHERE what = 2",
        "INSERT INTO schedule (id, owner, name, created, cursor, rule, task) VALUES (4, 1, 'x', 1, 1, '{}', '{}')",
    ] {
        assert_eq!(raw.execute(sql, []).expect(sql), 1, "{sql}");
    }
    drop(raw);
    let found = findings(dir.path());
    let rows: Vec<_> = found
        .faults
        .iter()
        .map(|fault| (fault.table.as_str(), fault.row))
        .collect();
    assert_eq!(
        rows,
        [
            ("book", None),
            ("task", Some(1)),
            ("task", Some(2)),
            ("task", Some(3)),
            ("schedule", Some(4)),
        ]
    );
}

#[test]
fn an_older_database_is_checked_and_not_brought_up_to_date() {
    let dir = tempfile::tempdir().expect("directory");
    version_1(dir.path());
    let path = dir.path().join("taskdaemon.db");
    let before = fs::read(&path).expect("read");
    let output = check(dir.path(), &[]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("schema version 1, its pages"), "{said}");
    assert_eq!(fs::read(&path).expect("read"), before);
}

/// Makes a database what it should not be.
type Spoil<'f> = &'f dyn Fn(&Path);

#[test]
fn what_is_no_whole_database_of_this_program_is_refused_and_stays_as_it_is() {
    let newer = |path: &Path| {
        let raw = rusqlite::Connection::open(path).expect("open");
        raw.pragma_update(None, "user_version", 99).expect("newer");
    };
    let other = |path: &Path| {
        let raw = rusqlite::Connection::open(path).expect("open");
        raw.pragma_update(None, "application_id", 1)
            .expect("another");
    };
    let cut = |path: &Path| {
        let bytes = fs::read(path).expect("read");
        fs::write(path, &bytes[..bytes.len() / 2 / 4096 * 4096]).expect("cut off");
    };
    let rows: [(Spoil<'_>, i32, &str); 6] = [
        (&newer, 1, "schema version 99"),
        (&other, 1, "another program"),
        (&cut, 1, ""),
        (&|path| fs::write(path, "").expect("emptied"), 1, "empty"),
        (
            &|path| fs::write(path, "x".repeat(9_000)).expect("text"),
            1,
            "not a",
        ),
        (
            &|path| fs::remove_file(path).expect("removed"),
            3,
            "at its first start",
        ),
    ];
    for (change, code, words) in rows {
        let dir = state();
        let path = dir.path().join("taskdaemon.db");
        change(&path);
        let before = fs::read(&path).ok();
        let output = check(dir.path(), &[]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(fs::read(&path).ok(), before, "{words}");
    }
}

#[test]
fn a_database_is_checked_beside_the_daemon_that_uses_it() {
    let bed = Bed::start(&[]);
    for _ in 0..20 {
        bed.submit(&json!({ "command": ["true"], "stdin": "x" }));
    }
    for _ in 0..3 {
        let output = check(&bed.path("state"), &[]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("20 tasks, 40 checksums"), "{said}");
    }
    let id = bed.submit(&json!({ "command": ["true"] }));
    assert_eq!(bed.wait(id)["state"], "succeeded");
}

/// What SQLite keeps beside the file, it would have made as root.
#[test]
fn a_check_by_root_leaves_nothing_that_the_daemon_cannot_open() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = state();
    for entry in fs::read_dir(dir.path()).expect("list") {
        chown(entry.expect("entry").path(), Some(NOBODY), Some(NOBODY)).expect("owner");
    }
    chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("owner");
    assert_eq!(check(dir.path(), &[]).status.code(), Some(0));
    for entry in fs::read_dir(dir.path()).expect("list") {
        let entry = entry.expect("entry");
        let meta = entry.metadata().expect("metadata");
        let name = entry.file_name();
        assert_eq!((meta.uid(), meta.mode() & 0o077), (NOBODY, 0), "{name:?}");
    }
    // Somebody else is told what to do.
    let own = tempfile::tempdir().expect("directory");
    fs::set_permissions(own.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    let program = own.path().join("taskdaemon");
    fs::copy(env!("CARGO_BIN_EXE_taskdaemon"), &program).expect("copy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    let output = Command::new(&program)
        .args(["health", "--check-db", "--state-dir"])
        .arg(dir.path())
        .uid(NOBODY - 1)
        .gid(NOBODY - 1)
        .output()
        .expect("run");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("as root, or as the daemon's user"), "{said}");
}

#[test]
fn health_ends_with_0_1_or_69_as_the_daemon_is() {
    let bed = Bed::start(&[]);
    let well = at(&bed, &["health"]);
    let said = text(&well.stdout);
    assert_eq!(well.status.code(), Some(0), "{said}");
    assert!(said.starts_with("healthy\n"), "{said}");
    let json: Value =
        serde_json::from_slice(&at(&bed, &["--json", "health"]).stdout).expect("json");
    assert_eq!(json["status"], "healthy", "{json}");
    let misused = at(&bed, &["health", "--state-dir", "/tmp"]);
    assert_eq!(misused.status.code(), Some(2), "{}", text(&misused.stderr));

    let lacks = Bed::start(&[("RUN__START_RUNNER", "never")]);
    lacks.until("it says what it lacks", |bed| {
        bed.get("/health")
            .is_ok_and(|(status, body)| status == 200 && body["status"] == "degraded")
    });
    let degraded = at(&lacks, &["health"]);
    let line = text(&degraded.stdout);
    assert_eq!(degraded.status.code(), Some(1), "{line}");
    assert!(
        line.starts_with("degraded: no runner is connected: tasks wait\n"),
        "{line}"
    );
    let (status, _) = lacks.get("/ready").expect("an answer");
    assert_eq!(status, 200, "it serves");

    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("ill.sock");
    let ill = UnixListener::bind(&path).expect("bind");
    let host = format!("unix:{}", path.display());
    let health = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
        command
            .args(["--host", &host, "health"])
            .output()
            .expect("run")
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = ill.accept().expect("accept");
            let _head = stream.read(&mut [0; 4096]).expect("read");
            let body = r#"{"status":503,"code":"not_ready","detail":"the engine does not answer"}"#;
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 503 x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .expect("send");
        });
        let output = health();
        let line = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(
            line.starts_with("unhealthy: the engine does not answer\n"),
            "{line}"
        );
    });
    drop(ill);
    let nobody = health();
    assert_eq!(nobody.status.code(), Some(69), "{}", text(&nobody.stderr));
}
