//! Models and who serves them: what is left of their limits, whether they can
//! be asked now, and what they have cost.

use maud::{Markup, html};

use crate::api::budgets::BudgetInfo;
use crate::api::models::{LimitInfo, ModelInfo, ModelList};
use crate::api::problem::Wire;
use crate::api::visit::Visit;
use crate::model::price::Money;

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
            @if !list.budgets.is_empty() {
                h2 { "Budgets" }
                div .wide tabindex="0" role="region" aria-label="Budgets" {
                    table {
                        thead { tr {
                            th scope="col" { "Of" } th .number scope="col" { "Spent" }
                            th .number scope="col" { "Held" } th scope="col" { "Left" }
                            th scope="col" { "Begins anew" }
                        } }
                        tbody { @for budget in &list.budgets { (spend(budget)) } }
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

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A budget in rows: one of its money, one of its tokens, where they are limited.
fn spend(budget: &BudgetInfo) -> Markup {
    let money = |amount: f64| Money::of(amount).unwrap_or_default();
    html! {
        @if let Some(all) = budget.cost.map(money) {
            @let (spent, held) = (money(budget.cost_spent), money(budget.cost_held));
            @let gone = spent.and(held).micros();
            @let left = Money::from_micros(all.micros().saturating_sub(gone));
            tr {
                th scope="row" { (budget.of) }
                td .number data-label="spent" { (spent) }
                td .number data-label="held" { (held) }
                td { (bar(whole(left.micros()), whole(all.micros()), &format!("{left} of {all}"))) }
                td { @if let Some(until) = budget.until { (when(until)) } }
            }
        }
        @if let Some(all) = budget.tokens {
            @let left = all.saturating_sub(budget.tokens_spent).saturating_sub(budget.tokens_held);
            tr {
                th scope="row" { (budget.of) }
                td .number data-label="spent" { (budget.tokens_spent) " tokens" }
                td .number data-label="held" { (budget.tokens_held) " tokens" }
                td { (bar(whole(left), whole(all), &format!("{left} of {all} tokens"))) }
                td { @if let Some(until) = budget.until { (when(until)) } }
            }
        }
    }
}
