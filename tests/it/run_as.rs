//! As whom tasks may run: asked when they are handed in, and again when they
//! start.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::{Value, json};
use taskdaemon::clock;
use taskdaemon::model::step::DENIED;
use taskdaemon::runner::{Options, Users};

use crate::bed::{Bed, request};
use crate::runner::{options, root, start};
use crate::security::as_user;

/// Lets root run tasks as `daemon`, and as somebody who does not exist.
const RIGHTS: &str = "default = \"nobody\"\n[[allow]]\nwho = [\"user:root\"]\n\
                      as = [\"daemon\", \"no-such-user\"]\n";
/// Lets nobody do anything.
const NO_RIGHTS: &str = "default = \"nobody\"\n";

/// A daemon whose runner switches users, by a policy file of its own.
fn bed(policy: &str) -> Bed {
    let bed = Bed::start(&[("RUN__START_RUNNER", "never")]);
    let options = Options {
        policy: bed.path("run-as.toml"),
        users: Users::Policy,
        ..options()
    };
    fs::write(&options.policy, policy).expect("write");
    let listener = UnixListener::bind(bed.path("run/runner.sock")).expect("bind");
    drop(start(&options, listener.into()));
    bed.until("the runner is there", |bed| {
        let (_, status) = bed.get("/v1/status").expect("status");
        !status["runner"].is_null()
    });
    bed
}

fn edit(bed: &Bed, id: i64, change: &Value) {
    let path = format!("/v1/tasks/{id}");
    let answer = request(&bed.socket(), "PATCH", &path, Some(change)).expect("an answer");
    assert_eq!(answer.0, 200, "{answer:?}");
}

fn refused(answer: (u16, Value), field: &str, words: &str) {
    let (status, problem) = answer;
    assert_eq!(status, 403, "{problem}");
    assert_eq!(problem["code"], "run_as_denied", "{problem}");
    assert_eq!(problem["field"], field, "{problem}");
    let detail = problem["detail"].as_str().expect("a sentence");
    assert!(detail.contains(words), "{problem}");
}

#[test]
fn sec_05_a_user_that_the_policy_denies_is_refused_before_anything_is_taken_in() {
    if !root() {
        return;
    }
    let bed = bed(RIGHTS);
    let post = |path: &str, body: &Value| bed.post(path, body).expect("an answer");
    let of = |user: &str| json!({ "command": ["true"], "user": user });
    let list = json!({ "tasks": [{ "command": ["true"] }, of("daemon"), of("bin")] });
    let schedule = json!({ "name": "s", "when": "every 1h", "task": of("bin") });
    let why = "user root may not run tasks as bin: no rule of";
    refused(post("/v1/tasks", &of("bin")), "user", why);
    refused(post("/v1/tasks", &list), "tasks[2].user", why);
    refused(post("/v1/schedules", &schedule), "task.user", why);
    let unknown = post("/v1/tasks", &of("no-such-user"));
    refused(unknown, "user", "there is no user no-such-user");
    let everybody = fs::Permissions::from_mode;
    fs::set_permissions(bed.dir.path(), everybody(0o711)).expect("mode");
    fs::set_permissions(bed.socket(), everybody(0o666)).expect("mode");
    let stranger = as_user(54_321, || {
        request(&bed.socket(), "POST", "/v1/tasks", Some(&of("daemon")))
    });
    refused(stranger.expect("an answer"), "user", "uid 54321 may not");
    let (_, page) = bed.get("/v1/tasks").expect("list");
    assert_eq!(page["tasks"], json!([]), "nothing was taken in");
    let (_, page) = bed.get("/v1/schedules").expect("list");
    assert_eq!(page["schedules"], json!([]), "nothing was taken in");
    // Who may, may; and the default is open to all.
    for user in ["daemon", "nobody"] {
        let done = bed.wait(bed.submit(&of(user)));
        assert_eq!(done["state"], "succeeded", "{done}");
        assert_eq!(done["attempts"][0]["user"], user, "{done}");
    }
    // What cannot be read denies nothing now, and the start decides.
    fs::write(bed.path("run-as.toml"), "[[alow]]\n").expect("write");
    let id = bed.submit(&of("bin"));
    bed.until("its start was not decided", |bed| {
        let (_, task) = bed.get(&format!("/v1/tasks/{id}")).expect("show");
        task["reason_code"] == "undecided"
    });
}

#[test]
fn sec_05_a_right_that_was_taken_away_holds_the_task_until_it_is_back() {
    if !root() {
        return;
    }
    let bed = bed(RIGHTS);
    let policy = bed.path("run-as.toml");
    let marks = bed.path("marks");
    fs::create_dir(&marks).expect("directory");
    let everybody = fs::Permissions::from_mode;
    fs::set_permissions(bed.dir.path(), everybody(0o711)).expect("mode");
    fs::set_permissions(&marks, everybody(0o777)).expect("mode");
    let mark = |name: &str| marks.join(name);
    let leave = |path: &Path| json!(["touch", path.display().to_string()]);
    let id = bed.submit(&json!({
        "command": leave(&mark("held")), "user": "daemon", "delay": "1h",
    }));
    fs::write(&policy, NO_RIGHTS).expect("write");
    let before = clock::now();
    edit(&bed, id, &json!({ "run_at": null }));
    let mut held = Value::Null;
    bed.until("it was turned away", |bed| {
        held = bed.get(&format!("/v1/tasks/{id}")).expect("show").1;
        held["attempts"][0]["outcome"] == "spawn"
    });
    assert_eq!(held["state"], "scheduled", "{held}");
    assert_eq!(held["reason_code"], "undecided", "{held}");
    let why = "waits for the run-as policy: could not run touch: user root may not run tasks as \
               daemon: no rule of";
    let reason = held["reason"].as_str().expect("a reason");
    assert!(reason.starts_with(why), "{reason}");
    let until: jiff::Timestamp = held["until"]
        .as_str()
        .and_then(|at| at.parse().ok())
        .expect("a time");
    assert!(
        until.as_microsecond() >= before.after(DENIED).micros(),
        "{held}"
    );
    // Nobody else waits because of it.
    let other = bed.wait(bed.submit(&json!({ "command": leave(&mark("other")) })));
    assert_eq!(other["state"], "succeeded", "{other}");
    assert!(mark("other").exists() && !mark("held").exists());
    fs::write(&policy, RIGHTS).expect("write");
    edit(&bed, id, &json!({ "run_at": null }));
    let done = bed.wait(id);
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(done["attempts"][1]["user"], "daemon", "{done}");
    assert!(mark("held").exists());
}

/// A repeated submit was refused with 403 once the right was gone, though its task had long been made.
#[test]
fn a_repetition_gets_the_earlier_answer_when_the_right_is_gone() {
    if !root() {
        return;
    }
    let bed = bed(RIGHTS);
    let post = |body: &Value| bed.post("/v1/tasks", body).expect("an answer");
    let of = |key: &str| json!({ "command": ["true"], "user": "daemon", "key": key });
    let list = |keys: [&str; 2]| json!({ "tasks": keys.map(of) });
    let (status, first) = post(&of("one"));
    assert_eq!(status, 201, "{first}");
    let (status, pair) = post(&list(["two", "three"]));
    assert_eq!(status, 201, "{pair}");
    fs::write(bed.path("run-as.toml"), NO_RIGHTS).expect("write");
    let (status, again) = post(&of("one"));
    assert_eq!((status, &again["id"]), (200, &first["id"]), "{again}");
    assert_eq!(again["created"], false, "{again}");
    let (status, again) = post(&list(["two", "three"]));
    assert_eq!(status, 200, "{again}");
    assert_eq!(again["tasks"][1]["id"], pair["tasks"][1]["id"], "{again}");
    // What is new needs the right, beside what is not, too.
    let why = "may not run tasks as daemon";
    refused(post(&of("four")), "user", why);
    refused(post(&list(["two", "four"])), "tasks[1].user", why);
    refused(
        post(&json!({ "command": ["true"], "user": "daemon" })),
        "user",
        why,
    );
    let other = json!({ "command": ["false"], "user": "daemon", "key": "one" });
    let (status, problem) = post(&other);
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("key_reused")),
        "{problem}"
    );
    let (_, page) = bed.get("/v1/tasks").expect("list");
    assert_eq!(page["tasks"].as_array().map(Vec::len), Some(3), "{page}");
}
