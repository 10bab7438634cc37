//! Media to publish: VP8 frames and Opus packets that parse as such, each with
//! its send time in the last bytes of the payload.

use std::sync::OnceLock;
use std::time::Instant;

use crate::description::{extension_id, payload_type};

/// Bytes of the stamp at the end of each payload: magic, send time.
pub const STAMP_BYTES: usize = 12;
const MAGIC: [u8; 4] = *b"HwLt";

static BEGIN: OnceLock<Instant> = OnceLock::new();

/// Microseconds since this process began to measure; one clock for all clients.
#[must_use]
pub fn now_micros() -> u64 {
    u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A moment on the clock of [`now_micros`]; 0 for one before its beginning.
#[must_use]
pub fn micros_of(moment: Instant) -> u64 {
    let since = moment.saturating_duration_since(*BEGIN.get_or_init(Instant::now));
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Writes the stamp over the end of a payload that has room for it.
pub fn stamp(payload: &mut [u8], sent_micros: u64) {
    let Some(start) = payload.len().checked_sub(STAMP_BYTES) else { return };
    payload[start..start + 4].copy_from_slice(&MAGIC);
    payload[start + 4..].copy_from_slice(&sent_micros.to_be_bytes());
}

/// Reads the stamp from the end of a payload.
#[must_use]
pub fn read_stamp(payload: &[u8]) -> Option<u64> {
    let start = payload.len().checked_sub(STAMP_BYTES)?;
    let (magic, time) = payload[start..].split_at(4);
    (magic == MAGIC).then(|| time.try_into().ok().map(u64::from_be_bytes)).flatten()
}

/// A published video encoding.
#[derive(Debug, Clone)]
pub struct VideoSource {
    /// SSRC.
    pub ssrc: u32,
    /// Media section.
    pub mid: String,
    /// RID, if one of several encodings.
    pub rid: Option<&'static str>,
    /// Packets of a frame.
    pub packets_per_frame: usize,
    /// Payload bytes of a packet.
    pub payload_bytes: usize,
    /// Frames between keyframes that nobody asked for.
    pub keyframe_interval: u32,
    sequence: u16,
    picture: u16,
    frames: u32,
    keyframe_wanted: bool,
}

impl VideoSource {
    /// A source that begins with a keyframe.
    #[must_use]
    pub fn new(
        ssrc: u32,
        mid: &str,
        rid: Option<&'static str>,
        packets_per_frame: usize,
        payload_bytes: usize,
    ) -> Self {
        Self {
            ssrc,
            mid: mid.to_owned(),
            rid,
            packets_per_frame: packets_per_frame.max(1),
            payload_bytes: payload_bytes.max(64),
            keyframe_interval: 900,
            sequence: ssrc as u16,
            picture: 1,
            frames: 0,
            keyframe_wanted: true,
        }
    }

    /// The next frame is a keyframe.
    pub fn request_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// The plain RTP packets of the next frame.
    pub fn next_frame(&mut self, timestamp: u32) -> Vec<Vec<u8>> {
        let keyframe = self.keyframe_wanted || self.frames.is_multiple_of(self.keyframe_interval);
        self.keyframe_wanted = false;
        self.frames += 1;
        self.picture = (self.picture + 1) & 0x7fff;
        let now = now_micros();
        (0..self.packets_per_frame)
            .map(|index| {
                let last = index + 1 == self.packets_per_frame;
                let mut packet =
                    header(payload_type::VP8, last, self.sequence, timestamp, self.ssrc);
                self.sequence = self.sequence.wrapping_add(1);
                let mut extensions = vec![(extension_id::MID, self.mid.as_bytes())];
                if let Some(rid) = self.rid {
                    extensions.push((extension_id::RID, rid.as_bytes()));
                }
                write_extensions(&mut packet, &extensions);
                let start = packet.len();
                packet.extend(self.descriptor(index == 0));
                if index == 0 {
                    packet.extend(frame_header(keyframe));
                }
                packet.resize(start + self.payload_bytes, 0x55);
                stamp(&mut packet[start..], now);
                packet
            })
            .collect()
    }

    /// VP8 payload descriptor (RFC 7741 section 4.2) with a 15-bit picture id.
    fn descriptor(&self, first: bool) -> [u8; 4] {
        let [high, low] = self.picture.to_be_bytes();
        [0x80 | u8::from(first) << 4, 0x80, 0x80 | high, low]
    }
}

/// VP8 frame header (RFC 6386 section 9.1): 640 by 360 if a keyframe.
fn frame_header(keyframe: bool) -> Vec<u8> {
    // First partition of 1000 bytes, shown, version 0; bit 0 clear means key.
    let tag: u32 = (1000 << 5) | (1 << 4) | u32::from(!keyframe);
    let mut bytes = tag.to_le_bytes()[..3].to_vec();
    if keyframe {
        bytes.extend([0x9d, 0x01, 0x2a]);
        bytes.extend(640_u16.to_le_bytes());
        bytes.extend(360_u16.to_le_bytes());
    }
    bytes
}

/// A published Opus stream of one packet each 20 ms.
#[derive(Debug, Clone)]
pub struct AudioSource {
    /// SSRC.
    pub ssrc: u32,
    /// Media section.
    pub mid: String,
    sequence: u16,
}

impl AudioSource {
    /// A source.
    #[must_use]
    pub fn new(ssrc: u32, mid: &str) -> Self {
        Self { ssrc, mid: mid.to_owned(), sequence: ssrc as u16 }
    }

    /// The next plain RTP packet, with an audio level of -20 dBov.
    pub fn next_packet(&mut self, timestamp: u32) -> Vec<u8> {
        let mut packet = header(payload_type::OPUS, false, self.sequence, timestamp, self.ssrc);
        self.sequence = self.sequence.wrapping_add(1);
        let level = [0x80 | 20];
        write_extensions(
            &mut packet,
            &[(extension_id::MID, self.mid.as_bytes()), (extension_id::AUDIO_LEVEL, &level)],
        );
        let start = packet.len();
        // TOC: 20 ms CELT fullband mono, one frame (RFC 6716 section 3.1).
        packet.push(0xf8);
        packet.resize(start + 80, 0x55);
        stamp(&mut packet[start..], now_micros());
        packet
    }
}

fn header(payload_type: u8, marker: bool, sequence: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(1300);
    packet.extend([0x90, u8::from(marker) << 7 | payload_type]);
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet
}

/// One-byte header extensions (RFC 8285 section 4.2).
fn write_extensions(packet: &mut Vec<u8>, extensions: &[(u8, &[u8])]) {
    let mut block = Vec::with_capacity(16);
    for (id, value) in extensions {
        block.push(id << 4 | (value.len() as u8).saturating_sub(1));
        block.extend_from_slice(value);
    }
    block.resize(block.len().next_multiple_of(4), 0);
    packet.extend([0xbe, 0xde]);
    packet.extend(((block.len() / 4) as u16).to_be_bytes());
    packet.extend(block);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives() {
        let mut payload = vec![0; 40];
        stamp(&mut payload, 123_456);
        assert_eq!(read_stamp(&payload), Some(123_456));
        assert_eq!(read_stamp(&payload[..39]), None);
    }

    #[test]
    fn frames_begin_with_a_keyframe_and_end_with_a_marker() {
        let mut source = VideoSource::new(7, "0", None, 3, 1000);
        let frame = source.next_frame(0);
        assert_eq!(frame.len(), 3);
        assert_eq!(frame.iter().map(|packet| packet[1] >> 7).collect::<Vec<_>>(), [0, 0, 1]);
    }
}
