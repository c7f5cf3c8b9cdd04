//! The package's life: installed, started, used by those who may, removed, purged.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, parse, wait_until};
use crate::{host, on_both_releases};

on_both_releases!(
    members_submit_and_others_are_refused,
    purge_leaves_only_what_was_there
);

fn members_submit_and_others_are_refused(bed: &Bed) {
    assert!(
        bed.active("taskdaemon.service"),
        "the installation starts the daemon"
    );
    assert!(
        !bed.active("taskdaemon-tcp.socket"),
        "no TCP unless asked for"
    );

    let id = bed.submit(&[], "id; cat /proc/self/cgroup; echo to stderr >&2");
    let task = bed.ended(&id, Duration::from_secs(20));
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["attempts"][0]["exit_code"], 0, "{task}");
    assert_eq!(task["attempts"][0]["user"], "taskdaemon-job", "{task}");
    let output = bed.alice(&["logs", &id]);
    assert!(
        output.contains("(taskdaemon-job)"),
        "runs as the user of tasks: {output}"
    );
    assert!(
        !output.contains("(taskdaemon)"),
        "and is in no group of the daemon: {output}"
    );
    assert!(output.contains("to stderr"), "{output}");
    let group = "taskdaemon-tasks.slice/taskdaemon-runner.service/";
    let line = output
        .lines()
        .find(|line| line.starts_with("0::"))
        .expect("a cgroup line");
    let own = line
        .split_once(group)
        .map(|(_, own)| own)
        .unwrap_or_default();
    assert!(
        !own.is_empty(),
        "in a cgroup of its own below the runner: {line}"
    );

    let shown = bed.as_user("mallory", &[]);
    assert_eq!(shown.status.code(), Some(69), "{shown:?}");
    let next = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(next.contains("adduser USER taskdaemon"), "{next}");
    let done = bed.as_user("mallory", &["submit", "--", "true"]);
    assert!(
        matches!(done.status.code(), Some(4 | 69)) && !done.stderr.is_empty(),
        "not a member of the group: {done:?}"
    );
    let direct = bed.run(&[
        "runuser",
        "-u",
        "alice",
        "--",
        "sh",
        "-c",
        "test -w /run/taskdaemon/runner.sock",
    ]);
    assert!(
        !direct.status.success(),
        "only the daemon may speak to the runner"
    );
    journal_knows_failures(bed);
    waiting_passes_the_code_on(bed);
}

fn journal_knows_failures(bed: &Bed) {
    let id = bed.submit(
        &["--queue", "night", "--retries", "1", "--backoff", "100ms"],
        "exit 3",
    );
    let task = bed.ended(&id, Duration::from_secs(20));
    assert_eq!(task["state"], "failed", "{task}");
    let field = format!("TASKDAEMON_TASK={id}");
    let entries = |extra: &str| -> Vec<Value> {
        let mut words = vec!["journalctl", "--unit=taskdaemon", "--output=json"];
        words.extend(["--no-pager", &field]);
        words.extend(Some(extra).filter(|extra| !extra.is_empty()));
        bed.ok(&words).lines().map(parse).collect()
    };
    // The journal takes entries a moment after they were sent.
    let failed = wait_until(
        "the failure is in the journal",
        Duration::from_secs(5),
        || entries("MESSAGE_ID=e47a2f291696466396ffe3d4426c6bdc").pop(),
    );
    assert_eq!(failed["TASKDAEMON_QUEUE"], "night", "{failed}");
    assert_eq!(failed["TASKDAEMON_ATTEMPT"], "2", "the last one: {failed}");
    assert_eq!(failed["_SYSTEMD_UNIT"], "taskdaemon.service", "{failed}");
    assert_eq!(failed["SYSLOG_IDENTIFIER"], "taskdaemon", "{failed}");
    assert!(failed["MESSAGE"].is_string(), "{failed}");
    let all = entries("");
    let attempts: Vec<&Value> = all
        .iter()
        .map(|entry| &entry["TASKDAEMON_ATTEMPT"])
        .collect();
    assert_eq!(attempts, ["1", "2"], "each attempt, once: {all:?}");

    for (id, text) in [
        (
            "e47a2f291696466396ffe3d4426c6bdc",
            format!("taskdaemon retry {id}"),
        ),
        (
            "56f3257c569c450bb2cf5eed034bdae2",
            "requests are answered".to_owned(),
        ),
    ] {
        let which = format!("MESSAGE_ID={id}");
        let explained = bed.ok(&[
            "journalctl",
            "--unit=taskdaemon",
            "--catalog",
            "--no-pager",
            &which,
        ]);
        assert!(
            explained.contains(&text),
            "the catalog explains it: {explained}"
        );
    }
}

fn waiting_passes_the_code_on(bed: &Bed) {
    let done = bed.as_user("alice", &["submit", "--wait", "--", "sh", "-c", "exit 7"]);
    assert_eq!(done.status.code(), Some(7), "{done:?}");
    let done = bed.as_user("alice", &["submit", "--follow", "--", "echo", "seen"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(
        String::from_utf8_lossy(&done.stdout).contains("seen"),
        "{done:?}"
    );
    let done = bed.as_user("alice", &["show", "99999999"]);
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    let done = bed.as_user(
        "alice",
        &["submit", "--user", "root", "--wait", "--", "true"],
    );
    assert_eq!(
        done.status.code(),
        Some(4),
        "the policy names nobody as root: {done:?}"
    );
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        said.contains("user alice may not run tasks as root"),
        "{said}"
    );
}

/// All paths outside of what any package installation touches.
fn paths(bed: &Bed) -> BTreeSet<String> {
    let text = bed.sh(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log \
         -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /etc/group- \
         -o -path /etc/gshadow- -o -path /etc/passwd- -o -path /etc/shadow- -o -path /etc/subuid- \
         -o -path /etc/subgid- -o -path /var/lib/private \\) -prune -o -print",
    );
    text.lines().map(str::to_owned).collect()
}

fn purge_leaves_only_what_was_there(bed: &Bed) {
    // The bed comes with the package; the state before it is what a purge of it and a second install must lead back to.
    bed.ok(&["dpkg", "--purge", "taskdaemon"]);
    let before = paths(bed);
    let said = bed.install(&host::package());
    assert!(
        said.contains("Type next: taskdaemon"),
        "a first installation says how to go on: {said}"
    );
    let id = bed.submit(&[], "sleep 300");
    bed.running(&id);

    bed.ok(&["dpkg", "--remove", "taskdaemon"]);
    let left = bed.run(&["pgrep", "--exact", "taskdaemon|sleep"]);
    assert!(
        !left.status.success(),
        "removal ends daemon, runner and tasks: {left:?}"
    );
    for path in ["/run/taskdaemon/api.sock", "/run/taskdaemon/runner.sock"] {
        assert!(
            !bed.run(&["test", "-e", path]).status.success(),
            "{path} is gone"
        );
    }
    assert!(
        bed.run(&["test", "-e", "/etc/taskdaemon/config.toml"])
            .status
            .success(),
        "configuration stays"
    );
    assert!(
        bed.run(&["test", "-d", "/var/lib/taskdaemon"])
            .status
            .success(),
        "tasks stay"
    );

    bed.ok(&["dpkg", "--purge", "taskdaemon"]);
    let after = paths(bed);
    let lost: Vec<_> = before.difference(&after).collect();
    let more: Vec<_> = after
        .difference(&before)
        .filter(|path| !path.starts_with("/package.deb"))
        .collect();
    assert!(lost.is_empty(), "purge took what is not ours: {lost:?}");
    assert!(more.is_empty(), "purge left: {more:?}");
}
