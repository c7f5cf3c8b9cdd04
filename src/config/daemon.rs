//! Settings of the daemon's own process, for hosts where nobody else looks
//! after it, and of what is run when its state changes.
//!
//! They are declared here because the room that obeys them is above this one.

use std::time::Duration;

use super::check::{Found, HOUR, PATIENCE_MIN, found, time, within};
use crate::model::bound::Age;
use crate::model::restart::Policy;
use crate::model::setting::Kind::{Live, Restart};
use crate::model::setting::settings;

settings! {
    /// Settings of the daemon's process, section `[daemon]`. Those of restarts are for
    /// `start --supervised`; under systemd the unit has its own.
    pub struct Options {
        /// The engine's longest silence before the daemon is killed and started again.
        #[serde(with = "crate::model::quantity::duration")]
        heartbeat: Duration = Duration::from_secs(30), Restart;
        /// How long a start may take, unless the daemon asks for more.
        #[serde(with = "crate::model::quantity::duration")]
        start_timeout: Duration = Duration::from_secs(90), Restart;
        /// Waits before the first, second, … restart in a row; the last is that of all others.
        restart_steps: Vec<Age> = steps(), Restart;
        /// The most that chance adds to a wait, in percent of it.
        restart_jitter: u32 = 10, Restart;
        /// Restarts in a row before a long pause.
        restart_limit: u32 = 5, Restart;
        /// That pause.
        #[serde(with = "crate::model::quantity::duration")]
        restart_cool_off: Duration = Duration::from_secs(300), Restart;
        /// How long the daemon has to be well until its restarts are forgotten.
        #[serde(with = "crate::model::quantity::duration")]
        restart_healthy: Duration = Duration::from_secs(600), Restart;
        /// A program to run, with its arguments, when the daemon is ready, and when it is well
        /// again. This and the next ones find `TASKDAEMON_EVENT` and `TASKDAEMON_DETAIL` in
        /// their environment. Empty: none.
        on_ready: Vec<String> = Vec::new(), Live;
        /// A program to run when the daemon works and something is missing: room on the disk, or
        /// the runner.
        on_degraded: Vec<String> = Vec::new(), Live;
        /// A program to run when a reload was refused.
        on_reload_failed: Vec<String> = Vec::new(), Live;
        /// A program that the supervisor runs when there were as many restarts in a row as the
        /// limit allows.
        on_restart_limit: Vec<String> = Vec::new(), Restart;
        /// How long such a program may take before it is killed.
        #[serde(with = "crate::model::quantity::duration")]
        hook_timeout: Duration = Duration::from_secs(10), Live;
    }
}

/// One to sixteen seconds, doubled, then a minute.
fn steps() -> Vec<Age> {
    [1, 2, 4, 8, 16, 60]
        .map(|seconds| Age(Duration::from_secs(seconds)))
        .into()
}

impl Options {
    /// The rule of restarts that these settings stand for.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            steps: self.restart_steps.iter().map(|step| step.0).collect(),
            jitter_percent: self.restart_jitter,
            limit: self.restart_limit,
            cool_off: self.restart_cool_off,
            healthy: self.restart_healthy,
        }
    }
}

/// Refuses settings that cannot be obeyed, or that no one can mean.
pub(super) fn check(daemon: &Options) -> Result<(), Found> {
    let second = Duration::from_secs(1);
    time("daemon.heartbeat", daemon.heartbeat, second, HOUR)?;
    time("daemon.start_timeout", daemon.start_timeout, second, HOUR)?;
    for step in &daemon.restart_steps {
        time("daemon.restart_steps", step.0, Duration::ZERO, HOUR)?;
    }
    within("daemon.restart_jitter", daemon.restart_jitter, 0, 100)?;
    let day = 24 * HOUR;
    let cool_off = "daemon.restart_cool_off";
    time(cool_off, daemon.restart_cool_off, Duration::ZERO, day)?;
    let healthy = "daemon.restart_healthy";
    time(healthy, daemon.restart_healthy, Duration::ZERO, day)?;
    for (key, command) in [
        ("daemon.on_ready", &daemon.on_ready),
        ("daemon.on_degraded", &daemon.on_degraded),
        ("daemon.on_reload_failed", &daemon.on_reload_failed),
        ("daemon.on_restart_limit", &daemon.on_restart_limit),
    ] {
        let Some(program) = command.first() else {
            continue;
        };
        if !program.starts_with('/') {
            return found(key, format!("{program:?} is not an absolute path"));
        }
        if command.iter().any(|word| word.contains('\0')) {
            return found(key, "contains a NUL byte");
        }
    }
    time(
        "daemon.hook_timeout",
        daemon.hook_timeout,
        PATIENCE_MIN,
        HOUR,
    )
}
