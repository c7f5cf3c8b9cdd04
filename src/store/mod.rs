//! Floor 1: the store.

pub mod options;
