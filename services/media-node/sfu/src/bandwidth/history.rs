//! Packet path: no allocation but while the ring grows. What was sent under which
//! transport-wide number, until feedback tells what became of it
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use crate::clock::Micros;

/// Packets remembered at first: two kilobytes, a second of 2.5 Mbit/s.
const FIRST_SLOTS: usize = 256;
/// Packets remembered at most: a second of 40 Mbit/s. Feedback that comes later than
/// that finds nothing and is ignored.
pub(crate) const SLOTS_MAX: usize = 4_096;
/// A packet younger than this may still be acknowledged: the ring grows rather than
/// forget it.
const KEEP: u32 = 1_000_000;

const ACKED: u16 = 0x4000;
const LOST: u16 = 0x8000;
const SIZE: u16 = 0x3fff;

/// Eight bytes, so that eight packets share a cache line.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Low half of the time of sending in microseconds; wraps after 71 minutes.
    sent: u32,
    sequence: u16,
    /// Size and two flags; 0 if nothing was sent.
    state: u16,
}

/// A packet that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentPacket {
    /// Low half of the time of sending in microseconds.
    pub(crate) sent: u32,
    /// Bytes of the plain packet.
    pub(crate) size: u16,
}

/// What a feedback says of a packet for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrived(SentPacket),
    /// It had been called lost before.
    ArrivedAfterAll(SentPacket),
    Lost(SentPacket),
}

/// Ring of sent packets, by the low bits of the transport-wide number.
#[derive(Debug, Default)]
pub(crate) struct SentHistory {
    slots: Box<[Slot]>,
    newest: Option<u16>,
}

impl SentHistory {
    /// A packet of `size` bytes goes out now.
    #[inline]
    pub(crate) fn push(&mut self, now: Micros, sequence: u16, size: usize) {
        let sent = now.0 as u32;
        if self.must_grow(sent, sequence) {
            self.grow();
        }
        let index = usize::from(sequence) & (self.slots.len() - 1);
        self.slots[index] = Slot { sent, sequence, state: (size as u16 & SIZE).max(1) };
        self.newest = Some(sequence);
    }

    #[inline]
    fn must_grow(&self, sent: u32, sequence: u16) -> bool {
        if self.slots.is_empty() {
            return true;
        }
        let slot = self.slots[usize::from(sequence) & (self.slots.len() - 1)];
        let is_open = slot.state != 0 && slot.state & ACKED == 0;
        is_open && sent.wrapping_sub(slot.sent) < KEEP && self.slots.len() < SLOTS_MAX
    }

    #[cold]
    fn grow(&mut self) {
        let len = (self.slots.len() * 2).clamp(FIRST_SLOTS, SLOTS_MAX);
        let mut slots = vec![Slot::default(); len].into_boxed_slice();
        for slot in self.slots.iter().filter(|slot| slot.state != 0) {
            slots[usize::from(slot.sequence) & (len - 1)] = *slot;
        }
        self.slots = slots;
    }

    /// Feedback says whether a packet arrived. `None` if it is not known any more, or if
    /// this is no news.
    pub(crate) fn settle(&mut self, sequence: u16, arrived: bool) -> Option<Fate> {
        let index = usize::from(sequence) & self.slots.len().checked_sub(1)?;
        let slot = &mut self.slots[index];
        if slot.state == 0 || slot.sequence != sequence || slot.state & ACKED != 0 {
            return None;
        }
        let packet = SentPacket { sent: slot.sent, size: slot.state & SIZE };
        let was_lost = slot.state & LOST != 0;
        slot.state |= if arrived { ACKED } else { LOST };
        match (arrived, was_lost) {
            (true, false) => Some(Fate::Arrived(packet)),
            (true, true) => Some(Fate::ArrivedAfterAll(packet)),
            (false, false) => Some(Fate::Lost(packet)),
            (false, true) => None,
        }
    }

    /// Bytes of a packet of which no feedback spoke: the feedback itself was lost.
    pub(crate) fn unreported(&self, sequence: u16) -> Option<u16> {
        let index = usize::from(sequence) & self.slots.len().checked_sub(1)?;
        let slot = self.slots[index];
        let is_open = slot.state & (ACKED | LOST) == 0 && slot.state != 0;
        (is_open && slot.sequence == sequence).then_some(slot.state & SIZE)
    }

    /// The number that was given out last.
    pub(crate) fn newest(&self) -> Option<u16> {
        self.newest
    }

    /// Packets the ring has room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unused_history_takes_no_memory_and_knows_nothing() {
        let mut history = SentHistory::default();
        assert_eq!(history.capacity(), 0);
        assert_eq!((history.settle(0, true), history.unreported(0)), (None, None));
    }

    #[test]
    fn a_packet_is_settled_once_and_a_lost_one_may_still_arrive() {
        let mut history = SentHistory::default();
        history.push(Micros(5), 7, 1_200);
        let packet = SentPacket { sent: 5, size: 1_200 };
        assert_eq!(history.unreported(7), Some(1_200));
        assert_eq!(history.settle(7, false), Some(Fate::Lost(packet)));
        assert_eq!(history.settle(7, false), None);
        assert_eq!(history.settle(7, true), Some(Fate::ArrivedAfterAll(packet)));
        assert_eq!(history.settle(7, true), None);
        assert_eq!(history.settle(8, true), None);
    }

    #[test]
    fn the_ring_grows_only_while_feedback_is_owed() {
        let mut history = SentHistory::default();
        for number in 0..20_000_u16 {
            history.push(Micros(u64::from(number) * 1_000), number, 100);
            history.settle(number.wrapping_sub(100), true);
        }
        assert_eq!(history.capacity(), FIRST_SLOTS);
        for number in 0..20_000_u16 {
            history.push(Micros(20_000_000 + u64::from(number) * 10), number, 100);
        }
        assert_eq!(history.capacity(), SLOTS_MAX);
    }

    proptest! {
        #[test]
        fn what_was_sent_within_a_second_is_found(
            first in any::<u16>(),
            count in 1_usize..2_000,
            gap in 0_u64..400,
        ) {
            let mut history = SentHistory::default();
            for index in 0..count {
                let now = Micros(index as u64 * gap);
                history.push(now, first.wrapping_add(index as u16), 100 + index % 1_000);
            }
            for index in 0..count {
                let fate = history.settle(first.wrapping_add(index as u16), true);
                let sent = (index as u64 * gap) as u32;
                let packet = SentPacket { sent, size: (100 + index % 1_000) as u16 };
                prop_assert_eq!(fate, Some(Fate::Arrived(packet)));
            }
        }
    }
}
