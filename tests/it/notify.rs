//! What systemd hands over and is told: descriptors, watchdog, notifications.
//!
//! The environment can only be taken by a fresh process without threads, so
//! these tests run `probe`, a part of this test program, in one.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use taskdaemon::daemon::notify::Notify;
use taskdaemon::daemon::passed::Listener;
use taskdaemon::daemon::service::Systemd;

/// Set for the process that is to take its environment.
const PROBE: &str = "NOTIFY_TEST_PROBE";

/// Not a test: prints what this process was given.
#[test]
fn probe() {
    if std::env::var_os(PROBE).is_none() {
        return;
    }
    match Systemd::take() {
        Ok(systemd) => {
            for (name, listener) in &systemd.listeners {
                let kind = match listener {
                    Listener::Unix(socket) => {
                        format!("unix, waits: {}", waits(socket.accept().err()))
                    }
                    Listener::Tcp(socket) => {
                        format!("tcp, waits: {}", waits(socket.accept().err()))
                    }
                };
                eprintln!("got {name}: {kind}");
            }
            for warning in &systemd.warnings {
                eprintln!("warned {warning}");
            }
            eprintln!("watchdog {:?}", systemd.watchdog_interval());
            eprintln!("heard {}", systemd.notify.is_heard());
        }
        Err(error) => eprintln!("refused {error}"),
    }
    let left = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        ["LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_"]
            .iter()
            .any(|taken| name.starts_with(taken))
    });
    eprintln!("left {:?}", left.collect::<Vec<_>>());
}

fn waits(error: Option<std::io::Error>) -> bool {
    error.is_none_or(|error| error.kind() != std::io::ErrorKind::WouldBlock)
}

/// Runs the probe from a shell line that sets variables and descriptors; the
/// first socket is descriptor 3, the second 4. `$$` there is the probe's id.
fn take(shell: &str, sockets: [Option<OwnedFd>; 2]) -> String {
    let program = std::env::current_exe().expect("this program");
    let [first, second] = sockets.map(|socket| socket.map_or_else(Stdio::null, Stdio::from));
    let line = format!(
        "exec 3<&0 4>&1 </dev/null >/dev/null; {shell} exec \"$0\" --exact notify::probe --nocapture --test-threads=1"
    );
    let Output { stderr, .. } = Command::new("/bin/sh")
        .args(["-c", &line])
        .arg(program)
        .env(PROBE, "1")
        .stdin(first)
        .stdout(second)
        .stderr(Stdio::piped())
        .output()
        .expect("a shell");
    String::from_utf8(stderr).expect("text")
}

fn unix() -> (tempfile::TempDir, OwnedFd) {
    let directory = tempfile::tempdir().expect("directory");
    let socket = UnixListener::bind(directory.path().join("s")).expect("bind");
    (directory, socket.into())
}

fn tcp() -> OwnedFd {
    TcpListener::bind("127.0.0.1:0").expect("bind").into()
}

#[test]
fn passed_sockets_are_taken_by_name_and_the_environment_is_cleared() {
    let (_directory, socket) = unix();
    let said = take(
        "export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=api:tcp NOTIFY_SOCKET=/x WATCHDOG_USEC=3000000 WATCHDOG_PID=$$;",
        [Some(socket), Some(tcp())],
    );
    for line in [
        "got api: unix, waits: false",
        "got tcp: tcp, waits: false",
        "watchdog Some(1s)",
        "heard true",
        "left []",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
}

#[test]
fn sockets_without_names_are_told_by_their_type() {
    let (_directory, socket) = unix();
    let said = take(
        "export LISTEN_PID=$$ LISTEN_FDS=2;",
        [Some(tcp()), Some(socket)],
    );
    for line in [
        "got tcp: tcp, waits: false",
        "got api: unix, waits: false",
        "left []",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
}

#[test]
fn nothing_is_taken_where_nothing_was_given() {
    let said = take("", [None, None]);
    assert!(
        !said.contains("got") && !said.contains("warned") && said.contains("heard false"),
        "{said}"
    );
}

#[test]
fn sockets_that_cannot_be_served_are_refused_by_number_and_name() {
    for (variables, expected) in [
        (
            "LISTEN_PID=$$ LISTEN_FDS=-1",
            "LISTEN_FDS=\"-1\": not a number",
        ),
        (
            "LISTEN_PID=$$ LISTEN_FDS=abc",
            "LISTEN_FDS=\"abc\": not a number",
        ),
        ("LISTEN_PID=$$ LISTEN_FDS=", "LISTEN_FDS=\"\": not a number"),
        (
            "LISTEN_PID=$$ LISTEN_FDS=2147483648",
            "LISTEN_FDS=\"2147483648\": not a number",
        ),
        (
            "LISTEN_PID=$$ LISTEN_FDS=2147483000 LISTEN_FDNAMES=api",
            "descriptor ",
        ),
        (
            "LISTEN_FDS=2 LISTEN_FDNAMES=api:tcp",
            "LISTEN_PID=\"\": LISTEN_FDS needs",
        ),
        ("LISTEN_PID=abc LISTEN_FDS=2", "LISTEN_PID=\"abc\""),
        (
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=api",
            "LISTEN_FDNAMES has 1 names for 2 descriptors",
        ),
        (
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api:tcp",
            "LISTEN_FDNAMES has 2 names for 1 descriptors",
        ),
        (
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=tcp:api",
            "descriptor 3 (tcp) is not a listening TCP socket",
        ),
        (
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=api:admin",
            "descriptor 4 is named \"admin\"",
        ),
        (
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=api:",
            "descriptor 4 is named \"\"",
        ),
    ] {
        let (_directory, socket) = unix();
        let said = take(&format!("export {variables};"), [Some(socket), Some(tcp())]);
        assert!(
            said.contains(&format!("refused {expected}")),
            "{variables}: no {expected:?} in {said}"
        );
        assert!(said.contains("left []"), "{variables}: {said}");
    }
    let (_directory, socket) = unix();
    let said = take(
        "export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=api:tcp; exec 4>&-;",
        [Some(socket), None],
    );
    assert!(
        said.contains("refused descriptor 4 (tcp) was announced but is not open"),
        "{said}"
    );
    let datagram: OwnedFd = UnixDatagram::unbound().expect("socket").into();
    let said = take(
        "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api;",
        [Some(datagram), None],
    );
    assert!(
        said.contains("refused descriptor 3 (api) is not a listening unix stream socket"),
        "{said}"
    );
}

#[test]
fn what_was_meant_for_another_process_is_left_alone() {
    let (_directory, socket) = unix();
    let said = take(
        "export LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=api WATCHDOG_USEC=3000000 WATCHDOG_PID=1;",
        [Some(socket), None],
    );
    assert!(
        said.contains("warned LISTEN_PID=1") && said.contains("warned WATCHDOG_PID=1"),
        "{said}"
    );
    assert!(
        !said.contains("got") && said.contains("watchdog None") && said.contains("left []"),
        "{said}"
    );
}

#[test]
fn a_watchdog_that_makes_no_sense_is_ignored_with_a_warning() {
    for (usec, interval, warned) in [
        ("0", "None", true),
        ("1", "None", true),
        ("abc", "None", true),
        ("", "None", true),
        ("-5", "None", true),
        ("99999999999999999999999", "None", true),
        ("18446744073709551615", "None", false),
        ("300000", "Some(100ms)", true),
        ("30000000", "Some(10s)", false),
    ] {
        let said = take(&format!("export WATCHDOG_USEC={usec};"), [None, None]);
        assert!(
            said.contains(&format!("watchdog {interval}")),
            "{usec}: {said}"
        );
        assert_eq!(
            said.contains("warned WATCHDOG_USEC"),
            warned,
            "{usec}: {said}"
        );
    }
}

/// A manager that listens at a path or an abstract name.
fn manager(name: Option<&str>) -> (tempfile::TempDir, UnixDatagram, Notify) {
    let directory = tempfile::tempdir().expect("directory");
    let (socket, address) = match name {
        Some(name) => {
            let address = SocketAddr::from_abstract_name(name).expect("name");
            (
                UnixDatagram::bind_addr(&address),
                OsString::from(format!("@{name}")),
            )
        }
        None => {
            let path = directory.path().join("notify");
            (UnixDatagram::bind(&path), path.into_os_string())
        }
    };
    let socket = socket.expect("bind");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("time-out");
    let mut warnings = Vec::new();
    let notify = Notify::to(Some(address), &mut warnings);
    assert!(warnings.is_empty(), "{warnings:?}");
    (directory, socket, notify)
}

fn heard(socket: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).expect("a message");
    String::from_utf8_lossy(&message[..length]).into_owned()
}

#[test]
fn each_call_is_one_datagram_at_a_path_or_an_abstract_name() {
    let name = format!("taskdaemon-test-{}", std::process::id());
    for name in [None, Some(name.as_str())] {
        let (_directory, socket, notify) = manager(name);
        assert!(notify.ready("serving"));
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serving\n");
        assert!(notify.reloading());
        let reloading = heard(&socket);
        let time = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .expect("both in one");
        assert!(time.trim_end().parse::<u64>().expect("a time") > 0);
        assert!(notify.stopping("3 tasks go on"));
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=3 tasks go on\n");
        assert!(notify.extend_timeout(Duration::from_secs(2)));
        assert_eq!(heard(&socket), "EXTEND_TIMEOUT_USEC=2000000\n");
        assert!(notify.watchdog());
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
        assert!(notify.errno(28, "disk full"));
        assert_eq!(heard(&socket), "ERRNO=28\nSTATUS=disk full\n");
    }
}

#[test]
fn a_status_cannot_say_anything_else() {
    let (_directory, socket, notify) = manager(None);
    assert!(notify.status("failed:\nSTOPPING=1\r\n\u{1b}[31m\0\u{85}x"));
    assert_eq!(heard(&socket), "STATUS=failed: STOPPING=1   [31m  x\n");
    assert!(notify.status(&"ä".repeat(1000)));
    assert_eq!(heard(&socket), format!("STATUS={}\n", "ä".repeat(256)));
}

#[test]
fn a_manager_that_does_not_read_or_is_gone_delays_nothing() {
    let (directory, socket, notify) = manager(None);
    let before = std::iter::repeat_with(|| notify.watchdog())
        .take(100_000)
        .take_while(|sent| *sent)
        .count();
    assert!(before < 100_000, "the queue never was full");
    assert!(!notify.ready("full"));
    for _ in 0..before {
        heard(&socket);
    }
    assert!(notify.ready("read again"));
    drop(socket);
    assert!(!notify.ready("nobody there"));
    drop(directory);
    assert!(!notify.ready("not even the path"));
}

#[test]
fn an_address_that_cannot_be_used_is_a_warning() {
    let long = format!("/{}", "x".repeat(200));
    for address in ["", "relative", "vsock:2:1234", long.as_str()] {
        let mut warnings = Vec::new();
        let notify = Notify::to(Some(address.into()), &mut warnings);
        assert!(!notify.is_heard() && notify.ready("silently"), "{address}");
        assert_eq!(warnings.len(), 1, "{address}: {warnings:?}");
    }
}

#[test]
fn bi_62_a_unit_that_hands_over_too_little_is_told_so() {
    let said = take("export SYSTEMD_EXEC_PID=$$;", [None, None]);
    for line in ["Type=notify", "taskdaemon-api.socket"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(
        said.contains("User=taskdaemon"),
        nix::unistd::geteuid().is_root()
    );
    // A child of what systemd has started is none of its business.
    let said = take("export SYSTEMD_EXEC_PID=1;", [None, None]);
    assert!(!said.contains("warned"), "{said}");
}
