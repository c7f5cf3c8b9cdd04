//! The only door to time.
//!
//! Everything below floor 5 takes the time as an argument; the loops that own
//! a thread read it here, once per turn.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::time::Time;

/// Wall-clock time now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// How far the wall clock is ahead of the time since boot, suspends included,
/// in microseconds. It changes when the clock is set, and only then.
#[must_use]
pub fn lead() -> i64 {
    let since_boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1_000);
    now().micros() - since_boot
}

/// Monotonic time now, for durations.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn instant() -> Instant {
    Instant::now()
}
