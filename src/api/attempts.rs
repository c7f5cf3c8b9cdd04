//! Failed proofs of identity, counted by address: whoever guesses is soon told
//! to wait, and guessed secrets are not even looked at meanwhile.
//!
//! A table of fixed size, so that no number of addresses makes it grow. Two
//! addresses of one place push each other out; which do is not for a client to
//! choose, since places are drawn with a key of this process.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;

use super::peer::PeerKey;

/// Failures of one address in a minute, after which it has to wait.
pub(super) const MOST: u64 = 20;
/// Rows about those turned away that are recorded in a minute.
const ROWS: u64 = 60;
/// Length of the time in which failures are counted, in seconds.
const WINDOW: u64 = 60;
/// Addresses that are remembered.
const PLACES: usize = 4096;

/// Failures of late.
#[derive(Debug)]
pub(super) struct Attempts {
    key: RandomState,
    epoch: Instant,
    places: Box<[AtomicU64]>,
    rows: AtomicU64,
}

/// One counter in a number: whose it is (24 bits), the second in which it began
/// (32 bits), and how many (8 bits).
#[derive(Clone, Copy)]
struct Count {
    whose: u64,
    began: u64,
    many: u64,
}

impl Count {
    const fn unpack(packed: u64) -> Self {
        Self {
            whose: packed >> 40,
            began: packed >> 8 & 0xffff_ffff,
            many: packed & 0xff,
        }
    }

    const fn pack(self) -> u64 {
        self.whose << 40 | (self.began & 0xffff_ffff) << 8 | self.many
    }

    /// The same for an owner and a time: another one's, or one of a time that
    /// is over, is a new one.
    const fn of(self, whose: u64, now: u64) -> Self {
        if self.whose == whose && self.many > 0 && now - self.began < WINDOW {
            return self;
        }
        Self {
            whose,
            began: now,
            many: 0,
        }
    }

    const fn more(mut self) -> Self {
        if self.many < 0xff {
            self.many += 1;
        }
        self
    }
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self {
            key: RandomState::new(),
            epoch: clock::instant(),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            rows: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        clock::instant()
            .saturating_duration_since(self.epoch)
            .as_secs()
    }

    fn place(&self, peer: PeerKey) -> (&AtomicU64, u64) {
        let hash = self.key.hash_one(peer);
        let index = usize::try_from(hash & 0xffff).unwrap_or(0) % PLACES;
        (&self.places[index], hash >> 40)
    }

    /// How long an address has to wait, when it has failed too often.
    pub(super) fn wait(&self, peer: PeerKey) -> Option<Duration> {
        self.wait_at(peer, self.now())
    }

    fn wait_at(&self, peer: PeerKey, now: u64) -> Option<Duration> {
        let (place, whose) = self.place(peer);
        let count = Count::unpack(place.load(Ordering::Relaxed)).of(whose, now);
        let left = WINDOW.saturating_sub(now - count.began);
        (count.many >= MOST).then(|| Duration::from_secs(left.max(1)))
    }

    /// Counts a failure.
    pub(super) fn fail(&self, peer: PeerKey) {
        self.fail_at(peer, self.now());
    }

    fn fail_at(&self, peer: PeerKey, now: u64) {
        let (place, whose) = self.place(peer);
        let count = |packed| Some(Count::unpack(packed).of(whose, now).more().pack());
        let _always = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// Whether one more row may be recorded in this minute.
    pub(super) fn may_record(&self) -> bool {
        let now = self.now();
        let count = |packed| Some(Count::unpack(packed).of(0, now).more().pack());
        let before = self
            .rows
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        before.is_ok_and(|packed| Count::unpack(packed).of(0, now).many < ROWS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_failures_in_a_minute_are_the_most_and_they_are_forgotten() {
        let attempts = Attempts::new();
        let (guesser, other) = (PeerKey::Address(1), PeerKey::Address(2));
        for second in 0..MOST {
            assert_eq!(attempts.wait_at(guesser, second), None, "{second}");
            attempts.fail_at(guesser, second);
        }
        assert_eq!(
            attempts.wait_at(guesser, MOST),
            Some(Duration::from_secs(WINDOW - MOST))
        );
        assert_eq!(attempts.wait_at(other, MOST), None, "others do not wait");
        attempts.fail_at(guesser, 59);
        assert!(attempts.wait_at(guesser, 59).is_some());
        assert_eq!(attempts.wait_at(guesser, 60), None, "a new minute");
        for _ in 0..1_000 {
            attempts.fail_at(guesser, 61);
        }
        assert!(attempts.wait_at(guesser, 61).is_some(), "no overflow");
    }

    #[test]
    fn no_more_than_sixty_rows_a_minute() {
        let attempts = Attempts::new();
        let recorded = (0..1_000).filter(|_| attempts.may_record()).count();
        assert_eq!(recorded, 60);
    }
}
