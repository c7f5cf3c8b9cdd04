//! `GET /metrics`: what it says is what there is, and Prometheus' own tool finds nothing wrong with how.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bed::{Bed, request};
use crate::prompt::{BEGIN, CHAT_END, Says, bed_of, bed_with, chat, provider, refusal};

/// The page.
fn page(bed: &Bed) -> String {
    let (status, page) = bed.get("/metrics").expect("the page");
    assert_eq!(status, 200, "{page}");
    page.as_str().expect("text, no JSON").to_owned()
}

/// Its rows: what stands before the value, and the value.
fn rows(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(row).collect()
}

#[test]
fn metrics_say_what_there_is() {
    let bed = Bed::start(&[]);
    let ended = [
        bed.submit(&json!({ "command": ["true"] })),
        bed.submit(&json!({ "command": ["false"] })),
    ];
    for id in ended {
        bed.wait(id);
    }
    let paused = bed.post("/v1/queues/default/pause", &Value::Null);
    assert_eq!(paused.expect("pause").0, 200);
    for _ in 0..3 {
        bed.submit(&json!({ "command": ["true"] }));
    }
    let (status, _) = bed.get("/v1/tasks/4711").expect("an answer");
    assert_eq!(status, 404);
    let rows = rows(&page(&bed));
    let is = |name: &str, value: f64| {
        let found = rows.get(name).copied();
        assert_eq!(found, Some(value), "{name}: {rows:#?}");
    };
    is("taskdaemon_tasks{state=\"succeeded\"}", 1.0);
    is("taskdaemon_tasks{state=\"failed\"}", 1.0);
    is("taskdaemon_tasks{state=\"queued\"}", 3.0);
    is(
        "taskdaemon_queue_tasks{queue=\"default\",state=\"queued\"}",
        3.0,
    );
    is("taskdaemon_queue_paused{queue=\"default\"}", 1.0);
    is("taskdaemon_engine_answered", 1.0);
    let tasks = rows.get("taskdaemon_runtime_tasks").copied();
    assert!(tasks.is_some_and(|tasks| tasks >= 1.0), "{tasks:?}");
    is("taskdaemon_running", 1.0);
    is("taskdaemon_runner_connected", 1.0);
    is("taskdaemon_degraded", 0.0);
    is("taskdaemon_log_dropped_total", 0.0);
    is("taskdaemon_attempts_ended_total{class=\"success\"}", 1.0);
    is("taskdaemon_attempts_ended_total{class=\"exit\"}", 1.0);
    is("taskdaemon_attempts_ended_total{class=\"oom\"}", 0.0);
    is("taskdaemon_attempt_duration_seconds_count", 2.0);
    is("taskdaemon_start_latency_seconds_count", 2.0);
    is("taskdaemon_start_latency_seconds_bucket{le=\"+Inf\"}", 2.0);
    is("taskdaemon_schedule_lag_seconds", 0.0);
    is("taskdaemon_health{part=\"store\"}", 0.0);
    let waits = rows["taskdaemon_queue_oldest_seconds{queue=\"default\"}"];
    assert!(waits > 0.0 && waits < 60.0, "{waits}");
    assert!(rows["taskdaemon_wal_bytes"] > 0.0, "{rows:#?}");
    let answered = |method: &str, outcome: &str, route: &str| {
        format!(
            "taskdaemon_http_requests_total{{method=\"{method}\",outcome=\"{outcome}\",route=\"{route}\"}}"
        )
    };
    is(&answered("POST", "ok", "/v1/tasks"), 5.0);
    is(&answered("GET", "refused", "/v1/tasks/{id}"), 1.0);
    is(
        "taskdaemon_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/tasks\"}",
        5.0,
    );
    let (_, status) = bed.get("/v1/status").expect("status");
    let pid = status["pid"].as_i64().expect("a process");
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("threads")
        .count();
    is(
        "process_threads",
        f64::from(u32::try_from(threads).expect("few")),
    );
    assert!(rows["process_resident_memory_bytes"] > 1e6, "{rows:#?}");
}

/// A name of a queue is chosen by whoever submits: the page does not grow with them.
#[test]
fn metrics_stay_few_however_many_queues_there_are() {
    let bed = Bed::start(&[]);
    for number in 0..130 {
        let limits = json!({ "concurrency": 1 });
        let queue = format!("/v1/queues/q{number}");
        let made = request(&bed.socket(), "PATCH", &queue, Some(&limits));
        assert_eq!(made.expect("a queue").0, 200);
        let paused = bed.post(&format!("{queue}/pause"), &Value::Null);
        assert_eq!(paused.expect("pause").0, 200);
        bed.submit(&json!({ "command": ["true"], "queue": format!("q{number}") }));
    }
    let rows = rows(&page(&bed));
    let queued = |name: &&String| {
        name.starts_with("taskdaemon_queue_tasks{") && name.contains("state=\"queued\"")
    };
    assert_eq!(rows.keys().filter(queued).count(), 101);
    let all: f64 = rows
        .iter()
        .filter(|(name, _)| queued(name))
        .map(|(_, value)| value)
        .sum();
    assert!(
        (all - 130.0).abs() < 0.5,
        "the others are counted together: {all}"
    );
    assert!(rows.contains_key("taskdaemon_queue_tasks{queue=\"(others)\",state=\"queued\"}"));
}

/// What a model was asked, what that cost, and what its provider refused.
#[test]
fn metrics_say_what_models_were_asked_and_what_that_cost() {
    let busy = refusal("429 Too Many Requests", "Retry-After: 1\r\n", "{}");
    let answer = format!("{BEGIN}{}{CHAT_END}", chat("ok"));
    let (port, _seen) = provider(vec![Says::All(busy), Says::All(answer)]);
    let (bed, _dir) = bed_with(port, "price = { input = 3, output = 15 }");
    let id = bed.submit(&json!({"prompt": {"text": "?", "max_tokens": 50}}));
    bed.until("its provider is held", |bed| {
        let state = "model=\"chat\",provider=\"one\",state=\"held\"";
        rows(&page(bed))[&format!("taskdaemon_model_state{{{state}}}")] > 0.5
    });
    assert_eq!(bed.wait(id)["state"], "succeeded");
    let rows = rows(&page(&bed));
    let of = |name: &str, more: &str| {
        let name = format!("taskdaemon_{name}{{{more}model=\"chat\",provider=\"one\"");
        let found = rows.iter().find(|(row, _)| row.starts_with(&name));
        *found
            .unwrap_or_else(|| unreachable!("no {name} in {rows:#?}"))
            .1
    };
    let near = |is: f64, value: f64| assert!((is - value).abs() < 1e-9, "{is} for {value}");
    near(of("model_calls_ended_total", "end=\"refused\","), 1.0);
    near(of("model_calls_ended_total", "end=\"answered\","), 1.0);
    near(of("model_cost_total", ""), 0.000_051);
    let tokens = |what: &str| {
        let labels = format!("model=\"chat\",provider=\"one\",what=\"{what}\"");
        rows[&format!("taskdaemon_model_tokens_total{{{labels}}}")]
    };
    near(tokens("input"), 7.0);
    near(tokens("output"), 2.0);
}

/// The names and labels of OpenTelemetry's conventions for clients of models, in the spelling of Prometheus.
#[test]
fn metrics_and_log_tell_of_calls_in_the_words_of_the_conventions() {
    let busy = refusal("429 Too Many Requests", "Retry-After: 1\r\n", "{}");
    let answer = format!("{BEGIN}{}{CHAT_END}", chat("the answer itself"));
    let (port, _seen) = provider(vec![Says::All(busy), Says::All(answer)]);
    let (bed, _dir) = bed_with(port, "");
    let id = bed.submit(&json!({"prompt": {"text": "the question itself"}}));
    assert_eq!(bed.wait(id)["state"], "succeeded");
    let page = page(&bed);
    let rows = rows(&page);
    let of = |name: &str, last: &str, more: &str| {
        let whom = "gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"one\",gen_ai_request_model=\"m-1\"";
        let name = format!("gen_ai_client_{name}{{{whom},{last}{more}}}");
        let found = rows.get(&name);
        *found.unwrap_or_else(|| unreachable!("no {name} in {page}"))
    };
    let near = |is: f64, value: f64| assert!((is - value).abs() < 1e-9, "{is} for {value}");
    let (input, output) = (
        "gen_ai_token_type=\"input\"",
        "gen_ai_token_type=\"output\"",
    );
    near(of("token_usage_sum", input, ""), 7.0);
    near(of("token_usage_sum", output, ""), 2.0);
    near(of("token_usage_count", input, ""), 1.0);
    near(of("token_usage_bucket", input, ",le=\"4\""), 0.0);
    near(of("token_usage_bucket", input, ",le=\"16\""), 1.0);
    let took = "operation_duration_seconds";
    near(of(&format!("{took}_count"), "error_type=\"\"", ""), 1.0);
    near(
        of(&format!("{took}_count"), "error_type=\"refused\"", ""),
        1.0,
    );
    let sum = of(&format!("{took}_sum"), "error_type=\"\"", "");
    assert!(sum > 0.0 && sum < 20.0, "{sum}");
    let log = std::fs::read_to_string(bed.path("log")).expect("the log");
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("gen_ai.operation.name=chat"))
        .collect();
    assert_eq!(told.len(), 2, "{log}");
    assert!(told[0].contains("error.type=refused"), "{told:?}");
    for words in [
        "gen_ai.provider.name=one",
        "gen_ai.request.model=m-1",
        "gen_ai.usage.input_tokens=7",
        "gen_ai.usage.output_tokens=2",
    ] {
        assert!(told[1].contains(words), "{words}: {told:?}");
    }
    assert!(!log.contains("itself"), "what was asked or answered: {log}");
}

/// What is spent and held of each budget of the day, whoever's it is.
#[test]
fn metrics_say_what_is_spent_and_held_of_budgets() {
    let (_go, wait) = std::sync::mpsc::sync_channel(1);
    let first = format!("{BEGIN}{}{CHAT_END}", chat("ok"));
    let (port, seen) = provider(vec![
        Says::All(first),
        Says::Halves(BEGIN.to_owned(), wait, String::new()),
    ]);
    let dir = tempfile::tempdir().expect("directory");
    let config = dir.path().join("config.toml");
    let text = format!(
        "[llm]\nbudgets = [{{ user = \"*\", tokens = 1000, cost = 2.5 }}, {{ queue = \"prompt\", tokens = 500 }}]\n\
         providers = [{{ name = \"one\", dialect = \"openai\", base_url = \"http://127.0.0.1:{port}/v1\" }}]\n\
         models = [{{ name = \"chat\", provider = \"one\", model = \"m\", price = {{ input = 0, output = 1000 }} }}]\n"
    );
    std::fs::write(&config, text).expect("config");
    let bed = Bed::start(&[("CONFIG", &config.display().to_string())]);
    let ask = json!({"prompt": {"text": "?", "max_tokens": 60}});
    bed.wait(bed.submit(&ask));
    bed.submit(&ask);
    (0..2).for_each(|_| drop(seen.recv().expect("a call")));
    let rows = rows(&page(&bed));
    let uid = nix::unistd::getuid();
    let (user, queue) = (format!("user/{uid}"), "queue/prompt".to_owned());
    for (name, budget, unit, least, most) in [
        ("limit", &user, "tokens", 1000.0, 1000.0),
        ("limit", &user, "cost", 2.5, 2.5),
        ("limit", &queue, "tokens", 500.0, 500.0),
        ("spent", &user, "tokens", 9.0, 9.0),
        ("spent", &user, "cost", 0.002, 0.002),
        ("spent", &queue, "tokens", 9.0, 9.0),
        ("held", &user, "tokens", 60.0, 80.0),
        ("held", &user, "cost", 0.06, 0.06),
        ("held", &queue, "tokens", 60.0, 80.0),
    ] {
        let name = format!("taskdaemon_budget_{name}{{budget=\"{budget}\",unit=\"{unit}\"}}");
        let is = rows.get(&name).copied().unwrap_or(f64::NAN);
        assert!(
            is > least - 1e-9 && is < most + 1e-9,
            "{name}: {is}: {rows:#?}"
        );
    }
}

/// Words of a text that are names of metrics.
fn named(text: &str) -> BTreeSet<&str> {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !word(letter));
    let ours = |word: &&str| {
        let known = ["taskdaemon_", "process_", "gen_ai_client_"];
        known.iter().any(|begin| word.starts_with(begin))
    };
    words.filter(ours).collect()
}

fn monitoring(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("deb/monitoring");
    std::fs::read_to_string(dir.join(name)).expect("a file of the repository")
}

/// Every query of the dashboard, with what a server puts into it.
fn queries() -> Vec<String> {
    let board: Value = serde_json::from_str(&monitoring("dashboard.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels").iter();
    let notes = board["annotations"]["list"]
        .as_array()
        .expect("annotations");
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let found = targets
        .chain(notes)
        .map(|one| one["expr"].as_str().expect("a query"));
    found
        .map(|query| {
            query
                .replace("$__rate_interval", "5m")
                .replace("$instance", ".*")
        })
        .collect()
}

#[test]
fn alerts_and_dashboard_name_metrics_that_there_are() {
    let answer = format!("{BEGIN}{}{CHAT_END}", chat("ok"));
    let (port, _seen) = provider(vec![Says::All(answer)]);
    let more = "price = { input = 3, output = 15 }\nlimits = { requests = \"10/1m\" }";
    let head = "[llm]\nbudgets = [{ user = \"*\", tokens = 100000 }]\n";
    let (bed, _dir) = bed_of(port, head, more);
    bed.wait(bed.submit(&json!({"prompt": {"text": "?"}})));
    bed.wait(bed.submit(&json!({ "command": ["true"] })));
    let agent = json!({ "name": "a", "task": { "command": ["sleep", "600"] } });
    assert_eq!(bed.post("/v1/agents", &agent).expect("an agent").0, 201);
    let page = page(&bed);
    let there = named(&page);
    let (alerts, queries) = (monitoring("alerts.yml"), queries().join("\n"));
    for (file, text) in [("alerts.yml", &alerts), ("dashboard.json", &queries)] {
        let asked = named(text);
        assert!(asked.len() > 10, "{file}: {asked:?}");
        let missing: Vec<_> = asked.difference(&there).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}");
    }
    // The other way round: what is told is shown or watched somewhere.
    let families: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE taskdaemon_")?.split(' ').next())
        .collect();
    let unseen: Vec<_> = families
        .iter()
        .filter(|name| !alerts.contains(**name) && !queries.contains(**name))
        .collect();
    let told = [
        "build_info",
        "degraded",
        "last_event",
        "reader_answered",
        "run_as_policy_unreadable",
    ];
    assert_eq!(unseen, told.iter().collect::<Vec<_>>());
}

/// Runs promtool on files of a directory; none where it is not installed.
fn promtool(dir: &Path, args: &[&str]) -> Option<String> {
    let made = Command::new("promtool")
        .args(args)
        .current_dir(dir)
        .output();
    let made = made.ok()?;
    let said = String::from_utf8_lossy(&[made.stdout, made.stderr].concat()).into_owned();
    assert!(made.status.success(), "{args:?}: {said}");
    Some(said)
}

/// Rules are read as a server reads them, and three of them strike when they should and not before.
#[test]
fn promtool_finds_nothing_wrong_with_alerts_and_dashboard() {
    let dir = tempfile::tempdir().expect("directory");
    let write =
        |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("write");
    write("alerts.yml", &monitoring("alerts.yml"));
    let record = |(number, query): (usize, &String)| json!({ "record": format!("query_{number}"), "expr": query });
    let queries = queries();
    let rules: Vec<Value> = queries.iter().enumerate().map(record).collect();
    // What is JSON is YAML.
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    write("dashboard.yml", &rules.to_string());
    write("tests.yml", STRIKE);
    let Some(said) = promtool(
        dir.path(),
        &["check", "rules", "alerts.yml", "dashboard.yml"],
    ) else {
        eprintln!("left out: there is no promtool (apt install prometheus)");
        return;
    };
    assert!(
        said.contains(&format!("{} rules found", queries.len())),
        "{said}"
    );
    promtool(dir.path(), &["test", "rules", "tests.yml"]);
}

const STRIKE: &str = r#"
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'taskdaemon_health{instance="a",job="taskdaemon",part="store"}'
        values: '0x10 2x10'
      - series: 'taskdaemon_queue_oldest_seconds{instance="a",job="taskdaemon",queue="slow"}'
        values: '4000x20'
      - series: 'taskdaemon_queue_oldest_seconds{instance="a",job="taskdaemon",queue="still"}'
        values: '4000x20'
      - series: 'taskdaemon_queue_paused{instance="a",job="taskdaemon",queue="slow"}'
        values: '0x20'
      - series: 'taskdaemon_queue_paused{instance="a",job="taskdaemon",queue="still"}'
        values: '1x20'
      - series: 'taskdaemon_attempts_ended_total{instance="a",job="taskdaemon",class="exit"}'
        values: '0+6x20'
      - series: 'taskdaemon_attempts_ended_total{instance="a",job="taskdaemon",class="success"}'
        values: '0+2x20'
    promql_expr_test:
      - expr: count by (alertname, part, queue) (ALERTS{alertstate="firing"})
        eval_time: 9m
        exp_samples:
          - { labels: '{alertname="TaskdaemonQueueWaits",queue="slow"}', value: 1 }
          - { labels: '{alertname="TaskdaemonAttemptsFail"}', value: 1 }
      - expr: count by (alertname, part, queue) (ALERTS{alertstate="firing"})
        eval_time: 14m
        exp_samples:
          - { labels: '{alertname="TaskdaemonUnhealthy",part="store"}', value: 1 }
          - { labels: '{alertname="TaskdaemonQueueWaits",queue="slow"}', value: 1 }
          - { labels: '{alertname="TaskdaemonAttemptsFail"}', value: 1 }
"#;

/// `promtool check metrics` reads the page as a server does, and judges names, units and help texts.
#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("left out: there is no promtool (apt install prometheus)");
        return;
    }
    let (port, _seen) = provider(Vec::new());
    let (bed, _dir) = bed_with(port, "limits = { requests = \"10/1m\" }");
    bed.wait(bed.submit(&json!({ "command": ["true"] })));
    let page = page(&bed);
    assert!(page.contains("taskdaemon_model_limit_left{"), "{page}");
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let mut input = tool.stdin.take().expect("a pipe");
    input.write_all(page.as_bytes()).expect("write");
    drop(input);
    let judged = tool.wait_with_output().expect("promtool");
    let said = [judged.stdout, judged.stderr].concat();
    assert!(
        judged.status.success(),
        "{}\n{page}",
        String::from_utf8_lossy(&said)
    );
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
