//! Floor 3: HTTP in.

pub mod options;
