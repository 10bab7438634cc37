//! NTP time of RTCP (RFC 3550 section 4) made from a wall clock that the caller gives.

use core::time::Duration;

/// Seconds from 1900 to 1970.
const UNIX_EPOCH_SECONDS: u64 = 2_208_988_800;

/// A 64-bit NTP timestamp: seconds since 1900 in the upper half (which wraps in
/// 2036), fraction of a second in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From the time since the UNIX epoch.
    #[must_use]
    pub fn from_unix(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs().wrapping_add(UNIX_EPOCH_SECONDS) & 0xffff_ffff;
        let fraction = (u64::from(since_epoch.subsec_nanos()) << 32) / 1_000_000_000;
        Self(seconds << 32 | fraction)
    }

    /// The time since the UNIX epoch, exact to a nanosecond. Seconds below those of
    /// 1970 are read as after the wrap of 2036.
    #[must_use]
    pub fn to_unix(self) -> Duration {
        let seconds = self.0 >> 32;
        let seconds = if seconds < UNIX_EPOCH_SECONDS { seconds + (1 << 32) } else { seconds };
        let fraction = self.0 & 0xffff_ffff;
        let nanos = (fraction * 1_000_000_000).div_ceil(1 << 32).min(999_999_999);
        Duration::new(seconds - UNIX_EPOCH_SECONDS, nanos as u32)
    }

    /// The middle 32 bits, as in LSR and DLSR of report blocks: units of 1/65,536 s.
    #[must_use]
    pub fn compact(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// A duration in units of 1/65,536 s, as in DLSR; at most 65,535 s and a bit.
#[must_use]
pub fn compact_from_duration(duration: Duration) -> u32 {
    let units = duration.as_nanos().saturating_mul(65_536) / 1_000_000_000;
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// The duration of a number of units of 1/65,536 s.
#[must_use]
pub fn compact_to_duration(units: u32) -> Duration {
    Duration::from_nanos(u64::from(units) * 1_000_000_000 / 65_536)
}

/// Round-trip time from a report block (RFC 3550 section 6.4.1): `now` is the arrival
/// of the report on the clock that our sender reports use. `None` if no sender report
/// was received (`last_sender_report` 0) or the fields contradict each other.
#[must_use]
pub fn round_trip(now: NtpTime, last_sender_report: u32, delay: u32) -> Option<Duration> {
    if last_sender_report == 0 {
        return None;
    }
    let units = now.compact().wrapping_sub(last_sender_report).wrapping_sub(delay);
    // Above half the circle the result is negative: the peer's delay is too long.
    (units < 0x8000_0000).then(|| compact_to_duration(units))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_unix_epoch_is_where_rfc_5905_puts_it() {
        assert_eq!(NtpTime::from_unix(Duration::ZERO).0 >> 32, 2_208_988_800);
        assert_eq!(NtpTime::from_unix(Duration::from_millis(500)).0 & 0xffff_ffff, 0x8000_0000);
    }

    #[test]
    fn the_example_of_rfc_3550_gives_its_round_trip() {
        // Section 6.4.1, figure 2: A = 0xb710_8000, LSR = 0xb705_2000, DLSR = 0x0005_4000.
        let now = NtpTime(0xb710_8000 << 16);
        let rtt = round_trip(now, 0xb705_2000, 0x0005_4000).unwrap();
        assert_eq!(rtt, Duration::from_millis(6125));
    }

    #[test]
    fn contradicting_fields_give_no_round_trip() {
        assert_eq!(round_trip(NtpTime(1 << 40), 0, 0), None);
        assert_eq!(round_trip(NtpTime(0x10_0000 << 16), 0x10_0000, 1), None);
    }

    proptest! {
        #[test]
        fn unix_time_survives(seconds in 0_u64..4_000_000_000, nanos in 0_u32..1_000_000_000) {
            let unix = Duration::new(seconds, nanos);
            let back = NtpTime::from_unix(unix).to_unix();
            let error = back.abs_diff(unix);
            prop_assert!(error <= Duration::from_nanos(1), "{unix:?} became {back:?}");
        }

        #[test]
        fn any_time_is_read(time: u64) {
            let _ = NtpTime(time).to_unix();
        }
    }
}
