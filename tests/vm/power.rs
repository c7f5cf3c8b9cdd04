//! Machines that restart and machines whose power is cut: what was acknowledged is there, and goes on by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::machine::{Machine, STEP, wait_until};

/// A place that tasks may write to and that outlives a boot.
const MARKS: &str = "/var/lib/marks";

/// A mark is on disk before the task that left it goes on.
fn mark(file: &str, words: &str) -> String {
    format!("echo {words} >>{MARKS}/{file}; sync {MARKS}/{file}")
}

fn make_marks(machine: &mut Machine, file: &str) {
    machine.sh(&format!(
        "mkdir -p {MARKS}; chmod 0755 {MARKS}; : >{MARKS}/{file}; chmod 0666 {MARKS}/{file}; sync"
    ));
}

fn marks(machine: &mut Machine, file: &str) -> Vec<String> {
    let text = machine.sh(&format!("cat {MARKS}/{file}"));
    text.lines().map(ToOwned::to_owned).collect()
}

pub(crate) fn a_reboot_interrupts_and_the_boot_goes_on_by_itself(machine: &mut Machine) {
    for unit in [
        "taskdaemon.service",
        "taskdaemon-api.socket",
        "taskdaemon-runner.socket",
    ] {
        assert_eq!(machine.ok(&["systemctl", "is-enabled", unit]), "enabled");
    }
    for file in ["again", "held", "behind"] {
        make_marks(machine, file);
    }
    let boot = "$TASKDAEMON_ATTEMPT $(cat /proc/sys/kernel/random/boot_id)";
    let script = |file: &str| {
        format!(
            "{}; if [ $TASKDAEMON_ATTEMPT = 1 ]; then sleep 600; fi",
            mark(file, boot)
        )
    };
    let again = machine.submit(&["--on-interrupt", "retry"], &script("again"));
    let held = machine.submit(&["--on-interrupt", "hold"], &script("held"));
    // Not due before the machine has gone down; then by its own clock.
    let behind = machine.submit(&["--after", &format!("{again}:any")], &mark("behind", boot));
    for file in ["again", "held"] {
        wait_until("it has begun", STEP, || {
            (marks(machine, file).len() == 1).then_some(())
        });
    }
    let before = machine.boot_id();
    machine.reboot();
    let after = machine.boot_id();
    assert_ne!(before, after);
    // Nobody asks the daemon anything until the tasks have run.
    wait_until("what waits is run after the boot", STEP * 2, || {
        (marks(machine, "behind").len() == 1).then_some(())
    });
    let expected = [format!("1 {before}"), format!("2 {after}")];
    assert_eq!(marks(machine, "again"), expected, "in each boot once");
    assert_eq!(marks(machine, "held"), expected[..1], "not again");
    assert_eq!(marks(machine, "behind"), [format!("1 {after}")]);
    let task = machine.ended(&again);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["attempts"][0]["outcome"], "interrupted", "{task}");
    assert_eq!(task["attempts"][1]["outcome"], "success", "{task}");
    let task = machine.ended(&held);
    assert_eq!(task["state"], "failed", "{task}");
    assert_eq!(task["attempts"][0]["outcome"], "interrupted", "{task}");
    assert_eq!(task["attempts"][1], Value::Null, "{task}");
    assert_eq!(machine.ended(&behind)["state"], "succeeded");
    // It waits for a person.
    machine.alice(&["retry", &held]);
    assert_eq!(machine.ended(&held)["state"], "succeeded");
}

/// What clients were told before the power went, by key.
type Told = BTreeMap<String, String>;

/// Reads what the clients in the machine were answered, until there is enough of it and the power is to go.
fn answers(stream: UnixStream, enough: usize) -> (BufReader<UnixStream>, Told) {
    let limit = Duration::from_secs(240);
    stream.set_read_timeout(Some(limit)).expect("time limit");
    let mut lines = BufReader::new(stream);
    let mut told = Told::new();
    let start = Instant::now();
    while told.len() < enough {
        assert!(start.elapsed() < limit, "only {} answers", told.len());
        let mut line = String::new();
        lines.read_line(&mut line).expect("an answer in time");
        note(&line, &mut told);
    }
    (lines, told)
}

fn note(line: &str, told: &mut Told) {
    if let Some((key, id)) = line
        .strip_suffix('\n')
        .and_then(|line| line.split_once(' '))
    {
        told.insert(key.to_owned(), id.to_owned());
    }
}

/// Two clients that submit one task after the other, and say on the second port of the machine what they were told.
const CLIENTS: &str = r#"
cat >/usr/local/bin/clients <<'END'
#!/bin/sh
client() {
    i=0
    while :; do
        i=$((i + 1))
        key=$1-$i
        id=$(taskdaemon submit --key $key --on-interrupt $1 -- sh -c \
            'echo $TASKDAEMON_KEY $TASKDAEMON_TASK_ID $TASKDAEMON_ATTEMPT >>/var/lib/marks/ran
             sync /var/lib/marks/ran; sleep 3') && echo "$key $id"
    done
}
exec 1>$(echo /dev/vport*p2)
client hold & client retry & wait
END
chmod +x /usr/local/bin/clients
systemd-run --quiet --unit=clients --uid=root /usr/local/bin/clients
"#;

pub(crate) fn a_power_cut_loses_nothing_acknowledged_and_repeats_nothing(machine: &mut Machine) {
    make_marks(machine, "ran");
    let stream = UnixStream::connect(machine.marks()).expect("the machine's second port");
    machine.sh(CLIENTS);
    let (mut lines, mut told) = answers(stream, 30);
    machine.cut_power();
    // What had left the machine before.
    loop {
        let mut line = String::new();
        match lines.read_line(&mut line) {
            Ok(bytes) if bytes > 0 => note(&line, &mut told),
            _ => break,
        }
    }
    machine.power_on();
    wait_until("nothing is unfinished", STEP * 2, || {
        let status = machine.run(&["taskdaemon", "status", "--json"]);
        let status: Value = serde_json::from_str(&status.out).ok()?;
        let open = ["queued", "running", "scheduled", "stopping", "blocked"];
        let tasks = &status["tasks"];
        open.iter().all(|state| tasks[*state] == 0).then_some(())
    });
    let mut ran: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in marks(machine, "ran") {
        let words: Vec<&str> = line.split(' ').collect();
        let [key, id, attempt] = words[..] else {
            panic!("half a line: {line:?}")
        };
        if let Some(known) = told.get(key) {
            assert_eq!(known, id, "one task for a key: {line}");
        }
        let new = ran
            .entry(key.to_owned())
            .or_default()
            .insert(attempt.to_owned());
        assert!(new, "an attempt ran twice: {line}");
    }
    let mut interrupted = 0;
    for (key, id) in &told {
        let task = machine.task(id);
        assert_eq!(task["key"], **key, "{task}");
        let attempts = task["attempts"].as_array().expect("attempts");
        let marks = ran.get(key).map_or(0, BTreeSet::len);
        interrupted += usize::from(attempts[0]["outcome"] == "lost");
        if key.starts_with("hold") {
            assert_eq!(attempts.len(), 1, "at most once: {task}");
            assert!(marks <= 1, "at most once: {task}");
            let wanted = if marks == 0 {
                "failed"
            } else {
                task["state"].as_str().unwrap_or_default()
            };
            assert_eq!(task["state"], wanted, "{task}");
        } else {
            assert_eq!(task["state"], "succeeded", "at least once: {task}");
            assert!(
                (1..=attempts.len()).contains(&marks),
                "{marks} marks: {task}"
            );
        }
    }
    println!(
        "{} acknowledged, {} ran, {interrupted} interrupted by the power cut",
        told.len(),
        ran.len()
    );
    assert!(interrupted > 0, "nothing ran when the power went");
}
