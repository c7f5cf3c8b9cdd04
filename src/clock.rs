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

/// Monotonic time now, for durations.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn instant() -> Instant {
    Instant::now()
}
