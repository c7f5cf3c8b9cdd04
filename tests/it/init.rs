//! The daemon as the first process of a container, in a process namespace of
//! its own, where that may be made.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::bed::request;
use crate::ground::{Ground, lives, signal, stat};

/// `unshare`, as root or as a user who is root inside.
fn unshare() -> Option<Vec<&'static str>> {
    let with = |more: &[&'static str]| {
        let mut words = more.to_vec();
        words.extend(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        words
    };
    [with(&[]), with(&["--user", "--map-root-user"])]
        .into_iter()
        .find(|words| {
            let tried = Command::new("unshare")
                .args(words)
                .arg("true")
                .stderr(Stdio::null())
                .status();
            tried.is_ok_and(|status| status.success())
        })
}

fn children(pid: i32) -> Vec<i32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[test]
fn as_the_first_process_it_reaps_strangers_and_stops_on_sigterm() {
    let Some(namespace) = unshare() else {
        let _told = writeln!(std::io::stderr(), "no process namespace can be made here");
        return;
    };
    for verb in [&["run"][..], &["start", "--supervised"]] {
        let ground = Ground::new(&[]);
        let inside = ground.command(verb);
        let mut command = Command::new("unshare");
        command
            .args(&namespace)
            .arg(inside.get_program())
            .args(inside.get_args());
        command.envs(
            inside
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let mut outer = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare");
        let outer_pid = i32::try_from(outer.id()).expect("small");
        ground.until("it answers", || ground.get("/ready").is_some());
        let init = children(outer_pid)[0];
        // Their parents end before them, so they come to the first process.
        let entered = Command::new("nsenter")
            .args([
                &format!("--target={init}"),
                "--user",
                "--pid",
                "--preserve-credentials",
                "--",
            ])
            .args([
                "sh",
                "-c",
                "for i in 1 2 3 4 5; do (sleep 0.2 & sleep 0.2 &) ; done",
            ])
            .stderr(Stdio::null())
            .status();
        if !entered.is_ok_and(|status| status.success()) {
            let entered = Command::new("nsenter")
                .args([&format!("--target={init}"), "--pid", "--"])
                .args([
                    "sh",
                    "-c",
                    "for i in 1 2 3 4 5; do (sleep 0.2 & sleep 0.2 &) ; done",
                ])
                .status();
            assert!(entered.expect("nsenter").success());
        }
        let body = json!({"command": ["sh", "-c", "sleep 600"]});
        let (status, _) = request(&ground.socket(), "POST", "/v1/tasks", Some(&body)).expect("ask");
        assert_eq!(status, 201);
        ground.until("no stranger is left", || {
            let all = children(init);
            let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm"));
            let zombies = all
                .iter()
                .filter(|pid| stat(**pid).is_some_and(|s| s[0] == "Z"));
            zombies.count() == 0
                && !all
                    .iter()
                    .any(|pid| name(*pid).is_ok_and(|name| name.trim() == "sleep"))
        });
        signal(init, Signal::SIGTERM);
        let status = outer.wait().expect("wait");
        assert_eq!(status.code(), Some(0), "{verb:?}");
        assert!(!lives(init));
    }
}
