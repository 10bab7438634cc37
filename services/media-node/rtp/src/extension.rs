//! Packet path: no allocation. Values of the header extensions that we read or write.
//! Each `parse` returns `None` if the value has not the length its format demands.

use core::time::Duration;

/// Audio level of a packet (RFC 6464).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevel {
    /// The sender thinks that it contains voice.
    pub voice: bool,
    /// Level in dB below overload: 0 is the loudest, 127 is silence.
    pub below_overload: u8,
}

impl AudioLevel {
    /// Reads the first byte of a value.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let byte = *value.first()?;
        Some(Self { voice: byte & 0x80 != 0, below_overload: byte & 0x7f })
    }

    /// The value to send. A level above 127 is sent as 127.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 1] {
        [u8::from(self.voice) << 7 | self.below_overload.min(127)]
    }
}

/// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01,
/// section 2). The longer form of version 2 is read by its first two bytes.
#[must_use]
pub fn parse_transport_cc(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*value.first_chunk()?))
}

/// Media section (RFC 9143), stream id or repaired stream id (RFC 8852): a short
/// token. `None` if it is empty, longer than 16 bytes or has other characters than
/// visible ASCII.
#[must_use]
pub fn parse_token(value: &[u8]) -> Option<&str> {
    // Chromium pads nothing, but zero bytes behind a token are tolerated.
    let len = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    let token = &value[..len];
    if !(1..=16).contains(&len) || !token.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    core::str::from_utf8(token).ok()
}

/// Absolute send time: seconds in 6.18 bits of fixed point, wraps every 64 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsSendTime(pub u32);

impl AbsSendTime {
    /// Reads a value.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [a, b, c] = *value.first_chunk()?;
        Some(Self(u32::from_be_bytes([0, a, b, c])))
    }

    /// From a time since any epoch; what is above 64 s is cut off.
    #[must_use]
    pub fn from_duration(since_epoch: Duration) -> Self {
        let seconds = (since_epoch.as_secs() & 0x3f) as u32;
        let fraction = (u64::from(since_epoch.subsec_nanos()) << 18) / 1_000_000_000;
        Self(seconds << 18 | fraction as u32)
    }

    /// The value to send.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }
}

/// Limits of the receiver's playout delay, in units of 10 ms, 0 to 4,095.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayoutDelay {
    /// Lower limit, in 10 ms.
    pub min: u16,
    /// Upper limit, in 10 ms.
    pub max: u16,
}

impl PlayoutDelay {
    /// Reads a value.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [a, b, c] = *value.first_chunk()?;
        let bits = u32::from_be_bytes([0, a, b, c]);
        Some(Self { min: (bits >> 12) as u16, max: (bits & 0xfff) as u16 })
    }

    /// The value to send. Limits above 4,095 are sent as 4,095.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        let bits = u32::from(self.min.min(0xfff)) << 12 | u32::from(self.max.min(0xfff));
        let [_, a, b, c] = bits.to_be_bytes();
        [a, b, c]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn audio_level_has_a_voice_bit_and_seven_bits_of_level() {
        let level = AudioLevel::parse(&[0x9e]).unwrap();
        assert_eq!(level, AudioLevel { voice: true, below_overload: 30 });
        assert_eq!(level.to_bytes(), [0x9e]);
        assert_eq!(AudioLevel::parse(&[]), None);
    }

    #[test]
    fn tokens_are_short_visible_ascii() {
        assert_eq!(parse_token(b"q"), Some("q"));
        assert_eq!(parse_token(b"hi\0\0"), Some("hi"));
        assert_eq!(parse_token(b""), None);
        assert_eq!(parse_token(b"\0q"), None);
        assert_eq!(parse_token(b"a b"), None);
        assert_eq!(parse_token(b"12345678901234567"), None);
    }

    #[test]
    fn absolute_send_time_is_fixed_point_of_eighteen_bits() {
        assert_eq!(AbsSendTime::from_duration(Duration::from_millis(1_500)).0, 3 << 17);
        assert_eq!(AbsSendTime::from_duration(Duration::from_secs(65)).0, 1 << 18);
    }

    proptest! {
        #[test]
        fn values_survive_writing_and_reading(bytes: [u8; 3]) {
            prop_assert_eq!(AbsSendTime::parse(&bytes).unwrap().to_bytes(), bytes);
            prop_assert_eq!(PlayoutDelay::parse(&bytes).unwrap().to_bytes(), bytes);
            prop_assert_eq!(AudioLevel::parse(&bytes).unwrap().to_bytes(), [bytes[0]]);
            prop_assert_eq!(parse_transport_cc(&bytes), Some(u16::from_be_bytes([bytes[0], bytes[1]])));
        }
    }
}
