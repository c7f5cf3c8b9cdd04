//! A task is got ready while its commit is on its way to the disk: it begins once that is there, and never without.

use std::fs;

use crate::host::{Host, was_killed};
use crate::journal::{Fate, acknowledged, judge};
use crate::load::one;
use crate::points::{arm, order};

fn marks(host: &Host) -> String {
    fs::read_to_string(host.path("marks")).unwrap_or_default()
}

/// Processes that the runner has, whatever they do.
fn children(host: &Host) -> usize {
    let runner = host.runner();
    let list = fs::read_to_string(format!("/proc/{runner}/task/{runner}/children"));
    list.map_or(0, |list| list.split_whitespace().count())
}

#[test]
fn nothing_begins_before_it_is_on_disk() {
    let mut host = Host::new();
    arm(&mut host);
    host.start();
    host.runner();
    order(&host, "engine/commit/before", "pause");
    std::thread::scope(|scope| {
        let submit = scope.spawn(|| host.submit(&one(&host, "late")));
        host.until("a process is ready", |host| children(host) == 1);
        assert_eq!(marks(&host), "", "it began before its commit");
        assert!(!submit.is_finished());
        let id = submit.join().expect("a number");
        acknowledged(&host, "late", id, Fate::Succeeds);
        assert_eq!(host.wait(id)["state"], "succeeded");
    });
    assert_eq!(marks(&host), "late 1\n");
    judge(&host).hold(1, "a commit that takes long");
}

#[test]
fn what_a_daemon_did_not_commit_does_not_begin_when_it_is_killed() {
    let mut host = Host::new();
    arm(&mut host);
    host.start();
    for (number, point) in ["engine/commit/before", "engine/commit/after"]
        .iter()
        .enumerate()
    {
        host.runner();
        let key = format!("cut-{number}");
        let before = marks(&host);
        order(&host, point, "kill");
        drop(host.post("/v1/tasks", &one(&host, &key)));
        let status = host.ended();
        assert!(was_killed(status), "{point}: {status}");
        host.start();
        host.until("nothing is left of it", |host| children(host) == 0);
        // Where it was committed it is run now, once; where it was not, never.
        host.settle();
        let after = marks(&host);
        let new = after.strip_prefix(&before).expect("added to");
        // That it was ready once before is none of its attempts.
        let known = ["", "cut-1 1\n"];
        assert_eq!(new, known[number], "{point}");
        let id = host.submit(&one(&host, &key));
        acknowledged(&host, &key, id, Fate::Succeeds);
        assert_eq!(host.wait(id)["state"], "succeeded");
    }
    judge(&host).hold(2, "killed in a commit");
}
