//! `prompt --batch FILE --provider-batch`: the prompts of a file as batches of
//! their provider. Each batch is a task, and as large as a task's input may be.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::api::asked::{PromptRule, Submit};
use crate::client::{self, Client};
use crate::model::check::STDIN_MAX;
use crate::model::lot::{Line, Row};

use super::super::interrupt::Interrupt;
use super::super::{Failure, Outcome, Setting, complain};
use super::Args;
use super::batch::{End, Handed, prefix, shared};
use super::progress::{again, wait};
use super::results::{Results, last_words};
use super::rows::{Common, Rows};

/// Bytes of a batch: room is left for what is around each of its lines.
const BATCH_BYTES: usize = STDIN_MAX - 1024;
/// Prompts of a batch.
const BATCH_ROWS: usize = 10_000;

/// Some prompts of a file, of one model.
#[derive(Debug, Default)]
struct Batch {
    model: Option<String>,
    /// Where they stand, and what they call themselves.
    lines: Vec<(u32, Option<String>)>,
    text: String,
}

/// The prompts of a file in batches, in its order.
fn batches(path: &Path, common: &Common) -> Result<(Vec<Batch>, [u8; 32]), Failure> {
    let mut rows = Rows::open(path, common)?;
    let mut all: Vec<Batch> = Vec::new();
    while let Some(row) = rows.next()? {
        let PromptRule {
            text,
            model,
            system,
            max_tokens,
            ..
        } = row.prompt;
        let line = Row {
            id: row.line.to_string(),
            text,
            system: system.filter(|own| common.prompt.system.as_ref() != Some(own)),
            max_tokens: max_tokens.filter(|own| common.prompt.max_tokens != Some(*own)),
        };
        let line = serde_json::to_string(&line).map_err(io::Error::from)?;
        if line.len() >= BATCH_BYTES {
            let (name, place) = (path.display(), row.line);
            let why = format!("{name}:{place}: is too long for a batch of its provider");
            return Err(Failure::Usage(why));
        }
        let fits = |last: &Batch| {
            last.model == model
                && last.lines.len() < BATCH_ROWS
                && last.text.len() + line.len() < BATCH_BYTES
        };
        if !all.last().is_some_and(fits) {
            all.push(Batch {
                model,
                ..Batch::default()
            });
        }
        if let Some(last) = all.last_mut() {
            last.lines.push((row.line, row.id));
            last.text.push_str(&line);
            last.text.push('\n');
        }
    }
    Ok((all, rows.hash()))
}

/// Batches on their way.
struct Entry<'a> {
    client: Client,
    all: Vec<Batch>,
    handed: Vec<Handed>,
    args: &'a Args,
    setting: &'a Setting,
}

/// Hands the batches of a file in, and waits where that is asked for.
pub(super) async fn prompt(
    path: &Path,
    args: &Args,
    (common, base): (&Common, Submit),
    results: Option<Results>,
    setting: &Setting,
) -> Outcome {
    let (all, hash) = batches(path, common)?;
    if all.is_empty() {
        let name = path.display();
        return Err(Failure::Usage(format!("{name}: there is no prompt in it")));
    }
    let prefix = match &args.key {
        Some(key) => key.clone(),
        None => prefix(hash, &base)?,
    };
    let client = setting.client()?;
    let mut handed = Vec::new();
    let mut interrupt = Interrupt::listen()?;
    let told = "the same command hands in the rest, each once, and waits";
    for batch in &all {
        let first = batch.lines.first().map_or(0, |(line, _)| *line);
        let task = Submit {
            key: Some(format!("{prefix}/from-{first}")),
            prompt: Some(PromptRule {
                text: batch.text.clone(),
                model: batch.model.clone(),
                provider_batch: true,
                ..common.prompt.clone()
            }),
            budget: args.max_cost.map(|cost| shared(&prefix, cost)),
            ..base.clone()
        };
        let body = serde_json::to_vec(&task).map_err(io::Error::from)?;
        let calling = async { Ok(client.submit(body.into()).await) };
        let accepted = interrupt.unless(told, calling).await??;
        let accepted: Accepted = accepted.read()?;
        handed.push(Handed {
            over: None,
            line: first,
            name: None,
            task: accepted.id,
            ended: End::of(&accepted.state),
        });
    }
    let entry = Entry {
        client,
        all,
        handed,
        args,
        setting,
    };
    let told = "the batches go on; the same command waits again";
    let local = LocalSet::new();
    let rest = Box::pin(local.run_until(entry.finish(results)));
    interrupt.unless(told, rest).await
}

impl Entry<'_> {
    /// Says what was handed in, and waits for it where that is asked for.
    async fn finish(mut self, results: Option<Results>) -> Outcome {
        let count: usize = self.all.iter().map(|batch| batch.lines.len()).sum();
        let ids = self.handed.iter().map(|one| one.task.to_string());
        let ids: Vec<_> = ids.collect();
        complain(&format!(
            "{count} prompts in {} of their provider's batches, which take up to a day: task {}",
            self.all.len(),
            ids.join(", ")
        ));
        if self.args.batch.retries() {
            again(&self.client, &mut self.handed).await?;
        }
        if !self.args.wait && results.is_none() {
            if !self.setting.json {
                writeln!(io::stdout().lock(), "{}", ids.join("\n"))?;
            }
            return Ok(0);
        }
        wait(&self.client, &mut self.handed, self.setting).await?;
        let mut lines = Vec::new();
        for (batch, one) in self.all.iter().zip(&self.handed) {
            lines.extend(fetch(&self.client, batch, one).await?);
        }
        let answered = lines.iter().filter(|line| line["error"].is_null()).count();
        if let Some(results) = results {
            results.write(&lines)?;
        }
        let failed = count - answered;
        if self.setting.json {
            let told = json!({"prompts": count, "answered": answered, "failed": failed});
            writeln!(io::stdout().lock(), "{told}")?;
        } else if failed > 0 {
            complain(&format!(
                "{answered} of {count} prompts answered, {failed} failed"
            ));
        } else {
            complain(&format!("{answered} of {count} prompts answered"));
        }
        Ok(u8::from(failed > 0))
    }
}

#[derive(serde::Deserialize)]
struct Accepted {
    id: i64,
    state: String,
}

/// What became of the prompts of a batch, a line of the results for each.
async fn fetch(client: &Client, batch: &Batch, one: &Handed) -> Result<Vec<Value>, Failure> {
    let (state, why) = match client.task(one.task).await {
        Ok(task) => {
            let said = client.output(one.task, "stderr").await?;
            let why = task.outcome.map(|outcome| outcome.message);
            (task.state, last_words(&said).or(why))
        }
        Err(client::Error::Refused(wire, _)) if wire.status == 404 => {
            let why = "the task is no longer kept".to_owned();
            ("gone".to_owned(), Some(why))
        }
        Err(error) => return Err(error.into()),
    };
    let output = match state.as_str() {
        "gone" => Bytes::new(),
        _ => client.output(one.task, "stdout").await?,
    };
    let mut known: HashMap<String, Line> = HashMap::new();
    for line in output.split(|byte| *byte == b'\n') {
        if let Ok(line) = serde_json::from_slice::<Line>(line) {
            known.insert(line.id.clone(), line);
        }
    }
    let of = |(line, id): &(u32, Option<String>)| {
        let found = known.remove(&line.to_string());
        let found = found.unwrap_or_else(|| Line {
            error: Some(
                why.clone()
                    .unwrap_or_else(|| "there is no answer".to_owned()),
            ),
            ..Line::default()
        });
        let good = found.error.is_none();
        json!({
            "line": line, "id": id, "task": one.task,
            "state": if good { "succeeded" } else if state == "succeeded" { "failed" } else { &*state },
            "answer": found.answer, "error": found.error,
            "tokens": {"input": found.input.unwrap_or(0), "output": found.output.unwrap_or(0)},
            "cost": null,
        })
    };
    Ok(batch.lines.iter().map(of).collect())
}
