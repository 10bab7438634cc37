//! Randomness with a seed that a failing test prints.

/// SplitMix64.
pub struct Random {
    state: u64,
}

impl Random {
    /// The seed comes from `HEADWATER_SEED` if it is set, else it is `default`; it is
    /// printed, which cargo shows if the test fails.
    pub fn new(default: u64) -> Self {
        let seed = std::env::var("HEADWATER_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(default);
        println!("HEADWATER_SEED={seed}");
        Self { state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in this part of all cases, in percent.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
