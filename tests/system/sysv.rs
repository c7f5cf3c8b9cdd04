//! A Debian that was booted without systemd: the init script, the supervisor behind it, and the package's life there.

use std::time::Duration;

use crate::bed::{Bed, wait_until};
use crate::on_both_releases;

on_both_releases!(where_systemd_runs_the_init_script_starts_nothing);

fn where_systemd_runs_the_init_script_starts_nothing(bed: &Bed) {
    let unit = bed.ok(&[
        "systemctl",
        "show",
        "--property=FragmentPath",
        "taskdaemon.service",
    ]);
    assert!(
        unit.ends_with("/systemd/system/taskdaemon.service"),
        "{unit}"
    );
    let before = bed.main_pid("taskdaemon.service");
    for action in ["status", "start", "restart", "force-reload"] {
        let done = bed.run(&["/etc/init.d/taskdaemon", action]);
        assert!(done.status.success(), "{action}: {done:?}");
    }
    assert_ne!(
        bed.main_pid("taskdaemon.service"),
        before,
        "the unit was restarted"
    );
    assert!(bed.active("taskdaemon.service"));
    assert!(
        !bed.run(&["test", "-e", "/run/taskdaemon.pid"])
            .status
            .success()
    );
    let done = bed.run(&["taskdaemon", "start"]);
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("systemctl start taskdaemon"), "{said}");
    let done = bed.run(&["taskdaemon", "stop"]);
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    assert!(bed.active("taskdaemon.service"));
}

#[test]
#[ignore = "needs root and containers; tests/run runs it"]
fn the_init_script_does_what_init_scripts_do() {
    let bed = Bed::boot("bookworm-sysv", concat!(module_path!(), "-script"));
    assert_eq!(bed.sh("cat /proc/1/comm"), "init");
    assert!(
        !bed.run(&["test", "-e", "/run/systemd/system"])
            .status
            .success()
    );
    assert_eq!(service(&bed, "status").0, 0, "the installation starts it");
    let links = bed.sh("ls /etc/rc2.d /etc/rc0.d");
    assert!(
        links.contains("S") && links.matches("taskdaemon").count() == 2,
        "{links}"
    );

    identities(&bed);
    let id = bed.submit(&[], "echo start >>/tmp/marks; sleep 12; exit 7");
    bed.running(&id);
    healing(&bed);
    reloading(&bed);

    let before = supervisor(&bed);
    assert_eq!(service(&bed, "restart").0, 0);
    assert_ne!(supervisor(&bed), before);
    assert_eq!(service(&bed, "start").0, 0, "started already is success");
    assert_eq!(service(&bed, "stop").0, 0);
    assert_eq!(service(&bed, "status").0, 2, "its runner lives");
    assert_eq!(service(&bed, "stop").0, 0, "stopped already is success");
    assert_eq!(service(&bed, "try-restart").0, 0);
    assert_ne!(service(&bed, "status").0, 0, "nothing to restart");
    assert_eq!(service(&bed, "start").0, 0);
    assert_eq!(service(&bed, "nonsense").0, 2);
    // None of this was noticed by the task.
    let task = bed.ended(&id, Duration::from_secs(60));
    assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
    assert_eq!(task["attempts"][0]["exit_code"], 7, "{task}");
    assert_eq!(bed.sh("cat /tmp/marks"), "start");
    log_is_opened_again(&bed);
}

#[test]
#[ignore = "needs root and containers; tests/run runs it"]
fn removal_without_systemd_ends_daemon_runner_and_tasks() {
    let bed = Bed::boot("bookworm-sysv", concat!(module_path!(), "-removal"));
    let id = bed.submit(&[], "sleep 300");
    bed.running(&id);
    bed.ok(&["dpkg", "--remove", "taskdaemon"]);
    let left = bed.run(&["pgrep", "--exact", "taskdaemon|sleep"]);
    assert!(!left.status.success(), "{left:?}");
    assert!(
        bed.run(&["test", "-d", "/var/lib/taskdaemon"])
            .status
            .success(),
        "tasks stay"
    );
    bed.ok(&["dpkg", "--purge", "taskdaemon"]);
    let left = bed.sh("ls -d /var/lib/taskdaemon /var/log/taskdaemon /run/taskdaemon* /etc/rc?.d/*taskdaemon* 2>&1 || true");
    assert_eq!(
        left.lines()
            .filter(|line| !line.contains("No such file"))
            .count(),
        0,
        "{left}"
    );
}

/// An action of the script: its code, and what it said.
fn service(bed: &Bed, action: &str) -> (i32, String) {
    let done = bed.run(&["service", "taskdaemon", action]);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    (done.status.code().expect("a code"), said)
}

fn supervisor(bed: &Bed) -> String {
    bed.sh("cat /run/taskdaemon.pid")
}

fn daemon(bed: &Bed) -> String {
    wait_until("the daemon answers", Duration::from_secs(20), || {
        let done = bed.run(&["taskdaemon", "status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&done.stdout).ok()?;
        status["pid"].as_u64().map(|pid| pid.to_string())
    })
}

/// The daemon is not root, the task is not the daemon, members of the group may submit.
fn identities(bed: &Bed) {
    let user = |pid: &str| bed.ok(&["stat", "--format=%U", &format!("/proc/{pid}")]);
    assert_eq!(user(&supervisor(bed)), "root");
    assert_eq!(user(&daemon(bed)), "taskdaemon");
    let id = bed.submit(&[], "id -un");
    let task = bed.ended(&id, Duration::from_secs(20));
    assert_eq!(task["attempts"][0]["user"], "taskdaemon-job", "{task}");
    assert_eq!(bed.alice(&["logs", &id]), "taskdaemon-job");
    let done = bed.as_user("mallory", &["submit", "--", "true"]);
    assert!(matches!(done.status.code(), Some(4 | 69)), "{done:?}");
}

fn healing(bed: &Bed) {
    let before = daemon(bed);
    bed.ok(&["kill", "-KILL", &before]);
    wait_until("another daemon answers", Duration::from_secs(20), || {
        (daemon(bed) != before).then_some(())
    });
    let (code, said) = service(bed, "status");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("self-healing: enabled, 1 restart"), "{said}");
}

fn reloading(bed: &Bed) {
    let (code, said) = service(bed, "force-reload");
    assert_eq!(code, 0, "{said}");
    bed.sh("echo 'engine.slots = 0' >/etc/taskdaemon/conf.d/bad.toml");
    let (code, said) = service(bed, "reload");
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("bad.toml"), "{said}");
    bed.sh("rm /etc/taskdaemon/conf.d/bad.toml");
}

fn log_is_opened_again(bed: &Bed) {
    bed.sh("mv /var/log/taskdaemon/taskdaemon.log /var/log/taskdaemon/taskdaemon.log.1");
    bed.sh("kill -USR2 $(cat /run/taskdaemon.pid)");
    wait_until("both write to a new log", Duration::from_secs(10), || {
        let log = bed.run(&["cat", "/var/log/taskdaemon/taskdaemon.log"]);
        let log = String::from_utf8_lossy(&log.stdout).into_owned();
        (log.matches("opened the log").count() == 2).then_some(())
    });
}
