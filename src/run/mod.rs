//! Floor 3: work out.

pub mod options;
