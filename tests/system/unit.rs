//! Units that are not as they should be: the daemon names the line that mends each.

use std::time::Duration;

use crate::bed::{Bed, wait_until};
use crate::on_both_releases;

on_both_releases!(bi_62_63_mistakes_of_the_unit_are_named_with_the_line_that_mends_them);

/// A unit as somebody could write it by hand.
const UNIT: &str = "[Service]\nType=simple\n\
    ExecStart=/usr/bin/taskdaemon run --state-dir /var/lib/by-hand --runtime-dir /run/by-hand\n\
    RuntimeDirectory=by-hand\n";

/// Starts such a unit with more lines, and waits for these words of it.
fn told(bed: &Bed, more: &str, last: &str) -> String {
    bed.sh(&format!(
        "cat >/etc/systemd/system/by-hand.service <<'END'\n{UNIT}{more}END"
    ));
    bed.ok(&["systemctl", "daemon-reload"]);
    bed.ok(&["systemctl", "restart", "by-hand.service"]);
    let journal = wait_until(last, Duration::from_secs(60), || {
        let text = bed.sh("journalctl --unit=by-hand --output=cat --no-pager");
        text.contains(last).then_some(text)
    });
    bed.run(&["systemctl", "stop", "by-hand.service"]);
    journal
}

fn bi_62_63_mistakes_of_the_unit_are_named_with_the_line_that_mends_them(bed: &Bed) {
    bed.alice(&["health"]);
    let ours = bed.sh("journalctl --unit=taskdaemon --output=cat --no-pager");
    for word in ["in its unit", "PrivateTmp=", "taskdaemon-api.socket"] {
        assert!(
            !ours.contains(word),
            "of the packaged unit there is nothing to say: {ours}"
        );
    }

    let more = "StateDirectory=by-hand\nPrivateTmp=yes\n\
        Environment=TASKDAEMON_RUN__RUNNER_SOCKET=/tmp/runner.sock\n";
    let journal = told(bed, more, "is ready");
    for line in [
        "set Type=notify in its unit",
        "enable taskdaemon-api.socket",
        "set User=taskdaemon in its unit",
        "run.runner_socket: nobody else sees /tmp/runner.sock: the unit has PrivateTmp=yes",
    ] {
        assert_eq!(journal.matches(line).count(), 1, "{line}, once:\n{journal}");
    }

    bed.ok(&["rm", "-r", "/var/lib/by-hand"]);
    let journal = told(bed, "ProtectSystem=strict\n", "ProtectSystem=");
    assert!(
        journal.contains("/var/lib/by-hand") && journal.contains("StateDirectory="),
        "{journal}"
    );
}
