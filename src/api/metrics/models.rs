//! What the page says of models: how they stand now, and what was asked of
//! them. Labels are names of the configuration.

use std::collections::BTreeMap;

use crate::engine::budgets::Share;
use crate::engine::counted::Calls;
use crate::engine::snapshot::Snapshot;
use crate::model::budget::Purse;
use crate::model::gauge::Health;
use crate::model::receipt::End;
use crate::model::time::Time;

use super::page::{MICRO, Page};
use super::{count, truth, whole};

/// Budgets that are shown.
const BUDGETS: usize = 100;
const TWO: [&str; 2] = ["model", "provider"];
const HEALTH: [Health; 5] = [
    Health::Good,
    Health::Trying,
    Health::Held,
    Health::Open,
    Health::Barred,
];

/// How they stand.
pub(super) fn stand(page: &mut Page, snapshot: &Snapshot, now: Time) {
    let accounts = &snapshot.calls;
    let (mut running, mut open) = (Vec::new(), Vec::new());
    let (mut left, mut health) = (Vec::new(), Vec::new());
    for (name, route) in &accounts.routes {
        let Some(account) = accounts.accounts.get(&route.account) else {
            continue;
        };
        let labels = || [name.clone(), route.provider.clone()];
        let (gauge, shut) = account.now(now);
        running.push((labels(), f64::from(account.running)));
        open.push((labels(), truth(shut.is_none())));
        let is = gauge.health(now);
        for state in HEALTH {
            let [model, provider] = labels();
            let labels = [model, provider, state.word().to_owned()];
            health.push((labels, truth(state == is)));
        }
        for limit in gauge.left(&account.limits) {
            let [model, provider] = labels();
            let what = limit.dimension.words().to_owned();
            let labels = [model, provider, limit.quota.to_string(), what];
            left.push((labels, whole(limit.now)));
        }
    }
    page.gauges(
        "model_calls",
        "Calls of a model's account that are made now.",
        TWO,
        running,
    );
    page.gauges(
        "model_open",
        "Whether a small prompt would be sent to a model now.",
        TWO,
        open,
    );
    page.gauges(
        "model_state",
        "How a model's provider does: 1 in the row of its state, such as open for the breaker.",
        ["model", "provider", "state"],
        health,
    );
    page.gauges(
        "model_limit_left",
        "What is left of a limit of a model's account; negative is a debt.",
        ["model", "provider", "limit", "what"],
        left,
    );
}

/// What was asked of them since the start.
pub(super) fn used(page: &mut Page, snapshot: &Snapshot) {
    let (mut ended, mut tokens, mut cost) = (Vec::new(), Vec::new(), Vec::new());
    for (name, route) in &snapshot.calls.routes {
        let Some(calls) = snapshot.counted.calls.get(name) else {
            continue;
        };
        let labels = || [name.clone(), route.provider.clone()];
        let three = |word: &str| [name.clone(), route.provider.clone(), word.to_owned()];
        let ends = calls.took.iter();
        ended.extend(ends.map(|(end, took)| (three(end), count(took.count))));
        tokens.push((three("input"), count(calls.input.sum)));
        tokens.push((three("output"), count(calls.output.sum)));
        if route.price.is_some() {
            cost.push((labels(), calls.cost.amount()));
        }
    }
    page.counters(
        "model_calls_ended_total",
        "Calls of a model by how they ended; `refused` is the provider's 429.",
        ["model", "provider", "end"],
        ended,
    );
    page.counters(
        "model_tokens_total",
        "Tokens of a model that were used, as its provider counts.",
        ["model", "provider", "what"],
        tokens,
    );
    page.counters(
        "model_cost_total",
        "What calls of a model cost, in the currency of its price.",
        TWO,
        cost,
    );
}

/// The same as OpenTelemetry's conventions for clients of models have it, in the
/// spelling of this page.
pub(super) fn conventional(page: &mut Page, snapshot: &Snapshot) {
    // Several names here may be one model there.
    let mut asked: BTreeMap<[&str; 2], Calls> = BTreeMap::new();
    for (name, route) in &snapshot.calls.routes {
        if let Some(calls) = snapshot.counted.calls.get(name) {
            let whom = [&*route.provider, &*route.serves];
            asked.entry(whom).or_default().merge(calls);
        }
    }
    let labels = |[provider, model]: [&str; 2], last: &str| {
        ["chat", provider, model, last].map(ToOwned::to_owned)
    };
    let (mut tokens, mut took) = (Vec::new(), Vec::new());
    for (whom, calls) in &asked {
        tokens.push((labels(*whom, "input"), calls.input));
        tokens.push((labels(*whom, "output"), calls.output));
        took.extend(calls.took.iter().map(|(end, took)| {
            let error = if *end == End::Answered.word() {
                ""
            } else {
                end
            };
            (labels(*whom, error), *took)
        }));
    }
    let names = |last| {
        [
            "gen_ai_operation_name",
            "gen_ai_provider_name",
            "gen_ai_request_model",
            last,
        ]
    };
    page.spreads(
        "gen_ai_client_token_usage",
        "Tokens of calls of models, as their providers count.",
        names("gen_ai_token_type"),
        1.0,
        tokens,
    );
    page.spreads(
        "gen_ai_client_operation_duration_seconds",
        "From when calls of models were let go to their end.",
        names("error_type"),
        MICRO,
        took,
    );
}

/// What calls may come to today, of users and queues.
pub(super) fn budgets(page: &mut Page, shares: &[Share]) {
    let (mut limit, mut spent, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for share in shares.iter().take(BUDGETS) {
        let row = |unit: &str| [share.name.lane().to_owned(), unit.to_owned()];
        let Purse {
            spent: is,
            held: be,
        } = share.purse;
        if let Some(most) = share.cap.tokens {
            limit.push((row("tokens"), count(most)));
            spent.push((row("tokens"), count(is.tokens)));
            held.push((row("tokens"), count(be.tokens)));
        }
        if let Some(most) = share.cap.cost {
            limit.push((row("cost"), most.amount()));
            spent.push((row("cost"), is.cost.amount()));
            held.push((row("cost"), be.cost.amount()));
        }
    }
    for (name, help, rows) in [
        (
            "budget_limit",
            "What calls may come to on this day (UTC): user/UID or queue/NAME, tokens or cost.",
            limit,
        ),
        (
            "budget_spent",
            "What calls that are over came to on this day.",
            spent,
        ),
        (
            "budget_held",
            "The most that calls on their way may come to.",
            held,
        ),
    ] {
        page.gauges(name, help, ["budget", "unit"], rows);
    }
}
