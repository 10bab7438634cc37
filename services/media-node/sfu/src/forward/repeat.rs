//! Packet path: no allocation. What a subscriber may ask for again: how much in all, and
//! how often the same.

use crate::clock::Micros;

/// What a subscriber may have repeated at once, in bytes: the worst 100 ms of a
/// 6 Mbit/s stream and the same again.
const BUDGET_MAX: u32 = 150_000;
/// Repeated bytes may be this part of those forwarded (one half). Above it the network
/// is too narrow, and repeating makes it worse; and nobody can turn small requests into
/// a flood.
const BUDGET_DIVISOR: u32 = 2;
/// Requests whose time is remembered, by the low bits of the sequence number: half a
/// second of a 1 Mbit/s stream. Two that share a place are only less protected.
const RECENT_SLOTS: usize = 64;
/// A packet is repeated so often at most, as often as libwebrtc asks. At 30 % loss one in
/// 500,000 is still missing then; each that is costs a freeze of seconds.
const TIMES_MAX: u8 = 10;
/// A packet is not repeated again within this time, whatever is asked for.
const SPACING_MIN: Micros = Micros::from_millis(10);

/// Why a packet is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It was a moment ago, or too often.
    Repeated,
    /// The budget is used up.
    Budget,
}

/// The transport-wide number and send time of a packet, for repeating it to the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) sequence: u16,
    pub(crate) transport_sequence: u16,
    pub(crate) send_time: [u8; 3],
    used: bool,
}

/// What went to one subscriber and may be asked for again.
#[derive(Debug)]
pub(crate) struct RepeatGuard {
    budget: u32,
    /// Sequence number, how often, and time in milliseconds, which wraps after seven weeks.
    recent: [(u16, u8, u32); RECENT_SLOTS],
    /// By the low bits of the sequence number; empty if none are kept.
    stamps: Box<[Stamp]>,
}

impl RepeatGuard {
    pub(crate) fn new() -> Self {
        Self { budget: BUDGET_MAX, recent: [(0, 0, 0); RECENT_SLOTS], stamps: Box::default() }
    }

    /// Bytes were forwarded for the first time.
    #[inline]
    pub(crate) fn earn(&mut self, bytes: usize) {
        self.budget = (self.budget + bytes as u32 / BUDGET_DIVISOR).min(BUDGET_MAX);
    }

    /// Whether a packet of `bytes` may be repeated now, if it was not within `spacing`; it
    /// then counts as repeated.
    pub(crate) fn admit(
        &mut self,
        now: Micros,
        spacing: Micros,
        sequence: u16,
        bytes: usize,
    ) -> Result<(), Refusal> {
        let millis = (now.0 / 1_000) as u32;
        let spacing = (spacing.max(SPACING_MIN).0 / 1_000) as u32;
        let slot = &mut self.recent[usize::from(sequence) % RECENT_SLOTS];
        let times = if slot.0 == sequence { slot.1 } else { 0 };
        let soon = times > 0 && millis.wrapping_sub(slot.2) < spacing;
        if soon || times >= TIMES_MAX {
            return Err(Refusal::Repeated);
        }
        let Some(left) = self.budget.checked_sub(bytes as u32) else {
            return Err(Refusal::Budget);
        };
        self.budget = left;
        *slot = (sequence, times + 1, millis);
        Ok(())
    }

    /// From now on this many stamps are kept; those kept so far are forgotten.
    pub(crate) fn keep_stamps(&mut self, count: usize) {
        let none = Stamp { sequence: 0, transport_sequence: 0, send_time: [0; 3], used: false };
        self.stamps = vec![none; count].into_boxed_slice();
    }

    /// A packet was sent with these values.
    pub(crate) fn stamp(&mut self, sequence: u16, transport_sequence: u16, send_time: [u8; 3]) {
        let Some(slot) = usize::from(sequence).checked_rem(self.stamps.len()) else {
            return;
        };
        self.stamps[slot] = Stamp { sequence, transport_sequence, send_time, used: true };
    }

    /// The values that a packet was sent with; `None` if they are not known any more.
    pub(crate) fn stamped(&self, sequence: u16) -> Option<Stamp> {
        let stamp = self.stamps[usize::from(sequence).checked_rem(self.stamps.len())?];
        (stamp.used && stamp.sequence == sequence).then_some(stamp)
    }

    #[inline]
    pub(crate) fn keeps_stamps(&self) -> bool {
        !self.stamps.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_repeated_once_in_a_round_trip() {
        let mut guard = RepeatGuard::new();
        let rtt = Micros::from_millis(80);
        let ask = |guard: &mut RepeatGuard, at: u64| {
            guard.admit(Micros::from_millis(1_000 + at), rtt, 7, 100)
        };
        assert_eq!(ask(&mut guard, 0), Ok(()));
        assert_eq!(ask(&mut guard, 79), Err(Refusal::Repeated));
        assert_eq!(ask(&mut guard, 80), Ok(()));
    }

    #[test]
    fn a_flood_of_requests_gets_half_of_what_was_forwarded_at_most() {
        let mut guard = RepeatGuard::new();
        let mut repeated = 0_usize;
        let forwarded = 1_000 * 1_200;
        for round in 0..1_000_u64 {
            guard.earn(1_200);
            for sequence in 0..200 {
                let now = Micros::from_millis(1_000 + round * 50);
                repeated += usize::from(guard.admit(now, Micros::ZERO, sequence, 1_200).is_ok());
            }
        }
        assert!(repeated * 1_200 <= forwarded / 2 + BUDGET_MAX as usize, "{repeated}");
    }

    #[test]
    fn stamps_are_found_until_they_are_overwritten() {
        let mut guard = RepeatGuard::new();
        guard.stamp(1, 10, [1, 2, 3]);
        assert_eq!(guard.stamped(1), None, "not asked to keep any");
        guard.keep_stamps(256);
        assert_eq!(guard.stamped(0), None);
        guard.stamp(1, 10, [1, 2, 3]);
        assert_eq!(guard.stamped(1).unwrap().transport_sequence, 10);
        guard.stamp(257, 11, [0; 3]);
        assert_eq!(guard.stamped(1), None);
    }
}
