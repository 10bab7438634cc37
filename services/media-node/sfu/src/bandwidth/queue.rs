//! How long packets wait on the way now: their delay above the least of the last seconds.
//! A queue that is full stays as it is, so its gradient says nothing; its length does.

/// The least delay is that of so long at least, and of twice as long at most, in
/// microseconds: after that another way is taken for the same.
const MEMORY: i64 = 10_000_000;

/// Watches delays of one transport.
#[derive(Debug, Default)]
pub(crate) struct QueueDelay {
    /// Time of sending, as told and without wraps.
    last_sent: Option<u32>,
    sent: i64,
    began: i64,
    least_before: Option<i64>,
    least: Option<i64>,
    /// Since it was last asked.
    least_now: Option<i64>,
}

impl QueueDelay {
    /// A packet sent at a time (low half of microseconds of ours) arrived at another
    /// (microseconds of the receiver's).
    pub(crate) fn observe(&mut self, sent: u32, arrival: i64) {
        let before = self.last_sent.replace(sent).unwrap_or(sent);
        self.sent += i64::from(sent.wrapping_sub(before).cast_signed());
        let delay = arrival - self.sent;
        if self.sent - self.began > MEMORY {
            self.began = self.sent;
            self.least_before = self.least.take();
        }
        self.least = Some(self.least.map_or(delay, |least| least.min(delay)));
        self.least_now = Some(self.least_now.map_or(delay, |least| least.min(delay)));
    }

    /// The shortest wait of what was observed since the last call, in microseconds; `None`
    /// if nothing was. The shortest, because jitter is no queue.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let now = self.least_now.take()?;
        let least = [self.least_before, self.least].into_iter().flatten().min()?;
        u64::try_from(now - least).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_queue_is_seen_and_jitter_is_not() {
        let mut queue = QueueDelay::default();
        let mut seen = Vec::new();
        for packet in 0_i64..2_000 {
            let sent = 4_294_900_000 + packet * 10_000;
            let wait = if packet < 1_000 { packet % 7 * 4_000 } else { 200_000 };
            queue.observe(sent as u32, sent - 1_000_000_000 + wait);
            if packet % 10 == 9 {
                seen.push(queue.take().unwrap());
            }
        }
        assert!(seen[..100].iter().all(|wait| *wait == 0), "{seen:?}");
        assert!(seen[100..].iter().all(|wait| *wait == 200_000), "{seen:?}");
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_longer_way_is_no_queue_for_ever() {
        let mut queue = QueueDelay::default();
        queue.observe(0, 0);
        for packet in 1..300_i64 {
            queue.observe((packet * 100_000) as u32, packet * 100_000 + 80_000);
            let _ = queue.take();
        }
        queue.observe(30_000_000, 30_080_000);
        assert_eq!(queue.take(), Some(0));
    }
}
