//! Signals: none is lost, a storm of them is one, an end comes first.
//!
//! Caught signals stay caught, so this runs `probe`, a part of this test
//! program, in a process of its own.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{self, raise};
use taskdaemon::daemon::signals::{Signal, Signals};
use tokio::time::timeout;

const PROBE: &str = "SIGNALS_TEST_PROBE";

/// Not a test: signals itself.
#[test]
fn probe() {
    if std::env::var_os(PROBE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("runtime").block_on(storm());
}

async fn storm() {
    let mut signals = Signals::listen().expect("handlers");
    // Nobody waits yet.
    for _ in 0..10_000 {
        raise(signal::SIGHUP).expect("raise");
    }
    for one in [
        signal::SIGUSR2,
        signal::SIGUSR1,
        signal::SIGINT,
        signal::SIGTERM,
    ] {
        raise(one).expect("raise");
    }
    let mut seen = Vec::new();
    while let Ok(signal) = timeout(Duration::from_millis(200), signals.next()).await {
        seen.push(signal);
    }
    use Signal::{Dump, Interrupt, Reload, Reopen, Terminate};
    assert_eq!(seen, [Terminate, Interrupt, Reload, Dump, Reopen]);
    // One that comes during the reload leads to another; a second end is seen.
    raise(signal::SIGHUP).expect("raise");
    raise(signal::SIGTERM).expect("raise");
    assert_eq!(signals.next().await, Terminate);
    assert_eq!(signals.next().await, Reload);
}

#[test]
fn a_storm_is_one_reload_and_an_end_comes_first() {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "signals::probe",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(PROBE, "1")
        .output()
        .expect("this program");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
