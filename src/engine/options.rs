//! The engine's settings.

/// Limits that the engine keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Attempts at once on this host.
    pub slots: u32,
    /// Attempts at once in each queue; unlimited when absent.
    pub queue_concurrency: Option<u32>,
    /// Most unfinished tasks.
    pub backlog: u64,
    /// Commands that may wait before new ones are turned away.
    pub commands: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slots: 16,
            queue_concurrency: None,
            backlog: 10_000_000,
            commands: 4096,
        }
    }
}
