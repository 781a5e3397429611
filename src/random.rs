//! Numbers that look random and come again from the same seed, for faults and for tests.
//!
//! `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014). Written out here
//! because a run must repeat from its seed whatever versions of libraries it is built with. Nothing secret may come
//! from it.

/// A sequence of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of that seed.
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to 1, and never 1 itself.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a fraction can hold")]
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `end`; 0 where `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        scale(self.next(), end)
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A fraction in units of 2⁻⁶⁴, of a whole; rounded down.
pub(crate) fn scale(fraction: u64, whole: usize) -> usize {
    ((u128::from(fraction) * whole as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the reference implementation, <https://prng.di.unimi.it/splitmix64.c>, for this seed.
    #[test]
    fn the_sequence_is_that_of_the_reference() {
        let mut random = Random::new(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn numbers_keep_within_their_bounds_and_reach_them() {
        let mut random = Random::new(0);
        let numbers: Vec<usize> = (0..1000).map(|_| random.below(3)).collect();
        assert!((0..3).all(|number| numbers.contains(&number)) && numbers.iter().all(|number| *number < 3));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random.fraction())));
        assert_eq!(random.below(0), 0);
    }
}
