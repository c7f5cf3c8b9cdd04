//! A mixed load: clients that submit with keys, and repeat with the same key until they are answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::request;
use crate::draw::Draws;
use crate::host::{Host, append};
use crate::journal::{Fate, mark};

/// Label of tasks that may be removed once they are over.
pub(crate) const SWEPT: &str = "swept";
/// Pause of a client between two submits: what is tested is faults, not throughput.
const PAUSE: Duration = Duration::from_millis(40);
/// Pause before the same submit is repeated.
const AGAIN: Duration = Duration::from_millis(5);

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

/// What one client needs to know of the host, which is another thread's.
struct Client {
    name: String,
    socket: PathBuf,
    journal: PathBuf,
    marks: PathBuf,
    stop: Arc<AtomicBool>,
    draws: Draws,
}

impl Load {
    /// Starts so many clients; `name` tells their keys from those of a load before.
    pub(crate) fn start(host: &Host, name: &str, clients: u64, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |number: u64| {
            let mut client = Client {
                name: format!("{name}{number}"),
                socket: host.socket(),
                journal: host.path("acknowledged"),
                marks: host.path("marks"),
                stop: Arc::clone(&stop),
                draws: Draws::new(seed ^ (number << 32)),
            };
            std::thread::spawn(move || client.work())
        };
        Self {
            clients: (0..clients).map(start).collect(),
            stop,
        }
    }

    /// Lets each client finish what it has begun, and waits for that.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client");
        }
    }
}

impl Client {
    fn work(&mut self) {
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let key = format!("{}-{number}", self.name);
            match self.draws.below(8) {
                0 => self.submit_graph(&key),
                1 => self.cancel(&key),
                2 => self.submit_one(
                    &key,
                    "test $TASKDAEMON_ATTEMPT -ge 2",
                    &retrying(),
                    Fate::Succeeds,
                ),
                3 => {
                    let hook = self.marking(&format!("{key}-hook"), "true");
                    let more = json!({"hooks": [{"command": ["sh", "-c", hook]}]});
                    self.submit_one(&key, "true", &more, Fate::Succeeds);
                }
                4 | 5 => {
                    let more = json!({"labels": {SWEPT: "yes"}});
                    self.submit_one(&key, "true", &more, Fate::Swept);
                }
                6 => self.submit_one(&key, "sleep 0.2", &json!({"priority": 3}), Fate::Succeeds),
                _ => self.submit_one(&key, "true", &json!({"group": "one"}), Fate::Succeeds),
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    /// A shell line that says of itself that it runs, and does something then.
    fn marking(&self, key: &str, line: &str) -> String {
        let marks = self.marks.display();
        format!("echo {key} $TASKDAEMON_ATTEMPT >> {marks}; {line}")
    }

    fn body(&self, key: &str, line: &str) -> Value {
        json!({"key": key, "command": ["sh", "-c", self.marking(key, line)]})
    }

    fn submit_one(&self, key: &str, line: &str, more: &Value, fate: Fate) {
        let mut body = self.body(key, line);
        let fields = more.as_object().cloned().unwrap_or_default();
        body.as_object_mut().expect("an object").extend(fields);
        let answer = self.insist("/v1/tasks", &body);
        self.note(key, &answer, fate);
    }

    /// Three tasks in a row, in one request.
    fn submit_graph(&self, key: &str) {
        let keys = ["a", "b", "c"].map(|name| format!("{key}-{name}"));
        let mut tasks = keys.clone().map(|key| self.body(&key, "true"));
        for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
            tasks[index]["ref"] = json!(name);
        }
        tasks[1]["after"] = json!(["a"]);
        tasks[2]["after"] = json!(["b:any", "a"]);
        let answer = self.insist("/v1/tasks", &json!({"tasks": tasks}));
        for (index, key) in keys.iter().enumerate() {
            self.note(key, &answer["tasks"][index], Fate::Succeeds);
        }
    }

    /// A task that would run for long, cancelled at some time.
    fn cancel(&self, key: &str) {
        let body = self.body(key, "exec sleep 600");
        let answer = self.insist("/v1/tasks", &body);
        std::thread::park_timeout(PAUSE);
        let id = answer["id"].as_i64().expect("a number");
        self.insist(&format!("/v1/tasks/{id}/cancel"), &json!({}));
        self.note(key, &answer, Fate::Cancelled);
    }

    /// Asks until there is an answer that says yes, or that it is so already.
    fn insist(&self, path: &str, body: &Value) -> Value {
        loop {
            match request(&self.socket, "POST", path, Some(body)) {
                Ok((200..=202, answer)) => return answer,
                Ok((409, answer)) if path.ends_with("/cancel") => return answer,
                Ok((status @ (429 | 500..), _)) if status != 501 => {}
                Ok((status, answer)) => panic!("{path} {body}: {status} {answer}"),
                // The daemon is not there, or went away before it answered.
                Err(_) => {}
            }
            std::thread::park_timeout(AGAIN);
        }
    }

    fn note(&self, key: &str, answer: &Value, fate: Fate) {
        use std::io::Write as _;

        let id = answer["id"].as_i64().expect("a number");
        let line = format!("{key} {id} {}\n", fate.word());
        let mut file = append(&self.journal);
        file.write_all(line.as_bytes()).expect("write it down");
    }
}

fn retrying() -> Value {
    json!({"retry": {"max_attempts": 3, "backoff": "10ms"}})
}

/// One task whose fate is to succeed, for tests that need no clients.
pub(crate) fn one(host: &Host, key: &str) -> Value {
    let line = mark(host, key);
    json!({"key": key, "command": ["sh", "-c", line]})
}
