//! Attempts that stand still: frozen and thawed by the kernel, in real cgroups
//! where this machine allows them.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on fails where it stands"
)]

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use taskdaemon::engine::command::Command;
use taskdaemon::engine::effect::{Batch, Effect, Order};
use taskdaemon::model::attempt::Exit;
use taskdaemon::run;
use taskdaemon::runner::client::Connection;
use taskdaemon::runner::protocol::{FromRunner, Hello, ToRunner};
use taskdaemon::runner::{CgroupMode, Options};

use super::runner::{DEADLINE, Daemon, Gate, Running, cgroups, code, key, options, shell};

/// A runner with cgroups, and its daemon.
fn with_cgroups() -> Option<(Running, Daemon)> {
    if !cgroups() {
        return None;
    }
    let running = Running::start(&Options {
        cgroup: CgroupMode::Require,
        grace: DEADLINE,
        ..options()
    });
    let daemon = running.daemon();
    assert!(daemon.hello.abilities.freeze);
    Some((running, daemon))
}

/// An attempt's group, as the kernel shows it.
struct Group(PathBuf);

impl Group {
    fn of(shown: &str) -> Self {
        let shown = shown.trim_start_matches('/');
        let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let mut paths = mounts.iter().map(|mount| Path::new(mount).join(shown));
        Self(paths.find(|path| path.exists()).unwrap())
    }

    fn is_frozen(&self) -> bool {
        let events = std::fs::read_to_string(self.0.join("cgroup.events")).unwrap();
        events.lines().any(|line| line == "frozen 1")
    }

    /// Waits for the kernel to say so.
    fn wait(&self, frozen: bool) {
        let mut file = File::open(self.0.join("cgroup.events")).unwrap();
        let word = format!("frozen {}\n", u8::from(frozen));
        loop {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            if text.contains(&word) {
                return;
            }
            let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
            let timeout = PollTimeout::try_from(DEADLINE).unwrap();
            assert_ne!(poll(&mut fds, timeout).unwrap(), 0, "not {word}");
        }
    }
}

/// Starts a task that answers each line of one gate in another and SIGTERM with
/// an exit code, with a process beside it; gives its group once it runs.
fn answering(running: &Running, daemon: &mut Daemon, gates: [&Gate; 2]) -> Group {
    let [ask, answer] = gates.map(Gate::show);
    let script = format!(
        "trap 'exit 6' TERM; sleep 1000 & exec 3<>{ask}; echo up >{answer}; while read x <&3; do echo $x >{answer}; done"
    );
    running.launch(daemon, shell(1, &script));
    Group::of(&daemon.started(key(1)).cgroup.unwrap())
}

#[test]
fn a_frozen_attempt_stands_still_until_it_is_thawed() {
    let Some((running, mut daemon)) = with_cgroups() else {
        return;
    };
    let (mut ask, mut answer) = (Gate::new(&running, "ask"), Gate::new(&running, "answer"));
    let group = answering(&running, &mut daemon, [&ask, &answer]);
    assert_eq!(answer.line(), "up");
    for round in 0..3 {
        daemon.send(&ToRunner::Freeze { key: key(1) });
        group.wait(true);
        writeln!(ask.file, "{round}").unwrap();
        // Twice is as good as once.
        daemon.send(&ToRunner::Freeze { key: key(1) });
        running.run(&mut daemon, shell(2, "true"));
        assert!(group.is_frozen());
        let mut fds = [PollFd::new(answer.file.as_fd(), PollFlags::POLLIN)];
        let quiet = Duration::from_millis(50);
        let quiet = PollTimeout::try_from(quiet).unwrap();
        assert_eq!(poll(&mut fds, quiet).unwrap(), 0, "it went on");
        daemon.send(&ToRunner::Thaw { key: key(1) });
        assert_eq!(answer.line(), round.to_string());
        group.wait(false);
    }
    daemon.send(&ToRunner::Kill { key: key(1) });
    assert_eq!(daemon.ended(key(1)).1.exit, Exit::Signal { signal: 9 });
}

#[test]
fn a_frozen_attempt_can_be_killed() {
    let Some((running, mut daemon)) = with_cgroups() else {
        return;
    };
    let (ask, mut answer) = (Gate::new(&running, "ask"), Gate::new(&running, "answer"));
    let group = answering(&running, &mut daemon, [&ask, &answer]);
    assert_eq!(answer.line(), "up");
    daemon.send(&ToRunner::Freeze { key: key(1) });
    group.wait(true);
    daemon.send(&ToRunner::Kill { key: key(1) });
    assert_eq!(daemon.ended(key(1)).1.exit, Exit::Signal { signal: 9 });
    assert!(!group.0.exists());
}

#[test]
fn a_frozen_attempt_handles_a_signal_when_it_is_thawed() {
    let Some((running, mut daemon)) = with_cgroups() else {
        return;
    };
    let (ask, mut answer) = (Gate::new(&running, "ask"), Gate::new(&running, "answer"));
    let group = answering(&running, &mut daemon, [&ask, &answer]);
    assert_eq!(answer.line(), "up");
    daemon.send(&ToRunner::Freeze { key: key(1) });
    group.wait(true);
    let signal = 15;
    daemon.send(&ToRunner::Signal {
        key: key(1),
        signal,
    });
    running.run(&mut daemon, shell(2, "true"));
    assert!(group.is_frozen());
    daemon.send(&ToRunner::Thaw { key: key(1) });
    assert_eq!(code(&daemon.ended(key(1)).1), 6);
}

#[test]
fn a_frozen_attempt_stays_so_over_another_daemon_and_a_renewal() {
    let Some((running, mut daemon)) = with_cgroups() else {
        return;
    };
    let (mut ask, mut answer) = (Gate::new(&running, "ask"), Gate::new(&running, "answer"));
    let group = answering(&running, &mut daemon, [&ask, &answer]);
    assert_eq!(answer.line(), "up");
    daemon.send(&ToRunner::Freeze { key: key(1) });
    group.wait(true);
    daemon = running.daemon();
    daemon.started(key(1));
    assert!(group.is_frozen());
    daemon.send(&ToRunner::Renew);
    daemon.hung_up();
    daemon = running.daemon();
    assert!(daemon.hello.abilities.freeze);
    daemon.started(key(1));
    assert!(group.is_frozen());
    writeln!(ask.file, "on").unwrap();
    daemon.send(&ToRunner::Thaw { key: key(1) });
    assert_eq!(answer.line(), "on");
}

#[test]
fn a_runner_told_to_stop_thaws_so_that_attempts_can_end() {
    let Some((running, mut daemon)) = with_cgroups() else {
        return;
    };
    let (ask, mut answer) = (Gate::new(&running, "ask"), Gate::new(&running, "answer"));
    let group = answering(&running, &mut daemon, [&ask, &answer]);
    assert_eq!(answer.line(), "up");
    daemon.send(&ToRunner::Freeze { key: key(1) });
    group.wait(true);
    kill(running.pid(), Signal::SIGTERM).unwrap();
    let (_, ended) = daemon.ended(key(1));
    assert_eq!(code(&ended), 6);
    assert!(ended.interrupted);
    daemon.send(&ToRunner::Ack { key: key(1) });
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn without_cgroups_nothing_is_frozen_and_the_runner_says_so() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    assert!(!daemon.hello.abilities.freeze);
    let mut gate = Gate::new(&running, "gate");
    running.launch(
        &mut daemon,
        shell(1, &format!("read x < {}; exit 4", gate.show())),
    );
    daemon.started(key(1));
    daemon.send(&ToRunner::Freeze { key: key(1) });
    daemon.send(&ToRunner::Freeze { key: key(99) });
    gate.file.write_all(b"\n").unwrap();
    assert_eq!(code(&daemon.ended(key(1)).1), 4);
}

/// A peer that speaks the first protocol only.
fn old(hello: &Hello) -> Hello {
    Hello {
        max: 1,
        ..hello.clone()
    }
}

#[test]
fn a_runner_too_old_to_freeze_is_not_asked_to() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut sender, _receiver) = Connection::from_stream(ours).split().unwrap();
    let key = key(1);
    sender.know(&old(&Hello::ours()));
    sender.send(&ToRunner::Freeze { key }, &[]).unwrap();
    sender.send(&ToRunner::Kill { key }, &[]).unwrap();
    sender.know(&Hello::ours());
    sender.send(&ToRunner::Thaw { key }, &[]).unwrap();
    drop((sender, _receiver));
    let mut seen = Vec::new();
    (&theirs).read_to_end(&mut seen).unwrap();
    let text = String::from_utf8_lossy(&seen);
    assert!(!text.contains("freeze"), "{text}");
    assert!(text.contains("kill") && text.contains("thaw"), "{text}");
}

#[test]
fn a_daemon_too_old_for_notices_hears_none() {
    let running = Running::start(&options());
    let mut daemon = Daemon::meet_as(
        Connection::connect(&running.path()).unwrap(),
        &old(&Hello::ours()),
    );
    let script = "systemd-notify --status=unheard --no-block; exit 5";
    running.launch(&mut daemon, shell(1, script));
    loop {
        match daemon.recv() {
            FromRunner::Ended { ended, .. } => {
                assert_eq!(code(&ended), 5);
                break;
            }
            FromRunner::Started { .. } => {}
            other => unreachable!("{other:?}"),
        }
    }
}

/// The daemon's side of running, and the two ends the engine has of it.
struct Room {
    effects: SyncSender<Batch>,
    commands: mpsc::Receiver<Command>,
}

impl Room {
    fn start(running: &Running) -> Self {
        let (effects, work) = mpsc::sync_channel(8);
        let (reports, commands) = mpsc::sync_channel(8);
        let options = run::options::Options {
            runner_socket: running.path(),
            report_socket: running.dir.path().join("report.sock"),
            start_runner: run::options::StartRunner::Never,
            ..run::options::Options::default()
        };
        let output = running.dir.path().to_owned();
        run::start(options, output, work, reports).unwrap();
        Self { effects, commands }
    }

    fn tell(&self, effect: Effect) {
        self.effects
            .send(Batch {
                effects: vec![effect],
                commit: None,
            })
            .unwrap();
    }

    fn hear<T>(&self, wanted: impl Fn(Command) -> Option<T>) -> T {
        loop {
            let command = self.commands.recv_timeout(DEADLINE).unwrap();
            if let Some(found) = wanted(command) {
                return found;
            }
        }
    }
}

#[test]
fn the_engines_word_freezes_and_thaws_and_what_a_task_says_comes_back() {
    if !cgroups() {
        return;
    }
    let running = Running::start(&Options {
        cgroup: CgroupMode::Require,
        ..options()
    });
    let room = Room::start(&running);
    let can = room.hear(|command| match command {
        Command::RunnerUp(runner) => Some(runner.abilities),
        _ => None,
    });
    assert!(can.freeze);
    let mut go = Gate::new(&running, "go");
    let script = format!(
        "systemd-notify --status=up; exec sh -c 'read x < {}'",
        go.show()
    );
    let spec = serde_json::from_value(serde_json::json!({
        "argv": ["sh", "-c", script], "cwd": "/",
    }));
    let key = key(1);
    room.tell(Effect::Attach);
    room.tell(Effect::Launch(Box::new(Order {
        ours: None,
        key,
        owner: nix::unistd::getuid().as_raw(),
        task_key: None,
        spec: Arc::new(spec.unwrap()),
        variables: Vec::new(),
        stdin: None,
        call: None,
        feed: None,
    })));
    let group = room.hear(|command| match command {
        Command::Started { key: of, started } if of == key => started.cgroup,
        _ => None,
    });
    let group = Group::of(&group);
    let status = room.hear(|command| match command {
        Command::Notified {
            key: of, notice, ..
        } if of == key => notice.status,
        _ => None,
    });
    assert_eq!(status, "up");
    room.tell(Effect::Freeze(key));
    group.wait(true);
    room.tell(Effect::Thaw(key));
    group.wait(false);
    go.file.write_all(b"\n").unwrap();
    let ended = room.hear(|command| match command {
        Command::Ended { key: of, ended, .. } if of == key => Some(ended),
        _ => None,
    });
    assert_eq!(code(&ended), 0);
}
