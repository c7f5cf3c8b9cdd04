//! Dependencies and unique keys over the API of a real daemon: what is refused,
//! what waits for what, what a failure means for those behind it.

use std::time::Duration;

use serde_json::{Value, json};
use taskdaemon::clock;
use taskdaemon::engine::Engine;
use taskdaemon::engine::command::{Caller, Command, Error, Submitted};
use taskdaemon::engine::graph::Ask;
use taskdaemon::engine::options::Options;
use taskdaemon::model::id::TaskId;
use taskdaemon::model::spec::{After, Conflict, NewTask, Parent, Unique, Wants};
use taskdaemon::model::time::Time;
use taskdaemon::store::sqlite::Sqlite;
use tokio::sync::oneshot;

use crate::bed::Bed;
use crate::store::{new_task, options};

/// A large graph is one transaction; a build for tests on a busy machine may
/// take this long for it.
const QUICK: Duration = Duration::from_secs(15);

fn post(bed: &Bed, body: &Value) -> (u16, Value) {
    bed.post("/v1/tasks", body).expect("submit")
}

/// Hands a list in and returns the numbers.
fn all(bed: &Bed, tasks: &Value) -> Vec<i64> {
    let (status, answer) = post(bed, &json!({ "tasks": tasks }));
    assert_eq!(status, 201, "{answer}");
    let list = answer["tasks"].as_array().expect("a list");
    list.iter()
        .map(|task| task["id"].as_i64().expect("id"))
        .collect()
}

fn show(bed: &Bed, id: i64) -> Value {
    bed.get(&format!("/v1/tasks/{id}")).expect("show").1
}

fn state(bed: &Bed, id: i64) -> String {
    show(bed, id)["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn ask(bed: &Bed, id: i64, verb: &str) -> (u16, Value) {
    let path = format!("/v1/tasks/{id}/{verb}");
    bed.post(&path, &Value::Null).expect("ask")
}

fn message(task: &Value) -> &str {
    task["outcome"]["message"].as_str().unwrap_or_default()
}

/// Tasks there are, which a refusal must not change.
fn count(bed: &Bed) -> u64 {
    let (_, status) = bed.get("/v1/status").expect("status");
    let tasks = status["tasks"].as_object().expect("counts");
    tasks.values().filter_map(Value::as_u64).sum()
}

/// A body, the field it is refused for, and words of the answer.
type Row = (Value, &'static str, &'static str);

fn refused(bed: &Bed, rows: Vec<Row>) {
    for (body, field, words) in rows {
        let before = count(bed);
        let (status, answer) = post(bed, &body);
        let shown: String = body.to_string().chars().take(120).collect();
        assert_eq!(status, 400, "{shown}: {answer}");
        assert_eq!(answer["field"], field, "{shown}: {answer}");
        let detail = answer["detail"].as_str().expect("a detail");
        assert!(detail.contains(words), "{shown}: {detail}");
        assert!(detail.len() < 400, "{shown}: {detail}");
        assert_eq!(count(bed), before, "{shown}: nothing is changed");
    }
}

fn task(more: &Value) -> Value {
    let mut task = json!({"command": ["true"]});
    let fields = more.as_object().expect("fields").clone();
    task.as_object_mut().expect("a task").extend(fields);
    task
}

#[test]
fn bi_20_impossible_graphs_are_refused_by_item_and_field() {
    let bed = Bed::start(&[]);
    let there = bed.submit(&json!({"command": ["true"]}));
    let none = there + 1000;
    let wide: Vec<_> = (1..=10_000).collect();
    let ring: Vec<_> = (0..100)
        .map(|n| task(&json!({"ref": format!("r{n}"), "after": [format!("r{}", (n + 1) % 100)]})))
        .collect();
    let list = |tasks: Vec<Value>| json!({ "tasks": tasks });
    refused(
        &bed,
        vec![
            (task(&json!({"after": [none]})), "after", "there is no task"),
            (
                task(&json!({"after": ["x"]})),
                "after",
                "no task of this request has the ref `x`",
            ),
            (task(&json!({"after": ["12:maybe"]})), "after", ":any"),
            (
                task(&json!({"after": [there, format!("{there}:any")]})),
                "after",
                "twice",
            ),
            (
                task(&json!({"ref": "me", "after": ["me"]})),
                "after",
                "itself",
            ),
            (task(&json!({"after": wide})), "after", "1000 are allowed"),
            (task(&json!({"ref": "12"})), "ref", "the first a letter"),
            (
                list(vec![task(&json!({})), task(&json!({"after": [none]}))]),
                "tasks[1].after",
                "there is no task",
            ),
            (
                list(vec![task(&json!({"ref": "a", "after": ["a"]}))]),
                "tasks[0].after",
                "itself",
            ),
            (
                list(vec![
                    task(&json!({"ref": "a", "after": ["b"]})),
                    task(&json!({"ref": "b", "after": ["a"]})),
                ]),
                "tasks[0].after",
                "tasks[0] after tasks[1] after tasks[0]",
            ),
            (list(ring), "tasks[0].after", "circle"),
            (
                list(vec![task(&json!({"ref": "a"})), task(&json!({"ref": "a"}))]),
                "tasks[1].ref",
                "tasks[0]",
            ),
        ],
    );
}

/// Found by the random histories: a task that waits for another one which its
/// unique key makes the same would wait for ever.
#[test]
fn tasks_that_are_one_by_their_unique_key_do_not_wait_for_themselves() {
    let bed = Bed::start(&[]);
    let unique = json!({"key": "u", "on_conflict": "return"});
    let two = json!({"tasks": [
        task(&json!({"ref": "a", "after": ["b"], "unique": unique})),
        task(&json!({"ref": "b", "unique": unique})),
    ]});
    refused(&bed, vec![(two, "tasks[0].after", "circle")]);
}

#[test]
fn bi_23_a_list_is_taken_whole_or_not_at_all() {
    let bed = Bed::start(&[]);
    let mut tasks = vec![json!({"command": ["true"]}); 100];
    tasks[57]["timeout"] = json!("0s");
    let many = vec![json!({"command": ["true"]}); 10_001];
    refused(
        &bed,
        vec![
            (json!({"tasks": []}), "tasks", "0 entries"),
            (json!({"tasks": many}), "tasks", "10001 entries"),
            (
                json!({"tasks": tasks}),
                "tasks[57].timeout",
                "longer than zero",
            ),
        ],
    );
}

#[test]
fn bi_18_idempotency_keys_that_cannot_be() {
    let bed = Bed::start(&[]);
    let long = "k".repeat(1 << 20);
    refused(
        &bed,
        vec![
            (task(&json!({"key": ""})), "key", "1 to 255"),
            (task(&json!({"key": long})), "key", "1 to 255"),
            (task(&json!({"unique": {"key": ""}})), "unique", "1 to 255"),
            (
                task(&json!({"unique": {"key": long}})),
                "unique",
                "1 to 255",
            ),
        ],
    );
    let (status, _) = post(&bed, &task(&json!({"key": "k"})));
    assert_eq!(status, 201);
    let (status, answer) = post(&bed, &task(&json!({"key": "k", "name": "other"})));
    assert_eq!((status, &answer["code"]), (409, &json!("key_reused")));
    // A repeated request gets its task, whatever has become of what it names.
    let body = task(&json!({"key": "l", "after": [1], "unique": {"key": "u"}}));
    let (status, first) = post(&bed, &body);
    assert_eq!(status, 201, "{first}");
    let (status, again) = post(&bed, &body);
    assert_eq!(
        (status, &again["id"], &again["created"]),
        (200, &first["id"], &json!(false))
    );
}

#[test]
fn bi_19_what_a_state_does_not_allow_is_a_conflict() {
    let bed = Bed::start(&[]);
    let over = bed.submit(&json!({"command": ["true"]}));
    bed.wait(over);
    let live = bed.submit(&json!({"command": ["sleep", "30"]}));
    let blocked = bed.submit(&json!({"command": ["true"], "after": [live]}));
    bed.until("it runs", |bed| state(bed, live) == "running");
    let rows = [
        (over, "cancel", 409, "already_over"),
        (over, "cancel?dependants=true", 409, "already_over"),
        (live, "retry", 409, "wrong_state"),
        (live, "retry?dependants=true", 409, "wrong_state"),
        (blocked, "retry", 409, "wrong_state"),
        (live, "cancel?dependants=1", 400, "invalid"),
        (live, "cancel?all=true", 400, "unknown_parameter"),
        (9_999, "cancel?dependants=true", 404, "task_not_found"),
        (9_999, "graph", 405, "method_not_allowed"),
    ];
    for (id, verb, status, code) in rows {
        let (answered, answer) = ask(&bed, id, verb);
        assert_eq!(
            (answered, &answer["code"]),
            (status, &json!(code)),
            "{verb}: {answer}"
        );
    }
    for round in 0..2 {
        let (status, answer) = ask(&bed, blocked, "cancel");
        assert_eq!(
            (status, &answer["state"]),
            (200, &json!("cancelled")),
            "{round}"
        );
        assert_eq!(ask(&bed, live, "cancel").0, 200, "{round}");
    }
    assert_eq!(bed.wait(live)["state"], "cancelled");
}

#[test]
fn a_task_waits_for_others_and_says_for_which() {
    let bed = Bed::start(&[]);
    let gate = bed.path("gate");
    let hold = format!("while ! test -e {}; do sleep 0.05; done", gate.display());
    let ids = all(
        &bed,
        &json!([
            // Members may be named before they come.
            {"ref": "last", "name": "last", "command": ["true"], "after": ["one", "two", "bad:any"]},
            {"ref": "one", "command": ["sh", "-c", hold]},
            {"ref": "two", "command": ["sh", "-c", hold]},
            {"ref": "bad", "command": ["false"]},
        ]),
    );
    bed.until("only two are waited for", |bed| {
        show(bed, ids[0])["reason"]
            .as_str()
            .is_some_and(|why| why == format!("waits for task {} (running) and 1 more", ids[1]))
    });
    let task = show(&bed, ids[0]);
    assert_eq!(
        (&task["state"], &task["reason_code"]),
        (&json!("blocked"), &json!("dependency"))
    );
    let after = json!([
        {"task": ids[1], "wants": "ok", "met": false, "state": "running"},
        {"task": ids[2], "wants": "ok", "met": false, "state": "running"},
        {"task": ids[3], "wants": "any", "met": true, "state": "failed"},
    ]);
    assert_eq!(task["after"], after);
    let one = show(&bed, ids[1]);
    assert_eq!(
        (&one["dependants"], &one["name"]),
        (&json!(1), &json!("one"))
    );
    let (_, listed) = bed.get("/v1/tasks?name=last").expect("list");
    assert_eq!(listed["tasks"][0]["reason"], task["reason"], "and in lists");
    let (status, graph) = bed
        .get(&format!("/v1/tasks/{}/graph", ids[3]))
        .expect("graph");
    assert_eq!(status, 200, "{graph}");
    assert_eq!(graph["nodes"].as_array().map(Vec::len), Some(4), "{graph}");
    assert_eq!(graph["edges"].as_array().map(Vec::len), Some(3), "{graph}");
    assert_eq!(graph["cut"], false);
    let (_, part) = bed
        .get(&format!("/v1/tasks/{}/graph?limit=2", ids[3]))
        .expect("graph");
    assert_eq!(
        (part["nodes"].as_array().map(Vec::len), &part["cut"]),
        (Some(2), &json!(true))
    );
    std::fs::write(&gate, "").expect("open the gate");
    assert_eq!(bed.wait(ids[0])["state"], "succeeded");
}

#[test]
fn a_failed_parent_skips_everyone_behind_it_with_the_reason() {
    let bed = Bed::start(&[]);
    let ids = all(
        &bed,
        &json!([
            {"ref": "a", "command": ["sh", "-c", "test -e fixed || exit 7"], "cwd": bed.dir.path()},
            {"ref": "b", "command": ["true"], "after": ["a"]},
            {"ref": "c", "command": ["true"], "after": ["b"]},
            {"ref": "d", "command": ["true"], "after": ["c:any"]},
        ]),
    );
    assert_eq!(bed.wait(ids[3])["state"], "succeeded", "any end will do");
    let (b, c) = (bed.wait(ids[1]), bed.wait(ids[2]));
    assert_eq!(
        (&b["state"], &c["state"]),
        (&json!("skipped"), &json!("skipped"))
    );
    assert_eq!(b["outcome"]["class"], "skipped");
    let cause = format!("task {} failed: exit code 7", ids[0]);
    assert_eq!(message(&b), cause);
    assert_eq!(
        message(&c),
        format!("task {} was skipped, since {cause}", ids[1])
    );
    // What already failed counts at once, and visibly.
    let late = bed.submit(&json!({"command": ["true"], "after": [ids[0]]}));
    assert_eq!(message(&bed.wait(late)), cause);
    let late = bed.submit(&json!({"command": ["true"], "after": [format!("{}:any", ids[0])]}));
    assert_eq!(bed.wait(late)["state"], "succeeded");

    let (status, answer) = ask(&bed, ids[1], "retry");
    assert_eq!(
        (status, &answer["code"]),
        (409, &json!("parent_failed")),
        "{answer}"
    );
    let hint = format!("retry --dependants {}", ids[0]);
    assert!(
        answer["detail"].as_str().expect("detail").contains(&hint),
        "{answer}"
    );
    std::fs::write(bed.path("fixed"), "").expect("fix it");
    let (status, answer) = ask(&bed, ids[0], "retry?dependants=true");
    assert_eq!(
        (status, &answer["dependants_changed"]),
        (200, &json!(3)),
        "{answer}"
    );
    for id in &ids[..3] {
        assert_eq!(bed.wait(*id)["state"], "succeeded");
    }
    assert_eq!(
        bed.wait(ids[3])["attempts"].as_array().map(Vec::len),
        Some(1),
        "not again"
    );
}

#[test]
fn a_subtree_is_cancelled_as_a_whole() {
    let bed = Bed::start(&[]);
    let ids = all(
        &bed,
        &json!([
            {"ref": "a", "command": ["sleep", "30"]},
            {"ref": "b", "command": ["true"], "after": ["a"]},
            {"ref": "c", "command": ["true"], "after": ["b:any", "a:any"]},
            {"ref": "other", "command": ["true"], "delay": "1h"},
        ]),
    );
    assert_eq!(
        ask(&bed, ids[0], "cancel?dependants=true").1["dependants_changed"],
        2
    );
    for id in &ids[..3] {
        assert_eq!(bed.wait(*id)["state"], "cancelled", "{id}");
    }
    assert_eq!(state(&bed, ids[3]), "scheduled");
    // Without it those behind are skipped.
    let ids = all(
        &bed,
        &json!([
            {"ref": "a", "command": ["true"], "delay": "1h"},
            {"command": ["true"], "after": ["a"]},
        ]),
    );
    ask(&bed, ids[0], "cancel");
    let child = bed.wait(ids[1]);
    assert_eq!(message(&child), format!("task {} was cancelled", ids[0]));
}

#[test]
fn ten_thousand_in_a_row_or_behind_one_stay_quick() {
    let bed = Bed::start(&[]);
    let chain: Vec<_> = (0..10_000)
        .map(|n| match n {
            0 => json!({"ref": "t0", "command": ["false"]}),
            _ => task(&json!({"ref": format!("t{n}"), "after": [format!("t{}", n - 1)]})),
        })
        .collect();
    let fan: Vec<_> = (0..10_000)
        .map(|n| match n {
            0 => json!({"ref": "t0", "command": ["false"]}),
            _ => task(&json!({"after": ["t0"]})),
        })
        .collect();
    for (shape, tasks) in [("chain", chain), ("fan", fan)] {
        let start = clock::instant();
        let ids = all(&bed, &json!(tasks));
        let accepted = start.elapsed();
        let last = bed.wait(ids[9_999]);
        let took = start.elapsed();
        println!("{shape}: accepted after {accepted:?}, all skipped after {took:?}");
        assert_eq!(last["state"], "skipped", "{last}");
        assert!(message(&last).ends_with(&format!("task {} failed: exit code 1", ids[0])));
        assert!(took < QUICK, "{shape}: {took:?}");
        let (_, graph) = bed
            .get(&format!("/v1/tasks/{}/graph", ids[0]))
            .expect("graph");
        assert_eq!(graph["nodes"].as_array().map(Vec::len), Some(10_000));
        assert_eq!(graph["edges"].as_array().map(Vec::len), Some(9_999));
    }
}

#[test]
fn a_unique_key_lets_one_unfinished_task_be() {
    let bed = Bed::start(&[]);
    let body = |what: &str, line: &str| {
        let unique = json!({"key": "u", "on_conflict": what});
        json!({"command": ["sh", "-c", line], "unique": unique})
    };
    let first = bed.submit(&body(
        "reject",
        "trap 'sleep 1; exit' TERM; sleep 30 & wait",
    ));
    bed.until("it runs", |bed| state(bed, first) == "running");
    let (status, answer) = post(&bed, &body("reject", "true"));
    assert_eq!(
        (status, &answer["code"]),
        (409, &json!("unique_key_held")),
        "{answer}"
    );
    let detail = answer["detail"].as_str().expect("detail");
    assert!(detail.contains(&format!("task {first}")), "{detail}");
    let (status, answer) = post(&bed, &body("return", "true"));
    assert_eq!(
        (status, &answer["id"], &answer["created"]),
        (200, &json!(first), &json!(false))
    );
    // The one that takes its place waits for its end; so does the next one.
    let second = bed.submit(&body("replace", "sleep 30"));
    let third = bed.submit(&body("replace", "true"));
    assert_eq!(bed.wait(second)["state"], "cancelled");
    let waits = show(&bed, third);
    if waits["state"] == "blocked" {
        assert_eq!(waits["after"][0]["task"], first, "{waits}");
    }
    let (first_over, third_over) = (bed.wait(first), bed.wait(third));
    assert_eq!(
        (&first_over["state"], &third_over["state"]),
        (&json!("cancelled"), &json!("succeeded"))
    );
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert!(
        text(&third_over["attempts"][0]["started_at"])
            >= text(&first_over["attempts"][0]["ended_at"]),
        "one behind the other: {first_over} {third_over}"
    );
    // A retry would make a second one with the key.
    let holder = bed.submit(&body("reject", "sleep 30"));
    let (status, answer) = ask(&bed, third, "retry");
    assert_eq!(
        (status, &answer["code"]),
        (409, &json!("unique_key_held")),
        "{answer}"
    );
    ask(&bed, holder, "cancel");
    bed.wait(holder);
    assert_eq!(ask(&bed, third, "retry").0, 200);
}

#[test]
fn unique_keys_hold_within_one_request() {
    let bed = Bed::start(&[]);
    let unique = |what: &str| json!({"key": "v", "on_conflict": what});
    let list = |second: &str| {
        json!({"tasks": [
            {"ref": "a", "command": ["true"], "delay": "1h", "unique": unique("reject")},
            {"ref": "b", "command": ["true"], "delay": "1h", "unique": unique(second)},
        ]})
    };
    let before = count(&bed);
    let (status, answer) = post(&bed, &list("reject"));
    assert_eq!(
        (status, &answer["code"]),
        (409, &json!("unique_key_held")),
        "{answer}"
    );
    assert_eq!(count(&bed), before);
    let (status, answer) = post(&bed, &list("return"));
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["tasks"][0]["id"], answer["tasks"][1]["id"]);
    assert_eq!(answer["tasks"][1]["ref"], "b");
    ask(
        &bed,
        answer["tasks"][0]["id"].as_i64().expect("id"),
        "cancel",
    );
    let (status, answer) = post(&bed, &list("replace"));
    assert_eq!(status, 201, "{answer}");
    let id = |n: usize| answer["tasks"][n]["id"].as_i64().expect("id");
    assert_eq!(
        (state(&bed, id(0)), state(&bed, id(1))),
        ("cancelled".to_owned(), "scheduled".to_owned())
    );
}

#[test]
fn what_waits_outlives_the_daemon() {
    let mut bed = Bed::start(&[]);
    let ids = all(
        &bed,
        &json!([
            {"ref": "a", "command": ["sleep", "0.7"]},
            {"ref": "b", "command": ["true"], "after": ["a"]},
        ]),
    );
    bed.until("it runs", |bed| state(bed, ids[0]) == "running");
    bed.kill();
    std::thread::park_timeout(Duration::from_millis(900));
    bed.restart();
    assert_eq!(bed.wait(ids[1])["state"], "succeeded");
}

/// Both ends are due in one turn, and the end of the one concerns the other.
#[test]
fn a_task_and_the_one_behind_it_may_reach_their_deadlines_at_once() {
    let bed = Bed::start(&[]);
    let soon = clock::now().after(Duration::from_millis(800)).micros();
    let deadline = jiff::Timestamp::from_microsecond(soon).expect("a time");
    let deadline = deadline.to_string();
    let ids = all(
        &bed,
        &json!([
            {"ref": "a", "command": ["true"], "delay": "1h", "deadline": deadline},
            {"ref": "b", "command": ["true"], "after": ["a"], "deadline": deadline},
            {"command": ["true"], "after": ["b"]},
        ]),
    );
    assert_eq!(bed.wait(ids[0])["state"], "expired");
    assert_eq!(bed.wait(ids[1])["state"], "expired");
    assert_eq!(bed.wait(ids[2])["state"], "skipped");
    assert_eq!(bed.get("/ready").expect("the daemon lives").0, 200);
}

fn hand_in(engine: &mut Engine<Sqlite>, new: NewTask) -> Result<Vec<Submitted>, Error> {
    let (reply, mut answer) = oneshot::channel();
    let tasks = vec![new];
    let now = Time::from_micros(1_700_000_000_000_000);
    engine
        .turn(vec![Command::Submit { tasks, reply }], now)
        .expect("turn");
    answer.try_recv().expect("answered")
}

#[test]
fn tasks_of_others_are_not_there_to_wait_for_to_hold_a_key_or_to_change() {
    let dir = tempfile::tempdir().expect("directory");
    let store = Sqlite::open(dir.path(), &options()).expect("open");
    let mut engine = Engine::new(store, Options::default(), "boot".to_owned());
    let unique = Some(Unique {
        key: "k".to_owned(),
        on_conflict: Conflict::Replace,
    });
    let of = |owner, after: Option<TaskId>| NewTask {
        owner,
        unique: unique.clone(),
        after: after
            .map(|id| After {
                parent: Parent::Task(id),
                wants: Wants::Ok,
            })
            .into_iter()
            .collect(),
        ..new_task("true")
    };
    let theirs = hand_in(&mut engine, of(2000, None)).expect("accepted")[0].id;
    let refused = |result: Result<Vec<Submitted>, Error>| result.expect_err("refused").to_string();
    let other = refused(hand_in(&mut engine, of(1000, Some(theirs))));
    let nobody = refused(hand_in(&mut engine, of(1000, Some(TaskId(99)))));
    assert_eq!(other.replace(&theirs.to_string(), "99"), nobody);
    // Nor for their output to be read.
    let reading = |owner, id| NewTask {
        stdin_from: Some(Parent::Task(id)),
        ..of(owner, None)
    };
    let other = refused(hand_in(&mut engine, reading(1000, theirs)));
    let nobody = refused(hand_in(&mut engine, reading(1000, TaskId(99))));
    assert_eq!(other.replace(&theirs.to_string(), "99"), nobody);
    let mine = hand_in(&mut engine, of(1000, None)).expect("accepted")[0].id;
    hand_in(&mut engine, of(0, Some(theirs))).expect("root may wait for anyone's");
    let caller = Caller {
        uid: 1000,
        admin: false,
        origin: taskdaemon::model::origin::Origin::NONE,
    };
    for (id, wanted) in [(theirs, false), (mine, true)] {
        let (reply, mut answer) = oneshot::channel();
        let ask = Command::Graph(Ask::Cancel { caller, id, reply });
        let now = Time::from_micros(1_700_000_001_000_000);
        engine.turn(vec![ask], now).expect("turn");
        let answer = answer.try_recv().expect("answered");
        match answer {
            Ok(changed) => assert!(wanted && changed.dependants == 0),
            Err(Error::NotFound(named)) => assert!(!wanted && named == id),
            Err(error) => unreachable!("{error}"),
        }
    }
}
