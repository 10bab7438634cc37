//! Counts of one client, and what remains of them in the result.

use std::time::Instant;

use super::media::Stamp;
use super::stream::{Counts, Kind};
use crate::histogram::Histogram;
use crate::source::micros_of;

/// A server may begin with a picture that it kept, whose packets are old by nature:
/// latency counts from so long after a client's first packet on.
const SETTLE_MICROS: u64 = 1_000_000;

/// Encodings counted apart.
pub const LAYERS: usize = 3;

/// What a client counts besides its streams.
#[derive(Debug)]
pub struct Tally {
    label: usize,
    begun_micros: u64,
    /// When keys were in place.
    pub connected_micros: Option<u64>,
    /// When the first media packet came.
    pub first_packet: Option<u64>,
    /// When the first packet of a keyframe came.
    pub first_keyframe: Option<u64>,
    /// Since the last look: packets, bytes, latencies, packets by encoding.
    pub fresh: Fresh,
    /// Frames and audio packets that were due to be sent.
    pub frames: u64,
    /// Those that left late.
    pub late_frames: u64,
    /// Times that the publisher was so far behind that it left frames out.
    pub frames_left_out: u64,
    /// RTP packets sent.
    pub packets_sent: u64,
    /// Keyframe requests that reached this publisher.
    pub keyframe_requests: u64,
    /// Packets that could not be decrypted.
    pub undecryptable: u64,
    packets: u64,
    bytes: u64,
    decrypted: u64,
    seen: u32,
    latencies: Box<Histogram>,
    audio_latencies: Box<Histogram>,
    layers: [u64; LAYERS],
    layer: Option<u8>,
    layer_switches: u64,
    came_early: bool,
}

/// Counts since the timeline was last written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fresh {
    /// Media packets.
    pub packets: u64,
    /// Payload bytes, of those decrypted.
    pub bytes: u64,
    /// Video packets by encoding, of those decrypted.
    pub layers: [u64; LAYERS],
}

/// What remains of a client.
#[derive(Debug, Clone, Default)]
pub struct PeerReport {
    /// Kind of client.
    pub label: usize,
    /// From the start of the join, in milliseconds.
    pub connected_ms: Option<f64>,
    /// The same to the first media packet.
    pub first_packet_ms: Option<f64>,
    /// The same to the first keyframe.
    pub first_keyframe_ms: Option<f64>,
    /// It joined in the measured time, not before.
    pub came_late: bool,
    /// Media packets received in the measured time, each once.
    pub packets: u64,
    /// Payload bytes of those decrypted.
    pub bytes: u64,
    /// Packets decrypted.
    pub decrypted: u64,
    /// Counts of all audio streams.
    pub audio: Counts,
    /// Counts of all video streams.
    pub video: Counts,
    /// One-way latencies of video, in microseconds.
    pub latencies: Histogram,
    /// One-way latencies of audio, in microseconds.
    pub audio_latencies: Histogram,
    /// Video packets by encoding.
    pub layers: [u64; LAYERS],
    /// Changes from one encoding to another.
    pub layer_switches: u64,
    /// Frames and audio packets due, late, left out.
    pub frames: (u64, u64, u64),
    /// RTP packets sent.
    pub packets_sent: u64,
    /// Keyframe requests that reached this publisher.
    pub keyframe_requests: u64,
    /// Packets that could not be decrypted.
    pub undecryptable: u64,
    /// Datagrams that its bad link lost on purpose.
    pub link_lost: u64,
}

impl PeerReport {
    /// Adds the counts of a stream.
    pub fn add(&mut self, kind: Kind, counts: &Counts) {
        let sum = match kind {
            Kind::Audio => &mut self.audio,
            Kind::Video => &mut self.video,
        };
        *sum = sum.plus(counts);
    }
}

impl Counts {
    /// The sum; of the longest times, the longer.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            received: self.received + other.received,
            lost: self.lost + other.lost,
            recovered: self.recovered + other.recovered,
            repeated: self.repeated + other.repeated,
            nacks: self.nacks + other.nacks,
            plis: self.plis + other.plis,
            gap_max_micros: self.gap_max_micros.max(other.gap_max_micros),
            freeze_max_micros: self.freeze_max_micros.max(other.freeze_max_micros),
            freezes: self.freezes + other.freezes,
        }
    }
}

impl Tally {
    /// Of a client whose join began then, by the clock of this process.
    #[must_use]
    pub fn new(label: usize, begun_micros: u64) -> Self {
        Self {
            label,
            begun_micros,
            connected_micros: None,
            first_packet: None,
            first_keyframe: None,
            fresh: Fresh::default(),
            frames: 0,
            late_frames: 0,
            frames_left_out: 0,
            packets_sent: 0,
            keyframe_requests: 0,
            undecryptable: 0,
            packets: 0,
            bytes: 0,
            decrypted: 0,
            seen: 0,
            latencies: Box::default(),
            audio_latencies: Box::default(),
            layers: [0; LAYERS],
            layer: None,
            layer_switches: 0,
            came_early: false,
        }
    }

    /// Whether to decrypt the packet that came: one of `every`, and each that is needed.
    pub fn is_sample(&mut self, every: u32, needed: bool) -> bool {
        self.seen = self.seen.wrapping_add(1);
        let sample = needed || self.seen.is_multiple_of(every);
        self.decrypted += u64::from(sample);
        sample
    }

    /// Counts a media packet with this many payload bytes; 0 if it was not decrypted.
    pub fn take(&mut self, now: Instant, bytes: usize) {
        self.first_packet.get_or_insert_with(|| micros_of(now));
        self.packets += 1;
        self.bytes += bytes as u64;
        self.fresh.packets += 1;
        self.fresh.bytes += bytes as u64;
    }

    /// Counts what a packet says of itself.
    pub fn take_stamp(&mut self, now: Instant, kind: Kind, stamp: Stamp) {
        let now = micros_of(now);
        let latency = now.saturating_sub(stamp.sent_micros);
        let settled = self.first_packet.is_some_and(|first| now >= first + SETTLE_MICROS);
        if kind == Kind::Audio {
            if settled {
                self.audio_latencies.add(latency);
            }
            return;
        }
        if settled {
            self.latencies.add(latency);
        }
        let layer = usize::from(stamp.layer).min(LAYERS - 1);
        self.layers[layer] += 1;
        self.fresh.layers[layer] += 1;
        if self.layer.replace(stamp.layer).is_some_and(|before| before != stamp.layer) {
            self.layer_switches += 1;
        }
    }

    /// Begins to measure anew; what was first stays.
    pub fn reset(&mut self) {
        let fresh = Self::new(self.label, self.begun_micros);
        *self = Self {
            connected_micros: self.connected_micros,
            first_packet: self.first_packet,
            first_keyframe: self.first_keyframe,
            layer: self.layer,
            seen: self.seen,
            came_early: true,
            ..fresh
        };
    }

    /// What remains.
    #[must_use]
    pub fn report(&self) -> PeerReport {
        let since = |time: Option<u64>| {
            time.map(|time| time.saturating_sub(self.begun_micros) as f64 / 1000.0)
        };
        PeerReport {
            label: self.label,
            connected_ms: since(self.connected_micros),
            first_packet_ms: since(self.first_packet),
            first_keyframe_ms: since(self.first_keyframe),
            came_late: !self.came_early,
            packets: self.packets,
            bytes: self.bytes,
            decrypted: self.decrypted,
            audio: Counts::default(),
            video: Counts::default(),
            latencies: Histogram::clone(&self.latencies),
            audio_latencies: Histogram::clone(&self.audio_latencies),
            layers: self.layers,
            layer_switches: self.layer_switches,
            frames: (self.frames, self.late_frames, self.frames_left_out),
            packets_sent: self.packets_sent,
            keyframe_requests: self.keyframe_requests,
            undecryptable: self.undecryptable,
            link_lost: 0,
        }
    }
}
