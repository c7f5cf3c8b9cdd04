//! Sandbox profiles: an attempt with a runner of its own, started by the
//! service manager, which a thread plays here; and what the engine makes of
//! whoever comes to the report socket.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use taskdaemon::engine::command::Command;
use taskdaemon::engine::effect::{Effect, Verdict};
use taskdaemon::engine::options::Options as Limits;
use taskdaemon::engine::runner::{Abilities, RunnerUp};
use taskdaemon::engine::{Engine, Turned};
use taskdaemon::model::attempt::{AttemptKey, Ended, Exit, Started, Usage};
use taskdaemon::model::id::TaskId;
use taskdaemon::model::task::State;
use taskdaemon::model::time::Time;
use taskdaemon::runner::{Options, Users};
use taskdaemon::store::Store as _;
use taskdaemon::store::sqlite::Sqlite;
use tokio::sync::oneshot;

use crate::bed::Bed;
use crate::daemon::{NOTICED, quickest};
use crate::runner::become_nobody;
use crate::store::{new_task, options};

/// Starts a runner for each connection to a profile's socket, at most so many
/// at a time.
struct Manager {
    path: PathBuf,
    over: Arc<AtomicBool>,
    children: Arc<Mutex<Vec<Child>>>,
    thread: Option<JoinHandle<()>>,
}

impl Manager {
    /// `group` is a cgroup that each runner is put into before it begins.
    fn start(bed: &Bed, name: &str, most: usize, group: Option<&Path>) -> Self {
        let path = bed.path(&format!("run/run-{name}.sock"));
        let listener = UnixListener::bind(&path).expect("bind");
        let options = Options {
            users: Users::Own,
            report_socket: bed.path("run/report/report.sock"),
            ..Options::default()
        };
        let options = serde_json::to_string(&options).expect("options");
        let temporary = bed.path("");
        let enter = group.map_or_else(String::new, |group| {
            format!("echo $$ > {}/cgroup.procs &&", group.display())
        });
        let line = format!("{enter} exec \"$@\"");
        let over = Arc::new(AtomicBool::new(false));
        let children = Arc::new(Mutex::new(Vec::new()));
        let (ended, all) = (Arc::clone(&over), Arc::clone(&children));
        let thread = std::thread::spawn(move || {
            loop {
                let (stream, _) = listener.accept().expect("accept");
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let mut all = all.lock().expect("lock");
                let alive = |child: &mut Child| child.try_wait().expect("wait").is_none();
                if all
                    .iter_mut()
                    .filter_map(|child| alive(child).then_some(()))
                    .count()
                    >= most
                {
                    continue;
                }
                let child = Process::new("sh")
                    .args([
                        "-c",
                        &line,
                        "sh",
                        env!("CARGO_BIN_EXE_taskdaemon"),
                        "runner",
                    ])
                    .args(["--options", &options])
                    // As a sandbox's own: gone with it.
                    .env("TMPDIR", &temporary)
                    .stdin(Stdio::from(OwnedFd::from(stream)))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn();
                all.push(child.expect("a runner"));
            }
        });
        Self {
            path,
            over,
            children,
            thread: Some(thread),
        }
    }

    fn started(&self) -> usize {
        self.children.lock().expect("lock").len()
    }

    fn kill_last(&self) {
        let mut children = self.children.lock().expect("lock");
        let child = children.last_mut().expect("a runner");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Every runner has ended by itself, and well.
    fn all_done(&self) -> bool {
        let mut children = self.children.lock().expect("lock");
        let done = |child: &mut Child| {
            let status = child.try_wait().expect("wait");
            status.is_some_and(|status| status.success())
        };
        children.iter_mut().all(done)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        for child in self.children.lock().expect("lock").iter_mut() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn strict(script: &str) -> Value {
    json!({"command": ["sh", "-c", script], "profile": "strict"})
}

fn show(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("show").1
}

fn runs(bed: &Bed, id: i64) {
    bed.until("it runs, and that is recorded", |bed| {
        !show(bed, id)["attempts"][0]["pid"].is_null()
    });
}

fn text(bed: &Bed, id: i64) -> String {
    String::from_utf8_lossy(&bed.output(id)).into_owned()
}

#[test]
fn a_task_in_a_profile_has_a_runner_of_its_own() {
    let bed = Bed::start(&[]);
    let manager = Manager::start(&bed, "strict", 9, None);
    let id = bed.submit(&strict("echo out; cat; exit 7"));
    let task = bed.wait(id);
    assert_eq!(task["state"], "failed", "{task}");
    assert_eq!(task["attempts"][0]["exit_code"], 7, "{task}");
    assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
    assert_eq!(text(&bed, id), "out\n");
    assert_eq!(manager.started(), 1);
    bed.until("the runner has gone", |_| manager.all_done());
}

#[test]
fn a_profile_that_is_not_there_is_said_to_be_not_there() {
    let bed = Bed::start(&[]);
    let id = bed.submit(&strict("true"));
    let task = bed.wait(id);
    assert_eq!(task["attempts"][0]["outcome"], "spawn", "{task}");
    let message = task["message"].to_string() + &task["attempts"][0]["message"].to_string();
    assert!(message.contains("no profile strict on this host"), "{task}");
    assert!(message.contains("run-strict.sock"), "{task}");
}

#[test]
fn a_task_in_a_profile_can_be_cancelled() {
    let bed = Bed::start(&[]);
    let manager = Manager::start(&bed, "strict", 9, None);
    let id = bed.submit(&strict("exec sleep 600"));
    runs(&bed, id);
    let (status, answer) = bed
        .post(&format!("/v1/tasks/{id}/cancel"), &json!({}))
        .expect("cancel");
    assert!(status < 300, "{answer}");
    assert_eq!(bed.wait(id)["state"], "cancelled");
    bed.until("the runner has gone", |_| manager.all_done());
}

#[test]
fn a_task_in_a_profile_outlives_a_killed_daemon() {
    let mut bed = Bed::start(&[]);
    let manager = Manager::start(&bed, "strict", 9, None);
    let (gate, marks) = (bed.path("gate"), bed.path("marks"));
    let script = format!(
        "echo ran >> {}; echo begin; until [ -e {} ]; do sleep 0.02; done; echo end; exit 7",
        marks.display(),
        gate.display()
    );
    let during = bed.submit(&strict(&script));
    let while_down = bed.submit(&strict("sleep 0.3; exit 8"));
    let stopping = bed.submit(&strict("trap '' TERM; while :; do sleep 0.1; done"));
    for id in [during, while_down, stopping] {
        runs(&bed, id);
    }
    bed.kill();
    // One of them ends with nobody there to be told.
    std::thread::park_timeout(Duration::from_millis(600));
    bed.restart();
    let asked = bed.post(&format!("/v1/tasks/{stopping}/cancel"), &json!({}));
    assert!(asked.expect("cancel").0 < 300);
    bed.kill();
    bed.restart();
    fs::write(&gate, "").expect("gate");
    for (id, code) in [(during, 7), (while_down, 8)] {
        let task = bed.wait(id);
        assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
        assert_eq!(task["attempts"][0]["exit_code"], code, "{task}");
    }
    assert_eq!(text(&bed, during), "begin\nend\n");
    assert_eq!(fs::read_to_string(&marks).expect("marks"), "ran\n");
    assert_eq!(bed.wait(stopping)["state"], "cancelled");
    assert_eq!(manager.started(), 3);
    bed.until("all runners have gone", |_| manager.all_done());
}

#[test]
fn a_killed_runner_of_one_attempt_is_lost_within_a_second() {
    let bed = Bed::start(&[]);
    let manager = Manager::start(&bed, "strict", 9, None);
    let noticed = quickest(|round| {
        let marks = bed.path(&format!("marks-{round}"));
        let line = format!("echo ran >> {}; sleep 0.8", marks.display());
        let id = bed.submit(&strict(&line));
        runs(&bed, id);
        manager.kill_last();
        let killed = taskdaemon::clock::instant();
        until_lost(&bed, id);
        let noticed = killed.elapsed();
        assert_eq!(bed.wait(id)["state"], "succeeded");
        assert_eq!(fs::read_to_string(&marks).expect("marks"), "ran\nran\n");
        noticed
    });
    assert!(noticed < NOTICED, "{noticed:?} at best");
}

fn until_lost(bed: &Bed, id: i64) {
    bed.until("it is lost", |bed| {
        show(bed, id)["attempts"][0]["outcome"] == "lost"
    });
}

#[test]
fn a_runner_that_died_with_its_daemon_is_found_gone_by_its_cgroup() {
    if crate::runner::TestGroup::new().is_none() {
        return;
    }
    let found = quickest(|_| {
        let group = crate::runner::TestGroup::new().expect("a cgroup");
        let mut bed = Bed::start(&[]);
        let manager = Manager::start(&bed, "strict", 9, Some(&group.0));
        let id = bed.submit(&strict("exec sleep 600"));
        runs(&bed, id);
        bed.kill();
        manager.kill_last();
        fs::write(group.0.join("cgroup.kill"), "1").expect("kill");
        bed.until("the group is empty", |_| {
            let events = fs::read_to_string(group.0.join("cgroup.events")).expect("events");
            events.contains("populated 0")
        });
        bed.restart();
        let back = taskdaemon::clock::instant();
        until_lost(&bed, id);
        back.elapsed()
    });
    assert!(found < NOTICED, "{found:?} at best");
}

#[test]
fn a_full_profile_costs_a_task_nothing_but_time() {
    let bed = Bed::start(&[]);
    let manager = Manager::start(&bed, "strict", 1, None);
    let ids: Vec<_> = (0..4).map(|_| bed.submit(&strict("sleep 0.2"))).collect();
    for id in ids {
        let task = bed.wait(id);
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(task["attempts"].as_array().map(Vec::len), Some(1), "{task}");
    }
    assert_eq!(manager.started(), 4);
}

#[test]
fn a_stranger_at_the_report_socket_is_not_answered() {
    if !nix::unistd::getuid().is_root() {
        return;
    }
    let bed = Bed::start(&[]);
    let open = |path: PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    open(bed.dir.path().to_owned()).expect("mode");
    let _manager = Manager::start(&bed, "strict", 9, None);
    let gate = bed.path("gate");
    let line = format!(
        "until [ -e {} ]; do sleep 0.02; done; exit 7",
        gate.display()
    );
    let id = bed.submit(&strict(&line));
    runs(&bed, id);
    let path = bed.path("run/report/report.sock");
    // A thread of its own may be somebody else; the raw call changes only it.
    let thread = std::thread::spawn(move || {
        become_nobody();
        let mut stream = UnixStream::connect(path).expect("connect");
        let waits = stream.set_read_timeout(Some(Duration::from_secs(20)));
        waits.expect("time limit");
        let key = json!({"task": id, "number": 1});
        let hello = json!({"say": "hello", "min": 1, "max": 1, "version": "1", "pid": 1,
            "instance": "i", "boot": "b", "held": [key],
            "abilities": {"cgroup": false, "memory": false, "cpu": false, "pids": false,
                "switch_user": false}});
        let lie = json!({"say": "ended", "key": key, "started": null, "ended": {
            "exit": {"how": "code", "code": 0}, "oom": false, "interrupted": false, "at": 0,
            "usage": {"cpu_micros": null, "memory_peak": null, "output_kept": 0,
                "output_dropped": 0}}});
        for message in [hello.to_string(), lie.to_string()] {
            let length = u32::try_from(message.len()).expect("short");
            stream.write_all(&length.to_le_bytes()).expect("write");
            stream.write_all(message.as_bytes()).expect("write");
        }
        let mut heard = Vec::new();
        // Closed with the lie unread, it may also end in an error.
        drop(stream.read_to_end(&mut heard));
        heard
    });
    assert_eq!(thread.join().expect("the stranger"), b"");
    bed.until("it is in the log", |bed| {
        let log = fs::read_to_string(bed.path("log")).unwrap_or_default();
        log.contains("uid 65534 came to the report socket")
    });
    fs::write(gate, "").expect("gate");
    assert_eq!(bed.wait(id)["attempts"][0]["exit_code"], 7);
}

const NOW: Time = Time::from_micros(1_700_000_000_000_000);

fn open(dir: &Path, boot: &str) -> Engine<Sqlite> {
    let store = Sqlite::open(dir, &options()).expect("open");
    let mut engine = Engine::new(store, Limits::default(), boot.to_owned());
    engine.recover(NOW).expect("recover");
    engine
}

fn shared_runner(instance: &str) -> Command {
    Command::RunnerUp(RunnerUp {
        instance: instance.to_owned(),
        boot: "boot".to_owned(),
        version: "1".to_owned(),
        pid: 1,
        abilities: Abilities::default(),
        policy: None,
        held: Vec::new(),
    })
}

fn dialled(key: AttemptKey, uid: u32, trusted: bool) -> Command {
    Command::Dialled {
        visit: 1,
        key,
        uid,
        trusted,
    }
}

fn verdict(turned: &Turned) -> Verdict {
    let mut verdicts = turned.effects.iter().filter_map(|effect| match effect {
        Effect::Met { verdict, .. } => Some(*verdict),
        Effect::Attach
        | Effect::Launch(_)
        | Effect::Terminate(_)
        | Effect::Kill(_)
        | Effect::Freeze(_)
        | Effect::Thaw(_)
        | Effect::Acknowledge(_)
        | Effect::Erase(_)
        | Effect::Seek { .. } => None,
    });
    verdicts.next().expect("a verdict")
}

/// An engine with one live attempt in a profile.
fn with_a_profile_task(dir: &Path) -> (Engine<Sqlite>, AttemptKey) {
    let mut engine = open(dir, "boot");
    let mut new = new_task("true");
    new.spec.profile = Some("strict".to_owned());
    let (reply, _answer) = oneshot::channel();
    let submit = Command::Submit {
        tasks: vec![new],
        reply,
    };
    let turned = engine
        .turn(vec![shared_runner("one"), submit], NOW)
        .expect("turn");
    let launched = turned.effects.iter().find_map(|effect| match effect {
        Effect::Launch(order) => Some(order.key),
        Effect::Attach
        | Effect::Terminate(_)
        | Effect::Kill(_)
        | Effect::Freeze(_)
        | Effect::Thaw(_)
        | Effect::Acknowledge(_)
        | Effect::Erase(_)
        | Effect::Seek { .. }
        | Effect::Met { .. } => None,
    });
    let key = launched.expect("a launch");
    assert_eq!(
        engine.store().attempts(key.task).expect("read")[0].runner,
        "profile:strict"
    );
    (engine, key)
}

fn started(uid: u32) -> Started {
    Started {
        pid: 1,
        uid,
        user: "someone".to_owned(),
        cgroup: Some("/unit/task-1-1".to_owned()),
        at: NOW,
    }
}

#[test]
fn a_shared_runner_is_no_judge_of_attempts_in_profiles() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut engine, key) = with_a_profile_task(dir.path());
    for instance in ["one", "two"] {
        let turned = engine
            .turn(vec![Command::RunnerDown, shared_runner(instance)], NOW)
            .expect("turn");
        assert_eq!(turned.effects, [Effect::Attach], "{instance}");
    }
    drop(engine);
    // Neither is one that finds a new daemon; but another boot is.
    let mut engine = open(dir.path(), "boot");
    let turned = engine
        .turn(vec![shared_runner("three")], NOW)
        .expect("turn");
    let seek = Effect::Seek { key, group: None };
    assert_eq!(turned.effects, [seek, Effect::Attach]);
    assert_eq!(engine.store().live().expect("read").len(), 1);
    drop(engine);
    let mut engine = open(dir.path(), "another");
    assert_eq!(engine.store().live().expect("read").len(), 0);
}

#[test]
fn who_dials_in_is_judged_by_the_kernels_word() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut engine, key) = with_a_profile_task(dir.path());
    let mut ask = |command| verdict(&engine.turn(vec![command], NOW).expect("turn"));
    // Before its start is recorded nobody can prove to be its user.
    assert_eq!(ask(dialled(key, 61000, false)), Verdict::End(key));
    assert_eq!(ask(dialled(key, 0, true)), Verdict::Adopt(key));
    let begun = Command::Started {
        key,
        started: started(61000),
    };
    engine.turn(vec![begun], NOW).expect("turn");
    drop(engine);
    let mut engine = open(dir.path(), "boot");
    let turned = engine.turn(vec![dialled(key, 61000, false)], NOW);
    let turned = turned.expect("turn");
    let group = Some("/unit/task-1-1".to_owned());
    assert_eq!(turned.effects[0], Effect::Seek { key, group });
    assert_eq!(verdict(&turned), Verdict::Adopt(key));
    let other = AttemptKey { number: 2, ..key };
    let nobody = AttemptKey {
        task: TaskId(99),
        number: 1,
    };
    let mut ask = |command| verdict(&engine.turn(vec![command], NOW).expect("turn"));
    assert_eq!(ask(dialled(key, 61001, false)), Verdict::Away);
    assert_eq!(ask(dialled(other, 61000, false)), Verdict::End(other));
    assert_eq!(ask(dialled(nobody, 61000, false)), Verdict::End(nobody));
    let ended = Ended {
        exit: Exit::Code { code: 0 },
        oom: false,
        interrupted: false,
        unrecorded: false,
        at: NOW,
        usage: Usage::default(),
        receipt: None,
    };
    let over = Command::Ended {
        key,
        started: None,
        ended,
    };
    assert_eq!(ask_after(&mut engine, over, key), Verdict::End(key));
    let task = engine.store().task(key.task).expect("read").expect("there");
    assert_eq!(task.state, State::Succeeded);
}

fn ask_after(engine: &mut Engine<Sqlite>, first: Command, key: AttemptKey) -> Verdict {
    let turned = engine.turn(vec![first, dialled(key, 61000, false)], NOW);
    verdict(&turned.expect("turn"))
}
