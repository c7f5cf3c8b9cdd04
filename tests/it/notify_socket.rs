//! What tasks say about themselves on the socket they are given: real
//! processes, with cgroups (where this machine allows them) and without.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on fails where it stands"
)]

use std::fs;
use std::io::{IoSlice, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg, setsockopt, sockopt};
use taskdaemon::model::attempt::AttemptKey;
use taskdaemon::model::notice::{Notice, parse};
use taskdaemon::model::time::Time;
use taskdaemon::runner::client::Connection;
use taskdaemon::runner::protocol::{FromRunner, ToRunner};
use taskdaemon::runner::{CgroupMode, Options};

use super::runner::{
    Daemon, Gate, Running, cgroups, code, key, launch, modes, options, root, shell, start,
    with_policy,
};

/// Sends its argument as one datagram, and waits for nothing.
const SAY: &str = "perl -MSocket -e 'socket S,AF_UNIX,SOCK_DGRAM,0; \
    connect S,pack_sockaddr_un $ENV{NOTIFY_SOCKET} or die $!; \
    for (@ARGV) { defined send S,$_,0 or die $! }'";

fn said(text: &str) -> Notice {
    parse(text.as_bytes())
}

impl Daemon {
    /// The next notice of an attempt.
    fn notice(&mut self, wanted: AttemptKey) -> (Notice, Time) {
        loop {
            match self.recv() {
                FromRunner::Notified { key, notice, at } if key == wanted => return (notice, at),
                FromRunner::Ended { key, ended, .. } if key == wanted => panic!("{ended:?}"),
                _ => {}
            }
        }
    }

    /// Waits until all that was said adds up to something.
    fn hears(&mut self, wanted: AttemptKey, done: impl Fn(&Notice) -> bool) -> Notice {
        let mut all = Notice::default();
        while !done(&all) {
            all = all.then(self.notice(wanted).0, Duration::ZERO);
        }
        all
    }

    /// All that an attempt says until its end.
    fn rest(&mut self, wanted: AttemptKey) -> Vec<Notice> {
        let mut notices = Vec::new();
        loop {
            match self.recv() {
                FromRunner::Notified { key, notice, .. } if key == wanted => notices.push(notice),
                FromRunner::Ended { key, ended, .. } if key == wanted => {
                    assert_eq!(code(&ended), 0);
                    return notices;
                }
                _ => {}
            }
        }
    }
}

fn status(text: &str) -> impl Fn(&Notice) -> bool {
    move |notice| notice.status.as_deref() == Some(text)
}

/// Sends a datagram with a descriptor beside it.
fn send_with(path: &Path, text: &str, fd: RawFd) {
    let socket = UnixDatagram::unbound().unwrap();
    let address = UnixAddr::new(path).unwrap();
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(text.as_bytes())],
        &[ControlMessage::ScmRights(&[fd])],
        MsgFlags::empty(),
        Some(&address),
    )
    .unwrap();
}

/// Starts a task that tells its socket and waits to be let go.
fn waiting(running: &Running, daemon: &mut Daemon, go: &Gate) -> PathBuf {
    let mut up = Gate::new(running, "up");
    let script = format!(
        "echo $NOTIFY_SOCKET > {}; read x < {}",
        up.show(),
        go.show()
    );
    running.launch(daemon, shell(1, &script));
    daemon.started(key(1));
    PathBuf::from(up.line())
}

#[test]
fn the_service_managers_own_tool_works_from_a_shell() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        let mut go = Gate::new(&running, "go");
        let script = format!(
            "systemd-notify --status='half way' && systemd-notify --ready X_PROGRESS=50.5 && \
             systemd-notify WATCHDOG=1 && read x < {} && systemd-notify STOPPING=1",
            go.show()
        );
        running.launch(&mut daemon, shell(1, &script));
        let heard = daemon.hears(key(1), |all| all.watchdog);
        let expected = said("STATUS=half way\nREADY=1\nX_PROGRESS=50.5\nWATCHDOG=1");
        assert_eq!(heard, expected, "{cgroup:?}");
        go.file.write_all(b"\n").unwrap();
        assert_eq!(daemon.rest(key(1)), [said("STOPPING=1")]);
    }
}

#[test]
fn what_a_task_says_right_before_its_end_is_heard_before_it() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        // The shell goes on to its end at once, and the first message has
        // opened the window that the last one falls into.
        let script = format!("{SAY} STATUS=one; {SAY} STATUS=two X_PROGRESS=100");
        running.launch(&mut daemon, shell(1, &script));
        let last = daemon.rest(key(1)).into_iter();
        let all = last.reduce(|all, next| all.then(next, Duration::ZERO));
        assert_eq!(all, Some(said("STATUS=two\nX_PROGRESS=100")), "{cgroup:?}");
    }
}

#[test]
fn a_flood_is_told_as_a_few_messages_and_loses_no_event() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let script = format!(
        "{SAY} WATCHDOG=trigger $(seq -f STATUS=%g 1 200) EXTEND_TIMEOUT_USEC=60000000 \
         $(seq -f STATUS=%g 201 400) WATCHDOG=1"
    );
    running.launch(&mut daemon, shell(1, &script));
    let mut heard = vec![daemon.notice(key(1))];
    loop {
        match daemon.recv() {
            FromRunner::Notified { notice, at, .. } => heard.push((notice, at)),
            FromRunner::Ended { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    let (first, last) = (heard[0].1, heard[heard.len() - 1].1);
    let most = last.since(first).as_millis() / 100 + 3;
    let count = heard.len();
    // 403 messages at 32 in a tenth of a second.
    assert!(count >= 10 && count as u128 <= most, "{count} of {most}");
    let all = heard
        .into_iter()
        .map(|(notice, _)| notice)
        .reduce(|all, next| all.then(next, Duration::ZERO))
        .unwrap();
    assert_eq!(all.status.as_deref(), Some("400"));
    assert!(all.trigger && all.watchdog, "{all:?}");
    // As of the end of its window.
    assert!(all.extend_us.is_some_and(|us| us > 59_000_000), "{all:?}");
}

#[test]
fn a_flood_holds_up_nobody_else() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let script = format!("while :; do {SAY} $(seq -f STATUS=%g 1 2000); done");
    running.launch(&mut daemon, shell(1, &script));
    daemon.notice(key(1));
    for task in 2..20 {
        let ended = running.run(&mut daemon, shell(task, "exit 3"));
        assert_eq!(code(&ended), 3);
    }
    daemon.send(&ToRunner::Kill { key: key(1) });
    daemon.ended(key(1));
}

#[test]
fn another_process_of_the_same_user_does_not_speak_for_a_task() {
    if !cgroups() {
        return;
    }
    let running = Running::start(&Options {
        cgroup: CgroupMode::Require,
        ..options()
    });
    let mut daemon = running.daemon();
    let mut go = Gate::new(&running, "go");
    let path = waiting(&running, &mut daemon, &go);
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(b"STATUS=forged", &path).unwrap();
    // Another task of the same user is told from this one as well; it waits
    // until it was looked at.
    let script = format!(
        "NOTIFY_SOCKET={} systemd-notify --status=stolen; systemd-notify --status=own",
        path.display()
    );
    running.launch(&mut daemon, shell(2, &script));
    let mut heard = Vec::new();
    loop {
        match daemon.recv() {
            FromRunner::Notified { key, notice, .. } => heard.push((key, notice)),
            FromRunner::Ended { .. } => break,
            _ => {}
        }
    }
    assert_eq!(heard, [(key(2), said("STATUS=own"))]);
    go.file.write_all(b"\n").unwrap();
    assert_eq!(daemon.rest(key(1)), []);
}

#[test]
fn a_socket_is_open_to_its_tasks_user_alone() {
    if !root() {
        return;
    }
    for cgroup in modes() {
        let files = tempfile::tempdir().unwrap();
        let options = with_policy(files.path(), "default = \"nobody\"\n");
        let running = Running::start(&Options { cgroup, ..options });
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(running.dir.path(), open).unwrap();
        let mut daemon = running.daemon();
        let mut go = Gate::new(&running, "go");
        let mut up = Gate::new(&running, "up");
        for gate in [&go, &up] {
            fs::set_permissions(gate.show(), fs::Permissions::from_mode(0o666)).unwrap();
        }
        let script = format!(
            "systemd-notify --status=mine; echo $NOTIFY_SOCKET > {}; read x < {}",
            up.show(),
            go.show()
        );
        running.launch(&mut daemon, shell(1, &script));
        assert_eq!(daemon.started(key(1)).user, "nobody");
        daemon.hears(key(1), status("mine"));
        let path = PathBuf::from(up.line());
        let send_as = |uid: u32| {
            let path = path.clone();
            let thread = std::thread::spawn(move || {
                become_one(uid);
                let socket = UnixDatagram::unbound().unwrap();
                socket.send_to(b"X_PROGRESS=1", &path).is_ok()
            });
            thread.join().unwrap()
        };
        assert!(!send_as(1), "another user can crowd the socket");
        assert!(send_as(65534), "its user cannot send");
        // Nobody else can put anything beside it, or see what is there.
        let dir = path.parent().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(dir), mode(&path)), (0o711, 0o600));
        assert_eq!(mode(dir.parent().unwrap()), 0o711);
        go.file.write_all(b"\n").unwrap();
        daemon.rest(key(1));
        // What is told first is the end.
        let begun = taskdaemon::clock::instant();
        while dir.exists() {
            assert!(begun.elapsed() < crate::runner::DEADLINE, "{dir:?} stays");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

#[expect(unsafe_code, reason = "credentials of one thread only")]
fn become_one(uid: u32) {
    // SAFETY: changes the calling thread's credentials and nothing else.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    assert_eq!(done, 0);
}

#[test]
fn a_new_daemon_and_a_renewed_runner_know_what_was_said() {
    for cgroup in modes() {
        let running = Running::start(&Options {
            cgroup,
            ..options()
        });
        let mut daemon = running.daemon();
        let mut go = Gate::new(&running, "go");
        let script = format!(
            "systemd-notify --ready --status=far X_PROGRESS=70; systemd-notify WATCHDOG=1; \
             read x < {}; systemd-notify --status=further",
            go.show()
        );
        running.launch(&mut daemon, shell(1, &script));
        daemon.hears(key(1), |all| all.watchdog);
        let known = said("READY=1\nSTATUS=far\nX_PROGRESS=70");
        let mut seen = Vec::new();
        for renew in [false, true, true] {
            if renew {
                daemon.send(&ToRunner::Renew);
                daemon.hung_up();
            }
            daemon = running.daemon();
            let ((all, at), (beat, beat_at)) = (daemon.notice(key(1)), daemon.notice(key(1)));
            assert_eq!((&all, beat), (&known, said("WATCHDOG=1")));
            assert!(at <= beat_at);
            seen.push((at, beat_at));
        }
        // What is told again keeps its time.
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
        go.file.write_all(b"\n").unwrap();
        assert_eq!(daemon.rest(key(1)), [said("STATUS=further")]);
    }
}

#[test]
fn what_is_said_while_no_daemon_is_there_is_told_to_the_next() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let (mut go, mut on) = (Gate::new(&running, "go"), Gate::new(&running, "on"));
    let mut up = Gate::new(&running, "up");
    let script = format!(
        "read x < {}; systemd-notify WATCHDOG=trigger; systemd-notify --status=alone; \
         echo up > {}; read x < {}",
        go.show(),
        up.show(),
        on.show()
    );
    running.launch(&mut daemon, shell(1, &script));
    daemon.started(key(1));
    drop(daemon);
    go.file.write_all(b"\n").unwrap();
    up.line();
    let mut daemon = running.daemon();
    let heard = daemon.hears(key(1), status("alone"));
    assert!(heard.trigger);
    on.file.write_all(b"\n").unwrap();
    assert_eq!(daemon.rest(key(1)), []);
}

#[test]
fn descriptors_sent_along_are_let_go_and_never_held() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let mut go = Gate::new(&running, "go");
    let path = waiting(&running, &mut daemon, &go);
    let before = running.open_files();
    for round in 0..5 {
        let (reader, writer) = std::io::pipe().unwrap();
        let text = format!("STATUS={round}");
        send_with(&path, &text, writer.as_raw_fd());
        drop(writer);
        // Its end comes when the message is taken.
        let mut fds = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(&reader),
            nix::poll::PollFlags::POLLHUP,
        )];
        let timeout = nix::poll::PollTimeout::try_from(super::runner::DEADLINE).unwrap();
        assert_eq!(nix::poll::poll(&mut fds, timeout).unwrap(), 1);
        daemon.hears(key(1), status(&round.to_string()));
    }
    // A window's timer is a descriptor too, and may be open now or then.
    let after = running.open_files();
    assert!(
        after <= before.map(|count| count + 1),
        "{before:?} {after:?}"
    );
    go.file.write_all(b"\n").unwrap();
    daemon.rest(key(1));
}

/// How long a close may wait.
const LINGER: Duration = Duration::from_secs(60);

/// A connection whose last close waits for a peer that does not read.
fn slow_to_close() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: i32::try_from(LINGER.as_secs()).unwrap(),
    };
    setsockopt(&stream, sockopt::Linger, &linger).unwrap();
    stream.set_nonblocking(true).unwrap();
    while (&stream).write(&[0; 65536]).is_ok() {}
    (stream, peer)
}

#[test]
fn a_descriptor_that_is_slow_to_close_blocks_nobody_but_its_sender() {
    let running = Running::start(&options());
    let mut daemon = running.daemon();
    let mut go = Gate::new(&running, "go");
    let path = waiting(&running, &mut daemon, &go);
    let begun = taskdaemon::clock::instant();
    let mut peers = Vec::new();
    for word in ["slow", "slower"] {
        let (slow, peer) = slow_to_close();
        peers.push(peer);
        // The one that is sent is the last when the runner gets to it.
        kill(running.pid(), Signal::SIGSTOP).unwrap();
        send_with(&path, &format!("STATUS={word}"), slow.as_raw_fd());
        drop(slow);
        kill(running.pid(), Signal::SIGCONT).unwrap();
    }
    daemon.hears(key(1), status("slow"));
    assert_eq!(code(&running.run(&mut daemon, shell(2, "exit 3"))), 3);
    go.file.write_all(b"\n").unwrap();
    daemon.ended(key(1));
    let passed = taskdaemon::clock::instant().duration_since(begun);
    assert!(passed < LINGER / 3, "the runner waited {passed:?}");
}

#[test]
fn the_runner_of_one_attempt_gives_it_a_socket_too() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = start(&options(), theirs.into());
    let running = Running { dir, child };
    let mut daemon = Daemon::meet(Connection::from_stream(ours));
    let mut go = Gate::new(&running, "go");
    let script = format!(
        "systemd-notify --status=alone; echo $NOTIFY_SOCKET; read x < {}",
        go.show()
    );
    running.launch(&mut daemon, shell(1, &script));
    daemon.hears(key(1), status("alone"));
    go.file.write_all(b"\n").unwrap();
    assert_eq!(daemon.rest(key(1)), []);
    daemon.send(&ToRunner::Ack { key: key(1) });
    assert_eq!(running.exit_code(), Some(0));
    let text = running.output(1).text();
    let path = Path::new(text.trim());
    assert!(path.is_absolute());
    assert!(!path.ancestors().nth(2).unwrap().exists(), "{text}");
}

#[test]
fn a_fresh_runner_clears_what_a_killed_one_left() {
    let mut running = Running::start(&options());
    let mut daemon = running.daemon();
    let go = Gate::new(&running, "go");
    let path = waiting(&running, &mut daemon, &go);
    assert!(path.exists());
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    fs::remove_file(running.path()).unwrap();
    let listener = UnixListener::bind(running.path()).unwrap();
    running.child = start(&options(), listener.into());
    let mut daemon = running.daemon();
    assert!(!path.exists() && !path.parent().unwrap().exists());
    // The same attempt finds its place free.
    running.launch(&mut daemon, shell(1, &format!("{SAY} STATUS=again")));
    assert_eq!(daemon.rest(key(1)), [said("STATUS=again")]);
}

#[test]
fn where_there_is_no_place_for_sockets_tasks_run_without() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("runner.sock")).unwrap();
    // Something else is where they would lie.
    fs::write(dir.path().join("runner.notify"), "").unwrap();
    let child = start(&options(), listener.into());
    let running = Running { dir, child };
    let mut daemon = running.daemon();
    let ended = running.run(&mut daemon, launch(1, &["env"]));
    assert_eq!(code(&ended), 0);
    assert!(!running.output(1).text().contains("NOTIFY_SOCKET"));
}
