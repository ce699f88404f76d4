//! Numbers that look random and are the same for the same seed.
//!
//! SplitMix64 (Steele, Lea and Flood, 2014): enough to spread moments, useless for secrets.

/// A sequence of numbers that its seed decides.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence that begins at `seed`.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number from 0 inclusive to 1 exclusive.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    pub const fn roll(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_sequence_and_rolls_fill_their_range() {
        let rolls = |seed| {
            let mut dice = Dice::seeded(seed);
            (0..1_000).map(|_| dice.roll()).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        let (least, most) = rolls(7).into_iter().fold((1.0_f64, 0.0_f64), |(a, b), x| (a.min(x), b.max(x)));
        assert!((0.0..0.01).contains(&least) && (0.99..1.0).contains(&most), "{least} {most}");
    }
}
