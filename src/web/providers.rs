//! Models and who serves them: what is left of their limits, whether they can
//! be asked now, and what they have cost.

use maud::{Markup, html};

use crate::api::models::{LimitInfo, ModelInfo, ModelList};
use crate::api::problem::Wire;
use crate::api::visit::Visit;

use super::frame::Page;
use super::parts::{bar, state, when};

pub(super) async fn page(visit: &Visit) -> Result<Page, Wire> {
    let list: ModelList = visit.get("/v1/models").await?;
    let body = html! {
        h1 { "Providers" }
        div #models data-live="" {
            @if list.models.is_empty() {
                p .quiet { "None is set: section " code { "[llm]" } " of the configuration names them." }
            } @else {
                div .wide tabindex="0" role="region" aria-label="Models" {
                    table {
                        thead { tr {
                            th scope="col" { "Model" } th scope="col" { "State" }
                            th .number scope="col" { "Calls" } th scope="col" { "Left" }
                            th .number scope="col" { "Calls in 24 h" } th .number scope="col" { "Tokens" }
                            th .number scope="col" { "Cost" }
                        } }
                        tbody { @for model in &list.models { (row(model)) } }
                    }
                }
            }
        }
    };
    Ok(Page::new("Providers", "/providers", body))
}

fn left(limit: &LimitInfo) -> Markup {
    let LimitInfo {
        what,
        quota,
        left,
        most,
    } = limit;
    let words = format!("{left} of {most} {what} at once, {quota}");
    bar(*left, *most, &words)
}

fn row(model: &ModelInfo) -> Markup {
    let spent = &model.spent;
    html! {
        tr {
            th scope="row" {
                (model.name)
                div .quiet { (model.serves) " at " (model.provider) ", account " (model.account) }
                @if !model.fallback.is_empty() { div .quiet { "else " (model.fallback.join(", ")) } }
            }
            td {
                (state(&model.health))
                @if let Some(reason) = &model.reason {
                    div .quiet { (reason) @if let Some(until) = model.until { ", " (when(until)) } }
                }
            }
            td .number data-label="calls" { (model.running) @if let Some(most) = model.concurrency { " of " (most) } }
            td {
                @for limit in &model.limits {
                    (left(limit))
                }
            }
            td .number data-label="in 24 h" { (spent.calls) @if spent.unknown > 0 { ", " (spent.unknown) " unknown" } }
            td .number data-label="tokens" { (spent.input_tokens) " in, " (spent.output_tokens) " out" }
            td .number data-label="cost" { @match spent.cost { Some(cost) => (format!("{cost:.4}")), None => "–" } }
        }
    }
}
