//! What a request over the network rests on may be taken back while it is being
//! answered: its token expires, or is removed at a reload. It then ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock;

use super::identity::{Grant, Proof, Settings};

/// Longest time after which a token's end is noticed, whatever is done to the
/// clock meanwhile.
const LOOK: Duration = Duration::from_secs(2);

/// Returns when the proof is no longer good for what it was.
pub(super) type Lapse = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Watches a proof.
pub(super) fn watch(
    mut settings: watch::Receiver<Arc<Settings>>,
    proof: Proof,
    grant: Arc<Grant>,
) -> Lapse {
    Box::pin(async move {
        loop {
            let now = clock::now();
            let known = settings.borrow_and_update().grant(&proof, now);
            if known.as_deref() != Ok(&*grant) {
                return;
            }
            let changed = settings.changed();
            let changed = match grant.expires {
                None => changed.await,
                Some(at) => match timeout(at.since(now).min(LOOK), changed).await {
                    Ok(changed) => changed,
                    Err(_) => continue,
                },
            };
            if changed.is_err() {
                // The server is gone, and so will this request be.
                return std::future::pending().await;
            }
        }
    })
}
