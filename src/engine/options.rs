//! Settings of the engine: how much at once, how much waiting.
//!
//! Plain values; `config` reads and checks them, the engine obeys them.

use crate::model::setting::Kind::{Live, Restart};
use crate::model::setting::settings;

settings! {
    /// Settings of the engine, section `[engine]`.
    pub struct Options {
        /// Attempts running at once on this host.
        slots: u32 = 16, Live;
        /// Attempts running at once in a queue that has no limit of its own. Absent: only
        /// `slots` counts.
        queue_concurrency: Option<u32> = None, Live, "4";
        /// Most unfinished tasks; a submit beyond it is refused.
        backlog: u64 = 10_000_000, Live;
        /// Most schedules of one user.
        user_schedules: u64 = 10_000, Live;
        /// Most commands waiting for the engine; beyond it clients are told to try again.
        commands: u32 = 4096, Restart;
    }
}
