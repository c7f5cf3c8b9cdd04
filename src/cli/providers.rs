//! `provider`: who serves models, and how the accounts with them stand.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use crate::api::asked::{PromptRule, Submit};
use crate::api::models::{LimitInfo, ModelInfo, ModelList};
use crate::api::number::Span;
use crate::client;

use super::hand_in::{Waiting, hand_in};
use super::page::utc;
use super::text::{escape, table};
use super::{Failure, Outcome, Setting};

pub(super) mod budgets;

/// What to do about providers.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List models, who serves them, and what is left of their limits
    List,
    /// Show one model with its limits, and what it was used for
    Show(Which),
    /// Ask a model for one word, and say what came of it
    Test(Which),
}

/// A model.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Model, by its name in the configuration
    #[arg(value_name = "MODEL")]
    model: String,
}

/// `provider`.
pub(super) async fn provider(verb: Verb, setting: &Setting) -> Outcome {
    match verb {
        Verb::List => list(setting).await,
        Verb::Show(which) => show(&which, setting).await,
        Verb::Test(which) => test(&which, setting).await,
    }
}

async fn list(setting: &Setting) -> Outcome {
    let answer = setting.client()?.get("/v1/models").await?;
    let list: ModelList = answer.read()?;
    let mut out = io::stdout().lock();
    if setting.json {
        for model in &list.models {
            serde_json::to_writer(&mut out, model).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    } else if list.models.is_empty() {
        writeln!(
            out,
            "no models: an admin names them in section [llm] of the configuration"
        )?;
    } else {
        out.write_all(rows(&list.models).as_bytes())?;
        out.write_all(budgets::rows(&list.budgets).as_bytes())?;
    }
    Ok(0)
}

fn rows(models: &[ModelInfo]) -> String {
    let head = [
        "MODEL", "PROVIDER", "HEALTH", "CALLS", "LEFT", "DAY", "TOKENS", "COST",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for model in models {
        let spent = &model.spent;
        rows.push(vec![
            model.name.clone(),
            model.provider.clone(),
            model.health.clone(),
            calls(model),
            least(&model.limits),
            spent.calls.to_string(),
            (spent.input_tokens + spent.output_tokens).to_string(),
            spent
                .cost
                .map_or_else(|| "-".to_owned(), |cost| format!("{cost:.4}")),
        ]);
    }
    table(&rows)
}

fn calls(model: &ModelInfo) -> String {
    match model.concurrency {
        Some(most) => format!("{} of {most}", model.running),
        None => model.running.to_string(),
    }
}

/// The limit of which the smallest part is left.
fn least(limits: &[LimitInfo]) -> String {
    let percent = |limit: &LimitInfo| limit.left.saturating_mul(100) / limit.most.max(1);
    let least = limits.iter().min_by_key(|limit| percent(limit));
    least.map_or_else(
        || "-".to_owned(),
        |limit| format!("{} % of {}", percent(limit).max(0), limit.what),
    )
}

async fn show(which: &Which, setting: &Setting) -> Outcome {
    let answer = setting.client()?.get(&path(which)?).await?;
    let mut out = io::stdout().lock();
    if setting.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
        return Ok(0);
    }
    out.write_all(describe(&answer.read()?).as_bytes())?;
    Ok(0)
}

fn path(which: &Which) -> Result<String, Failure> {
    // As the configuration has it for names.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if which.model.is_empty() || !which.model.bytes().all(fits) {
        let told = format!("`{}` is no name of a model", escape(&which.model));
        return Err(Failure::Usage(told));
    }
    Ok(format!("/v1/models/{}", which.model))
}

fn describe(model: &ModelInfo) -> String {
    let spent = &model.spent;
    let until = model.until.map(|until| format!(", until {}", utc(until)));
    let waits = model.reason.as_ref();
    let waits = waits.map(|reason| format!("{reason}{}", until.unwrap_or_default()));
    let price = model.price.map(|price| {
        let (input, output) = (price.input.amount(), price.output.amount());
        format!("{input} in, {output} out, for a million tokens")
    });
    let unknown = match spent.unknown {
        0 => String::new(),
        count => format!(", {count} with an unknown end"),
    };
    let cost = spent.cost.map(|cost| format!(", cost {cost:.4}"));
    let used = format!(
        "{} calls, {} tokens in, {} out{}{unknown}",
        spent.calls,
        spent.input_tokens,
        spent.output_tokens,
        cost.unwrap_or_default()
    );
    let facts = [
        ("model", Some(model.name.clone())),
        ("provider", Some(model.provider.clone())),
        ("serves", Some(model.serves.clone())),
        ("health", Some(model.health.clone())),
        ("waits", waits),
        ("calls", Some(calls(model))),
        ("price", price),
        (
            "fallback",
            (!model.fallback.is_empty()).then(|| model.fallback.join(", ")),
        ),
        ("day", Some(used)),
    ];
    let mut out = String::new();
    for (name, value) in facts {
        if let Some(value) = value {
            out.push_str(&format!("{name:<9} {}\n", escape(&value)));
        }
    }
    if !model.limits.is_empty() {
        let mut rows = vec![
            ["LIMIT", "OF", "LEFT", "AT MOST"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(model.limits.iter().map(|limit| {
            let (left, most) = (limit.left.to_string(), limit.most.to_string());
            vec![limit.quota.clone(), limit.what.clone(), left, most]
        }));
        out.push('\n');
        out.push_str(&table(&rows));
    }
    out
}

/// A prompt like any other, so that all that stands in its way shows.
async fn test(which: &Which, setting: &Setting) -> Outcome {
    let order = Submit {
        prompt: Some(PromptRule {
            text: "Answer with the one word: ready".to_owned(),
            model: Some(which.model.clone()),
            max_tokens: Some(16),
            ..PromptRule::default()
        }),
        name: Some("provider test".to_owned()),
        key: Some(client::random_key()?),
        timeout: Some(Span(std::time::Duration::from_secs(60))),
        retry: Some(crate::api::asked::RetryRule {
            max_attempts: Some(1),
            ..Default::default()
        }),
        ..Submit::default()
    };
    let how = Waiting {
        wait: false,
        follow: true,
    };
    hand_in(&order, how, setting).await
}
