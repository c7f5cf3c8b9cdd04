//! Whether the daemon has all it needs, and whom to tell when that changes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::config::daemon::Options;
use crate::engine::snapshot::Snapshot;

use super::monitor::{Event, Monitor};

/// How long something may be missing before it is worth a word: a runner that
/// renews itself is back sooner.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the daemon lacks, if anything.
fn lack(snapshot: &Snapshot) -> Option<&'static str> {
    if snapshot.read_only {
        Some("the file system of the state directory is read-only: nothing is saved")
    } else if snapshot.shortage.is_some() {
        Some("the disk has too little room: new tasks are refused")
    } else if snapshot.runner.is_none() {
        Some("no runner is connected: tasks wait")
    } else if snapshot.long_log.is_some() {
        Some("the database's log grows: another program reads on and on in it")
    } else {
        None
    }
}

/// Tells that it is ready, and from then on each change; `lacks` has the last.
pub(super) async fn watch_wellbeing(
    mut figures: watch::Receiver<Snapshot>,
    options: watch::Receiver<Options>,
    monitor: Monitor,
    lacks: watch::Sender<Option<&'static str>>,
) {
    monitor.tell(&options.borrow(), Event::Ready);
    let mut told = None;
    loop {
        let mut found = lack(&figures.borrow_and_update());
        if found.is_some() && told.is_none() {
            let end = Instant::from_std(clock::instant()) + PATIENCE;
            while found.is_some()
                && let Ok(Ok(())) = timeout_at(end, figures.changed()).await
            {
                found = lack(&figures.borrow_and_update());
            }
        }
        if found != told {
            let event = found.map_or(Event::Ready, |why| Event::Degraded(why.to_owned()));
            monitor.tell(&options.borrow(), event);
            told = found;
            lacks.send_replace(told);
        }
        if figures.changed().await.is_err() {
            return;
        }
    }
}
