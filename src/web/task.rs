//! One task: why it waits, how its attempts went, what it writes, what it hangs
//! together with, and what happened to it.

use maud::{Markup, html};

use crate::api::dto::{AttemptInfo, TaskInfo};
use crate::api::events::EventPage;
use crate::api::graph::GraphInfo;
use crate::api::problem::Wire;
use crate::api::visit::Visit;

use super::frame::{Page, button, careful};
use super::parts::{bytes, clock_time, line, maybe, span, state, title, when, why};
use super::{events, graph};

/// The end of the output that stands in the page; the script reads all of it.
const TAIL: u32 = 64 * 1024;
/// Tasks in the picture.
const GRAPH: u32 = 60;

pub(super) async fn page(visit: &Visit, id: &str) -> Result<Page, Wire> {
    let task: TaskInfo = visit.get(&format!("/v1/tasks/{id}")).await?;
    let id = task.id;
    let log = visit.tail(&format!("/v1/tasks/{id}/log"), TAIL).await?;
    let path = format!("/v1/tasks/{id}/graph?limit={GRAPH}");
    let graph: GraphInfo = visit.get(&path).await?;
    let past: EventPage = visit
        .get(&format!("/v1/events?task={id}&limit=100"))
        .await?;
    let name = title(&task);
    let body = html! {
        h1 { "Task " (id) " " span .quiet { (name) } }
        div #task data-live="" { (head(visit, &task)) }
        section aria-labelledby="log-title" {
            h2 #log-title { "Output" }
            pre #log tabindex="0" data-log={ "/v1/tasks/" (id) "/log?follow=true" } {
                (String::from_utf8_lossy(&log))
            }
            p .quiet { a href={ "/v1/tasks/" (id) "/log" } download={ "task-" (id) ".log" } { "All of it, as a file" } }
        }
        section #attempts data-live="" { h2 { "Attempts" } (attempts(&task)) }
        @if graph.nodes.len() > 1 {
            section #graph data-live="" { h2 { "Hangs together with" } (graph::picture(&graph)) }
        }
        section { h2 { "How it is run" } (facts(&task)) }
        section #past data-live="" { h2 { "What happened" } (events::rows(&past.events)) }
    };
    Ok(Page::new(format!("Task {id}"), "/tasks", body))
}

fn head(visit: &Visit, task: &TaskInfo) -> Markup {
    let is_over = task.ended_at.is_some();
    let said = why(task);
    let act = |verb: &str| format!("/tasks/{}/{verb}", task.id);
    html! {
        p .house {
            (state(&task.state)) " "
            @if !said.0.is_empty() { span .bit { (said) " " } }
            @if let Some(started) = task.started_at { span .bit { "since " (when(started)) } }
            @if let Some(ended) = task.ended_at { span .bit { (when(ended)) } }
        }
        @if let Some(done) = task.progress {
            progress max="100" value=(done) aria-label="Progress" { (done) " %" }
        }
        @if visit.may("POST", "/v1/tasks/{id}/cancel") {
            div .acts {
                @if is_over { (button(visit, &act("retry"), "Retry", "main")) }
                @if task.state == "running" { (button(visit, &act("pause"), "Pause", "")) }
                @if task.state == "paused" { (button(visit, &act("resume"), "Resume", "main")) }
                @if !is_over {
                    (careful(visit, &act("cancel"), "Cancel", &format!("Cancel task {}?", task.id)))
                }
            }
        }
        dl .facts {
            (fact("Queue", html! { a href={ "/tasks?queue=" (task.queue) } { (task.queue) } }))
            (fact("Priority", html! { (task.priority) }))
            (fact("Of user", html! { (task.owner) }))
            (fact("Handed in", when(task.created_at)))
            (fact("Due", when(task.due_at)))
            (fact("Over", maybe(task.ended_at)))
            (fact("Tries", html! { (task.run.tries) " of " (task.run.max_attempts) }))
            @if let Some(outcome) = &task.outcome {
                (fact("Outcome", html! { (outcome.class) ": " (outcome.message) }))
            }
            @if let Some(number) = task.schedule {
                (fact("Made by", html! { a href={ "/schedules#s" (number) } { "schedule " (number) } }))
            }
        }
    }
}

fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn facts(task: &TaskInfo) -> Markup {
    let run = &task.run;
    let texts = [
        ("Directory", &run.cwd),
        ("As user", &run.user),
        ("Time limit", &run.timeout),
        ("Grace", &run.grace),
        ("Memory", &run.memory),
        ("Profile", &run.profile),
        ("Key", &task.key),
        ("Unique", &task.unique),
        ("Group", &task.group),
    ];
    html! {
        pre .command { (line(&run.words())) }
        dl .facts {
            @for (name, value) in texts {
                @if let Some(value) = value { (fact(name, html! { code { (value) } })) }
            }
            @for (name, value) in &task.labels.0 {
                (fact("Label", html! { code { (name) "=" (value) } }))
            }
            @for (name, value) in &run.env.0 {
                (fact("Variable", html! { code { (name) "=" (value) } }))
            }
        }
    }
}

fn attempts(task: &TaskInfo) -> Markup {
    let all = task.attempts.as_deref().unwrap_or_default();
    html! {
        @if all.is_empty() { p .quiet { "None yet." } } @else {
            div .wide tabindex="0" role="region" aria-label="Attempts" {
                table {
                    thead { tr {
                        th .number scope="col" { "No." } th scope="col" { "How" } th scope="col" { "Why" }
                        th .number scope="col" { "Began" } th .number scope="col" { "Took" }
                        th .number scope="col" { "CPU" } th .number scope="col" { "Memory" }
                        th .number scope="col" { "Output" }
                    } }
                    tbody { @for one in all { (attempt(one)) } }
                }
            }
        }
    }
}

fn attempt(one: &AttemptInfo) -> Markup {
    let took = one.started_at.zip(one.ended_at);
    let took = took.map(|(from, to)| span(to.0, from.0));
    let outcome = one.outcome.as_deref().unwrap_or("live");
    html! {
        tr {
            td .number { (one.number) }
            td { (state(outcome)) }
            td .why {
                (one.message.as_deref().unwrap_or_default())
                @if let Some(call) = &one.call {
                    " " (call.model)
                    @if let Some(cost) = call.cost { ", cost " (format!("{cost:.4}")) }
                }
            }
            td .number data-label="began" { @match one.started_at { Some(at) => (clock_time(at)), None => "–" } }
            td .number data-label="took" { (took.as_deref().unwrap_or("–")) }
            td .number data-label="CPU" { @if let Some(cpu) = one.cpu_seconds { (format!("{cpu:.2} s")) } }
            td .number data-label="memory" { @if let Some(peak) = one.memory_peak_bytes { (bytes(peak)) } }
            td .number data-label="output" {
                (bytes(one.output_bytes))
                @if one.output_dropped_bytes > 0 { ", " (bytes(one.output_dropped_bytes)) " dropped" }
            }
        }
    }
}
