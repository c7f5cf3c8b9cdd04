//! What is wrong with a host, and what mends it: facts in, findings out.

pub mod facts;
pub mod finding;
pub mod judge;
