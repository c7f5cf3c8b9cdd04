//! Whether the daemon has all it needs, and whom to tell when that changes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::clock;
use crate::config::daemon::Options;
use crate::engine::health::{PATIENCE, lack};
use crate::engine::snapshot::Snapshot;

use super::monitor::{Event, Monitor};

/// Shortest time between two looks at the figures.
const BREATH: Duration = Duration::from_millis(20);

/// Tells that it is ready, and from then on each change.
pub(super) async fn watch_wellbeing(
    mut figures: watch::Receiver<Snapshot>,
    options: watch::Receiver<Options>,
    monitor: Monitor,
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
        }
        if figures.changed().await.is_err() {
            return;
        }
        // Turns that follow each other are looked at once.
        sleep_until(Instant::from_std(clock::instant()) + BREATH).await;
    }
}
