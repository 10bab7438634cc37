//! What publishers write at the end of every payload, so that anyone further on knows what
//! it is looking at, whatever the headers in front say.

use crate::Time;

/// Where a payload came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Encoding, 0 is the smallest.
    pub encoding: u8,
    /// Frame of the encoding, or packet of sound, counted from 0.
    pub frame: u32,
    /// Packet of the frame.
    pub packet: u16,
    /// Packets of the frame.
    pub packets: u16,
    /// Temporal layer.
    pub temporal: u8,
    /// Part of a keyframe.
    pub key: bool,
    /// When it was captured.
    pub captured: Time,
}

impl Mark {
    /// Bytes it takes.
    pub const LEN: usize = 20;
    const MAGIC: u8 = 0xa7;

    /// Writes it at the end of a payload that has room for it.
    pub(crate) fn write(&self, payload: &mut [u8]) {
        let start = payload.len().saturating_sub(Self::LEN);
        let mut bytes = [0; Self::LEN];
        bytes[0] = Self::MAGIC;
        bytes[1] = self.encoding << 4 | self.temporal << 1 | u8::from(self.key);
        bytes[2..6].copy_from_slice(&self.frame.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.packet.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.packets.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.captured.0.to_be_bytes());
        if let Some(end) = payload.get_mut(start..start + Self::LEN) {
            end.copy_from_slice(&bytes);
        }
    }

    /// Reads it from the end of a payload. `None` if there is none.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = payload.last_chunk()?;
        if bytes[0] != Self::MAGIC {
            return None;
        }
        let short = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let captured = bytes[12..20].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        Some(Self {
            encoding: bytes[1] >> 4,
            temporal: bytes[1] >> 1 & 0x07,
            key: bytes[1] & 1 == 1,
            frame: u32::from(short(2)) << 16 | u32::from(short(4)),
            packet: short(6),
            packets: short(8),
            captured: Time(captured),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = Mark {
            encoding: 2,
            frame: 0x1234_5678,
            packet: 3,
            packets: 9,
            temporal: 2,
            key: true,
            captured: Time(987_654_321),
        };
        let mut payload = [0; 40];
        mark.write(&mut payload);
        assert_eq!(Mark::read(&payload), Some(mark));
        assert_eq!(Mark::read(&payload[..30]), None);
        assert_eq!(Mark::read(&[]), None);
    }
}
