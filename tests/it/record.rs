//! The record with a real daemon: followers over restarts, retention, changes
//! by filter, backups, damaged rows and full disks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::bed::{Bed, request};

const PATIENCE: Duration = Duration::from_secs(20);

fn cli(bed: &Bed, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
    command
        .arg("--host")
        .arg(format!("unix:{}", bed.socket().display()))
        .args(args)
        .stdin(Stdio::null());
    command
}

fn say(bed: &Bed, args: &[&str]) -> Output {
    cli(bed, args).output().expect("run")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn get(bed: &Bed, path: &str) -> Value {
    let (status, answer) = bed.get(path).expect("answer");
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// Every event that is kept, by pages.
fn all_events(bed: &Bed) -> Vec<Value> {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let page = get(bed, &format!("/v1/events?after={after}&limit=1000"));
        events.extend(page["events"].as_array().expect("events").clone());
        after = page["next"].as_i64().expect("next");
        if page["next"] == page["last"] {
            return events;
        }
    }
}

fn seqs(events: &[Value]) -> Vec<i64> {
    let seq = |event: &Value| event["seq"].as_i64().expect("a number");
    events.iter().map(seq).collect()
}

/// So many tasks that wait for an hour, in a queue.
fn submit_waiting(bed: &Bed, queue: &str, count: usize) {
    let task = json!({"command": ["true"], "queue": queue, "delay": "1h"});
    let body = json!({ "tasks": vec![task; count] });
    let (status, answer) = bed.post("/v1/tasks", &body).expect("submit");
    assert_eq!(status, 201, "{answer}");
}

fn count(bed: &Bed, state: &str) -> i64 {
    let status = get(bed, "/v1/status");
    status["tasks"][state].as_i64().unwrap_or_default()
}

/// Figures are of the last turn, which may be a moment behind its answers.
fn counted(bed: &Bed, state: &str, wanted: i64) {
    bed.until(&format!("{wanted} are {state}"), |bed| {
        count(bed, state) == wanted
    });
}

/// Ends what it holds.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_follower_of_events_loses_and_repeats_none_over_restarts() {
    let mut bed = Bed::start(&[]);
    bed.submit(&json!({"command": ["true"], "name": "first"}));
    let out = File::create(bed.path("followed")).expect("file");
    let mut follow = cli(&bed, &["events", "--follow", "--json", "--after", "0"]);
    let _follower = Ended(follow.stdout(out).spawn().expect("start"));
    let heard = |bed: &Bed| -> Vec<Value> {
        let text = fs::read_to_string(bed.path("followed")).expect("read");
        let whole = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        whole.collect()
    };
    bed.until("the follower has begun", |bed| !heard(bed).is_empty());
    for n in 0..3 {
        let id = bed.submit(&json!({"command": ["sh", "-c", "exit 3"], "queue": "q"}));
        bed.wait(id);
        if n == 1 {
            bed.kill();
        } else {
            bed.end(Signal::SIGTERM);
        }
        bed.restart();
        bed.wait(bed.submit(&json!({"command": ["true"]})));
    }
    let all = all_events(&bed);
    bed.until("the follower has it all", |bed| {
        heard(bed).len() >= all.len()
    });
    assert_eq!(heard(&bed), all, "the same, in order, each once");
    assert_eq!(seqs(&all), (1..=all.len() as i64).collect::<Vec<_>>());
    let failed: Vec<_> = all.iter().filter(|e| e["kind"] == "failed").collect();
    assert_eq!(failed.len(), 3, "{all:?}");
    assert_eq!(failed[0]["queue"], "q");
    assert_eq!(failed[0]["data"]["class"], "exit");
    assert_eq!(failed[0]["data"]["exit_code"], 3);
    let first = all.iter().find(|event| event["kind"] == "submitted");
    assert_eq!(first.expect("submitted")["data"]["name"], "first");
    let lines = printed(&say(&bed, &["events", "--task", "1"]));
    assert!(lines.contains("task 1 submitted"), "{lines}");
    assert!(!lines.contains("task 2"), "{lines}");
}

/// A stream of events as a plain client sees it.
struct Stream(BufReader<UnixStream>);

impl Stream {
    fn open(bed: &Bed, path: &str, headers: &str) -> Self {
        let mut stream = UnixStream::connect(bed.socket()).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{headers}\r\n"
        )
        .expect("ask");
        Self(BufReader::new(stream))
    }

    /// Reads until a line has this in it; returns all lines up to there.
    fn until(&mut self, what: &str) -> String {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            let len = self.0.read_line(&mut line).expect("read in time");
            text.push_str(&line);
            assert!(len > 0, "ended before `{what}`: {text}");
            if line.contains(what) {
                return text;
            }
        }
    }
}

#[test]
fn whoever_asks_for_events_that_were_removed_is_told_which() {
    let mut bed = Bed::start(&[("RETENTION__EVENT_COUNT", "20")]);
    submit_waiting(&bed, "q", 90);
    bed.end(Signal::SIGTERM);
    bed.restart();
    bed.until("the oldest are removed", |bed| {
        get(bed, "/v1/events")["oldest"] == 71
    });
    let mut stream = Stream::open(&bed, "/v1/events", "Last-Event-ID: 5\r\n");
    let text = stream.until("\"seq\":72");
    let gap = text.find("event: gap\ndata: {\"from\":6,\"to\":70}");
    let next = text.find("\"seq\":71").expect("the first that is kept");
    assert!(gap.expect("a gap") < next, "{text}");
    assert!(!text.contains("\"seq\":70,"), "{text}");
    let mut stream = Stream::open(&bed, "/v1/events?after=90", "");
    submit_waiting(&bed, "q", 1);
    let text = stream.until("\"seq\":91");
    assert!(!text.contains("gap"), "{text}");
    // As after a restore: numbers that this store has not given out yet.
    let mut stream = Stream::open(&bed, "/v1/events", "Last-Event-ID: 4000\r\n");
    stream.until("event: gap");
    let output = say(&bed, &["events", "--after", "3"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("events 4 to"), "{told}");
}

/// Nothing is kept for a follower that does not read, whatever happens.
#[test]
fn a_follower_that_is_too_slow_is_cut_off_with_a_clear_end() {
    let bed = Bed::start(&[("API__BODY_TIMEOUT", "6s")]);
    let mut stream = Stream::open(&bed, "/v1/events", "");
    stream.until("event: begin");
    submit_waiting(&bed, "q", 10_000);
    std::thread::park_timeout(Duration::from_millis(3_500));
    let text = stream.until("event: end");
    assert!(text.contains("\"kind\":\"submitted\""), "it had begun");
    let why = stream.until("data: ");
    assert!(why.contains("too_slow"), "{why}");
    let last = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("id: "));
    let last: i64 = last.expect("an id").parse().expect("a number");
    assert!(last < 10_000, "{last}");
    // It can go on where it was.
    let mut again = Stream::open(&bed, "/v1/events", &format!("Last-Event-ID: {last}\r\n"));
    let text = again.until("\"seq\":10000,");
    assert!(text.contains(&format!("\"seq\":{},", last + 1)), "{last}");
    assert!(!text.contains("event: gap"));
}

/// BI-15 to BI-17 for events.
#[test]
fn bad_questions_about_events_are_refused() {
    let bed = Bed::start(&[]);
    submit_waiting(&bed, "q", 3);
    for (query, code) in [
        ("limit=0", "invalid"),
        ("limit=-1", "invalid"),
        ("limit=1000000000", "invalid"),
        ("after=-1", "invalid"),
        ("after=1e3", "invalid"),
        ("after=99999999999999999999", "invalid"),
        ("after=", "invalid"),
        ("task=x", "bad_id"),
        ("kind=finished", "invalid"),
        ("kind=%27%3B--", "invalid"),
        ("afer=1", "unknown_parameter"),
        ("after=1&after=2", "duplicate_parameter"),
        ("follow=maybe", "invalid"),
    ] {
        let (status, answer) = bed.get(&format!("/v1/events?{query}")).expect("answer");
        assert_eq!(
            (status, answer["code"].as_str()),
            (400, Some(code)),
            "{query}"
        );
    }
    for id in ["x", "-1", "1.5", "99999999999999999999"] {
        let mut stream = UnixStream::connect(bed.socket()).expect("connect");
        write!(
            stream,
            "GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Last-Event-ID: {id}\r\n\r\n"
        )
        .expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        assert!(answer.starts_with("HTTP/1.1 400"), "{id}: {answer}");
        assert!(answer.contains("bad_event_id"), "{id}: {answer}");
    }
    for queue in ["%25", "_", "%27%3B--", "(a%2B)%2B%24"] {
        let page = get(&bed, &format!("/v1/events?queue={queue}"));
        assert_eq!(
            page["events"],
            json!([]),
            "{queue} is taken letter by letter"
        );
    }
}

/// BI-15 to BI-17 for changes by filter.
#[test]
fn bad_filters_change_nothing() {
    let bed = Bed::start(&[]);
    submit_waiting(&bed, "q", 3);
    for (action, body, field) in [
        ("cancel", json!({}), "all"),
        ("cancel", json!({"dry_run": true}), "all"),
        ("cancel", json!({"all": true, "queue": "q"}), "all"),
        ("cancel", json!({"state": ["failed"]}), "state"),
        ("retry", json!({"state": ["queued"]}), "state"),
        ("discard", json!({"state": ["running"]}), "state"),
        ("discard", json!({"state": ["gone"]}), "state"),
        ("retry", json!({"class": ["bad luck"]}), "class"),
        ("cancel", json!({"owner": "no such user"}), "owner"),
    ] {
        let path = format!("/v1/tasks/{action}");
        let (status, answer) = bed.post(&path, &body).expect("answer");
        assert_eq!(status, 400, "{body}: {answer}");
        assert_eq!(answer["field"], field, "{body}: {answer}");
    }
    for body in [
        json!({"states": ["failed"]}),
        json!({"older_than": "7"}),
        json!({"older_than": -1}),
        json!({"all": "yes"}),
        json!([]),
        json!({"labels": ["a"]}),
    ] {
        let (status, answer) = bed.post("/v1/tasks/cancel", &body).expect("answer");
        assert_eq!(status, 400, "{body}: {answer}");
    }
    for body in [
        json!({"queue": "%"}),
        json!({"name": "_"}),
        json!({"labels": {"a\"": "b"}}),
        json!({"queue": "' OR 1=1 --"}),
    ] {
        let (status, answer) = bed.post("/v1/tasks/cancel", &body).expect("answer");
        assert_eq!((status, &answer["matched"]), (200, &json!(0)), "{body}");
    }
    counted(&bed, "scheduled", 3);
}

#[test]
fn one_change_by_filter_is_for_all_that_it_selects_and_for_no_other() {
    let bed = Bed::start(&[]);
    submit_waiting(&bed, "many", 1_700);
    submit_waiting(&bed, "other", 5);
    let count_of = |body: Value, action: &str| -> (u64, u64, u64) {
        let path = format!("/v1/tasks/{action}");
        let (status, answer) = bed.post(&path, &body).expect("answer");
        assert_eq!(status, 200, "{answer}");
        let number = |name: &str| answer[name].as_u64().expect("a number");
        (number("matched"), number("changed"), number("refused"))
    };
    let many = json!({"queue": "many"});
    let dry = json!({"queue": "many", "dry_run": true});
    assert_eq!(count_of(dry, "cancel"), (1_700, 0, 0));
    counted(&bed, "scheduled", 1_705);
    assert_eq!(count_of(many.clone(), "cancel"), (1_700, 1_700, 0));
    counted(&bed, "cancelled", 1_700);
    assert_eq!(count_of(many.clone(), "cancel"), (0, 0, 0), "no more");
    assert_eq!(
        count_of(many.clone(), "retry"),
        (0, 0, 0),
        "none has failed"
    );
    let young = json!({"queue": "many", "older_than": "1h"});
    assert_eq!(count_of(young, "discard"), (0, 0, 0));
    assert_eq!(count_of(many, "discard"), (1_700, 1_700, 0));
    counted(&bed, "scheduled", 5);
    counted(&bed, "cancelled", 0);
    let removed = get(&bed, "/v1/events?kind=removed&limit=1");
    assert_eq!(
        removed["events"][0]["actor"],
        nix::unistd::getuid().as_raw()
    );
}

#[test]
fn the_dead_list_is_listed_run_again_and_pruned_from_the_command_line() {
    let bed = Bed::start(&[]);
    let flag = bed.path("mended");
    let line = format!("test -e {}", flag.display());
    for n in 0..4 {
        let body = json!({"command": ["sh", "-c", line], "labels": {"n": (n % 2).to_string()}});
        bed.wait(bed.submit(&body));
    }
    let slow = json!({"command": ["sleep", "60"], "timeout": "100ms"});
    bed.wait(bed.submit(&slow));
    let listed = printed(&say(&bed, &["--json", "list", "--state", "failed"]));
    assert_eq!(listed.lines().count(), 5);
    let dry = ["retry", "--state", "failed", "--class", "exit", "--dry-run"];
    assert_eq!(printed(&say(&bed, &dry)), "4 tasks would be meant\n");
    let bare = say(&bed, &["retry"]);
    assert_eq!(bare.status.code(), Some(2), "says which");
    fs::write(&flag, "").expect("mend");
    let labelled = ["retry", "--state", "failed", "--label", "n=1", "--yes"];
    assert_eq!(printed(&say(&bed, &labelled)), "retry: 2 of 2 tasks\n");
    bed.until("they have run", |bed| count(bed, "succeeded") == 2);
    let timeout = ["prune", "--class", "timeout", "--yes"];
    assert_eq!(printed(&say(&bed, &timeout)), "discard: 1 of 1 tasks\n");
    counted(&bed, "failed", 2);
    let one = say(&bed, &["retry", "1"]);
    assert_eq!(one.status.code(), Some(0), "a single one as before");
    let all = say(&bed, &["--json", "prune", "--all", "--yes"]);
    let counted: Value = serde_json::from_slice(&all.stdout).expect("JSON");
    assert_eq!(counted["matched"], counted["changed"], "{counted}");
}

#[test]
fn retention_removes_the_oldest_with_their_output_and_nothing_that_is_not_over() {
    let mut bed = Bed::start(&[("RETENTION__TASK_COUNT", "4")]);
    let mut ids = Vec::new();
    let live = bed.submit(&json!({"command": ["sleep", "600"]}));
    submit_waiting(&bed, "later", 3);
    for _ in 0..10 {
        let id = bed.submit(&json!({"command": ["echo", "kept"]}));
        bed.wait(id);
        ids.push(id);
    }
    let file = |bed: &Bed, id: i64| bed.path(&format!("state/output/0/{id}.1"));
    for id in &ids {
        assert!(file(&bed, *id).exists(), "{id}");
    }
    bed.end(Signal::SIGTERM);
    // As a crash between a commit and the removal of the file leaves it.
    let orphan = bed.path("state/output/0/777.1");
    fs::write(&orphan, "left over").expect("write");
    let far = bed.path("state/output/5000");
    fs::create_dir(&far).expect("directory");
    fs::write(far.join("5001.2"), "left over").expect("write");
    bed.restart();
    bed.until("the oldest are gone", |bed| count(bed, "succeeded") == 4);
    bed.until("their files too", |bed| {
        ids[..6].iter().all(|id| !file(bed, *id).exists()) && !orphan.exists() && !far.exists()
    });
    for id in &ids[..6] {
        assert_eq!(bed.get(&format!("/v1/tasks/{id}")).expect("answer").0, 404);
    }
    for id in &ids[6..] {
        assert_eq!(bed.output(*id), b"kept\n");
    }
    counted(&bed, "scheduled", 3);
    let task = get(&bed, &format!("/v1/tasks/{live}"));
    assert_eq!(task["state"], "running");
    let next = bed.submit(&json!({"command": ["true"]}));
    assert!(next > ids[9], "no number twice");
}

#[test]
fn output_is_removed_before_its_task_when_there_is_too_much_of_it() {
    let mut bed = Bed::start(&[("RETENTION__OUTPUT_BYTES", "10KiB")]);
    let ids: Vec<_> = (0..4)
        .map(|_| {
            let line = "head -c 4096 /dev/zero | tr '\\0' x";
            let id = bed.submit(&json!({"command": ["sh", "-c", line]}));
            bed.wait(id);
            id
        })
        .collect();
    bed.end(Signal::SIGTERM);
    bed.restart();
    let kept = |bed: &Bed, id: i64| {
        get(bed, &format!("/v1/tasks/{id}"))["attempts"][0]["output_bytes"].clone()
    };
    bed.until("the oldest is gone", |bed| kept(bed, ids[1]) == 0);
    assert_eq!(kept(&bed, ids[0]), 0);
    bed.until("its file too", |bed| bed.output(ids[0]).is_empty());
    for id in &ids[2..] {
        assert_eq!(kept(&bed, *id), 4096);
        assert_eq!(bed.output(*id).len(), 4096);
    }
    let task = get(&bed, &format!("/v1/tasks/{}", ids[0]));
    assert_eq!(task["state"], "succeeded", "the task itself is kept");
    assert_eq!(task["attempts"][0]["output_dropped_bytes"], 4096);
}

/// Submits without pause until told to stop.
fn load(bed: &Bed, stop: &Arc<AtomicBool>, done: &Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    let (socket, stop, done) = (bed.socket(), Arc::clone(stop), Arc::clone(done));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let body = json!({"command": ["true"], "queue": "load", "delay": "1h"});
            let sent = request(&socket, "POST", "/v1/tasks", Some(&body));
            if sent.is_ok_and(|(status, _)| status == 201) {
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}

fn backup(bed: &Bed, file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
    command.args(["--json", "backup"]).arg(file);
    command.arg("--state-dir").arg(bed.path("state"));
    command.output().expect("run")
}

#[test]
fn a_backup_made_under_load_starts_elsewhere_and_settles_what_was_live() {
    let bed = Bed::start(&[]);
    let over = bed.submit(&json!({"command": ["sh", "-c", "exit 9"]}));
    bed.wait(over);
    let marks = bed.path("marks");
    let line = format!(
        "echo ran >> {}; test $TASKDAEMON_ATTEMPT = 2 || sleep 600",
        marks.display()
    );
    let live = bed.submit(&json!({"command": ["sh", "-c", line]}));
    bed.until("it runs", |_| marks.exists());
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let threads: Vec<_> = (0..2).map(|_| load(&bed, &stop, &done)).collect();
    bed.until("there is load", |_| done.load(Ordering::Relaxed) > 20);
    let before = done.load(Ordering::Relaxed);
    let file = bed.path("copy.db");
    let output = backup(&bed, &file);
    let after = done.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("end");
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(after > before, "the daemon went on");
    let copied: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tasks = copied["tasks"].as_u64().expect("a number");
    assert!(
        (before + 2..=after + 4).contains(&tasks),
        "{before} {after} {copied}"
    );
    let mode = fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let bytes = fs::read(&file).expect("read");
    assert_eq!(
        backup(&bed, &file).status.code(),
        Some(4),
        "overwrites nothing"
    );
    assert_eq!(fs::read(&file).expect("read"), bytes);
    let left: BTreeSet<_> = fs::read_dir(bed.dir.path())
        .expect("list")
        .map(|entry| entry.expect("entry").file_name())
        .filter(|name| name.to_string_lossy().contains("unfinished"))
        .collect();
    assert!(left.is_empty(), "{left:?}");

    let mut other = Bed::start(&[]);
    other.end(Signal::SIGTERM);
    for end in ["", "-wal", "-shm"] {
        drop(fs::remove_file(
            other.path(&format!("state/taskdaemon.db{end}")),
        ));
    }
    fs::copy(&file, other.path("state/taskdaemon.db")).expect("restore");
    other.restart();
    let task = get(&other, &format!("/v1/tasks/{over}"));
    assert_eq!(task["attempts"][0]["exit_code"], 9, "{task}");
    let task = other.wait(live);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["attempts"][0]["outcome"], "lost", "{task}");
    assert_eq!(count(&other, "scheduled").unsigned_abs(), tasks - 2);
}

/// FI-10, at work: one damaged row ends neither the daemon nor other tasks.
#[test]
fn a_task_whose_row_is_damaged_is_quarantined_and_the_others_run() {
    let mut bed = Bed::start(&[("RUN__START_RUNNER", "never")]);
    let ids: Vec<_> = (0..4)
        .map(|_| bed.submit(&json!({"command": ["true"]})))
        .collect();
    let soon = bed.submit(&json!({"command": ["true"], "delay": "1s"}));
    bed.end(Signal::SIGTERM);
    let raw = rusqlite::Connection::open(bed.path("state/taskdaemon.db")).expect("open");
    for id in [ids[1], soon] {
        raw.execute("UPDATE task SET spec = '{\"argv\":' WHERE id = ?1", [id])
            .expect("damage");
    }
    drop(raw);
    bed.restart();
    let page = get(&bed, "/v1/tasks");
    assert!(
        page["damaged"]
            .as_array()
            .is_some_and(|ids| !ids.is_empty()),
        "named in the listing: {page}"
    );
    assert_eq!(page["tasks"].as_array().map(Vec::len), Some(3), "{page}");
    bed.end(Signal::SIGTERM);
    bed.change("RUN__START_RUNNER", "auto");
    bed.restart();
    for id in [ids[0], ids[2], ids[3]] {
        assert_eq!(bed.wait(id)["state"], "succeeded");
    }
    for id in [ids[1], soon] {
        let task = bed.wait(id);
        assert_eq!(task["state"], "failed", "{task}");
        assert_eq!(task["outcome"]["class"], "poison", "{task}");
        let why = task["outcome"]["message"].as_str().expect("a message");
        assert!(why.contains("damaged"), "{why}");
    }
    let page = get(&bed, "/v1/tasks");
    assert_eq!(page["tasks"].as_array().map(Vec::len), Some(5), "{page}");
}

/// FI-10: a changed byte that leaves everything readable is noticed before it is run.
#[test]
fn a_command_or_an_input_with_a_changed_byte_is_not_run() {
    let mut bed = Bed::start(&[("RUN__START_RUNNER", "never")]);
    let (mark, body) = (bed.path("mark"), |bed: &Bed, name: &str| {
        let line = format!("cat >> {}; echo {name} >> {0}", bed.path("mark").display());
        json!({"command": ["sh", "-c", line], "stdin": "payload\n"})
    });
    let ids = ["first", "second", "third"].map(|name| bed.submit(&body(&bed, name)));
    bed.end(Signal::SIGTERM);
    let raw = rusqlite::Connection::open(bed.path("state/taskdaemon.db")).expect("open");
    let changes = [
        "UPDATE task SET spec = replace(spec, 'first', 'fjrst') WHERE id = ?1",
        "UPDATE input SET data = CAST('paylobd' || char(10) AS BLOB) WHERE task = ?1",
    ];
    for (id, change) in ids.iter().zip(changes) {
        assert_eq!(raw.execute(change, [id]).expect("damage"), 1, "{change}");
    }
    drop(raw);
    bed.change("RUN__START_RUNNER", "auto");
    bed.restart();
    assert_eq!(bed.wait(ids[2])["state"], "succeeded");
    for id in &ids[..2] {
        let task = bed.wait(*id);
        assert_eq!(task["state"], "failed", "{task}");
        assert_eq!(task["outcome"]["class"], "poison", "{task}");
        let why = task["outcome"]["message"].as_str().expect("a message");
        assert!(why.contains("checksum"), "{why}");
    }
    // Nor did they keep a slot.
    let status = get(&bed, "/v1/status");
    assert_eq!(status["tasks"]["running"], 0, "{status}");
    assert_eq!(
        fs::read_to_string(mark).expect("it ran"),
        "payload\nthird\n"
    );
}

/// A small file system at a directory, for as long as this lives.
struct Small(std::path::PathBuf);

impl Small {
    /// None where the tests may not mount.
    fn at(dir: &Path) -> Option<Self> {
        fs::create_dir_all(dir).expect("directory");
        let options = Some("size=32m,mode=700");
        let kind = Some("tmpfs");
        mount(kind, dir, kind, MsFlags::empty(), options).ok()?;
        Some(Self(dir.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _gone = umount2(&self.0, MntFlags::MNT_DETACH).is_err();
    }
}

fn fill(path: &Path) {
    let mut file = File::create(path).expect("file");
    let block = vec![0; 1 << 16];
    while file.write_all(&block).is_ok() {}
    drop(file.write_all(&[0; 4096]));
}

/// FI-06 and FI-07.
#[test]
fn a_full_disk_refuses_new_tasks_and_records_the_ends_of_running_ones_when_it_can() {
    let place = tempfile::tempdir().expect("directory");
    let Some(small) = Small::at(&place.path().join("state")) else {
        eprintln!("skipped: only root can mount a small file system");
        return;
    };
    let state = small.0.display().to_string();
    let mut bed = Bed::start(&[("STORE__BALLAST", "4MiB")]);
    bed.end(Signal::SIGTERM);
    bed.place_state(&small.0);
    bed.restart();
    let pid = bed.pid();
    let gate = bed.path("gate");
    let line = format!(
        "while ! test -e {}; do sleep 0.05; done; exit 5",
        gate.display()
    );
    let id = bed.submit(&json!({"command": ["sh", "-c", line]}));
    bed.until("it runs", |bed| {
        get(bed, &format!("/v1/tasks/{id}"))["state"] == "running"
    });
    let ballast = small.0.join("ballast");
    assert!(ballast.exists(), "{state}");
    let refused = |bed: &Bed| {
        let body = json!({"command": ["true"]});
        let (status, answer) = bed.post("/v1/tasks", &body).expect("answer");
        (
            status,
            answer["code"].as_str().unwrap_or_default().to_owned(),
        )
    };
    fill(&small.0.join("first"));
    assert_eq!(refused(&bed), (507, "disk_full".to_owned()));
    bed.until("the ballast is given up", |bed| {
        drop(refused(bed));
        !ballast.exists()
    });
    fill(&small.0.join("second"));
    assert_eq!(refused(&bed), (507, "disk_full".to_owned()));
    fs::write(&gate, "").expect("open");
    // Several turns of a daemon that cannot write; it ends at none of them.
    for _ in 0..20 {
        assert_eq!(refused(&bed).0, 507);
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let task = get(&bed, &format!("/v1/tasks/{id}"));
    assert_eq!(
        task["state"], "running",
        "not recorded yet, and not lost: {task}"
    );
    assert_eq!(bed.pid(), pid);
    let alive = |pid| nix::sys::signal::kill(pid, None).is_ok();
    assert!(alive(pid), "the same process all along");
    // Nor does one end that is started now.
    bed.kill();
    bed.start_again();
    let pid = bed.pid();
    for _ in 0..5 {
        assert_eq!(refused(&bed).0, 507);
        std::thread::park_timeout(Duration::from_millis(100));
    }
    fs::remove_file(small.0.join("first")).expect("room");
    fs::remove_file(small.0.join("second")).expect("room");
    let task = bed.wait(id);
    assert_eq!(task["attempts"][0]["exit_code"], 5, "{task}");
    bed.until("new tasks are accepted", |bed| refused(bed).0 == 201);
    assert!(alive(pid), "without another start");
    bed.until("the ballast is there again", |bed| {
        drop(refused(bed));
        ballast.exists()
    });
    drop(bed);
}
