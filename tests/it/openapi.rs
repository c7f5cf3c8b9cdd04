//! The description of the API: what it tells of routes is what they take and send.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use taskdaemon::api::access::{self, Row};
use taskdaemon::api::number::Stamp;
use taskdaemon::api::openapi::document;

use crate::bed::{Bed, request};
use crate::security::{agent, asked, furnish};

/// What is told of a route.
fn told<'d>(document: &'d Value, row: &Row) -> &'d Value {
    let told = &document["paths"][row.path][row.method.to_ascii_lowercase()];
    assert!(told.is_object(), "{row:?} is told of");
    told
}

/// The document with objects that have no more than what is told of them.
fn closed(mut document: Value) -> Value {
    let schemas = document["components"]["schemas"].as_object_mut();
    for schema in schemas.expect("schemas").values_mut() {
        let schema = schema.as_object_mut().expect("a schema");
        if schema.contains_key("properties") {
            schema.entry("additionalProperties").or_insert(false.into());
        }
    }
    document
}

/// What is wrong with a value, by a schema of the document.
fn wrong(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let whole = json!({ "components": document["components"], "allOf": [schema] });
    let validator = jsonschema::draft202012::new(&whole).expect("a schema");
    let errors = validator.iter_errors(value);
    errors
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect()
}

/// Sends a request and compares the answer with what is told of it.
fn check(bed: &Bed, document: &Value, row: &Row, path: &str, body: &Value) -> (u16, Value) {
    let told = told(document, row);
    let body = (!body.is_null()).then_some(body);
    if let Some(body) = body {
        let schema = &told["requestBody"]["content"]["application/json"]["schema"];
        let wrong = wrong(document, schema, body);
        assert!(wrong.is_empty(), "{row:?} {body}: {wrong:?}");
    }
    let sent = request(&bed.socket(), row.method, path, body);
    let (status, answer) = sent.expect(path);
    let response = &told["responses"][status.to_string()];
    let problem = json!({ "$ref": "#/components/schemas/Problem" });
    let schema = match response["content"].get("application/json") {
        Some(content) => &content["schema"],
        None if status >= 400 => &problem,
        None => return (status, answer),
    };
    let wrong = wrong(document, schema, &answer);
    assert!(
        wrong.is_empty(),
        "{row:?} {path}: {status} {answer:#}: {wrong:#?}"
    );
    (status, answer)
}

fn row(method: &str, path: &str) -> Row {
    let found = access::table().into_iter();
    let mut found = found.filter(|row| (row.method, row.path) == (method, path));
    found.next().expect("a route")
}

#[test]
fn the_description_of_the_api_is_served_and_printed() {
    let bed = Bed::start(&[]);
    let (status, served) = bed.get("/v1/openapi.json").expect("an answer");
    assert_eq!(status, 200);
    let printed = Command::new(env!("CARGO_BIN_EXE_taskdaemon"))
        .arg("openapi")
        .output()
        .expect("run");
    assert!(printed.status.success());
    let printed: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    assert_eq!(served, printed);
    assert_eq!(printed["openapi"], "3.1.0");
    assert_eq!(printed["info"]["version"], taskdaemon::VERSION);
}

#[test]
fn each_route_sends_what_is_told_of_it_and_nothing_else() {
    let bed = Bed::start(&[]);
    furnish(&bed);
    let document = closed(document());
    for row in access::table() {
        let (task, schedule) = (bed.submit(&json!({ "command": ["true"] })), schedule(&bed));
        let (path, body) = asked(row, task, schedule);
        let path = path.replace("steady", &agent(&bed));
        let (status, answer) = check(&bed, &document, &row, &path, &body);
        assert_ne!(status, 500, "{row:?}: {answer}");
        assert_ne!(status, 405, "{row:?}: {answer}");
    }
}

fn schedule(bed: &Bed) -> i64 {
    let asked = json!({
        "name": "yearly", "when": "0 0 1 1 *", "replace": true, "task": { "command": ["true"] },
    });
    let (status, made) = bed.post("/v1/schedules", &asked).expect("a schedule");
    assert_eq!(status, 201, "{made}");
    made["id"].as_i64().expect("a number")
}

#[test]
fn what_has_much_to_say_says_what_is_told_of_it() {
    let bed = Bed::start(&[]);
    let document = closed(document());
    let check =
        |method, path, at: &str, body: &Value| check(&bed, &document, &row(method, path), at, body);
    let tasks = "/v1/tasks";
    let tomorrow = taskdaemon::clock::now().after(Duration::from_secs(86_400));
    let tomorrow = Stamp(tomorrow).to_string();
    let full = json!({
        "command": ["sh", "-c", "echo out; exit 3"], "name": "full", "labels": { "a": "b" },
        "env": { "X": "1" }, "umask": "027", "cwd": "/", "priority": 5, "key": "k", "group": "g",
        "timeout": "1m", "grace": "1s", "queue_ttl": "1h", "output_cap": "1MiB", "delay": "1ms",
        "unique": { "key": "u", "on_conflict": "return" }, "deadline": tomorrow,
        "retry": { "max_attempts": 1, "factor": 1.5, "no_retry_on": [3, "signal"] },
        "on_interrupt": "hold", "hooks": [{ "on": ["failed"], "command": ["true"] }],
    });
    let (status, made) = check("POST", tasks, tasks, &full);
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_i64().expect("a number");
    bed.wait(id);
    let one = |more: &str| format!("{tasks}/{id}{more}");
    let (_, shown) = check("GET", "/v1/tasks/{id}", &one(""), &Value::Null);
    assert_eq!(shown["attempts"][0]["exit_code"], 3);
    check("POST", tasks, tasks, &full);
    let list = json!({ "tasks": [
        { "command": ["true"], "ref": "first" },
        { "command": ["true"], "after": ["first:any"], "stdin_from": "first" },
    ] });
    let (status, made) = check("POST", tasks, tasks, &list);
    assert_eq!(status, 201, "{made}");
    let child = made["tasks"][1]["id"].as_i64().expect("a number");
    check(
        "GET",
        "/v1/tasks/{id}/graph",
        &format!("{tasks}/{child}/graph"),
        &Value::Null,
    );
    check(
        "POST",
        "/v1/tasks/{id}/retry",
        &one("/retry?dependants=true"),
        &Value::Null,
    );
    check(
        "GET",
        tasks,
        &format!("{tasks}?limit=2&state=queued,failed"),
        &Value::Null,
    );
    let (status, _) = check("GET", "/v1/tasks/{id}", "/v1/tasks/4711", &Value::Null);
    assert_eq!(status, 404);
    let (status, _) = check("POST", tasks, tasks, &json!({ "command": [] }));
    assert_eq!(status, 400);
    let change = "/v1/schedules/{schedule}/{verb}";
    schedule(&bed);
    let (status, _) = check("POST", change, "/v1/schedules/yearly/trigger", &Value::Null);
    assert_eq!(status, 201);
    check("GET", "/v1/status", "/v1/status", &Value::Null);
    check("GET", "/v1/events", "/v1/events?limit=1000", &Value::Null);
}

#[test]
fn agents_say_what_is_told_of_them() {
    let bed = Bed::start(&[]);
    let document = closed(document());
    let check =
        |method, path, at: &str, body: &Value| check(&bed, &document, &row(method, path), at, body);
    let agents = "/v1/agents";
    let agent = json!({
        "name": "up", "idle_after": "1h", "no_restart_on": [4], "on_stop": ["true"],
        "probe": { "command": ["true"], "interval": "1s" }, "task": { "command": ["sleep", "60"] },
    });
    check("POST", agents, agents, &agent);
    let mut other = agent;
    other["dry_run"] = true.into();
    other["instances"] = 2.into();
    let (status, difference) = check("POST", agents, agents, &other);
    assert_eq!((status, &difference["change"]), (200, &json!("replace")));
    bed.until("the agent runs", |_| {
        let (_, list) = check("GET", agents, agents, &Value::Null);
        !list["agents"][0]["instances"][0]["task"].is_null()
    });
    check("GET", "/v1/status", "/v1/status", &Value::Null);
}

#[test]
fn parameters_that_are_told_are_those_that_are_taken() {
    let bed = Bed::start(&[]);
    let (task, schedule) = furnish(&bed);
    let document = document();
    let mut seen = 0;
    for row in access::table() {
        let told = told(&document, &row);
        let parameters = told["parameters"].as_array().expect("a list");
        let in_query = parameters.iter().filter(|one| one["in"] == "query");
        let names: BTreeSet<_> = in_query.map(|one| one["name"].as_str()).collect();
        let names: BTreeSet<_> = names.into_iter().flatten().collect();
        if names.is_empty() {
            continue;
        }
        let (path, _) = asked(row, task, schedule);
        let path = path.split('?').next().unwrap_or_default();
        let path = format!("{path}?qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq=1");
        let (status, answer) = request(&bed.socket(), row.method, &path, None).expect("an answer");
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!("unknown_parameter")),
            "{row:?}"
        );
        let detail = answer["detail"].as_str().expect("a text");
        let taken = detail.rsplit(": ").next().unwrap_or_default();
        assert_eq!(taken.split(", ").collect::<BTreeSet<_>>(), names, "{row:?}");
        seen += 1;
    }
    assert!(seen >= 9, "{seen}");
}

#[test]
fn fields_of_bodies_that_are_told_are_those_that_are_taken() {
    let bed = Bed::start(&[]);
    let (task, schedule) = furnish(&bed);
    agent(&bed);
    let document = document();
    let mut seen = 0;
    for row in access::table() {
        let (path, _) = asked(row, task, schedule);
        let ask = |body: &Value| {
            let sent = request(&bed.socket(), row.method, &path, Some(body));
            let (_, answer) = sent.expect("an answer");
            answer["code"].as_str().unwrap_or_default().to_owned()
        };
        let told = told(&document, &row);
        let Some(schema) = told["requestBody"]["content"]["application/json"].get("schema") else {
            continue;
        };
        let place = schema["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
        let schema = document
            .pointer(place.expect("a reference"))
            .expect("a schema");
        assert_eq!(schema["additionalProperties"], false, "{row:?}");
        assert_eq!(
            ask(&json!({ "qqqqqqqqqqqqqqqqqqqqqqq": 1 })),
            "unknown_field",
            "{row:?}"
        );
        for name in schema["properties"].as_object().expect("fields").keys() {
            // No field takes that, so nothing is changed.
            let body = json!({ name: [[[[]]]] });
            let code = ask(&body);
            assert!(!code.is_empty(), "{row:?} took {body}");
            assert_ne!(code, "unknown_field", "{row:?} {name}");
        }
        seen += 1;
    }
    assert!(seen >= 9, "{seen}");
}
