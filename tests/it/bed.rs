//! A real daemon on a throw-away directory, and a plain HTTP client for it.
//!
//! The daemon is started by hand, so it starts a runner of its own, and tasks
//! run as the user that runs the tests. Everything is ended when the bed is
//! dropped, by the pids it knows.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    daemon: Option<Child>,
    settings: Vec<(String, String)>,
    /// Where the state is, if not in `dir`.
    state: Option<PathBuf>,
}

impl Bed {
    /// A running daemon with settings as environment variables name them,
    /// such as `("ENGINE__SLOTS", "4")`.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings = settings.iter().map(own).collect();
        let mut bed = Self {
            dir,
            daemon: None,
            settings,
            state: None,
        };
        bed.restart();
        bed
    }

    /// Changes a setting for the next start.
    pub(crate) fn change(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Has the next daemon keep its state elsewhere.
    pub(crate) fn place_state(&mut self, dir: &Path) {
        self.state = Some(dir.to_owned());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/api.sock")
    }

    /// The command that runs this bed's daemon.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
        command
            .arg("run")
            .arg("--state-dir")
            .arg(self.state.clone().unwrap_or_else(|| self.path("state")))
            .arg("--runtime-dir")
            .arg(self.path("run"))
            .env("TASKDAEMON_RUN__USERS", "own")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log());
        for (name, value) in &self.settings {
            command.env(format!("TASKDAEMON_{name}"), value);
        }
        command
    }

    fn log(&self) -> std::fs::File {
        let mut options = std::fs::OpenOptions::new();
        options
            .append(true)
            .create(true)
            .open(self.path("log"))
            .expect("log")
    }

    /// Starts a daemon where none runs, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        assert!(self.daemon.is_none());
        self.daemon = Some(self.command().spawn().expect("start"));
        self.until("the daemon answers", |bed| {
            bed.get("/ready").is_ok_and(|(status, _)| status == 200)
        });
    }

    /// Starts a daemon that may have to wait for something before it is ready.
    pub(crate) fn start_again(&mut self) {
        assert!(self.daemon.is_none());
        self.daemon = Some(self.command().spawn().expect("start"));
        self.until("the daemon lives", |bed| {
            bed.get("/live").is_ok_and(|(status, _)| status == 200)
        });
    }

    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        let id = self.daemon.as_ref().expect("a daemon").id();
        nix::unistd::Pid::from_raw(i32::try_from(id).expect("pid"))
    }

    /// Ends the daemon with a signal and returns its exit code, if it has one.
    pub(crate) fn end(&mut self, signal: nix::sys::signal::Signal) -> Option<i32> {
        nix::sys::signal::kill(self.pid(), signal).expect("signal");
        self.daemon
            .take()
            .expect("a daemon")
            .wait()
            .expect("wait")
            .code()
    }

    pub(crate) fn kill(&mut self) {
        self.end(nix::sys::signal::Signal::SIGKILL);
    }

    /// Waits for something that must come true.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = taskdaemon::clock::instant();
        while !holds(self) {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain until {what}\n{log}"
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(crate) fn get(&self, path: &str) -> io::Result<(u16, Value)> {
        request(&self.socket(), "GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        request(&self.socket(), "POST", path, Some(body))
    }

    /// Submits a shell line and returns the task's number.
    pub(crate) fn submit(&self, body: &Value) -> i64 {
        let (status, answer) = self.post("/v1/tasks", body).expect("submit");
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_i64().expect("a number")
    }

    /// Waits until a task is over, across restarts of the daemon.
    pub(crate) fn wait(&self, id: i64) -> Value {
        let mut last = Value::Null;
        self.until("the task is over", |bed| {
            bed.get(&format!("/v1/tasks/{id}"))
                .is_ok_and(|(status, task)| {
                    last = task;
                    status == 200 && !last["ended_at"].is_null()
                })
        });
        last
    }

    pub(crate) fn output(&self, id: i64) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.socket()).expect("connect");
        write!(
            stream,
            "GET /v1/tasks/{id}/log HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .expect("ask");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("read");
        parse(&answer).expect("an answer").1
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let runner = self
            .get("/v1/status")
            .ok()
            .and_then(|(_, s)| s["runner"]["pid"].as_i64());
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.kill());
            drop(daemon.wait());
        }
        // It may have outlived its daemon, or not have met it yet.
        let socket = self.path("run/runner.sock");
        let told = taskdaemon::run::own::end(&socket, Duration::ZERO);
        if let (Ok(None) | Err(_), Some(pid)) =
            (told, runner.and_then(|pid| i32::try_from(pid).ok()))
        {
            // It ends its tasks and then itself; it may have done so already.
            let pid = nix::unistd::Pid::from_raw(pid);
            let _gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).is_err();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            drop(writeln!(io::stderr(), "the daemon's log:\n{log}"));
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn request(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> io::Result<(u16, Value)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let (status, body) = parse(&answer)?;
    // What is no JSON is text.
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    Ok((
        status,
        serde_json::from_slice(&body).unwrap_or_else(|_| text()),
    ))
}

/// Status and body of an answer, chunked or not.
fn parse(answer: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "half an answer");
    let end = answer
        .windows(4)
        .position(|part| part == b"\r\n\r\n")
        .ok_or_else(broken)?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(broken)?;
    let mut rest = &answer[end + 4..];
    if let Some(length) = head.split("content-length: ").nth(1) {
        let length: usize = length
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .parse()
            .map_err(|_| broken())?;
        return rest
            .get(..length)
            .map(|body| (status, body.to_vec()))
            .ok_or_else(broken);
    }
    if !head.contains("transfer-encoding: chunked") {
        return Ok((status, rest.to_vec()));
    }
    let mut body = Vec::new();
    loop {
        let line = rest
            .windows(2)
            .position(|part| part == b"\r\n")
            .ok_or_else(broken)?;
        let size = std::str::from_utf8(&rest[..line]).map_err(|_| broken())?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| broken())?;
        if size == 0 {
            return Ok((status, body));
        }
        let chunk = rest.get(line + 2..line + 2 + size).ok_or_else(broken)?;
        body.extend_from_slice(chunk);
        rest = rest.get(line + 4 + size..).ok_or_else(broken)?;
    }
}

/// A daemon that had ended, or was ready a moment ago, left its runner behind when its test was over. The runner ends by
/// itself after five seconds without a daemon and tasks; that is not what is waited for here.
#[test]
fn a_bed_leaves_no_runner_behind() {
    for ends in [false, true] {
        let mut bed = Bed::start(&[]);
        let id = bed.submit(&serde_json::json!({ "command": ["true"] }));
        bed.wait(id);
        let (_, status) = bed.get("/v1/status").expect("status");
        let runner = status["runner"]["pid"].as_i64().expect("a runner");
        let runner = nix::unistd::Pid::from_raw(i32::try_from(runner).expect("pid"));
        bed.end(nix::sys::signal::Signal::SIGTERM);
        if !ends {
            // It answers before it has met the runner again.
            bed.restart();
        }
        drop(bed);
        let start = taskdaemon::clock::instant();
        // Whoever reaps it is not this process, so its number is free when it has ended.
        while nix::sys::signal::kill(runner, None).is_ok() && !is_over(runner) {
            let waited = start.elapsed();
            assert!(
                waited < Duration::from_secs(3),
                "the runner {runner} lives on"
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Whether all that is left of a process is its number.
fn is_over(pid: nix::unistd::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}
