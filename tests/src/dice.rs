//! Chance that is the same in every run.

/// A source of numbers that look random (xorshift64), by its seed, which is not zero.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// Gives a number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}
