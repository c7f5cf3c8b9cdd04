//! A runner that is told to stop, as at each shutdown of the host, gives its tasks back: none is failed, none is lost.

use std::time::Duration;

use crate::bed::Bed;
use crate::on_both_releases;

on_both_releases!(a_stopping_runner_gives_its_tasks_back);

/// Lasts as long as it may in its first attempt, and ends well in its second.
fn script(on_term: &str) -> String {
    format!("trap '{on_term}' TERM; [ $TASKDAEMON_ATTEMPT = 2 ] || {{ sleep 4242 & wait; wait; }}")
}

fn a_stopping_runner_gives_its_tasks_back(bed: &Bed) {
    // One ends at once; one takes its time, so that the daemon has the first one back while the runner still stops.
    let ids = [script("exit 1"), script("sleep 2; exit 0")].map(|script| bed.submit(&[], &script));
    for id in &ids {
        bed.running(id);
    }
    bed.ok(&["systemctl", "restart", "taskdaemon-runner.service"]);
    for id in &ids {
        let task = bed.ended(id, Duration::from_secs(20));
        assert_eq!(task["state"], "succeeded", "{task}");
        let attempts = task["attempts"].as_array().expect("attempts");
        let outcomes: Vec<&str> = attempts
            .iter()
            .filter_map(|attempt| attempt["outcome"].as_str())
            .collect();
        assert_eq!(outcomes, ["interrupted", "success"], "{task}");
    }
    let left = bed.run(&["pgrep", "--full", "^sleep 4242"]);
    assert!(!left.status.success(), "nothing is left: {left:?}");
}
