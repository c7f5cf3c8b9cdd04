//! Settings of the store: what it may take of the disk.
//!
//! Plain values; `config` reads and checks them, the store obeys them.

use crate::model::quantity::ByteSize;
use crate::model::setting::Kind::Restart;
use crate::model::setting::settings;

settings! {
    /// Settings of the store, section `[store]`.
    pub struct Options {
        /// Size to which the write-ahead log is cut back after a checkpoint.
        wal_limit: ByteSize = ByteSize::mib(64), Restart;
        /// Space held back by a file that is given up when the disk is full, so that running
        /// tasks can still be brought to an end. "0B" for none.
        ballast: ByteSize = ByteSize::mib(16), Restart;
        /// Free space below which new tasks are refused, so that the ends of running ones can
        /// still be recorded; at most a twentieth of the file system. "0B" for none.
        low_water: ByteSize = ByteSize::mib(64), Restart;
    }
}
