//! An upgrade renews the shared runner in place: same process, newer program, its tasks still its tasks.

use std::time::Duration;

use crate::bed::{Bed, wait_until};
use crate::{host, on_both_releases};

on_both_releases!(the_runner_renews_itself_with_live_children);

fn the_runner_renews_itself_with_live_children(bed: &Bed) {
    let ids: Vec<String> = (0..5)
        .map(|number| bed.submit(&[], &format!("sleep 8; echo done; exit {number}")))
        .collect();
    for id in &ids {
        bed.running(id);
    }
    let runner = bed.main_pid("taskdaemon-runner.service");
    let sockets = bed.sh("systemctl show --property=InvocationID --value taskdaemon-api.socket taskdaemon-runner.socket");

    bed.install(&host::next_package());
    let version = bed.sh("taskdaemon --version");
    assert!(version.contains(host::NEXT_VERSION), "{version}");
    wait_until(
        "the runner executes the new program",
        Duration::from_secs(10),
        || {
            let program = bed.sh(&format!("readlink /proc/{runner}/exe"));
            (program == "/usr/bin/taskdaemon").then_some(())
        },
    );
    assert_eq!(
        bed.main_pid("taskdaemon-runner.service"),
        runner,
        "the same process"
    );
    let after = bed.sh("systemctl show --property=InvocationID --value taskdaemon-api.socket taskdaemon-runner.socket");
    assert_eq!(after, sockets, "an upgrade does not touch the sockets");

    for (number, id) in ids.iter().enumerate() {
        let task = bed.ended(id, Duration::from_secs(30));
        assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
        assert_eq!(task["attempts"][0]["exit_code"], number, "{task}");
        assert_eq!(bed.alice(&["logs", id]), "done");
    }
    let id = bed.submit(&[], "exit 0");
    assert_eq!(
        bed.ended(&id, Duration::from_secs(10))["state"],
        "succeeded",
        "and it starts new ones"
    );
}
