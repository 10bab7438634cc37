//! When more may be sent: not right after the rate fell, and after a rise that failed not
//! for longer and longer, unless the network proves to be much wider than it was.

use crate::clock::Micros;

/// After any fall nothing rises for so long.
const CALM: Micros = Micros::from_millis(1_500);
/// A fall so soon after a rise is its fault.
const FAULT: Micros = Micros::from_millis(3_000);
/// After one fault this long, then twice as long each time, and at most four times more.
const WAIT: Micros = Micros::from_millis(4_000);
const FAILURES_MAX: u32 = 4;
/// A rise that stood so long succeeded.
const SUCCESS: Micros = Micros::from_millis(8_000);

/// Remembers rises and falls of one transport.
#[derive(Debug, Default)]
pub(crate) struct RiseGuard {
    rose: Option<Micros>,
    failures: u32,
    until: Micros,
    /// The estimate that turned out to be too much.
    failed_bps: u64,
}

impl RiseGuard {
    /// More is sent from now on.
    pub(crate) fn rose(&mut self, now: Micros) {
        self.rose = Some(now);
    }

    /// The rate fell from an estimate.
    pub(crate) fn fell(&mut self, now: Micros, from_bps: u64) {
        // One rise fails once.
        if self.rose.take().is_none_or(|at| now.since(at) > FAULT) {
            self.until = self.until.max(now.plus(CALM));
            return;
        }
        let wait = WAIT.0 << self.failures;
        self.failures = (self.failures + 1).min(FAILURES_MAX);
        self.until = now.plus(Micros(wait));
        self.failed_bps = from_bps;
    }

    /// More may be sent, by an estimate.
    pub(crate) fn may_rise(&mut self, now: Micros, bps: u64) -> bool {
        if self.rose.is_some_and(|at| now.since(at) >= SUCCESS) {
            self.failures = 0;
            self.rose = None;
        }
        let is_wider = self.failed_bps > 0 && bps > self.failed_bps + self.failed_bps / 2;
        now >= self.until || is_wider
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Micros {
        Micros::from_millis(10_000 + millis)
    }

    #[test]
    fn a_rise_that_fails_is_tried_again_later_each_time() {
        let mut guard = RiseGuard::default();
        let mut at = 0;
        let mut waits = Vec::new();
        for _ in 0..6 {
            guard.rose(ms(at));
            guard.fell(ms(at + 500), 600_000);
            let wait = (0..100_000).find(|wait| guard.may_rise(ms(at + 500 + wait), 500_000));
            waits.push(wait.unwrap() / 1_000);
            at += 500 + wait.unwrap();
        }
        assert_eq!(waits, [4, 8, 16, 32, 64, 64]);
        assert!(guard.may_rise(ms(at - 10_000), 1_000_000), "much wider");
    }

    #[test]
    fn a_fall_that_no_rise_caused_is_waited_out_shortly() {
        let mut guard = RiseGuard::default();
        assert!(guard.may_rise(ms(0), 1));
        guard.fell(ms(0), 600_000);
        assert!(!guard.may_rise(ms(1_499), 500_000));
        assert!(guard.may_rise(ms(1_500), 500_000));
        guard.rose(ms(2_000));
        assert!(guard.may_rise(ms(10_000), 1));
        guard.fell(ms(10_000), 1);
        assert!(guard.may_rise(ms(11_500), 1));
    }
}
