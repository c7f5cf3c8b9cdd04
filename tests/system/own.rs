//! A daemon under a user's own service manager, and what a host without cgroup controllers makes of limits.

use std::time::Duration;

use crate::bed::{Bed, id_of, parse, wait_until};
use crate::on_both_releases;

on_both_releases!(
    a_users_own_daemon_runs_beside_the_systems,
    what_cannot_be_enforced_is_said_and_refused
);

/// Runs a command as mallory, who may not use the system's daemon, with a manager of her own.
fn own(bed: &Bed, words: &[&str]) -> String {
    let text = "exec runuser -u mallory -- env HOME=/home/mallory XDG_RUNTIME_DIR=/run/user/$(id -u mallory) \"$@\"";
    let mut all = vec!["sh", "-c", text, "sh"];
    all.extend_from_slice(words);
    bed.ok(&all)
}

fn a_users_own_daemon_runs_beside_the_systems(bed: &Bed) {
    // What `loginctl enable-linger` writes down; in a container its daemon may lack what it asks first.
    bed.sh("mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/mallory");
    bed.sh("systemctl start user@$(id -u mallory).service");
    wait_until("mallory has a manager", Duration::from_secs(30), || {
        let bus = bed.sh("ls /run/user/$(id -u mallory)/systemd/private 2>/dev/null || true");
        (!bus.is_empty()).then_some(())
    });
    let manage = |words: &[&str]| {
        let mut all = vec!["systemctl", "--user"];
        all.extend_from_slice(words);
        own(bed, &all)
    };
    let units = [
        "taskdaemon-api.socket",
        "taskdaemon-runner.socket",
        "taskdaemon.service",
    ];
    manage(&[&["enable", "--now"], &units[..]].concat());
    // No address is named: the system's daemon is not for her.
    let script = "id -un; while [ ! -e ~/go ]; do sleep 0.05; done; echo whole";
    let id = own(bed, &["taskdaemon", "submit", "--", "sh", "-c", script]);
    let show = |id: &str| parse(&own(bed, &["taskdaemon", "show", id, "--json"]));
    let begun = wait_until("it runs", Duration::from_secs(30), || {
        let task = show(&id);
        task["attempts"][0]["pid"].is_u64().then_some(task)
    });
    let pid = |unit: &str| manage(&["show", "--property=MainPID", "--value", unit]);
    let runner = pid("taskdaemon-runner.service");
    manage(&["restart", "taskdaemon.service"]);
    let before = pid("taskdaemon.service");
    manage(&[
        "kill",
        "--kill-whom=main",
        "--signal=KILL",
        "taskdaemon.service",
    ]);
    wait_until("another daemon runs", Duration::from_secs(30), || {
        let now = pid("taskdaemon.service");
        (now != "0" && now != before).then_some(())
    });
    assert_eq!(
        show(&id)["attempts"],
        begun["attempts"],
        "nothing happened to it"
    );
    assert_eq!(pid("taskdaemon-runner.service"), runner);
    own(bed, &["touch", "/home/mallory/go"]);
    own(bed, &["taskdaemon", "wait", &id]);
    assert_eq!(own(bed, &["taskdaemon", "logs", &id]), "mallory\nwhole");
    manage(&["reload", "taskdaemon.service"]);
    // Each daemon has its own tasks and its own door.
    assert!(bed.alice(&["list", "--all"]).lines().count() <= 1);
    let uid = bed.ok(&["id", "-u", "mallory"]);
    let door = format!("unix:/run/user/{uid}/taskdaemon/api.sock");
    let refused = bed.as_user("alice", &["--host", &door, "status"]);
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    let system = own(
        bed,
        &["sh", "-c", "taskdaemon --host system status; echo $?"],
    );
    assert!(system.ends_with("69"), "{system}");
}

fn what_cannot_be_enforced_is_said_and_refused(bed: &Bed) {
    let status = parse(&bed.alice(&["status", "--json"]));
    let shown = bed.alice(&["status"]);
    let missing = shown
        .lines()
        .find_map(|line| line.split_once("not enforced on this host: "))
        .map_or("", |(_, missing)| missing);
    for (name, limit) in [("memory", "64MiB"), ("cpu", "0.5"), ("pids", "8")] {
        let can = status["runner"]["enforces"][name] == true;
        assert_eq!(can, !missing.contains(name), "{shown}");
        let option = format!("--{name}");
        let asked = ["submit", "--json", &option, limit, "--", "true"];
        if can {
            let id = id_of(&parse(&bed.alice(&asked)));
            let task = bed.ended(&id, Duration::from_secs(20));
            assert_eq!(task["attempts"][0]["outcome"], "success", "{task}");
            continue;
        }
        let refused = bed.as_user("alice", &asked);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(why.contains("cannot be enforced on this host"), "{why}");
    }
}
