//! Packet path: no allocation. Reception statistics of one SSRC (RFC 3550 section
//! 6.4.1 and appendix A): loss, jitter, and what a report says of them.

use crate::clock::Micros;

/// What arrived of one SSRC.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reception {
    first: Option<u64>,
    highest: u64,
    received: u64,
    reported_expected: u64,
    reported_received: u64,
    watched_expected: u64,
    watched_received: u64,
    transit: Option<i64>,
    /// Jitter in clock units, times 16 (RFC 3550 appendix A.8).
    jitter_16: u64,
}

/// What a report block says, apart from the times of sender reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Since the last report, in 1/256.
    pub(crate) fraction: u8,
    /// Since the start; negative if more came than was expected.
    pub(crate) cumulative: i32,
    /// Highest sequence number with its wraps.
    pub(crate) highest: u32,
    /// In clock units.
    pub(crate) jitter: u32,
}

/// What arrived and what should have, in some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Arrived {
    pub(crate) expected: u64,
    pub(crate) received: u64,
}

impl Reception {
    /// A packet of this SSRC arrived; repeated ones come with another SSRC and do not
    /// count.
    pub(crate) fn arrived(&mut self, sequence: u64) {
        let first = *self.first.get_or_insert(sequence);
        // Packets from before the first one are expected from then on.
        self.first = Some(first.min(sequence));
        self.highest = self.highest.max(sequence);
        self.received += 1;
    }

    /// Jitter over packets that came in order.
    pub(crate) fn timed(&mut self, now: Micros, timestamp: u32, clock_rate: u32) {
        let arrival = now.to_clock_units(clock_rate) as u32;
        let transit = i64::from(arrival.wrapping_sub(timestamp));
        if let Some(before) = self.transit.replace(transit) {
            // The difference is taken in the circle of 32 bits.
            let step = u64::from(((transit - before) as u32).cast_signed().unsigned_abs());
            // A jump of more than 10 s is another clock, not jitter.
            if step < u64::from(clock_rate) * 10 {
                self.jitter_16 += step;
                self.jitter_16 -= (self.jitter_16 + 8 - step.min(8)) / 16;
            }
        }
    }

    fn expected(&self) -> u64 {
        self.first.map_or(0, |first| self.highest - first + 1)
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Jitter in clock units.
    pub(crate) fn jitter(&self) -> u32 {
        (self.jitter_16 / 16) as u32
    }

    /// For the next receiver report.
    pub(crate) fn report(&mut self) -> Loss {
        let expected = self.expected() - self.reported_expected.min(self.expected());
        let received = self.received - self.reported_received;
        self.reported_expected = self.expected();
        self.reported_received = self.received;
        let lost = expected.saturating_sub(received);
        let fraction = (lost * 256).checked_div(expected).unwrap_or(0).min(255) as u8;
        let cumulative = self.expected() as i64 - self.received as i64;
        Loss {
            fraction,
            cumulative: cumulative.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest: self.highest as u32,
            jitter: self.jitter(),
        }
    }

    /// What arrived since the last call of this.
    pub(crate) fn watch(&mut self) -> Arrived {
        let arrived = Arrived {
            expected: self.expected() - self.watched_expected.min(self.expected()),
            received: self.received - self.watched_received,
        };
        self.watched_expected = self.expected();
        self.watched_received = self.received;
        arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_what_did_not_come() {
        let mut reception = Reception::default();
        for sequence in (65_536..65_636).filter(|sequence| sequence % 4 != 0) {
            reception.arrived(sequence);
        }
        let loss = reception.report();
        assert_eq!(loss.cumulative, 24, "the first number was not seen, so not expected");
        assert_eq!(loss.fraction, (24 * 256 / 99) as u8);
        assert_eq!(loss.highest, 65_635);
        assert_eq!(reception.report().fraction, 0);
        assert_eq!(reception.watch(), Arrived { expected: 99, received: 75 });
        assert_eq!(reception.watch(), Arrived::default());
    }

    #[test]
    fn jitter_follows_the_spread_of_arrivals() {
        let mut even = Reception::default();
        let mut uneven = Reception::default();
        for frame in 0..400_u64 {
            let timestamp = (frame * 3_000) as u32;
            let shake = if frame % 2 == 0 { 0 } else { 5_000 };
            let at = Micros(1_000_000 + frame * 1_000_000 / 30);
            even.timed(at, timestamp, 90_000);
            uneven.timed(at.plus(Micros(shake)), timestamp, 90_000);
        }
        assert!(even.jitter() <= 2, "{}", even.jitter());
        assert!((400..=460).contains(&uneven.jitter()), "{}", uneven.jitter());
    }
}
