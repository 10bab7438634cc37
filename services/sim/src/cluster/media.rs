//! What clients send and how it is known again at the far end: every payload says whose
//! it is and which frame.

use headwater_model::media::MediaKind;

use super::sdp::{MID_ID, OPUS, RID_ID, VP8};
use crate::Time;

const MAGIC: [u8; 4] = *b"HwSm";
const MARK: usize = 22;
/// Names of the encodings, smallest first.
const RIDS: [&str; 3] = ["q", "h", "f"];

/// Whose a payload is and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) client: u16,
    pub(crate) stay: u16,
    /// 0 sound, 1 pictures, 2 a reliable message.
    pub(crate) kind: u8,
    pub(crate) encoding: u8,
    pub(crate) number: u32,
    pub(crate) sent: Time,
}

impl Mark {
    pub(crate) fn write(&self) -> [u8; MARK] {
        let mut bytes = [0; MARK];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.client.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.stay.to_be_bytes());
        bytes[8] = self.kind;
        bytes[9] = self.encoding;
        bytes[10..14].copy_from_slice(&self.number.to_be_bytes());
        bytes[14..22].copy_from_slice(&self.sent.0.to_be_bytes());
        bytes
    }

    /// Finds one anywhere in a payload.
    pub(crate) fn find(payload: &[u8]) -> Option<Self> {
        let at = payload.windows(4).position(|window| window == MAGIC)?;
        let bytes: &[u8; MARK] = payload.get(at..at + MARK)?.try_into().ok()?;
        let short = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Some(Self {
            client: short(4),
            stay: short(6),
            kind: bytes[8],
            encoding: bytes[9],
            number: u32::from(short(10)) << 16 | u32::from(short(12)),
            sent: Time(bytes[14..22].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))),
        })
    }
}

/// Sends one track.
#[derive(Debug)]
pub(crate) struct Sender {
    kind: MediaKind,
    mid: usize,
    ssrc: u32,
    sequence: [u16; 3],
    pub(crate) frames: u32,
    /// Encodings that owe a keyframe.
    pub(crate) owes: [bool; 3],
}

impl Sender {
    pub(crate) fn new(kind: MediaKind, mid: usize, salt: u64) -> Self {
        // Near the wrap, so that it is passed in every run.
        let sequence = [65_500, 65_400, 65_300];
        let ssrc = 0x1000_0000 | (salt as u32) << 8 | (mid as u32) << 2;
        Self { kind, mid, ssrc, sequence, frames: 0, owes: [true; 3] }
    }

    /// As marks have it.
    pub(crate) fn kind(&self) -> u8 {
        u8::from(self.kind == MediaKind::Video)
    }

    /// The encoding that has this SSRC.
    pub(crate) fn encoding_of(&self, ssrc: u32) -> Option<usize> {
        let encoding = ssrc.checked_sub(self.ssrc).and_then(|it| usize::try_from(it).ok())?;
        (encoding < self.encodings()).then_some(encoding)
    }

    pub(crate) fn encodings(&self) -> usize {
        if self.kind == MediaKind::Audio { 1 } else { 3 }
    }

    /// The packets of one moment: a frame of each encoding.
    pub(crate) fn send(&mut self, now: Time, client: u16, stay: u16) -> Vec<Vec<u8>> {
        let number = self.frames;
        self.frames += 1;
        (0..self.encodings())
            .map(|encoding| self.packet(now, (client, stay), encoding, number))
            .collect()
    }

    fn packet(
        &mut self,
        now: Time,
        (client, stay): (u16, u16),
        encoding: usize,
        number: u32,
    ) -> Vec<u8> {
        let is_video = self.kind == MediaKind::Video;
        let (payload_type, clock) = if is_video { (VP8, 90_000) } else { (OPUS, 48_000) };
        let sequence = self.sequence[encoding];
        self.sequence[encoding] = sequence.wrapping_add(1);
        let timestamp = (now.0 * clock / 1_000_000) as u32;
        let mut packet = vec![0x90, payload_type | if is_video { 0x80 } else { 0 }];
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&timestamp.to_be_bytes());
        packet.extend_from_slice(&(self.ssrc + encoding as u32).to_be_bytes());
        self.write_extensions(&mut packet, encoding, is_video);
        if is_video {
            let key = std::mem::take(&mut self.owes[encoding]);
            // RFC 7741: a descriptor with a picture id of 15 bits, then the frame's tag.
            let picture = number as u16 & 0x7fff | 0x8000;
            packet.extend_from_slice(&[0x90, 0x80]);
            packet.extend_from_slice(&picture.to_be_bytes());
            match key {
                true => packet.extend_from_slice(&[0x10, 2, 0, 0x9d, 1, 0x2a, 64, 1, 180, 0]),
                false => packet.extend_from_slice(&[0x11, 2, 0]),
            }
        }
        let mark = Mark {
            client,
            stay,
            kind: u8::from(is_video),
            encoding: encoding as u8,
            number,
            sent: now,
        };
        packet.extend_from_slice(&mark.write());
        packet
    }

    /// RFC 8285: the section's mid, and of pictures the encoding's RID.
    fn write_extensions(&self, packet: &mut Vec<u8>, encoding: usize, is_video: bool) {
        let mid = self.mid.to_string();
        let mut body = vec![MID_ID << 4 | (mid.len() as u8 - 1)];
        body.extend_from_slice(mid.as_bytes());
        if is_video {
            body.push(RID_ID << 4);
            body.extend_from_slice(RIDS[encoding].as_bytes());
        }
        body.resize(body.len().next_multiple_of(4), 0);
        packet.extend_from_slice(&[0xbe, 0xde]);
        packet.extend_from_slice(&((body.len() / 4) as u16).to_be_bytes());
        packet.extend_from_slice(&body);
    }
}

/// A reliable data message as LiveKit's clients write it (`DataPacket` with a user's
/// bytes and a sequence number).
pub(crate) fn data_packet(mark: &Mark) -> Vec<u8> {
    let payload = mark.write();
    let mut packet = vec![0x12, MARK as u8 + 2, 0x12, MARK as u8];
    packet.extend_from_slice(&payload);
    packet.extend_from_slice(&[0x80, 0x01]);
    let mut number = mark.number;
    while number >= 0x80 {
        packet.push(number as u8 | 0x80);
        number >>= 7;
    }
    packet.push(number as u8);
    packet
}
