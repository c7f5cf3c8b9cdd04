//! What happens when an instance of an agent comes to stand somewhere.
//!
//! As with tasks, it becomes a task of its own (`engine/hooks.rs`), so that it
//! is kept, tried again, shown and cancelled as any other.

use serde::{Deserialize, Serialize};

use super::phase::Phase;
use crate::model::hook::Act;

/// What happens when an instance comes to stand somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Where; see [`usual`] for what is meant when nothing is said.
    pub on: Vec<Phase>,
    /// What happens.
    #[serde(flatten)]
    pub act: Act,
}

/// The phases at which somebody has to look.
#[must_use]
pub fn usual() -> Vec<Phase> {
    vec![Phase::CoolingOff, Phase::Failed]
}
