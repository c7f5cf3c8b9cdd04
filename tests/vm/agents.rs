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

/// Kills it, and waits until it is up again: how it stands then, how long after the kill its end was noticed, and how
/// long after that its next process was there.
fn kill(machine: &mut Machine, one: &Value) -> (Value, f64, f64) {
    let pid = one["pid"].as_u64().expect("a process");
    let killed = machine.sh(&format!("date +%s.%N; kill -KILL {pid}"));
    let killed: f64 = killed.trim().parse().expect("seconds");
    let next = wait_until("it is up again", STEP, || {
        let next = instance(machine, "web");
        (next["task"] != one["task"] && next["phase"] == "healthy").then_some(next)
    });
    assert_eq!(next["outcome"]["class"], "signal", "{next}");
    let ended = time(&next["ended_at"]);
    let task = machine.task(&next["task"].to_string());
    let started = time(&task["attempts"][0]["started_at"]);
    (next, ended - killed, started - ended)
}

/// The waits that the daemon has written down, in seconds, the first one first.
fn decided(machine: &mut Machine) -> Vec<f64> {
    let text = machine.alice(&[
        "activity",
        "--json",
        "--kind",
        "agent_changed",
        "--limit",
        "1000",
    ]);
    let events = text
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).expect("JSON") });
    let waits = events.filter_map(|event| {
        let data = &event["data"];
        let waits = data["phase"] == "backing_off" || data["phase"] == "cooling_off";
        let until = data["until_us"]
            .as_i64()
            .filter(|_| waits && data["agent"] == "web")?;
        let at: Timestamp = event["at"].as_str()?.parse().expect("a time");
        let micros = until - at.as_microsecond();
        Some(Duration::from_micros(u64::try_from(micros).expect("later")).as_secs_f64())
    });
    let mut waits: Vec<_> = waits.collect();
    waits.reverse();
    waits
}

const WEB: [&str; 21] = [
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
    "--directory=/usr/share/doc",
];
const HOG: [&str; 10] = [
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
];

pub(crate) fn a_server_of_the_distribution_is_kept_running_by_its_rule(machine: &mut Machine) {
    machine.alice(&WEB);
    let mut one = phase(machine, "web", "healthy");
    let (mut noticed, mut late) = (0.0_f64, 0.0_f64);
    for count in 0..KILLS {
        let (next, after, waited) = kill(machine, &one);
        let rule = WAITS[count % WAITS.len()];
        assert!(
            waited >= rule,
            "kill {count}: started after {waited}, and the rule is {rule}"
        );
        noticed = noticed.max(after);
        late = late.max(waited - rule);
        one = next;
    }
    println!(
        "{KILLS} kills: noticed after {noticed:.3} s at most, started {late:.3} s after the rule's wait at most"
    );
    assert!(noticed < 1.0, "{noticed}");
    assert_eq!(one["restarts"], KILLS, "{one}");
    let decided = decided(machine);
    assert_eq!(decided.len(), KILLS, "{decided:?}");
    for (wait, rule) in decided.iter().zip(WAITS.iter().cycle()) {
        let most = rule * (1.0 + JITTER);
        assert!(
            (*rule..=most).contains(wait),
            "{wait} by a rule of {rule}: {decided:?}"
        );
    }
    machine.alice(&["agent", "remove", "web"]);
}

pub(crate) fn an_agent_is_held_to_its_memory_limit(machine: &mut Machine) {
    machine.alice(&WEB);
    let one = phase(machine, "web", "healthy");
    let task = machine.task(&one["task"].to_string());
    let group = task["attempts"][0]["cgroup"].as_str().expect("a cgroup");
    let most = machine.sh(&format!("cat /sys/fs/cgroup{group}/memory.max"));
    assert_eq!(most.trim(), (128 << 20).to_string());
    let memory = instance(machine, "web")["memory_bytes"].as_u64();
    assert!(
        memory.is_some_and(|memory| (1 << 20..128 << 20).contains(&memory)),
        "{memory:?}"
    );
    machine.alice(&["agent", "remove", "web"]);
    machine.alice(&HOG);
    let hog = phase(machine, "hog", "failed");
    assert_eq!(hog["outcome"]["class"], "oom", "{hog}");
    assert_eq!(hog["restarts"], 0, "{hog}");
    machine.alice(&["agent", "remove", "hog"]);
}
