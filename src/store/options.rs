//! The store's settings.

/// Bounds on what the store takes from the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Size in bytes to which the write-ahead log is cut back.
    pub wal_limit: u64,
    /// Size in bytes of the file that is given up when the disk is full, so
    /// that the end of running tasks can still be recorded.
    pub ballast: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wal_limit: 64 << 20,
            ballast: 16 << 20,
        }
    }
}
