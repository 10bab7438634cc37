//! Ways into private parsers for fuzz targets. Not part of the interface.

use std::time::{Duration, Instant};

use crate::sctp::{ChannelLimits, Channels, DcepMessage};

/// Parses one DCEP message and writes back what was read.
pub fn dcep(bytes: &[u8]) {
    if let Some(message) = DcepMessage::parse(bytes) {
        let _ = message.encode();
    }
}

/// SCTP packets into an association that nobody has opened: each takes the
/// length in its first byte.
pub fn sctp_packets(now: Instant, mut bytes: &[u8]) {
    let limits = ChannelLimits { receive_message_max: 1 << 16, send_message_max: 1 << 16, buffered_max: 1 << 20 };
    let mut channels = Channels::new(false, limits);
    let mut now = now;
    while let Some((length, rest)) = bytes.split_first() {
        let (packet, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        channels.handle_packet(now, &with_checksum(packet));
        while channels.poll_packet(now).is_some() || channels.poll_event().is_some() {}
        now += Duration::from_millis(50);
        channels.handle_timeout(now);
        bytes = rest;
    }
}

/// The packet with the checksum that makes it through the first test.
fn with_checksum(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet.len() >= 12 {
        packet[8..12].fill(0);
        let checksum = crc32c(&packet);
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    }
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}
