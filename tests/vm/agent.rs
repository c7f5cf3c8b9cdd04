//! Commands for a machine, by way of the agent that runs in it: JSON, a line each way, over a serial port of the
//! virtual machine. Nothing of it needs a network, a login or a console.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

/// Longest time between a question and its answer, also where the machine sleeps in between.
const ANSWER: Duration = Duration::from_secs(45);
/// How long an agent that has not answered is asked whether it is still there: a machine that falls asleep can lose what
/// is on its way.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command in the machine came to.
#[derive(Debug)]
pub(crate) struct Done {
    /// Exit code; 128 + the signal where one ended it.
    pub(crate) code: i64,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The agent of one machine, over its boots.
pub(crate) struct Agent {
    socket: PathBuf,
    stream: Option<BufReader<UnixStream>>,
    questions: u64,
}

impl Agent {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            stream: None,
            questions: 0,
        }
    }

    /// Waits until the agent of this boot answers.
    pub(crate) fn meet(&mut self, limit: Duration) {
        assert!(self.met(limit), "no agent answers after {limit:?}");
    }

    /// Whether an agent answers in that time.
    fn met(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        while !self.greeted() {
            if start.elapsed() >= limit {
                return false;
            }
        }
        true
    }

    /// Tries to get an answer that is to this question and no earlier one.
    fn greeted(&mut self) -> bool {
        self.stream = None;
        let Ok(stream) = UnixStream::connect(&self.socket) else {
            std::thread::sleep(Duration::from_millis(100));
            return false;
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .expect("time limit");
        self.stream = Some(BufReader::new(stream));
        self.questions += 1;
        let id = self.questions;
        if !self.say(&json!({"execute": "guest-sync", "arguments": {"id": id}})) {
            return false;
        }
        loop {
            match self.hear() {
                Some(answer) if answer["return"] == id => break,
                Some(_) => {}
                None => return false,
            }
        }
        let stream = self.stream.as_ref().expect("connected").get_ref();
        stream.set_read_timeout(Some(ANSWER)).expect("time limit");
        true
    }

    fn say(&mut self, message: &Value) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        let mut line = message.to_string();
        line.push('\n');
        stream.get_mut().write_all(line.as_bytes()).is_ok()
    }

    /// The next line that is JSON; an agent that starts may find halves of lines for an earlier one.
    fn hear(&mut self) -> Option<Value> {
        let stream = self.stream.as_mut()?;
        loop {
            let mut line = Vec::new();
            match stream.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return None,
            }
            if let Ok(value) = serde_json::from_slice(&line) {
                return Some(value);
            }
        }
    }

    /// Asks, and gives the answer or the refusal; none when the machine is gone.
    fn asked(&mut self, message: &Value) -> Option<Value> {
        self.say(message).then(|| self.hear()).flatten()
    }

    fn ask(&mut self, message: &Value) -> Option<Value> {
        self.asked(message).map(|answer| {
            assert!(
                answer.get("error").is_none(),
                "the agent refuses {message}: {answer}"
            );
            answer["return"].clone()
        })
    }

    /// Runs a command in the machine; none when the machine is gone before its end was seen.
    pub(crate) fn run(&mut self, words: &[&str]) -> Option<Done> {
        let (program, arguments) = words.split_first().expect("a program");
        let env = [
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C.UTF-8",
            "HOME=/root",
        ];
        let begun = self.ask(&json!({"execute": "guest-exec", "arguments": {
            "path": program, "arg": arguments, "env": env, "capture-output": true,
        }}))?;
        let question = json!({"execute": "guest-exec-status", "arguments": {"pid": begun["pid"]}});
        let mut pause = Duration::from_millis(4);
        loop {
            let Some(answer) = self.asked(&question) else {
                self.met(PATIENCE).then_some(())?;
                continue;
            };
            // The agent of the next boot does not know what the one before it began.
            let state = answer.get("return")?;
            if state["exited"] == true {
                return Some(done(state));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

fn done(state: &Value) -> Done {
    let text = |field: &str| {
        let bytes = BASE64
            .decode(state[field].as_str().unwrap_or_default())
            .expect("base64");
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    };
    Done {
        code: state["exitcode"]
            .as_i64()
            .or_else(|| state["signal"].as_i64().map(|signal| 128 + signal))
            .unwrap_or(-1),
        out: text("out-data"),
        err: text("err-data"),
    }
}
