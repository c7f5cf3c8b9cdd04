//! Agents of a real daemon: kept running, stopped, seen, and not lost.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bed::{Bed, request};

fn add(bed: &Bed, agent: &Value) -> Value {
    let (status, made) = bed.post("/v1/agents", agent).expect("add");
    assert_eq!(status, 201, "{made}");
    made
}

fn show(bed: &Bed, name: &str) -> Value {
    let (status, agent) = bed.get(&format!("/v1/agents/{name}")).expect("show");
    assert_eq!(status, 200, "{agent}");
    agent
}

fn change(bed: &Bed, name: &str, verb: &str) -> Value {
    let (status, agent) = bed
        .post(&format!("/v1/agents/{name}/{verb}"), &Value::Null)
        .expect("change");
    assert_eq!(status, 200, "{agent}");
    agent
}

/// The one instance of an agent.
fn one(agent: &Value) -> &Value {
    &agent["instances"][0]
}

/// Waits until an agent stands in a phase, and returns its instance.
fn until(bed: &Bed, name: &str, phase: &str) -> Value {
    let mut last = Value::Null;
    bed.until(&format!("{name} is {phase}"), |bed| {
        let agent = show(bed, name);
        last = one(&agent).clone();
        last["phase"] == phase
    });
    last
}

/// The process of an instance's latest run.
fn pid(bed: &Bed, instance: &Value) -> Pid {
    let task = instance["task"].as_i64().expect("a task");
    let mut pid = None;
    bed.until("the run has a process", |bed| {
        let (_, task) = bed.get(&format!("/v1/tasks/{task}")).expect("task");
        let attempts = task["attempts"].as_array().expect("attempts");
        pid = attempts.last().and_then(|last| last["pid"].as_i64());
        pid.is_some()
    });
    Pid::from_raw(i32::try_from(pid.expect("a number")).expect("small"))
}

#[test]
fn an_agent_that_is_killed_runs_again_and_one_that_is_stopped_does_not() {
    let bed = Bed::start(&[]);
    let asked =
        json!({ "name": "web", "backoff": "10ms", "task": { "command": ["sleep", "600"] } });
    add(&bed, &asked);
    let first = until(&bed, "web", "healthy");
    let old = pid(&bed, &first);
    kill(old, Signal::SIGKILL).expect("kill");
    bed.until("it runs again", |bed| {
        let agent = show(bed, "web");
        one(&agent)["restarts"] == 1 && one(&agent)["phase"] == "healthy"
    });
    let second = until(&bed, "web", "healthy");
    assert_ne!(
        second["task"], first["task"],
        "each run is a task of its own"
    );
    assert_eq!(second["outcome"]["class"], "signal");
    let new = pid(&bed, &second);
    assert_ne!(old, new);

    change(&bed, "web", "stop");
    let stopped = until(&bed, "web", "stopped");
    assert_eq!(stopped["wanted"], false);
    assert!(kill(new, None).is_err(), "nothing is left of it");
    change(&bed, "web", "start");
    let third = until(&bed, "web", "healthy");
    // Its run is no task that could be run beside it.
    let again = format!("/v1/tasks/{}/retry", second["task"]);
    let (status, said) = bed.post(&again, &Value::Null).expect("retry");
    assert_eq!((status, &said["code"]), (409, &json!("of_agent")));
    // Whoever cancels its run has it started anew.
    let cancel = format!("/v1/tasks/{}/cancel", third["task"]);
    assert_eq!(bed.post(&cancel, &Value::Null).expect("cancel").0, 200);
    bed.until("it runs anew", |bed| {
        let agent = show(bed, "web");
        one(&agent)["task"] != third["task"] && one(&agent)["phase"] == "healthy"
    });
    change(&bed, "web", "restart");
    until(&bed, "web", "healthy");
    let (status, gone) = request(&bed.socket(), "DELETE", "/v1/agents/web", None).expect("remove");
    assert_eq!((status, &gone["removed"]), (200, &json!(true)));
    bed.until("it is forgotten", |bed| {
        bed.get("/v1/agents/web").expect("ask").0 == 404
    });
    let (_, list) = bed.get("/v1/agents").expect("list");
    assert_eq!(list["agents"], json!([]));
}

#[test]
fn a_crash_loop_backs_off_cools_off_and_a_start_by_hand_ends_that() {
    let mut bed = Bed::start(&[]);
    let asked = json!({
        "name": "loop", "backoff": "20ms", "backoff_max": "40ms", "max_restarts": 3,
        "cool_off": "10m", "task": { "command": ["sh", "-c", "echo run >> runs; exit 7"],
        "cwd": bed.dir.path() },
    });
    add(&bed, &asked);
    let cooling = until(&bed, "loop", "cooling_off");
    assert_eq!(cooling["restarts"], 4, "{cooling}");
    assert!(
        cooling["why"]
            .as_str()
            .expect("why")
            .contains("ended 4 times in a row")
    );
    assert!(!cooling["until"].is_null());
    let runs = || {
        fs::read_to_string(bed.path("runs"))
            .expect("runs")
            .lines()
            .count()
    };
    assert_eq!(runs(), 4, "the first, and three restarts");
    // It stays so whatever becomes of the daemon.
    bed.kill();
    bed.restart();
    let still = until(&bed, "loop", "cooling_off");
    assert_eq!(still["until"], cooling["until"]);
    let runs = || {
        fs::read_to_string(bed.path("runs"))
            .expect("runs")
            .lines()
            .count()
    };
    assert_eq!(runs(), 4);
    change(&bed, "loop", "start");
    bed.until("it is tried again", |_| runs() > 4);
}

#[test]
fn exit_codes_and_rules_say_whether_it_is_started_again() {
    let bed = Bed::start(&[]);
    for (name, restart, codes, exit, phase) in [
        ("done", "on-failure", json!([]), 0, "completed"),
        ("told", "always", json!([3]), 3, "failed"),
        ("once", "no", json!([]), 1, "failed"),
        ("good", "no", json!([]), 0, "completed"),
    ] {
        let asked = json!({
            "name": name, "restart": restart, "no_restart_on": codes, "backoff": "1ms",
            "task": { "command": ["sh", "-c", format!("exit {exit}")] },
        });
        add(&bed, &asked);
        let over = until(&bed, name, phase);
        assert_eq!(over["restarts"], 0, "{name}: {over}");
        assert_eq!(over["wanted"], false, "{name}: {over}");
    }
}

#[test]
fn no_agent_notices_that_the_daemon_was_killed() {
    let mut bed = Bed::start(&[]);
    for name in ["a", "b", "c"] {
        let asked = json!({ "name": name, "task": { "command": ["sleep", "600"] } });
        add(&bed, &asked);
    }
    let before: Vec<_> = ["a", "b", "c"]
        .map(|name| until(&bed, name, "healthy"))
        .into();
    let pids: Vec<_> = before.iter().map(|one| pid(&bed, one)).collect();
    for _ in 0..5 {
        bed.kill();
        bed.restart();
    }
    bed.until("the runner is there", |bed| {
        bed.get("/v1/status").expect("status").1["runner"].is_object()
    });
    for (name, (before, pid)) in ["a", "b", "c"].iter().zip(before.iter().zip(pids)) {
        let after = until(&bed, name, "healthy");
        assert_eq!(after["task"], before["task"]);
        assert_eq!(after["restarts"], 0);
        kill(pid, None).expect("the same process");
    }
}

#[test]
fn an_agent_waits_for_those_before_it_and_says_so() {
    let bed = Bed::start(&[]);
    let ready = "until test -e go; do sleep 0.01; done; \
                 python3 -c \"import os,socket; s=socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
                 s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\"; exec sleep 600";
    let web = json!({ "name": "web", "after": ["db"], "task": { "command": ["sleep", "600"] } });
    add(&bed, &web);
    let waiting = until(&bed, "web", "waiting");
    assert_eq!(waiting["why"], "there is no agent db");
    let db = json!({
        "name": "db", "notify": true,
        "task": { "command": ["sh", "-c", ready], "cwd": bed.dir.path() },
    });
    add(&bed, &db);
    until(&bed, "db", "starting");
    assert_eq!(until(&bed, "web", "waiting")["why"], "agent db is not up");
    fs::write(bed.path("go"), "").expect("write");
    until(&bed, "db", "healthy");
    until(&bed, "web", "healthy");
    // Nobody waits for itself, however long the way.
    let mut db = db;
    db["after"] = json!(["web"]);
    db["replace"] = json!(true);
    let (status, said) = bed.post("/v1/agents", &db).expect("ask");
    assert_eq!(
        (status, &said["code"]),
        (409, &json!("agent_loop")),
        "{said}"
    );
}

#[test]
fn one_that_is_silent_or_never_up_is_ended_and_started_again() {
    let bed = Bed::start(&[]);
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    let asked = json!({
        "name": "hung", "backoff": "10ms",
        "task": { "command": ["sh", "-c", stubborn], "heartbeat": "1s", "grace": "200ms" },
    });
    add(&bed, &asked);
    let asked = json!({
        "name": "never", "backoff": "10ms", "notify": true, "start_timeout": "300ms",
        "task": { "command": ["sleep", "600"] },
    });
    add(&bed, &asked);
    for name in ["hung", "never"] {
        bed.until(&format!("{name} is started again"), |bed| {
            one(&show(bed, name))["restarts"].as_i64() >= Some(1)
        });
        let agent = show(&bed, name);
        assert_eq!(one(&agent)["outcome"]["class"], "timeout", "{agent}");
    }
}

/// A server that answers with a status that can be changed by a file.
fn page(dir: &std::path::Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let bad = dir.join("bad");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut buffer = [0; 512];
            let _read = stream.read(&mut buffer);
            let status = if bad.exists() { "500 No" } else { "200 OK" };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    port
}

#[test]
fn probes_say_when_it_is_up_and_when_it_is_not_well() {
    let bed = Bed::start(&[]);
    let port = page(bed.dir.path());
    let http = format!("http://127.0.0.1:{port}/");
    let tcp = format!("127.0.0.1:{port}");
    let check = ["sh", "-c", "test ! -e bad"];
    let beat = "while :; do test -e bad || : > beat; sleep 0.02; done";
    for (name, probe, line) in [
        ("http", json!({ "http": http }), "exec sleep 600"),
        ("command", json!({ "command": check }), "exec sleep 600"),
        ("file", json!({ "file": bed.path("beat") }), beat),
    ] {
        let mut probe = probe;
        probe["interval"] = json!("200ms");
        probe["timeout"] = json!("1s");
        probe["threshold"] = json!(2);
        let asked = json!({
            "name": name, "backoff": "10ms", "probe": probe,
            "task": { "command": ["sh", "-c", line], "cwd": bed.dir.path() },
        });
        add(&bed, &asked);
        let up = until(&bed, name, "healthy");
        fs::write(bed.path("bad"), "").expect("write");
        bed.until(&format!("{name} is started again"), |bed| {
            one(&show(bed, name))["restarts"].as_i64() >= Some(1)
        });
        fs::remove_file(bed.path("bad")).expect("remove");
        bed.until(&format!("{name} is up again"), |bed| {
            let agent = show(bed, name);
            one(&agent)["phase"] == "healthy" && one(&agent)["task"] != up["task"]
        });
        change(&bed, name, "stop");
        until(&bed, name, "stopped");
    }
    let asked = json!({
        "name": "tcp", "probe": { "tcp": tcp, "interval": "200ms" },
        "task": { "command": ["sleep", "600"] },
    });
    add(&bed, &asked);
    until(&bed, "tcp", "healthy");
}

#[test]
fn one_that_does_nothing_is_idle_and_one_that_uses_cpu_is_not() {
    let bed = Bed::start(&[]);
    let line = "while ! test -e work; do sleep 0.2; done; while :; do :; done";
    for (name, command) in [
        ("quiet", json!(["sleep", "600"])),
        ("busy", json!(["sh", "-c", "while :; do :; done"])),
        (
            "loud",
            json!(["sh", "-c", "while echo still here; do sleep 0.3; done"]),
        ),
        ("late", json!(["sh", "-c", line])),
    ] {
        let asked = json!({
            "name": name, "idle_after": "2s", "task": { "command": command, "cwd": bed.dir.path() },
        });
        add(&bed, &asked);
    }
    until(&bed, "quiet", "idle");
    until(&bed, "late", "idle");
    for name in ["busy", "loud"] {
        assert_eq!(one(&show(&bed, name))["phase"], "healthy", "{name}");
    }
    fs::write(bed.path("work"), "").expect("write");
    until(&bed, "late", "healthy");
    assert_eq!(one(&show(&bed, "quiet"))["phase"], "idle");
}

#[test]
fn what_an_agent_leaves_behind_is_put_right_after_each_end_and_before_the_next_run() {
    let bed = Bed::start(&[]);
    let run = "test ! -e lock || echo overlap >> wrong; : > lock; exec sleep 600";
    let asked = json!({
        "name": "lock", "backoff": "1ms", "on_stop": ["sh", "-c", "sleep 0.1; rm lock; echo done >> cleaned"],
        "task": { "command": ["sh", "-c", run], "cwd": bed.dir.path() },
    });
    add(&bed, &asked);
    for round in 1..=3 {
        let up = until(&bed, "lock", "healthy");
        bed.until("it is locked", |bed| bed.path("lock").exists());
        kill(pid(&bed, &up), Signal::SIGKILL).expect("kill");
        bed.until("it is cleaned up", |bed| {
            let done = fs::read_to_string(bed.path("cleaned")).unwrap_or_default();
            done.lines().count() == round
        });
    }
    until(&bed, "lock", "healthy");
    change(&bed, "lock", "stop");
    until(&bed, "lock", "stopped");
    assert!(!bed.path("lock").exists());
    assert!(
        !bed.path("wrong").exists(),
        "no run began beside a clean-up"
    );
}

#[test]
fn instances_are_many_of_one_and_follow_the_number() {
    let bed = Bed::start(&[("ENGINE__SLOTS", "1")]);
    let mut asked = json!({
        "name": "many", "instances": 5, "replace": true,
        "task": { "command": ["sh", "-c", "echo $TASKDAEMON_INSTANCE; exec sleep 600"] },
    });
    add(&bed, &asked);
    let count = |phase: &str| {
        let agent = show(&bed, "many");
        let all = agent["instances"].as_array().expect("instances").clone();
        (
            all.len(),
            all.iter().filter(|one| one["phase"] == phase).count(),
        )
    };
    bed.until("five run", |_| count("healthy") == (5, 5));
    // They take no slots: a task runs beside them.
    let task = bed.submit(&json!({ "command": ["true"] }));
    assert_eq!(bed.wait(task)["state"], "succeeded");
    let first = one(&show(&bed, "many"))["task"].clone();
    asked["instances"] = json!(2);
    add(&bed, &asked);
    bed.until("two run", |_| count("healthy") == (2, 2));
    assert_eq!(
        one(&show(&bed, "many"))["task"],
        first,
        "those that stay are left alone"
    );
    // Down and up again before those that are too many have stopped.
    for number in [5, 2, 5] {
        asked["instances"] = json!(number);
        add(&bed, &asked);
    }
    bed.until("five run again", |_| count("healthy") == (5, 5));
    asked["instances"] = json!(2);
    add(&bed, &asked);
    bed.until("two run again", |_| count("healthy") == (2, 2));
    asked["task"]["env"] = json!({ "NEW": "1" });
    add(&bed, &asked);
    bed.until("they run anew", |_| {
        count("healthy") == (2, 2) && one(&show(&bed, "many"))["task"] != first
    });
    let second = show(&bed, "many")["instances"][1]["task"]
        .as_i64()
        .expect("a task");
    bed.until("it has written", |bed| bed.output(second) == b"2\n");
}

#[test]
fn bad_agents_are_refused_with_the_field_and_change_nothing() {
    let bed = Bed::start(&[]);
    let task = json!({ "command": ["true"] });
    for (asked, word) in [
        (json!({ "name": "7", "task": task }), "name"),
        (json!({ "name": "a" }), "task"),
        (json!({ "name": "a", "task": { "command": [] } }), "command"),
        (
            json!({ "name": "a", "task": task, "instances": 0 }),
            "instances",
        ),
        (
            json!({ "name": "a", "task": task, "after": ["a"] }),
            "after",
        ),
        (json!({ "name": "a", "task": task, "probe": {} }), "probe"),
        (
            json!({ "name": "a", "task": task, "probe": { "tcp": "x", "http": "y" } }),
            "probe",
        ),
        (
            json!({ "name": "a", "task": task, "probe": { "tcp": "x" } }),
            "HOST:PORT",
        ),
        (
            json!({ "name": "a", "task": task, "backoff": "2m" }),
            "backoff",
        ),
        (
            json!({ "name": "a", "task": task, "on_stop_timeout": "1s" }),
            "on_stop",
        ),
        (
            json!({ "name": "a", "task": { "command": ["true"], "queue": "q" } }),
            "task.queue",
        ),
        (
            json!({ "name": "a", "task": { "command": ["true"], "timeout": "1s" } }),
            "task.timeout",
        ),
        (
            json!({ "name": "a", "task": { "prompt": { "text": "x" } } }),
            "task",
        ),
        (
            json!({ "name": "a", "task": task, "restrat": "no" }),
            "restrat",
        ),
    ] {
        let (status, said) = bed.post("/v1/agents", &asked).expect("ask");
        assert!([400, 422].contains(&status), "{asked}: {status} {said}");
        assert!(
            said["detail"].as_str().expect("detail").contains(word),
            "{asked}: {said}"
        );
    }
    assert_eq!(bed.get("/v1/agents").expect("list").1["agents"], json!([]));
    let (status, said) = bed
        .post(
            "/v1/tasks",
            &json!({ "command": ["true"], "queue": "agents" }),
        )
        .expect("ask");
    assert_eq!(status, 400, "{said}");
}

#[test]
fn a_file_of_agents_is_applied_and_shows_the_difference_first() {
    let bed = Bed::start(&[]);
    let file = bed.path("agents.toml");
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
            .args(arguments)
            .env("TASKDAEMON_HOST", bed.socket())
            .output()
            .expect("run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        (output.status.code().expect("a code"), said)
    };
    let path = file.display().to_string();
    let two = "[[agent]]\nname = \"a\"\ntask = { command = [\"sleep\", \"600\"] }\n\
               [[agent]]\nname = \"b\"\nafter = [\"a\"]\ntask = { command = [\"sleep\", \"600\"] }\n";
    fs::write(&file, two).expect("write");
    let (code, said) = run(&["agent", "apply", &path]);
    assert_eq!((code, said.as_str()), (0, "+ a\n+ b\n"));
    until(&bed, "b", "healthy");
    let (code, said) = run(&["agent", "apply", &path]);
    assert_eq!((code, said.as_str()), (0, "2 unchanged\n"));
    let one =
        "[[agent]]\nname = \"a\"\nmax_restarts = 9\ntask = { command = [\"sleep\", \"600\"] }\n";
    fs::write(&file, one).expect("write");
    let (code, said) = run(&["agent", "apply", "--prune", "--dry-run", &path]);
    assert_eq!(
        (code, said.as_str()),
        (0, "~ a\n    max_restarts: 5 -> 9\n- b\n")
    );
    assert_eq!(show(&bed, "a")["plan"]["max_restarts"], 5);
    assert_eq!(run(&["agent", "apply", "--prune", &path]).0, 0);
    assert_eq!(show(&bed, "a")["plan"]["max_restarts"], 9);
    bed.until("b is gone", |bed| {
        bed.get("/v1/agents/b").expect("ask").0 == 404
    });
    fs::write(&file, "[[agent]]\nname = \"a\"\nrestrat = \"no\"\n").expect("write");
    let (code, said) = run(&["agent", "apply", &path]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("agents.toml:3") && said.contains("restrat"),
        "{said}"
    );

    let (code, said) = run(&[
        "agent",
        "add",
        "c",
        "--backoff",
        "1s..2s",
        "--",
        "sleep",
        "600",
    ]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(&["agent", "stop", "c", "a"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("agent c: stopped") && said.contains("agent a: stopped"),
        "{said}"
    );
    let (_, said) = run(&["status"]);
    assert!(said.contains("agents  2: 2 stopped\n"), "{said}");
    let (_, said) = run(&["agent", "list"]);
    assert!(said.contains("stopped"), "{said}");
    assert_eq!(run(&["agent", "show", "c"]).0, 0);
    assert_eq!(run(&["agent", "show", "d"]).0, 3);
    assert_eq!(run(&["agent", "remove", "c"]).1, "agent c removed\n");
}

#[test]
fn a_hook_of_an_agent_is_told_where_it_stands_and_nothing_else() {
    let bed = Bed::start(&[]);
    let told = bed.dir.path().join("told");
    let script = format!(
        "echo $TASKDAEMON_HOOK_AGENT $TASKDAEMON_HOOK_PHASE $TASKDAEMON_HOOK_CLASS $TASKDAEMON_HOOK_EXIT_CODE >> {0}; \
         cat >> {0}",
        told.display()
    );
    let asked = json!({
        "name": "loop", "backoff": "1ms", "max_restarts": 2, "cool_off": "10m",
        "hooks": [{ "command": ["sh", "-c", script] }],
        "task": { "command": ["sh", "-c", "exit 7"] },
    });
    add(&bed, &asked);
    until(&bed, "loop", "cooling_off");
    let mut text = String::new();
    bed.until("it is told", |_| {
        text = fs::read_to_string(&told).unwrap_or_default();
        text.ends_with('}')
    });
    let (line, body) = text.split_once('\n').expect("two lines");
    assert_eq!(line, "loop cooling_off exit 7");
    let body: Value = serde_json::from_str(body).expect("one change, in JSON");
    let facts = (
        &body["event"],
        &body["restarts"],
        &body["outcome"]["exit_code"],
    );
    assert_eq!(facts, (&json!("agent.cooling_off"), &json!(3), &json!(7)));
    let (_, list) = bed.get("/v1/tasks?queue=hooks").expect("hooks");
    let tasks = list["tasks"].as_array().expect("a list");
    assert_eq!(
        tasks.len(),
        1,
        "the starts and ends before were not asked for: {list}"
    );
    for (hooks, field) in [
        (json!([{ "on": ["asleep"], "command": ["x"] }]), ""),
        (json!([{ "on": [], "command": ["x"] }]), "hooks.on"),
        (
            json!([{ "command": ["x"], "webhook": "http://x" }]),
            "hooks",
        ),
        (json!([{ "webhook": "ftp://x" }]), "hooks.webhook"),
    ] {
        let asked = json!({ "name": "bad", "hooks": hooks, "task": { "command": ["true"] } });
        let (status, said) = bed.post("/v1/agents", &asked).expect("ask");
        assert_eq!(status, 400, "{hooks}: {said}");
        assert_eq!(
            said["field"].as_str().unwrap_or_default(),
            field,
            "{hooks}: {said}"
        );
    }
    assert_eq!(bed.get("/v1/agents/bad").expect("ask").0, 404);
}

#[test]
fn a_port_that_is_closed_is_told_as_a_port() {
    let bed = Bed::start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let at = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let probe = json!({ "tcp": at, "interval": "100ms" });
    let asked = json!({ "name": "web", "probe": probe, "task": { "command": ["sleep", "600"] } });
    add(&bed, &asked);
    let mut said = String::new();
    bed.until("a look has failed", |bed| {
        let agent = show(bed, "web");
        said = one(&agent)["status"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        !said.is_empty()
    });
    assert!(said.contains(&at) && !said.contains("http"), "{said}");
}

#[test]
fn what_the_run_of_an_agent_takes_is_shown_and_measured() {
    let bed = Bed::start(&[]);
    let script = "while :; do :; done";
    add(
        &bed,
        &json!({ "name": "busy", "task": { "command": ["sh", "-c", script] } }),
    );
    until(&bed, "busy", "healthy");
    bed.until("it has used CPU", |bed| {
        let agent = show(bed, "busy");
        let one = one(&agent);
        one["cpu_seconds"].as_f64().is_some_and(|cpu| cpu > 0.1)
            && one["memory_bytes"]
                .as_u64()
                .is_some_and(|size| size > 100_000)
            && one["pid"].as_u64().is_some()
    });
    let (_, page) = bed.get("/metrics").expect("page");
    let value = |name: &str| {
        let owner = nix::unistd::getuid();
        let row = format!("taskdaemon_{name}{{agent=\"busy\",owner=\"{owner}\"}} ");
        let mut lines = page.as_str().expect("text").lines();
        let found = lines
            .find_map(|line| line.strip_prefix(&row))
            .expect("a row");
        found.parse::<f64>().expect("a number")
    };
    assert!(value("agent_cpu_seconds") > 0.1);
    assert!(value("agent_memory_bytes") > 100_000.0);
    change(&bed, "busy", "stop");
    let stopped = until(&bed, "busy", "stopped");
    assert_eq!(
        (&stopped["pid"], &stopped["memory_bytes"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn cancelling_everything_leaves_agents_alone_unless_their_queue_is_named() {
    let bed = Bed::start(&[]);
    add(
        &bed,
        &json!({ "name": "web", "task": { "command": ["sleep", "600"] } }),
    );
    let before = until(&bed, "web", "healthy");
    let other = bed.submit(&json!({ "command": ["sleep", "600"] }));
    let (status, told) = bed
        .post("/v1/tasks/cancel", &json!({ "all": true }))
        .expect("cancel");
    assert_eq!(
        (status, &told["changed"], &told["refused"]),
        (200, &json!(1), &json!(1)),
        "{told}"
    );
    assert_eq!(bed.wait(other)["state"], "cancelled");
    assert_eq!(one(&show(&bed, "web"))["task"], before["task"]);
    let (_, told) = bed
        .post("/v1/tasks/cancel", &json!({ "queue": "agents" }))
        .expect("cancel");
    assert_eq!(told["changed"], 1, "{told}");
    bed.until("it runs anew", |bed| {
        let agent = show(bed, "web");
        one(&agent)["task"] != before["task"] && one(&agent)["phase"] == "healthy"
    });
}

#[test]
fn the_queue_of_agents_takes_no_limits_that_it_would_not_keep() {
    let bed = Bed::start(&[]);
    let set = json!({ "concurrency": 1 });
    let (status, said) =
        request(&bed.socket(), "PATCH", "/v1/queues/agents", Some(&set)).expect("set");
    assert_eq!(status, 400, "{said}");
    assert!(
        said["detail"]
            .as_str()
            .is_some_and(|why| why.contains("paused")),
        "{said}"
    );
    add(
        &bed,
        &json!({ "name": "web", "task": { "command": ["sleep", "600"] } }),
    );
    until(&bed, "web", "healthy");
    let (status, _) = bed
        .post("/v1/queues/agents/drain", &Value::Null)
        .expect("drain");
    assert_eq!(status, 400);
    let (status, _) = bed
        .post("/v1/queues/agents/pause", &Value::Null)
        .expect("pause");
    assert_eq!(status, 200);
}
