//! Packet path: no allocation. The queue that our own bursts make: a keyframe is several
//! times as large as the frames around it, and leaves at once. A queue that is no longer
//! than this is no sign of a full network; it is gone in a moment.

use crate::clock::Micros;

/// A burst is seen in feedback for this long after its queue has drained.
const SEEN: Micros = Micros::from_millis(400);
/// A queue of ours that is longer comes from more than a burst.
const WAIT_MAX: Micros = Micros::from_millis(500);

/// A bucket that leaks at the estimated rate.
#[derive(Debug, Default)]
pub(crate) struct OwnQueue {
    bytes: u64,
    at: Micros,
    longest: u64,
    longest_at: Micros,
}

impl OwnQueue {
    /// `size` bytes go out now, over a network that takes `bps`.
    #[inline]
    pub(crate) fn sent(&mut self, now: Micros, size: usize, bps: u64) {
        if now != self.at {
            self.drain(now, bps);
        }
        self.bytes += size as u64;
        if self.bytes > self.longest {
            self.longest = self.bytes;
            self.longest_at = now;
        }
    }

    fn drain(&mut self, now: Micros, bps: u64) {
        let elapsed = now.since(self.at).0.min(1_000_000);
        self.bytes = self.bytes.saturating_sub(bps * elapsed / 8_000_000);
        self.at = now;
    }

    /// The longest wait that is to be expected of what feedback tells now.
    pub(crate) fn wait(&mut self, now: Micros, bps: u64) -> Micros {
        let wait = |bytes: u64| Micros(bytes * 8_000_000 / bps.max(1)).min(WAIT_MAX);
        if now.since(self.longest_at) > wait(self.longest).plus(SEEN) {
            self.drain(now, bps);
            self.longest = self.bytes;
            self.longest_at = now;
        }
        wait(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyframe_is_expected_to_wait_and_frames_are_not() {
        let mut queue = OwnQueue::default();
        let ms = |millis| Micros::from_millis(5_000 + millis);
        let mut waits = Vec::new();
        for frame in 0..120_u64 {
            let now = ms(frame * 33);
            let packets = if frame == 60 { 20 } else { 2 };
            (0..packets).for_each(|_| queue.sent(now, 1_000, 600_000));
            waits.push(queue.wait(now, 600_000).0 / 1_000);
        }
        assert!(waits[..60].iter().all(|wait| *wait <= 30), "{waits:?}");
        assert!(waits[60..75].iter().all(|wait| (250..300).contains(wait)), "{waits:?}");
        assert!(waits[100..].iter().all(|wait| *wait <= 60), "{waits:?}");
    }
}
