//! `prompt`: a question to a language model, handed in exactly once.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::Value;

use crate::api::asked::{PromptRule, Submit};
use crate::api::budgets::BudgetRule;
use crate::api::number::{Span, Word};
use crate::client;
use crate::model::price::Money;
use crate::model::schema::{SCHEMA_MAX, Schema};

use super::hand_in::{Waiting, hand_in};
use super::providers::budgets::money;
use super::submit::pairs;
use super::{Failure, Outcome, Setting, file};

mod batch;
mod lot;
mod progress;
mod results;
mod rows;
mod template;
mod text;

/// What to ask, and whom.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Model, by its name in the configuration [default: the first one there]
    #[arg(short, long, value_name = "NAME")]
    model: Option<String>,
    /// Instructions ahead of the text
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of the answer [default: as the model is configured]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// The most that it may cost over all its attempts, or with --batch all of them together
    #[arg(long, value_name = "AMOUNT", value_parser = money)]
    max_cost: Option<Money>,
    /// File with a JSON schema: the answer is JSON that is valid by it, or the prompt fails
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// How often the model may mend an answer that is not valid [default: 2]
    #[arg(long, value_name = "COUNT", requires = "schema")]
    repairs: Option<u32>,
    /// Queue
    #[arg(short, long, value_name = "NAME", help = "Queue [default: prompt]")]
    queue: Option<String>,
    /// Name for people
    #[arg(long)]
    name: Option<String>,
    /// Higher starts first, -1000 to 1000
    #[arg(short, long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Start when this task has succeeded, or is just over: 12, 12:any; several with commas
    #[arg(long, value_name = "ID[:ok|:any]", value_delimiter = ',')]
    after: Vec<String>,
    /// Put the standard output of this task behind the text, once it has succeeded
    #[arg(long, value_name = "ID")]
    stdin_from: Option<String>,
    /// Idempotency key: the same key never makes a second task
    #[arg(long)]
    key: Option<String>,
    /// Label to find it by, once for each
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Time limit of each attempt [default: 15m]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// Longest wait in the queue
    #[arg(long, value_name = "DURATION")]
    queue_ttl: Option<Span>,
    #[command(flatten)]
    hooks: super::hooks::Args,
    /// Wait until it is over, and end with its exit code
    #[arg(long)]
    wait: bool,
    /// Print the answer as it comes, and end with the exit code
    #[arg(short, long, conflicts_with = "wait")]
    follow: bool,
    #[command(flatten)]
    batch: batch::Args,
    #[command(flatten)]
    text: text::Args,
}

/// `prompt`.
pub(super) async fn prompt(args: &Args, setting: &Setting) -> Outcome {
    if let Some(path) = args.batch.file()? {
        return batch::prompt(path, args, setting).await;
    }
    let how = Waiting {
        wait: args.wait,
        follow: args.follow,
    };
    let prompt = PromptRule {
        text: args.text.compose()?,
        ..rule(args)?
    };
    let key = match &args.key {
        Some(key) => key.clone(),
        // Ours, so that a lost reply can be asked for again.
        None => client::random_key()?,
    };
    hand_in(&order(args, prompt, key)?, how, setting).await
}

/// What is asked, but for the text.
fn rule(args: &Args) -> Result<PromptRule, Failure> {
    Ok(PromptRule {
        text: String::new(),
        model: args.model.clone(),
        system: args.system.clone(),
        max_tokens: args.max_tokens,
        schema: args.schema.as_deref().map(schema).transpose()?,
        repairs: args.repairs,
        provider_batch: false,
    })
}

/// The request that asks it.
fn order(args: &Args, prompt: PromptRule, key: String) -> Result<Submit, Failure> {
    Ok(Submit {
        prompt: Some(prompt),
        queue: args.queue.clone(),
        name: args.name.clone(),
        priority: args.priority,
        labels: pairs(&args.label, "--label")?,
        after: args.after.iter().cloned().map(Word).collect(),
        stdin_from: args.stdin_from.clone().map(Word),
        key: Some(key),
        budget: args
            .max_cost
            .filter(|_| !args.batch.is_given())
            .map(BudgetRule::of_money),
        timeout: args.timeout,
        queue_ttl: args.queue_ttl,
        hooks: args.hooks.rules(),
        ..Submit::default()
    })
}

/// The schema in a file.
fn schema(path: &Path) -> Result<Value, Failure> {
    let name = path.display();
    let text = file::text("--schema", path, SCHEMA_MAX)?;
    let schema = serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("--schema {name}: is not JSON: {error}")))?;
    Schema::new(&schema).map_err(|why| Failure::Usage(format!("--schema {name}: {why}")))?;
    Ok(schema)
}
