//! FI-32: numbers of processes that come to mean others. In a namespace of their own, where the next number can be
//! chosen and no cgroups are to be seen: there the runner goes by numbers.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::host::Host;

/// The first process of the namespace: it sees no cgroups, and reaps.
const FIRST: &str = "mount -t tmpfs none /sys/fs/cgroup; \"$@\" & while :; do wait; sleep 1; done";
/// Rounds in which the number may go to somebody else, or the cancel come too late.
const ROUNDS: u32 = 40;

/// What a round was about to show.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// The number was used again in time, and its new owner lived on.
    Shown,
    /// It went elsewhere, or the attempt was over before it was cancelled.
    Missed,
}

/// A namespace with a daemon in it.
struct Space {
    host: Host,
    first: String,
    others: Vec<Child>,
}

impl Space {
    fn new() -> Self {
        let mut host = Host::new();
        host.run_under(&[
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            FIRST,
            "sh",
        ]);
        host.start();
        let unshare = host.pid();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        let first = children.expect("it lives").trim().to_owned();
        Self {
            host,
            first,
            others: Vec::new(),
        }
    }

    /// Runs shell words in the namespace, as nobody's descendant there.
    fn run(&mut self, words: &str) {
        let child = Command::new("nsenter")
            .args(["-t", &self.first, "--pid", "--mount", "sh", "-c", words])
            .stdin(Stdio::null())
            .spawn()
            .expect("enter");
        self.others.push(child);
    }

    fn pipe(&self, name: &str) -> PathBuf {
        let path = self.host.path(name);
        mkfifo(&path, Mode::S_IRWXU).expect("pipe");
        path
    }

    /// A task that waits for a line, and ends with this status then. Returns it and its first process's number.
    fn waiting(&self, gate: &Path, status: u8) -> (i64, i64) {
        let line = format!("read line < {}; exit {status}", gate.display());
        let id = self.host.submit(&json!({"command": ["sh", "-c", line],
            "retry": {"max_attempts": 1}}));
        let mut pid = None;
        self.host.until("it runs", |host| {
            let task = host.task(id);
            pid = task["attempts"][0]["pid"].as_i64();
            pid.is_some() || !task["ended_at"].is_null()
        });
        (id, pid.expect("a process"))
    }

    fn cancel(&self, id: i64) -> u16 {
        let path = format!("/v1/tasks/{id}/cancel");
        self.host.post(&path, &json!({})).expect("an answer").0
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.host.kill_all();
        for mut other in self.others.drain(..) {
            drop(other.wait());
        }
    }
}

fn let_go(gate: &Path) {
    let mut gate = fs::OpenOptions::new().write(true).open(gate).expect("gate");
    gate.write_all(b"go\n").expect("go");
}

fn wait_for(space: &Space, file: &Path) -> String {
    space.host.until("a word of it", |_| {
        fs::read_to_string(file).is_ok_and(|text| text.ends_with('\n'))
    });
    fs::read_to_string(file).expect("there").trim().to_owned()
}

/// An attempt whose first process is gone, and whose output a stranger holds open: the runner waits for that for a
/// while. Returns the task and the number, which the next process in the namespace gets.
fn gone(space: &mut Space, number: u32, then: &str) -> (i64, i64) {
    let gate = space.pipe(&format!("gate-{number}"));
    let (id, pid) = space.waiting(&gate, 0);
    let held = space.host.path(&format!("held-{number}"));
    space.run(&format!(
        "exec 5>/proc/{pid}/fd/1; echo yes > {}; exec sleep 600",
        held.display()
    ));
    wait_for(space, &held);
    let_go(&gate);
    let free = space.host.path(&format!("free-{number}"));
    space.run(&format!(
        "while test -e /proc/{pid}; do :; done; echo {} > /proc/sys/kernel/ns_last_pid; {then} echo yes > {}; wait",
        pid - 1,
        free.display()
    ));
    wait_for(space, &free);
    (id, pid)
}

/// The next owner is another task.
fn by_a_task(space: &mut Space, number: u32) -> Round {
    let (old, pid) = gone(space, number, "");
    let gate = space.pipe(&format!("next-{number}"));
    let (new, its) = space.waiting(&gate, 7);
    let told = space.cancel(old);
    let over = space.host.wait(old);
    let hit = its == pid && told / 100 == 2 && over["state"] == "cancelled";
    let before = space.host.task(new);
    assert_eq!(before["state"], "running", "after {over}: {before}");
    let_go(&gate);
    let after = space.host.wait(new);
    assert_eq!(
        after["attempts"][0]["exit_code"], 7,
        "after {over}: {after}"
    );
    if hit { Round::Shown } else { Round::Missed }
}

/// The next owner has nothing to do with the runner.
fn by_a_stranger(space: &mut Space, number: u32) -> Round {
    let gate = space.pipe(&format!("next-{number}"));
    let (who, lives) = (
        space.host.path(&format!("who-{number}")),
        space.host.path(&format!("lives-{number}")),
    );
    let then = format!(
        "(read line < {}; echo yes > {}) & echo $! > {};",
        gate.display(),
        lives.display(),
        who.display()
    );
    let (old, pid) = gone(space, number, &then);
    let its = wait_for(space, &who);
    let told = space.cancel(old);
    let over = space.host.wait(old);
    let hit = its == pid.to_string() && told / 100 == 2 && over["state"] == "cancelled";
    let_go(&gate);
    wait_for(space, &lives);
    if hit { Round::Shown } else { Round::Missed }
}

/// Whether numbers can be chosen here.
fn why_not() -> Option<String> {
    let tried = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "sh", "-c"])
        .arg("mount -t tmpfs none /sys/fs/cgroup && echo 100 > /proc/sys/kernel/ns_last_pid")
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

fn until_shown(next: fn(&mut Space, u32) -> Round) {
    if let Some(why) = why_not() {
        println!("skipped: no numbers of processes to choose: {why}");
        return;
    }
    let mut space = Space::new();
    let (_, status): (u16, Value) = space.host.get("/v1/status").expect("an answer");
    assert_ne!(
        status["runner"]["cgroups"], true,
        "it goes by numbers: {status}"
    );
    let mut shown = 0;
    for number in 0..ROUNDS {
        shown += u32::from(next(&mut space, number) == Round::Shown);
        if shown == 3 {
            return;
        }
    }
    panic!("shown {shown} times in {ROUNDS} rounds");
}

#[test]
fn fi_32_a_task_that_has_the_number_of_one_that_ended_is_not_signalled_for_it() {
    until_shown(by_a_task);
}

#[test]
fn fi_32_a_stranger_that_has_the_number_of_one_that_ended_is_not_signalled() {
    until_shown(by_a_stranger);
}
