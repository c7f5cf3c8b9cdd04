//! A daemon under a user's own service manager: both processes and all tasks are that user.

use serde_json::Value;

use crate::agent::Done;
use crate::limits::cpu_share;
use crate::machine::{Machine, STEP, wait_until};

/// Runs a command as mallory, who may not use the system's daemon, in a session with a manager of her own.
fn own(machine: &mut Machine, words: &[&str]) -> Done {
    let text = "exec runuser -u mallory -- env HOME=/home/mallory XDG_RUNTIME_DIR=/run/user/$(id -u mallory) \"$@\"";
    let mut all = vec!["sh", "-c", text, "sh"];
    all.extend_from_slice(words);
    machine.run(&all)
}

fn must(machine: &mut Machine, words: &[&str]) -> String {
    let done = own(machine, words);
    assert_eq!(done.code, 0, "{words:?}: {done:?}");
    done.out
}

fn submit(machine: &mut Machine, options: &[&str], script: &str) -> String {
    let mut words = vec!["taskdaemon", "submit"];
    words.extend_from_slice(options);
    words.extend_from_slice(&["--", "sh", "-c", script]);
    must(machine, &words)
}

/// A daemon that has just been started may take longer here than a client waits.
fn task(machine: &mut Machine, id: &str) -> Value {
    let text = wait_until(&format!("task {id} is shown"), STEP, || {
        let shown = own(machine, &["taskdaemon", "show", id, "--json"]);
        assert!(matches!(shown.code, 0 | 69), "{shown:?}");
        (shown.code == 0).then_some(shown.out)
    });
    serde_json::from_str(&text).expect("JSON")
}

fn until(machine: &mut Machine, id: &str, states: &[&str]) -> Value {
    wait_until(&format!("task {id} is {states:?}"), STEP * 2, || {
        let task = task(machine, id);
        states.contains(&task["state"].as_str()?).then_some(task)
    })
}

const ENDS: [&str; 3] = ["succeeded", "failed", "cancelled"];

/// Starts mallory's daemon as she would.
fn start(machine: &mut Machine) {
    machine.ok(&["loginctl", "enable-linger", "mallory"]);
    wait_until("mallory has a manager", STEP, || {
        let state = own(machine, &["systemctl", "--user", "is-system-running"]);
        (state.out == "running").then_some(())
    });
    must(
        machine,
        &[
            "systemctl",
            "--user",
            "enable",
            "--now",
            "taskdaemon-api.socket",
            "taskdaemon-runner.socket",
            "taskdaemon.service",
        ],
    );
}

fn main_pid(machine: &mut Machine, unit: &str) -> String {
    must(
        machine,
        &[
            "systemctl",
            "--user",
            "show",
            "--property=MainPID",
            "--value",
            unit,
        ],
    )
}

pub(crate) fn a_user_has_a_daemon_of_their_own(machine: &mut Machine) {
    let refused = own(machine, &["taskdaemon", "status"]);
    assert_eq!(refused.code, 69, "{refused:?}");
    start(machine);
    // No address is named: the system's daemon is not for her.
    let script = "id -un; while [ ! -e ~/go ]; do sleep 0.2; done; echo whole";
    let id = submit(machine, &[], script);
    let begun = until(machine, &id, &["running"]);
    let runner = main_pid(machine, "taskdaemon-runner.service");
    let uid = machine.ok(&["id", "-u", "mallory"]);
    for unit in ["taskdaemon.service", "taskdaemon-runner.service"] {
        let pid = main_pid(machine, unit);
        assert_eq!(
            machine.ok(&["stat", "--format=%u", &format!("/proc/{pid}")]),
            uid,
            "{unit}"
        );
    }
    must(
        machine,
        &["systemctl", "--user", "restart", "taskdaemon.service"],
    );
    must(
        machine,
        &[
            "systemctl",
            "--user",
            "kill",
            "--kill-whom=main",
            "--signal=KILL",
            "taskdaemon.service",
        ],
    );
    must(
        machine,
        &[
            "systemctl",
            "--user",
            "reload-or-restart",
            "taskdaemon.service",
        ],
    );
    let task = until(machine, &id, &["running"]);
    assert_eq!(
        task["attempts"], begun["attempts"],
        "nothing happened to it"
    );
    assert_eq!(main_pid(machine, "taskdaemon-runner.service"), runner);
    must(machine, &["touch", "/home/mallory/go"]);
    let task = until(machine, &id, &ENDS);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["attempts"][0]["user"], "mallory", "{task}");
    assert_eq!(
        must(machine, &["taskdaemon", "logs", &id]),
        "mallory\nwhole"
    );
    hers_is_hers(machine, &uid);
    let reload = own(
        machine,
        &["systemctl", "--user", "reload", "taskdaemon.service"],
    );
    assert_eq!(reload.code, 0, "{reload:?}");
}

/// Nobody else gets in, and her tasks are nobody else.
fn hers_is_hers(machine: &mut Machine, uid: &str) {
    let other = own(
        machine,
        &["taskdaemon", "submit", "--user", "alice", "--", "true"],
    );
    assert_eq!(other.code, 0, "{other:?}");
    let task = until(machine, &other.out, &ENDS);
    assert_eq!(
        task["attempts"][0]["outcome"], "spawn",
        "tasks run as her: {task}"
    );
    let socket = format!("unix:/run/user/{uid}/taskdaemon/api.sock");
    let alice = machine.run(&[
        "runuser",
        "-u",
        "alice",
        "--",
        "taskdaemon",
        "--host",
        &socket,
        "status",
    ]);
    assert_eq!(alice.code, 69, "{alice:?}");
}

pub(crate) fn limits_hold_in_a_users_own_daemon(machine: &mut Machine) {
    start(machine);
    let id = submit(machine, &["--memory", "32MiB"], "exec tail /dev/zero");
    let task = until(machine, &id, &ENDS);
    assert_eq!(task["attempts"][0]["outcome"], "oom", "{task}");
    let id = submit(
        machine,
        &["--cpu", "0.2", "--pids", "8"],
        "exec timeout 5 sh -c 'while :; do :; done'",
    );
    let task = until(machine, &id, &ENDS);
    assert_eq!(task["attempts"][0]["exit_code"], 124, "{task}");
    let share = cpu_share(&task["attempts"][0]);
    assert!((0.02..=0.24).contains(&share), "{share}: {task}");
    let status = must(machine, &["taskdaemon", "status"]);
    assert!(
        !status.contains("memory"),
        "everything asked for is enforced: {status}"
    );
}
