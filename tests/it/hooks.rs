//! Hooks in the engine: each end of a task has its hooks once, in the same transaction, and hooks have none.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use taskdaemon::engine::command::{Caller, Command};
use taskdaemon::engine::hooks::{Ask, Hooks};
use taskdaemon::engine::options::Options;
use taskdaemon::engine::runner::{Abilities, RunnerUp};
use taskdaemon::engine::{Engine, Turned};
use taskdaemon::model::attempt::{Ended, Exit, Usage};
use taskdaemon::model::filter::Filter;
use taskdaemon::model::hook::{Act, End, Ends, Hook, Secret};
use taskdaemon::model::id::TaskId;
use taskdaemon::model::spec::NewTask;
use taskdaemon::model::task::{State, Task};
use taskdaemon::model::time::Time;
use taskdaemon::store::Store as _;
use taskdaemon::store::sqlite::Sqlite;
use tokio::sync::oneshot;

use crate::store::{new_task, options};

const CALLER: Caller = Caller {
    uid: 1000,
    admin: false,
    origin: taskdaemon::model::origin::Origin::NONE,
};
const SECRET: &str = "a-secret-that-nobody-may-see";

fn database(dir: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.join("taskdaemon.db")).expect("open")
}

fn command(words: &str, on: &[End]) -> Hook {
    Hook {
        on: Ends(on.to_vec()),
        act: Act::Command(words.split(' ').map(str::to_owned).collect()),
    }
}

fn webhook(url: &str) -> Hook {
    Hook {
        on: Ends::default(),
        act: Act::Webhook(url.to_owned()),
    }
}

struct Bed {
    dir: tempfile::TempDir,
    engine: Engine<Sqlite>,
    now: Time,
}

fn open(dir: &Path, now: Time, hooks: Hooks) -> Engine<Sqlite> {
    let store = Sqlite::open(dir, &options()).expect("open");
    let mut engine = Engine::new(store, Options::default(), "boot".to_owned());
    engine.set_hooks(hooks);
    engine.recover(now).expect("recover");
    engine
}

impl Bed {
    fn new(hooks: Hooks) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("directory");
        let now = Time::from_micros(1_700_000_000_000_000);
        let engine = open(dir.path(), now, hooks);
        let mut bed = Self { dir, engine, now };
        bed.connect();
        bed
    }

    fn connect(&mut self) -> Turned {
        let held = self.live();
        self.turn(vec![Command::RunnerUp(RunnerUp {
            instance: "runner".to_owned(),
            boot: "boot".to_owned(),
            version: "1".to_owned(),
            pid: 1,
            abilities: Abilities::default(),
            policy: None,
            held,
        })])
    }

    fn live(&mut self) -> Vec<taskdaemon::model::attempt::AttemptKey> {
        let live = self.engine.store().live().expect("read");
        live.iter().map(|attempt| attempt.key).collect()
    }

    fn turn(&mut self, commands: Vec<Command>) -> Turned {
        self.engine.turn(commands, self.now).expect("turn")
    }

    fn submit(&mut self, new: NewTask) -> TaskId {
        let (reply, mut answer) = oneshot::channel();
        self.turn(vec![Command::Submit {
            tasks: vec![new],
            reply,
        }]);
        answer.try_recv().expect("an answer").expect("accepted")[0].id
    }

    fn end(&mut self, id: TaskId, code: i32) {
        let command = self.ended(id, code);
        self.turn(vec![command]);
    }

    fn ended(&mut self, id: TaskId, code: i32) -> Command {
        let key = self.task(id).attempt_key();
        Command::Ended {
            key,
            started: None,
            ended: Ended {
                exit: Exit::Code { code },
                oom: false,
                interrupted: false,
                unrecorded: false,
                at: self.now,
                usage: Usage::default(),
                receipt: None,
            },
        }
    }

    fn cancel(&mut self, id: TaskId) {
        let (reply, mut answer) = oneshot::channel();
        let caller = CALLER;
        self.turn(vec![Command::Cancel { caller, id, reply }]);
        answer.try_recv().expect("an answer").expect("cancelled");
    }

    fn retry(&mut self, id: TaskId) {
        let (reply, mut answer) = oneshot::channel();
        let caller = CALLER;
        self.turn(vec![Command::Retry { caller, id, reply }]);
        answer.try_recv().expect("an answer").expect("retried");
    }

    fn set_of_queue(&mut self, queue: &str, hooks: Vec<Hook>) {
        let (reply, mut answer) = oneshot::channel();
        let queue = queue.to_owned();
        self.turn(vec![Command::Hook(Ask::SetOfQueue {
            actor: 0,
            queue,
            hooks,
            reply,
        })]);
        answer.try_recv().expect("an answer").expect("kept");
    }

    fn task(&mut self, id: TaskId) -> Task {
        let task = self.engine.store().task(id).expect("read");
        task.expect("a task")
    }

    fn hooks_of(&mut self, id: TaskId) -> Vec<Task> {
        let filter = Filter {
            limit: u32::MAX,
            ..Filter::default()
        };
        let mut all = self.engine.store().list(&filter).expect("read");
        all.retain(|task| task.spec.hook_of == Some(id));
        all.sort_by_key(|task| task.id);
        all
    }

    fn input(&mut self, id: TaskId) -> Value {
        let input = self.engine.store().input(id).expect("read");
        serde_json::from_slice(&input.expect("input")).expect("json")
    }
}

fn with_hooks(hooks: Vec<Hook>) -> NewTask {
    let mut new = new_task("true");
    new.spec.hooks = hooks;
    new
}

#[test]
fn a_hook_is_a_task_of_the_same_owner_that_says_what_ended() {
    let mut bed = Bed::new(Hooks::default());
    let mut new = with_hooks(vec![command("notify --loudly", &[])]);
    new.name = Some("nightly".to_owned());
    new.owner = 1234;
    new.spec.user = Some("www".to_owned());
    new.labels.insert("team".to_owned(), "a".to_owned());
    let id = bed.submit(new);
    assert_eq!(bed.hooks_of(id), [], "it is not over");
    bed.end(id, 3);
    let hooks = bed.hooks_of(id);
    assert_eq!(hooks.len(), 1);
    let hook = &hooks[0];
    assert_eq!((hook.owner, hook.queue.as_str()), (1234, "hooks"));
    assert_eq!(hook.name, Some(format!("hook of task {id}")));
    assert_eq!(hook.labels["hook-of"], id.to_string());
    assert_eq!(hook.spec.argv, ["notify", "--loudly"]);
    assert_eq!(hook.spec.user.as_deref(), Some("www"));
    assert_eq!(hook.spec.retry.max_attempts, 5);
    let env: Vec<_> = hook
        .spec
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let expected = [
        "CLASS=exit".to_owned(),
        "EXIT_CODE=3".to_owned(),
        "NAME=nightly".to_owned(),
        "QUEUE=default".to_owned(),
        "STATE=failed".to_owned(),
        format!("TASK={id}"),
    ];
    assert_eq!(env, expected.map(|one| format!("TASKDAEMON_HOOK_{one}")));
    let told = bed.input(hook.id);
    assert_eq!(told["id"], id.0);
    assert_eq!(told["state"], "failed");
    assert_eq!(told["event"], "task.failed");
    assert_eq!(told["hook"], "task");
    assert_eq!(told["outcome"]["class"], "exit");
    assert_eq!(told["outcome"]["exit_code"], 3);
    assert_eq!(told["attempt"], 1);
    assert_eq!(told["labels"]["team"], "a");
    assert_eq!(told["owner"], 1234);
    assert_eq!(told["ended_at"], "2023-11-14T22:13:20.000000Z");
}

#[test]
fn only_the_ends_that_a_hook_names_make_it_happen() {
    let mut bed = Bed::new(Hooks::default());
    let hooks = || {
        vec![
            command("all", &[]),
            command("good", &[End::Succeeded]),
            command("bad", &[End::Failed, End::Expired]),
            command("gone", &[End::Cancelled]),
        ]
    };
    let good = bed.submit(with_hooks(hooks()));
    let bad = bed.submit(with_hooks(hooks()));
    let mut waiting = with_hooks(hooks());
    waiting.run_at = Some(bed.now.after(Duration::from_secs(60)));
    let gone = bed.submit(waiting.clone());
    waiting.deadline = Some(bed.now.after(Duration::from_secs(30)));
    let late = bed.submit(waiting);
    bed.end(good, 0);
    bed.end(bad, 1);
    bed.cancel(gone);
    bed.now = bed.now.after(Duration::from_secs(31));
    bed.turn(vec![]);
    assert_eq!(bed.task(late).state, State::Expired);
    for (id, expected) in [
        (good, ["all", "good"]),
        (bad, ["all", "bad"]),
        (gone, ["all", "gone"]),
        (late, ["all", "bad"]),
    ] {
        let hooks = bed.hooks_of(id);
        let made: Vec<_> = hooks
            .iter()
            .map(|hook| hook.spec.argv[0].as_str())
            .collect();
        assert_eq!(made, expected, "{id}");
    }
}

#[test]
fn an_attempt_that_is_tried_again_is_no_end_and_an_explicit_retry_ends_anew() {
    let mut bed = Bed::new(Hooks::default());
    let mut new = with_hooks(vec![command("notify", &[])]);
    new.spec.retry.max_attempts = 2;
    let id = bed.submit(new);
    bed.end(id, 1);
    assert_eq!(bed.task(id).state, State::Scheduled);
    assert_eq!(bed.hooks_of(id).len(), 0);
    bed.now = bed.now.after(Duration::from_secs(60));
    bed.turn(vec![]);
    bed.end(id, 1);
    assert_eq!(bed.task(id).state, State::Failed);
    assert_eq!(bed.hooks_of(id).len(), 1);
    // The same report again, as after a lost acknowledgement.
    bed.end(id, 1);
    assert_eq!(bed.hooks_of(id).len(), 1, "an end is one");
    bed.retry(id);
    bed.end(id, 0);
    assert_eq!(bed.task(id).state, State::Succeeded);
    let hooks = bed.hooks_of(id);
    let states: Vec<_> = hooks
        .iter()
        .map(|hook| hook.spec.env["TASKDAEMON_HOOK_STATE"].as_str())
        .collect();
    assert_eq!(states, ["failed", "succeeded"]);
}

#[test]
fn hooks_of_task_queue_and_host_all_happen_and_have_no_hooks() {
    let mut bed = Bed::new(Hooks {
        host: vec![command("host", &[])],
        ..Hooks::default()
    });
    bed.set_of_queue("default", vec![command("queue", &[])]);
    // Even one for the queue of hooks makes no circle.
    bed.set_of_queue("hooks", vec![command("again", &[])]);
    let id = bed.submit(with_hooks(vec![command("task", &[])]));
    bed.end(id, 0);
    let hooks = bed.hooks_of(id);
    let made: Vec<_> = hooks
        .iter()
        .map(|hook| hook.spec.argv[0].as_str())
        .collect();
    assert_eq!(made, ["task", "queue", "host"]);
    for hook in &hooks {
        assert_eq!(bed.input(hook.id)["hook"], hook.spec.argv[0].as_str());
        assert_eq!(bed.task(hook.id).state, State::Running);
        bed.end(hook.id, 0);
        assert_eq!(bed.task(hook.id).state, State::Succeeded);
        assert_eq!(bed.hooks_of(hook.id), []);
    }
    bed.set_of_queue("default", vec![]);
    let id = bed.submit(new_task("true"));
    bed.end(id, 0);
    assert_eq!(bed.hooks_of(id).len(), 1, "the host's alone");
}

#[test]
fn a_task_ends_with_all_its_hooks_or_not_at_all() {
    let mut bed = Bed::new(Hooks::default());
    let hooks = vec![command("first", &[]), command("second", &[])];
    let id = bed.submit(with_hooks(hooks));
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON task \
         WHEN NEW.spec LIKE '%\"second\"%' BEGIN SELECT RAISE(ABORT, 'no'); END";
    let file = database(bed.dir.path());
    file.execute_batch(refuse).expect("a trigger");
    let end = bed.ended(id, 0);
    let failed = bed.engine.turn(vec![end], bed.now);
    assert!(failed.is_err(), "the second hook cannot be kept");
    let Bed { dir, engine, now } = bed;
    drop(engine);
    file.execute_batch("DROP TRIGGER refuse")
        .expect("no trigger");
    let engine = open(dir.path(), now, Hooks::default());
    let mut bed = Bed { dir, engine, now };
    assert_eq!(bed.task(id).state, State::Running, "neither");
    assert_eq!(bed.hooks_of(id), [], "neither");
    bed.connect();
    bed.end(id, 0);
    assert_eq!(bed.task(id).state, State::Succeeded, "both");
    assert_eq!(bed.hooks_of(id).len(), 2, "both");
}

#[test]
fn a_webhook_is_signed_and_the_secret_is_kept_nowhere() {
    let mut bed = Bed::new(Hooks {
        host: vec![webhook("https://example.org/a?b=c")],
        secret: Some(Secret::new(SECRET.as_bytes().to_vec())),
        program: "/usr/bin/taskdaemon".to_owned(),
    });
    let id = bed.submit(new_task("true"));
    bed.end(id, 0);
    bed.retry(id);
    bed.end(id, 0);
    let hooks = bed.hooks_of(id);
    let mut deliveries = Vec::new();
    for hook in &hooks {
        assert_eq!(hook.spec.argv, ["/usr/bin/taskdaemon", "deliver"]);
        assert!(hook.spec.env.is_empty());
        let order = bed.input(hook.id);
        assert_eq!(order["url"], "https://example.org/a?b=c");
        let body = order["body"].as_str().expect("text");
        let told: Value = serde_json::from_str(body).expect("json");
        assert_eq!(told["id"], id.0);
        let headers = &order["headers"];
        assert_eq!(headers["Taskdaemon-Event"], "task.succeeded");
        let signature = headers["Taskdaemon-Signature"].as_str().expect("text");
        assert!(signature.starts_with("t=1700000000,v1="), "{signature}");
        deliveries.push(headers["Taskdaemon-Delivery"].clone());
    }
    assert_eq!(deliveries.len(), 2);
    assert_ne!(deliveries[0], deliveries[1], "each end is its own");
    let Bed { dir, engine, .. } = bed;
    drop(engine);
    for entry in std::fs::read_dir(dir.path()).expect("files") {
        let bytes = std::fs::read(entry.expect("a file").path()).expect("readable");
        let found = bytes
            .windows(SECRET.len())
            .any(|part| part == SECRET.as_bytes());
        assert!(!found, "the secret is on disk");
    }
}

#[test]
fn without_a_secret_there_is_no_signature() {
    let mut bed = Bed::new(Hooks::default());
    let id = bed.submit(with_hooks(vec![webhook("http://127.0.0.1:1/")]));
    bed.end(id, 0);
    let hook = bed.hooks_of(id)[0].id;
    let order = bed.input(hook);
    assert_eq!(order["headers"]["Taskdaemon-Signature"], Value::Null);
    assert_eq!(order["headers"]["Content-Type"], "application/json");
}

#[test]
fn a_refused_webhook_is_not_tried_again_and_an_unanswered_one_five_times() {
    let mut bed = Bed::new(Hooks::default());
    let refused = bed.submit(with_hooks(vec![webhook("http://127.0.0.1:1/")]));
    bed.end(refused, 0);
    let hook = bed.hooks_of(refused)[0].id;
    bed.end(hook, 1);
    assert_eq!(bed.task(hook).state, State::Failed);
    assert_eq!(bed.task(hook).attempt, 1);
    let unanswered = bed.submit(with_hooks(vec![webhook("http://127.0.0.1:1/")]));
    bed.end(unanswered, 0);
    let hook = bed.hooks_of(unanswered)[0].id;
    for attempt in 1..=5 {
        let task = bed.task(hook);
        assert_eq!((task.state, task.attempt), (State::Running, attempt));
        bed.end(hook, 75);
        bed.now = bed.now.after(Duration::from_secs(601));
        bed.turn(vec![]);
    }
    let task = bed.task(hook);
    assert_eq!((task.state, task.attempt), (State::Failed, 5));
}

#[test]
fn receivers_that_never_answer_leave_slots_for_tasks() {
    let mut bed = Bed::new(Hooks {
        host: vec![webhook("http://127.0.0.1:1/")],
        ..Hooks::default()
    });
    for _ in 0..40 {
        let id = bed.submit(new_task("true"));
        assert_eq!(
            bed.task(id).state,
            State::Running,
            "there is a slot for {id}"
        );
        bed.end(id, 0);
    }
    let running = bed.engine.snapshot().count(State::Running);
    assert_eq!(running, 4, "as many as the queue of hooks may");
}
