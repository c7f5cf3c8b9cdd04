//! System calls that fail under the daemon and the runner, and a file system that gives up.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid};
use serde_json::{Value, json};

use crate::disk::Disk;
use crate::host::{Host, append};
use crate::inject::{Tracer, why_not};
use crate::journal::{Fate, acknowledged, judge, mark};
use crate::load::one;

/// Leaves a test that needs a tracer where there is none.
macro_rules! need_a_tracer {
    () => {
        if let Some(why) = why_not() {
            println!("skipped: {why}");
            return;
        }
    };
}

/// Submits with one key after the other until the daemon ends; what was acknowledged is written down. Returns the key
/// that has no answer, and the answers that were none.
fn submit_until_it_ends(host: &mut Host, name: &str) -> (String, Vec<Value>) {
    let mut refused = Vec::new();
    for number in 0.. {
        let key = format!("{name}-{number}");
        match host.post("/v1/tasks", &one(host, &key)) {
            Ok((200 | 201, answer)) => {
                let id = answer["id"].as_i64().expect("a number");
                acknowledged(host, &key, id, Fate::Succeeds);
            }
            Ok((503 | 507, answer)) => {
                refused.push(answer);
                return (key, refused);
            }
            Ok((status, answer)) => panic!("{status} {answer}"),
            Err(_) => return (key, refused),
        }
        assert!(number < 1_000, "nothing fails");
    }
    unreachable!("there are numbers enough");
}

/// A daemon whose n-th write of this kind fails says that it does not know, ends, and knows after the next start.
fn fails_and_recovers(inject: &str, name: &str) {
    let mut host = Host::started();
    host.runner();
    let tracer = Tracer::attach(&host, host.pid(), inject);
    let (key, refused) = submit_until_it_ends(&mut host, name);
    let status = host.ended();
    assert_eq!(status.code(), Some(75), "{inject}\n{}", host.log());
    assert!(tracer.injected() > 0, "{inject}");
    drop(tracer);
    for answer in &refused {
        // The one that was being saved; or, where that was no submit, one that came too late.
        let code = answer["code"].as_str().unwrap_or_default();
        assert!(
            ["outcome_unknown", "stopping"].contains(&code),
            "{inject}: {answer}"
        );
    }
    host.start();
    // The same key tells whether it was taken, and never makes two.
    let first = host.submit(&one(&host, &key));
    let again = host.submit(&one(&host, &key));
    assert_eq!(first, again);
    acknowledged(&host, &key, first, Fate::Succeeds);
    host.settle();
    judge(&host).hold(1, inject);
}

#[test]
fn fi_05_a_sync_that_fails_is_an_unknown_outcome_and_an_end() {
    need_a_tracer!();
    for n in [1, 2, 5] {
        fails_and_recovers(&format!("fdatasync,fsync:error=EIO:when={n}"), "sync");
    }
}

/// That the build of SQLite knows the call is said in `.cargo/config.toml`, which may get lost.
#[test]
fn a_commit_syncs_what_was_written_and_no_time_stamps() {
    need_a_tracer!();
    fails_and_recovers("fdatasync:error=EIO:when=1", "data");
}

#[test]
fn fi_06_a_write_that_finds_no_space_is_an_unknown_outcome_and_an_end() {
    need_a_tracer!();
    for n in [1, 3, 7] {
        fails_and_recovers(&format!("pwrite64:error=ENOSPC:when={n}"), "space");
    }
}

/// SQLite does not take it for a full disk, and the free space does not show it.
#[test]
fn fi_06_a_write_beyond_a_quota_is_an_unknown_outcome_and_an_end() {
    need_a_tracer!();
    for n in [1, 4] {
        fails_and_recovers(&format!("pwrite64:error=EDQUOT:when={n}"), "quota");
    }
}

/// What the kernel would say of a quota, for a tracer to write: limit and use in MiB.
fn quota(limit: u64, used: u64) -> String {
    let numbers = [limit << 10, 0, used << 20, 0, 0, 0, 0, 0, 0x3f];
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
    let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    format!("quotactl_fd:retval=0:poke_exit=@arg4={hex}")
}

/// No kernel with quotas is at hand, so a tracer answers in its place.
#[test]
fn fi_06_a_quota_that_is_nearly_used_up_counts_as_a_full_disk() {
    need_a_tracer!();
    let host = Host::started();
    host.runner();
    let gate = host.path("gate");
    let line = format!(
        "{}; until test -e {}; do sleep 0.05; done",
        mark(&host, "held"),
        gate.display()
    );
    let held = host.submit(&json!({"key": "held", "command": ["sh", "-c", line]}));
    acknowledged(&host, "held", held, Fate::Succeeds);
    let refused = |host: &Host| {
        host.post("/v1/tasks", &one(host, "refused"))
            .expect("an answer")
    };
    // Of 100 MiB it takes new tasks as long as five are free.
    let tracer = Tracer::attach(&host, host.pid(), &quota(100, 97));
    let (status, problem) = refused(&host);
    assert_eq!(
        (status, &problem["code"]),
        (507, &json!("disk_full")),
        "{problem}"
    );
    fs::write(&gate, "").expect("open");
    assert_eq!(
        host.wait(held)["state"],
        "succeeded",
        "what was accepted goes on"
    );
    assert!(tracer.injected() > 0);
    drop(tracer);
    let tracer = Tracer::attach(&host, host.pid(), &quota(100, 50));
    let id = host.submit(&one(&host, "after"));
    acknowledged(&host, "after", id, Fate::Succeeds);
    assert!(tracer.injected() > 0);
    drop(tracer);
    host.settle();
    judge(&host).hold(1, "a quota");
}

#[test]
fn fi_06_a_kernel_that_tells_no_quota_is_one_without() {
    need_a_tracer!();
    let host = Host::started();
    host.runner();
    for error in [
        "ENOSYS",
        "ESRCH",
        "EOPNOTSUPP",
        "EPERM",
        "EACCES",
        "EINVAL",
        "ENOENT",
        "ENODEV",
        "EBADF",
        "EIO",
    ] {
        let tracer = Tracer::attach(&host, host.pid(), &format!("quotactl_fd:error={error}"));
        let id = host.submit(&one(&host, error));
        acknowledged(&host, error, id, Fate::Succeeds);
        assert_eq!(host.wait(id)["state"], "succeeded", "{error}");
        assert!(tracer.injected() > 0, "{error}");
    }
    judge(&host).hold(1, "no quota");
}

#[test]
fn fi_06_a_full_table_of_inodes_delays_tasks_and_loses_none() {
    let mut host = Host::new();
    let disk = match Disk::make(&host.path(""), 32, &["-N", "64"]) {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: no disk of its own: {why}");
            return;
        }
    };
    host.place_state(&disk.place().join("state"));
    host.start();
    let id = host.submit(&one(&host, "before"));
    assert_eq!(host.wait(id)["state"], "succeeded");
    acknowledged(&host, "before", id, Fate::Succeeds);
    let mut fillers = Vec::new();
    for number in 0.. {
        let path = disk.place().join(format!("filler-{number}"));
        if fs::write(&path, "").is_err() {
            break;
        }
        fillers.push(path);
    }
    // More than the files that are ready for use.
    for number in 0..20 {
        let key = format!("without-{number}");
        let id = host.submit(&one(&host, &key));
        acknowledged(&host, &key, id, Fate::Succeeds);
    }
    host.until("a task waits for a file", |host| {
        let (_, page) = host.get("/v1/tasks?state=scheduled").expect("an answer");
        page["tasks"]
            .as_array()
            .is_some_and(|tasks| !tasks.is_empty())
    });
    let pid = host.pid();
    for path in fillers {
        fs::remove_file(path).expect("room");
    }
    host.settle();
    assert_eq!(host.pid(), pid, "the same process all along");
    judge(&host).hold(1, "a full table of inodes");
    drop(host);
}

#[test]
fn fi_08_a_file_system_that_becomes_read_only_loses_nothing() {
    let mut host = Host::new();
    let disk = match Disk::make(&host.path(""), 64, &[]) {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: no disk of its own: {why}");
            return;
        }
    };
    host.place_state(&disk.place().join("state"));
    host.start();
    let (before, gate) = (host.path("marks"), host.path("gate"));
    let line = format!(
        "echo held $TASKDAEMON_ATTEMPT >> {}; until test -e {}; do sleep 0.05; done",
        before.display(),
        gate.display()
    );
    let held = host.submit(&json!({"key": "held", "command": ["sh", "-c", line]}));
    acknowledged(&host, "held", held, Fate::Succeeds);
    host.until("it runs", |_| before.exists());
    disk.damage();
    let (key, refused) = submit_until_it_ends(&mut host, "damaged");
    // Kernels before 6.15 show it in the flags of the mount, and it is seen before anything fails.
    if refused.iter().any(|answer| answer["code"] == "read_only") {
        host.kill();
        host.spawn();
    }
    let status = host.ended();
    assert!(matches!(status.code(), Some(75 | 78)), "{status}");
    // Another start says what is wrong, and ends.
    let status = host.run_to_end();
    assert!(
        matches!(status.code(), Some(75 | 78)),
        "{status}\n{}",
        host.log()
    );
    let log = host.log().to_lowercase();
    assert!(
        log.contains("read-only") || log.contains("readonly"),
        "{log}"
    );
    fs::write(gate, "").expect("open");
    host.kill_all();
    disk.recover();
    host.start();
    let id = host.submit(&one(&host, &key));
    acknowledged(&host, &key, id, Fate::Succeeds);
    host.settle();
    judge(&host).hold(1, "a file system that became read-only");
    drop(host);
}

#[test]
fn fi_09_a_page_that_cannot_be_read_ends_a_start_with_a_clear_word() {
    need_a_tracer!();
    let mut host = Host::started();
    for number in 0..50 {
        let key = format!("kept-{number}");
        let id = host.submit(&one(&host, &key));
        acknowledged(&host, &key, id, Fate::Succeeds);
    }
    host.settle();
    host.signal(Signal::SIGTERM);
    assert!(host.ended().success());
    for n in [1, 3, 6] {
        let trace = host.path(&format!("reads-{n}")).display().to_string();
        let inject = format!("inject=pread64:error=EIO:when={n}");
        let under = Tracer::under(&trace, "trace=pread64", &inject);
        let database = host.database().display().to_string();
        let mut under: Vec<_> = under.iter().map(String::as_str).collect();
        // Of this file alone; the loader reads others.
        under.extend(["-P", &database]);
        host.run_under(&under);
        let status = host.run_to_end();
        assert!(matches!(status.code(), Some(75 | 78)), "{n}: {status}");
        let log = host.log();
        let last = log.lines().rev().find(|line| line.contains("taskdaemon:"));
        let last = last.expect("its last words");
        // A read that fails is damage to SQLite, and so it is to us.
        assert!(
            last.contains("disk I/O error") || last.contains("restore a backup"),
            "{n}: {last}"
        );
    }
    host.run_under(&[]);
    host.start();
    judge(&host).hold(3, "pages that could not be read");
}

#[test]
fn fi_09_a_page_that_cannot_be_read_while_it_works_loses_nothing() {
    need_a_tracer!();
    let mut host = Host::started();
    let runner = host.runner();
    for number in 0..50 {
        let key = format!("kept-{number}");
        let id = host.submit(&one(&host, &key));
        acknowledged(&host, &key, id, Fate::Succeeds);
    }
    host.settle();
    let tracer = Tracer::attach(&host, host.pid(), "pread64:error=EIO:when=1+");
    let (status, answer) = host.get("/v1/tasks?limit=100").unwrap_or((0, Value::Null));
    // From memory, or not at all; never with tasks missing.
    match status {
        200 => assert_eq!(answer["tasks"].as_array().map(Vec::len), Some(50)),
        500.. | 0 => {}
        _ => panic!("{status} {answer}"),
    }
    drop(tracer);
    if host.has_ended().is_some() {
        host.start();
    }
    assert_eq!(host.runner(), runner);
    judge(&host).hold(1, "pages that could not be read at work");
}

#[test]
fn fi_20_a_daemon_short_of_descriptors_goes_on_and_recovers() {
    need_a_tracer!();
    let mut host = Host::started();
    host.runner();
    let pid = host.pid();
    for inject in [
        "accept4:error=EMFILE:when=1..5",
        "openat,open:error=EMFILE:when=1..30",
    ] {
        let tracer = Tracer::attach(&host, pid, inject);
        for number in 0..20 {
            let key = format!("{}-{number}", &inject[..4]);
            let id = host.submit(&one(&host, &key));
            acknowledged(&host, &key, id, Fate::Succeeds);
        }
        host.until("it was short of them", |_| tracer.injected() > 0);
        drop(tracer);
        host.settle();
    }
    assert!(
        host.has_ended().is_none() && host.pid() == pid,
        "the same process"
    );
    judge(&host).hold(2, "descriptors that were short");
}

#[test]
fn fi_21_a_runner_that_cannot_fork_costs_a_task_nothing_but_time() {
    need_a_tracer!();
    let mut host = Host::started();
    let runner = host.runner();
    for inject in [
        "clone,clone3,fork,vfork:error=EAGAIN:when=1..4",
        "clone,clone3,fork,vfork:error=ENOMEM:when=1..4",
        "pipe2:error=EMFILE:when=1..4",
    ] {
        let tracer = Tracer::attach(&host, runner, inject);
        let name = inject.split('=').nth(1).expect("an error");
        for number in 0..6 {
            let key = format!("{name}-{number}").replace(':', "-");
            // One attempt is all that it has.
            let body = json!({"key": key, "command": ["sh", "-c", mark(&host, &key)],
                "retry": {"max_attempts": 1}});
            let id = host.submit(&body);
            acknowledged(&host, &key, id, Fate::Succeeds);
        }
        host.until("it was short of something", |_| tracer.injected() > 0);
        drop(tracer);
        host.settle();
    }
    assert!(host.has_ended().is_none());
    assert_eq!(host.runner(), runner, "the same runner");
    judge(&host).hold(3, "forks and pipes that failed");
}

/// A runner of root's on this host, whose tasks run as `nobody`.
fn runner_of_nobodys(host: &Host) -> Pid {
    let policy = host.path("run-as.toml");
    fs::write(&policy, "default = \"nobody\"\n").expect("write");
    let listener = UnixListener::bind(host.path("run/runner.sock")).expect("bind");
    let options = json!({"policy": policy, "users": "policy", "cgroup": "off"});
    let runner = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .args(["runner", "--options", &options.to_string()])
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stderr(append(&host.path("runner.log")))
        .spawn();
    drop(runner.expect("start the runner"));
    host.runner()
}

#[test]
fn sec_16_a_privilege_that_cannot_be_dropped_is_a_failed_start_and_nothing_runs() {
    need_a_tracer!();
    if !Uid::effective().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let mut host = Host::new();
    host.set("TASKDAEMON_RUN__START_RUNNER", "never");
    host.start();
    let runner = runner_of_nobodys(&host);
    let marks = host.path("marks-of-nobody");
    fs::create_dir(&marks).expect("directory");
    for (path, mode) in [(&host.path(""), 0o711), (&marks, 0o777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    }
    let run = |name: &str| {
        let mark = marks.join(name);
        let line = format!("id -u > {}", mark.display());
        let id = host.submit(&json!({"command": ["sh", "-c", line]}));
        (host.wait(id), fs::read_to_string(mark).ok())
    };
    for (call, why) in [
        ("setgroups", "setting its groups"),
        ("setresgid", "setting its group"),
        ("setresuid", "setting its user"),
        ("prctl", "dropping capabilities"),
    ] {
        let tracer = Tracer::attach(&host, runner, &format!("{call}:error=EPERM"));
        let (task, mark) = run(call);
        assert!(tracer.injected() > 0, "{call}");
        drop(tracer);
        assert_eq!(task["state"], "failed", "{task}");
        let attempt = &task["attempts"][0];
        assert_eq!(attempt["outcome"], "spawn", "{task}");
        let message = attempt["message"].as_str().unwrap_or_default();
        let words = format!("{why}: Operation not permitted");
        assert!(message.contains(&words), "{call}: {task}");
        assert_eq!(mark, None, "{call}: something ran");
    }
    let (task, mark) = run("afterwards");
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(mark.as_deref(), Some("65534\n"), "{task}");
}
