//! How many tokens a text will be, without a tokenizer: by its bytes.
//!
//! Prose and code have four to five bytes in a token, and text without spaces,
//! such as base64, one and a half (measured with `o200k`: prose 4.4, Rust 4.6,
//! Chinese 4.3, base64 1.46). How many it is with a model is learned from its
//! answers, rather too few than too many.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes without a space that make a text dense.
const RUN: usize = 64;
/// Tokens that every question has around its text.
const AROUND: u64 = 16;
/// Thousandths of bytes in a token of dense text.
const DENSE: u64 = 1_400;
/// The same of other text: at first, at least, at most.
const PACE: (u32, u32, u32) = (3_000, 1_000, 6_000);
/// Bytes from which on a text tells something of its model.
const TELLING: u64 = 500;
/// How fast it is learned, in thousandths of bytes.
const STEP: u32 = 20;

/// What counts of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Weight {
    /// Bytes of words.
    pub plain: u64,
    /// Bytes of long runs without a space.
    pub dense: u64,
}

impl Weight {
    /// That of nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.plain == 0 && self.dense == 0
    }

    /// That of a text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let mut weight = Self::default();
        for run in text.split(u8::is_ascii_whitespace) {
            let bytes = u64::try_from(run.len()).unwrap_or(u64::MAX);
            // Scripts without spaces have several bytes in a character, and
            // are no denser than others.
            if run.len() > RUN && run.is_ascii() {
                weight.dense += bytes;
            } else {
                weight.plain += bytes + 1;
            }
        }
        weight
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            plain: self.plain.saturating_add(other.plain),
            dense: self.dense.saturating_add(other.dense),
        }
    }
}

/// Bytes in a token of a model, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pace(u32);

impl Default for Pace {
    fn default() -> Self {
        Self(PACE.0)
    }
}

impl Pace {
    /// Tokens that a text will be, rather more than it is.
    #[must_use]
    pub fn tokens(self, weight: Weight) -> u64 {
        let part = |bytes: u64, pace: u64| bytes.saturating_mul(1_000).div_ceil(pace.max(1));
        AROUND + part(weight.plain, self.0.into()) + part(weight.dense, DENSE)
    }

    /// Learns how many it was. Settles where one of twenty texts has fewer
    /// bytes in a token.
    pub fn learn(&mut self, weight: Weight, tokens: u64) {
        if weight.plain < TELLING || weight.dense > 0 || tokens <= AROUND {
            return;
        }
        let was = weight.plain.saturating_mul(1_000) / (tokens - AROUND);
        let pace = if was >= self.0.into() {
            self.0 + STEP
        } else {
            self.0.saturating_sub(STEP * 19)
        };
        self.0 = pace.clamp(PACE.1, PACE.2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_and_dense_text_are_told_apart() {
        let prose = "the quick brown fox jumps over the lazy dog ".repeat(20);
        let weight = Weight::of(prose.as_bytes());
        assert_eq!(weight.dense, 0);
        let dense = "QUJD".repeat(100);
        assert_eq!(Weight::of(dense.as_bytes()).dense, 400);
        let chinese = "\u{4f60}\u{597d}".repeat(100);
        assert_eq!(Weight::of(chinese.as_bytes()).dense, 0);
        let pace = Pace::default();
        assert!(pace.tokens(Weight::of(dense.as_bytes())) > 280);
        assert_eq!(pace.tokens(Weight::default()), AROUND);
    }

    #[test]
    fn a_model_that_needs_more_tokens_is_learned_quickly_and_one_that_needs_fewer_slowly() {
        let weight = Weight {
            plain: 3_000,
            dense: 0,
        };
        let mut pace = Pace::default();
        assert_eq!(pace.tokens(weight), 1_016);
        (0..3).for_each(|_| pace.learn(weight, 2_016));
        assert!(pace.tokens(weight) > 1_500, "{pace:?}");
        (0..200).for_each(|_| pace.learn(weight, 766));
        let tokens = pace.tokens(weight);
        assert!((766..820).contains(&tokens), "{tokens}");
        let before = pace;
        pace.learn(Weight::of(b"short"), 400);
        assert_eq!(pace, before, "a short text tells nothing");
    }
}
