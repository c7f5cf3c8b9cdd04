//! Traces: one from a request to the attempts of the tasks it made, as a collector sees it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket,
};
use prost::Message as _;
use serde_json::{Value, json};
use taskdaemon::clock;
use taskdaemon::daemon::traces::wire::{self, Export, Refused, Span, Taken};

use crate::bed::{Bed, request};
use crate::cli::{at, text};
use crate::prompt::{BEGIN, CHAT_END, KEY, Says, bed_of, chat, provider};
use crate::relay;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// Longest wait for spans.
const PATIENCE: Duration = Duration::from_secs(20);

/// A `traceparent` of a trace that is kept.
fn parent() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

/// A collector: what it was sent, head and spans, one message after the other.
struct Collector {
    port: u16,
    messages: Receiver<(String, Export)>,
    heads: Vec<String>,
    spans: Vec<Span>,
    resource: Vec<wire::KeyValue>,
}

fn read(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let end = |bytes: &[u8]| bytes.windows(4).position(|part| part == b"\r\n\r\n");
    while end(&bytes).is_none() {
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
    }
    let mut body = bytes.split_off(end(&bytes)? + 4);
    let head = String::from_utf8(bytes).ok()?.to_lowercase();
    let length = head.split("content-length: ").nth(1)?;
    let length: usize = length.lines().next()?.trim().parse().ok()?;
    let have = body.len();
    body.resize(length, 0);
    stream.read_exact(&mut body[have..]).ok()?;
    Some((head, body))
}

/// One that gives these answers first and takes everything afterwards.
fn collector_at(listener: TcpListener, answers: Vec<String>) -> Collector {
    let port = listener.local_addr().expect("address").port();
    let (tell, messages) = sync_channel(1_024);
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        while let Ok((mut stream, _)) = listener.accept() {
            let Some((head, body)) = read(&mut stream) else {
                continue;
            };
            let answer = answers.next();
            let answer =
                answer.unwrap_or_else(|| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned());
            let taken = answer.contains(" 200 ");
            drop(stream.write_all(answer.as_bytes()));
            let export = Export::decode(&*body).expect("a message");
            if taken && tell.send((head, export)).is_err() {
                return;
            }
        }
    });
    Collector {
        port,
        messages,
        heads: Vec::new(),
        spans: Vec::new(),
        resource: Vec::new(),
    }
}

fn collector() -> Collector {
    collector_at(TcpListener::bind("127.0.0.1:0").expect("bind"), Vec::new())
}

impl Collector {
    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn bed(&self, more: &[(&str, &str)]) -> Bed {
        let endpoint = self.endpoint();
        let mut settings = vec![("TRACES__ENDPOINT", &*endpoint), ("LOG", "debug")];
        settings.extend(more);
        Bed::start(&settings)
    }

    fn hear(&mut self, wait: Duration) -> bool {
        let Ok((head, export)) = self.messages.recv_timeout(wait) else {
            return false;
        };
        self.heads.push(head);
        for resource in export.resource_spans {
            self.resource = resource.resource.expect("a resource").attributes;
            let scopes = resource.scope_spans.into_iter();
            self.spans.extend(scopes.flat_map(|scope| scope.spans));
        }
        true
    }

    /// Waits until so many spans have come whose names begin so.
    fn until(&mut self, count: usize, name: &str) -> Vec<Span> {
        let start = clock::instant();
        loop {
            let named: Vec<_> = self.named(name);
            if named.len() >= count {
                return named;
            }
            let left = PATIENCE.checked_sub(start.elapsed());
            assert!(left.is_some(), "no {count} of {name} in {:#?}", self.spans);
            let left = left.unwrap_or_default();
            self.hear(left);
        }
    }

    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.spans.iter().filter(|span| span.name.starts_with(name));
        spans.cloned().collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is known of a span by this name, as text.
fn known(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|pair| pair.key == name)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        wire::Value::Text(text) => text.clone(),
        wire::Value::Number(number) => number.to_string(),
        wire::Value::Double(double) => double.to_string(),
    })
}

#[track_caller]
fn knows(span: &Span, facts: &[(&str, &str)]) {
    for (name, value) in facts {
        assert_eq!(
            known(span, name).as_deref(),
            Some(*value),
            "{name}: {span:#?}"
        );
    }
}

/// Hands in a task with these lines in the head of its request.
fn submit(bed: &Bed, lines: &[(&str, &str)], body: &Value) -> (u16, Value) {
    let mut stream = UnixStream::connect(bed.socket()).expect("connect");
    let body = body.to_string();
    let length = body.len();
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let lines = lines.collect::<String>();
    write!(
        stream,
        "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    (
        status.expect("a status"),
        serde_json::from_str(body).expect("JSON"),
    )
}

fn submitted(bed: &Bed, lines: &[(&str, &str)], body: &Value) -> i64 {
    let (status, answer) = submit(bed, lines, body);
    assert_eq!(status, 201, "{answer}");
    answer["id"].as_i64().expect("a number")
}

/// A task that says where in a trace it stands.
fn says() -> Value {
    json!({ "command": ["sh", "-c", "echo \"$TRACEPARENT $TRACESTATE\""] })
}

fn said(bed: &Bed, id: i64) -> String {
    bed.wait(id);
    text(&bed.output(id)).trim().to_owned()
}

fn log(bed: &Bed) -> String {
    std::fs::read_to_string(bed.path("log")).unwrap_or_default()
}

fn metric(bed: &Bed, name: &str) -> u64 {
    let (_, page) = bed.get("/metrics").expect("the page");
    let page = page.as_str().expect("text").to_owned();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.expect(name).parse().expect("a number")
}

fn micros(time: &Value) -> u64 {
    let at: jiff::Timestamp = time.as_str().expect("a time").parse().expect("a time");
    u64::try_from(at.as_microsecond()).expect("after 1970")
}

/// What is known of a task that failed.
fn tell(id: i64, spans: [&Span; 4]) {
    let [server, wait, attempt, task] = spans;
    let kinds = spans.map(|span| span.kind);
    assert_eq!(kinds, [2, 1, 1, 5]);
    let number = id.to_string();
    let method = [
        ("http.request.method", "POST"),
        ("http.route", "/v1/tasks"),
        ("url.path", "/v1/tasks"),
        ("http.response.status_code", "201"),
    ];
    knows(server, &method);
    knows(
        wait,
        &[
            ("taskdaemon.wait.reason", "slot"),
            ("taskdaemon.task.id", &number),
        ],
    );
    let how = [
        ("taskdaemon.attempt", "1"),
        ("process.exit.code", "3"),
        ("taskdaemon.class", "exit"),
        ("error.type", "exit"),
    ];
    knows(attempt, &how);
    assert!(known(attempt, "process.pid").is_some(), "{attempt:?}");
    let whole = [
        ("taskdaemon.task.name", "nightly"),
        ("taskdaemon.task.state", "failed"),
        ("taskdaemon.task.attempts", "1"),
        ("taskdaemon.queue", "default"),
    ];
    knows(task, &whole);
    for failed in [attempt, task] {
        let status = failed.status.as_ref().expect("a status");
        assert_eq!((status.code, &*status.message), (2, "exit: code 3"));
    }
    assert!(server.status.is_none() && wait.status.is_none());
}

/// They have the times of the very rows that the task is shown with.
fn are_as_shown(shown: &Value, [server, wait, attempt, task]: [&Span; 4]) {
    let run = &shown["attempts"][0];
    assert_eq!(
        task.start_time_unix_nano / 1_000,
        micros(&shown["created_at"])
    );
    assert_eq!(task.end_time_unix_nano / 1_000, micros(&shown["ended_at"]));
    assert_eq!(attempt.end_time_unix_nano / 1_000, micros(&run["ended_at"]));
    assert_eq!(attempt.events[0].name, "started");
    assert_eq!(
        attempt.events[0].time_unix_nano / 1_000,
        micros(&run["started_at"])
    );
    assert_eq!(wait.end_time_unix_nano, attempt.start_time_unix_nano);
    assert!(server.start_time_unix_nano <= task.start_time_unix_nano);
}

#[test]
fn traces_join_a_request_its_task_its_attempt_and_what_that_runs() {
    let mut collector = collector();
    let bed = collector.bed(&[]);
    let head = [
        ("traceparent", &*parent()),
        ("tracestate", "rojo=1,congo=2"),
    ];
    let script = "echo \"$TRACEPARENT $TRACESTATE\"; exit 3 # canary-argv";
    let body =
        json!({ "command": ["sh", "-c", script], "name": "nightly", "env": { "A": "canary-env" } });
    let id = submitted(&bed, &head, &body);
    let shown = bed.wait(id);
    assert_eq!(shown["trace"], TRACE, "{shown}");
    let task = collector.until(1, "task default").remove(0);
    let [server, wait, attempt] = ["POST /v1/tasks", "wait default", "attempt default"]
        .map(|name| collector.until(1, name).remove(0));
    for span in [&server, &wait, &attempt, &task] {
        assert_eq!(hex(&span.trace_id), TRACE, "{span:?}");
        assert_eq!(
            (span.trace_state.as_str(), span.flags & 1),
            ("rojo=1,congo=2", 1)
        );
        assert!(
            span.end_time_unix_nano >= span.start_time_unix_nano,
            "{span:?}"
        );
    }
    assert_eq!(hex(&server.parent_span_id), PARENT);
    assert_eq!(task.parent_span_id, server.span_id);
    assert_eq!(attempt.parent_span_id, task.span_id);
    assert_eq!(wait.parent_span_id, task.span_id);
    let place = format!("00-{TRACE}-{}-01 rojo=1,congo=2", hex(&attempt.span_id));
    assert_eq!(said(&bed, id), place);
    tell(id, [&server, &wait, &attempt, &task]);
    are_as_shown(&shown, [&server, &wait, &attempt, &task]);
    let all = format!("{:?}{:?}", collector.spans, collector.resource);
    assert!(!all.contains("canary"), "{all}");
    assert!(
        all.contains("service.name") && all.contains("host.name"),
        "{all}"
    );
    assert!(collector.heads[0].starts_with("post /v1/traces http/1.1"));
    assert!(collector.heads[0].contains("content-type: application/x-protobuf"));
    let ends = log(&bed);
    let line = ends.lines().find(|line| line.contains("attempt 1 failed"));
    assert!(
        line.expect("a line").contains(&format!("trace_id={TRACE}")),
        "{ends}"
    );
    assert_eq!(metric(&bed, "taskdaemon_trace_spans_dropped_total"), 0);
    assert!(metric(&bed, "taskdaemon_trace_spans_sent_total") >= 4);
}

#[test]
fn traces_go_on_over_a_kill_of_the_daemon() {
    let mut collector = collector();
    let mut bed = collector.bed(&[]);
    let go = bed.path("go");
    let script = format!(
        "echo $TRACEPARENT; until [ -e {} ]; do sleep 0.05; done",
        go.display()
    );
    let id = submitted(
        &bed,
        &[("traceparent", &parent())],
        &json!({ "command": ["sh", "-c", script] }),
    );
    let mut place = String::new();
    bed.until("it has said where it stands", |bed| {
        place = text(&bed.output(id)).trim().to_owned();
        !place.is_empty()
    });
    bed.kill();
    let killed = u64::try_from(clock::now().micros()).expect("after 1970");
    bed.restart();
    std::fs::write(&go, "").expect("write");
    let shown = bed.wait(id);
    assert_eq!(shown["state"], "succeeded", "{shown}");
    let task = collector.until(1, "task").remove(0);
    let attempt = collector.until(1, "attempt").remove(0);
    assert_eq!(place, format!("00-{TRACE}-{}-01", hex(&attempt.span_id)));
    assert_eq!(attempt.parent_span_id, task.span_id);
    assert!(attempt.start_time_unix_nano / 1_000 < killed, "{attempt:?}");
    assert!(attempt.end_time_unix_nano / 1_000 > killed, "{attempt:?}");
    assert_eq!(
        attempt.events[0].time_unix_nano / 1_000,
        micros(&shown["attempts"][0]["started_at"])
    );
}

#[test]
fn a_task_that_is_retried_stays_in_its_trace_and_its_rounds_have_a_span_each() {
    let mut collector = collector();
    let bed = collector.bed(&[]);
    let mark = bed.path("mark");
    let script = format!("[ -e {0} ] || {{ touch {0}; exit 1; }}", mark.display());
    let id = submitted(
        &bed,
        &[("traceparent", &parent())],
        &json!({ "command": ["sh", "-c", script] }),
    );
    let first = bed.wait(id);
    assert_eq!(first["state"], "failed", "{first}");
    let (status, again) = bed
        .post(&format!("/v1/tasks/{id}/retry"), &Value::Null)
        .expect("retry");
    assert_eq!((status, &again["trace"]), (200, &json!(TRACE)), "{again}");
    let second = bed.wait(id);
    assert_eq!(second["state"], "succeeded", "{second}");
    let tasks = collector.until(2, "task");
    let attempts = collector.until(2, "attempt");
    let waits = collector.until(2, "wait");
    for (round, task) in tasks.iter().enumerate() {
        assert_eq!(hex(&task.trace_id), TRACE);
        assert_eq!(task.parent_span_id, tasks[0].parent_span_id);
        assert_eq!(attempts[round].parent_span_id, task.span_id);
        assert_eq!(waits[round].parent_span_id, task.span_id);
        knows(task, &[("taskdaemon.task.attempts", "1")]);
    }
    assert_ne!(tasks[0].span_id, tasks[1].span_id);
    assert!(tasks[1].start_time_unix_nano >= tasks[0].end_time_unix_nano);
    assert_eq!(waits[1].start_time_unix_nano, tasks[1].start_time_unix_nano);
    // A failure that is tried again by itself is a part of one round.
    let body = json!({ "command": ["false"], "retry": { "max_attempts": 2, "backoff": "10ms" } });
    let id = submitted(&bed, &[], &body);
    bed.wait(id);
    let task = collector.until(3, "task").remove(2);
    let tries = collector.until(4, "attempt").split_off(2);
    assert!(
        tries
            .iter()
            .all(|attempt| attempt.parent_span_id == task.span_id)
    );
    knows(&task, &[("taskdaemon.task.attempts", "2")]);
    knows(
        &collector.until(4, "wait")[3],
        &[("taskdaemon.wait.reason", "backoff")],
    );
    assert!(
        task.trace_id != tasks[0].trace_id,
        "nobody has named a trace"
    );
}

#[test]
fn a_trace_is_kept_as_its_caller_has_decided_or_by_the_share() {
    let mut collector = collector();
    let bed = collector.bed(&[("TRACES__SAMPLE", "0.0")]);
    let new = said(&bed, submitted(&bed, &[], &says()));
    assert!(new.starts_with("00-") && new.ends_with("-00"), "{new}");
    let dropped = format!("00-{}-{PARENT}-00", "1".repeat(32));
    let other = said(&bed, submitted(&bed, &[("traceparent", &dropped)], &says()));
    assert!(
        other.starts_with(&dropped[..36]) && other.ends_with("-00"),
        "{other}"
    );
    assert!(!other.contains(PARENT), "{other}");
    let id = submitted(&bed, &[("traceparent", &parent())], &says());
    bed.wait(id);
    collector.until(1, "task");
    assert_eq!(collector.spans.len(), 4, "{:#?}", collector.spans);
    assert!(
        collector
            .spans
            .iter()
            .all(|span| hex(&span.trace_id) == TRACE)
    );
}

#[test]
fn a_malformed_traceparent_begins_a_trace_and_is_no_error() {
    let mut collector = collector();
    let bed = collector.bed(&[]);
    let twice = [("traceparent", &*parent()), ("traceparent", &*parent())];
    let upper = parent().to_uppercase();
    for lines in [
        &[("traceparent", "00-4bf9")][..],
        &[("traceparent", &*upper)],
        &twice,
        &[("tracestate", "a=1")],
    ] {
        let id = submitted(&bed, lines, &says());
        let (place, shown) = (said(&bed, id), bed.wait(id));
        let trace = shown["trace"].as_str().expect("a trace");
        assert!(place.contains(trace) && !place.contains("a=1"), "{place}");
        assert_ne!(trace, TRACE);
    }
    let servers = collector.until(4, "POST");
    assert!(
        servers.iter().all(|span| span.parent_span_id.is_empty()),
        "{servers:#?}"
    );
}

#[test]
fn a_repeated_submit_is_the_same_task_in_whatever_trace_it_is_asked_for() {
    let collector = collector();
    let bed = collector.bed(&[]);
    let other = format!("00-{}-{PARENT}-01", "2".repeat(32));
    let mut body = says();
    body["key"] = json!("once");
    body["unique"] = json!({ "key": "one", "on_conflict": "return" });
    let id = submitted(&bed, &[("traceparent", &parent())], &body);
    for lines in [&[("traceparent", &*other)][..], &[]] {
        let (status, again) = submit(&bed, lines, &body);
        assert_eq!((status, &again["id"]), (200, &json!(id)), "{again}");
    }
    assert_eq!(bed.wait(id)["trace"], TRACE);
}

#[test]
fn without_a_collector_a_trace_is_handed_on_and_nobody_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.set_nonblocking(true).expect("set");
    let at = format!("http://{}", listener.local_addr().expect("address"));
    let dir = tempfile::tempdir().expect("directory");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args(["run", "--state-dir"])
        .arg(dir.path().join("state"))
        .arg("--runtime-dir")
        .arg(dir.path().join("run"))
        .env("TASKDAEMON_RUN__USERS", "own")
        // What libraries of others go by.
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &at)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start");
    let socket = dir.path().join("run/api.sock");
    let start = clock::instant();
    while !request(&socket, "GET", "/ready", None).is_ok_and(|(status, _)| status == 200) {
        assert!(start.elapsed() < PATIENCE, "not ready");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.id())).expect("threads");
    let names = threads.map(|thread| {
        let name = thread.expect("a thread").path().join("comm");
        std::fs::read_to_string(name).unwrap_or_default()
    });
    assert!(!names.collect::<String>().contains("trace"));
    drop(daemon.kill());
    drop(daemon.wait());
    drop(taskdaemon::run::own::end(
        &dir.path().join("run/runner.sock"),
        Duration::ZERO,
    ));
    let bed = Bed::start(&[]);
    let head = [("traceparent", &*parent()), ("tracestate", "a=1")];
    let id = submitted(&bed, &head, &says());
    assert_eq!(said(&bed, id), format!("{} a=1", parent()));
    assert_eq!(bed.wait(id)["trace"], TRACE);
    let id = submitted(&bed, &[], &says());
    assert_eq!(said(&bed, id), "");
    assert!(bed.wait(id).get("trace").is_none());
    assert_eq!(metric(&bed, "taskdaemon_trace_spans_sent_total"), 0);
    let nobody = listener.accept().err().map(|error| error.kind());
    assert_eq!(nobody, Some(std::io::ErrorKind::WouldBlock));
}

#[test]
fn a_task_that_names_its_own_place_keeps_it() {
    let collector = collector();
    let bed = collector.bed(&[]);
    let mut body = says();
    body["env"] = json!({ "TRACEPARENT": "mine" });
    assert_eq!(said(&bed, submitted(&bed, &[], &body)), "mine");
}

#[test]
fn the_command_line_hands_on_where_it_stands() {
    let mut collector = collector();
    let bed = collector.bed(&[]);
    let host = format!("unix:{}", bed.socket().display());
    let run = |parent: &str| {
        let done = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
            .env("TASKDAEMON_HOST", &host)
            .env("TRACEPARENT", parent)
            .env("TRACESTATE", "a=1")
            .args(["submit", "--wait", "--", "true"])
            .output()
            .expect("run");
        assert!(done.status.success(), "{done:?}");
    };
    run(&parent());
    run("nonsense");
    let servers = collector.until(2, "POST /v1/tasks");
    assert_eq!(hex(&servers[0].parent_span_id), PARENT);
    assert_eq!(servers[0].trace_state, "a=1");
    assert!(servers[1].parent_span_id.is_empty(), "{servers:#?}");
    // From a task to one that it hands in.
    let program = env!("CARGO_BIN_EXE_taskdaemon");
    let script = format!("{program} --host {host} submit --name inner -- true");
    let id = submitted(
        &bed,
        &[("traceparent", &parent())],
        &json!({ "command": ["sh", "-c", script] }),
    );
    bed.wait(id);
    let server = collector.until(4, "POST /v1/tasks").remove(3);
    let number = id.to_string();
    let attempts = collector.until(3, "attempt");
    let outer = attempts
        .iter()
        .find(|span| known(span, "taskdaemon.task.id") == Some(number.clone()));
    assert_eq!(server.parent_span_id, outer.expect("its attempt").span_id);
    let shown = text(&at(&bed, &["show", &number]).stdout);
    assert!(shown.contains(TRACE), "{shown}");
}

#[test]
fn a_hook_is_a_child_of_its_task_and_schedules_and_agents_begin_traces() {
    let mut collector = collector();
    let bed = collector.bed(&[]);
    let mut body = says();
    let receiver = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", receiver.local_addr().expect("address"));
    body["hooks"] = json!([{ "command": ["true"] }, { "webhook": url }]);
    let id = submitted(&bed, &[("traceparent", &parent())], &body);
    bed.wait(id);
    let (mut stream, _) = receiver.accept().expect("a delivery");
    let (head, _) = read(&mut stream).expect("a request");
    write!(stream, "HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
    let task = collector.until(1, "task default").remove(0);
    for hook in collector.until(2, "task hooks") {
        assert_eq!(hook.parent_span_id, task.span_id);
        assert_eq!(hex(&hook.trace_id), TRACE);
    }
    let attempts = collector.until(2, "attempt hooks");
    let told = |span: &Span| {
        head.contains(&format!(
            "traceparent: 00-{TRACE}-{}-01\r\n",
            hex(&span.span_id)
        ))
    };
    assert_eq!(
        attempts.iter().filter(|span| told(span)).count(),
        1,
        "{head}"
    );
    let schedule = json!({ "name": "often", "when": "every 1s", "task": says() });
    let (status, made) = bed.post("/v1/schedules", &schedule).expect("a schedule");
    assert_eq!(status, 201, "{made}");
    let tasks = collector.until(3, "task default").split_off(1);
    assert!(
        tasks.iter().all(|task| task.parent_span_id.is_empty()),
        "{tasks:#?}"
    );
    assert_ne!(tasks[0].trace_id, tasks[1].trace_id);
    assert!(known(&tasks[0], "taskdaemon.schedule.id").is_some());
    let agent = json!({ "name": "a", "task": { "command": ["true"] } });
    assert_eq!(bed.post("/v1/agents", &agent).expect("an agent").0, 201);
    let run = collector.until(1, "task agents").remove(0);
    assert!(run.parent_span_id.is_empty(), "{run:?}");
    assert!(known(&run, "taskdaemon.agent.id").is_some(), "{run:?}");
    // One that somebody triggers is of the trace in which that is asked for.
    let host = format!("unix:{}", bed.socket().display());
    let done = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args(["--host", &host, "schedule", "trigger", "often"])
        .env("TRACEPARENT", parent())
        .output()
        .expect("run");
    assert!(done.status.success(), "{done:?}");
    let server = collector
        .until(1, "POST /v1/schedules/{schedule}/{verb}")
        .remove(0);
    assert_eq!(hex(&server.parent_span_id), PARENT);
    let is_below = |task: &Span| task.parent_span_id == server.span_id;
    while !collector.named("task default").iter().any(is_below) {
        assert!(collector.hear(PATIENCE), "{:#?}", collector.spans);
    }
}

/// What is wrong with the headers for a collector is told at the start, and nothing is begun.
#[test]
fn a_collectors_headers_that_cannot_be_read_are_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("headers");
    std::fs::write(&file, "X-Key: canary-key\nno header\n").expect("write");
    let name = file.display().to_string();
    let none = dir.path().join("none").display().to_string();
    let credentials = dir.path().join("credentials");
    std::fs::create_dir(&credentials).expect("directory");
    std::fs::write(credentials.join("traces-headers"), "X-Key: canary-key\n").expect("write");
    let near = "http://127.0.0.1:9";
    for (mode, endpoint, file_name, told) in [
        (0o600, near, Some(&none), "cannot open"),
        (0o640, near, Some(&name), "is open to others than its owner"),
        (0o600, near, Some(&name), "line 2 is no `name: value`"),
        (
            0o600,
            "http://10.0.0.7:9",
            None,
            "headers would go to another host without TLS",
        ),
    ] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&file, mode).expect("mode");
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
        daemon
            .args(["run", "--state-dir"])
            .arg(dir.path().join("state"));
        daemon.arg("--runtime-dir").arg(dir.path().join("run"));
        daemon.env("CREDENTIALS_DIRECTORY", &credentials);
        daemon.env("TASKDAEMON_TRACES__ENDPOINT", endpoint);
        daemon.envs(file_name.map(|name| ("TASKDAEMON_TRACES__HEADERS_FILE", name)));
        let done = daemon.output().expect("run");
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(78), "{said}");
        assert!(
            said.contains("traces.headers_file: ") && said.contains(told),
            "{said}"
        );
        assert!(!said.contains("canary"), "{said}");
    }
}

/// A port that is taken, and at which nobody listens yet.
fn reserved() -> (OwnedFd, u16) {
    let (family, kind) = (AddressFamily::Inet, SockType::Stream);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bind");
    let at: SockaddrIn = getsockname(socket.as_raw_fd()).expect("an address");
    (socket, at.port())
}

#[test]
fn a_collector_that_is_gone_delays_nothing_and_is_told_of_once() {
    let (socket, port) = reserved();
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut bed = Bed::start(&[("TRACES__ENDPOINT", &endpoint)]);
    let start = clock::instant();
    let id = bed.submit(&says());
    assert_eq!(bed.wait(id)["state"], "succeeded");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    bed.until("it was told", |bed| {
        log(bed).contains("the collector of traces: ")
    });
    // More than may wait.
    let paused = bed.post("/v1/queues/default/pause", &Value::Null);
    assert_eq!(paused.expect("pause").0, 200);
    let many = vec![json!({ "command": ["true"] }); 5_000];
    let (status, _) = bed
        .post("/v1/tasks", &json!({ "tasks": many }))
        .expect("submit");
    assert_eq!(status, 201);
    let (status, count) = bed
        .post("/v1/tasks/cancel", &json!({ "queue": "default" }))
        .expect("cancel");
    assert_eq!((status, &count["changed"]), (200, &json!(5_000)), "{count}");
    let dropped = metric(&bed, "taskdaemon_trace_spans_dropped_total");
    assert!((1..5_000).contains(&dropped), "{dropped}");
    assert_eq!(metric(&bed, "taskdaemon_trace_spans_sent_total"), 0);
    listen(&socket, Backlog::new(16).expect("a number")).expect("listen");
    let mut collector = collector_at(TcpListener::from(socket), Vec::new());
    bed.until("it is heard again", |bed| {
        log(bed).contains("answers again")
    });
    collector.until(1, "attempt");
    bed.until("what waited is there", |bed| {
        let sent = metric(bed, "taskdaemon_trace_spans_sent_total");
        sent + dropped >= 5_000
    });
    let said = log(&bed);
    assert_eq!(
        said.matches("the collector of traces: ").count(),
        1,
        "{said}"
    );
    assert_eq!(said.matches("answers again").count(), 1, "{said}");
    bed.end(nix::sys::signal::Signal::SIGTERM);
}

#[test]
fn the_end_of_the_daemon_sends_what_is_left_and_waits_for_nobody() {
    let mut collector = collector();
    let mut bed = collector.bed(&[]);
    let id = bed.submit(&says());
    bed.wait(id);
    assert_eq!(bed.end(nix::sys::signal::Signal::SIGTERM), Some(0));
    // Not a second later.
    while collector.hear(Duration::from_millis(200)) {}
    assert_eq!(collector.named("task").len(), 1, "{:#?}", collector.spans);
    // One that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let endpoint = format!("http://{}", silent.local_addr().expect("address"));
    bed.change("TRACES__ENDPOINT", &endpoint);
    bed.restart();
    let id = bed.submit(&says());
    bed.wait(id);
    let start = clock::instant();
    assert_eq!(bed.end(nix::sys::signal::Signal::SIGTERM), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    assert!(
        log(&bed).contains("its last spans are lost"),
        "{}",
        log(&bed)
    );
}

#[test]
fn what_a_collector_says_is_obeyed_and_counted() {
    let answer = |status: &str, head: &str, body: &[u8]| {
        let body = String::from_utf8(body.to_vec()).expect("text");
        format!(
            "HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let part = Taken {
        partial_success: Some(Refused {
            rejected_spans: 2,
            error_message: "too old".to_owned(),
        }),
    };
    let answers = vec![
        answer("503 Service Unavailable", "Retry-After: 1\r\n", b""),
        answer("200 OK", "", &part.encode_to_vec()),
        answer("400 Bad Request", "", b""),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut collector = collector_at(listener, answers);
    let dir = tempfile::tempdir().expect("directory");
    let secret = dir.path().join("headers");
    std::fs::write(&secret, "X-Key: canary-key\nX-Scope: all\n").expect("write");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, mode).expect("mode");
    let secret = secret.display().to_string();
    let bed = collector.bed(&[("TRACES__HEADERS_FILE", &secret)]);
    bed.wait(bed.submit(&says()));
    collector.until(1, "task");
    let counts = |bed: &Bed| {
        let of = |what| metric(bed, &format!("taskdaemon_trace_spans_{what}_total"));
        (of("sent"), of("dropped"))
    };
    bed.until("two are counted as dropped", |bed| counts(bed) == (2, 2));
    assert!(
        collector.heads[0].contains("x-key: canary-key"),
        "{:?}",
        collector.heads
    );
    bed.wait(bed.submit(&says()));
    bed.until("all of a message are", |bed| counts(bed) == (2, 6));
    let said = log(&bed);
    assert!(
        said.contains("answers 503") && said.contains("answers 400"),
        "{said}"
    );
    assert!(!said.contains("canary-key"), "{said}");
}

#[test]
fn a_prompt_has_a_span_of_its_call_in_the_words_of_the_conventions() {
    let mut collector = collector();
    let answer = format!("{BEGIN}{}{CHAT_END}", chat("canary-answer"));
    let refused = crate::prompt::refusal("400 Bad Request", "", "{}");
    let (port, _seen) = provider(vec![Says::All(answer), Says::All(refused)]);
    let head = format!("traces.endpoint = \"{}\"\n", collector.endpoint());
    let (bed, _dir) = bed_of(port, &head, "");
    let ask = json!({ "prompt": { "text": "canary-question", "model": "chat" } });
    bed.wait(submitted(&bed, &[("traceparent", &parent())], &ask));
    let call = collector.until(1, "chat m-1").remove(0);
    let attempt = collector.until(1, "attempt prompt").remove(0);
    assert_eq!((call.kind, hex(&call.trace_id)), (3, TRACE.to_owned()));
    assert_eq!(call.parent_span_id, attempt.span_id);
    assert!(call.status.is_none(), "{call:?}");
    let facts = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "one"),
        ("gen_ai.request.model", "m-1"),
        ("gen_ai.usage.input_tokens", "7"),
        ("gen_ai.usage.output_tokens", "2"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port.to_string()),
    ];
    knows(&call, &facts);
    assert!(call.start_time_unix_nano >= attempt.start_time_unix_nano);
    assert!(
        call.end_time_unix_nano <= attempt.end_time_unix_nano,
        "{call:?} {attempt:?}"
    );
    let wait = collector.until(1, "wait prompt").remove(0);
    knows(&wait, &[("taskdaemon.wait.reason", "model")]);
    bed.wait(bed.submit(&ask));
    let call = collector.until(2, "chat m-1").remove(1);
    knows(&call, &[("error.type", "rejected")]);
    assert_eq!(call.status.as_ref().map(|status| status.code), Some(2));
    let all = format!("{:?}", collector.spans);
    assert!(!all.contains("canary") && !all.contains(KEY), "{all}");
    let told = log(&bed);
    let line = told
        .lines()
        .find(|line| line.contains("the call of attempt 1 was answered"));
    assert!(
        line.expect("a line").contains(&format!("trace_id={TRACE}")),
        "{told}"
    );
}

#[test]
fn a_relayed_call_is_a_child_of_the_attempt_that_asks_or_of_what_it_says() {
    let mut collector = collector();
    let (port, _seen) = provider(vec![relay::whole(), relay::whole(), relay::whole()]);
    let head = format!(
        "traces.endpoint = \"{}\"\n[llm]\nlisten = \"127.0.0.1:0\"\n",
        collector.endpoint()
    );
    let (bed, _dir, asker) = relay::begin_with(port, &head, "");
    let (status, body) = asker.chat(&relay::question());
    assert_eq!(status, 200, "{body}");
    let call = collector.until(1, "chat m-1").remove(0);
    let facts = [
        ("gen_ai.provider.name", "one"),
        ("gen_ai.usage.input_tokens", "7"),
        ("gen_ai.usage.output_tokens", "2"),
        ("taskdaemon.attempt", "1"),
    ];
    knows(&call, &facts);
    // A program that traces itself says where it is; another trace is none of ours.
    let own = hex(&call.trace_id);
    for trace in [&*own, TRACE] {
        let mut stream = TcpStream::connect(&asker.at).expect("connect");
        let (badge, body) = (&asker.badge, relay::question().to_string());
        let length = body.len();
        write!(
            stream,
            "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Authorization: Bearer {badge}\r\ntraceparent: 00-{trace}-{PARENT}-01\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let calls = collector.until(3, "chat m-1");
    assert!(calls.iter().all(|call| hex(&call.trace_id) == own));
    assert_eq!(hex(&calls[1].parent_span_id), PARENT);
    assert_eq!(calls[2].parent_span_id, call.parent_span_id);
    let cancel = format!("/v1/tasks/{}/cancel", asker.id);
    assert_eq!(bed.post(&cancel, &Value::Null).expect("cancel").0, 200);
    let attempt = collector.until(1, "attempt default").remove(0);
    assert_eq!(call.parent_span_id, attempt.span_id);
    assert_eq!(call.trace_id, attempt.trace_id);
    // Nobody failed.
    knows(&attempt, &[("taskdaemon.class", "cancelled")]);
    assert!(attempt.status.is_none(), "{attempt:?}");
}
