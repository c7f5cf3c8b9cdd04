//! What was asked.
