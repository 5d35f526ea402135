//! Pseudorandom numbers for tests: the same in each run.

/// Marsaglia's xorshift generator with 64 bits and a fixed seed.
#[derive(Debug)]
pub(crate) struct Xorshift(u64);

impl Default for Xorshift {
    fn default() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }
}

impl Xorshift {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
