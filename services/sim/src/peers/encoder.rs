//! Encoders: frames of believable sizes, cut into packets with correct VP8 descriptors; and
//! packets of sound.

use std::time::Duration;

use headwater_rtp::red::{self, RedundantBlock};
use headwater_rtp::vp8::{PictureId, TemporalLayer, Vp8Descriptor};

use crate::mark::Mark;
use crate::negotiation::PUBLISHED_AUDIO;
use crate::{Random, Time};

/// Bytes of payload of one packet at most, as libwebrtc leaves room for headers.
const PAYLOAD_MAX: usize = 1_150;
/// Shortest time between keyframes, as in libwebrtc.
const KEYFRAME_SPACING: Duration = Duration::from_millis(300);
/// Temporal layers and whether they are switching points: L1T3.
const PATTERN: [(u8, bool); 4] = [(0, false), (2, true), (1, true), (2, false)];
/// Part of the rate for one frame of a temporal layer, against an even spread: 40, 20 and
/// 40 % for the three layers.
const WEIGHTS: [f64; 3] = [1.6, 0.8, 0.8];

/// A packet that has no transport-wide number yet.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    /// Index of the encoder; the one behind the last of video is sound.
    pub(crate) encoder: usize,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: Vec<u8>,
    /// It is sent as a retransmission.
    pub(crate) repeat: bool,
}

/// One simulcast encoding of a camera.
#[derive(Debug)]
pub(crate) struct VideoEncoder {
    index: usize,
    /// Bits per second now; 0 is off.
    pub(crate) rate: u64,
    pub(crate) sequence: u16,
    pub(crate) timestamp_base: u32,
    picture: u16,
    tl0: u8,
    frame: u32,
    place: usize,
    wants_key: bool,
    last_key: Option<Time>,
    /// Bytes that keyframes took from the frames that follow.
    debt: f64,
    pub(crate) keyframes: u64,
}

impl VideoEncoder {
    pub(crate) fn new(index: usize, rate: u64, random: &mut Random) -> Self {
        Self {
            index,
            rate,
            sequence: random.below(0x8000) as u16,
            timestamp_base: random.next_u64() as u32,
            picture: random.below(0x8000) as u16,
            tl0: random.below(256) as u8,
            frame: 0,
            place: 0,
            wants_key: true,
            last_key: None,
            debt: 0.0,
            keyframes: 0,
        }
    }

    /// Somebody asked for a keyframe: the next frame is one, unless there just was one.
    pub(crate) fn want_key(&mut self) {
        self.wants_key = true;
    }

    /// It is switched on or off; it begins with a keyframe.
    pub(crate) fn set_rate(&mut self, rate: u64) {
        if self.rate == 0 && rate > 0 {
            self.wants_key = true;
        }
        self.rate = rate;
    }

    pub(crate) fn timestamp(&self, at: Time) -> u32 {
        self.timestamp_base.wrapping_add((at.0 * 9 / 100) as u32)
    }

    /// The packets of the frame captured now.
    pub(crate) fn frame(
        &mut self,
        now: Time,
        frame_rate: u32,
        random: &mut Random,
    ) -> Vec<Planned> {
        if self.rate == 0 {
            return Vec::new();
        }
        let may_key = self.last_key.is_none_or(|last| now.since(last) >= KEYFRAME_SPACING);
        let key = self.wants_key && may_key;
        let mean = self.rate as f64 / 8.0 / f64::from(frame_rate);
        if key {
            self.wants_key = false;
            self.last_key = Some(now);
            self.place = 0;
            self.keyframes += 1;
        }
        let (temporal, sync) = PATTERN[self.place % PATTERN.len()];
        self.place += 1;
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        self.picture = (self.picture + 1) & 0x7fff;
        let size = if key {
            let size = mean * random.between(5.0, 10.0);
            self.debt += size - mean;
            size
        } else {
            let size = mean * WEIGHTS[usize::from(temporal)] * random.between(0.7, 1.3);
            // Rate control takes a keyframe back over the second that follows.
            let back = (self.debt * 4.0 / f64::from(frame_rate)).min(size * 0.5);
            self.debt -= back;
            size - back
        };
        let mark = Mark {
            encoding: self.index as u8,
            frame: self.frame,
            packet: 0,
            packets: 0,
            temporal,
            key,
            captured: now,
        };
        self.frame += 1;
        self.cut(mark, sync, size as usize)
    }

    /// Cuts a frame into packets of nearly the same size, as libwebrtc does.
    fn cut(&mut self, mark: Mark, sync: bool, size: usize) -> Vec<Planned> {
        let packets = size.div_ceil(PAYLOAD_MAX).max(1);
        let each = (size / packets).max(60);
        let timestamp = self.timestamp(mark.captured);
        (0..packets)
            .map(|packet| {
                let descriptor = Vp8Descriptor {
                    non_reference: mark.temporal == 2,
                    start_of_partition: packet == 0,
                    partition: 0,
                    picture_id: Some(PictureId::Long(self.picture)),
                    tl0_picture_index: Some(self.tl0),
                    temporal: Some(TemporalLayer { id: mark.temporal, sync }),
                    key_index: None,
                    len: 0,
                };
                let mut payload = vec![0x5a; each];
                let at = descriptor.write(&mut payload).expect("a payload has 60 bytes or more");
                if packet == 0 {
                    write_frame_header(&mut payload[at..], mark.key);
                }
                let (packet, packets) = (packet as u16, packets as u16);
                Mark { packet, packets, ..mark }.write(&mut payload);
                let sequence = self.sequence;
                self.sequence = sequence.wrapping_add(1);
                Planned {
                    encoder: self.index,
                    sequence,
                    timestamp,
                    marker: packet + 1 == packets,
                    payload,
                    repeat: false,
                }
            })
            .collect()
    }
}

fn write_frame_header(frame: &mut [u8], key: bool) {
    frame[0] = u8::from(!key);
    if key {
        frame[3..6].copy_from_slice(&[0x9d, 0x01, 0x2a]);
        frame[6..10].copy_from_slice(&[0x00, 0x05, 0xd0, 0x02]);
    }
}

/// A microphone: Opus at 20 ms a packet.
#[derive(Debug)]
pub(crate) struct AudioEncoder {
    index: usize,
    pub(crate) sequence: u16,
    pub(crate) timestamp_base: u32,
    packet: u32,
    /// Packets are RED, with the one before each in it.
    is_red: bool,
    /// The last packet without redundancy, and its timestamp.
    last: Option<(u32, Vec<u8>)>,
}

impl AudioEncoder {
    pub(crate) const INTERVAL: Duration = Duration::from_millis(20);

    pub(crate) fn new(index: usize, is_red: bool, random: &mut Random) -> Self {
        Self {
            index,
            sequence: random.below(0x8000) as u16,
            timestamp_base: random.next_u64() as u32,
            packet: 0,
            is_red,
            last: None,
        }
    }

    pub(crate) fn timestamp(&self, at: Time) -> u32 {
        self.timestamp_base.wrapping_add((at.0 * 48 / 1_000) as u32)
    }

    /// The packet captured now: about 32 kbit/s.
    pub(crate) fn packet(&mut self, now: Time, random: &mut Random) -> Planned {
        let mut payload = vec![0x78; 60 + random.below(41) as usize];
        let mark = Mark {
            encoding: 0,
            frame: self.packet,
            packet: 0,
            packets: 1,
            temporal: 0,
            key: false,
            captured: now,
        };
        mark.write(&mut payload);
        self.packet += 1;
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let timestamp = self.timestamp(now);
        let payload = if self.is_red { self.with_redundancy(timestamp, payload) } else { payload };
        Planned { encoder: self.index, sequence, timestamp, marker: false, payload, repeat: false }
    }

    /// As libwebrtc does: the last packet in front of this one.
    fn with_redundancy(&mut self, timestamp: u32, payload: Vec<u8>) -> Vec<u8> {
        let last = self.last.replace((timestamp, payload.clone()));
        let block = last.as_ref().map(|(before, content)| RedundantBlock {
            payload_type: PUBLISHED_AUDIO,
            timestamp_offset: timestamp.wrapping_sub(*before) as u16,
            payload: content,
        });
        let mut buffer = vec![0; 300];
        let len = red::write(block.as_slice(), (PUBLISHED_AUDIO, &payload), &mut buffer)
            .expect("two packets of 100 bytes at most, 20 ms apart, fit");
        buffer.truncate(len);
        buffer
    }
}
