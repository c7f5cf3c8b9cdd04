//! What a task must not reach, one row for each attempt: the daemon's files, memory, processes and sockets, the manager,
//! the kernel. The rows that do no harm are also run as root, where they must succeed: an attempt that cannot succeed
//! shows nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bed::Bed;
use crate::on_both_releases;

on_both_releases!(whatever_a_task_tries_is_refused);

/// Whether an attempt is harmless enough to be made by root as well.
#[derive(Clone, Copy, PartialEq)]
enum Control {
    /// It must succeed for root.
    Root,
    /// It would break what is tested.
    Never,
}

use Control::{Never, Root};

/// Name, shell text that succeeds when the attempt does, and the control. `$daemon` and `$runner` are their processes.
const ATTEMPTS: &[(&str, &str, Control)] = &[
    // The state directory and what is in it (SEC-18).
    ("list the state directory", "ls /var/lib/taskdaemon", Root),
    (
        "read the database",
        "head -c 1 /var/lib/taskdaemon/taskdaemon.db",
        Root,
    ),
    (
        "read its log",
        "head -c 1 /var/lib/taskdaemon/taskdaemon.db-wal",
        Root,
    ),
    (
        "list the output of tasks",
        "ls /var/lib/taskdaemon/output",
        Root,
    ),
    (
        "make a file beside it",
        "touch /var/lib/taskdaemon/x && rm /var/lib/taskdaemon/x",
        Root,
    ),
    (
        "link to the database",
        "ln /var/lib/taskdaemon/taskdaemon.db /tmp/copy",
        Never,
    ),
    // The configuration and its secrets.
    (
        "read the tokens",
        "grep tokens /etc/taskdaemon/conf.d/tokens.toml",
        Root,
    ),
    (
        "add a setting",
        "echo >/etc/taskdaemon/conf.d/mine.toml",
        Never,
    ),
    (
        "change the policy",
        "echo >>/etc/taskdaemon/run-as.toml",
        Never,
    ),
    (
        "change the unit",
        "mkdir -p /etc/systemd/system/taskdaemon.service.d/x",
        Never,
    ),
    (
        "read credentials of services",
        "ls /run/credentials/*",
        Never,
    ),
    // The daemon's and the runner's processes.
    (
        "read the daemon's environment",
        "cat /proc/$daemon/environ | grep -q .",
        Root,
    ),
    (
        "read the daemon's memory map",
        "grep -q . /proc/$daemon/maps",
        Root,
    ),
    ("open the daemon's memory", ": <>/proc/$daemon/mem", Root),
    (
        "list the daemon's descriptors",
        "ls /proc/$daemon/fd/ | grep -q .",
        Root,
    ),
    (
        "look into the daemon's root",
        "ls /proc/$daemon/root/ | grep -q .",
        Root,
    ),
    (
        "read the daemon's kernel stack",
        "cat /proc/$daemon/stack",
        Never,
    ),
    (
        "read the runner's environment",
        "cat /proc/$runner/environ | grep -q .",
        Root,
    ),
    ("open the runner's memory", ": <>/proc/$runner/mem", Root),
    (
        "list the runner's descriptors",
        "ls /proc/$runner/fd/ | grep -q .",
        Root,
    ),
    ("trace the daemon", "call $trace 16902 $daemon 0 0", Root),
    ("trace the runner", "call $trace 16902 $runner 0 0", Root),
    ("take a descriptor of the daemon", "steal $daemon", Root),
    ("take a descriptor of the runner", "steal $runner", Root),
    ("signal the daemon", "kill -0 $daemon", Root),
    ("signal the runner", "kill -0 $runner", Root),
    ("signal the manager", "kill -0 1", Root),
    ("end the daemon", "kill -KILL $daemon", Never),
    ("end the runner", "kill -KILL $runner", Never),
    (
        "limit the daemon",
        "prlimit --pid $daemon --nofile=3:3",
        Never,
    ),
    (
        "see the daemon's limits changed for dumps",
        "prlimit --pid $daemon --core=unlimited",
        Never,
    ),
    ("slow the daemon down", "renice -n 19 -p $daemon", Never),
    (
        "bind the daemon to a processor",
        "taskset -p 1 $daemon",
        Never,
    ),
    (
        "make the daemon the victim of memory",
        "echo 1000 >/proc/$daemon/oom_score_adj",
        Never,
    ),
    // Cgroups: its own is not the task's to leave, nor others' to touch.
    (
        "move into the daemon's cgroup",
        "echo $$ >/sys/fs/cgroup/system.slice/taskdaemon.service/cgroup.procs",
        Never,
    ),
    (
        "freeze the daemon",
        "echo 1 >/sys/fs/cgroup/system.slice/taskdaemon.service/cgroup.freeze",
        Never,
    ),
    (
        "kill the runner's cgroup",
        "echo 1 >/sys/fs/cgroup/taskdaemon.slice/taskdaemon-tasks.slice/cgroup.kill",
        Never,
    ),
    (
        "make a cgroup",
        "mkdir /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/mine",
        Never,
    ),
    (
        "leave its cgroup",
        "echo $$ >/sys/fs/cgroup/cgroup.procs",
        Never,
    ),
    // Sockets.
    ("speak to the API", "taskdaemon status", Root),
    (
        "connect to the API's socket",
        "dial /run/taskdaemon/api.sock",
        Root,
    ),
    (
        "connect to the runner's socket",
        "dial /run/taskdaemon/runner.sock",
        Never,
    ),
    (
        "connect to a profile's socket",
        "dial /run/taskdaemon/run-strict.sock",
        Never,
    ),
    ("connect to the manager", "dial /run/systemd/private", Root),
    (
        "make a socket beside them",
        "touch /run/taskdaemon/x && rm /run/taskdaemon/x",
        Root,
    ),
    (
        "remove the API's socket",
        "rm /run/taskdaemon/api.sock",
        Never,
    ),
    (
        "make something in the report directory",
        "touch /run/taskdaemon/report/x && rm /run/taskdaemon/report/x",
        Root,
    ),
    (
        "take the report socket away",
        "rm /run/taskdaemon/report/report.sock",
        Never,
    ),
    // The manager and the journal.
    (
        "stop the daemon's unit",
        "systemctl --no-ask-password stop taskdaemon.service",
        Never,
    ),
    (
        "kill by the manager",
        "systemctl --no-ask-password kill taskdaemon.service",
        Never,
    ),
    (
        "change a unit's property",
        "systemctl --no-ask-password set-property --runtime taskdaemon.service TasksMax=1",
        Never,
    ),
    (
        "start a unit of its own",
        "systemd-run --no-ask-password --quiet true",
        Never,
    ),
    (
        "read the daemon's journal",
        "journalctl --quiet --unit=taskdaemon --lines=1 | grep -q .",
        Root,
    ),
    // To become more than it is (SEC-16, SEC-20).
    (
        "become root",
        "perl -e '$< = $> = 0; exit($< != 0 && $> != 0)'",
        Root,
    ),
    (
        "take a group of others",
        "perl -e '$( = 4; exit(($( + 0) != 4)'",
        Root,
    ),
    (
        "become root by a program of root's",
        "timeout 5 su -c true root </dev/null",
        Root,
    ),
    ("dump core", "[ \"$(ulimit -c)\" != 0 ]", Never),
    (
        "say where cores go",
        "echo core >/proc/sys/kernel/core_pattern",
        Never,
    ),
    (
        "change a setting of the kernel",
        "echo 0 >/proc/sys/kernel/sysrq",
        Never,
    ),
    ("set the clock", "date -s @1000000000", Never),
    ("mount", "mount -t tmpfs none /mnt", Never),
    ("change the root", "chroot / true", Root),
    ("make a device", "mknod /tmp/null c 1 3", Never),
    ("read the kernel's log", "dmesg | grep -q .", Never),
    ("name the host", "hostname mine", Never),
    (
        "write into the system",
        "touch /usr/bin/x && rm /usr/bin/x",
        Root,
    ),
    ("read passwords", "grep -q . /etc/shadow", Root),
];

/// What the attempts are made with: perl's base package is on every Debian.
const TOOLS: &str = r#"
case $(uname -m) in x86_64) trace=101 ;; *) trace=117 ;; esac
call() { perl -e 'exit(syscall($ARGV[0], map { $_ + 0 } @ARGV[1 .. $#ARGV]) < 0)' "$@"; }
steal() { perl -e 'my $fd = syscall(434, $ARGV[0] + 0, 0); exit 1 if $fd < 0; exit(syscall(438, $fd, 0, 0) < 0)' "$1"; }
dial() { perl -MIO::Socket::UNIX -e 'exit !IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $ARGV[0])' "$1"; }
"#;

/// All attempts, each followed by a line that says what came of it.
fn script(bed: &Bed, wanted: impl Fn(Control) -> bool) -> String {
    let daemon = bed.main_pid("taskdaemon.service");
    let runner = bed.main_pid("taskdaemon-runner.service");
    let mut text = format!(
        "daemon={}\nrunner={}\n{TOOLS}",
        daemon.trim(),
        runner.trim()
    );
    for (name, attempt, control) in ATTEMPTS {
        if wanted(*control) {
            text.push_str(&format!(
                "if ( {attempt} ) >/dev/null 2>&1; then echo \"GOT|{name}\"; else echo \"refused|{name}\"; fi\n"
            ));
        }
    }
    text
}

fn results(output: &str) -> BTreeMap<String, bool> {
    let line = |line: &str| {
        let (what, name) = line.split_once('|')?;
        Some((name.to_owned(), what == "GOT"))
    };
    output.lines().filter_map(line).collect()
}

/// What a task could have changed.
fn surroundings(bed: &Bed) -> String {
    bed.sh(
        "find /etc/taskdaemon /etc/systemd /run/taskdaemon -printf '%p %m %u %g %s\\n' |
             sed -E 's|(runner.notify)/[0-9a-f]{32}|\\1/for-the-next|' | sort
         systemctl show --property=MainPID,ActiveState,SubState,NRestarts,TasksMax \
             taskdaemon.service taskdaemon-runner.service
         prlimit --pid $(systemctl show --property=MainPID --value taskdaemon.service) --noheadings
         cat /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname",
    )
}

fn whatever_a_task_tries_is_refused(bed: &Bed) {
    bed.sh("echo 'api.tokens = []' >/etc/taskdaemon/conf.d/tokens.toml
         chgrp taskdaemon /etc/taskdaemon/conf.d/tokens.toml
         chmod 0640 /etc/taskdaemon/conf.d/tokens.toml
         systemctl restart taskdaemon.service");
    // The runner is there from the first task on.
    let first = bed.submit(&[], "true");
    bed.ended(&first, Duration::from_secs(30));

    let by_root = results(&bed.sh(&script(bed, |control| control == Root)));
    let failed: Vec<_> = by_root.iter().filter(|(_, got)| !**got).collect();
    assert!(
        failed.is_empty(),
        "attempts that even root does not succeed in: {failed:?}"
    );

    let before = surroundings(bed);
    let id = bed.submit(&["--timeout", "120s"], &script(bed, |_| true));
    let task = bed.ended(&id, Duration::from_secs(120));
    assert_eq!(task["state"], "succeeded", "{task}");
    let by_task = results(&bed.alice(&["logs", &id]));
    assert_eq!(by_task.len(), ATTEMPTS.len(), "{by_task:?}");
    let got: Vec<_> = by_task.iter().filter(|(_, got)| **got).collect();
    assert!(got.is_empty(), "a task got what it must not get: {got:?}");
    assert_eq!(surroundings(bed), before, "and nothing has changed");
}
