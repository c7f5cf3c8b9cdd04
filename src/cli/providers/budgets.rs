//! Budgets, as they are asked for and shown.

use crate::api::budgets::BudgetInfo;
use crate::model::price::Money;

use super::super::text::escape;
use super::super::text::table;

/// An amount of money on the command line.
pub(in crate::cli) fn money(text: &str) -> Result<Money, String> {
    let amount = text.parse().ok().and_then(Money::of);
    amount.ok_or_else(|| "must be an amount between 0 and 1000000, such as 0.05".to_owned())
}

/// A table of them.
pub(in crate::cli) fn rows(budgets: &[BudgetInfo]) -> String {
    let head = ["BUDGET", "SPENT", "HELD", "OF"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for budget in budgets {
        let of = escape(&budget.of);
        if let Some(cost) = budget.cost {
            let (spent, held) = (amount(budget.cost_spent), amount(budget.cost_held));
            rows.push(vec![of.clone(), spent, held, amount(cost)]);
        }
        if let Some(tokens) = budget.tokens {
            let (spent, held) = (budget.tokens_spent, budget.tokens_held);
            let tokens = format!("{tokens} tokens");
            rows.push(vec![of, spent.to_string(), held.to_string(), tokens]);
        }
    }
    if rows.len() == 1 {
        return String::new();
    }
    format!("\n{}", table(&rows))
}

/// What has been spent of those with a limit, in words.
pub(in crate::cli) fn told(budget: &BudgetInfo) -> String {
    let cost = budget
        .cost
        .map(|cost| format!("{} of {}", amount(budget.cost_spent), amount(cost)));
    let tokens = budget
        .tokens
        .map(|tokens| format!("{} of {tokens} tokens", budget.tokens_spent));
    let both: Vec<_> = cost.into_iter().chain(tokens).collect();
    format!("{} spent of the budget of {}", both.join(", "), budget.of)
}

/// Money that was money before.
fn amount(amount: f64) -> String {
    Money::of(amount).map_or_else(|| amount.to_string(), |money| money.to_string())
}
