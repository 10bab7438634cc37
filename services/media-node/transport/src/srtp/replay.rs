//! Which of the latest packet indices have been seen: a sliding bitmap. Packet
//! path: no allocation, lock, formatting or clock read.

/// The last `WORDS * 64` indices up to the highest seen.
#[derive(Debug, Clone)]
pub(super) struct ReplayWindow<const WORDS: usize> {
    highest: Option<u64>,
    /// Bit `i % (WORDS * 64)` stands for index `i`.
    seen: [u64; WORDS],
}

impl<const WORDS: usize> ReplayWindow<WORDS> {
    const SIZE: u64 = WORDS as u64 * 64;

    pub const fn new() -> Self {
        Self { highest: None, seen: [0; WORDS] }
    }

    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Whether `index` is new and not older than the window.
    pub fn is_fresh(&self, index: u64) -> bool {
        match self.highest {
            None => true,
            Some(highest) if index > highest => true,
            Some(highest) => highest - index < Self::SIZE && !self.is_set(index),
        }
    }

    /// Whether `index` was recorded and is still inside of the window.
    pub fn has_seen(&self, index: u64) -> bool {
        self.highest.is_some_and(|highest| {
            index <= highest && highest - index < Self::SIZE && self.is_set(index)
        })
    }

    /// Records `index`, which [`Self::is_fresh`] allowed.
    pub fn record(&mut self, index: u64) {
        match self.highest {
            Some(highest) if index <= highest => {}
            Some(highest) => {
                self.forget(highest, index);
                self.highest = Some(index);
            }
            None => self.highest = Some(index),
        }
        let bit = index % Self::SIZE;
        self.seen[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    /// Clears the bits of the indices that enter the window above `highest`.
    fn forget(&mut self, highest: u64, index: u64) {
        if index - highest >= Self::SIZE {
            self.seen = [0; WORDS];
            return;
        }
        for entering in highest + 1..=index {
            let bit = entering % Self::SIZE;
            self.seen[(bit / 64) as usize] &= !(1 << (bit % 64));
        }
    }

    fn is_set(&self, index: u64) -> bool {
        let bit = index % Self::SIZE;
        self.seen[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_index_is_fresh_once_and_never_below_the_window() {
        let mut window = ReplayWindow::<16>::new();
        assert!(window.is_fresh(5000));
        window.record(5000);
        assert!(!window.is_fresh(5000));
        assert!(window.is_fresh(5000 - 1023));
        assert!(!window.is_fresh(5000 - 1024));
        window.record(6500);
        assert!(!window.is_fresh(5000), "has left the window");
        assert!(window.is_fresh(5600), "a cleared bit is not a seen index");
    }

    proptest! {
        #[test]
        fn the_bitmap_agrees_with_a_set_of_indices(steps in prop::collection::vec(0u64..400, 1..400)) {
            let mut window = ReplayWindow::<2>::new();
            let mut seen = BTreeSet::new();
            for index in steps {
                let highest = seen.last().copied().unwrap_or(0);
                let expected = !seen.contains(&index) && (seen.is_empty() || index > highest || highest - index < 128);
                prop_assert_eq!(window.is_fresh(index), expected);
                prop_assert_eq!(window.has_seen(index), seen.contains(&index) && highest - index.min(highest) < 128);
                if expected {
                    window.record(index);
                    seen.insert(index);
                }
            }
        }
    }
}
