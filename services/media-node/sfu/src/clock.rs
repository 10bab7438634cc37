//! Packet path. Time inside the core: microseconds since it was made, so that times
//! are plain integers; and what is derived from them.

use std::time::{Duration, Instant};

use headwater_rtp::NtpTime;

/// A point in time, or a span: microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Micros(pub(crate) u64);

impl Micros {
    pub(crate) const ZERO: Self = Self(0);

    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000)
    }

    /// The span since an earlier point; zero if that is later.
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    pub(crate) const fn plus(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    pub(crate) const fn to_duration(self) -> Duration {
        Duration::from_micros(self.0)
    }

    /// The span in units of an RTP clock.
    pub(crate) const fn to_clock_units(self, clock_rate: u32) -> u64 {
        self.0.saturating_mul(clock_rate as u64) / 1_000_000
    }
}

/// Turns the caller's instants into [`Micros`] and those into wall clock.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    wall_clock: Duration,
}

/// The time of the core's creation. Not zero, so that "never" (zero) is long ago.
const BEGIN: Micros = Micros::from_millis(100_000);

impl Clock {
    pub(crate) fn new(start: Instant, wall_clock: Duration) -> Self {
        Self { start, wall_clock }
    }

    pub(crate) fn at(&self, now: Instant) -> Micros {
        let elapsed = now.saturating_duration_since(self.start).as_micros();
        BEGIN.plus(Micros(u64::try_from(elapsed).unwrap_or(u64::MAX / 2)))
    }

    pub(crate) fn instant(&self, at: Micros) -> Instant {
        self.start + at.since(BEGIN).to_duration()
    }

    pub(crate) fn ntp(&self, at: Micros) -> NtpTime {
        NtpTime::from_unix(self.wall_clock + at.since(BEGIN).to_duration())
    }
}

/// NTP time as microseconds. Wraps with the NTP era, as differences must.
pub(crate) const fn ntp_to_micros(ntp: NtpTime) -> u64 {
    let seconds = ntp.0 >> 32;
    let fraction = ntp.0 & 0xffff_ffff;
    seconds * 1_000_000 + ((fraction * 1_000_000) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_survive_the_way_in_and_out() {
        let start = std::hint::black_box(test_instant());
        let clock = Clock::new(start, Duration::from_secs(1_000));
        let later = start + Duration::from_micros(1_234_567);
        assert_eq!(clock.instant(clock.at(later)), later);
        assert_eq!(clock.at(later).since(clock.at(start)), Micros(1_234_567));
    }

    #[test]
    fn ntp_seconds_become_micros() {
        let ntp = NtpTime::from_unix(Duration::from_millis(1_500));
        let zero = NtpTime::from_unix(Duration::ZERO);
        assert_eq!(ntp_to_micros(ntp) - ntp_to_micros(zero), 1_500_000);
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn test_instant() -> Instant {
        Instant::now()
    }
}
