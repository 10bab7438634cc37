//! What is sent beyond ordinary frames: repeated packets get a share of the rate, in
//! tokens. Ordinary frames are not paced: a frame that leaves as one train costs a third
//! of what its packets cost one by one, the layers were chosen to fit the estimate, and
//! the detector takes a train as one group. What comes on top of them is not bounded by
//! the layers: answers to NACKs here, probes by their own goal.

use crate::clock::Micros;

/// Repeated packets may take this part of the estimate, and of what is lost for no fault of
/// ours one and a half times as much, because repeated packets are lost, too.
const SHARE: f64 = 0.2;
const SHARE_OF_LOSS: f64 = 1.5;
const SHARE_MAX: f64 = 0.6;
/// Tokens that gather while nothing is repeated, as time at the share: a burst of loss is
/// made good at once, a storm of requests is not.
const GATHER: u64 = 500_000;
/// At least this much gathers and flows, in bytes and bits per second: a keyframe of a
/// small layer.
const BURST_MIN: u64 = 12_000;
const SHARE_MIN: u64 = 50_000;

/// Tokens for repeating packets to one subscriber.
#[derive(Debug, Default)]
pub(crate) struct RepeatTokens {
    /// Bytes; `None` until first asked.
    left: Option<u64>,
    filled: Micros,
}

impl RepeatTokens {
    /// Takes `bytes` if the share of the estimate allows it; with the estimate comes the
    /// part of packets that is lost whatever is sent.
    pub(crate) fn take(
        &mut self,
        now: Micros,
        (estimate_bps, loss): (u64, f64),
        bytes: usize,
    ) -> bool {
        let part = (SHARE + SHARE_OF_LOSS * loss).min(SHARE_MAX);
        let share = ((estimate_bps as f64 * part) as u64).max(SHARE_MIN);
        let full = (share * GATHER / 8_000_000).max(BURST_MIN);
        let elapsed = now.since(self.filled).0.min(GATHER);
        let earned = share * elapsed / 8_000_000;
        let left = self.left.map_or(full, |left| (left + earned).min(full));
        if earned > 0 || self.left.is_none() {
            self.filled = now;
        }
        let rest = left.checked_sub(bytes as u64);
        self.left = Some(rest.unwrap_or(left));
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_repeated_at_once_and_a_storm_is_not() {
        let mut tokens = RepeatTokens::default();
        let now = Micros::from_millis(5_000);
        let taken = (0..1_000).filter(|_| tokens.take(now, (2_000_000, 0.0), 1_200)).count();
        assert_eq!(taken, 20, "half a second of a fifth of two megabits");
    }

    proptest! {
        #[test]
        fn no_more_than_the_share_is_taken(
            estimate in 30_000_u64..20_000_000,
            waits in proptest::collection::vec(0_u64..50_000, 1..400),
        ) {
            let mut tokens = RepeatTokens::default();
            let mut now = Micros::from_millis(5_000);
            let (mut taken, mut span) = (0_u64, 0_u64);
            for wait in waits {
                now = now.plus(Micros(wait));
                span += wait;
                while tokens.take(now, (estimate, 0.0), 1_000) {
                    taken += 1_000;
                }
            }
            let share = (estimate / 5).max(SHARE_MIN);
            let most = share * span / 8_000_000 + (share / 16).max(BURST_MIN) + 1_000;
            prop_assert!(taken <= most, "{} of {}", taken, most);
        }
    }
}
