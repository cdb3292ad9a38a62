//! Chance that is the same in each run.

/// A sequence of numbers that look random.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// A number less than `limit`, which is at most 2^31.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// How many rounds a test goes: the usual number, times what `DOORWARD_TESTS_ROUNDS` says.
pub fn rounds(usual: u64) -> u64 {
    let times = std::env::var("DOORWARD_TESTS_ROUNDS").map_or(1, |times| times.parse().expect("a number"));
    usual * times
}
