//! Daemons and runners of different versions: neighbours work together both
//! ways, and those without a common protocol leave each other, and every task,
//! alone and say why.
//!
//! The other version is a script that speaks the protocol byte by byte, so that
//! it can say what this build never would. The runner's side is the real one.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use taskdaemon::runner::client::Connection;
use taskdaemon::runner::protocol::{Hello, ToRunner};

use crate::bed::Bed;
use crate::runner::{DEADLINE, Daemon, Gate, Running, code, key, options, shell};

/// A scripted runner that the daemon of a bed dials.
struct Script {
    listener: UnixListener,
    hello: Value,
}

impl Script {
    /// Speaks protocols `min` to `max`, and calls itself `version`.
    fn new(bed: &Bed, min: u32, max: u32, version: &str) -> Self {
        let path = bed.path("run/runner.sock");
        if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        let listener = UnixListener::bind(path).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let hello = json!({
            "say": "hello", "min": min, "max": max, "version": version, "pid": 4242,
            "instance": format!("script-{version}"), "boot": boot.trim(), "held": [],
            // As the first protocol had it: nothing was known of freezing.
            "abilities": {
                "cgroup": false, "memory": false, "cpu": false, "pids": false,
                "switch_user": false,
            },
        });
        Self { listener, hello }
    }

    /// Takes the daemon's next connection and introduces itself.
    fn meet(&self) -> Talk {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut talk = Talk(stream);
        talk.say(&self.hello);
        let hello = talk.hear().unwrap();
        assert_eq!(hello["say"], "hello", "{hello}");
        talk
    }
}

/// A connection, frame by frame.
struct Talk(UnixStream);

impl Talk {
    fn say(&mut self, message: &Value) {
        let text = message.to_string();
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        self.0.write_all(&length).unwrap();
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// The next message; none when the other side has hung up. Descriptors that
    /// come with it are closed by the kernel, for nobody asks for them.
    fn hear(&mut self) -> Option<Value> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut text = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap()];
        self.0.read_exact(&mut text).unwrap();
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Takes a launch and says that it runs.
    fn start(&mut self) -> Value {
        let launch = self.hear().unwrap();
        assert_eq!(launch["say"], "launch", "{launch}");
        let key = launch["key"].clone();
        self.say(&json!({
            "say": "started", "key": key,
            "started": {
                "pid": 4243, "uid": 0, "user": "root", "cgroup": null, "at": 1,
                "of_a_later_version": [1, 2, 3],
            },
        }));
        key
    }

    /// Says that it has ended well, and hears that this is on disk.
    fn end(&mut self, key: &Value) {
        self.say(&json!({
            "say": "ended", "key": key, "started": null,
            "ended": {
                "exit": { "how": "code", "code": 0 }, "oom": false, "interrupted": false, "at": 2,
                "usage": {
                    "cpu_micros": null, "memory_peak": null, "output_kept": 0, "output_dropped": 0,
                    "of_a_later_version": "x",
                },
            },
        }));
        let ack = self.hear().unwrap();
        assert_eq!(ack["say"], "ack", "{ack}");
        assert_eq!(ack["key"], *key, "{ack}");
    }
}

fn bed() -> Bed {
    Bed::start(&[("RUN__START_RUNNER", "never")])
}

#[test]
fn a_runner_of_the_first_protocol_serves_this_daemon() {
    let bed = bed();
    let script = Script::new(&bed, 1, 1, "0.0.1");
    let id = bed.submit(&json!({ "command": ["true"] }));
    // It is behind, so it is asked to renew itself, once; it cannot, and stays.
    let mut first = script.meet();
    let asked = first.hear().unwrap();
    assert_eq!(asked["say"], "renew", "{asked}");
    drop(first);
    let mut talk = script.meet();
    let key = talk.start();
    bed.until("it runs", |bed| {
        bed.get(&format!("/v1/tasks/{id}"))
            .is_ok_and(|(_, task)| task["state"] == "running")
    });
    // What came later is not asked of it: the next that it hears is the end of the task.
    let (status, problem) = bed
        .post(&format!("/v1/tasks/{id}/pause"), &json!({}))
        .unwrap();
    assert!((400..500).contains(&status), "{problem}");
    talk.end(&key);
    let task = bed.wait(id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["attempts"].as_array().unwrap().len(), 1, "{task}");
}

#[test]
fn a_newer_runner_that_knows_our_protocol_serves_this_daemon() {
    let bed = bed();
    let mut script = Script::new(&bed, 1, 9, "99.0.0");
    script.hello["of_a_later_version"] = json!({ "a": 1 });
    script.hello["abilities"]["of_a_later_version"] = json!(true);
    let id = bed.submit(&json!({ "command": ["true"] }));
    let mut talk = script.meet();
    // Not asked to become an older program: it is launched on at once.
    let key = talk.start();
    talk.end(&key);
    assert_eq!(bed.wait(id)["state"], "succeeded");
    let (_, status) = bed.get("/v1/status").unwrap();
    assert_eq!(status["runner"]["version"], "99.0.0", "{status}");
}

#[test]
fn a_runner_without_a_common_protocol_starts_nothing_and_the_log_says_what_to_do() {
    let bed = bed();
    let strange = Script::new(&bed, 5, 6, "99.0.0");
    let id = bed.submit(&json!({ "command": ["true"] }));
    // Each time it comes nothing but the farewell is said to it.
    for _ in 0..2 {
        assert_eq!(strange.meet().hear(), None);
    }
    let (_, task) = bed.get(&format!("/v1/tasks/{id}")).unwrap();
    assert_eq!(task["state"], "queued", "{task}");
    assert_eq!(task["reason_code"], "no_runner", "{task}");
    let log = std::fs::read_to_string(bed.path("log")).unwrap();
    for part in [
        "runner 99.0.0 speaks protocols 5 to 6, and this daemon 1 to 4",
        "restart it when its tasks are over",
    ] {
        assert!(log.contains(part), "{part:?} is not in\n{log}");
    }
    drop(strange);
    let known = Script::new(&bed, 1, 2, "99.0.1");
    let mut talk = known.meet();
    let key = talk.start();
    talk.end(&key);
    assert_eq!(bed.wait(id)["state"], "succeeded");
}

/// A runner whose log can be read.
fn logging() -> (Running, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("runner.sock")).unwrap();
    let log = dir.path().join("log");
    let child = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args(["runner", "--options"])
        .arg(serde_json::to_string(&options()).unwrap())
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    (Running { dir, child }, log)
}

#[test]
fn a_daemon_without_a_common_protocol_is_not_served_and_touches_no_task() {
    let (running, log) = logging();
    let mut daemon = running.daemon();
    let mut gate = Gate::new(&running, "gate");
    let script = format!("read x < {}; exit 8", gate.show());
    running.launch(&mut daemon, shell(1, &script));
    daemon.started(key(1));
    drop(daemon);
    let strange = Hello {
        min: 5,
        max: 6,
        version: "99.0.0".to_owned(),
        ..Hello::ours()
    };
    let mut daemon = Daemon::meet_as(Connection::connect(&running.path()).unwrap(), &strange);
    assert_eq!(daemon.hello.held, [key(1)], "it is told what there is");
    daemon.hung_up();
    let said = std::fs::read_to_string(log).unwrap();
    assert!(
        said.contains("daemon 99.0.0 speaks protocols 5 to 6, this runner"),
        "{said}"
    );
    let mut daemon = running.daemon();
    daemon.started(key(1));
    gate.file.write_all(b"\n").unwrap();
    assert_eq!(code(&daemon.ended(key(1)).1), 8);
    daemon.send(&ToRunner::Ack { key: key(1) });
}

#[test]
fn a_newer_daemon_that_knows_our_protocol_is_served() {
    let running = Running::start(&options());
    let newer = Hello {
        max: 9,
        version: "99.0.0".to_owned(),
        ..Hello::ours()
    };
    let mut daemon = Daemon::meet_as(Connection::connect(&running.path()).unwrap(), &newer);
    assert_eq!(code(&running.run(&mut daemon, shell(1, "exit 5"))), 5);
}
