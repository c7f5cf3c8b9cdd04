//! Schedules: make, list, show, change, and what comes next.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use hyper::{Request, StatusCode};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::engine::called::Called;
use crate::engine::command::Caller;
use crate::engine::reader::ScheduleView;
use crate::engine::schedules::Change;
use crate::model::id::ScheduleId;
use crate::model::quantity::format_duration;
use crate::model::schedule::bad::{BadWhen, BadZone};
use crate::model::schedule::due::{MOST, Missed, Overlap};
use crate::model::schedule::plan::{NewSchedule, Rule, Schedule, Shown, Template};
use crate::model::schedule::zone::Zone;
use crate::model::spec::NewTask;
use crate::model::time::Time;

use super::asked::Submit;
use super::dto::TaskInfo;
use super::json::object;
use super::number::{Span, Stamp};
use super::problem::{self, Problem};
use super::query::{Pairs, Params};
use super::{Shared, body, head, json, prompts, run_as, submit};

/// Schedules on a page when nobody says how many.
const PAGE: u32 = 100;
/// Most schedules on a page.
const PAGE_MAX: u32 = 1_000;
/// Coming times shown when nobody says how many.
const NEXT: u32 = 5;
/// Most coming times shown.
const NEXT_MAX: u32 = 1_000;
/// Tasks that `missed: all` makes when nobody says how many at most.
const MISSED_MOST: u32 = 100;

/// A schedule to be made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AskedSchedule {
    /// Its name.
    pub name: String,
    /// A cron expression, a calendar expression or an interval.
    pub when: String,
    /// IANA name of its time zone; the host's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What a new task does that finds the one before it not over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// What becomes of missed times: `skip`, `last` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<String>,
    /// With `missed` `all`, how many tasks at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed_most: Option<u32>,
    /// Longest delay behind the nominal time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// Take the place of a schedule of the same name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// The task it makes.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Submit")]
    pub task: Option<Submit>,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleInfo {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Uid of its owner.
    pub owner: u32,
    /// Whether it fires at no time.
    pub paused: bool,
    /// Its nominal times.
    pub when: String,
    /// Where they are told.
    pub zone: String,
    /// What a new task does that finds the one before it not over.
    pub overlap: Overlap,
    /// What becomes of missed times.
    pub missed: String,
    /// With `missed` `all`, how many tasks at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_most: Option<u32>,
    /// Longest delay behind the nominal time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// Queue of its tasks.
    pub queue: String,
    /// What its tasks run.
    pub command: Vec<String>,
    /// When it was made.
    pub created_at: Stamp,
    /// The next nominal time; none while paused, and when there is no other.
    pub next_at: Option<Stamp>,
    /// Its latest tasks, newest first; not in listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<TaskInfo>>,
}

/// A page of schedules.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SchedulePage {
    /// The schedules, in the order of their numbers.
    pub schedules: Vec<ScheduleInfo>,
    /// Where the next page begins; none on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// Coming times.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ComingTimes")]
pub struct Coming {
    /// The schedule's name.
    pub name: String,
    /// Its time zone.
    pub zone: String,
    /// The times.
    pub next: Vec<Stamp>,
}

impl From<&Schedule> for ScheduleInfo {
    fn from(schedule: &Schedule) -> Self {
        let rule = &schedule.rule;
        let (missed, missed_most) = match rule.missed {
            Missed::Skip => ("skip", None),
            Missed::Last => ("last", None),
            Missed::All { most } => ("all", Some(most)),
        };
        let jitter = std::time::Duration::from_millis(rule.jitter_ms);
        Self {
            id: schedule.id.0,
            name: schedule.name.clone(),
            owner: schedule.owner,
            paused: schedule.paused,
            when: rule.when.to_string(),
            zone: rule.zone.to_string(),
            overlap: rule.overlap,
            missed: missed.to_owned(),
            missed_most,
            jitter: (!jitter.is_zero()).then(|| format_duration(jitter)),
            queue: schedule.task.queue.clone(),
            command: schedule.task.spec.argv.clone(),
            created_at: Stamp(schedule.created),
            next_at: schedule.wake.filter(|_| !schedule.paused).map(Stamp),
            tasks: None,
        }
    }
}

impl From<&ScheduleView> for ScheduleInfo {
    fn from(view: &ScheduleView) -> Self {
        let tasks = view.latest.iter().map(TaskInfo::of_task).collect();
        Self {
            tasks: Some(tasks),
            ..Self::from(&view.schedule)
        }
    }
}

/// `POST /v1/schedules`.
pub(super) async fn add(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    head::require_json(&parts.headers)?;
    let bytes = body::read(&shared, &parts.headers, body).await?;
    let asked: AskedSchedule = json::parse(&bytes)?;
    let replace = asked.replace;
    let new = new_schedule(asked, caller.uid, clock::now())?;
    let wanted = std::iter::once(run_as::named(&new.task.spec));
    run_as::check(&shared, &caller, wanted, |_| "task.user".to_owned()).await?;
    let changed = shared.handle.add_schedule(caller, new, replace).await?;
    Ok(json::answer(
        StatusCode::CREATED,
        &ScheduleInfo::from(&changed.schedule),
    ))
}

/// `GET /v1/schedules`.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let mut params = Params::new(pairs, &["limit", "cursor"])?;
    let limit = params.number("limit", 1..=PAGE_MAX)?.unwrap_or(PAGE);
    let after = params.number("cursor", 1..=u32::MAX)?;
    let shown = Shown {
        owner: (!caller.admin).then_some(caller.uid),
        after: after.map(|id| ScheduleId(id.into())),
        limit: limit + 1,
    };
    let mut found = shared.handle.schedules(shown).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|last| last.id.0);
    let schedules = found.iter().map(ScheduleInfo::from).collect();
    Ok(json::answer(
        StatusCode::OK,
        &SchedulePage { schedules, next },
    ))
}

/// `GET /v1/schedules/{schedule}`.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let view = shared.handle.schedule(caller, called(name)).await?;
    Ok(json::answer(StatusCode::OK, &ScheduleInfo::from(&view)))
}

/// `GET /v1/schedules/{schedule}/next`.
pub(super) async fn next(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let mut params = Params::new(pairs, &["count"])?;
    let count = params.number("count", 1..=NEXT_MAX)?.unwrap_or(NEXT);
    let schedule = shared.handle.schedule(caller, called(name)).await?.schedule;
    let rule = &schedule.rule;
    let from = schedule.cursor.max(clock::now());
    let follow = |time: &Time| rule.when.next(&rule.zone, *time);
    let times = std::iter::successors(follow(&from), follow).take(count as usize);
    let coming = Coming {
        next: times.map(Stamp).collect(),
        zone: rule.zone.to_string(),
        name: schedule.name.clone(),
    };
    Ok(json::answer(StatusCode::OK, &coming))
}

/// `POST /v1/schedules/{schedule}/pause`, `resume` and `trigger`.
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path((name, verb)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let change = match verb.as_str() {
        "pause" => Change::Pause,
        "resume" => Change::Resume,
        "trigger" => Change::Trigger,
        _ => return Err(problem::no_route(&format!("/v1/schedules/{name}/{verb}"))),
    };
    let changed = shared
        .handle
        .change_schedule(caller, called(name), change)
        .await?;
    Ok(match &changed.task {
        Some(task) => json::answer(StatusCode::CREATED, &TaskInfo::of_task(task)),
        None => json::answer(StatusCode::OK, &ScheduleInfo::from(&changed.schedule)),
    })
}

/// `DELETE /v1/schedules/{schedule}`.
pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let changed = shared
        .handle
        .change_schedule(caller, called(name), Change::Remove)
        .await?;
    Ok(json::answer(
        StatusCode::OK,
        &ScheduleInfo::from(&changed.schedule),
    ))
}

/// A number is one; no name is a number.
fn called(text: String) -> Called<ScheduleId> {
    match text.parse() {
        Ok(number) => Called::Number(ScheduleId(number)),
        Err(_) => Called::Name(text),
    }
}

fn new_schedule(asked: AskedSchedule, owner: u32, now: Time) -> Result<NewSchedule, Problem> {
    let when = asked
        .when
        .parse()
        .map_err(|bad: BadWhen| Problem::invalid("when", bad.to_string()))?;
    let zone = match &asked.zone {
        Some(name) => name
            .parse()
            .map_err(|bad: BadZone| Problem::invalid("zone", bad.to_string()))?,
        None => host_zone(),
    };
    let missed = missed(asked.missed.as_deref(), asked.missed_most)?;
    let rule = Rule {
        when,
        zone,
        overlap: asked.overlap.unwrap_or_default(),
        missed,
        jitter_ms: asked.jitter.map_or(0, Span::millis),
    };
    let detail = "is missing: say what it runs, as for a task";
    let task = asked.task.ok_or_else(|| Problem::invalid("task", detail))?;
    if let Some(field) = task.names_others() {
        let detail = "has no meaning for a task that is made again and again";
        return Err(in_task(Problem::invalid(field, detail)));
    }
    let task = template(submit::new_task(task, owner, now).map_err(in_task)?, now)?;
    Ok(NewSchedule {
        owner,
        name: asked.name,
        rule,
        task,
    })
}

fn missed(word: Option<&str>, most: Option<u32>) -> Result<Missed, Problem> {
    match (word, most) {
        (None, None) => Ok(Missed::default()),
        (Some("skip"), None) => Ok(Missed::Skip),
        (Some("last"), None) => Ok(Missed::Last),
        (Some("all"), most) => Ok(Missed::All {
            most: most.unwrap_or(MISSED_MOST),
        }),
        (Some("skip" | "last") | None, Some(_)) => Err(Problem::invalid(
            "missed_most",
            "goes with `missed` = `all` only",
        )),
        (Some(_), _) => Err(Problem::invalid(
            "missed",
            format!("must be `skip`, `last` or `all` (with missed_most, 1 to {MOST})"),
        )),
    }
}

/// The zone in which this host tells the time.
fn host_zone() -> Zone {
    let system = TimeZone::system();
    let name = system.iana_name().and_then(|name| name.parse().ok());
    name.unwrap_or_else(Zone::utc)
}

/// The task of a schedule, without what has a meaning only once.
pub(super) fn template(task: NewTask, now: Time) -> Result<Template, Problem> {
    task.check(now)
        .map_err(|invalid| in_task(problem::of_field(None, &invalid)))?;
    prompts::schemas(std::slice::from_ref(&task)).map_err(|(_, problem)| in_task(problem))?;
    let once = [
        ("run_at", task.run_at.is_some()),
        ("deadline", task.deadline.is_some()),
        ("key", task.key.is_some()),
        ("unique", task.unique.is_some()),
        ("after", !task.after.is_empty()),
    ];
    if let Some((field, _)) = once.iter().find(|(_, there)| *there) {
        let detail = "has no meaning for a task that is made again and again";
        return Err(in_task(Problem::invalid(*field, detail)));
    }
    Ok(Template {
        queue: task.queue,
        priority: task.priority,
        name: task.name,
        labels: task.labels,
        group: task.group,
        stdin: task.stdin,
        spec: task.spec,
    })
}

/// The same problem, said of the schedule's task.
pub(super) fn in_task(problem: Problem) -> Problem {
    let Some(field) = &problem.field else {
        return problem;
    };
    Problem {
        detail: format!("task.{}", problem.detail),
        field: Some(format!("task.{field}")),
        ..problem
    }
}
