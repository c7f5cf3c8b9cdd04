//! Calls of models as the runner makes them: several in one process, each with its own line, output and end. The provider
//! is here; it keeps connections open, counts them, and answers when it is told to.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use taskdaemon::model::attempt::{Ended, Exit, Launch};
use taskdaemon::runner::protocol::{FromRunner, ToRunner};
use taskdaemon::runner::{CgroupMode, Options};
use tokio_rustls::rustls::{ServerConnection, StreamOwned};

use crate::hooks_live::{tls_config, tls_file};
use crate::prompt::{CHAT_END, chat};
use crate::runner::{DEADLINE, Daemon, Running, code, gone, key, launch, modes, options};

/// What a provider has seen, and whether it answers.
#[derive(Debug, Default)]
struct State {
    open: bool,
    connections: u32,
    asked: u32,
    /// Connections that were closed before they were answered.
    left: u32,
}

/// Answers every question in the same way.
struct Provider {
    port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Provider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || converse(&stream.unwrap(), &shared));
            }
        });
        Self { port, state }
    }

    /// Whether it answers, from now on.
    fn answers(&self, open: bool) {
        self.state.0.lock().unwrap().open = open;
        self.state.1.notify_all();
    }

    /// Waits until this is so.
    fn until(&self, holds: impl Fn(&State) -> bool) {
        let state = self.state.0.lock().unwrap();
        let wait = self
            .state
            .1
            .wait_timeout_while(state, DEADLINE, |state| !holds(state));
        let (state, late) = wait.unwrap();
        assert!(!late.timed_out(), "{state:?}");
    }

    /// A call of it, and what it reads.
    fn call(&self, task: i64) -> (Launch, File) {
        let mut call = launch(task, &[env!("CARGO_BIN_EXE_taskdaemon"), "call"]);
        (call.own, call.stdin) = (true, true);
        let order = json!({
            "dialect": "openai", "base_url": format!("http://127.0.0.1:{}/v1", self.port), "key": "k",
            "model": "m", "system": null, "text": task.to_string(), "max_tokens": 5, "first_ms": 20_000,
            "idle_ms": 20_000,
        });
        let mut input = tempfile::tempfile().unwrap();
        write!(input, "{order}").unwrap();
        input.rewind().unwrap();
        (call, input)
    }
}

/// Answers one question after the other, as long as somebody asks.
fn converse(stream: &TcpStream, shared: &(Mutex<State>, Condvar)) {
    let (state, changed) = shared;
    let change = |how: &dyn Fn(&mut State)| {
        how(&mut state.lock().unwrap());
        changed.notify_all();
    };
    change(&|state| state.connections += 1);
    let mut reader = BufReader::new(stream);
    while read(&mut reader).is_some() {
        change(&|state| state.asked += 1);
        let mut now = state.lock().unwrap();
        while !now.open {
            (now, _) = changed
                .wait_timeout(now, Duration::from_millis(20))
                .unwrap();
            stream.set_nonblocking(true).unwrap();
            let closed = matches!(stream.peek(&mut [0]), Ok(0));
            stream.set_nonblocking(false).unwrap();
            if closed {
                now.left += 1;
                changed.notify_all();
                return;
            }
        }
        drop(now);
        let body = format!("{}{CHAT_END}", chat("word"));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
        let sent = write!(
            &*stream,
            "{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if sent.is_err() {
            return;
        }
    }
}

/// Reads a question, if there is one.
fn read(reader: &mut impl BufRead) -> Option<()> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()
}

fn ask(running: &Running, daemon: &mut Daemon, provider: &Provider, task: i64) -> Pid {
    let (call, input) = provider.call(task);
    running.launch_with(daemon, call, Some(input));
    let started = daemon.started(key(task));
    Pid::from_raw(started.pid.cast_signed())
}

/// The ends of so many attempts, by task.
fn ends(daemon: &mut Daemon, count: usize) -> BTreeMap<i64, Ended> {
    let mut ends = BTreeMap::new();
    while ends.len() < count {
        if let FromRunner::Ended { key, ended, .. } = daemon.recv() {
            ends.insert(key.task.0, ended);
            daemon.send(&ToRunner::Ack { key });
        }
    }
    ends
}

fn begin(cgroup: CgroupMode) -> (Provider, Running, Daemon) {
    let running = Running::start(&Options {
        cgroup,
        ..options()
    });
    let daemon = running.daemon();
    (Provider::start(), running, daemon)
}

#[test]
fn calls_share_processes_and_are_lost_with_their_own_alone() {
    for cgroup in modes() {
        let (provider, running, mut daemon) = begin(cgroup);
        let pids: Vec<_> = (1..=20)
            .map(|task| ask(&running, &mut daemon, &provider, task))
            .collect();
        let (first, last) = (pids[0], pids[19]);
        assert!(pids[..16].iter().all(|pid| *pid == first), "{pids:?}");
        assert!(pids[16..].iter().all(|pid| *pid == last), "{pids:?}");
        assert_ne!(first, last);
        provider.until(|state| state.asked == 20);
        kill(last, Signal::SIGKILL).unwrap();
        let lost = ends(&mut daemon, 4);
        for task in 17..=20 {
            assert_eq!(lost[&task].exit, Exit::Lost);
            assert!(lost[&task].receipt.is_none());
        }
        // Whoever comes next finds room elsewhere.
        let next = ask(&running, &mut daemon, &provider, 21);
        assert!(next != first && next != last, "{next} {first} {last}");
        provider.answers(true);
        let ended = ends(&mut daemon, 17);
        for (task, ended) in &ended {
            assert_eq!(code(ended), 0);
            assert_eq!(running.output(*task).text(), "word");
            assert_eq!(ended.receipt.as_ref().unwrap().output, Some(2));
        }
        assert_eq!(ended.len(), 17);
    }
}

#[test]
fn a_process_of_calls_has_a_group_of_its_own_and_ends_with_its_runner() {
    for cgroup in modes() {
        let (provider, running, mut daemon) = begin(cgroup);
        provider.answers(true);
        let (call, input) = provider.call(1);
        running.launch_with(&mut daemon, call, Some(input));
        let started = daemon.started(key(1));
        assert_eq!(code(&ends(&mut daemon, 1)[&1]), 0);
        let group = started.cgroup.as_deref();
        assert_eq!(group.is_some(), cgroup == CgroupMode::Require);
        assert!(
            group.is_none_or(|group| group.ends_with("/calls-1")),
            "{group:?}"
        );
        kill(running.pid(), Signal::SIGTERM).unwrap();
        assert_eq!(running.exit_code(), Some(0));
        assert!(gone(Pid::from_raw(started.pid.cast_signed())));
        let left = group.map(|group| Path::new("/sys/fs/cgroup").join(&group[1..]));
        assert!(left.is_none_or(|left| !left.exists()));
    }
}

#[test]
fn a_process_without_calls_ends() {
    let (provider, running, mut daemon) = begin(CgroupMode::Off);
    provider.answers(true);
    let pid = ask(&running, &mut daemon, &provider, 1);
    assert_eq!(code(&ends(&mut daemon, 1)[&1]), 0);
    assert!(gone(pid));
}

#[test]
fn a_call_that_is_ended_leaves_the_others_and_its_provider_hears_of_it() {
    let (provider, running, mut daemon) = begin(CgroupMode::Off);
    for task in 1..=3 {
        ask(&running, &mut daemon, &provider, task);
    }
    provider.until(|state| state.asked == 3);
    daemon.send(&ToRunner::Signal {
        key: key(1),
        signal: 15,
    });
    daemon.send(&ToRunner::Kill { key: key(2) });
    let ended = ends(&mut daemon, 2);
    assert_eq!(ended[&1].exit, Exit::Signal { signal: 15 });
    assert_eq!(ended[&2].exit, Exit::Signal { signal: 9 });
    provider.until(|state| state.left == 2);
    provider.answers(true);
    assert_eq!(code(&ends(&mut daemon, 1)[&3]), 0);
}

#[test]
fn a_frozen_call_stands_still_and_goes_on() {
    let (provider, running, mut daemon) = begin(CgroupMode::Off);
    ask(&running, &mut daemon, &provider, 1);
    ask(&running, &mut daemon, &provider, 2);
    provider.until(|state| state.asked == 2);
    daemon.send(&ToRunner::Freeze { key: key(1) });
    // The runner has read that when it says this.
    daemon.send(&ToRunner::Kill { key: key(2) });
    assert_eq!(ends(&mut daemon, 1)[&2].exit, Exit::Signal { signal: 9 });
    provider.until(|state| state.left == 1);
    provider.answers(true);
    let socket = daemon.receiver.stream();
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(daemon.receiver.recv().is_err(), "it went on");
    let socket = daemon.receiver.stream();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    daemon.send(&ToRunner::Thaw { key: key(1) });
    assert_eq!(code(&ends(&mut daemon, 1)[&1]), 0);
}

#[test]
fn a_call_goes_on_over_a_renewal_and_the_next_has_another_process() {
    for cgroup in modes() {
        let (provider, running, mut daemon) = begin(cgroup);
        let old = ask(&running, &mut daemon, &provider, 1);
        provider.until(|state| state.asked == 1);
        for _ in 0..2 {
            daemon.send(&ToRunner::Renew);
            daemon.hung_up();
            daemon = running.daemon();
            let started = daemon.started(key(1));
            assert_eq!(started.pid.cast_signed(), old.as_raw());
        }
        let new = ask(&running, &mut daemon, &provider, 2);
        assert_ne!(old, new);
        provider.answers(true);
        for (task, ended) in ends(&mut daemon, 2) {
            assert_eq!(code(&ended), 0);
            assert_eq!(ended.receipt.unwrap().output, Some(2), "{task}");
            assert_eq!(running.output(task).text(), "word");
        }
        // It is of the program before, and has nothing left to do.
        assert!(gone(old));
    }
}

#[test]
fn calls_use_a_connection_again() {
    let (provider, running, mut daemon) = begin(CgroupMode::Off);
    provider.answers(true);
    for task in 1..=5 {
        ask(&running, &mut daemon, &provider, task);
        assert_eq!(code(&ends(&mut daemon, 1)[&task]), 0);
    }
    provider.until(|state| state.asked == 5);
    assert_eq!(provider.state.0.lock().unwrap().connections, 1);
}

/// A provider that speaks TLS and gives these answers, one after the other; who connected is counted.
fn secure(answers: [&'static str; 2]) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicU32::new(0));
    let (counted, config) = (Arc::clone(&connections), tls_config());
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(session, stream.unwrap());
            while read(&mut BufReader::new(&mut stream)).is_some() {
                let body = format!("{}{CHAT_END}", chat(answers.next().unwrap()));
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
                let length = body.len();
                write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
                stream.flush().unwrap();
            }
        }
    });
    (port, connections)
}

/// Makes a call by hand, of a host that trusts these certificates.
fn call_by_hand(port: u16, certificates: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .arg("call")
        .env("SSL_CERT_FILE", certificates)
        .env("SSL_CERT_DIR", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let order = json!({
        "dialect": "openai", "base_url": format!("https://localhost:{port}/v1"), "key": "k", "model": "m",
        "system": null, "text": "?", "max_tokens": 5, "first_ms": 20_000, "idle_ms": 20_000,
        "schema": {"type": "object"}, "repairs": 1,
    });
    write!(child.stdin.take().unwrap(), "{order}").unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_provider_is_believed_by_its_certificate_once_for_several_questions() {
    let (port, connections) = secure(["no object", "{}"]);
    let output = call_by_hand(port, &tls_file("ca.pem"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(output.stdout, b"{}\n", "{said}");
    assert_eq!(connections.load(Ordering::Relaxed), 1, "{said}");
    let output = call_by_hand(port, "/dev/null");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("trusts no certificates"), "{said}");
    assert!(output.stdout.is_empty());
}
