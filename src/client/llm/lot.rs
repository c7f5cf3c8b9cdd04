//! A provider's own batches: handed in, looked at until they are over, and
//! fetched. One way of doing that for both vendors; what they call it differs.
//!
//! Whether a batch was made is not always known: an answer may be lost, or the
//! one who was to hear it. So before another is made, the provider's own list
//! is asked, by a mark that each one bears.

use std::collections::HashMap;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::super::https::pool::Pool;
use super::{Failure, Usage};
use crate::clock;
use crate::model::lot::{self, Line, Order, Row};
use crate::model::prompt::Call;
use crate::model::receipt::End;

mod desk;
mod told;

use desk::{Desk, Search};
use told::{Look, line_of, look_of};

/// First pause between two looks, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What is told while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// What the provider calls the batch; none of one that failed as a whole.
    Named(Option<&'a str>),
    /// So many of its prompts are over.
    Done(u64, u64),
    /// Something may pass, and is waited for.
    Waits(&'a str),
}

/// A batch that is over.
#[derive(Debug)]
pub struct Told {
    /// A line for each prompt, in their order.
    pub lines: Vec<Line>,
    /// What all of them cost.
    pub usage: Usage,
    /// An attempt before had made it, and has been charged for it.
    pub found: bool,
}

/// Sees to a batch until it is over.
///
/// # Errors
/// There is none, and there will be none.
pub async fn ask(
    pool: &Pool,
    call: &Call,
    order: &Order,
    mut tell: impl FnMut(&Step<'_>),
) -> Result<Told, Failure> {
    let rows = lot::read(&call.text).map_err(|why| unmade(Failure::rejected(why)))?;
    let desk = Desk { pool, call, order };
    let (batch, found) = match &order.batch {
        Some(batch) => (batch.clone(), true),
        None => desk.have(&rows, &mut tell).await?,
    };
    tell(&Step::Named(Some(&batch)));
    let look = desk.until_over(&batch, &mut tell).await?;
    if let Some(why) = look.failed {
        tell(&Step::Named(None));
        return Err(unmade(Failure::rejected(format!("{batch}: {why}"))));
    }
    let lines = desk.results(&rows, &look, &mut tell).await?;
    let sum = |of: fn(&Line) -> Option<u64>| lines.iter().filter_map(of).sum();
    let usage = Usage {
        input: Some(sum(|line| line.input)),
        output: Some(sum(|line| line.output)),
        ..Usage::default()
    };
    Ok(Told {
        lines,
        usage,
        found,
    })
}

/// Has a batch cancelled, if there is one.
///
/// # Errors
/// Nobody knows whether it is.
pub async fn cancel(pool: &Pool, call: &Call, order: &Order) -> Result<Option<String>, Failure> {
    let desk = Desk { pool, call, order };
    let batch = match &order.batch {
        Some(batch) => batch.clone(),
        None => match desk.find(usize::MAX).await? {
            Search::Found(batch) => batch,
            Search::Nothing | Search::Unsure => return Ok(None),
        },
    };
    let path = format!("{}/{batch}/cancel", desk.batches());
    match desk.json(Method::POST, &path, Some(&json!({}))).await {
        Ok(_) => Ok(Some(batch)),
        // It was over before.
        Err(failure) if failure.end == Some(End::Rejected) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Nothing was asked, so nothing was spent.
fn unmade(failure: Failure) -> Failure {
    let usage = Usage {
        input: Some(0),
        output: Some(0),
        ..Usage::default()
    };
    // Who turns a batch away is waited for here; what is left does not pass.
    let end = failure.end.map(|_| End::Rejected);
    Failure {
        end,
        usage,
        ..failure
    }
}

/// Whether to ask again here: nobody else waits for it.
fn may_pass(failure: &Failure) -> bool {
    matches!(
        failure.end,
        Some(End::Broken | End::Refused | End::Overloaded)
    )
}

/// A pause that grows.
struct Pause(Duration);

impl Pause {
    async fn pass(&mut self) {
        sleep_until(Instant::from_std(clock::instant() + self.0)).await;
        self.0 = (self.0 * 2).min(PAUSE.1);
    }

    /// Not shorter than the provider asks.
    fn longer(&mut self, wait: Option<Duration>) {
        self.0 = self.0.max(wait.unwrap_or_default());
    }
}

/// A failure after the batch was made: what it cost is what was reckoned.
fn asked(failure: Failure) -> Failure {
    Failure {
        end: failure.end.map(|_| End::Answered),
        ..failure
    }
}

impl Desk<'_> {
    /// Makes the batch, or finds it; whether an attempt before has made it.
    async fn have(
        &self,
        rows: &[Row],
        tell: &mut impl FnMut(&Step<'_>),
    ) -> Result<(String, bool), Failure> {
        let mut pause = Pause(PAUSE.0);
        let mut search = self.order.again;
        loop {
            let known = if search {
                self.find(rows.len()).await
            } else {
                Ok(Search::Nothing)
            };
            let made = match known {
                Ok(Search::Found(batch)) => return Ok((batch, self.order.again)),
                Ok(Search::Unsure) => {
                    tell(&Step::Waits("one of the account's batches may be this one"));
                    pause.pass().await;
                    continue;
                }
                Ok(Search::Nothing) => self.make(rows).await,
                Err(failure) => Err(failure),
            };
            match made {
                Ok(batch) => return Ok((batch, false)),
                Err(failure) if may_pass(&failure) => {
                    // It may have been made all the same.
                    search = true;
                    tell(&Step::Waits(&failure.why));
                    pause.longer(failure.wait);
                    pause.pass().await;
                }
                Err(failure) => return Err(unmade(failure)),
            }
        }
    }

    /// Looks until it is over. What may pass is waited for as well: a provider
    /// that cannot be reached works on all the same.
    async fn until_over(
        &self,
        batch: &str,
        tell: &mut impl FnMut(&Step<'_>),
    ) -> Result<Look, Failure> {
        let mut pause = Pause(PAUSE.0);
        let path = format!("{}/{batch}", self.batches());
        loop {
            match self.json(Method::GET, &path, None).await {
                Ok(one) => {
                    let look = look_of(&one, self.call.dialect);
                    tell(&Step::Done(look.done, look.all));
                    if look.over {
                        return Ok(look);
                    }
                }
                Err(failure) if may_pass(&failure) => {
                    tell(&Step::Waits(&failure.why));
                    pause.longer(failure.wait);
                }
                Err(failure) => return Err(asked(failure)),
            }
            pause.pass().await;
        }
    }

    /// A line for each prompt, in their order, whatever theirs is.
    async fn results(
        &self,
        rows: &[Row],
        look: &Look,
        tell: &mut impl FnMut(&Step<'_>),
    ) -> Result<Vec<Line>, Failure> {
        let mut lines: HashMap<String, Line> = HashMap::new();
        let mut pause = Pause(PAUSE.0);
        for path in &look.results {
            let bytes = loop {
                match self.send(Method::GET, path, None).await {
                    Ok(bytes) => break bytes,
                    Err(failure) if may_pass(&failure) => {
                        tell(&Step::Waits(&failure.why));
                        pause.longer(failure.wait);
                        pause.pass().await;
                    }
                    Err(failure) => return Err(asked(failure)),
                }
            };
            for line in bytes.split(|byte| *byte == b'\n') {
                let Ok(value) = serde_json::from_slice::<Value>(line) else {
                    continue;
                };
                if let Some(place) = value.get("custom_id").and_then(Value::as_str) {
                    lines.insert(place.to_owned(), line_of(&value, self.call.dialect));
                }
            }
        }
        let of = |(at, row): (usize, &Row)| {
            let line = lines.remove(&self.place(at));
            let line = line.unwrap_or_else(|| Line {
                error: Some("the batch ended before it was its turn".to_owned()),
                ..Line::default()
            });
            Line {
                id: row.id.clone(),
                ..line
            }
        };
        Ok(rows.iter().enumerate().map(of).collect())
    }
}
