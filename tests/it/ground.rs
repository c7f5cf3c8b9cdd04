//! A directory on which `taskdaemon start` puts daemons, as an administrator
//! without a service manager would. What was started is ended with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bed::request;
use crate::cli::text;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Ground {
    dir: tempfile::TempDir,
    /// Settings as environment variables name them.
    settings: Vec<(&'static str, String)>,
}

impl Ground {
    pub(crate) fn new(settings: &[(&'static str, &str)]) -> Self {
        let own = |(name, value): &(&'static str, &str)| (*name, (*value).to_owned());
        Self {
            dir: tempfile::tempdir().expect("directory"),
            settings: settings.iter().map(own).collect(),
        }
    }

    /// Sets something for the next start.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.settings.push((name, value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.path("pid")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskdaemon"));
        command
            .args(arguments)
            .env("TASKDAEMON_RUN__USERS", "own")
            .env("TASKDAEMON_STATE_DIR", self.path("state"))
            .env("TASKDAEMON_RUNTIME_DIR", self.path("run"))
            .env("TASKDAEMON_HOST", self.socket())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        for (name, value) in &self.settings {
            command.env(format!("TASKDAEMON_{name}"), value);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run")
    }

    /// A verb with this ground's pid file: its code, and all that it printed.
    pub(crate) fn verb(&self, verb: &str, more: &[&str]) -> (i32, String) {
        self.verb_at(&self.pid_file(), verb, more)
    }

    pub(crate) fn verb_at(&self, pid_file: &Path, verb: &str, more: &[&str]) -> (i32, String) {
        let pid_file = pid_file.display().to_string();
        let mut arguments = vec![verb, "--pid-file", &pid_file];
        arguments.extend_from_slice(more);
        let output = self.run(&arguments);
        let said = text(&output.stdout) + &text(&output.stderr);
        (output.status.code().expect("a code"), said)
    }

    /// Starts in the background, which must work, and returns the number of
    /// what holds the pid file.
    pub(crate) fn start(&self, more: &[&str]) -> i32 {
        let log = self.path("log").display().to_string();
        let mut all = vec!["--fork", "--stderr", &log];
        all.extend_from_slice(more);
        let (code, said) = self.verb("start", &all);
        assert_eq!(code, 0, "{said}\n{}", self.log());
        let pid = said.trim().rsplit(' ').next().expect("a word");
        pid.parse().expect(&said)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/api.sock")
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let (status, body) = request(&self.socket(), "GET", path, None).ok()?;
        (status == 200).then_some(body)
    }

    /// The daemon's own number, once it answers.
    pub(crate) fn daemon(&self) -> i32 {
        let mut pid = None;
        self.until("the daemon answers", || {
            pid = self
                .get("/v1/status")
                .and_then(|status| status["pid"].as_i64());
            pid.is_some()
        });
        i32::try_from(pid.expect("a number")).expect("small")
    }

    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = taskdaemon::clock::instant();
        while !holds() {
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain until {what}\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Of everything that a test has started here.
        let (_, _) = self.verb("stop", &["--tasks"]);
    }
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("signal");
}

/// Whether a process is there and has anything left. Its first thread may be a
/// zombie while others still end: until they have, its locks are held.
pub(crate) fn lives(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    threads > 1 || stat(pid).is_some_and(|fields| fields[0] != "Z")
}

/// The fields of `/proc/PID/stat` behind the name: state, parent, group,
/// session, terminal.
pub(crate) fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// A file with this text, that only its owner may write to.
pub(crate) fn write(path: &Path, text: &str) -> File {
    fs::write(path, text).expect("write");
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("open")
}
