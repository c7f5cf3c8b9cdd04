//! The only door to time.
//!
//! Everything below floor 5 takes the time as an argument; the loops that own
//! a thread read it here, once per turn.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

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

/// Something to wait for: the wait is over when the wall clock is set, and when
/// the host wakes from sleep; then it can be waited for again.
///
/// It is a timer for a day that does not come, which the kernel cancels when
/// its clock makes a step.
///
/// # Errors
/// There is no descriptor left, or no such timer.
pub fn watch() -> nix::Result<TimerFd> {
    // The year 2255: as far as a timer in nanoseconds reaches.
    const NEVER: Duration = Duration::from_secs(9_000_000_000);
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC)?;
    timer.set(
        Expiration::OneShot(TimeSpec::from_duration(NEVER)),
        TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
    )?;
    Ok(timer)
}
