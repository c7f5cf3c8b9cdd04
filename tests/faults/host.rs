//! A daemon that faults are done to: started by hand on a state directory of choice, killed, started again.
//!
//! What is outside of the host's directory of state outlives every fault: the journal of what was acknowledged, the
//! marks that tasks set, the log.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use taskdaemon::clock;

use crate::bed::request;

/// Longest wait for anything that must happen, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// A daemon and its directories.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    state: PathBuf,
    variables: Vec<(String, String)>,
    /// What the daemon is run by, such as a tracer.
    under: Vec<String>,
    daemon: Option<Child>,
}

impl Host {
    /// One whose daemon does not run yet.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let mut host = Self {
            state: dir.path().join("state"),
            dir,
            variables: Vec::new(),
            under: Vec::new(),
            daemon: None,
        };
        // By which its processes are found, also a runner that outlives its daemon.
        let mark = host.path("").display().to_string();
        host.set("FAULTS_HOST", &mark);
        host.set("TASKDAEMON_RUN__USERS", "own");
        host.set("TASKDAEMON_ENGINE__SLOTS", "16");
        host.set("TASKDAEMON_STORE__BALLAST", "1MiB");
        host
    }

    /// One whose daemon runs.
    pub(crate) fn started() -> Self {
        let mut host = Self::new();
        host.start();
        host
    }

    /// Sets a variable of the next daemon's environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Has the next daemon keep its state elsewhere.
    pub(crate) fn place_state(&mut self, dir: &Path) {
        dir.clone_into(&mut self.state);
    }

    /// Has the next daemon run by another program; by none if empty.
    pub(crate) fn run_under(&mut self, command: &[&str]) {
        self.under = command.iter().map(|word| (*word).to_owned()).collect();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.state.join("taskdaemon.db")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/api.sock")
    }

    pub(crate) fn log(&self) -> String {
        fs::read(self.path("log")).map_or_else(
            |_| String::new(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The command that runs the daemon.
    pub(crate) fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_taskdaemon");
        let mut command = match self.under.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .arg("run")
            .arg("--state-dir")
            .arg(&self.state)
            .arg("--runtime-dir")
            .arg(self.path("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(append(&self.path("log")));
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }

    /// Starts the daemon, without waiting for anything.
    pub(crate) fn spawn(&mut self) {
        assert!(self.daemon.is_none(), "there is one already");
        self.daemon = Some(self.command().spawn().expect("start the daemon"));
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) fn start(&mut self) {
        self.spawn();
        self.until("the daemon is ready", Self::is_ready);
    }

    /// Runs the daemon until it ends by itself.
    pub(crate) fn run_to_end(&mut self) -> ExitStatus {
        self.spawn();
        self.ended()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.get("/ready").is_ok_and(|(status, _)| status == 200)
    }

    pub(crate) const fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    pub(crate) fn pid(&self) -> Pid {
        let id = self.daemon.as_ref().expect("a daemon").id();
        Pid::from_raw(i32::try_from(id).expect("a pid"))
    }

    /// How the daemon ended, if it did.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        let ended = self.daemon.as_mut()?.try_wait().expect("wait");
        if ended.is_some() {
            self.daemon = None;
        }
        ended
    }

    /// Waits until the daemon ends by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let start = clock::instant();
        loop {
            if let Some(status) = self.has_ended() {
                return status;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "it does not end\n{}",
                self.log()
            );
            std::thread::park_timeout(LOOK);
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("signal the daemon");
    }

    /// Kills the daemon alone, if it runs.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.kill());
            drop(daemon.wait());
        }
    }

    /// Ends every process of this host at once, as a power cut does.
    pub(crate) fn kill_all(&mut self) {
        self.kill();
        let start = clock::instant();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for pid in left {
                let _gone = kill(pid, Signal::SIGKILL).is_err();
            }
            assert!(start.elapsed() < PATIENCE, "processes that do not end");
            std::thread::park_timeout(LOOK);
        }
    }

    /// Whatever runs with this host's directory on its command line or in its environment, this process excepted.
    fn processes(&self) -> Vec<Pid> {
        let mark = self.dir.path().as_os_str().as_encoded_bytes();
        let own = Pid::this();
        let entries = fs::read_dir("/proc").expect("/proc");
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(Pid::from_raw)
            .filter(|pid| *pid != own)
            .filter(|pid| {
                ["cmdline", "environ"].iter().any(|file| {
                    let read = fs::read(format!("/proc/{pid}/{file}"));
                    read.is_ok_and(|bytes| bytes.windows(mark.len()).any(|part| part == mark))
                })
            })
            .collect()
    }

    /// The runner's pid.
    pub(crate) fn runner(&self) -> Pid {
        let mut pid = None;
        self.until("there is a runner", |host| {
            pid = host.connected();
            pid.is_some()
        });
        pid.expect("checked")
    }

    /// The pid of the runner that the daemon is connected to, if there are both.
    pub(crate) fn connected(&self) -> Option<Pid> {
        let (_, status) = self.get("/v1/status").ok()?;
        let pid = status["runner"]["pid"].as_i64()?;
        i32::try_from(pid).ok().map(Pid::from_raw)
    }

    /// Waits for something that must come true.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = clock::instant();
        while !holds(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain until {what}\n{}",
                self.log()
            );
            std::thread::park_timeout(LOOK);
        }
    }

    pub(crate) fn get(&self, path: &str) -> io::Result<(u16, Value)> {
        request(&self.socket(), "GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        request(&self.socket(), "POST", path, Some(body))
    }

    /// Submits a task that has to be accepted, and returns its number.
    pub(crate) fn submit(&self, body: &Value) -> i64 {
        let (status, answer) = self.post("/v1/tasks", body).expect("submit");
        assert!(status == 201 || status == 200, "{status} {answer}");
        answer["id"].as_i64().expect("a number")
    }

    pub(crate) fn task(&self, id: i64) -> Value {
        self.get(&format!("/v1/tasks/{id}")).expect("an answer").1
    }

    /// Waits until a task is over.
    pub(crate) fn wait(&self, id: i64) -> Value {
        let mut last = Value::Null;
        self.until("the task is over", |host| {
            let answer = host.get(&format!("/v1/tasks/{id}"));
            answer.is_ok_and(|(status, task)| {
                last = task;
                status == 200 && !last["ended_at"].is_null()
            })
        });
        last
    }

    /// Waits until nothing is unfinished, for as long as there is progress.
    pub(crate) fn settle(&self) {
        let mut before = (u64::MAX, clock::instant());
        loop {
            let open = self.unfinished().unwrap_or(u64::MAX);
            if open == 0 {
                return;
            }
            if open < before.0 {
                before = (open, clock::instant());
            }
            let waited = before.1.elapsed();
            assert!(waited < PATIENCE, "{open} tasks do not end\n{}", self.log());
            std::thread::park_timeout(LOOK);
        }
    }

    /// Tasks that are not over.
    fn unfinished(&self) -> Option<u64> {
        let (200, status) = self.get("/v1/status").ok()? else {
            return None;
        };
        let open = [
            "blocked",
            "scheduled",
            "queued",
            "running",
            "paused",
            "stopping",
        ];
        open.iter()
            .map(|state| status["tasks"][*state].as_u64())
            .sum()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(20_000);
            let from = (from..=log.len()).find(|at| log.is_char_boundary(*at));
            eprintln!("the daemon's log:\n{}", &log[from.unwrap_or_default()..]);
        }
        self.kill_all();
    }
}

/// A file that is only added to.
pub(crate) fn append(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options
        .append(true)
        .create(true)
        .open(path)
        .expect("a file to add to")
}

/// Whether a process was ended by SIGKILL.
pub(crate) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGKILL)
}
