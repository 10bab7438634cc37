//! Report blocks about one stream (RFC 3550 appendix A.8 and section 6.4).

use headwater_rtp::ntp::compact_from_duration;
use headwater_rtp::rtcp::{ReportBlock, SenderInfo};

use crate::Time;

/// What came of one SSRC.
#[derive(Debug, Default)]
pub(crate) struct Reception {
    first: Option<u64>,
    highest: u64,
    received: u64,
    told_expected: u64,
    told_received: u64,
    transit: Option<i64>,
    jitter: f64,
    sender_report: Option<(u32, Time)>,
}

impl Reception {
    pub(crate) fn note(&mut self, now: Time, sequence: u64, timestamp: u32, clock_rate: u32) {
        self.first = Some(self.first.map_or(sequence, |first| first.min(sequence)));
        self.highest = self.highest.max(sequence);
        self.received += 1;
        let arrival = (now.0 * u64::from(clock_rate) / 1_000_000) as u32;
        let transit = i64::from(arrival.wrapping_sub(timestamp).cast_signed());
        if let Some(before) = self.transit.replace(transit) {
            let distance = (transit - before).unsigned_abs() as f64;
            self.jitter += (distance - self.jitter) / 16.0;
        }
    }

    pub(crate) fn note_sender_report(&mut self, now: Time, info: &SenderInfo) {
        self.sender_report = Some((info.ntp.compact(), now));
    }

    pub(crate) fn expected(&self) -> u64 {
        self.first.map_or(0, |first| self.highest - first + 1)
    }

    /// The block for the next report, if anything came.
    pub(crate) fn block(&mut self, now: Time, ssrc: u32) -> Option<ReportBlock> {
        self.first?;
        let expected = self.expected();
        let new = expected - self.told_expected;
        let lost = new.saturating_sub(self.received - self.told_received);
        (self.told_expected, self.told_received) = (expected, self.received);
        let (last, since) = self
            .sender_report
            .map_or((0, 0), |(compact, at)| (compact, compact_from_duration(now.since(at))));
        Some(ReportBlock {
            ssrc,
            fraction_lost: (lost * 256).checked_div(new).unwrap_or(0).min(255) as u8,
            cumulative_lost: (expected as i64 - self.received as i64) as i32,
            highest_sequence: self.highest as u32,
            jitter: self.jitter as u32,
            last_sender_report: last,
            delay_since_last_sender_report: since,
        })
    }
}
