//! A word about a write-ahead log that only grows.
//!
//! SQLite keeps in the log whatever a reader may still ask for. Our own readers
//! ask short questions; another program, or a backup of a large file, can hold
//! it for long, and nobody can take that from it. So the log grows with every
//! commit, until the disk is full.

use std::time::{Duration, Instant};

/// Time between two words about the same thing.
const AGAIN: Duration = Duration::from_secs(3_600);

/// When it was last told that the log is too long.
#[derive(Debug, Default)]
pub(super) struct Wal {
    told: Option<Instant>,
    /// What was told is still so.
    long: bool,
}

impl Wal {
    /// Tells of a log that is too long, and of one that is no longer.
    pub(super) fn judge(&mut self, long: Option<u64>, now: Instant) {
        match long {
            Some(bytes) if self.is_due(now) => {
                (self.told, self.long) = (Some(now), true);
                tracing::warn!(
                    bytes,
                    "the database's log has grown to {} MiB: a program that reads on and on in \
                     taskdaemon.db keeps it from being cut back; `fuser -v` on that file names \
                     it, and the log shrinks by itself once it has ended",
                    bytes >> 20
                );
            }
            None if self.long => {
                self.long = false;
                tracing::info!("the database's log was cut back");
            }
            Some(_) | None => {}
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.told
            .is_none_or(|told| now.saturating_duration_since(told) >= AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_told_once_an_hour() {
        let mut wal = Wal::default();
        let start = crate::clock::instant();
        assert!(wal.is_due(start));
        wal.judge(Some(9), start);
        assert!(wal.long);
        let later = start + AGAIN / 2;
        assert!(!wal.is_due(later));
        // One that comes and goes is no reason for more words.
        wal.judge(None, later);
        assert!(!wal.long);
        assert!(!wal.is_due(later));
        assert!(wal.is_due(start + AGAIN));
    }
}
