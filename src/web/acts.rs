//! What forms do: each becomes a request to a route of the API, which decides.

use std::fmt::Display;
use std::str::FromStr;

use hyper::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::asked::Accepted;
use crate::api::bulk::Counted;
use crate::api::number::Span;
use crate::api::pairs::encode;
use crate::api::problem::{Problem, Wire};
use crate::api::visit::Visit;
use crate::model::rate::Rate;

use super::frame::Page;
use super::{refusal, tasks};

/// Tasks that one form names at most: those of a page of the list.
const CHOSEN_MAX: usize = 200;

/// What comes after a form.
pub(super) enum Done {
    /// A page that is elsewhere.
    See(String),
    /// This page.
    Show(Page),
}

/// Does what a form asks for.
pub(super) async fn act(visit: &Visit, path: &[&str]) -> Result<Done, Wire> {
    match *path {
        ["tasks"] => hand_in(visit).await,
        ["tasks", verb @ ("cancel" | "retry")] => several(visit, verb).await,
        [
            "tasks",
            id,
            verb @ ("cancel" | "retry" | "pause" | "resume"),
        ] => {
            post(visit, &format!("/v1/tasks/{id}/{verb}")).await?;
            Ok(Done::See(format!("/tasks/{id}")))
        }
        ["queues"] => limits(visit).await,
        ["queues", name, "remove"] => {
            let path = format!("/v1/queues/{name}");
            visit.ask(Method::DELETE, &path, None).await?;
            Ok(Done::See("/queues".to_owned()))
        }
        ["queues", name, verb] => {
            post(visit, &format!("/v1/queues/{name}/{verb}")).await?;
            Ok(Done::See("/queues".to_owned()))
        }
        ["schedules"] => add(visit).await,
        ["schedules", id, "remove"] => {
            let path = format!("/v1/schedules/{id}");
            visit.ask(Method::DELETE, &path, None).await?;
            Ok(Done::See("/schedules".to_owned()))
        }
        ["schedules", id, verb] => {
            post(visit, &format!("/v1/schedules/{id}/{verb}")).await?;
            Ok(Done::See("/schedules".to_owned()))
        }
        ["agents"] => agent(visit).await,
        ["agents", id, "remove"] => {
            let path = format!("/v1/agents/{id}");
            visit.ask(Method::DELETE, &path, None).await?;
            Ok(Done::See("/agents".to_owned()))
        }
        ["agents", id, verb] => {
            post(visit, &format!("/v1/agents/{id}/{verb}")).await?;
            Ok(Done::See("/agents".to_owned()))
        }
        _ => Err(refusal(404, "no_form", "no form is sent to this address")),
    }
}

async fn post(visit: &Visit, path: &str) -> Result<Vec<u8>, Wire> {
    visit.ask(Method::POST, path, None).await
}

/// What stands in a field, read as the API reads it.
fn read<T>(visit: &Visit, field: &str) -> Result<Option<Value>, Problem>
where
    T: FromStr<Err: Display> + Serialize,
{
    let Some(text) = Visit::value(&visit.form, field) else {
        return Ok(None);
    };
    let value = text.parse::<T>().map_err(|error| {
        let shown: String = text.chars().take(40).collect();
        let detail = format!("`{shown}` means nothing here ({error}); nothing was changed");
        Problem::invalid(field, detail)
    })?;
    Ok(Some(json!(value)))
}

/// Fields that were filled in, which the API calls the same.
fn filled(visit: &Visit, fields: &[&str]) -> Map<String, Value> {
    let given = fields.iter().filter_map(|field| {
        let value = Visit::value(&visit.form, field)?;
        Some(((*field).to_owned(), json!(value)))
    });
    given.collect()
}

/// A line as a shell reads it.
fn shell(visit: &Visit) -> Value {
    let line = Visit::value(&visit.form, "command").unwrap_or_default();
    json!(["sh", "-c", line])
}

async fn hand_in(visit: &Visit) -> Result<Done, Wire> {
    let mut task = filled(visit, &["name", "queue"]);
    if let Some(delay) = read::<Span>(visit, "delay")? {
        task.insert("delay".to_owned(), delay);
    }
    task.insert("command".to_owned(), shell(visit));
    if let Some(once) = Visit::value(&visit.form, "once") {
        task.insert("key".to_owned(), json!(format!("web-{once}")));
    }
    if let Some(tries) = read::<u32>(visit, "tries")? {
        task.insert("retry".to_owned(), json!({ "max_attempts": tries }));
    }
    let body = Value::Object(task);
    let bytes = visit.ask(Method::POST, "/v1/tasks", Some(&body)).await?;
    let accepted: Accepted = serde_json::from_slice(&bytes)
        .map_err(|error| refusal(500, "internal", &error.to_string()))?;
    Ok(Done::See(format!("/tasks/{}", accepted.id)))
}

async fn several(visit: &Visit, verb: &str) -> Result<Done, Wire> {
    let chosen = tasks::filter(&visit.form);
    let count = if Visit::value(&visit.form, "all").is_some() {
        let is_sure = Visit::value(&visit.form, "sure").is_some();
        let count = all(visit, verb, &chosen, !is_sure).await?;
        if !is_sure {
            return Ok(Done::Show(tasks::sure(visit, verb, &count)));
        }
        count
    } else {
        each(visit, verb).await?
    };
    let Counted {
        changed, refused, ..
    } = count;
    let query = tasks::query(&chosen);
    Ok(Done::See(format!(
        "/tasks?{query}did={verb}&changed={changed}&refused={refused}"
    )))
}

/// All tasks that a filter selects.
async fn all(
    visit: &Visit,
    verb: &str,
    chosen: &[(&'static str, &str)],
    dry_run: bool,
) -> Result<Counted, Wire> {
    let mut body = json!({ "dry_run": dry_run });
    if chosen.is_empty() {
        body["all"] = json!(true);
    }
    for (name, value) in chosen {
        match *name {
            "state" => body["state"] = json!(value.split(',').collect::<Vec<_>>()),
            "label" => {
                let (name, text) = value.split_once('=').ok_or_else(|| {
                    refusal(
                        400,
                        "invalid",
                        "label: must be NAME=VALUE; nothing was changed",
                    )
                })?;
                body["labels"] = json!({ name: text });
            }
            other => body[other] = json!(value),
        }
    }
    let path = format!("/v1/tasks/{verb}");
    let bytes = visit.ask(Method::POST, &path, Some(&body)).await?;
    serde_json::from_slice(&bytes).map_err(|error| refusal(500, "internal", &error.to_string()))
}

/// The tasks that are named.
async fn each(visit: &Visit, verb: &str) -> Result<Counted, Wire> {
    let named = visit.form.iter().filter(|(name, _)| name == "id");
    let ids: Vec<&str> = named.map(|(_, id)| id.as_str()).collect();
    if ids.is_empty() {
        let detail =
            "no task is chosen: tick some, or use the button for all of them; nothing was changed";
        return Err(refusal(400, "none_chosen", detail));
    }
    if ids.len() > CHOSEN_MAX {
        let detail = "more than 200 tasks are named: use a filter; nothing was changed";
        return Err(refusal(400, "too_many_chosen", detail));
    }
    let mut count = Counted {
        matched: 0,
        changed: 0,
        refused: 0,
    };
    for id in ids {
        count.matched += 1;
        match post(visit, &format!("/v1/tasks/{id}/{verb}")).await {
            Ok(_) => count.changed += 1,
            // What is already over, or not yet, is no mistake of who chose many.
            Err(wire) if [404, 409].contains(&wire.status) => count.refused += 1,
            Err(wire) => return Err(wire),
        }
    }
    Ok(count)
}

async fn limits(visit: &Visit) -> Result<Done, Wire> {
    let name = Visit::value(&visit.form, "name").unwrap_or_default();
    let body = json!({
        "concurrency": read::<u32>(visit, "concurrency")?,
        "rate": read::<Rate>(visit, "rate")?,
        "group_limit": read::<u32>(visit, "group_limit")?,
    });
    let path = format!("/v1/queues/{}", encode(name));
    visit.ask(Method::PATCH, &path, Some(&body)).await?;
    Ok(Done::See("/queues".to_owned()))
}

async fn add(visit: &Visit) -> Result<Done, Wire> {
    let mut schedule = filled(visit, &["name", "when", "zone", "overlap"]);
    let mut task = filled(visit, &["queue"]);
    task.insert("command".to_owned(), shell(visit));
    schedule.insert("task".to_owned(), Value::Object(task));
    let body = Value::Object(schedule);
    visit
        .ask(Method::POST, "/v1/schedules", Some(&body))
        .await?;
    Ok(Done::See("/schedules".to_owned()))
}

async fn agent(visit: &Visit) -> Result<Done, Wire> {
    let mut agent = filled(visit, &["name", "restart"]);
    if let Some(instances) = read::<u32>(visit, "instances")? {
        agent.insert("instances".to_owned(), instances);
    }
    let mut task = filled(visit, &["memory"]);
    task.insert("command".to_owned(), shell(visit));
    agent.insert("task".to_owned(), Value::Object(task));
    let body = Value::Object(agent);
    visit.ask(Method::POST, "/v1/agents", Some(&body)).await?;
    Ok(Done::See("/agents".to_owned()))
}
