//! Packet path: no allocation once every page of a ring was used. The packets of one
//! encoding in a ring of slots: what subscribers are served from, now and when they
//! ask again.

use headwater_model::media::MediaKind;

use super::shape::Shape;
use crate::clock::Micros;

/// Room for a payload and the header extensions that travel with it. A datagram of
/// Ethernet's size has at most 1,450 bytes of payload behind its RTP header; the rest
/// is for the heads of extension values. Memory of a ring is this times its slots.
pub(crate) const SLOT_BYTES: usize = 1_536;

/// Slots of an audio encoding: 1.3 s at 20 ms a packet, four times the longest round
/// trip that still helps a talk.
const AUDIO_SLOTS: usize = 64;
/// Fewest slots of a video encoding: two keyframes of a small picture.
const VIDEO_SLOTS_MIN: usize = 128;
/// Most slots of a video encoding: 1.5 s at 6 Mbit/s. Above that a lost packet can be
/// repeated for a shorter time.
const VIDEO_SLOTS_MAX: usize = 1_024;
/// Slots of a video encoding of unknown bit rate: 1.5 s at 2.5 Mbit/s and a keyframe.
const VIDEO_SLOTS_UNKNOWN: usize = 512;
/// Slots that are allocated together when the first of them is used.
const PAGE_SLOTS: usize = 32;

/// Slots for an encoding of this declared bit rate (bits per second, 0 if not told):
/// 1.5 seconds of packets of 1,100 bytes and 64 for a keyframe.
pub(crate) fn slots_for(kind: MediaKind, bitrate: u32) -> usize {
    match (kind, bitrate) {
        (MediaKind::Audio, _) => AUDIO_SLOTS,
        (MediaKind::Video, 0) => VIDEO_SLOTS_UNKNOWN,
        (MediaKind::Video, _) => {
            let packets = bitrate as usize * 3 / 2 / 8 / 1_100 + 64;
            packets.next_power_of_two().clamp(VIDEO_SLOTS_MIN, VIDEO_SLOTS_MAX)
        }
    }
}

/// Number of a slot that holds nothing.
const VACANT: u64 = u64::MAX;

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketKind {
    /// Media.
    Media,
    /// Padding of the publisher that came late: its number has been kept for it, so it
    /// is filled with padding of ours.
    Filler,
}

/// What is known of a stored packet besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    /// Number in its encoding, without the gaps that padding left; does not wrap.
    pub(crate) number: u64,
    pub(crate) arrival: Micros,
    pub(crate) timestamp: u32,
    pub(crate) payload_len: u16,
    pub(crate) extensions_len: u16,
    /// Index among the publication's codecs.
    pub(crate) codec: u8,
    /// Counts breaks of the encoding: another SSRC, codec or a restart.
    pub(crate) epoch: u8,
    pub(crate) marker: bool,
    /// A later packet of the encoding came before it.
    pub(crate) late: bool,
    pub(crate) kind: PacketKind,
    pub(crate) shape: Shape,
}

/// Whether a number can be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Free,
    Duplicate,
    TooOld,
}

/// The ring. Numbers go to slots by their low bits; a newer packet takes the place of
/// the one that has been there for a whole turn.
#[derive(Debug)]
pub(crate) struct Ring {
    packets: Box<[Packet]>,
    pages: Box<[Option<Box<[u8]>>]>,
    highest: Option<u64>,
}

impl Ring {
    /// `slots` is a power of two of at least [`PAGE_SLOTS`].
    pub(crate) fn new(slots: usize) -> Self {
        debug_assert!(slots.is_power_of_two() && slots >= PAGE_SLOTS);
        let vacant = Packet {
            number: VACANT,
            arrival: Micros::ZERO,
            timestamp: 0,
            payload_len: 0,
            extensions_len: 0,
            codec: 0,
            epoch: 0,
            marker: false,
            late: false,
            kind: PacketKind::Filler,
            shape: Shape::default(),
        };
        Self {
            packets: vec![vacant; slots].into_boxed_slice(),
            pages: vec![None; slots / PAGE_SLOTS].into_boxed_slice(),
            highest: None,
        }
    }

    pub(crate) fn highest(&self) -> Option<u64> {
        self.highest
    }

    fn slot(&self, number: u64) -> usize {
        (number & (self.packets.len() as u64 - 1)) as usize
    }

    pub(crate) fn place(&self, number: u64) -> Place {
        if self.highest.is_some_and(|highest| number + self.packets.len() as u64 <= highest) {
            return Place::TooOld;
        }
        if self.packets[self.slot(number)].number == number {
            return Place::Duplicate;
        }
        Place::Free
    }

    /// Stores a packet whose number has a free place and whose bytes fit a slot; its
    /// lengths are set here.
    pub(crate) fn store(&mut self, packet: Packet, payload: &[u8], extensions: &[u8]) {
        debug_assert!(payload.len() + extensions.len() <= SLOT_BYTES);
        let slot = self.slot(packet.number);
        self.packets[slot] = Packet {
            payload_len: payload.len() as u16,
            extensions_len: extensions.len() as u16,
            ..packet
        };
        self.highest = Some(self.highest.map_or(packet.number, |old| old.max(packet.number)));
        let page = self.pages[slot / PAGE_SLOTS]
            .get_or_insert_with(|| vec![0; PAGE_SLOTS * SLOT_BYTES].into_boxed_slice());
        let start = slot % PAGE_SLOTS * SLOT_BYTES;
        let (to_payload, rest) = page[start..start + SLOT_BYTES].split_at_mut(payload.len());
        to_payload.copy_from_slice(payload);
        rest[..extensions.len()].copy_from_slice(extensions);
    }

    #[inline]
    pub(crate) fn get(&self, number: u64) -> Option<&Packet> {
        let packet = &self.packets[self.slot(number)];
        (packet.number == number).then_some(packet)
    }

    /// Payload and extension values of a stored packet.
    #[inline]
    pub(crate) fn bytes(&self, packet: &Packet) -> (&[u8], &[u8]) {
        let slot = self.slot(packet.number);
        let Some(page) = &self.pages[slot / PAGE_SLOTS] else {
            return (&[], &[]);
        };
        let start = slot % PAGE_SLOTS * SLOT_BYTES;
        let end = start + usize::from(packet.payload_len);
        (&page[start..end], &page[end..end + usize::from(packet.extensions_len)])
    }

    /// Forgets all packets and keeps the memory.
    pub(crate) fn clear(&mut self) {
        for packet in &mut self.packets {
            packet.number = VACANT;
        }
        self.highest = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(number: u64) -> Packet {
        Packet { number, ..Ring::new(32).packets[0] }
    }

    #[test]
    fn a_packet_is_read_back_until_its_place_is_taken() {
        let mut ring = Ring::new(64);
        for number in 100..200 {
            assert_eq!(ring.place(number), Place::Free);
            ring.store(packet(number), &[number as u8; 10], &[1, 2, 3]);
        }
        let stored = *ring.get(150).unwrap();
        assert_eq!(ring.bytes(&stored), (&[150; 10][..], &[1, 2, 3][..]));
        assert!(ring.get(120).is_none());
        assert_eq!(ring.place(135), Place::TooOld);
        assert_eq!(ring.place(136), Place::Duplicate);
    }

    #[test]
    fn a_declared_bit_rate_decides_how_much_is_kept() {
        assert_eq!(slots_for(MediaKind::Audio, 32_000), 64);
        assert_eq!(slots_for(MediaKind::Video, 0), 512);
        assert_eq!(slots_for(MediaKind::Video, 160_000), 128);
        assert_eq!(slots_for(MediaKind::Video, 1_700_000), 512);
        assert_eq!(slots_for(MediaKind::Video, u32::MAX), 1_024);
    }
}
