//! Agents on a kernel that has all controllers: a server that nobody here wrote, under a limit, killed again and again.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::machine::{Machine, STEP, wait_until};

/// How often the server is killed.
const KILLS: usize = 20;
/// The waits that its rule asks for, one after the other and again, in seconds.
const WAITS: [f64; 6] = [0.2, 0.4, 0.8, 0.8, 0.8, 2.0];
/// The most that chance adds to a wait, as a share of it.
const JITTER: f64 = 0.1;
/// Time that the emulated processor may take to do what is due.
const LATE: f64 = 1.0;

/// The one instance of alice's agent.
fn instance(machine: &mut Machine, name: &str) -> Value {
    let text = machine.alice(&["agent", "show", name, "--json"]);
    let mut agent: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    agent["instances"][0].take()
}

fn time(value: &Value) -> f64 {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let at: Timestamp = text.parse().expect("a time");
    at.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()
}

fn phase(machine: &mut Machine, name: &str, phase: &str) -> Value {
    wait_until(&format!("{name} is {phase}"), STEP, || {
        let one = instance(machine, name);
        (one["phase"] == phase).then_some(one)
    })
}

pub(crate) fn a_server_of_the_distribution_is_kept_running_by_its_rule_and_within_its_limit(
    machine: &mut Machine,
) {
    machine.alice(&[
        "agent",
        "add",
        "web",
        "--probe-http",
        "http://127.0.0.1:8080/",
        "--probe-interval",
        "1s",
        "--memory",
        "128MiB",
        "--backoff",
        "200ms..800ms",
        "--cool-off",
        "2s",
        "--",
        "python3",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "8080",
    ]);
    let first = phase(machine, "web", "healthy");
    let task = machine.task(&first["task"].to_string());
    let group = task["attempts"][0]["cgroup"]
        .as_str()
        .expect("a cgroup")
        .to_owned();
    let most = machine.sh(&format!("cat /sys/fs/cgroup{group}/memory.max"));
    assert_eq!(most.trim(), (128 << 20).to_string());
    let memory = instance(machine, "web")["memory_bytes"]
        .as_u64()
        .expect("memory");
    assert!((1 << 20..128 << 20).contains(&memory), "{memory}");
    let (mut noticed, mut late) = (Vec::new(), Vec::new());
    let mut one = first;
    for kill in 0..KILLS {
        let pid = one["pid"].as_u64().expect("a process");
        let killed = machine.sh(&format!("date +%s.%N; kill -KILL {pid}"));
        let killed: f64 = killed.trim().parse().expect("seconds");
        let before = one["task"].clone();
        one = wait_until("it is up again", STEP, || {
            let next = instance(machine, "web");
            (next["task"] != before && next["phase"] == "healthy").then_some(next)
        });
        let ended = time(&one["ended_at"]);
        let next = machine.task(&one["task"].to_string());
        let waited = time(&next["attempts"][0]["started_at"]) - ended;
        let rule = WAITS[kill % WAITS.len()];
        assert!(
            waited >= rule,
            "kill {kill}: started after {waited}, and the rule is {rule}"
        );
        noticed.push(ended - killed);
        late.push(waited - rule * (1.0 + JITTER));
        assert_eq!(one["outcome"]["class"], "signal", "{one}");
    }
    let most = |times: &[f64]| times.iter().copied().fold(f64::MIN, f64::max);
    println!(
        "{KILLS} kills: noticed after {:.3} s at most, started {:.3} s late at most",
        most(&noticed),
        most(&late)
    );
    assert!(most(&noticed) < 1.0, "{noticed:?}");
    assert!(most(&late) < LATE, "{late:?}");
    assert_eq!(one["restarts"], KILLS, "{one}");
    machine.alice(&["agent", "remove", "web"]);

    machine.alice(&[
        "agent",
        "add",
        "hog",
        "--memory",
        "32MiB",
        "--on-oom",
        "stop",
        "--",
        "tail",
        "/dev/zero",
    ]);
    let hog = phase(machine, "hog", "failed");
    assert_eq!(
        (&hog["outcome"]["class"], &hog["restarts"]),
        (&"oom".into(), &0.into()),
        "{hog}"
    );
    machine.alice(&["agent", "remove", "hog"]);
    let left = Duration::from_secs(10);
    wait_until("both are forgotten", left, || {
        machine
            .alice(&["agent", "list"])
            .lines()
            .count()
            .eq(&1)
            .then_some(())
    });
}
