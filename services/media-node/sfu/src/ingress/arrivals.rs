//! Packet path: no allocation. When the packets of a transport arrived, for
//! transport-wide feedback to the publisher, whose bandwidth estimate lives on it.

use headwater_rtp::SequenceUnwrapper;
use headwater_rtp::rtcp::Arrival;

use crate::clock::Micros;

/// Feedback goes out at the latest this long after a packet: what libwebrtc does at
/// most, and half of what its estimator bears.
pub(crate) const FEEDBACK_INTERVAL: Micros = Micros::from_millis(100);
/// Feedback goes out at once with this many packets: a burst is told early.
pub(crate) const FEEDBACK_PACKETS: usize = 100;
/// Arrivals that wait for feedback at most. Above that the oldest go untold, which
/// happens only if nobody drains the core.
const ARRIVALS_MAX: usize = 512;
/// A hole that is told as lost; behind a wider one the list begins anew.
const GAP_MAX: u64 = 2_000;

/// Arrivals that were not told yet, in the order of their transport-wide numbers.
#[derive(Debug, Default)]
pub(crate) struct ArrivalLog {
    unwrapper: SequenceUnwrapper,
    pending: Vec<Arrival>,
    /// The first number that was not told yet.
    next: Option<u64>,
    count: u8,
}

impl ArrivalLog {
    /// Notes an arrival. `true` if feedback should go out now.
    pub(crate) fn note(&mut self, now: Micros, sequence: u16) -> bool {
        if self.pending.capacity() == 0 {
            self.pending.reserve_exact(ARRIVALS_MAX);
        }
        let sequence = self.unwrapper.unwrap(sequence);
        let arrival = Arrival { sequence, at: now.to_duration() };
        let at = self.pending.partition_point(|other| other.sequence < sequence);
        if self.pending.get(at).is_some_and(|other| other.sequence == sequence) {
            return false;
        }
        if self.pending.len() == ARRIVALS_MAX {
            if at == 0 {
                return true;
            }
            self.pending.remove(0);
            self.pending.insert(at - 1, arrival);
            return true;
        }
        self.pending.insert(at, arrival);
        self.pending.len() >= FEEDBACK_PACKETS
    }

    pub(crate) fn pending(&self) -> &[Arrival] {
        &self.pending
    }

    /// The number that the next feedback begins with. A packet that came after it was
    /// told lost is told again.
    pub(crate) fn base(&self) -> Option<u64> {
        let first = self.pending.first()?.sequence;
        let next = self.next.unwrap_or(first);
        Some(if first > next + GAP_MAX { first } else { next.min(first) })
    }

    /// The number of the next feedback message.
    pub(crate) fn feedback_count(&mut self) -> u8 {
        let count = self.count;
        self.count = count.wrapping_add(1);
        count
    }

    /// The first `count` arrivals were told.
    pub(crate) fn told(&mut self, count: usize) {
        let count = count.min(self.pending.len());
        if let Some(last) = count.checked_sub(1).and_then(|index| self.pending.get(index)) {
            self.next = Some(self.next.unwrap_or(0).max(last.sequence + 1));
        }
        self.pending.drain(..count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_begins_where_the_last_one_ended() {
        let mut log = ArrivalLog::default();
        for sequence in [65_534, 65_535, 1, 0] {
            log.note(Micros::from_millis(1), sequence);
        }
        let first = log.base().unwrap();
        assert_eq!(first as u16, 65_534);
        log.told(4);
        assert_eq!(log.base(), None);
        log.note(Micros::from_millis(2), 4);
        assert_eq!(log.base(), Some(first + 4), "numbers 2 and 3 are told lost");
        log.told(1);
        log.note(Micros::from_millis(3), 3);
        assert_eq!(log.base(), Some(first + 5), "a late packet is told again");
    }

    #[test]
    fn a_burst_asks_for_feedback_and_nothing_grows_without_bound() {
        let mut log = ArrivalLog::default();
        let urgent = (0..10_000_u16).filter(|n| log.note(Micros::ZERO, *n)).count();
        assert_eq!(urgent, 10_000 - FEEDBACK_PACKETS + 1);
        assert_eq!(log.pending().len(), ARRIVALS_MAX);
    }
}
