//! What somebody may do, whoever it is: four roles, each with all that the one
//! before it has.

use serde::{Deserialize, Serialize};

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Read,
    /// Hand in tasks.
    Submit,
    /// Change and end tasks of one's own, and make schedules.
    Own,
    /// Look at everyone's tasks, change them, and change what concerns everyone.
    Admin,
}

impl Role {
    /// Each of them, from the least to the most.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Own, Self::Admin];

    /// The word in settings and messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Own => "own",
            Self::Admin => "admin",
        }
    }

    /// The role that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }

    /// Whether this role has all that `least` has.
    #[must_use]
    pub fn covers(self, least: Self) -> bool {
        self >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_what_the_one_before_has_and_its_word() {
        for (place, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(Role::from_word(role.word()), Some(role));
            for (other, least) in Role::ALL.into_iter().enumerate() {
                assert_eq!(role.covers(least), place >= other, "{role:?} {least:?}");
            }
        }
        assert_eq!(Role::from_word("root"), None);
    }
}
