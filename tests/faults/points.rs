//! FI-01: the process is killed at every point there is, twice, under a mixed load, and started again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::json;
use taskdaemon::clock;
use taskdaemon::failpoint::{DIRECTORY, POINTS};

use crate::draw::{Draws, seed};
use crate::host::{Host, PATIENCE, append, was_killed};
use crate::journal::{judge, mark};
use crate::load::{Load, SWEPT};

/// Times each point is the last of a process.
const TIMES: usize = 2;

/// What makes a process come by a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The load alone.
    Work,
    /// A start of the daemon.
    Start,
    /// An orderly stop.
    Stop,
    Reload,
    /// Removal of what is over.
    Prune,
    /// A copy of the database, by a process of its own.
    Backup,
    /// A step of the schema (`steps.rs`).
    Migration,
}

fn way(point: &str) -> Way {
    match point {
        "run/sweep/before" | "run/runner/started" | "daemon/boot/recovered" => Way::Start,
        "engine/prune/after" | "engine/bulk/found" | "run/erase/before" => Way::Prune,
        _ if point.starts_with("store/migrate/") => Way::Migration,
        _ if point.starts_with("store/backup/") => Way::Backup,
        // New rules are obeyed at once.
        "engine/retention/begun" => Way::Reload,
        _ if point.starts_with("daemon/reload/") => Way::Reload,
        _ if point.starts_with("daemon/stop/") => Way::Stop,
        _ if [
            "store/open",
            "store/checkpoint",
            "store/lock",
            "store/ballast",
            "engine/recover",
            "daemon/ready",
            "run/runner",
            "engine/runner",
        ]
        .iter()
        .any(|room| point.starts_with(room)) =>
        {
            Way::Start
        }
        _ => Way::Work,
    }
}

/// Lets the next daemon of a host obey orders.
pub(crate) fn arm(host: &mut Host) {
    fs::create_dir(host.path("points")).expect("directory");
    let points = host.path("points").display().to_string();
    host.set(DIRECTORY, &points);
}

/// Orders what the next process does that comes by a point.
pub(crate) fn order(host: &Host, point: &str, action: &str) {
    // Nobody reads half an order.
    let draft = host.path("points/draft");
    fs::write(&draft, format!("{point} {action}")).expect("write");
    fs::rename(draft, host.path("points/order")).expect("order");
}

/// A host whose daemon stops at points, with somebody to notify, a schedule and
/// an agent that never lives long.
struct Stage {
    host: Host,
    /// Where the daemon's messages to a service manager go.
    manager: UnixDatagram,
    load: Option<Load>,
    loads: usize,
    kills: usize,
    copies: usize,
}

impl Stage {
    fn new() -> Self {
        let mut host = Host::new();
        arm(&mut host);
        let manager = UnixDatagram::bind(host.path("notify")).expect("bind");
        manager.set_nonblocking(true).expect("set");
        let address = host.path("notify").display().to_string();
        host.set("NOTIFY_SOCKET", &address);
        // What is over goes, so that there is something to remove at any time.
        host.set("TASKDAEMON_RETENTION__EVENT_COUNT", "2000");
        host.start();
        let line = mark(&host, "tick-$TASKDAEMON_TASK_ID");
        let every = json!({"name": "tick", "when": "every 1s", "missed": "last",
            "task": {"command": ["sh", "-c", line]}});
        let (status, answer) = host.post("/v1/schedules", &every).expect("an answer");
        assert_eq!(status, 201, "{answer}");
        let line = mark(&host, "beat-$TASKDAEMON_TASK_ID") + "; sleep 0.5";
        let agent = json!({"name": "beat", "backoff": "50ms", "backoff_max": "50ms",
            "max_restarts": 1_000_000, "task": {"command": ["sh", "-c", line]}});
        let (status, answer) = host.post("/v1/agents", &agent).expect("an answer");
        assert_eq!(status, 201, "{answer}");
        Self {
            host,
            manager,
            load: None,
            loads: 0,
            kills: 0,
            copies: 0,
        }
    }

    /// Has clients work from now on.
    fn work(&mut self, seed: u64) {
        self.loads += 1;
        let name = format!("load{}-", self.loads);
        self.load = Some(Load::start(&self.host, &name, 3, seed));
    }

    /// Whether the order to kill has not been obeyed yet.
    fn is_ordered(&self) -> bool {
        self.host.path("points/order").exists()
    }

    /// Has a process killed at a point, and the daemon run again afterwards.
    fn kill_at(&mut self, point: &str) {
        order(&self.host, point, "kill");
        let start = clock::instant();
        let way = way(point);
        while self.is_ordered() {
            assert!(start.elapsed() < PATIENCE, "nothing comes by {point}");
            self.bring_about(way, point);
        }
        self.kills += 1;
        println!("{point}: {:.1} s", start.elapsed().as_secs_f64());
        // Whoever was killed: the daemon, or someone else whom it outlives.
        if !point.starts_with("runner/") && way != Way::Backup && self.host.has_daemon() {
            let status = self.host.ended();
            assert!(was_killed(status), "{point}: {status}");
        }
        if !self.host.has_daemon() {
            self.host.start();
        }
        self.host.until("it is ready again", Host::is_ready);
    }

    /// Does one thing that leads to the point, and looks for a daemon that has ended.
    fn bring_about(&mut self, way: Way, point: &str) {
        let mut message = [0; 1024];
        while self.manager.recv(&mut message).is_ok() {}
        if let Some(status) = self.host.has_ended() {
            assert!(
                was_killed(status) || way == Way::Stop && status.success(),
                "{point}: {status}"
            );
        }
        match way {
            Way::Start | Way::Stop if self.host.has_daemon() => self.start_anew(way, point),
            Way::Work | Way::Start | Way::Stop | Way::Migration => {}
            Way::Reload => drop(self.host.post("/v1/reload", &json!({}))),
            Way::Prune => {
                let what = json!({"state": ["succeeded"], "labels": {SWEPT: "yes"}});
                drop(self.host.post("/v1/tasks/discard", &what));
            }
            Way::Backup => self.back_up(),
        }
        if !self.host.has_daemon() && self.is_ordered() {
            self.host.spawn();
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }

    fn start_anew(&mut self, way: Way, point: &str) {
        if !self.host.is_ready() {
            return;
        }
        if way == Way::Stop {
            self.host.signal(Signal::SIGTERM);
            self.host.ended();
            return;
        }
        match point {
            "store/ballast/made" => drop(fs::remove_file(self.host.state().join("ballast"))),
            "run/sweep/before" => {
                let stray = self.host.state().join("output/900");
                fs::create_dir_all(&stray).expect("directory");
                drop(append(&stray.join("900001.1")));
            }
            "run/runner/started" => {
                // The daemon starts another, and comes by the point.
                if let Some(runner) = self.host.connected() {
                    let _gone = nix::sys::signal::kill(runner, Signal::SIGKILL).is_err();
                }
                return;
            }
            _ => {}
        }
        self.host.kill();
    }

    /// A copy by a process of its own; what one that was killed left is in its way and removed.
    fn back_up(&mut self) {
        self.copies += 1;
        let file = self.host.path(&format!("copy-{}", self.copies));
        let status = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
            .arg("backup")
            .arg("--state-dir")
            .arg(self.host.state())
            .arg(&file)
            .env(DIRECTORY, self.host.path("points"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(append(&self.host.path("log")))
            .status()
            .expect("run");
        assert!(status.success() || was_killed(status), "{status}");
        if file.exists() {
            let copy = rusqlite::Connection::open(&file).expect("open");
            let said: String = copy
                .query_row("PRAGMA integrity_check", [], |row| row.get(0))
                .expect("check");
            assert_eq!(said, "ok", "a copy under its name is whole");
        } else {
            assert!(was_killed(status), "a copy is there or was cut off");
        }
    }

    /// Lets everything come to its end; the schedule and the agent stand still
    /// meanwhile.
    fn settle(&self, for_good: bool) {
        let ask = |path: &str| {
            let (status, answer) = self.host.post(path, &json!({})).expect("an answer");
            assert_eq!(status, 200, "{answer}");
        };
        ask("/v1/schedules/tick/pause");
        ask("/v1/agents/beat/stop");
        self.host.settle();
        if !for_good {
            ask("/v1/schedules/tick/resume");
            ask("/v1/agents/beat/start");
        }
    }

    /// How often processes came by a point.
    fn hits(&self, point: &str) -> u64 {
        let file = self.host.path("points").join(point.replace('/', "."));
        fs::metadata(file).map_or(0, |meta| meta.len())
    }
}

/// Has processes killed at each of these points, in a seeded order. `between` is called after each.
fn kill_at_each(points: &[&str], name: &str, mut between: impl FnMut(&mut Stage, &mut Draws)) {
    let seed = seed();
    let mut draws = Draws::new(seed);
    let mut stage = Stage::new();
    stage.work(draws.next());
    let all = points.repeat(TIMES);
    for point in draws.shuffled(all) {
        stage.kill_at(point);
        between(&mut stage, &mut draws);
    }
    stage.load.take().into_iter().for_each(Load::stop);
    stage.settle(true);
    for point in points {
        let hits = stage.hits(point);
        assert!(
            hits >= u64::try_from(TIMES).expect("small"),
            "{point}: {hits}"
        );
    }
    let verdict = judge(&stage.host);
    verdict.hold(
        stage.kills,
        &format!("kills at {} points of the {name}", points.len()),
    );
}

/// Points of the daemon, and of commands beside it.
fn of_the_daemon() -> Vec<&'static str> {
    let of = |point: &&str| !point.starts_with("runner/") && way(point) != Way::Migration;
    POINTS.into_iter().filter(of).collect()
}

fn of_the_runner() -> Vec<&'static str> {
    let of = |point: &&str| point.starts_with("runner/");
    POINTS.into_iter().filter(of).collect()
}

#[test]
fn fi_01_a_daemon_killed_at_any_point_loses_nothing_and_doubles_nothing() {
    kill_at_each(&of_the_daemon(), "daemon", |_, _| {});
}

#[test]
fn fi_01_a_runner_killed_at_any_point_loses_nothing_and_doubles_nothing() {
    // Each kill interrupts what runs, and three interruptions put a task aside: nothing is in flight over two of them.
    kill_at_each(&of_the_runner(), "runner", |stage, draws| {
        stage.load.take().into_iter().for_each(Load::stop);
        stage.settle(false);
        stage.work(draws.next());
    });
}

#[test]
fn the_points_of_the_sources_are_the_points_that_are_tried() {
    let mut named = BTreeSet::new();
    let mut dirs = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("directory") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = fs::read_to_string(path).expect("readable");
            let found = text.split("failpoint!(\"").skip(1);
            for name in found.filter_map(|rest| rest.split('"').next()) {
                assert!(named.insert(name.to_owned()), "{name} is there twice");
            }
        }
    }
    let listed: BTreeSet<_> = POINTS.into_iter().map(str::to_owned).collect();
    assert_eq!(named, listed);
    assert!(listed.len() >= 40, "{}", listed.len());
}
