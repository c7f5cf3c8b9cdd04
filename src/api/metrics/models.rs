//! What the page says of models: how they stand now, and what was asked of
//! them. Labels are names of the configuration.

use crate::engine::snapshot::Snapshot;
use crate::model::gauge::Health;
use crate::model::time::Time;

use super::page::Page;
use super::{count, truth, whole};

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
        let ends = calls.ends.iter();
        ended.extend(ends.map(|(end, number)| (three(end), count(*number))));
        tokens.push((three("input"), count(calls.tokens.input)));
        tokens.push((three("output"), count(calls.tokens.output)));
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
