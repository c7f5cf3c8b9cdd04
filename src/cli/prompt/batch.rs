//! `prompt --batch`: a file of prompts, each a task of its own.
//!
//! The key of each prompt comes from what the file says, what goes with it and
//! its line. So the same command again makes none a second time, whatever came
//! in between, and goes on where it was.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::task::LocalSet;

use crate::api::asked::{Accepted, Submit};
use crate::api::budgets::{BatchRule, BudgetInfo, BudgetRule};
use crate::client::{self, Client};
use crate::engine::budgets::BATCH;
use crate::model::price::Money;

use super::super::interrupt::Interrupt;
use super::super::{Failure, Outcome, Setting, batch, complain};
use super::lot;
use super::progress::{again, wait};
use super::results::{Over, Results};
use super::rows::{Common, Row, Rows};
use super::{Args as PromptArgs, order, rule};

/// Most prompts of one call.
const CALL_ROWS: usize = 1_000;
/// Bytes after which another call is made: half of what the daemon takes by
/// default.
const CALL_BYTES: usize = 8 * 1024 * 1024;
/// Label that all prompts of a file have.
const LABEL: &str = "batch";

/// Many prompts at once.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub(super) struct Args {
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["text", "file", "follow"],
        help = "Ask all prompts of a file of JSON lines: a text, or an object with text, id, model, \
                system, max_tokens, vars. The same command again asks none twice and goes on"
    )]
    batch: Option<PathBuf>,
    /// Wait, and write all answers to this file, a JSON object a line, in the file's order
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Ask those prompts of the file again that have failed before
    #[arg(long)]
    retry_failed: bool,
    /// As batches of the provider: half the price, answered within a day
    #[arg(long, conflicts_with_all = ["schema", "repairs", "stdin_from"])]
    provider_batch: bool,
}

impl Args {
    /// Whether there is a file of prompts.
    pub(super) const fn is_given(&self) -> bool {
        self.batch.is_some()
    }

    /// Whether those that have failed are asked again.
    pub(super) const fn retries(&self) -> bool {
        self.retry_failed
    }

    /// The file of prompts, if there is one, which the rest goes with.
    pub(super) fn file(&self) -> Result<Option<&Path>, Failure> {
        let lone = [
            ("--out", self.out.is_some()),
            ("--retry-failed", self.retry_failed),
            ("--provider-batch", self.provider_batch),
        ];
        let lone = lone.into_iter().find(|(_, given)| *given);
        match (&self.batch, lone) {
            (None, Some((flag, _))) => {
                Err(Failure::Usage(format!("{flag} goes with --batch only")))
            }
            (file, _) => Ok(file.as_deref()),
        }
    }
}

/// A prompt that is handed in.
#[derive(Debug)]
pub(super) struct Handed {
    /// Its line.
    pub(super) line: u32,
    /// What the line calls itself.
    pub(super) name: Option<Box<str>>,
    /// Number of its task.
    pub(super) task: i64,
    /// How it ended, where it is known to be over.
    pub(super) ended: Option<End>,
    /// What else is known of it then.
    pub(super) over: Option<Box<Over>>,
}

/// How a prompt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With an answer.
    Answered,
    /// In any other way.
    Failed,
}

impl End {
    /// The end that a state stands for, if it is one.
    pub(super) fn of(state: &str) -> Option<Self> {
        match state {
            "succeeded" => Some(Self::Answered),
            "failed" | "cancelled" | "skipped" | "expired" => Some(Self::Failed),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct AcceptedList {
    tasks: Vec<Accepted>,
}

/// Asks all prompts of a file.
pub(super) async fn prompt(path: &Path, args: &PromptArgs, setting: &Setting) -> Outcome {
    let (template, variables) = args.text.template()?;
    let common = Common {
        prompt: rule(args)?,
        template,
        variables,
    };
    let mut base = order(args, common.prompt.clone(), String::new())?;
    let name = args.name.clone().or_else(|| stem(path));
    let labels = &mut base.labels.0;
    labels
        .entry(LABEL.to_owned())
        .or_insert_with(|| name.unwrap_or_default());
    let (count, hash) = Rows::open(path, &common)?.check()?;
    let out = args.batch.out.as_deref();
    let results = out.map(|out| Results::begin(out, path)).transpose()?;
    if args.batch.provider_batch {
        let asked = lot::prompt(path, args, (&common, base), results, setting);
        return Box::pin(asked).await;
    }
    let mut entry = Entry {
        client: setting.client()?,
        path,
        prefix: match &args.key {
            Some(key) => key.clone(),
            None => prefix(hash, &base)?,
        },
        base,
        count,
        handed: Vec::new(),
        created: 0,
        prints: !args.wait && out.is_none(),
    };
    // Behind the keys, which have nothing to do with it.
    entry.base.budget = args.max_cost.map(|cost| shared(&entry.prefix, cost));
    let mut interrupt = Interrupt::listen()?;
    entry.all(&common, hash, &mut interrupt, setting).await?;
    entry.say();
    let Entry { client, handed, .. } = entry;
    let mut handed = handed;
    let waits = args.wait || results.is_some();
    let rest = async {
        if args.batch.retry_failed {
            again(&client, &mut handed).await?;
        }
        if !waits {
            return Ok(0);
        }
        let tally = wait(&client, &mut handed, setting).await?;
        if let Some(results) = results {
            let is_json = common.prompt.schema.is_some();
            results.collect(&client, &handed, is_json).await?;
        }
        let spent = match args.max_cost {
            Some(_) => spent(&client, &handed).await?,
            None => None,
        };
        tally.tell(spent.as_ref(), setting)
    };
    let told = match out {
        Some(out) => format!(
            "the prompts go on; the same command waits again and then writes {}",
            out.display()
        ),
        None => "the prompts go on; the same command waits again".to_owned(),
    };
    interrupt
        .unless(&told, LocalSet::new().run_until(rest))
        .await
}

/// The budget of a whole file.
pub(super) fn shared(prefix: &str, cost: Money) -> BudgetRule {
    let batch = BatchRule {
        name: prefix.to_owned(),
        cost: Some(cost),
        ..BatchRule::default()
    };
    BudgetRule {
        batch: Some(batch),
        ..BudgetRule::default()
    }
}

/// How the budget of a file stands.
async fn spent(client: &Client, handed: &[Handed]) -> Result<Option<BudgetInfo>, Failure> {
    for one in handed {
        match client.task(one.task).await {
            Ok(task) => {
                let mut budgets = task.budgets.into_iter();
                return Ok(budgets.find(|budget| budget.of == BATCH));
            }
            Err(client::Error::Refused(wire, _)) if wire.status == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// The name of a file without its ending.
fn stem(path: &Path) -> Option<String> {
    path.file_stem()
        .and_then(OsStr::to_str)
        .map(ToOwned::to_owned)
}

/// What the keys of a file's prompts begin with: what makes them what they are.
pub(super) fn prefix(hash: [u8; 32], base: &Submit) -> Result<String, Failure> {
    let mut all = Sha256::new();
    all.update(hash);
    all.update(serde_json::to_vec(base).map_err(io::Error::from)?);
    let all: [u8; 32] = all.finalize().into();
    let short = all.iter().take(16);
    Ok(short.map(|byte| format!("{byte:02x}")).collect())
}

/// A file on its way in.
struct Entry<'a> {
    client: Client,
    path: &'a Path,
    prefix: String,
    /// What all prompts have in common.
    base: Submit,
    /// How many there are.
    count: u32,
    handed: Vec<Handed>,
    created: u32,
    /// Whether the numbers of the tasks are printed.
    prints: bool,
}

impl Entry<'_> {
    /// Hands all in, in calls of a bounded size.
    async fn all(
        &mut self,
        common: &Common,
        hash: [u8; 32],
        interrupt: &mut Interrupt,
        setting: &Setting,
    ) -> Result<(), Failure> {
        let mut rows = Rows::open(self.path, common)?;
        let mut body: Vec<u8> = Vec::new();
        let mut called: Vec<(u32, Option<String>)> = Vec::new();
        while let Some(row) = rows.next()? {
            let (line, name) = (row.line, row.id.clone());
            let task = serde_json::to_vec(&self.task(row)).map_err(io::Error::from)?;
            let full = called.len() == CALL_ROWS || body.len() + task.len() > CALL_BYTES;
            if full && !called.is_empty() {
                self.call(&mut body, &mut called, interrupt, setting)
                    .await?;
            }
            body.extend_from_slice(if called.is_empty() {
                b"{\"tasks\":["
            } else {
                b","
            });
            body.extend_from_slice(&task);
            called.push((line, name));
        }
        if !called.is_empty() {
            self.call(&mut body, &mut called, interrupt, setting)
                .await?;
        }
        if rows.hash() != hash {
            let name = self.path.display();
            let why = format!("--batch {name}: was changed while it was read; ask again");
            return Err(Failure::Usage(why));
        }
        Ok(())
    }

    /// The request of a line.
    fn task(&self, row: Row) -> Submit {
        Submit {
            key: Some(format!("{}/{}", self.prefix, row.line)),
            name: row.id,
            prompt: Some(row.prompt),
            ..self.base.clone()
        }
    }

    async fn call(
        &mut self,
        body: &mut Vec<u8>,
        called: &mut Vec<(u32, Option<String>)>,
        interrupt: &mut Interrupt,
        setting: &Setting,
    ) -> Result<(), Failure> {
        body.extend_from_slice(b"]}");
        let (in_so_far, all) = (self.handed.len(), self.count);
        let told = format!(
            "{in_so_far} of {all} prompts are surely handed in; the same command hands in the rest, \
             each once"
        );
        let calling = async { Ok(self.client.submit(std::mem::take(body).into()).await) };
        let answer = interrupt.unless(&told, calling).await?;
        let answer = answer.map_err(|error| {
            if in_so_far > 0 {
                complain(&told);
            }
            placed(error, called, self.path)
        })?;
        let list: AcceptedList = answer.read()?;
        if self.prints {
            batch::print(&list.tasks, setting)?;
        }
        for ((line, name), one) in called.drain(..).zip(list.tasks) {
            self.created += u32::from(one.created);
            self.handed.push(Handed {
                over: None,
                line,
                name: name.map(String::into_boxed_str),
                task: one.id,
                ended: End::of(&one.state),
            });
        }
        Ok(())
    }

    /// What has become of the file.
    fn say(&self) {
        let name = self.path.display();
        let known = self.count - self.created;
        let ids = || self.handed.iter().map(|one| one.task);
        let (low, high) = (ids().min().unwrap_or(0), ids().max().unwrap_or(0));
        let created = self.created;
        complain(&match (created, known) {
            (0, _) => format!("all {known} prompts of {name} are there already ({low} to {high})"),
            (_, 0) => format!("{created} prompts accepted ({low} to {high})"),
            _ => {
                format!("{created} prompts accepted, {known} were there already ({low} to {high})")
            }
        });
    }
}

/// A refusal with the line that it is about.
fn placed(error: client::Error, called: &[(u32, Option<String>)], path: &Path) -> Failure {
    let client::Error::Refused(mut wire, after) = error else {
        return error.into();
    };
    let field = wire.field.as_deref().unwrap_or_default();
    let number = field
        .strip_prefix("tasks[")
        .and_then(|rest| rest.split(']').next());
    let line = number
        .and_then(|number| number.parse::<usize>().ok())
        .and_then(|number| called.get(number));
    let name = path.display();
    wire.detail = match line {
        Some((line, _)) => format!("{name}:{line}: {}", wire.detail),
        None => format!("{name}: {}", wire.detail),
    };
    client::Error::Refused(wire, after).into()
}
