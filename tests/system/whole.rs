//! A task ends whole, and whatever it prints, the daemon stays as it is.

use std::time::{Duration, Instant};

use crate::bed::{Bed, wait_until};
use crate::on_both_releases;

on_both_releases!(
    cancel_leaves_no_process_behind,
    exit_leaves_no_process_behind,
    a_gigabyte_without_a_newline_is_capped
);

fn gone(bed: &Bed, mark: &str) -> bool {
    !bed.run(&["pgrep", "--full", &format!("^sleep {mark}")])
        .status
        .success()
}

fn cancel_leaves_no_process_behind(bed: &Bed) {
    // The grandchild has its own session, ignores the request to end, and nobody waits for it.
    let id = bed.submit(
        &["--grace", "200ms"],
        "setsid sh -c 'trap \"\" TERM HUP; sleep 4321' & sleep 4321",
    );
    wait_until("both are there", Duration::from_secs(10), || {
        let count = bed.run(&["pgrep", "--count", "--full", "^sleep 4321"]);
        (String::from_utf8_lossy(&count.stdout).trim() == "2").then_some(())
    });
    bed.alice(&["cancel", &id]);
    let asked = Instant::now();
    wait_until("nothing is left", Duration::from_secs(5), || {
        gone(bed, "4321").then_some(())
    });
    let taken = asked.elapsed();
    assert!(taken < Duration::from_secs(1), "gone after {taken:?}");
    assert_eq!(bed.ended(&id, Duration::from_secs(5))["state"], "cancelled");
}

fn exit_leaves_no_process_behind(bed: &Bed) {
    let id = bed.submit(&[], "setsid sleep 5432 >/dev/null 2>&1 & sleep 0.3; exit 0");
    assert_eq!(
        bed.ended(&id, Duration::from_secs(10))["state"],
        "succeeded"
    );
    wait_until("what it left is gone", Duration::from_secs(1), || {
        gone(bed, "5432").then_some(())
    });
}

fn a_gigabyte_without_a_newline_is_capped(bed: &Bed) {
    let first = bed.submit(&[], "echo warm");
    bed.ended(&first, Duration::from_secs(10));
    let (daemon, runner) = (
        bed.memory_kib("taskdaemon.service"),
        bed.memory_kib("taskdaemon-runner.service"),
    );
    let id = bed.submit(&[], "head -c 1073741824 /dev/zero | tr '\\0' x");
    let mut most = (daemon, runner);
    let task = wait_until("the task has ended", Duration::from_secs(120), || {
        most.0 = most.0.max(bed.memory_kib("taskdaemon.service"));
        most.1 = most.1.max(bed.memory_kib("taskdaemon-runner.service"));
        let task = bed.task(&id);
        (task["state"] == "succeeded" || task["state"] == "failed").then_some(task)
    });
    assert_eq!(task["state"], "succeeded", "{task}");
    assert!(
        most.0 < daemon + 8 * 1024,
        "the daemon grew from {daemon} to {} KiB",
        most.0
    );
    assert!(
        most.1 < runner + 8 * 1024,
        "the runner grew from {runner} to {} KiB",
        most.1
    );
    let kept = bed.sh("du -sm /var/lib/taskdaemon | cut -f1");
    let kept: u64 = kept.parse().expect("megabytes");
    assert!(kept < 128, "{kept} MB are kept of 1024");
}
