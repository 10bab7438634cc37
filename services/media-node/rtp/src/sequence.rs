//! Packet path: no allocation. Sequence numbers and timestamps that wrap: comparing
//! them, and counting on past the wrap.

/// `a` comes after `b` in the half circle of sequence numbers (RFC 3550 A.1).
#[must_use]
pub fn sequence_after(a: u16, b: u16) -> bool {
    a != b && a.wrapping_sub(b) < 0x8000
}

/// Steps from `b` to `a`: positive if `a` is later.
#[must_use]
pub fn sequence_distance(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b).cast_signed()
}

/// `a` comes after `b` in the half circle of timestamps.
#[must_use]
pub fn timestamp_after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 0x8000_0000
}

/// Clock units from `b` to `a`: positive if `a` is later.
#[must_use]
pub fn timestamp_distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// Turns 16-bit sequence numbers into numbers that do not wrap. The low 16 bits stay
/// as they are. The first number lands in the second cycle (65,536 and up), so that
/// packets older than the first have a place below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SequenceUnwrapper {
    highest: Option<u64>,
}

impl SequenceUnwrapper {
    /// One that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { highest: None }
    }

    /// The unwrapped number next to the highest seen so far; remembers it if it is
    /// higher. A step of more than 32,767 ahead counts as one back.
    pub fn unwrap(&mut self, sequence: u16) -> u64 {
        let unwrapped = self.peek(sequence);
        if self.highest.is_none_or(|highest| unwrapped > highest) {
            self.highest = Some(unwrapped);
        }
        unwrapped
    }

    /// As [`SequenceUnwrapper::unwrap`], without remembering.
    #[must_use]
    pub fn peek(&self, sequence: u16) -> u64 {
        let Some(highest) = self.highest else {
            return 0x1_0000 + u64::from(sequence);
        };
        let step = i64::from(sequence_distance(sequence, highest as u16));
        // Never below 32,768: the first number is above 65,535 and no step is longer.
        highest.saturating_add_signed(step)
    }

    /// The highest number seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Turns 32-bit timestamps into numbers that do not wrap, as [`SequenceUnwrapper`]
/// does. The first lands in the second cycle (2^32 and up).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimestampUnwrapper {
    highest: Option<u64>,
}

impl TimestampUnwrapper {
    /// One that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { highest: None }
    }

    /// The unwrapped timestamp next to the highest seen so far; remembers it if it is
    /// higher.
    pub fn unwrap(&mut self, timestamp: u32) -> u64 {
        let Some(highest) = self.highest else {
            let first = (1 << 32) + u64::from(timestamp);
            self.highest = Some(first);
            return first;
        };
        let step = i64::from(timestamp_distance(timestamp, highest as u32));
        let unwrapped = highest.saturating_add_signed(step);
        self.highest = Some(highest.max(unwrapped));
        unwrapped
    }

    /// The highest timestamp seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_count_on_past_the_wrap_and_back() {
        let mut unwrapper = SequenceUnwrapper::new();
        assert_eq!(unwrapper.unwrap(65_534), 0x1_fffe);
        assert_eq!(unwrapper.unwrap(1), 0x2_0001);
        assert_eq!(unwrapper.unwrap(65_535), 0x1_ffff);
        assert_eq!(unwrapper.highest(), Some(0x2_0001));
    }

    #[test]
    fn a_packet_before_the_first_has_a_lower_number() {
        let mut unwrapper = SequenceUnwrapper::new();
        let first = unwrapper.unwrap(0);
        assert_eq!(unwrapper.unwrap(65_535), first - 1);
        assert_eq!(unwrapper.highest(), Some(first));
    }

    #[test]
    fn order_holds_across_the_wrap() {
        assert!(sequence_after(0, 65_535));
        assert!(!sequence_after(65_535, 0));
        assert!(!sequence_after(7, 7));
        assert_eq!(sequence_distance(2, 65_534), 4);
        assert!(timestamp_after(10, u32::MAX - 10));
        assert_eq!(timestamp_distance(0, u32::MAX), 1);
    }

    proptest! {
        #[test]
        fn low_bits_never_change(start: u16, steps in proptest::collection::vec(any::<u16>(), 0..200)) {
            let mut unwrapper = SequenceUnwrapper::new();
            unwrapper.unwrap(start);
            for step in steps {
                prop_assert_eq!(unwrapper.unwrap(step) as u16, step);
            }
        }

        #[test]
        fn small_steps_are_followed_exactly(start: u32, steps in proptest::collection::vec(-90_000_i32..900_000, 1..200)) {
            let mut unwrapper = TimestampUnwrapper::new();
            let mut expected = unwrapper.unwrap(start);
            for step in steps {
                let next = unwrapper.highest().unwrap().saturating_add_signed(i64::from(step));
                expected = unwrapper.unwrap(next as u32);
                prop_assert_eq!(expected, next);
            }
            prop_assert_eq!(unwrapper.highest().unwrap() >= expected, true);
        }
    }
}
