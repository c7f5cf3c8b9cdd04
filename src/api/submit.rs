//! Taking tasks in: one, or up to ten thousand, all or none. What is wrong
//! with a field is found here, on a thread of many, and not on the engine's.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Request, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::clock;
use crate::engine::command::{Caller, Error, Submitted};
use crate::model::attempt::Limits;
use crate::model::depend::{self, Links, Named};
use crate::model::prompt::{self, Prompt, patience};
use crate::model::quantity::ByteSize;
use crate::model::retry::{Failure, Retry};
use crate::model::role::Role;
use crate::model::spec::{Conflict, DEFAULT_QUEUE, NewTask, Spec, Unique};
use crate::model::time::Time;
use crate::model::trace::Trace;

use super::asked::{Accepted, RetryRule, Submit};
use super::budgets::BudgetRule;
use super::identity::Standing;
use super::number::{Span, Word, parse_time};
use super::problem::Problem;
use super::{Shared, body, budgets, head, hooks, json, problem, prompts, run_as};

/// Most tasks in one request.
const BATCH_MAX: usize = 10_000;
/// Header with the idempotency key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// `POST /v1/tasks`.
pub(super) async fn submit(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Extension(standing): Extension<Standing>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    head::require_json(&parts.headers)?;
    let key = header_key(&parts.headers)?;
    let bytes = body::read(&shared, &parts.headers, body).await?;
    let mut asked: Submit = json::parse(&bytes)?;
    may_replace(standing, &asked)?;
    // Tasks go by the name that their submitter gave; one of ours says nothing to anybody.
    let request = head::own_name(&parts.headers).map(str::to_owned);
    let trace = parts.extensions.get::<Trace>().cloned();
    let now = clock::now();
    match asked.tasks.take() {
        None => {
            take_key(&mut asked, key.as_deref(), None)?;
            let refer = asked.refer.clone();
            let links = links(std::slice::from_ref(&asked))?;
            let mut task = new_task(asked, caller.uid, now)?;
            prompts::schemas(std::slice::from_ref(&task)).map_err(|(_, problem)| problem)?;
            bytes.accepted();
            let links = links.into_iter().next().unwrap_or_default();
            (task.after, task.stdin_from) = (links.after, links.stdin_from);
            (task.spec.request, task.spec.trace) = (request, trace);
            let tasks = vec![task];
            run_as::check_new(&shared, &caller, &tasks, |_| "user".to_owned()).await?;
            failpoint!("api/submit/before");
            let accepted = shared.handle.submit(caller, tasks).await?;
            failpoint!("api/submit/after");
            let first = accepted.first().ok_or_else(Problem::stopping)?;
            let first = wire(first, refer);
            Ok(json::answer(status(first.created), &first))
        }
        Some(list) => {
            if asked != Submit::default() {
                let detail = "cannot be combined with other fields: put them into each task";
                return Err(Problem::invalid("tasks", detail));
            }
            let refs: Vec<_> = list.iter().map(|asked| asked.refer.clone()).collect();
            let mut tasks = batch(list, key, caller.uid, now)?;
            for task in &mut tasks {
                task.spec.request.clone_from(&request);
                task.spec.trace.clone_from(&trace);
            }
            bytes.accepted();
            let field = |place| format!("tasks[{place}].user");
            run_as::check_new(&shared, &caller, &tasks, field).await?;
            let accepted = shared.handle.submit(caller, tasks).await.map_err(in_list)?;
            let pairs = accepted.iter().zip(refs);
            let answer = AcceptedList {
                tasks: pairs.map(|(one, refer)| wire(one, refer)).collect(),
            };
            let created = answer.tasks.iter().any(|task| task.created);
            Ok(json::answer(status(created), &answer))
        }
    }
}

/// The tasks that a body asks for, of nobody in particular.
pub(super) fn read(bytes: &[u8], now: Time) -> Result<Vec<NewTask>, Problem> {
    let mut asked: Submit = json::parse(bytes)?;
    let list = asked.tasks.take().unwrap_or_else(|| vec![asked]);
    let tasks = batch(list, None, 0, now)?;
    depend::check(&tasks).map_err(|(place, invalid)| problem::of_field(Some(place), &invalid))?;
    for task in &tasks {
        task.check(now)
            .map_err(|invalid| problem::of_field(None, &invalid))?;
    }
    Ok(tasks)
}

/// To take the place of a task is to cancel it, which is more than to submit.
fn may_replace(standing: Standing, asked: &Submit) -> Result<(), Problem> {
    let replaces = |asked: &Submit| {
        let unique = asked.unique.as_ref();
        unique.is_some_and(|rule| rule.on_conflict == Conflict::Replace)
    };
    let list = asked.tasks.iter().flatten();
    if standing.role.covers(Role::Own) || !list.chain([asked]).any(replaces) {
        return Ok(());
    }
    let detail = "on_conflict `replace` cancels a task, which takes the role `own`";
    Err(Problem::forbidden(detail))
}

/// An error about a list of one is about its first task, too.
fn in_list(error: Error) -> Problem {
    if let Error::Invalid {
        index: None,
        invalid,
    } = &error
    {
        return problem::of_field(Some(0), invalid);
    }
    error.into()
}

/// The answer to a list of tasks, in its order.
#[derive(Serialize, JsonSchema)]
pub(super) struct AcceptedList {
    tasks: Vec<Accepted>,
}

fn wire(submitted: &Submitted, refer: Option<String>) -> Accepted {
    Accepted {
        id: submitted.id.0,
        state: submitted.state.word().to_owned(),
        created: submitted.created,
        refer,
    }
}

const fn status(created: bool) -> StatusCode {
    if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    }
}

fn header_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let refuse = |detail| {
        let problem = Problem::bad("invalid", format!("Idempotency-Key: {detail}"));
        Err(Problem {
            field: Some("key".to_owned()),
            ..problem
        })
    };
    if values.next().is_some() {
        return refuse("was sent twice");
    }
    match value.to_str() {
        Ok("") => refuse("is empty"),
        Ok(key) if key.len() <= 255 => Ok(Some(key.to_owned())),
        Ok(_) => refuse("is longer than 255 bytes"),
        Err(_) => refuse("must be printable ASCII"),
    }
}

/// Gives a task the key of the request. Each task of a list gets one of its
/// own from it, so that a repeated list is recognised task by task.
fn take_key(asked: &mut Submit, header: Option<&str>, index: Option<usize>) -> Result<(), Problem> {
    let Some(header) = header else {
        return Ok(());
    };
    let whole = match index {
        None => header.to_owned(),
        Some(index) => format!("{header}/{index}"),
    };
    match &asked.key {
        Some(own) if *own != whole => {
            Err(Problem::invalid("key", "differs from the Idempotency-Key header").named(index))
        }
        Some(_) => Ok(()),
        None => {
            asked.key = Some(whole);
            Ok(())
        }
    }
}

fn batch(
    list: Vec<Submit>,
    key: Option<String>,
    owner: u32,
    now: Time,
) -> Result<Vec<NewTask>, Problem> {
    if list.is_empty() || list.len() > BATCH_MAX {
        let detail = format!("has {} entries; 1 to {BATCH_MAX} are allowed", list.len());
        return Err(Problem::invalid("tasks", detail));
    }
    let links = links(&list).map_err(|problem| match problem.field.as_deref() {
        // A list of one.
        Some("ref" | "after" | "stdin_from") => problem.named(Some(0)),
        _ => problem,
    })?;
    let mut tasks = Vec::with_capacity(list.len());
    for ((index, mut asked), links) in list.into_iter().enumerate().zip(links) {
        if asked.tasks.is_some() {
            return Err(Problem::invalid("tasks", "lists cannot be nested").named(Some(index)));
        }
        take_key(&mut asked, key.as_deref(), Some(index))?;
        let task = new_task(asked, owner, now).map_err(|problem| problem.named(Some(index)))?;
        let Links { after, stdin_from } = links;
        tasks.push(NewTask {
            after,
            stdin_from,
            ..task
        });
    }
    prompts::schemas(&tasks).map_err(|(index, problem)| problem.named(Some(index)))?;
    Ok(tasks)
}

/// What each task of a request waits for.
fn links(list: &[Submit]) -> Result<Vec<Links>, Problem> {
    let named = list.iter().map(|asked| Named {
        name: asked.refer.as_deref(),
        after: asked.after.iter().map(|word| word.0.as_str()).collect(),
        stdin_from: asked.stdin_from.as_ref().map(|word| word.0.as_str()),
    });
    depend::resolve(&named.collect::<Vec<_>>()).map_err(|(index, invalid)| {
        let index = (list.len() > 1).then_some(index);
        problem::of_field(index, &invalid)
    })
}

/// A task in the model's terms, but for what it waits for.
pub(super) fn new_task(mut asked: Submit, owner: u32, now: Time) -> Result<NewTask, Problem> {
    let body_hash = hash(&mut asked);
    let (budget, batch) = budgets::budget(asked.budget.take())?;
    let run_at = run_at(&asked, now)?;
    let deadline = asked.deadline.as_deref();
    let deadline = deadline.map(|text| moment("deadline", text)).transpose()?;
    let retry = match asked.retry.take() {
        Some(rule) => retry(rule)?,
        None if asked.prompt.is_some() => patience(),
        None => Retry::default(),
    };
    let hooks = hooks::hooks(asked.hooks.take().unwrap_or_default())?;
    let (prompt, stdin) = prompts::input(&mut asked)?;
    let umask = asked.umask.as_deref().map(umask).transpose()?;
    let queue = match prompt {
        None => DEFAULT_QUEUE,
        Some(_) => prompt::QUEUE,
    };
    let timeout = asked.timeout.map(Span::millis);
    let timeout = timeout.or_else(|| prompt.as_ref().map(Prompt::timeout_ms));
    let own_cap = prompt.as_ref().and_then(Prompt::output_cap);
    Ok(NewTask {
        owner,
        queue: asked.queue.unwrap_or_else(|| queue.to_owned()),
        priority: asked.priority.unwrap_or(0),
        name: asked.name.or(asked.refer),
        labels: asked.labels.0,
        run_at,
        deadline,
        key: asked.key,
        group: asked.group,
        unique: asked.unique.map(|rule| Unique {
            key: rule.key,
            on_conflict: rule.on_conflict,
        }),
        after: Vec::new(),
        stdin_from: None,
        batch,
        tick: None,
        body_hash,
        stdin,
        spec: Spec {
            argv: asked.command,
            env: asked.env.0,
            cwd: asked.cwd,
            user: asked.user,
            umask,
            limits: Limits {
                memory: asked.memory.map(ByteSize::bytes),
                cpu_milli: asked.cpu.map(|cores| cores.0),
                pids: asked.pids,
            },
            profile: asked.profile,
            timeout_ms: timeout,
            grace_ms: asked.grace.map(Span::millis),
            queue_ttl_ms: asked.queue_ttl.map(Span::millis),
            heartbeat_ms: asked.heartbeat.map(Span::millis),
            output_cap: asked.output_cap.map(ByteSize::bytes).or(own_cap),
            llm: asked.llm,
            budget,
            retry,
            on_interrupt: asked.on_interrupt.unwrap_or_default(),
            hooks,
            prompt,
            ..Spec::default()
        },
    })
}

/// What tells a repeated request from another one with the same key: the
/// fields, not the spaces between them. Without a key nobody asks.
fn hash(asked: &mut Submit) -> [u8; 32] {
    if asked.key.is_none() {
        return [0; 32];
    }
    let told = asked.budget.as_ref().map(BudgetRule::to_tell_apart);
    let budget = std::mem::replace(&mut asked.budget, told);
    let hash = Sha256::digest(serde_json::to_vec(asked).unwrap_or_default());
    asked.budget = budget;
    hash.into()
}

fn run_at(asked: &Submit, now: Time) -> Result<Option<Time>, Problem> {
    match (&asked.run_at, asked.delay) {
        (Some(_), Some(_)) => Err(Problem::invalid("delay", "cannot be combined with run_at")),
        (Some(text), None) => moment("run_at", text).map(Some),
        (None, Some(delay)) => Ok(Some(now.after(delay.0))),
        (None, None) => Ok(None),
    }
}

/// A time as the API takes it.
pub(super) fn moment(field: &'static str, text: &str) -> Result<Time, Problem> {
    parse_time(text).ok_or_else(|| {
        let detail = "is not a time with an offset, such as 2026-01-31T09:00:00+01:00";
        Problem::invalid(field, detail)
    })
}

fn umask(text: &str) -> Result<u32, Problem> {
    let octal = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|_| octal)
        .ok_or_else(|| Problem::invalid("umask", "must be octal digits, such as \"022\""))
}

fn retry(rule: RetryRule) -> Result<Retry, Problem> {
    let default = Retry::default();
    let base_ms = rule.backoff.map_or(default.base_ms, Span::millis);
    Ok(Retry {
        max_attempts: rule.max_attempts.unwrap_or(default.max_attempts),
        base_ms,
        factor_percent: rule
            .factor
            .map_or(default.factor_percent, |factor| factor.0),
        // Who asks for a long first wait and names no longest one means it.
        cap_ms: rule
            .backoff_max
            .map_or_else(|| default.cap_ms.max(base_ms), Span::millis),
        retry_on: failures("retry.retry_on", &rule.retry_on)?,
        no_retry_on: failures("retry.no_retry_on", &rule.no_retry_on)?,
    })
}

fn failures(field: &'static str, words: &[Word]) -> Result<Vec<Failure>, Problem> {
    let read = |word: &Word| {
        word.0
            .parse()
            .map_err(|why: String| Problem::invalid(field, why))
    };
    words.iter().map(read).collect()
}

impl Problem {
    /// The same problem, said of one task of a list.
    fn named(mut self, index: Option<usize>) -> Self {
        if let (Some(index), Some(field)) = (index, &self.field) {
            self.detail = format!("tasks[{index}].{}", self.detail);
            self.field = Some(format!("tasks[{index}].{field}"));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_micros(1_700_000_000_000_000);

    fn read(json: &str) -> Result<NewTask, Problem> {
        let asked: Submit = json::parse(json.as_bytes())?;
        let task = new_task(asked, 7, NOW)?;
        task.check(NOW)
            .map_err(|invalid| problem::of_field(None, &invalid))?;
        Ok(task)
    }

    #[test]
    fn every_field_reaches_the_model() {
        let task = read(
            r#"{"command":["a","b"],"env":{"X":"1"},"cwd":"/","user":"u","umask":"027",
                "stdin_base64":"AP8=","queue":"q","name":"n","priority":5,"labels":{"l":"v"},
                "delay":"1m30s","key":"k","timeout":"1h","grace":"5s","queue_ttl":"1d",
                "memory":"512MiB","cpu":"150%","pids":9,"output_cap":"1MiB","profile":"strict",
                "on_interrupt":"hold",
                "retry":{"max_attempts":3,"backoff":"20m","factor":1.5}}"#,
        )
        .unwrap();
        assert_eq!(task.owner, 7);
        assert_eq!(task.stdin.as_deref(), Some(&[0, 255][..]));
        assert_eq!(task.run_at.unwrap().since(NOW).as_secs(), 90);
        assert_eq!(task.spec.umask, Some(0o27));
        assert_eq!(task.spec.limits.cpu_milli, Some(1500));
        assert_eq!(task.spec.limits.memory, Some(512 << 20));
        assert_eq!(task.spec.timeout_ms, Some(3_600_000));
        assert_eq!(task.spec.retry.factor_percent, 150);
        assert_eq!(
            task.spec.retry.cap_ms, 1_200_000,
            "never below the first wait"
        );
        assert_ne!(task.body_hash, [0; 32]);
    }

    #[test]
    fn the_hash_is_of_the_fields_and_not_of_their_spelling() {
        let hash = |json: &str| read(json).unwrap().body_hash;
        let one = hash(r#"{"command":["a"],"key":"k"}"#);
        assert_eq!(one, hash(r#"{ "key": "k", "command": ["a"] }"#));
        assert_ne!(one, hash(r#"{"command":["b"],"key":"k"}"#));
    }

    /// A body, and the code, field and words of the answer to it.
    type Row = (
        &'static str,
        &'static str,
        Option<&'static str>,
        &'static str,
    );

    const BAD: &[Row] = &[
        ("", "bad_json", None, "empty"),
        ("null", "bad_json", None, "line 1 column 4"),
        ("[]", "bad_json", None, "a JSON object"),
        (
            r#"{"command":["a"],"retry":[3]}"#,
            "bad_json",
            None,
            "a JSON object",
        ),
        (r#"{"tasks":[[["a"]]]}"#, "bad_json", None, "a JSON object"),
        ("{", "bad_json", None, "line 1 column 1"),
        (r#"{"command":["a"]} x"#, "bad_json", None, "trailing"),
        ("\u{feff}{}", "bad_json", None, "line 1 column 1"),
        (
            r#"{"command":["a"],"command":["b"]}"#,
            "duplicate_field",
            Some("command"),
            "",
        ),
        (
            r#"{"command":["a"],"env":{"A":"1","A":"2"}}"#,
            "duplicate_field",
            Some("A"),
            "",
        ),
        (r#"{"command":["\ud800"]}"#, "bad_json", None, "column"),
        (
            r#"{"command":["a\u0000"]}"#,
            "invalid",
            Some("command"),
            "NUL",
        ),
        (
            r#"{"command":["a"],"priority":1.5}"#,
            "bad_json",
            None,
            "i32",
        ),
        (
            r#"{"command":["a"],"priority":1e400}"#,
            "bad_json",
            None,
            "out of range",
        ),
        (r#"{"command":["a"],"priority":-0}"#, "bad_json", None, ""),
        (
            r#"{"command":["a"],"priority":9007199254740993}"#,
            "bad_json",
            None,
            "i32",
        ),
        (r#"{"command":["a"],"priority":NaN}"#, "bad_json", None, ""),
        (
            r#"{"command":["a"],"priority":5000}"#,
            "invalid",
            Some("priority"),
            "1000",
        ),
        (
            r#"{"command":["a"],"timout":"1s"}"#,
            "unknown_field",
            Some("timout"),
            "did you mean `timeout`",
        ),
        (
            r#"{"command":["a"],"zzz":1}"#,
            "unknown_field",
            Some("zzz"),
            "column",
        ),
        (
            r#"{"command":["a"],"retry":{"max_atempts":1}}"#,
            "unknown_field",
            Some("max_atempts"),
            "max_attempts",
        ),
        (r#"{}"#, "invalid", Some("command"), "empty"),
        (r#"{"command":[]}"#, "invalid", Some("command"), "empty"),
        (
            r#"{"command":[""]}"#,
            "invalid",
            Some("command"),
            "empty program",
        ),
        (r#"{"command":"ls"}"#, "bad_json", None, "sequence"),
        (
            r#"{"command":["a"],"timeout":30}"#,
            "bad_json",
            None,
            "duration",
        ),
        (
            r#"{"command":["a"],"timeout":"30"}"#,
            "bad_json",
            None,
            "unit",
        ),
        (
            r#"{"command":["a"],"timeout":"0s"}"#,
            "invalid",
            Some("timeout"),
            "longer than zero",
        ),
        (
            r#"{"command":["a"],"memory":"512M"}"#,
            "bad_json",
            None,
            "unit",
        ),
        (
            r#"{"command":["a"],"memory":"1KiB"}"#,
            "invalid",
            Some("memory"),
            "1 MiB",
        ),
        (
            r#"{"command":["a"],"cpu":0}"#,
            "invalid",
            Some("cpu"),
            "cores",
        ),
        (
            r#"{"command":["a"],"cpu":"many"}"#,
            "bad_json",
            None,
            "cores",
        ),
        (
            r#"{"command":["a"],"cwd":"relative"}"#,
            "invalid",
            Some("cwd"),
            "absolute",
        ),
        (
            r#"{"command":["a"],"umask":"999"}"#,
            "invalid",
            Some("umask"),
            "octal",
        ),
        (
            r#"{"command":["a"],"stdin":"x","stdin_base64":"eA=="}"#,
            "invalid",
            Some("stdin"),
            "combined",
        ),
        (
            r#"{"command":["a"],"stdin_base64":"?"}"#,
            "invalid",
            Some("stdin_base64"),
            "base64",
        ),
        (
            // Bits left over: another text for the same byte.
            r#"{"command":["a"],"stdin_base64":"Zh=="}"#,
            "invalid",
            Some("stdin_base64"),
            "base64",
        ),
        (
            r#"{"command":["a"],"stdin_base64":"Zg"}"#,
            "invalid",
            Some("stdin_base64"),
            "padding",
        ),
        (
            r#"{"command":["a"],"run_at":"tomorrow"}"#,
            "invalid",
            Some("run_at"),
            "offset",
        ),
        (
            r#"{"command":["a"],"run_at":"2026-01-01T00:00:00Z","delay":"1s"}"#,
            "invalid",
            Some("delay"),
            "run_at",
        ),
        (
            r#"{"command":["a"],"key":""}"#,
            "invalid",
            Some("key"),
            "1 to 255",
        ),
        (
            r#"{"command":["a"],"env":{"NOTIFY_SOCKET":"x"}}"#,
            "invalid",
            Some("env"),
            "reserved",
        ),
        (
            r#"{"command":["a"],"on_interrupt":"panic"}"#,
            "bad_json",
            None,
            "`retry` or `hold`",
        ),
        (
            r#"{"command":["a"],"retry":{"max_attempts":3,"backoff":"2s","backoff_max":"1s"}}"#,
            "invalid",
            Some("retry.backoff"),
            "backoff_max",
        ),
    ];

    #[test]
    fn each_bad_body_has_one_clear_answer() {
        let deep = "[".repeat(10_000);
        let long = format!(r#"{{"command":["{}"]}}"#, "x".repeat(128 * 1024));
        let more = [
            (deep.as_str(), "bad_json", None, ""),
            (long.as_str(), "invalid", Some("command"), "131071"),
        ];
        for (json, code, field, words) in BAD.iter().copied().chain(more) {
            let shown: String = json.chars().take(80).collect();
            let problem = read(json).expect_err(&shown);
            assert_eq!(problem.code, code, "{shown}: {problem:?}");
            assert_eq!(problem.field.as_deref(), field, "{shown}: {problem:?}");
            assert!(problem.detail.contains(words), "{shown}: {problem:?}");
            assert_eq!(problem.status, StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn a_list_is_refused_as_a_whole_and_names_the_bad_item() {
        let item = |json: &str| json::parse::<Submit>(json.as_bytes()).unwrap();
        let good = || item(r#"{"command":["a"]}"#);
        let refused = |list| batch(list, None, 1, NOW).unwrap_err();
        assert_eq!(refused(vec![]).field.as_deref(), Some("tasks"));
        assert_eq!(
            refused(vec![good(); BATCH_MAX + 1]).field.as_deref(),
            Some("tasks")
        );
        let problem = refused(vec![good(), item(r#"{"command":["a"],"run_at":"x"}"#)]);
        assert_eq!(problem.field.as_deref(), Some("tasks[1].run_at"));
        let problem = refused(vec![item(r#"{"command":["a"],"umask":"x"}"#)]);
        assert_eq!(problem.field.as_deref(), Some("tasks[0].umask"));
        let problem = refused(vec![item(r#"{"tasks":[]}"#)]);
        assert_eq!(problem.field.as_deref(), Some("tasks[0].tasks"));
        let keyed = batch(vec![good(), good()], Some("k".to_owned()), 1, NOW).unwrap();
        let keys: Vec<_> = keyed.iter().map(|task| task.key.as_deref()).collect();
        assert_eq!(keys, [Some("k/0"), Some("k/1")]);
    }
}
