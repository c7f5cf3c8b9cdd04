//! What the demo plays on: a directory, a runner and a daemon of its own, ended
//! and removed with it whatever happens.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::sleep_until;

use crate::client::Client;
use crate::client::target::Target;
use crate::{clock, runner};

use super::super::text::escape;
use super::Failure;

/// How long the daemon may take to be ready.
const START: Duration = Duration::from_secs(10);

/// Everything the demo started, ended with it.
pub(super) struct Stage {
    pub(super) dir: PathBuf,
    pub(super) daemon: Child,
    pub(super) runner: Child,
    pub(super) client: Client,
    color: bool,
}

impl Stage {
    /// A directory with a runner and a daemon in it.
    pub(super) fn build() -> Result<Self, Failure> {
        let template = std::env::temp_dir().join("taskdaemon-demo-XXXXXX");
        let dir = nix::unistd::mkdtemp(&template)
            .map_err(|error| Failure::Code(1, format!("cannot make a directory: {error}")))?;
        let socket = dir.join("run/api.sock");
        let built = fs::create_dir(dir.join("run"))
            .and_then(|()| start_runner(&dir))
            .and_then(|runner| Ok((runner, start_daemon(&dir)?)));
        match built {
            Ok((runner, daemon)) => Ok(Self {
                dir,
                daemon,
                runner,
                client: Client::new(Target::Unix(socket)),
                color: io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none()
                    && std::env::var_os("TERM").is_some_and(|term| term != "dumb"),
            }),
            Err(error) => {
                remove(&dir);
                Err(error.into())
            }
        }
    }

    /// Returns when the daemon answers that it is ready.
    pub(super) async fn ready(&mut self) -> Result<Duration, Failure> {
        let begun = clock::instant();
        loop {
            match self.client.get("/ready").await {
                Ok(_) => return Ok(clock::instant() - begun),
                Err(error) if clock::instant() - begun > START => return Err(error.into()),
                Err(_) => {}
            }
            if let Some(status) = self.daemon.try_wait()? {
                let log = fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it said nothing");
                let detail = format!("the daemon ended ({status}): {}", escape(last));
                return Err(Failure::Code(1, detail));
            }
            rest(Duration::from_millis(10)).await;
        }
    }

    /// Kills the daemon, gives it no chance, and starts another.
    pub(super) async fn crash(&mut self) -> Result<(u32, Duration), Failure> {
        self.daemon.kill()?;
        self.daemon.wait()?;
        let old = self.daemon.id();
        // Long enough for a line to be written while nobody listens.
        rest(Duration::from_millis(1200)).await;
        self.daemon = start_daemon(&self.dir)?;
        Ok((old, self.ready().await?))
    }

    /// Prints a line, in a style where there is a terminal for it.
    pub(super) fn say(&self, style: &str, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.color {
            writeln!(out, "\x1b[{style}m{text}\x1b[0m")
        } else {
            writeln!(out, "{text}")
        }
    }

    /// Prints the heading of an act.
    pub(super) fn head(&self, text: &str) -> io::Result<()> {
        self.say("1", &format!("\n{text}"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.runner] {
            let pid = i32::try_from(child.id()).map(Pid::from_raw);
            if let Ok(pid) = pid
                && matches!(child.try_wait(), Ok(None))
                && kill(pid, Signal::SIGTERM).is_ok()
            {
                settle(child);
            }
        }
        remove(&self.dir);
    }
}

/// Waits for a child that was asked to end, and insists after a while.
fn settle(child: &mut Child) {
    let insist = clock::instant() + Duration::from_secs(5);
    while matches!(child.try_wait(), Ok(None)) {
        if clock::instant() > insist {
            drop(child.kill());
            drop(child.wait());
            return;
        }
        // The only way to wait for a child with a deadline and no runtime.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        super::super::complain(&format!("cannot remove {}: {error}", dir.display()));
    }
}

async fn rest(wait: Duration) {
    sleep_until((clock::instant() + wait).into()).await;
}

/// Starts a runner as the service manager would: its listening socket is its
/// standard input.
fn start_runner(dir: &Path) -> io::Result<Child> {
    let listener = UnixListener::bind(dir.join("run/runner.sock"))?;
    let options = runner::Options {
        users: runner::Users::Own,
        daemon_user: None,
        idle: Duration::from_secs(60),
        grace: Duration::from_secs(2),
        ..runner::Options::default()
    };
    Command::new(std::env::current_exe()?)
        .arg("runner")
        .arg("--options")
        .arg(serde_json::to_string(&options)?)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("runner.log"))?)
        .spawn()
}

fn start_daemon(dir: &Path) -> io::Result<Child> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("daemon.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    // The settings of whoever tries this are not the demo's.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TASKDAEMON_") {
            command.env_remove(name);
        }
    }
    let config = dir.join("config.toml");
    // A file of its own, so that the host's is not read.
    fs::write(&config, "log = \"info\"\n")?;
    command
        .arg("run")
        .arg("--config")
        .arg(config)
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--runtime-dir")
        .arg(dir.join("run"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
}
