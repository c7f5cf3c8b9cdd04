//! A task that means harm: it reaches neither the daemon nor the runner, and speaks for nobody.

use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, wait_until};
use crate::on_both_releases;

on_both_releases!(a_hostile_task_gets_nowhere, without_a_runner_it_is_said);

/// Sends what follows its path to a socket and says what came of it: perl's base package is on every Debian.
const SPEAK: &str = r#"
    use IO::Socket::UNIX;
    my ($type, $path, @words) = @ARGV;
    my $socket = IO::Socket::UNIX->new(Type => $type eq "dgram" ? SOCK_DGRAM : SOCK_STREAM, Peer => $path)
        or print("$path: refused: $!\n"), exit;
    $SIG{PIPE} = "IGNORE";
    for (@words) { $socket->syswrite($type eq "frames" ? pack("V", length) . $_ : $_) }
    $type eq "dgram" or $socket->sysread(my $answer, 1);
    print "$path: ", $type eq "dgram" ? "sent" : length($answer) ? "ANSWERED" : "closed", "\n";
"#;

/// What the task of another user would have said of itself, had it ended: claimed by the hostile one.
fn claims(victim: &str) -> [String; 2] {
    let key = format!(r#"{{"task":{victim},"number":1}}"#);
    let hello = format!(
        r#"{{"say":"hello","min":1,"max":1,"version":"9","pid":1,"instance":"x","boot":"","abilities":{{"cgroup":false,"memory":false,"cpu":false,"pids":false,"switch_user":false}},"held":[{key}]}}"#
    );
    let ended = format!(
        r#"{{"say":"ended","key":{key},"started":null,"ended":{{"exit":{{"how":"code","code":0}},"oom":false,"interrupted":false,"at":1,"usage":{{"cpu_micros":null,"memory_peak":null,"output_kept":0,"output_dropped":0}}}}}}"#
    );
    [hello, ended]
}

fn status_of(bed: &Bed, unit: &str) -> String {
    bed.ok(&[
        "systemctl",
        "show",
        "--property=MainPID,ActiveState,SubState,StatusText,NRestarts",
        unit,
    ])
}

fn a_hostile_task_gets_nowhere(bed: &Bed) {
    // Beside it runs another task of the same user: not even for that one may it speak.
    let victim = bed.submit(&[], "sleep 300");
    bed.running(&victim);
    let units = ["taskdaemon.service", "taskdaemon-runner.service"];
    // The daemon's own status line counts tasks and follows them.
    let runner = status_of(bed, units[1]);
    let pids = units.map(|unit| bed.main_pid(unit));
    let [hello, ended] = claims(&victim);
    let script = format!(
        "for pid in {} {}; do
             for file in environ mem maps fd; do
                 ls /proc/$pid/$file/ >/dev/null 2>&1 || head -c 1 /proc/$pid/$file >/dev/null 2>&1 && echo READ $file
             done
             kill -CONT $pid 2>/dev/null && echo SIGNALLED $pid
         done
         ls /var/lib/taskdaemon >/dev/null 2>&1 && echo READ state
         cat /var/lib/taskdaemon/* >/dev/null 2>&1 && echo READ store
         taskdaemon status >/dev/null 2>&1 && echo SPOKE api
         speak() {{ perl -e '{SPEAK}' \"$@\"; }}
         for name in api runner run-strict; do speak frames /run/taskdaemon/$name.sock '{hello}'; done
         speak frames /run/taskdaemon/report/report.sock '{hello}' '{ended}'
         for word in READY=1 STOPPING=1 STATUS=mine MAINPID=$$ WATCHDOG=trigger; do
             speak dgram /run/systemd/notify $word
         done
         grep -E '^(Cap|NoNewPrivs)' /proc/self/status
         echo descriptors; ls /proc/$$/fd; echo end",
        pids[0], pids[1]
    );
    let id = bed.submit(&[], &script);
    let task = bed.ended(&id, Duration::from_secs(30));
    assert_eq!(task["state"], "succeeded", "{task}");
    let output = bed.alice(&["logs", &id]);
    every_door_is_shut(&output);

    assert_eq!(status_of(bed, units[1]), runner, "the runner is as it was");
    let daemon = status_of(bed, units[0]);
    for line in [
        &*format!("MainPID={}", pids[0]),
        "SubState=running",
        "NRestarts=0",
    ] {
        assert!(daemon.contains(line), "{line}: {daemon}");
    }
    assert!(!daemon.contains("StatusText=mine"), "{daemon}");
    let task = bed.task(&victim);
    assert_eq!(task["state"], "running", "{task}");
    let attempts = task["attempts"].as_array().map_or(0, Vec::len);
    assert_eq!(attempts, 1, "{task}");
    bed.alice(&["cancel", &victim]);
}

fn every_door_is_shut(output: &str) {
    for word in ["READ", "SIGNALLED", "SPOKE", "ANSWERED"] {
        assert!(!output.contains(word), "{word}: {output}");
    }
    for name in ["api", "runner", "run-strict"] {
        let refused = format!("/run/taskdaemon/{name}.sock: refused: Permission denied");
        assert!(output.contains(&refused), "{refused}: {output}");
    }
    // Runners of a sandbox's nameless users come to this door; whoever comes must be who the attempt was given to.
    let door = "/run/taskdaemon/report/report.sock: closed";
    assert!(output.contains(door), "{output}");
    assert_eq!(
        output.matches("/run/systemd/notify: ").count(),
        5,
        "{output}"
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let empty = format!("{set}:\t0000000000000000");
        assert!(output.contains(&empty), "{empty}: {output}");
    }
    assert!(output.contains("NoNewPrivs:\t1"), "{output}");
    assert!(output.contains("descriptors\n0\n1\n2\nend"), "{output}");
}

fn journal(bed: &Bed) -> String {
    bed.ok(&[
        "journalctl",
        "--unit=taskdaemon",
        "--output=cat",
        "--no-pager",
    ])
}

fn without_a_runner_it_is_said(bed: &Bed) {
    bed.ok(&[
        "systemctl",
        "stop",
        "taskdaemon-runner.socket",
        "taskdaemon-runner.service",
    ]);
    let missing = "cannot reach a runner at /run/taskdaemon/runner.sock: No such file or directory";
    wait_until("the journal says so", Duration::from_secs(10), || {
        journal(bed).contains(missing).then_some(())
    });
    assert!(
        journal(bed).contains("systemctl start taskdaemon-runner.socket"),
        "and what helps: {}",
        journal(bed)
    );
    let id = bed.submit(&[], "exit 0");
    let task: Value = bed.task(&id);
    assert_eq!(task["state"], "queued", "it waits: {task}");
    bed.ok(&["systemctl", "start", "taskdaemon-runner.socket"]);
    assert_eq!(
        bed.ended(&id, Duration::from_secs(10))["state"],
        "succeeded"
    );
}
