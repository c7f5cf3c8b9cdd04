//! A launch that waits for its commit: the runner gets the process ready, and
//! its program begins with the commit or never.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::fs::{self, File};
use std::io::PipeReader;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Pid;
use taskdaemon::clock;
use taskdaemon::engine::promise::Promise;
use taskdaemon::model::attempt::{Exit, Launch};
use taskdaemon::runner::Options;
use taskdaemon::runner::protocol::ToRunner;

use crate::runner::{DEADLINE, Daemon, Running, key, modes, options, shell};

/// What an attempt does that began.
fn says(task: i64, running: &Running) -> (Launch, PathBuf) {
    let said = running.dir.path().join("said");
    let launch = Launch {
        after_commit: true,
        ..shell(task, &format!("echo $$ >> {}", said.display()))
    };
    (launch, said)
}

fn launch(running: &Running, daemon: &mut Daemon, launch: Launch, commit: &PipeReader) {
    let file = File::create(running.capture(launch.key.task.0)).unwrap();
    let fds = [file.as_fd(), commit.as_fd()];
    daemon.send_with(&ToRunner::Launch(launch), &fds);
}

/// The runner's only child, once it sleeps.
fn child(running: &Running) -> Pid {
    let pid = running.pid();
    let list = format!("/proc/{pid}/task/{pid}/children");
    let sleeps = |pid: &&str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| stat.contains(") S "))
    };
    let begun = clock::instant();
    while begun.elapsed() < DEADLINE {
        let children = fs::read_to_string(&list).unwrap();
        if let Some(pid) = children.split_whitespace().find(sleeps) {
            return Pid::from_raw(pid.parse().unwrap());
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    unreachable!("no child gets ready");
}

#[test]
fn a_program_begins_with_its_commit() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        let (promise, commit) = Promise::new().unwrap();
        let (wanted, said) = says(1, &running);
        launch(&running, &mut daemon, wanted, &commit);
        drop(commit);
        let ready = child(&running);
        assert!(!said.exists(), "{cgroup:?}");
        // One that is not got ready is not held up by one that is.
        assert_eq!(
            running.run(&mut daemon, shell(2, "exit 3")).exit,
            Exit::Code { code: 3 }
        );
        assert!(!said.exists(), "{cgroup:?}");
        promise.keep();
        let (started, ended) = daemon.ended(key(1));
        assert_eq!(ended.exit, Exit::Code { code: 0 }, "{cgroup:?}");
        let started = started.unwrap();
        assert_eq!(started.pid, ready.as_raw().cast_unsigned());
        assert!(started.at <= ended.at);
        let text = fs::read_to_string(&said).unwrap();
        assert_eq!(text, format!("{ready}\n"), "{cgroup:?}");
    }
}

#[test]
fn a_program_whose_commit_never_comes_does_not_begin() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        let (promise, commit) = Promise::new().unwrap();
        let (wanted, said) = says(1, &running);
        launch(&running, &mut daemon, wanted, &commit);
        drop(commit);
        child(&running);
        drop(promise);
        let (started, ended) = daemon.ended(key(1));
        assert!(started.is_none(), "{cgroup:?}");
        assert!(
            ended.unrecorded && ended.interrupted,
            "{cgroup:?}: {ended:?}"
        );
        let Exit::Spawn { error, .. } = &ended.exit else {
            unreachable!("{ended:?}");
        };
        assert!(error.contains("before it had recorded"), "{error}");
        assert!(!said.exists(), "{cgroup:?}");
        // Its number is free again once that is acknowledged.
        daemon.send(&ToRunner::Ack { key: key(1) });
        assert_eq!(
            running.run(&mut daemon, shell(1, "exit 4")).exit,
            Exit::Code { code: 4 }
        );
    }
}

#[test]
fn a_launch_without_the_pipe_that_it_speaks_of_is_none() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let (wanted, said) = says(1, &running);
    let ended = running.run(&mut daemon, wanted);
    let Exit::Spawn { error, .. } = &ended.exit else {
        unreachable!("{ended:?}");
    };
    assert_eq!(error, "the launch came without its commit");
    assert!(!said.exists());
}
