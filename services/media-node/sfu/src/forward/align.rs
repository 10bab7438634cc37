//! Packet path: no allocation. Which timestamp a subscriber gets where the publisher's
//! clock changes: on a switch between encodings, whose clocks begin anywhere, or after
//! a restart.

use headwater_rtp::sequence::timestamp_distance;

use crate::clock::Micros;
use crate::ingress::stream::SenderClock;

/// How far sender reports and arrival may disagree before arrival is believed. Reports
/// of two encodings come from one clock and are exact; a larger distance means that
/// one of them is stale or wrong.
const DISAGREEMENT_MAX: Micros = Micros::from_millis(500);

/// What was forwarded last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastOut {
    /// Our timestamp of it.
    pub(crate) timestamp: u32,
    /// When the packet had come from the publisher.
    pub(crate) arrival: Micros,
}

/// A timestamp of one encoding on the clock of another, by their sender reports.
pub(crate) fn translate(
    timestamp: u32,
    from: Option<SenderClock>,
    to: Option<SenderClock>,
    clock_rate: u32,
) -> Option<u32> {
    let (from, to) = (from?, to?);
    // From RTP time to wall clock by one report, and back by the other.
    let since_report = i64::from(timestamp_distance(timestamp, from.rtp));
    let between_reports = from.ntp_micros.wrapping_sub(to.ntp_micros).cast_signed();
    let between_units = i128::from(between_reports) * i128::from(clock_rate) / 1_000_000;
    let units = i128::from(since_report) + between_units;
    Some(to.rtp.wrapping_add(units as u32))
}

/// Our timestamp for a packet that came at `arrival`: `by_reports` if it fits what
/// arrival says, else by the time since the last packet; always later than the last.
pub(crate) fn continue_from(
    last: LastOut,
    arrival: Micros,
    by_reports: Option<u32>,
    clock_rate: u32,
) -> u32 {
    let elapsed = arrival.since(last.arrival).to_clock_units(clock_rate).max(1);
    let by_arrival = last.timestamp.wrapping_add(elapsed as u32);
    match by_reports {
        Some(reported) => {
            let apart = timestamp_distance(reported, by_arrival).unsigned_abs();
            let agrees = u64::from(apart) <= DISAGREEMENT_MAX.to_clock_units(clock_rate);
            let later = timestamp_distance(reported, last.timestamp) > 0;
            if agrees && later { reported } else { by_arrival }
        }
        None => by_arrival,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(ntp_millis: u64, rtp: u32) -> Option<SenderClock> {
        Some(SenderClock {
            ntp_micros: 4_000_000_000_000_000 + ntp_millis * 1_000,
            compact: 0,
            rtp,
            arrival: Micros::ZERO,
        })
    }

    #[test]
    fn one_moment_has_one_time_on_both_clocks() {
        // At 1.0 s the first clock shows 500, at 1.5 s the second shows u32::MAX.
        let first = clock(1_000, 500);
        let second = clock(1_500, u32::MAX);
        // 2.0 s: 90,000 units after the first report, 45,000 after the second.
        assert_eq!(translate(90_500, first, second, 90_000), Some(44_999));
        assert_eq!(translate(44_999, second, first, 90_000), Some(90_500));
        assert_eq!(translate(1, first, None, 90_000), None);
    }

    #[test]
    fn reports_win_unless_they_lead_back_or_far_away() {
        let last = LastOut { timestamp: 10_000, arrival: Micros::from_millis(1_000) };
        let arrival = Micros::from_millis(1_040);
        let by_arrival = 10_000 + 3_600;
        let on = |reported| continue_from(last, arrival, reported, 90_000);
        assert_eq!(on(Some(13_000)), 13_000);
        assert_eq!(on(None), by_arrival);
        assert_eq!(on(Some(9_000)), by_arrival, "backwards");
        assert_eq!(on(Some(200_000)), by_arrival, "seconds away");
        assert_eq!(continue_from(last, Micros::from_millis(900), None, 90_000), 10_001);
    }
}
