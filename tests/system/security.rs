//! What systemd itself says about our units: no complaint, and no more exposure than the gates allow.

use crate::bed::Bed;
use crate::on_both_releases;

on_both_releases!(units_pass_verification, exposure_stays_below_the_gates);

const UNITS: [&str; 8] = [
    "taskdaemon.service",
    "taskdaemon-api.socket",
    "taskdaemon-tcp.socket",
    "taskdaemon-runner.socket",
    "taskdaemon-runner.service",
    "taskdaemon-run-strict.socket",
    "taskdaemon-run-strict@1.service",
    "taskdaemon-tasks.slice",
];

fn units_pass_verification(bed: &Bed) {
    let mut words = vec!["systemd-analyze", "verify"];
    words.extend(UNITS);
    let done = bed.run(&words);
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

fn exposure_stays_below_the_gates(bed: &Bed) {
    // The runner is root for three capabilities, and tasks inherit its walls: what they may do raises its figure.
    let gates = [
        ("taskdaemon.service", 12),
        ("taskdaemon-runner.service", 49),
        ("taskdaemon-run-strict@1.service", 8),
    ];
    for (unit, tenths) in gates {
        let threshold = format!("--threshold={tenths}");
        let done = bed.run(&[
            "systemd-analyze",
            "security",
            "--no-pager",
            &threshold,
            unit,
        ]);
        assert!(
            done.status.success(),
            "{unit} is above {tenths} tenths:\n{}",
            String::from_utf8_lossy(&done.stdout)
        );
    }
}
