//! What is killed without warning costs nothing that was promised: the daemon fifty times under load, the runner five
//! times under a task. What the tasks leave in files of their own is the judge of what ran.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bed::{Bed, parse, wait_until};
use crate::doors::{Connection, Door, Request};
use crate::on_both_releases;

on_both_releases!(
    nothing_acknowledged_is_lost_or_run_twice_over_fifty_kills,
    a_killed_runner_is_noticed_and_its_task_is_run_again
);

/// Asks until there is an answer, on a new connection each time the last one did not bear it.
struct Asker {
    door: Door,
    open: Option<Connection>,
}

impl Asker {
    fn new(door: &Door) -> Self {
        Self {
            door: door.clone(),
            open: None,
        }
    }

    /// The answer to a question; none when nobody answered or the daemon could not.
    fn ask(&mut self, request: Request<'_>) -> Option<Value> {
        let mut connection = match self.open.take() {
            Some(connection) => connection,
            None => self.door.connect().ok()?,
        };
        let answer = connection.ask(request).ok()?;
        if !answer.last {
            self.open = Some(connection);
        }
        if answer.status >= 500 {
            return None;
        }
        assert!(answer.status < 300, "{answer:?}");
        Some(parse(&answer.body))
    }

    /// The answer to a question that can be asked as often as it takes.
    fn sure(&mut self, path: &str) -> Value {
        wait_until(path, Duration::from_secs(30), || {
            self.ask(Request::get(path))
        })
    }
}

/// Submits one task after the other until told to stop; a submit without an answer is repeated with its key until there
/// is one. Returns the numbers of the tasks it was told, by key.
fn submit_on(
    door: &Door,
    client: u32,
    stop: &AtomicBool,
    answers: &AtomicU64,
) -> BTreeMap<String, u64> {
    let mut asker = Asker::new(door);
    let mut told = BTreeMap::new();
    for number in 0.. {
        let key = format!("{client}-{number}");
        let line = format!("echo $TASKDAEMON_TASK_ID $TASKDAEMON_ATTEMPT {key} >>/tmp/ran");
        let body = json!({ "command": ["sh", "-c", line] });
        let request = Request {
            method: "POST",
            path: "/v1/tasks",
            key: Some(&key),
            body: Some(&body),
        };
        let id = loop {
            if stop.load(Ordering::Relaxed) {
                return told;
            }
            if let Some(task) = asker.ask(request) {
                break task["id"].as_u64().expect("a number");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        told.insert(key, id);
        answers.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
    }
    told
}

/// Sets a flag when it goes out of scope.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kills the daemon and waits until another one serves.
fn kill_daemon(bed: &Bed, asker: &mut Asker) {
    let old = bed.main_pid("taskdaemon.service");
    bed.kill_main("taskdaemon.service");
    wait_until("another daemon runs", Duration::from_secs(30), || {
        let now = bed.main_pid("taskdaemon.service");
        (now != "0" && now != old).then_some(())
    });
    asker.sure("/v1/status");
}

const KILLS: u64 = 50;

fn nothing_acknowledged_is_lost_or_run_twice_over_fifty_kills(bed: &Bed) {
    let door = Door::unix(bed);
    let mut asker = Asker::new(&door);
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let told: BTreeMap<String, u64> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|client| {
                let (door, stop, answers) = (&door, &stop, &answers);
                scope.spawn(move || submit_on(door, client, stop, answers))
            })
            .collect();
        // Also when a check below fails: who waits for the clients waits for no more than that.
        let _stop = SetAtEnd(&stop);
        for kill in 0..KILLS {
            // Each daemon has time to be told something, however slow the machine is.
            wait_until("clients are answered", Duration::from_secs(30), || {
                (answers.load(Ordering::Relaxed) > kill * 12).then_some(())
            });
            // Not always at the same moment of its work.
            std::thread::sleep(Duration::from_millis(20 + kill * 7 % 90));
            kill_daemon(bed, &mut asker);
        }
        stop.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .flat_map(|client| client.join().expect("client"))
            .collect()
    });
    let restarts = bed.sh("systemctl show --property=NRestarts --value taskdaemon.service");
    assert_eq!(restarts, KILLS.to_string(), "each kill met a daemon");
    wait_until("nothing is unfinished", Duration::from_secs(60), || {
        let tasks = &asker.sure("/v1/status")["tasks"];
        let open = ["queued", "running", "scheduled", "stopping", "blocked"];
        open.iter().all(|state| tasks[*state] == 0).then_some(())
    });

    let lines = bed.sh("cat /tmp/ran");
    let mut ran = BTreeMap::new();
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [id, attempt, key] = words[..] else {
            panic!("half a line: {line:?}")
        };
        let before = ran.insert(key, id);
        assert_eq!(before, None, "ran twice: {line:?}");
        assert_eq!(attempt, "1", "{line:?}");
    }
    for (key, id) in &told {
        let id = id.to_string();
        assert_eq!(ran.get(key.as_str()), Some(&&*id), "acknowledged: {key}");
        let task = asker.sure(&format!("/v1/tasks/{id}"));
        assert_eq!(task["state"], "succeeded", "{task}");
        let attempts = task["attempts"].as_array().map(Vec::len);
        assert_eq!(attempts, Some(1), "{task}");
    }
    println!(
        "{} acknowledged, {} ran, {KILLS} kills",
        told.len(),
        ran.len()
    );
    assert!(told.len() > 500, "only {}: this was no load", told.len());
}

fn a_killed_runner_is_noticed_and_its_task_is_run_again(bed: &Bed) {
    let door = Door::unix(bed);
    let mut asker = Asker::new(&door);
    let mut noticed: Vec<Duration> = (0..5)
        .map(|number| kill_runner(bed, &mut asker, number))
        .collect();
    noticed.sort();
    let median = noticed[noticed.len() / 2];
    println!("noticed after {noticed:?}");
    assert!(
        median < Duration::from_secs(1),
        "noticed after {noticed:?}: the median is {median:?}"
    );
}

/// Kills the runner under a task, and returns how long it took until the task was known to be lost.
fn kill_runner(bed: &Bed, asker: &mut Asker, number: u32) -> Duration {
    // All processes of an attempt hold the lock: an attempt that finds it taken is not alone.
    let line = format!(
        "exec 9>/tmp/lock-{number}; flock -n 9 || echo doubled >>/tmp/lost-{number}
         echo $TASKDAEMON_ATTEMPT >>/tmp/lost-{number}; sleep 2 & sleep 2"
    );
    let id = bed.submit(&[], &line);
    let path = format!("/v1/tasks/{id}");
    let marks = || std::fs::read_to_string(bed.root().join(format!("tmp/lost-{number}")));
    wait_until("it runs", Duration::from_secs(10), || {
        marks().is_ok_and(|marks| marks == "1\n").then_some(())
    });
    let runner = bed.main_pid("taskdaemon-runner.service");
    let limit = Duration::from_secs(20);
    let killed = Instant::now();
    bed.ok(&["kill", "-KILL", &runner]);
    wait_until("it is lost", limit, || {
        (asker.sure(&path)["attempts"][0]["outcome"] == "lost").then_some(())
    });
    let lost = killed.elapsed();
    wait_until("it runs again", limit, || {
        marks().is_ok_and(|marks| marks != "1\n").then_some(())
    });
    println!(
        "lost after {lost:?}, ran again after {:?}",
        killed.elapsed()
    );
    let task = bed.ended(&id, limit);
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["attempts"][1]["number"], 2, "{task}");
    assert_eq!(task["attempts"][2], Value::Null, "{task}");
    let marks = marks().expect("marks");
    assert_eq!(marks, "1\n2\n", "one after the other, and alone");
    lost
}
