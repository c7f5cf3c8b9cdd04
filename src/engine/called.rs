//! How one that has a number and a name is called.

use std::fmt;

/// Calls one by its number, or by its owner's name for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Called<Id> {
    /// Its number.
    Number(Id),
    /// Its name, among the caller's own.
    Name(String),
}

impl<Id: fmt::Display> fmt::Display for Called<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(id) => id.fmt(f),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}
