//! Random-looking numbers that are pure functions of a seed, so that a
//! replayed history draws the same.

use std::time::Duration;

/// `SplitMix64` (Steele, Lea, Flood 2014): a well-mixed 64-bit value of a seed.
pub(super) const fn draw(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The part of a duration that a 64-bit draw stands for: below the whole, or
/// zero where the whole is.
pub(super) fn share(whole: Duration, draw: u64) -> Duration {
    let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
    let part = (u128::from(micros) * u128::from(draw)) >> 64;
    Duration::from_micros(u64::try_from(part).unwrap_or(micros))
}
