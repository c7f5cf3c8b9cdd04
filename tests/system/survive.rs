//! Running tasks do not notice the daemon: not its restart, its violent end, its absence or its upgrade.

use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, wait_until};
use crate::{host, on_both_releases};

on_both_releases!(tasks_live_through_all_that_happens_to_the_daemon);

/// A task that says when it starts, in a file of its own, prints a numbered line five times a second, and ends with 7.
fn script(name: &str, seconds: u32) -> String {
    format!(
        "echo start >>/tmp/{name}; i=0; while [ $i -lt {} ]; do i=$((i+1)); echo line $i; sleep 0.2; done; exit 7",
        seconds * 5
    )
}

struct Traced {
    name: &'static str,
    id: String,
    seconds: u32,
}

fn start(bed: &Bed, name: &'static str, seconds: u32) -> Traced {
    let id = bed.submit(&["--name", name], &script(name, seconds));
    bed.running(&id);
    Traced { name, id, seconds }
}

fn ended_once_with_seven(bed: &Bed, traced: &Traced) {
    let Traced { name, id, seconds } = traced;
    let task = bed.ended(id, Duration::from_secs(60));
    assert_eq!(task["state"], "failed", "{name}: {task}");
    let attempts = task["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    let codes: Vec<&Value> = attempts
        .iter()
        .map(|attempt| &attempt["exit_code"])
        .collect();
    assert_eq!(codes, [7], "{name}: one attempt, code 7: {task}");
    let starts = bed.sh(&format!("cat /tmp/{name}"));
    assert_eq!(starts, "start", "{name} ran once, by its own account");
    let lines: Vec<String> = bed
        .alice(&["logs", id])
        .lines()
        .map(str::to_owned)
        .collect();
    let whole: Vec<String> = (1..=seconds * 5)
        .map(|number| format!("line {number}"))
        .collect();
    assert_eq!(lines, whole, "{name}: the output is whole");
}

fn tasks_live_through_all_that_happens_to_the_daemon(bed: &Bed) {
    let long = start(bed, "across-everything", 30);
    let runner = bed.main_pid("taskdaemon-runner.service");

    let restart = start(bed, "across-restart", 3);
    bed.ok(&["systemctl", "restart", "taskdaemon.service"]);

    let crash = start(bed, "across-crash", 4);
    bed.sh("kill -KILL $(systemctl show --property=MainPID --value taskdaemon.service)");
    wait_until("the daemon is back", Duration::from_secs(10), || {
        bed.as_user("alice", &["health"])
            .status
            .success()
            .then_some(())
    });

    // The second one ends while there is no daemon at all.
    let stop = start(bed, "across-stop", 8);
    let unseen = start(bed, "ends-unseen", 2);
    bed.ok(&["systemctl", "stop", "taskdaemon.service"]);
    std::thread::sleep(Duration::from_secs(4));
    assert!(
        !bed.active("taskdaemon.service"),
        "nobody has woken the daemon"
    );
    bed.ok(&["systemctl", "start", "taskdaemon.service"]);

    let upgrade = start(bed, "across-upgrade", 5);
    bed.install(&host::next_package());

    for traced in [&restart, &crash, &unseen, &stop, &upgrade, &long] {
        ended_once_with_seven(bed, traced);
    }
    assert_eq!(
        bed.main_pid("taskdaemon-runner.service"),
        runner,
        "one runner through all of it"
    );
}
