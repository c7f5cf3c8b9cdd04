//! A paused task stands still, whole, with its clocks, and through a restart of the daemon and of its runner's program.

use std::time::Duration;

use crate::bed::{Bed, wait_until};
use crate::on_both_releases;

on_both_releases!(
    a_paused_task_stands_still_and_goes_on_where_it_was,
    a_paused_task_can_be_cancelled
);

/// Counts in a file, with the time that passes for it, from a child of a child.
fn counting(steps: u32) -> String {
    format!(
        "(for i in $(seq {steps}); do echo $i >>/tmp/steps; sleep 0.1; done) & wait; echo whole"
    )
}

fn steps(bed: &Bed) -> usize {
    let text = bed.sh("cat /tmp/steps 2>/dev/null || true");
    text.lines().count()
}

fn a_paused_task_stands_still_and_goes_on_where_it_was(bed: &Bed) {
    let id = bed.submit(&["--timeout", "6s"], &counting(40));
    wait_until("it counts", Duration::from_secs(10), || {
        (steps(bed) > 2).then_some(())
    });
    bed.alice(&["pause", &id]);
    assert_eq!(bed.task(&id)["state"], "paused");
    let frozen = wait_until("it stands still", Duration::from_secs(5), || {
        let before = steps(bed);
        std::thread::sleep(Duration::from_millis(400));
        (steps(bed) == before).then_some(before)
    });
    bed.ok(&["systemctl", "restart", "taskdaemon.service"]);
    // Longer than its time limit.
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(steps(bed), frozen, "still, after a restart");
    let task = bed.task(&id);
    assert_eq!(task["state"], "paused", "its clocks stand still: {task}");
    assert!(
        task["reason"]
            .as_str()
            .is_some_and(|why| why.contains("resume")),
        "{task}"
    );
    bed.alice(&["resume", &id]);
    let task = bed.ended(&id, Duration::from_secs(20));
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(steps(bed), 40, "each step once");
    assert_eq!(bed.alice(&["logs", &id]).trim(), "whole");
}

fn a_paused_task_can_be_cancelled(bed: &Bed) {
    let id = bed.submit(
        &["--grace", "300ms"],
        "trap '' TERM; sleep 4567 & sleep 4567",
    );
    bed.running(&id);
    bed.alice(&["pause", &id]);
    bed.alice(&["cancel", &id]);
    assert_eq!(
        bed.ended(&id, Duration::from_secs(10))["state"],
        "cancelled"
    );
    let left = bed.run(&["pgrep", "--full", "^sleep 4567"]);
    assert!(!left.status.success(), "nothing of it is left");
    let again = bed.as_user("alice", &["pause", &id]);
    assert_eq!(again.status.code(), Some(4), "{again:?}");
}
