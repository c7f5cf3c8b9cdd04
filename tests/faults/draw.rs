//! Random choices that can be made again: the seed is printed, and `FAULTS_SEED` replays it.

use taskdaemon::clock;

/// A row of choices.
#[derive(Debug, Clone)]
pub(crate) struct Draws(u64);

/// The seed of this run, told to whoever reads the output.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("FAULTS_SEED");
    let seed = given.ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| clock::now().micros().unsigned_abs());
    println!("FAULTS_SEED={seed}");
    seed
}

impl Draws {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014).
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below a bound.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// The same things in another order.
    pub(crate) fn shuffled<T>(&mut self, mut things: Vec<T>) -> Vec<T> {
        for place in (1..things.len()).rev() {
            let bound = u64::try_from(place).expect("small") + 1;
            let other = usize::try_from(self.below(bound)).expect("small");
            things.swap(place, other);
        }
        things
    }
}
