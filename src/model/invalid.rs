//! A field that cannot be accepted, and why.

/// A field that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field as the API names it.
    pub field: &'static str,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl Invalid {
    /// A field, and what is wrong with it.
    pub fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self {
            field,
            reason: reason.into(),
        }
    }
}
