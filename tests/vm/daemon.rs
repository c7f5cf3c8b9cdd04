//! What happens to the daemon on a machine of its own: memory that runs out, a clock that is set, a sleep.

use jiff::Timestamp;
use serde_json::Value;

use crate::machine::{Machine, STEP, wait_until};

pub(crate) fn the_kernel_spares_runner_and_daemon(machine: &mut Machine) {
    let id = machine.submit(&[], "exec sleep 600");
    let task = machine.until(&id, "running");
    let pid = task["attempts"][0]["pid"].to_string();
    let score =
        |machine: &mut Machine, pid: &str| machine.sh(&format!("cat /proc/{pid}/oom_score_adj"));
    assert_eq!(score(machine, &pid), "0", "a task");
    for unit in ["taskdaemon.service", "taskdaemon-runner.service"] {
        let pid = machine.main_pid(unit);
        assert_eq!(score(machine, &pid), "-500", "{unit}");
    }
    machine.alice(&["cancel", &id]);
    machine.ended(&id);
}

pub(crate) fn an_oom_kill_of_the_daemon_touches_no_task(machine: &mut Machine) {
    let unit = "taskdaemon.service";
    let script = "while [ ! -e /var/tmp/go ]; do sleep 0.2; done; echo whole";
    let id = machine.submit(&[], script);
    let pid = machine.until(&id, "running")["attempts"][0]["pid"].clone();
    let before = machine.main_pid(unit);
    // Less than it has: the kernel can only kill.
    machine.ok(&[
        "systemctl",
        "set-property",
        "--runtime",
        unit,
        "MemoryMax=1M",
        "MemorySwapMax=0",
    ]);
    wait_until("the daemon is gone", STEP, || {
        (machine.main_pid(unit) != before).then_some(())
    });
    machine.ok(&[
        "systemctl",
        "set-property",
        "--runtime",
        unit,
        "MemoryMax=infinity",
        "MemorySwapMax=infinity",
    ]);
    let journal = machine.ok(&[
        "journalctl",
        "--no-pager",
        "--boot",
        "--unit",
        unit,
        "--output=cat",
    ]);
    assert!(
        journal.contains("OOM killer"),
        "it was the kernel: {journal}"
    );
    let task = machine.task(&id);
    assert_eq!(task["state"], "running", "{task}");
    assert_eq!(task["attempts"][0]["pid"], pid, "the same process: {task}");
    machine.sh("touch /var/tmp/go");
    let task = machine.ended(&id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["attempts"][1], Value::Null, "{task}");
    assert_eq!(machine.alice(&["logs", &id]), "whole");
}

pub(crate) fn a_clock_that_is_set_ends_no_task(machine: &mut Machine) {
    let script = "while [ ! -e /var/tmp/clock ]; do sleep 0.2; done";
    let running = machine.submit(&["--timeout", "30m"], script);
    machine.until(&running, "running");
    let pid = machine.main_pid("taskdaemon.service");
    let at = machine.sh("date --date='+30 minutes' --iso-8601=seconds");
    let later = machine.submit(&["--at", &at], "true");
    machine.sh("date -s '+1 hour'");
    // Its time has come, and nobody has to ask for it.
    let task = machine.ended(&later);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(machine.task(&running)["state"], "running");
    machine.sh("date -s '-1 hour'");
    let now = machine.submit(&[], "true");
    assert_eq!(machine.ended(&now)["state"], "succeeded", "at once");
    assert_eq!(machine.task(&running)["state"], "running");
    machine.sh("touch /var/tmp/clock");
    let task = machine.ended(&running);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(
        machine.main_pid("taskdaemon.service"),
        pid,
        "the same daemon"
    );
}

pub(crate) fn what_is_due_in_a_suspended_machine_starts_when_it_wakes(machine: &mut Machine) {
    let script = "for i in 1 2 3 4 5; do sleep 2; done; echo whole";
    let asleep = machine.submit(&["--timeout", "10m"], script);
    machine.until(&asleep, "running");
    let pid = machine.main_pid("taskdaemon.service");
    let at = machine.sh("date --date='+15 seconds' --iso-8601=seconds");
    let due = machine.submit(&["--at", &at], "true");
    // To memory; its clock wakes it when the task has been due for a while.
    machine.sh("rtcwake --mode mem --seconds 30");
    let woken: Timestamp = machine
        .sh("date --iso-8601=ns | tr , .")
        .parse()
        .expect("a time");
    let task = machine.ended(&due);
    assert_eq!(task["state"], "succeeded", "{task}");
    let started: Timestamp = task["attempts"][0]["started_at"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a time");
    let late = started.duration_since(at.parse().expect("a time"));
    let after = started.duration_since(woken);
    println!("due {late:?} before it started, started {after:?} after somebody looked");
    assert!(late.as_secs() >= 5, "it slept over that time: {task}");
    assert!(after.as_secs() < 10, "at once when it woke: {task}");
    let task = machine.ended(&asleep);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(machine.alice(&["logs", &asleep]), "whole");
    assert_eq!(machine.main_pid("taskdaemon.service"), pid, "no watchdog");
}
