//! What tokens cost.
//!
//! Amounts of money are whole millionths, in whatever currency the prices are
//! in: a price is given for a million tokens, as providers do, so one of 3.5
//! is three and a half millionths for a token.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limit::Tokens;

/// Millionths in one.
const MICRO: f64 = 1_000_000.0;
/// Highest price of a million tokens.
const PRICE_MAX: f64 = 1_000_000.0;

/// Money, in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(u64);

impl Money {
    /// So many millionths.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// In millionths.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// As a number for people and programs.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "to be shown: what is lost is below a millionth of what there is"
    )]
    pub fn amount(self) -> f64 {
        self.0 as f64 / MICRO
    }

    /// Reads an amount; none of what is none or too large.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie within"
    )]
    pub fn of(amount: f64) -> Option<Self> {
        let fits = amount.is_finite() && (0.0..=PRICE_MAX).contains(&amount);
        fits.then(|| Self((amount * MICRO).round() as u64))
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:06}", self.0 % 1_000_000);
        let (cents, rest) = text.split_at(2);
        write!(
            f,
            "{}.{cents}{}",
            self.0 / 1_000_000,
            rest.trim_end_matches('0')
        )
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.amount())
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let amount = f64::deserialize(deserializer)?;
        let fault = "an amount of money lies between 0 and 1000000";
        Self::of(amount).ok_or_else(|| serde::de::Error::custom(fault))
    }
}

/// Prices of a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Of what is asked.
    pub input: Money,
    /// Of answers.
    pub output: Money,
}

impl Price {
    /// That of what a provider answers when it has time, within a day.
    #[must_use]
    pub const fn halved(self) -> Self {
        Self {
            input: Money(self.input.0.div_ceil(2)),
            output: Money(self.output.0.div_ceil(2)),
        }
    }

    /// What so many tokens cost, rounded up.
    #[must_use]
    pub fn of(self, tokens: Tokens) -> Money {
        let part = |price: Money, count: u64| u128::from(price.0) * u128::from(count);
        let all = part(self.input, tokens.input) + part(self.output, tokens.output);
        Money(u64::try_from(all.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_of_a_million_tokens_and_costs_are_rounded_up() {
        let price: Price =
            serde_json::from_str(r#"{"input": 3, "output": 15.5}"#).expect("a price");
        let tokens = |input, output| Tokens { input, output };
        assert_eq!(price.of(tokens(1_000_000, 0)).amount(), 3.0);
        assert_eq!(price.of(tokens(1, 2)).micros(), 34);
        assert_eq!(price.halved().of(tokens(1, 2)).micros(), 17);
        let cheap: Price =
            serde_json::from_str(r#"{"input": 0.075, "output": 0}"#).expect("a price");
        assert_eq!(cheap.of(tokens(10, 9)).micros(), 1);
        for (micros, text) in [
            (0, "0.00"),
            (1, "0.000001"),
            (1_920_000, "1.92"),
            (12_500, "0.0125"),
        ] {
            assert_eq!(Money::from_micros(micros).to_string(), text);
        }
        for bad in ["-1", "1e30", "\"3\""] {
            let text = format!("{{\"input\": {bad}, \"output\": 1}}");
            assert!(serde_json::from_str::<Price>(&text).is_err(), "{bad}");
        }
    }
}
