//! Agents: where each instance stands, why and until when, and what one does to
//! them.

use maud::{Markup, html};

use crate::api::agents::told::{AgentInfo, AgentPage, InstanceInfo};
use crate::api::pairs::encode;
use crate::api::problem::Wire;
use crate::api::visit::Visit;

use super::frame::{Page, button, careful, field, form};
use super::parts::{brief, state, when};

pub(super) async fn page(visit: &Visit) -> Result<Page, Wire> {
    let cursor = Visit::value(&visit.query, "cursor");
    let cursor = cursor.map(|at| format!("&cursor={}", encode(at)));
    let path = format!("/v1/agents?limit=50{}", cursor.unwrap_or_default());
    let list: AgentPage = visit.get(&path).await?;
    let may = visit.may("POST", "/v1/agents");
    let body = html! {
        h1 { "Agents" }
        div #agents data-live="" {
            @if list.agents.is_empty() { p .quiet { "There is none yet." } } @else { (table(visit, &list, may)) }
        }
        @if let Some(next) = list.next { p { a href={ "/agents?cursor=" (next) } rel="next" { "More" } } }
        @if may { section { h2 { "Add" } (add(visit)) } }
    };
    Ok(Page::new("Agents", "/agents", body))
}

fn table(visit: &Visit, list: &AgentPage, may: bool) -> Markup {
    html! {
        div .wide tabindex="0" role="region" aria-label="Agents" {
            table {
                thead { tr {
                    th scope="col" { "Agent" } th scope="col" { "State" } th .number scope="col" { "Since" }
                    th scope="col" { "Why" } th .number scope="col" { "Restarts" } th .number scope="col" { "Run" }
                    @if may { th scope="col" { "Change" } }
                } }
                tbody {
                    @for agent in &list.agents {
                        @for one in &agent.instances { (row(visit, agent, one, may)) }
                    }
                }
            }
        }
    }
}

fn row(visit: &Visit, agent: &AgentInfo, one: &InstanceInfo, may: bool) -> Markup {
    let is_first = one.instance == 1;
    html! {
        tr {
            th scope="row" {
                (agent.name)
                @if agent.instances.len() > 1 { span .quiet { " " (one.instance) } }
                @if is_first { div .quiet { code { (brief(&agent.command)) } } }
            }
            td { (state(&one.phase)) }
            td .number { (when(one.since)) }
            td .why {
                (one.why.as_deref().or(one.status.as_deref()).unwrap_or_default())
                @if let Some(until) = one.until { ", " (when(until)) }
            }
            td .number data-label="restarts" {
                (one.restarts)
                @if one.in_row > 0 { ", " (one.in_row) " in a row" }
            }
            td .number data-label="run" {
                @if let Some(task) = one.task { a href={ "/tasks/" (task) } { (task) } }
            }
            @if may { td { @if is_first { (acts(visit, agent)) } } }
        }
    }
}

fn acts(visit: &Visit, agent: &AgentInfo) -> Markup {
    let act = |verb: &str| format!("/agents/{}/{verb}", agent.id);
    let is_wanted = agent.instances.iter().any(|one| one.wanted);
    let sure = |verb: &str| format!("{verb} agent {}?", agent.name);
    html! {
        div .acts {
            @if is_wanted {
                (button(visit, &act("restart"), "Restart", ""))
                (careful(visit, &act("stop"), "Stop", &sure("Stop")))
            } @else {
                (button(visit, &act("start"), "Start", "main"))
            }
            (careful(visit, &act("remove"), "Remove", &sure("Remove")))
        }
    }
}

fn add(visit: &Visit) -> Markup {
    let rules = [
        ("always", "always"),
        ("on-failure", "when it failed"),
        ("no", "never"),
    ];
    let body = html! {
        div .grid {
            p .field {
                label for="agent-name" { "Name" }
                input type="text" id="agent-name" name="name" required autocomplete="off" spellcheck="false";
            }
            p .field .long {
                label for="agent-command" { "Command, as a shell reads it" }
                input type="text" id="agent-command" name="command" required
                    autocomplete="off" autocapitalize="off" spellcheck="false";
            }
            (field("instances", "instances", "Instances", "1", ""))
            (field("memory", "memory", "Memory", "no limit, or 1GiB", ""))
            p .field {
                label for="restart" { "Started again" }
                select id="restart" name="restart" {
                    @for (word, text) in rules { option value=(word) { (text) } }
                }
            }
        }
        button .main { "Add" }
    };
    form(visit, "/agents", body)
}
