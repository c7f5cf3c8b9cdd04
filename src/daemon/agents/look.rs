//! Looks at one agent again and again, by its address.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::https;
use crate::clock;
use crate::engine::command::Command;
use crate::engine::handle::Handle;
use crate::model::agent::probe::{Finding, Look, Looks, Probe};
use crate::model::attempt::AttemptKey;
use crate::model::notice::Notice;

use super::tell;

/// The first look comes this much of an interval after the beginning, so that
/// start-ups are noticed early.
const FIRST: u32 = 10;

/// Looks until it is not wanted any more.
pub(super) async fn again_and_again(
    handle: Handle,
    room: Arc<Semaphore>,
    key: AttemptKey,
    probe: Probe,
    is_up: bool,
) {
    let pause = Duration::from_millis(probe.interval_ms);
    let limit = Duration::from_millis(probe.timeout_ms);
    let mut looks = Looks::of(is_up);
    let mut failing = false;
    let mut next = clock::instant() + pause / FIRST;
    loop {
        sleep_until(Instant::from_std(next)).await;
        // While many wait, looks come later; none is left out of the count.
        let Ok(permit) = room.acquire().await else {
            return;
        };
        let found = timeout(limit, look(&probe.look)).await;
        drop(permit);
        let found = found.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
        let finding = looks.see(found.is_ok(), probe.threshold);
        let (was, is) = (failing, found.is_err());
        failing = is;
        if let Some(notice) = notice(finding, found, (was, is), &probe) {
            let at = clock::now();
            tell(&handle, Command::Notified { key, notice, at }).await;
        }
        next = (next + pause).max(clock::instant());
    }
}

async fn look(look: &Look) -> Result<(), String> {
    match look {
        Look::Http(url) => {
            let status = https::get(url).await.map_err(|error| error.to_string())?;
            let good = (200..400).contains(&status.as_u16());
            good.then_some(())
                .ok_or_else(|| format!("{url}: answers with {}", status.as_u16()))
        }
        Look::Tcp(address) => https::reach(address)
            .await
            .map_err(|error| error.to_string()),
        // Looked at from beside the agent.
        Look::Command(_) | Look::File(_) => Ok(()),
    }
}

/// What is told of a look: only what is new.
fn notice(
    finding: Finding,
    found: Result<(), String>,
    (was_failing, is_failing): (bool, bool),
    probe: &Probe,
) -> Option<Notice> {
    let why = found.err();
    let status = match finding {
        Finding::Down => Some(format!("probe failed {} times", probe.threshold)),
        Finding::Up => Some(String::new()),
        Finding::Nothing if was_failing == is_failing => return None,
        Finding::Nothing if is_failing => Some("probe".to_owned()),
        Finding::Nothing => Some(String::new()),
    };
    let status = match (status, why) {
        (Some(status), Some(why)) => Some(format!("{status}: {why}")),
        (status, _) => status,
    };
    let notice = Notice {
        status,
        ready: finding == Finding::Up,
        trigger: finding == Finding::Down,
        ..Notice::default()
    };
    Some(notice.bounded())
}
