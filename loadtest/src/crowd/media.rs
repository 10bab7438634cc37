//! Media that publishers of a crowd make: VP8, H.264 and Opus packets that parse as
//! such, written into a given buffer, each with a stamp at the end of its payload.

use std::time::{Duration, Instant};

use headwater_rtp::RtpHeader;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::description::{extension_id, payload_type};
use crate::scenario::{Audio, Codec, Layer};

/// Bytes of a [`Stamp`] at the end of a payload.
pub const STAMP_BYTES: usize = 24;
const MAGIC: [u8; 4] = *b"HwL2";
/// Between two packets of audio.
pub const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
/// Between two packets of silence, with DTX (RFC 7587 section 3.1.3).
const SILENCE_EVERY: u32 = 20;
/// TOC byte: 20 ms CELT fullband mono, one frame (RFC 6716 section 3.1).
const OPUS_TOC: u8 = 0xf8;

/// What a packet says of itself to whoever receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the publisher.
    pub source: u32,
    /// Encoding, smallest first; 0 for audio.
    pub layer: u8,
    /// Counts the packets of the encoding.
    pub sequence: u32,
    /// When it was sent, in microseconds of this process's clock.
    pub sent_micros: u64,
}

impl Stamp {
    /// Writes it over the end of a payload, if there is room.
    pub fn write(&self, payload: &mut [u8]) {
        let Some(start) = payload.len().checked_sub(STAMP_BYTES) else { return };
        let out = &mut payload[start..];
        out[..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&self.source.to_be_bytes());
        out[8..12].copy_from_slice(&[self.layer, 0, 0, 0]);
        out[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        out[16..24].copy_from_slice(&self.sent_micros.to_be_bytes());
    }

    /// Reads it from the end of a payload.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; STAMP_BYTES] = payload.last_chunk()?;
        if bytes[..4] != MAGIC {
            return None;
        }
        let word = |at: usize| Some(u32::from_be_bytes(*bytes[at..].first_chunk()?));
        Some(Self {
            source: word(4)?,
            layer: bytes[8],
            sequence: word(12)?,
            sent_micros: u64::from_be_bytes(*bytes[16..].first_chunk()?),
        })
    }
}

/// What all packets of a published stream share.
#[derive(Debug)]
pub struct Outgoing {
    /// SSRC.
    pub ssrc: u32,
    /// Packets sent, for sender reports.
    pub packets: u32,
    /// Payload bytes sent, for sender reports.
    pub bytes: u32,
    /// RTP timestamp of the last packet, and when it was due.
    pub last: Option<(u32, Instant)>,
    /// When the next frame or packet is due.
    pub due: Instant,
    mid: String,
    source: u32,
    sequence: u16,
    stamped: u32,
    first_timestamp: u32,
    begun: Instant,
}

impl Outgoing {
    /// A stream whose first packet is due at `begun`.
    #[must_use]
    pub fn new(ssrc: u32, mid: usize, source: u32, begun: Instant) -> Self {
        Self {
            ssrc,
            packets: 0,
            bytes: 0,
            last: None,
            due: begun,
            mid: mid.to_string(),
            source,
            sequence: ssrc as u16,
            stamped: 0,
            first_timestamp: ssrc.rotate_left(16),
            begun,
        }
    }

    /// Begins to send now.
    pub fn start(&mut self, now: Instant) {
        self.begun = now;
        self.due = now;
    }

    fn timestamp(&self, clock_rate: f64) -> u32 {
        let elapsed = (self.due - self.begun).as_secs_f64() * clock_rate;
        self.first_timestamp.wrapping_add(elapsed as u64 as u32)
    }

    /// Header, payload as it is, stamp. Returns the header's and the packet's length;
    /// `None` if the buffer is too short.
    fn write(
        &mut self,
        head: Head,
        extensions: &[(u8, &[u8])],
        payload: impl FnOnce(&mut [u8]),
        out: &mut [u8],
    ) -> Option<(usize, usize)> {
        let header = RtpHeader {
            payload_type: head.payload_type,
            marker: head.marker,
            sequence: self.sequence,
            timestamp: head.timestamp,
            ssrc: self.ssrc,
        };
        let header_len = header.write(extensions, out).ok()?;
        let len = header_len + head.payload_bytes;
        let body = out.get_mut(header_len..len)?;
        body.fill(0x55);
        payload(body);
        let stamp = Stamp {
            source: self.source,
            layer: head.layer,
            sequence: self.stamped,
            sent_micros: crate::source::now_micros(),
        };
        stamp.write(body);
        self.sequence = self.sequence.wrapping_add(1);
        self.stamped = self.stamped.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(head.payload_bytes as u32);
        self.last = Some((head.timestamp, self.due));
        Some((header_len, len))
    }
}

struct Head {
    payload_type: u8,
    marker: bool,
    timestamp: u32,
    payload_bytes: usize,
    layer: u8,
}

/// One published video encoding.
#[derive(Debug)]
pub struct VideoEncoding {
    /// The stream.
    pub stream: Outgoing,
    /// Time between frames.
    pub interval: Duration,
    codec: Codec,
    layer: u8,
    rid: Option<&'static str>,
    size: (u16, u16),
    shape: (usize, usize),
    keyframe_factor: f64,
    keyframe_wanted: bool,
    keyframe_every: Option<Duration>,
    /// When the next one comes by itself.
    keyframe_due: Option<Instant>,
    picture: u16,
    frame: Frame,
}

#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    keyframe: bool,
    packets: usize,
    timestamp: u32,
}

/// What an encoding is made from.
#[derive(Debug, Clone, Copy)]
pub struct EncodingPlan {
    /// Its place in the scenario.
    pub settings: Layer,
    /// Codec of the track.
    pub codec: Codec,
    /// Packets of a keyframe, in those of another frame.
    pub keyframe_factor: f64,
    /// Time between keyframes that come by themselves, if they do.
    pub keyframe_every: Option<Duration>,
    /// Place among the encodings, smallest first.
    pub layer: u8,
    /// RID, if one of several.
    pub rid: Option<&'static str>,
}

impl VideoEncoding {
    /// An encoding that begins with a keyframe.
    #[must_use]
    pub fn new(stream: Outgoing, plan: EncodingPlan) -> Self {
        Self {
            interval: Duration::from_secs_f64(1.0 / plan.settings.frame_rate),
            codec: plan.codec,
            layer: plan.layer,
            rid: plan.rid,
            size: (plan.settings.width as u16, plan.settings.height as u16),
            shape: plan.settings.frame_shape(),
            keyframe_factor: plan.keyframe_factor.max(1.0),
            keyframe_wanted: true,
            keyframe_every: plan.keyframe_every,
            keyframe_due: None,
            picture: stream.ssrc as u16 & 0x7fff,
            frame: Frame::default(),
            stream,
        }
    }

    /// The next frame is a keyframe.
    pub fn request_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// Begins the frame that is due and says how many packets it has.
    pub fn begin_frame(&mut self) -> usize {
        let due = self.keyframe_due.is_some_and(|due| due <= self.stream.due);
        let keyframe = std::mem::take(&mut self.keyframe_wanted) || due;
        if keyframe {
            self.keyframe_due = self.keyframe_every.map(|every| self.stream.due + every);
        }
        let mut packets = self.shape.0;
        if keyframe {
            packets = (packets as f64 * self.keyframe_factor).ceil() as usize;
            // The parameter sets of H.264 go in a packet of their own.
            packets += usize::from(self.codec == Codec::H264);
        }
        self.picture = (self.picture + 1) & 0x7fff;
        self.frame = Frame { keyframe, packets, timestamp: self.stream.timestamp(90_000.0) };
        packets
    }

    /// Writes one packet of the frame. Returns the header's and the packet's length.
    pub fn packet(
        &mut self,
        index: usize,
        transport_sequence: u16,
        out: &mut [u8],
    ) -> Option<(usize, usize)> {
        let frame = self.frame;
        let last = index + 1 >= frame.packets;
        let transport_sequence = transport_sequence.to_be_bytes();
        let mid = self.stream.mid.clone();
        let all = [
            (extension_id::MID, mid.as_bytes()),
            (extension_id::TRANSPORT_CC, transport_sequence.as_slice()),
            (extension_id::RID, self.rid.unwrap_or_default().as_bytes()),
        ];
        let extensions = if self.rid.is_some() { &all[..] } else { &all[..2] };
        let (codec, size, picture) = (self.codec, self.size, self.picture);
        let payload_type = match codec {
            Codec::Vp8 => payload_type::VP8,
            Codec::H264 => payload_type::H264,
        };
        let head = Head {
            payload_type,
            marker: last,
            timestamp: frame.timestamp,
            payload_bytes: self.shape.1,
            layer: self.layer,
        };
        let payload = |body: &mut [u8]| match codec {
            Codec::Vp8 => write_vp8(body, index == 0, frame.keyframe, picture, size),
            Codec::H264 => write_h264(body, index, last, frame),
        };
        self.stream.write(head, extensions, payload, out)
    }
}

/// Payload descriptor with a 15-bit picture id (RFC 7741 section 4.2) and, in the first
/// packet, the frame header (RFC 6386 section 9.1).
fn write_vp8(body: &mut [u8], first: bool, keyframe: bool, picture: u16, size: (u16, u16)) {
    let [high, low] = picture.to_be_bytes();
    let mut bytes = vec![0x80 | u8::from(first) << 4, 0x80, 0x80 | high, low];
    if first {
        // First partition of 1000 bytes, shown, version 0; bit 0 clear means key.
        let tag: u32 = (1000 << 5) | (1 << 4) | u32::from(!keyframe);
        bytes.extend(&tag.to_le_bytes()[..3]);
        if keyframe {
            bytes.extend([0x9d, 0x01, 0x2a]);
            bytes.extend(size.0.to_le_bytes());
            bytes.extend(size.1.to_le_bytes());
        }
    }
    body[..bytes.len()].copy_from_slice(&bytes);
}

/// Constrained baseline, level 3.1.
const SPS: [u8; 14] =
    [0x67, 0x42, 0xe0, 0x1f, 0x8c, 0x8d, 0x40, 0x50, 0x1e, 0xd0, 0x0f, 0x08, 0x84, 0x6a];
const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];

/// A keyframe's first packet is a STAP-A with both parameter sets and, for the stamp,
/// a filler unit; all the rest are fragments (FU-A, RFC 6184 section 5.8) of one slice.
fn write_h264(body: &mut [u8], index: usize, last: bool, frame: Frame) {
    let slice = if frame.keyframe { 5 } else { 1 };
    if frame.keyframe && index == 0 {
        let mut bytes = vec![0x78];
        for unit in [&SPS[..], &PPS[..]] {
            bytes.extend((unit.len() as u16).to_be_bytes());
            bytes.extend(unit);
        }
        let filler = body.len().saturating_sub(bytes.len() + 2);
        bytes.extend((filler as u16).to_be_bytes());
        bytes.push(12);
        body[..bytes.len()].copy_from_slice(&bytes);
        return;
    }
    let begins = index == usize::from(frame.keyframe);
    if begins && last {
        body[0] = 0x60 | slice;
        return;
    }
    body[0] = 0x60 | 28;
    body[1] = u8::from(begins) << 7 | u8::from(last) << 6 | slice;
}

/// One published audio track.
#[derive(Debug)]
pub struct AudioTrack {
    /// The stream.
    pub stream: Outgoing,
    settings: Audio,
    random: SmallRng,
    speaking: bool,
    /// Packets until the spell of voice or silence is over.
    spell: u32,
    silent_packets: u32,
}

impl AudioTrack {
    /// A track; with a voice share below 1 it starts in either state.
    #[must_use]
    pub fn new(stream: Outgoing, settings: Audio, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let speaking = random.random_bool(settings.voice_share);
        let mut track = Self { stream, settings, random, speaking, spell: 0, silent_packets: 0 };
        // Somewhere in a spell that began before: a room does not start all at once.
        track.spell = (f64::from(track.spell_packets()) * track.random.random::<f64>()) as u32;
        track.silent_packets = track.random.random_range(0..SILENCE_EVERY);
        track
    }

    /// Voices last one to four seconds; silences as long as the share wants.
    fn spell_packets(&mut self) -> u32 {
        let share = self.settings.voice_share;
        let voice = self.random.random_range(1.0..4.0);
        let is_voice = self.speaking || share <= 0.0;
        ((if is_voice { voice } else { voice * (1.0 - share) / share }) * 50.0) as u32
    }

    /// Writes the packet that is due, or nothing if DTX leaves it out. Returns the
    /// header's and the packet's length.
    pub fn packet(&mut self, transport_sequence: u16, out: &mut [u8]) -> Option<(usize, usize)> {
        let starts = self.next_spell();
        if !self.speaking && self.settings.dtx {
            self.silent_packets += 1;
            if !self.silent_packets.is_multiple_of(SILENCE_EVERY) {
                return None;
            }
        }
        let voiced = self.settings.bitrate_kbps * 2.5;
        let payload_bytes = if self.speaking || !self.settings.dtx { voiced as usize } else { 0 };
        let level = [if self.speaking { 0x80 | 20 } else { 127 }];
        let transport_sequence = transport_sequence.to_be_bytes();
        let mid = self.stream.mid.clone();
        let extensions = [
            (extension_id::MID, mid.as_bytes()),
            (extension_id::TRANSPORT_CC, transport_sequence.as_slice()),
            (extension_id::AUDIO_LEVEL, level.as_slice()),
        ];
        let head = Head {
            payload_type: payload_type::OPUS,
            marker: starts && self.settings.dtx,
            timestamp: self.stream.timestamp(48_000.0),
            payload_bytes: payload_bytes.max(1 + STAMP_BYTES),
            layer: 0,
        };
        self.stream.write(head, &extensions, |body| body[0] = OPUS_TOC, out)
    }

    /// Moves one packet on in the spell; true if a voice starts.
    fn next_spell(&mut self) -> bool {
        let share = self.settings.voice_share;
        if share >= 1.0 {
            return false;
        }
        if self.spell > 0 {
            self.spell -= 1;
            return false;
        }
        let was = self.speaking;
        self.speaking = share > 0.0 && !was;
        self.spell = self.spell_packets();
        self.silent_packets = 0;
        self.speaking && !was
    }
}

#[cfg(test)]
mod tests {
    use headwater_rtp::extension::AudioLevel;
    use headwater_rtp::{RtpView, h264, vp8};

    use super::*;

    fn encoding(codec: Codec) -> VideoEncoding {
        let settings = Layer {
            width: 320,
            height: 180,
            frame_rate: 20.0,
            bitrate_kbps: Some(400.0),
            packets_per_frame: None,
            packet_bytes: 1000,
        };
        let plan = EncodingPlan {
            settings,
            codec,
            keyframe_factor: 2.0,
            keyframe_every: Some(Duration::from_millis(500)),
            layer: 1,
            rid: Some("h"),
        };
        VideoEncoding::new(Outgoing::new(77, 3, 9, Instant::now()), plan)
    }

    fn frame(encoding: &mut VideoEncoding) -> Vec<Vec<u8>> {
        let packets = encoding.begin_frame();
        let packet = |index| {
            let mut out = [0; 1500];
            let (_, len) = encoding.packet(index, index as u16, &mut out).unwrap();
            out[..len].to_vec()
        };
        let frame = (0..packets).map(packet).collect();
        encoding.stream.due += encoding.interval;
        frame
    }

    #[test]
    fn keyframes_come_by_themselves_and_when_asked_for() {
        let mut encoding = encoding(Codec::Vp8);
        let mut keyframes = Vec::new();
        for index in 0..35 {
            if index == 14 {
                encoding.request_keyframe();
            }
            if frame(&mut encoding).len() == 6 {
                keyframes.push(index);
            }
        }
        // 20 frames a second, one of ten is a keyframe, counted from the last one.
        assert_eq!(keyframes, [0, 10, 14, 24, 34]);
    }

    #[test]
    fn vp8_frames_parse_and_begin_with_a_keyframe() {
        let mut encoding = encoding(Codec::Vp8);
        let (key, delta) = (frame(&mut encoding), frame(&mut encoding));
        assert_eq!((key.len(), delta.len()), (6, 3));
        for (frame, is_key) in [(&key, true), (&delta, false)] {
            for (index, packet) in frame.iter().enumerate() {
                let view = RtpView::parse(packet).unwrap();
                let descriptor = vp8::Vp8Descriptor::parse(view.payload()).unwrap();
                assert_eq!(descriptor.is_keyframe_start(view.payload()), is_key && index == 0);
                assert_eq!(view.marker(), index + 1 == frame.len());
                assert_eq!(view.extension(extension_id::RID), Some(&b"h"[..]));
                let stamp = Stamp::read(view.payload()).unwrap();
                assert_eq!((stamp.source, stamp.layer), (9, 1));
            }
        }
        let times = [&key, &delta].map(|frame| RtpView::parse(&frame[0]).unwrap().timestamp());
        assert_eq!(times[1].wrapping_sub(times[0]), 4500);
    }

    #[test]
    fn h264_keyframes_carry_parameter_sets_and_a_whole_slice() {
        let mut encoding = encoding(Codec::H264);
        let (key, delta) = (frame(&mut encoding), frame(&mut encoding));
        assert_eq!((key.len(), delta.len()), (7, 3));
        let payload = |packet: &Vec<u8>| RtpView::parse(packet).unwrap().payload().to_vec();
        assert!(h264::is_keyframe_start(&payload(&key[0])));
        assert!(h264::has_keyframe_part(&payload(&key[1])));
        assert!(!h264::is_keyframe_start(&payload(&delta[0])));
        assert_eq!(payload(&key[1])[1] & 0xc0, 0x80, "the first fragment starts the slice");
        assert_eq!(payload(&key[6])[1] & 0xc0, 0x40, "the last fragment ends it");
        assert!(Stamp::read(&payload(&key[0])).is_some());
    }

    #[test]
    fn audio_without_a_voice_is_left_out_by_dtx() {
        let settings = Audio { bitrate_kbps: 32.0, voice_share: 0.2, dtx: true };
        let mut track = AudioTrack::new(Outgoing::new(5, 0, 0, Instant::now()), settings, 3);
        let (mut voiced, mut silent) = (0, 0);
        for sequence in 0..50_000_u16 {
            let mut out = [0; 300];
            let Some((_, len)) = track.packet(sequence, &mut out) else { continue };
            let view = RtpView::parse(&out[..len]).unwrap();
            let level = view.extension(extension_id::AUDIO_LEVEL).unwrap();
            let voice = AudioLevel::parse(level).unwrap().to_bytes()[0] & 0x80 != 0;
            assert_eq!(view.payload().len(), if voice { 80 } else { 25 });
            *(if voice { &mut voiced } else { &mut silent }) += 1;
        }
        assert!((7_000..13_000).contains(&voiced), "{voiced} with a voice");
        assert!(silent < 3_000, "{silent} without");
    }

    #[test]
    fn a_room_begins_with_its_share_of_voices() {
        let settings = Audio { bitrate_kbps: 32.0, voice_share: 0.1, dtx: true };
        let mut voices = vec![0; 3];
        for seed in 0..400 {
            let mut track = AudioTrack::new(Outgoing::new(5, 0, 0, Instant::now()), settings, seed);
            for second in &mut voices {
                let mut out = [0; 300];
                let sent = (0..50).filter_map(|one| track.packet(one, &mut out)).count();
                *second += usize::from(sent > 10);
            }
        }
        for speaking in voices {
            assert!((15..90).contains(&speaking), "{speaking} of 400 speak");
        }
    }

    #[test]
    fn a_stamp_survives_and_noise_is_none() {
        let stamp = Stamp { source: 1, layer: 2, sequence: 3, sent_micros: 4 };
        let mut payload = [0; 40];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(Stamp::read(&payload[..39]), None);
    }
}
