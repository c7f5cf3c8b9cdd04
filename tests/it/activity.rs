//! What happened, newest first and found by whoever asked, and the name of a request on its way through a task.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::bed::Bed;
use crate::cli::{at, text};
use crate::prompt::{BEGIN, CHAT_END, Says, bed as bed_of_models, chat, provider};

/// All events of a listing, page by page, and how many pages there were.
fn all(bed: &Bed, question: &str) -> (Vec<Value>, u32) {
    let (mut found, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let path = format!("/v1/activity?limit=4{question}{cursor}");
        let (status, page) = bed.get(&path).expect("an answer");
        assert_eq!(status, 200, "{path}: {page}");
        found.extend(page["events"].as_array().expect("events").iter().cloned());
        pages += 1;
        let Some(next) = page["next"].as_i64() else {
            return (found, pages);
        };
        cursor = format!("&cursor={next}");
    }
}

fn tasks(events: &[Value]) -> BTreeSet<i64> {
    events
        .iter()
        .filter_map(|event| event["task"].as_i64())
        .collect()
}

#[test]
fn activity_is_the_record_from_its_other_end() {
    let bed = Bed::start(&[]);
    for _ in 0..5 {
        let id = bed.submit(&json!({ "command": ["true"] }));
        bed.wait(id);
    }
    let (recent, pages) = all(&bed, "");
    assert!(pages >= 3, "{pages}");
    let (_, events) = bed.get("/v1/events?limit=1000").expect("events");
    let mut events = events["events"].as_array().expect("events").clone();
    events.reverse();
    assert!(events.len() >= 15, "{events:#?}");
    assert_eq!(recent, events);
    let lines = at(&bed, &["activity", "--json", "--limit", "6"]);
    let lines = text(&lines.stdout);
    let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!((lines.lines().count(), &first), (6, &events[0]));
}

#[test]
fn activity_is_found_by_task_queue_kind_user_and_time() {
    let bed = Bed::start(&[]);
    let one = bed.submit(&json!({ "command": ["true"], "queue": "mail" }));
    let other = bed.submit(&json!({ "command": ["false"] }));
    bed.wait(one);
    let end = bed.wait(other);
    let ids = |question: &str| tasks(&all(&bed, question).0);
    assert_eq!(ids(&format!("&task={one}")), [one].into());
    assert_eq!(ids("&queue=mail"), [one].into());
    assert_eq!(ids("&kind=failed"), [other].into());
    let uid = nix::unistd::getuid();
    assert_eq!(
        ids(&format!("&user={uid}&kind=submitted")),
        [one, other].into()
    );
    assert_eq!(ids("&user=54321"), BTreeSet::new());
    let since = end["ended_at"].as_str().expect("a time");
    let (late, _) = all(&bed, &format!("&since={since}"));
    assert!(!late.is_empty());
    assert!(
        late.iter().all(|event| event["at"].as_str() >= Some(since)),
        "{late:#?}"
    );
    assert_eq!(ids("&since=2999-01-01T00:00:00Z"), BTreeSet::new());
    for (bad, field) in [
        ("task=x", "bad_id"),
        ("kind=odd", "invalid"),
        ("since=noon", "invalid"),
        ("user=nobody-at-all", "invalid"),
        ("cursor=-1", "invalid"),
        ("limit=0", "invalid"),
    ] {
        let (status, answer) = bed.get(&format!("/v1/activity?{bad}")).expect("an answer");
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!(field)),
            "{bad}: {answer}"
        );
    }
}

/// Hands in a task by a request of this name.
fn submit_as(bed: &Bed, name: &str, body: &Value) -> i64 {
    let mut stream = UnixStream::connect(bed.socket()).expect("connect");
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: {name}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains(&format!("x-request-id: {name}")), "{head}");
    let answer: Value = serde_json::from_str(body).expect("JSON");
    answer["id"].as_i64().expect("a number")
}

#[test]
fn a_requests_name_goes_with_its_task_to_the_environment_the_log_and_back() {
    let bed = Bed::start(&[]);
    let (program, socket) = (env!("CARGO_BIN_EXE_taskdaemon"), bed.socket());
    let script = format!(
        "echo \"[$TASKDAEMON_REQUEST]\"; {program} --host unix:{} submit -- true; exit 3",
        socket.display()
    );
    let body = json!({ "command": ["sh", "-c", script] });
    let id = submit_as(&bed, "order-4711", &body);
    let task = bed.wait(id);
    assert_eq!(task["request"], "order-4711", "{task}");
    let said = text(&bed.output(id));
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("[order-4711]"), "{said}");
    let (found, _) = all(&bed, "&request=order-4711&kind=submitted");
    let ids = tasks(&found);
    assert!(
        ids.len() == 2 && ids.contains(&id),
        "its child as well: {found:#?}"
    );
    for child in ids {
        let (_, task) = bed.get(&format!("/v1/tasks/{child}")).expect("a task");
        assert_eq!(task["request"], "order-4711", "{task}");
    }
    bed.until("the log names it", |bed| {
        let log = std::fs::read_to_string(bed.path("log")).unwrap_or_default();
        let line = log
            .lines()
            .find(|line| line.contains(&format!("task {id}: attempt 1 failed")));
        line.is_some_and(|line| line.contains("request=order-4711"))
    });
    let lines = at(&bed, &["activity", "--request", "order-4711"]);
    assert!(
        text(&lines.stdout).contains(&format!("task {id} submitted")),
        "{lines:?}"
    );
    // A name of the daemon's own says nothing to anybody.
    let id = bed.submit(&json!({ "command": ["sh", "-c", "echo \"[$TASKDAEMON_REQUEST]\""] }));
    assert!(bed.wait(id)["request"].is_null());
    assert_eq!(bed.output(id), b"[]\n");
}

/// What a prompt runs is our own program, which the runner starts without any variable of a task's.
#[test]
fn a_prompt_of_a_named_request_is_asked_too() {
    let answer = format!("{BEGIN}{}{CHAT_END}", chat("yes"));
    let (port, _seen) = provider(vec![Says::All(answer)]);
    let (bed, _dir) = bed_of_models(port);
    let body = json!({ "prompt": { "text": "?", "model": "chat" } });
    let id = submit_as(&bed, "order-4712", &body);
    let task = bed.wait(id);
    assert_eq!(
        (&task["state"], &task["request"]),
        (&json!("succeeded"), &json!("order-4712"))
    );
}
