//! The connection to the shared runner: made, introduced, listened to, and
//! made again when it is gone.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crate::engine::command::Command;
use crate::engine::runner::{Abilities, RunnerUp};
use crate::runner::client::{Connection, Receiver, Sender};
use crate::runner::protocol::{
    FromRunner, Hello, PROTOCOL_MAX, PROTOCOL_MIN, RunnerHello, ToRunner,
};

use super::options::{Options, StartRunner};
use super::own::OwnRunner;

/// First and longest wait before another try to reach a runner.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What helps when somebody else has to start the runner.
const ELSEWHERE: &str =
    "run.start_runner is \"never\"; under systemd: systemctl start taskdaemon-runner.socket";

/// Keeps the connection.
pub(super) struct Link {
    options: Options,
    attach: SyncSender<Sender>,
    commands: SyncSender<Command>,
    own: Option<OwnRunner>,
    /// The runner's life that was last asked to renew itself; asked once.
    renewed: Option<String>,
}

/// The engine has ended, and with it this thread's purpose.
struct EngineGone;

impl Link {
    pub(super) const fn new(
        options: Options,
        attach: SyncSender<Sender>,
        commands: SyncSender<Command>,
    ) -> Self {
        Self {
            options,
            attach,
            commands,
            own: None,
            renewed: None,
        }
    }

    /// Works until the engine is gone.
    pub(super) fn keep(mut self) {
        let mut wait = RETRY.0;
        loop {
            let attempt = self
                .connect()
                .and_then(|connection| self.introduce(connection));
            match attempt {
                Ok(None) => wait = RETRY.0,
                Ok(Some((hello, receiver))) => {
                    wait = RETRY.0;
                    tracing::info!(
                        message_id = crate::telemetry::id::RUNNER_FOUND,
                        "runner connected: version {}, pid {}, holds {} attempts",
                        hello.hello.version,
                        hello.hello.pid,
                        hello.held.len()
                    );
                    if self.listen(hello, receiver).is_err() {
                        return;
                    }
                    tracing::warn!(
                        message_id = crate::telemetry::id::RUNNER_LOST,
                        "the connection to the runner is gone; connecting again"
                    );
                }
                Err(error) => {
                    tracing::warn!(
                        "cannot reach a runner at {}: {error}; trying again in {wait:?}",
                        self.options.runner_socket.display()
                    );
                    std::thread::park_timeout(wait);
                    wait = (wait * 2).min(RETRY.1);
                }
            }
        }
    }

    fn connect(&mut self) -> io::Result<Connection> {
        let path: &PathBuf = &self.options.runner_socket;
        match Connection::connect(path) {
            Ok(connection) => Ok(connection),
            Err(error) if self.options.start_runner == StartRunner::Never => Err(io::Error::new(
                error.kind(),
                format!("{error}; {ELSEWHERE}"),
            )),
            Err(_) => {
                self.own = Some(OwnRunner::start(path, self.options.users)?);
                Connection::connect(path)
            }
        }
    }

    /// Says hello and hears who is there. `None` when the runner was asked to
    /// renew itself and comes back as a new connection.
    fn introduce(&mut self, connection: Connection) -> io::Result<Option<(RunnerHello, Receiver)>> {
        let (mut sender, mut receiver) = connection.split()?;
        sender.send(&ToRunner::Hello(Hello::ours()), &[])?;
        let hello = match receiver.recv()? {
            Some(FromRunner::Hello(hello)) => hello,
            Some(other) => {
                return Err(io::Error::other(format!(
                    "its first words were not hello: {other:?}"
                )));
            }
            None => return Err(io::Error::other("it closed the connection at once")),
        };
        if !Hello::ours().understands(&hello.hello) {
            return Err(io::Error::other(format!(
                "runner {} speaks protocols {} to {}, and this daemon {PROTOCOL_MIN} to \
                 {PROTOCOL_MAX}; restart it when its tasks are over",
                hello.hello.version, hello.hello.min, hello.hello.max
            )));
        }
        if is_older(&hello.hello.version, crate::VERSION)
            && self.renewed.as_ref() != Some(&hello.instance)
        {
            tracing::info!(
                "runner {} is older than this daemon ({}): asking it to renew itself",
                hello.hello.version,
                crate::VERSION
            );
            self.renewed = Some(hello.instance);
            sender.send(&ToRunner::Renew, &[])?;
            // It hangs up when it has been replaced; whatever it says before
            // that it says again afterwards.
            while receiver.recv()?.is_some() {}
            return Ok(None);
        }
        failpoint!("run/runner/found");
        sender.know(&hello.hello);
        if self.attach.send(sender).is_err() {
            return Err(io::Error::other("the launch thread has ended"));
        }
        Ok(Some((hello, receiver)))
    }

    fn listen(&self, hello: RunnerHello, mut receiver: Receiver) -> Result<(), EngineGone> {
        self.tell(Command::RunnerUp(runner_up(hello)))?;
        loop {
            let command = match receiver.recv() {
                Ok(Some(FromRunner::Started { key, started })) => Command::Started { key, started },
                Ok(Some(FromRunner::Ended {
                    key,
                    started,
                    ended,
                })) => Command::Ended {
                    key,
                    started,
                    ended,
                },
                Ok(Some(FromRunner::Notified { key, notice, at })) => {
                    Command::Notified { key, notice, at }
                }
                Ok(Some(FromRunner::Hello(_))) => continue,
                Ok(Some(FromRunner::Leaving)) => {
                    tracing::info!("the runner was told to stop: nothing is started meanwhile");
                    Command::RunnerDown
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the runner's words cannot be read");
                    break;
                }
            };
            failpoint!("run/report/before");
            self.tell(command)?;
            failpoint!("run/report/after");
        }
        self.tell(Command::RunnerDown)
    }

    fn tell(&self, command: Command) -> Result<(), EngineGone> {
        self.commands.send(command).map_err(|_| EngineGone)
    }
}

fn runner_up(hello: RunnerHello) -> RunnerUp {
    let can = hello.abilities;
    RunnerUp {
        instance: hello.instance,
        boot: hello.boot,
        version: hello.hello.version,
        pid: hello.hello.pid,
        abilities: Abilities {
            cgroup: can.cgroup,
            memory: can.memory,
            cpu: can.cpu,
            pids: can.pids,
            switch_user: can.switch_user,
            freeze: can.freeze,
        },
        policy: hello.policy,
        held: hello.held,
    }
}

/// Whether a dotted version is older than another, number by number. A version
/// that cannot be read is not older: renewal is for what is surely behind.
fn is_older(one: &str, other: &str) -> bool {
    let numbers = |version: &str| -> Option<Vec<u64>> {
        version
            .split(['-', '+', '~'])
            .next()?
            .split('.')
            .map(|part| part.parse().ok())
            .collect()
    };
    matches!((numbers(one), numbers(other)), (Some(one), Some(other)) if one < other)
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions_compare_by_number() {
        for (one, other, older) in [
            ("0.1.0", "0.1.1", true),
            ("0.9.0", "0.10.0", true),
            ("0.1.1", "0.1.0", false),
            ("0.1.0", "0.1.0", false),
            ("1.0", "1.0.1", true),
            ("odd", "1.0.0", false),
            ("1.0.0-rc1", "1.0.1", true),
        ] {
            assert_eq!(is_older(one, other), older, "{one} {other}");
        }
    }
}
