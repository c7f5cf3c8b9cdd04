//! The small parent: what is started again, when it gives up, who is told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::bed::request;
use crate::ground::{Ground, lives, signal};

/// Restarts at once, so that a test need not wait for them.
const AT_ONCE: (&str, &str) = ("DAEMON__RESTART_STEPS", "[\"1ms\"]");

/// A program that appends what it is told to a file.
fn witness(ground: &Ground) -> String {
    let path = ground.path("witness");
    let told = ground.path("told").display().to_string();
    let text = format!("#!/bin/sh\necho \"$TASKDAEMON_EVENT $TASKDAEMON_DETAIL\" >>{told}\n");
    fs::write(&path, text).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    path.display().to_string()
}

fn told(ground: &Ground) -> String {
    fs::read_to_string(ground.path("told")).unwrap_or_default()
}

fn restarts(ground: &Ground) -> Option<i64> {
    ground.get("/v1/status")?["supervisor"]["restarts"].as_i64()
}

#[test]
fn a_daemon_that_dies_or_falls_silent_is_started_again_and_tasks_do_not_notice() {
    let ground = Ground::new(&[AT_ONCE, ("DAEMON__HEARTBEAT", "10s")]);
    let supervisor = ground.start(&["--supervised"]);
    let first = ground.daemon();
    assert_ne!(first, supervisor);
    let body = json!({"command": ["sh", "-c", "sleep 600"]});
    let (status, task) = request(&ground.socket(), "POST", "/v1/tasks", Some(&body)).expect("ask");
    assert_eq!(status, 201, "{task}");
    let path = format!("/v1/tasks/{}", task["id"]);
    ground.until("the task runs", || {
        ground
            .get(&path)
            .is_some_and(|task| task["state"] == "running")
    });

    signal(first, Signal::SIGKILL);
    ground.until("another daemon answers", || restarts(&ground) == Some(1));
    // It answers before it says so: until then the supervisor gives it the time that a start may take.
    ground.until("the second daemon is ready", || {
        ground.log().matches(" is ready: ").count() == 2
    });
    let second = ground.daemon();
    // It lives, and does nothing more.
    signal(second, Signal::SIGSTOP);
    ground.until("a third daemon answers", || restarts(&ground) == Some(2));
    assert!(!lives(second));
    assert!(
        ground.log().contains("nothing was heard"),
        "{}",
        ground.log()
    );
    // An end in order that nobody ordered here is none.
    signal(ground.daemon(), Signal::SIGTERM);
    ground.until("a fourth daemon answers", || restarts(&ground) == Some(3));

    let (code, said) = ground.verb("status", &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("pid {supervisor}")), "{said}");
    assert!(said.contains("self-healing: enabled, 3 restarts"), "{said}");
    let said = ground.run(&["status"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("self-healing: enabled, 3 restarts"), "{said}");
    let task = ground.get(&path).expect("kept");
    assert_eq!(task["state"], "running", "{task}");
    assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");

    let last = ground.daemon();
    let (code, said) = ground.verb("stop", &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("running tasks go on"), "{said}");
    assert!(!lives(supervisor) && !lives(last));
    assert!(!ground.pid_file().exists());
    let (code, said) = ground.verb("stop", &["--tasks"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("running tasks were ended"), "{said}");
    assert_eq!(ground.verb("status", &[]).0, 3);
}

#[test]
fn too_many_restarts_in_a_row_are_followed_by_a_pause_and_somebody_is_told() {
    let mut ground = Ground::new(&[
        AT_ONCE,
        ("DAEMON__RESTART_LIMIT", "2"),
        ("DAEMON__RESTART_COOL_OFF", "1h"),
    ]);
    let witness = witness(&ground);
    ground.set("DAEMON__ON_RESTART_LIMIT", &format!("[{witness:?}]"));
    ground.set("DAEMON__ON_READY", &format!("[{witness:?}]"));
    let supervisor = ground.start(&["--supervised"]);
    for number in 0..3 {
        ground.until("it is there, and told", || {
            let times = i64::try_from(told(&ground).matches("ready").count());
            restarts(&ground) == Some(number) && times == Ok(number + 1)
        });
        signal(ground.daemon(), Signal::SIGKILL);
    }
    ground.until("somebody is told", || {
        told(&ground).contains("restart_limit")
    });
    let (code, said) = ground.verb("status", &[]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("enabled, 3 restarts, the daemon is down"),
        "{said}"
    );
    assert!(said.contains("after too many"), "{said}");
    assert!(ground.get("/live").is_none());
    let (code, said) = ground.verb("stop", &[]);
    assert_eq!((code, lives(supervisor)), (0, false), "{said}");
}

#[test]
fn a_configuration_that_was_refused_meanwhile_ends_the_supervisor() {
    let ground = Ground::new(&[AT_ONCE]);
    let config = ground.path("config.toml");
    fs::write(&config, "engine.slots = 3\n").expect("write");
    let file = config.display().to_string();
    let supervisor = ground.start(&["--supervised", "--config", &file]);
    fs::write(&config, "engine.slots = 0\n").expect("write");
    signal(ground.daemon(), Signal::SIGKILL);
    ground.until("it gives up", || !lives(supervisor));
    assert!(ground.log().contains("engine.slots"), "{}", ground.log());
    assert!(!ground.pid_file().exists(), "in order");
}

#[test]
fn a_daemon_without_its_supervisor_ends_in_order() {
    let ground = Ground::new(&[AT_ONCE]);
    let supervisor = ground.start(&["--supervised"]);
    let daemon = ground.daemon();
    signal(supervisor, Signal::SIGKILL);
    ground.until("both are gone", || !lives(supervisor) && !lives(daemon));
    assert!(
        ground.log().contains("taskdaemon stops"),
        "{}",
        ground.log()
    );
    let (code, said) = ground.verb("status", &[]);
    assert_eq!(code, 1, "{said}");
    ground.start(&["--supervised"]);
}

#[test]
fn a_signal_reaches_the_daemon_through_its_supervisor() {
    let mut ground = Ground::new(&[AT_ONCE]);
    let config = ground.path("config.toml");
    let witness = witness(&ground);
    let good = format!("daemon.on_reload_failed = [{witness:?}]\n");
    fs::write(&config, &good).expect("write");
    ground.set("DAEMON__HOOK_TIMEOUT", "30s");
    let file = config.display().to_string();
    let supervisor = ground.start(&["--supervised", "--config", &file]);
    fs::write(&config, format!("{good}engine.slots = 0\n")).expect("write");
    signal(supervisor, Signal::SIGHUP);
    ground.until("the refusal is told", || {
        told(&ground).contains("reload_failed")
    });
    assert!(told(&ground).contains("engine.slots"), "{}", told(&ground));
    fs::write(&config, format!("{good}engine.slots = 9\n")).expect("write");
    signal(supervisor, Signal::SIGHUP);
    ground.until("the new setting counts", || {
        let status = ground.get("/v1/status");
        status.is_some_and(|status| status["slots"]["total"] == 9)
    });
    fs::rename(ground.path("log"), ground.path("old")).expect("rename");
    signal(supervisor, Signal::SIGUSR2);
    ground.until("both write to a new log", || {
        ground.log().matches("opened the log").count() == 2
    });
}

#[test]
fn a_program_that_hangs_is_killed_and_holds_nobody_up() {
    let mut ground = Ground::new(&[("DAEMON__HOOK_TIMEOUT", "200ms")]);
    ground.set("DAEMON__ON_READY", "[\"/bin/sleep\", \"600\"]");
    ground.start(&[]);
    assert!(ground.get("/ready").is_some());
    ground.until("it was killed", || ground.log().contains("was killed"));
}

#[test]
fn what_is_systemds_to_do_is_refused_with_the_reason() {
    let ground = Ground::new(&[]);
    for flag in ["--supervised", "--fork"] {
        let output = ground
            .command(&["start", flag])
            .env("NOTIFY_SOCKET", "/run/systemd/notify")
            .output()
            .expect("run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains("ExecStart="), "{said}");
    }
}
