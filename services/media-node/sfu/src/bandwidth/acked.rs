//! How much arrives: the rate of acknowledged bytes, over windows that begin and end with
//! a packet, smoothed; and how much was sent for it. Where the second is larger the network
//! is full, and the first is all it takes; else it says nothing of the network's bounds.

/// First sample over this long, in microseconds; the others over the shorter time. Frames
/// come every 33 ms, so a shorter window would mostly measure how many fell into it.
const FIRST_WINDOW: i64 = 400_000;
const WINDOW: i64 = 150_000;
/// A pause as long as this is no measure of the network.
const PAUSE: i64 = 2_000_000;
/// Weight of a new sample: a fall to a quarter is followed to a tenth within a second.
const WEIGHT: f64 = 0.35;

/// What one window says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Sample {
    /// Bits per second at which packets were sent, lost ones included.
    pub(crate) offered: f64,
    /// Bits per second at which they arrived.
    pub(crate) arrived: f64,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    arrival: i64,
    sent: u32,
    bytes: u64,
    lost_bytes: u64,
}

/// Rate at which acknowledged bytes arrived, on the receiver's clock.
#[derive(Debug, Default)]
pub(crate) struct AckedRate {
    window: Option<Window>,
    newest: i64,
    estimate: Option<f64>,
    last: Sample,
}

impl AckedRate {
    /// `size` bytes, sent at a time (low half of microseconds of ours), arrived at another
    /// (microseconds of the receiver's).
    pub(crate) fn observe(&mut self, sent: u32, arrival: i64, size: u64) {
        let began = Window { arrival, sent, bytes: size, lost_bytes: 0 };
        let Some(window) = &mut self.window else {
            self.window = Some(began);
            self.newest = arrival;
            return;
        };
        if (arrival - self.newest).abs() > PAUSE {
            self.window = Some(began);
            self.newest = arrival;
            return;
        }
        self.newest = self.newest.max(arrival);
        let least = if self.estimate.is_none() { FIRST_WINDOW } else { WINDOW };
        let span = arrival - window.arrival;
        let sent_span = sent.wrapping_sub(window.sent).cast_signed();
        if span < least || i64::from(sent_span) < least / 4 {
            window.bytes += size;
            return;
        }
        let bits = window.bytes as f64 * 8e6;
        let offered = (window.bytes + window.lost_bytes) as f64 * 8e6 / f64::from(sent_span);
        self.last = Sample { offered, arrived: bits / span as f64 };
        let estimate = self.estimate.unwrap_or(self.last.arrived);
        self.estimate = Some(estimate + WEIGHT * (self.last.arrived - estimate));
        // What closes a window opens the next and is counted there.
        self.window = Some(began);
    }

    /// `size` bytes were lost.
    pub(crate) fn lost(&mut self, size: u64) {
        if let Some(window) = &mut self.window {
            window.lost_bytes += size;
        }
    }

    /// Bits per second; `None` until there was enough to tell.
    pub(crate) fn bps(&self) -> Option<u64> {
        self.estimate.map(|estimate| estimate as u64)
    }

    /// What the last window says.
    pub(crate) fn last(&self) -> Sample {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame every 33 ms that takes `delay` more than the one before.
    fn feed(rate: &mut AckedRate, (from, to): (i64, i64), bps: i64, delay: i64) {
        let mut late = 0;
        let mut at = from * 1_000;
        while at < to * 1_000 {
            rate.observe(at as u32, at + late, (bps * 33 / 8_000) as u64);
            at += 33_000;
            late += delay;
        }
    }

    #[test]
    fn a_steady_rate_is_measured_within_a_tenth() {
        let mut rate = AckedRate::default();
        assert_eq!(rate.bps(), None);
        feed(&mut rate, (0, 3_000), 1_000_000, 0);
        let bps = rate.bps().unwrap();
        assert!((900_000..1_100_000).contains(&bps), "{bps}");
        let Sample { offered, arrived } = rate.last();
        assert!((offered / arrived - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_fall_is_followed_within_a_second_and_a_pause_changes_nothing() {
        let mut rate = AckedRate::default();
        feed(&mut rate, (0, 3_000), 2_000_000, 0);
        feed(&mut rate, (3_000, 4_200), 500_000, 0);
        let bps = rate.bps().unwrap();
        assert!((400_000..750_000).contains(&bps), "{bps}");
        feed(&mut rate, (30_000, 30_100), 500_000, 0);
        assert_eq!(rate.bps(), Some(bps));
    }

    #[test]
    fn a_full_network_is_told_by_what_is_sent_for_nothing() {
        let mut rate = AckedRate::default();
        feed(&mut rate, (0, 3_000), 1_000_000, 33_000);
        let Sample { offered, arrived } = rate.last();
        assert!((1.8..2.2).contains(&(offered / arrived)), "{offered} {arrived}");
    }
}
