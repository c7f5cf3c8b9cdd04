//! Waiting for many prompts, and saying how far they are.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::api::budgets::BudgetInfo;
use crate::client::{Client, Error};
use crate::clock;
use crate::model::quantity::format_duration;

use super::super::providers::budgets;
use super::super::{Failure, Outcome, Setting, complain};
use super::batch::{End, Handed};
use super::results::Over;

/// Questions asked at once.
const AT_ONCE: usize = 16;
/// Letters of the bar.
const BAR: usize = 20;

/// How many are over, and how.
#[derive(Debug)]
pub(super) struct Tally {
    all: usize,
    answered: usize,
    failed: usize,
}

impl Tally {
    fn of(rows: &[Handed]) -> Self {
        let count = |end| rows.iter().filter(|row| row.ended == Some(end)).count();
        Self {
            all: rows.len(),
            answered: count(End::Answered),
            failed: count(End::Failed),
        }
    }

    fn count(&mut self, end: End) {
        match end {
            End::Answered => self.answered += 1,
            End::Failed => self.failed += 1,
        }
    }

    const fn done(&self) -> usize {
        self.answered + self.failed
    }

    /// One line about prompts of which `ended` were over in the last `past`.
    fn line(&self, ended: usize, past: Duration) -> String {
        let (all, done) = (self.all, self.done());
        let left = all.saturating_sub(done);
        let full = done.saturating_mul(BAR).checked_div(all).unwrap_or(BAR);
        let bar: String = (0..BAR)
            .map(|at| if at < full { '#' } else { '.' })
            .collect();
        let failed = self.failed;
        let mut line = format!("[{bar}] {done} of {all} done, {failed} failed, {left} waiting");
        if ended > 0 && past >= Duration::from_secs(1) {
            let each = past / u32::try_from(ended).unwrap_or(u32::MAX);
            let rate = 1.0 / each.as_secs_f64();
            let to_go = each.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX));
            let to_go = format_duration(Duration::from_secs(to_go.as_secs().max(1)));
            line.push_str(&format!(", {rate:.1}/s"));
            if left > 0 {
                line.push_str(&format!(", about {to_go} to go"));
            }
        }
        line
    }

    /// Says how it went, and gives the exit code.
    pub(super) fn tell(&self, spent: Option<&BudgetInfo>, setting: &Setting) -> Outcome {
        let (all, answered, failed) = (self.all, self.answered, self.failed);
        if setting.json {
            let mut told =
                serde_json::json!({"prompts": all, "answered": answered, "failed": failed});
            if let (Some(budget), Some(told)) = (spent, told.as_object_mut()) {
                told.insert(
                    "budget".to_owned(),
                    serde_json::to_value(budget).map_err(io::Error::from)?,
                );
            }
            writeln!(io::stdout().lock(), "{told}")?;
            return Ok(u8::from(failed > 0));
        }
        if let Some(budget) = spent {
            complain(&budgets::told(budget));
        }
        if failed > 0 {
            complain(&format!(
                "{answered} of {all} prompts answered, {failed} failed; the same command with \
                 --retry-failed asks those again"
            ));
        } else {
            complain(&format!("{answered} of {all} prompts answered"));
        }
        Ok(u8::from(failed > 0))
    }
}

/// How a prompt ended, and what else is known of it, where it is still kept.
type Ended = (End, Option<Over>);

/// Waits until all are over.
pub(super) async fn wait(
    client: &Client,
    rows: &mut [Handed],
    setting: &Setting,
) -> Result<Tally, Failure> {
    let mut tally = Tally::of(rows);
    let shows = io::stderr().is_terminal() && !setting.json;
    let begun = clock::instant();
    let known = tally.done();
    let mut waits: JoinSet<(usize, Result<Ended, Error>)> = JoinSet::new();
    let mut next = 0;
    let bar = Bar(shows);
    loop {
        while waits.len() < AT_ONCE
            && let Some(row) = rows.get(next)
        {
            let (place, task, client) = (next, row.task, client.clone());
            next += 1;
            if row.ended.is_none() {
                waits.spawn_local(async move { (place, end(&client, task).await) });
            }
        }
        bar.show(&tally.line(tally.done() - known, begun.elapsed()))?;
        let Some(waited) = waits.join_next().await else {
            return Ok(tally);
        };
        let (place, end) = waited.map_err(io::Error::other)?;
        let (end, over) = end?;
        if let Some(row) = rows.get_mut(place) {
            row.ended = Some(end);
            row.over = over.map(Box::new);
        }
        tally.count(end);
    }
}

/// How a task ends, when it does. One that is no longer kept has no answer.
async fn end(client: &Client, task: i64) -> Result<Ended, Error> {
    match client.wait(task).await {
        Ok(task) => {
            let end = End::of(&task.state).unwrap_or(End::Failed);
            Ok((end, Some(Over::of(&task))))
        }
        Err(Error::Refused(wire, _)) if wire.status == 404 => Ok((End::Failed, None)),
        Err(error) => Err(error),
    }
}

/// Has those run again that failed.
pub(super) async fn again(client: &Client, rows: &mut [Handed]) -> Result<(), Failure> {
    let failed = rows.iter().enumerate();
    let mut failed = failed.filter(|(_, row)| row.ended == Some(End::Failed));
    let mut asked: JoinSet<(usize, Result<(), Error>)> = JoinSet::new();
    let mut places = Vec::new();
    loop {
        while asked.len() < AT_ONCE
            && let Some((place, row)) = failed.next()
        {
            let (task, client) = (row.task, client.clone());
            asked.spawn_local(async move { (place, client.again(task).await.map(drop)) });
        }
        let Some(one) = asked.join_next().await else {
            break;
        };
        match one.map_err(io::Error::other)? {
            (place, Ok(())) => places.push(place),
            // It cannot be run again as it is, or is no longer kept.
            (_, Err(Error::Refused(wire, _))) if [404, 409].contains(&wire.status) => {
                complain(&wire.detail);
            }
            (_, Err(error)) => return Err(error.into()),
        }
    }
    if !places.is_empty() {
        complain(&format!("{} failed prompts are asked again", places.len()));
    }
    for place in places {
        if let Some(row) = rows.get_mut(place) {
            row.ended = None;
            row.over = None;
        }
    }
    Ok(())
}

/// A line that is written over, and gone in the end.
struct Bar(bool);

impl Bar {
    fn show(&self, line: &str) -> io::Result<()> {
        if self.0 {
            let mut out = io::stderr().lock();
            write!(out, "\r\x1b[K{line}")?;
            out.flush()?;
        }
        Ok(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.0 {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_how_long_it_takes() {
        let tally = |answered, failed| Tally {
            all: 100,
            answered,
            failed,
        };
        assert_eq!(
            tally(0, 0).line(0, Duration::ZERO),
            "[....................] 0 of 100 done, 0 failed, 100 waiting"
        );
        assert_eq!(
            tally(45, 5).line(25, Duration::from_secs(50)),
            "[##########..........] 50 of 100 done, 5 failed, 50 waiting, 0.5/s, about 1m40s to go"
        );
        assert_eq!(
            tally(98, 2).line(100, Duration::from_secs(10)),
            "[####################] 100 of 100 done, 2 failed, 0 waiting, 10.0/s"
        );
        // What was there before says nothing of how fast it goes.
        assert!(!tally(50, 0).line(0, Duration::from_secs(50)).contains("/s"));
    }
}
