//! FI-08: mounts that are read-only. That of a file system with an error is in `calls.rs`.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::disk::Disk;
use crate::host::Host;
use crate::journal::{Fate, acknowledged, judge, mark};
use crate::load::one;

/// Size of the disk.
const MIB: u64 = 64;

#[test]
fn fi_08_a_read_only_mount_over_the_state_is_waited_out() {
    let mut host = Host::new();
    let disk = match Disk::make(&host.path(""), MIB, &[]) {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: no disk of its own: {why}");
            return;
        }
    };
    host.place_state(&disk.place().join("state"));
    host.start();
    let (pid, runner) = (host.pid(), host.runner());
    let gate = host.path("gate");
    let line = format!(
        "{}; until test -e {}; do sleep 0.05; done; exit 0",
        mark(&host, "held"),
        gate.display()
    );
    let held = host.submit(&json!({"key": "held", "command": ["sh", "-c", line]}));
    acknowledged(&host, "held", held, Fate::Succeeds);
    host.until("it runs", |host| host.path("marks").exists());
    let why = disk.remount("ro").expect_err("files are open for writing");
    assert!(why.contains("busy"), "{why}");
    disk.cover();
    for round in 0..20 {
        let answer = host.post("/v1/tasks", &one(&host, &format!("refused-{round}")));
        let (status, answer) = answer.expect("an answer");
        assert_eq!(status, 503, "{answer}");
        assert_eq!(answer["code"], "read_only", "{answer}");
    }
    // Its end is kept until it can be saved.
    fs::write(gate, "").expect("open");
    host.until("the task's process is gone", |host| {
        host.task(held)["state"] == "running" && !has_child(runner)
    });
    assert_eq!(host.log().matches("has become read-only").count(), 1);
    let (status, _) = host.get("/live").expect("an answer");
    assert_eq!(status, 200, "not for a service manager to start again");
    disk.uncover();
    assert_eq!(host.wait(held)["state"], "succeeded");
    let id = host.submit(&one(&host, "refused-0"));
    acknowledged(&host, "refused-0", id, Fate::Succeeds);
    host.settle();
    assert!(host.has_ended().is_none() && host.pid() == pid);
    assert_eq!(host.runner(), runner);
    judge(&host).hold(1, "a mount that became read-only");
    drop(host);
}

fn has_child(pid: nix::unistd::Pid) -> bool {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    !children.expect("it lives").trim().is_empty()
}

#[test]
fn fi_08_a_start_on_a_read_only_mount_says_what_to_do() {
    let mut host = Host::new();
    let disk = match Disk::make(&host.path(""), MIB, &[]) {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: no disk of its own: {why}");
            return;
        }
    };
    host.place_state(&disk.place().join("state"));
    host.start();
    let id = host.submit(&one(&host, "kept"));
    acknowledged(&host, "kept", id, Fate::Succeeds);
    host.settle();
    host.signal(Signal::SIGTERM);
    assert!(host.ended().success());
    host.kill_all();
    disk.remount("ro").expect("nobody writes");
    let from = host.log().len();
    let status = host.run_to_end();
    let log = host.log()[from..].to_owned();
    assert_eq!(status.code(), Some(78), "not tried again for ever: {log}");
    let said = log.to_lowercase();
    assert!(
        said.contains("read-only") || said.contains("cannot be written to"),
        "{log}"
    );
    disk.remount("rw").expect("writable again");
    host.start();
    let id = host.submit(&one(&host, "new"));
    acknowledged(&host, "new", id, Fate::Succeeds);
    host.settle();
    judge(&host).hold(1, "a start on a read-only mount");
    drop(host);
}
