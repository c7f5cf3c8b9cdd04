//! What systemd handed to this process: sockets, notify socket, watchdog.
//!
//! [`Systemd::take`] reads all of it once, before any thread exists, and clears
//! it from the environment, so that no child can use it. It decides nothing:
//! the caller serves the [`Listener`]s, feeds the watchdog and says through
//! [`Notify`] what is true. Without systemd everything here is empty and
//! silently does nothing.

use std::env;
use std::ffi::OsString;
use std::process;
use std::time::Duration;

use super::notify::Notify;
use super::passed::{self, Error, Listener};
use super::unit;

/// Everything that is taken out of the environment.
const VARIABLES: [&str; 8] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "LISTEN_FDS_FIRST_FD",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];
/// A watchdog below this cannot be served and is taken for a mistake.
const WATCHDOG_MIN: Duration = Duration::from_millis(100);
/// A watchdog below this is served, with a warning.
const WATCHDOG_SHORT: Duration = Duration::from_secs(1);

/// What systemd handed over.
#[derive(Debug)]
pub struct Systemd {
    /// The passed sockets, by name, in the order passed.
    pub listeners: Vec<(String, Listener)>,
    /// The way to tell systemd something.
    pub notify: Notify,
    /// Oddities that were survived, to be logged once there is a log.
    pub warnings: Vec<String>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Takes everything from the environment and clears it. To be called
    /// first in the program, before any thread or runtime exists.
    ///
    /// # Errors
    ///
    /// Sockets were passed that cannot be served; says which and why. The
    /// environment is cleared all the same.
    pub fn take() -> Result<Self, Error> {
        let mut warnings = unit::mistakes();
        let listeners = passed::take(&mut warnings);
        let notify = Notify::to(env::var_os("NOTIFY_SOCKET"), &mut warnings);
        let watchdog = watchdog(
            env::var_os("WATCHDOG_USEC"),
            env::var_os("WATCHDOG_PID"),
            &mut warnings,
        );
        clear_environment();
        Ok(Self {
            listeners: listeners?,
            notify,
            warnings,
            watchdog,
        })
    }

    /// Is watched by somebody else than systemd.
    pub(super) const fn watch(&mut self, timeout: Duration) {
        self.watchdog = Some(timeout);
    }

    /// How often to send [`Notify::watchdog`], where systemd watches: a third
    /// of its time-out, so that one lost message does no harm.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 3)
    }
}

#[expect(
    unsafe_code,
    reason = "the environment can only be changed by unsafe functions"
)]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the environment is cleared"
)]
fn clear_environment() {
    for variable in VARIABLES {
        // SAFETY: `take` is called before any other thread exists, so nobody
        // reads the environment meanwhile.
        unsafe { env::remove_var(variable) };
    }
}

/// The watchdog's time-out, when there is one, it is meant for this process,
/// and it can be served.
fn watchdog(
    usec: Option<OsString>,
    pid: Option<OsString>,
    warnings: &mut Vec<String>,
) -> Option<Duration> {
    let usec = usec?.to_string_lossy().into_owned();
    if let Some(pid) = pid
        && pid.to_str().and_then(|pid| pid.parse().ok()) != Some(process::id())
    {
        warnings.push(format!(
            "WATCHDOG_PID={} is not this process: the watchdog is not fed",
            pid.display()
        ));
        return None;
    }
    match usec.parse::<u64>().map(Duration::from_micros) {
        Ok(timeout) if timeout < WATCHDOG_MIN => {
            warnings.push(format!(
                "WATCHDOG_USEC={usec} is too short to be meant: ignored"
            ));
            None
        }
        // All bits set is systemd's way to say never.
        Ok(timeout) if timeout == Duration::from_micros(u64::MAX) => None,
        Ok(timeout) => {
            if timeout < WATCHDOG_SHORT {
                warnings.push(format!(
                    "WATCHDOG_USEC={usec}: below a second a busy host looks like a dead daemon; set \
                     WatchdogSec=30s in its unit"
                ));
            }
            Some(timeout)
        }
        Err(_) => {
            warnings.push(format!("WATCHDOG_USEC={usec:?} is not a number: ignored"));
            None
        }
    }
}
