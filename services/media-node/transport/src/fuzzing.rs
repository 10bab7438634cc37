//! Ways into private parsers for fuzz targets and tests. Not part of the
//! interface.

use std::time::{Duration, Instant};

use crate::sctp::{ChannelLimits, Channels, DcepMessage};

/// Parses one DCEP message and writes back what was read.
///
/// # Panics
/// If what was written does not read back alike.
pub fn dcep(bytes: &[u8]) {
    if let Some(message) = DcepMessage::parse(bytes) {
        let written = message.encode();
        assert_eq!(DcepMessage::parse(&written), Some(message));
    }
}

/// Hostile chunks into an established association: each item is the chunks of
/// one packet. Tags, checksums and the base of the TSNs are put right, since a
/// real peer would know them.
///
/// # Panics
/// If the library panicked behind the guard.
pub fn sctp_chunks(now: Instant, packets: &[&[u8]]) {
    let limits = ChannelLimits {
        receive_message_max: 1 << 16,
        send_message_max: 1 << 16,
        buffered_max: 1 << 20,
    };
    let (mut server, mut client) = (Channels::new(false, limits), Channels::new(true, limits));
    let mut now = now;
    let mut header = [0; 12];
    let mut base = 0;
    client.connect(now);
    for _ in 0..4 {
        while let Some(packet) = client.poll_packet(now) {
            if packet.get(12) == Some(&1) {
                base = u32::from_be_bytes([packet[28], packet[29], packet[30], packet[31]]);
            }
            header.copy_from_slice(&packet[..12]);
            server.handle_packet(now, &packet);
        }
        while let Some(packet) = server.poll_packet(now) {
            client.handle_packet(now, &packet);
        }
    }
    for chunks in packets {
        let mut packet = header.to_vec();
        packet.extend_from_slice(chunks);
        put_right(&mut packet, base);
        server.handle_packet(now, &packet);
        while server.poll_event().is_some() || server.poll_packet(now).is_some() {}
        now += Duration::from_millis(20);
        server.handle_timeout(now);
        while server.poll_event().is_some() || server.poll_packet(now).is_some() {}
    }
    assert_eq!(server.panics(), 0, "the guard lets nothing through that panics");
}

/// Moves the TSNs of DATA and FORWARD-TSN by `base` and writes the checksum.
fn put_right(packet: &mut [u8], base: u32) {
    let mut offset = 12;
    while let Some(&[kind, _, high, low]) = packet.get(offset..offset + 4) {
        let length = usize::from(u16::from_be_bytes([high, low])).max(4);
        if (kind == 0 || kind == 192)
            && let Some(tsn) = packet.get_mut(offset + 4..offset + 8)
        {
            let moved = u32::from_be_bytes([tsn[0], tsn[1], tsn[2], tsn[3]]).wrapping_add(base);
            tsn.copy_from_slice(&moved.to_be_bytes());
        }
        offset += length.next_multiple_of(4);
    }
    packet[8..12].fill(0);
    let checksum = crc32c(packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    })
}
