//! The product under test: this checkout's own release build, started by hand
//! on a directory of its own, as a service manager would start it.

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use taskdaemon::clock;

use crate::http::{Client, Request};
use crate::process;

/// How long it may take to be ready, or to find its runner.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether anything runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// There is no runner, so that everything stays queued.
    Nothing,
    /// The daemon starts a runner, and so many tasks run at once.
    AtOnce(u32),
    /// The same, and nothing but these slots holds up what schedules make.
    Storm(u32),
}

/// The program under test: this checkout's own build, or the one that the
/// environment names.
pub(crate) fn program() -> OsString {
    std::env::var_os("TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_taskdaemon").into())
}

/// A daemon at work.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    runner: Option<u32>,
    dir: PathBuf,
    /// Its sockets, where a service manager would have them: in memory.
    runtime: tempfile::TempDir,
    /// From `exec` to READY=1.
    pub(crate) ready: Duration,
    /// From `exec` to the first answer.
    pub(crate) answered: Duration,
}

impl Daemon {
    /// Starts it on `dir`, which may hold the state of an earlier one.
    pub(crate) fn start(dir: &Path, runs: Runs) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let runtime = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir_in(dir))?;
        let begun = Begun::begin(dir, runtime.path(), runs)?;
        let mut daemon = Self {
            child: begun.child,
            runner: None,
            dir: dir.to_owned(),
            runtime,
            ready: Duration::ZERO,
            answered: Duration::ZERO,
        };
        daemon.meet(&begun.manager, begun.at, runs)?;
        Ok(daemon)
    }

    /// Kills it, as nobody can prevent. Its runner and its tasks go on.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts another one in the place of one that was killed.
    pub(crate) fn start_again(&mut self, runs: Runs) -> anyhow::Result<()> {
        let begun = Begun::begin(&self.dir, self.runtime.path(), runs)?;
        self.child = begun.child;
        self.meet(&begun.manager, begun.at, runs)
    }

    /// Waits until it is ready, answers, and has its runner.
    fn meet(&mut self, manager: &UnixDatagram, begun: Instant, runs: Runs) -> anyhow::Result<()> {
        self.wait_ready(manager).with_context(|| self.log())?;
        self.ready = begun.elapsed();
        self.client()?.ask(&Request::get("/ready"))?;
        self.answered = begun.elapsed();
        if runs != Runs::Nothing {
            self.find_runner()?;
        }
        Ok(())
    }

    fn wait_ready(&mut self, manager: &UnixDatagram) -> anyhow::Result<()> {
        manager.set_read_timeout(Some(Duration::from_millis(500)))?;
        let deadline = clock::instant() + PATIENCE;
        let mut message = [0; 4096];
        while clock::instant() < deadline {
            match manager.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
                    if text.lines().any(|line| line == "READY=1") {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if let Some(status) = self.child.try_wait()? {
                        bail!("the daemon ended: {status}");
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        bail!("the daemon was not ready in {PATIENCE:?}")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn find_runner(&mut self) -> anyhow::Result<()> {
        let deadline = clock::instant() + PATIENCE;
        let mut client = self.client()?;
        while clock::instant() < deadline {
            let status = client.json(&Request::get("/v1/status"))?;
            if let Some(pid) = status.pointer("/runner/pid").and_then(Value::as_u64) {
                self.runner = Some(u32::try_from(pid)?);
                return Ok(());
            }
            process::pause(Duration::from_millis(2));
        }
        bail!("no runner in {PATIENCE:?}: {}", self.log())
    }

    /// Where it answers.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime.path().join("api.sock")
    }

    /// A new connection to it.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.socket())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its runner's process, when there is one.
    pub(crate) const fn runner(&self) -> Option<u32> {
        self.runner
    }

    /// Stops the daemon and then its runner.
    pub(crate) fn stop_all(mut self) -> anyhow::Result<()> {
        self.end();
        self.runner.take().map_or(Ok(()), process::end)
    }

    fn end(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // An error means that it has ended.
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        self.child.wait().ok();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
        if let Some(runner) = self.runner.take() {
            process::end(runner).ok();
        }
    }
}

/// A process that was just started.
struct Begun {
    child: Child,
    /// Where it says that it is ready.
    manager: UnixDatagram,
    at: Instant,
}

impl Begun {
    fn begin(dir: &Path, runtime: &Path, runs: Runs) -> anyhow::Result<Self> {
        let (start_runner, slots, more) = match runs {
            Runs::Nothing => ("never", 1, ""),
            Runs::AtOnce(slots) => ("auto", slots, ""),
            Runs::Storm(slots) => ("auto", slots, "engine.schedule_rate = \"none\"\n"),
        };
        let config = format!(
            "state_dir = {:?}\nruntime_dir = {:?}\n\
             engine.slots = {slots}\nrun.start_runner = {start_runner:?}\nrun.users = \"own\"\n{more}",
            dir.join("state").display().to_string(),
            runtime.display().to_string()
        );
        let file = dir.join("config.toml");
        std::fs::write(&file, config)?;
        let notify = dir.join("notify");
        match std::fs::remove_file(&notify) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let manager = UnixDatagram::bind(&notify)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(dir.join("log"))?;
        let at = clock::instant();
        let child = Command::new(program())
            .arg("run")
            .env("TASKDAEMON_CONFIG", &file)
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { child, manager, at })
    }
}
