//! A configuration that cannot be accepted: a clear refusal at start, no change at reload.

use crate::bed::Bed;
use crate::on_both_releases;

on_both_releases!(
    start_refuses_with_file_and_line,
    reload_fails_and_changes_nothing
);

const BAD: &str = "/etc/taskdaemon/conf.d/bad.toml";

fn start_refuses_with_file_and_line(bed: &Bed) {
    bed.sh(&format!("printf '# one\\n\\nno_such_key = 1\\n' >{BAD}"));
    let check = bed.run(&["taskdaemon", "config", "check"]);
    assert_eq!(check.status.code(), Some(78), "{check:?}");
    let text = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(text.contains(&format!("{BAD}:3")), "file and line: {text}");
    assert!(text.contains("no_such_key"), "{text}");

    let start = bed.run(&["systemctl", "restart", "taskdaemon.service"]);
    assert!(!start.status.success(), "{start:?}");
    let status = bed.ok(&[
        "systemctl",
        "show",
        "--property=ExecMainStatus",
        "--value",
        "taskdaemon.service",
    ]);
    assert_eq!(status, "78");
    let journal = bed.ok(&[
        "journalctl",
        "--unit=taskdaemon",
        "--output=cat",
        "--no-pager",
    ]);
    assert!(
        journal.contains(&format!("{BAD}:3")),
        "the journal says where: {journal}"
    );
    let restarts = bed.ok(&[
        "systemctl",
        "show",
        "--property=NRestarts",
        "--value",
        "taskdaemon.service",
    ]);
    assert_eq!(restarts, "0", "another try cannot end better");

    bed.ok(&["rm", BAD]);
    bed.ok(&["systemctl", "start", "taskdaemon.service"]);
    bed.alice(&["health"]);
}

fn reload_fails_and_changes_nothing(bed: &Bed) {
    let main = bed.main_pid("taskdaemon.service");
    bed.ok(&["systemctl", "reload", "taskdaemon.service"]);
    let active = || bed.sh("taskdaemon config show");
    let before = active();

    bed.sh(&format!("printf 'no_such_key = 1\\n' >{BAD}"));
    let reload = bed.run(&["systemctl", "reload", "taskdaemon.service"]);
    assert!(!reload.status.success(), "{reload:?}");
    assert!(bed.active("taskdaemon.service"), "the daemon goes on");
    assert_eq!(bed.main_pid("taskdaemon.service"), main, "the same one");
    let refused = "MESSAGE_ID=3071b2ccb608479bbd9af0a90f01b841";
    let journal = bed.ok(&[
        "journalctl",
        "--unit=taskdaemon",
        "--output=cat",
        "--no-pager",
        refused,
    ]);
    assert!(
        journal.contains(&format!("{BAD}:1")),
        "the journal says where: {journal}"
    );

    let done = bed.as_user("alice", &["submit", "--wait", "--", "true"]);
    assert_eq!(
        done.status.code(),
        Some(0),
        "with the old configuration: {done:?}"
    );
    bed.ok(&["rm", BAD]);
    bed.ok(&["systemctl", "reload", "taskdaemon.service"]);
    assert_eq!(active(), before);
}
