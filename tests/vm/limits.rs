//! Limits of tasks on a kernel that has all controllers.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::machine::{Machine, STEP, wait_until};

const MIB: u64 = 1 << 20;

/// Uses up all memory there is for it.
const HOG: &str = "echo begun; exec tail /dev/zero";

/// The only attempt of a task.
fn attempt(task: &Value) -> &Value {
    assert_eq!(task["attempts"][1], Value::Null, "one attempt: {task}");
    &task["attempts"][0]
}

fn assert_oom(task: &Value) {
    assert_eq!(task["state"], "failed", "{task}");
    assert_eq!(attempt(task)["outcome"], "oom", "{task}");
}

/// How much of a processor an attempt had while it ran.
pub(crate) fn cpu_share(attempt: &Value) -> f64 {
    let time = |field: &str| -> Timestamp {
        let text = attempt[field].as_str().expect("a time");
        text.parse().expect("a time")
    };
    let ran = time("ended_at").duration_since(time("started_at"));
    attempt["cpu_seconds"].as_f64().expect("counted") / ran.as_secs_f64()
}

/// The directory of a task's cgroup.
fn group(task: &Value) -> String {
    let shown = task["attempts"][0]["cgroup"].as_str().expect("a cgroup");
    format!("/sys/fs/cgroup{shown}")
}

/// Every unit that must be the same after a check as before.
fn pids(machine: &mut Machine) -> [String; 2] {
    ["taskdaemon.service", "taskdaemon-runner.service"].map(|unit| machine.main_pid(unit))
}

pub(crate) fn a_task_over_its_memory_limit_ends_as_oom_and_alone(machine: &mut Machine) {
    let status = machine.alice(&["status"]);
    assert!(
        !status.contains("not enforced"),
        "all there is can be enforced: {status}"
    );
    let limited = machine.submit(&["--memory", "64MiB"], "exec sleep 600");
    let free = machine.submit(&[], "exec sleep 600");
    machine.until(&limited, "running");
    machine.until(&free, "running");
    let before = pids(machine);
    let id = machine.submit(&["--memory", "32MiB", "--retries", "3"], HOG);
    let task = machine.ended(&id);
    assert_oom(&task);
    let used = attempt(&task)["memory_peak_bytes"].as_u64();
    assert!(
        used.is_some_and(|used| (24 * MIB..=33 * MIB).contains(&used)),
        "{task}"
    );
    let cpu = attempt(&task)["cpu_seconds"].as_f64();
    assert!(cpu.is_some_and(|cpu| cpu > 0.0), "{task}");
    let shown = machine.alice(&["show", &id]);
    assert!(shown.contains("over its memory limit"), "{shown}");
    assert_eq!(machine.alice(&["logs", &id]), "begun");
    assert_eq!(pids(machine), before, "daemon and runner live on");
    for id in [&limited, &free] {
        assert_eq!(machine.task(id)["state"], "running", "its neighbour");
    }
    // A limit is the task's: within a higher one the same work is done.
    let id = machine.submit(
        &["--memory", "96MiB"],
        "head -c 40M /dev/zero | tail -c 40M | wc -c",
    );
    let task = machine.ended(&id);
    assert_eq!(task["state"], "succeeded", "{task}");
    machine.alice(&["cancel", &limited, &free]);
    machine.ended(&limited);
    machine.ended(&free);
}

pub(crate) fn a_cpu_limit_is_held(machine: &mut Machine) {
    let spin = "exec timeout 8 sh -c 'while :; do :; done'";
    let id = machine.submit(&["--cpu", "0.2"], spin);
    let task = machine.ended(&id);
    assert_eq!(attempt(&task)["exit_code"], 124, "{task}");
    let share = cpu_share(attempt(&task));
    println!("cpu limit 0.2: {share:.3} used");
    assert!((0.02..=0.24).contains(&share), "{share}: {task}");
}

/// Longest time until the API answered one of so many requests, asked by one process inside the machine.
fn slowest_answer(machine: &mut Machine, requests: u32) -> f64 {
    let client = r#"
        use IO::Socket::UNIX;
        sub now { open my $clock, '<', '/proc/uptime' or die; (split ' ', <$clock>)[0] }
        my $door = IO::Socket::UNIX->new('/run/taskdaemon/api.sock') or die; my $slowest = 0;
        for (1 .. $ARGV[0]) {
            my $asked = now;
            $door->syswrite("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
            $door->sysread(my $answer, 65536); $answer =~ m{^HTTP/1.1 200 } or die $answer;
            my $took = now() - $asked; $slowest = $took if $took > $slowest;
        }
        print $slowest"#;
    let requests = requests.to_string();
    let words = [
        "runuser", "-u", "alice", "--", "perl", "-e", client, &requests,
    ];
    machine.ok(&words).parse().expect("seconds")
}

pub(crate) fn a_fork_bomb_stays_within_its_limit_and_ends_whole(machine: &mut Machine) {
    // Each process forks for ever, and goes on when it may not.
    let bomb = "exec perl -e 'while (1) { defined(fork) or select(undef, undef, undef, 0.2) }'";
    let before = pids(machine);
    let id = machine.submit(&["--pids", "32"], bomb);
    let task = machine.until(&id, "running");
    let group = group(&task);
    wait_until("the bomb meets its limit", STEP, || {
        let events = machine.sh(&format!("cat {group}/pids.events"));
        (!events.contains("max 0")).then_some(())
    });
    let slowest = slowest_answer(machine, 50);
    println!("slowest of 50 answers beside a fork bomb, emulated: {slowest} s");
    assert!(slowest < 5.0, "{slowest} s");
    let count: u32 = machine
        .sh(&format!("cat {group}/pids.current"))
        .parse()
        .expect("a number");
    assert!(count <= 32, "{count} processes");
    let other = machine.submit(&[], "echo still here");
    assert_eq!(machine.ended(&other)["state"], "succeeded");
    machine.alice(&["cancel", &id]);
    assert_eq!(machine.ended(&id)["state"], "cancelled");
    machine.sh(&format!("! test -e {group}; ! pgrep -u taskdaemon-job"));
    assert_eq!(pids(machine), before, "daemon and runner live on");
}

pub(crate) fn a_limited_task_is_frozen_and_goes_on(machine: &mut Machine) {
    let count = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); sleep 0.2; done; echo $i";
    let limits = ["--memory", "64MiB", "--cpu", "0.5", "--pids", "16"];
    let id = machine.submit(&limits, count);
    let group = group(&machine.until(&id, "running"));
    machine.alice(&["pause", &id]);
    wait_until("its group is frozen", STEP, || {
        let events = machine.sh(&format!("cat {group}/cgroup.events"));
        events.contains("frozen 1").then_some(())
    });
    let used = |machine: &mut Machine| machine.sh(&format!("grep usage_usec {group}/cpu.stat"));
    let before = used(machine);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(used(machine), before, "it does nothing");
    machine.alice(&["resume", &id]);
    assert_eq!(machine.ended(&id)["state"], "succeeded");
    assert_eq!(machine.alice(&["logs", &id]), "20");
}

pub(crate) fn limits_hold_in_a_sandbox_profile(machine: &mut Machine) {
    let id = machine.submit(&["--profile", "strict", "--memory", "32MiB"], HOG);
    let task = machine.ended(&id);
    assert_oom(&task);
    assert!(group(&task).contains("taskdaemon-run-strict@"), "{task}");
    let limits = ["--profile", "strict", "--pids", "4", "--cpu", "0.5"];
    let id = machine.submit(
        &limits,
        "exec perl -e 'my $n = 1; while ($n < 50 and defined(my $pid = fork)) { $pid or sleep 600; $n++ } print $n'",
    );
    let task = machine.ended(&id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(machine.alice(&["logs", &id]), "4", "{task}");
}

pub(crate) fn the_slice_limits_all_tasks_together(machine: &mut Machine) {
    let slice = "taskdaemon-tasks.slice";
    let before = pids(machine);
    machine.ok(&[
        "systemctl",
        "set-property",
        "--runtime",
        slice,
        "MemoryMax=96M",
        "MemorySwapMax=0",
    ]);
    let other = machine.submit(&[], "exec sleep 600");
    machine.until(&other, "running");
    let id = machine.submit(&[], HOG);
    assert_oom(&machine.ended(&id));
    assert_eq!(pids(machine), before, "daemon and runner live on");
    assert_eq!(machine.task(&other)["state"], "running", "its neighbour");
    // One that lives on without what was killed has not failed by it.
    let id = machine.submit(&[], "sh -c 'exec tail /dev/zero'; echo $?");
    let task = machine.ended(&id);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert!(machine.alice(&["logs", &id]).ends_with("137"), "{task}");
    machine.ok(&[
        "systemctl",
        "set-property",
        "--runtime",
        slice,
        "MemoryMax=infinity",
        "MemorySwapMax=infinity",
    ]);
    machine.alice(&["cancel", &other]);
    machine.ended(&other);
}
