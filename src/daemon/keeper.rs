//! Keeps a runner for a daemon that has fewer rights than it.
//!
//! One thread that waits for a runner's end and starts the next one. A runner
//! of a former supervisor is left alone with its tasks; it is taken over when
//! it ends, which its lock tells.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::model::restart::{Policy, Restarts};
use crate::model::time::Time;
use crate::run::own::{OwnRunner, Peer};
use crate::runner::Users;

/// The runner to keep.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// Where it listens.
    pub socket: PathBuf,
    /// Whom its tasks run as.
    pub users: Users,
    /// Whose daemon may connect.
    pub peer: Peer,
}

/// It is kept as long as this lives; then it is left to itself.
#[derive(Debug)]
pub struct Kept(Arc<AtomicBool>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(self) -> io::Result<Kept> {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || self.keep(&told))?;
        Ok(Kept(over))
    }

    fn keep(&self, over: &AtomicBool) {
        let policy = Policy {
            steps: [100, 1_000, 4_000].map(Duration::from_millis).into(),
            jitter_percent: 0,
            limit: u32::MAX,
            cool_off: Duration::ZERO,
            healthy: Duration::from_secs(10),
        };
        let mut restarts = Restarts::default();
        let begun = clock::instant();
        let now = || Time::from_micros(0).after(clock::instant() - begun);
        while !over.load(Ordering::Relaxed) {
            match OwnRunner::keep(&self.socket, self.users, &self.peer) {
                Ok(mut runner) => {
                    restarts.ready(now());
                    match runner.wait() {
                        Ok(status) => tracing::info!("the runner ended: {status}"),
                        Err(error) => tracing::error!("cannot wait for the runner: {error}"),
                    }
                }
                Err(error) => tracing::error!("cannot start a runner: {error}"),
            }
            thread::park_timeout(restarts.ended(&policy, now(), 0).wait);
        }
    }
}
