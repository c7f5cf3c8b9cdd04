//! Verbs for one task or several: wait, cancel, retry, pause, resume.
//!
//! Each task is answered for itself. The exit code is the largest that one of
//! them alone would have; what `wait` waits for counts 1 when it did not
//! succeed, and ends with its own code only where it is alone.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use clap::Args;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::api::dto::TaskInfo;
use crate::client::{self, Client};

use super::interrupt::Interrupt;
use super::page::{cut, terminal_width};
use super::text::escape;
use super::{Failure, Outcome, Setting, complain, tasks};

/// Tasks that are waited for at a time: as many connections.
const AT_ONCE: usize = 32;
/// Pause between two looks at what runs.
const LOOK: Duration = Duration::from_secs(1);
/// Tasks that a look is about.
const LOOKS: usize = 3;

/// Tasks.
#[derive(Debug, Args)]
pub(super) struct IdsArgs {
    /// Numbers of the tasks
    #[arg(value_parser = tasks::number, value_name = "ID", required = true)]
    ids: Vec<i64>,
}

/// `pause` and `resume`.
pub(super) async fn change(args: &IdsArgs, verb: &str, setting: &Setting) -> Outcome {
    each(&args.ids, async |id| tasks::change(id, verb, setting).await).await
}

/// Does something with each of several tasks.
pub(super) async fn each(ids: &[i64], mut one: impl AsyncFnMut(i64) -> Outcome) -> Outcome {
    if let [id] = ids {
        return one(*id).await;
    }
    let mut worst = 0;
    for id in ids {
        match one(*id).await {
            Ok(code) => worst = worst.max(code),
            Err(failure) if ends_all(&failure) => return Err(failure),
            Err(failure) => {
                complain(&failure.to_string());
                worst = worst.max(failure.code());
            }
        }
    }
    Ok(worst)
}

/// Whether it would be the same with all the others.
const fn ends_all(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Io(_) | Failure::Client(client::Error::Unreachable(..) | client::Error::Usage(_))
    )
}

/// `wait`.
pub(super) async fn wait(args: &IdsArgs, setting: &Setting) -> Outcome {
    let client = setting.client()?;
    if let [id] = args.ids.as_slice() {
        let task = Interrupt::listen()?
            .patiently(*id, async { Ok(client.wait(*id).await?) })
            .await?;
        return tasks::finish(&task, setting, io::stdout().lock());
    }
    let mut ids = args.ids.clone();
    ids.sort_unstable();
    ids.dedup();
    let local = LocalSet::new();
    let told = "the tasks go on; `taskdaemon wait` waits again";
    let waiting = local.run_until(Waiting::new(client, ids).all(setting));
    Interrupt::listen()?.unless(told, waiting).await
}

/// Waits for several tasks.
struct Waiting {
    client: Client,
    /// What is not over, with the latest that is known of it.
    left: BTreeMap<i64, Option<TaskInfo>>,
    total: usize,
    failed: usize,
    worst: u8,
    /// Whether a line with the progress is on the terminal.
    line: bool,
}

type Waited = (i64, Result<TaskInfo, client::Error>);

impl Waiting {
    fn new(client: Client, ids: Vec<i64>) -> Self {
        Self {
            client,
            total: ids.len(),
            left: ids.into_iter().map(|id| (id, None)).collect(),
            failed: 0,
            worst: 0,
            line: false,
        }
    }

    async fn all(mut self, setting: &Setting) -> Outcome {
        let mut next: Vec<i64> = self.left.keys().rev().copied().collect();
        let mut waits: JoinSet<Waited> = JoinSet::new();
        let shows = io::stderr().is_terminal() && !setting.json;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.left.is_empty() {
            while waits.len() < AT_ONCE
                && let Some(id) = next.pop()
            {
                let client = self.client.clone();
                waits.spawn_local(async move { (id, client.wait(id).await) });
            }
            tokio::select! {
                Some(waited) = waits.join_next() => {
                    let (id, result) = waited.map_err(io::Error::other)?;
                    self.over(id, result, setting)?;
                    if shows {
                        self.show()?;
                    }
                }
                _ = looks.tick(), if shows => {
                    self.look().await;
                    self.show()?;
                }
            }
        }
        self.clear()?;
        Ok(self.worst)
    }

    fn over(
        &mut self,
        id: i64,
        result: Result<TaskInfo, client::Error>,
        setting: &Setting,
    ) -> Result<(), Failure> {
        self.clear()?;
        self.left.remove(&id);
        match result {
            Ok(task) => {
                let code = tasks::finish(&task, setting, io::stdout().lock())?;
                self.failed += usize::from(code != 0);
                self.worst = self.worst.max(u8::from(code != 0));
            }
            Err(error) => {
                let failure = Failure::from(error);
                if ends_all(&failure) {
                    return Err(failure);
                }
                complain(&failure.to_string());
                self.worst = self.worst.max(failure.code());
            }
        }
        Ok(())
    }

    /// Learns what the first ones that are not over say of themselves.
    async fn look(&mut self) {
        for (id, known) in self.left.iter_mut().take(LOOKS) {
            // What cannot be asked now is asked at the next look.
            if let Ok(answer) = self.client.get(&format!("/v1/tasks/{id}")).await {
                *known = answer.read().ok();
            }
        }
    }

    fn show(&mut self) -> io::Result<()> {
        let line = cut(&self.text(), terminal_width().saturating_sub(1));
        let mut out = io::stderr().lock();
        write!(out, "\r\x1b[K{line}")?;
        self.line = true;
        out.flush()
    }

    fn clear(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.line) {
            write!(io::stderr(), "\r\x1b[K")?;
        }
        Ok(())
    }

    /// How far it is, in one line.
    fn text(&self) -> String {
        let over = self.total - self.left.len();
        let mut text = format!("{over} of {} over", self.total);
        if self.failed > 0 {
            text.push_str(&format!(", {} failed", self.failed));
        }
        for task in self.left.values().flatten() {
            let name = task.name.as_deref().unwrap_or_default();
            let said = tasks::said(task);
            text.push_str(&format!("; {} {name}: {said}", task.id));
        }
        escape(&text)
    }
}
