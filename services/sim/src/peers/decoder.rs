//! The receiving end of a camera: puts frames together, decodes those whose references it
//! has, shows them at their time, and asks for a keyframe when it cannot go on. It sees
//! headers and VP8 descriptors as a browser does; marks are only used to count.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headwater_rtp::vp8::Vp8Descriptor;
use headwater_rtp::{SequenceUnwrapper, TimestampUnwrapper};

use crate::Time;
use crate::mark::Mark;
use crate::time::micros;

/// Frames that wait at most; with more of them everything is thrown away and a keyframe
/// asked for, as libwebrtc's frame buffer does.
const FRAMES_MAX: usize = 800;
/// Without a keyframe to begin with, one is asked for this often.
const KEYFRAME_WAIT: Duration = Duration::from_millis(200);
/// With nothing to decode for this long, a keyframe is asked for.
const FRAME_WAIT: Duration = Duration::from_millis(3_000);
/// A stream without packets for this long is not waited for.
const INACTIVE: Duration = Duration::from_millis(5_000);
/// Longest time a frame is held back to make up for jitter.
const TARGET_MAX: f64 = 1e6;

/// A packet of the stream, RTX taken off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VideoPacket<'a> {
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: &'a [u8],
}

#[derive(Debug)]
struct Frame {
    timestamp: u64,
    first: Option<u64>,
    last: Option<u64>,
    packets: BTreeSet<u64>,
    highest: u64,
    key: bool,
    temporal: u8,
    sync: bool,
    tl0: u8,
    mark: Option<Mark>,
    bytes: usize,
    shown_at: Option<Time>,
}

impl Frame {
    fn is_complete(&self) -> bool {
        let (Some(first), Some(last)) = (self.first, self.last) else { return false };
        last >= first && self.packets.len() as u64 == last - first + 1
    }
}

/// What a viewer saw of a camera.
#[derive(Debug, Clone, Default)]
pub struct VideoReport {
    /// Frames shown.
    pub frames: u64,
    /// Keyframes among them.
    pub keyframes: u64,
    /// When the first was shown.
    pub first_frame: Option<Time>,
    /// Gaps between frames longer than 150 ms above, and thrice, the usual one: what
    /// `freezeCount` of WebRTC counts.
    pub freezes: u64,
    /// Gaps longer than 500 ms: beginning and length.
    pub long_freezes: Vec<(Time, Duration)>,
    /// The longest gap.
    pub longest_gap: Duration,
    /// Encoding and the time of its first frame, at each change.
    pub layers: Vec<(Time, u8)>,
    /// Highest temporal layer shown in each second, and frames shown in it.
    pub seconds: Vec<VideoSecond>,
    /// Time from capture to showing, summed over frames, and the longest.
    pub latency_sum: Duration,
    /// The longest time from capture to showing.
    pub latency_max: Duration,
    /// Keyframe requests sent.
    pub keyframe_requests: u64,
    /// Sequence numbers asked for again, each time counted.
    pub nacked: u64,
}

/// One second of a camera as its viewer saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VideoSecond {
    /// Frames shown.
    pub frames: u16,
    /// Bytes of their payloads.
    pub bytes: u32,
    /// Encoding of the last one, if any.
    pub encoding: Option<u8>,
}

impl VideoReport {
    /// The encoding shown at a time, if any was before.
    #[must_use]
    pub fn layer_at(&self, at: Time) -> Option<u8> {
        let behind = self.layers.partition_point(|(since, _)| *since <= at);
        self.layers[..behind].last().map(|(_, encoding)| *encoding)
    }

    /// Mean time from capture to showing.
    #[must_use]
    pub fn latency_mean(&self) -> Duration {
        self.latency_sum
            .checked_div(u32::try_from(self.frames).unwrap_or(u32::MAX))
            .unwrap_or_default()
    }
}

/// A decoder of one subscription.
#[derive(Debug)]
pub(crate) struct Decoder {
    sequences: SequenceUnwrapper,
    timestamps: TimestampUnwrapper,
    pictures: SequenceUnwrapper,
    /// By picture.
    frames: BTreeMap<u64, Frame>,
    /// The base layer frame decoded last.
    tl0: Option<(u8, u64)>,
    /// The picture decoded last.
    decoded: Option<u64>,
    /// Temporal layers of pictures decoded since the last base layer frame.
    since_base: Vec<u64>,
    needs_key: bool,
    last_packet: Option<Time>,
    last_request: Option<Time>,
    last_shown: Option<Time>,
    usual_gap: f64,
    /// Arrival against capture: the least, forgotten slowly, in microseconds.
    base_delay: Option<f64>,
    /// How much later than that frames are shown.
    target: f64,
    pub(crate) report: VideoReport,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            sequences: SequenceUnwrapper::new(),
            timestamps: TimestampUnwrapper::new(),
            pictures: SequenceUnwrapper::new(),
            frames: BTreeMap::new(),
            tl0: None,
            decoded: None,
            since_base: Vec::new(),
            needs_key: true,
            last_packet: None,
            last_request: None,
            last_shown: None,
            usual_gap: 33_000.0,
            base_delay: None,
            target: 20_000.0,
            report: VideoReport::default(),
        }
    }

    pub(crate) fn unwrap(&mut self, sequence: u16) -> u64 {
        self.sequences.unwrap(sequence)
    }

    /// Something of the stream came, be it padding.
    pub(crate) fn note_packet(&mut self, now: Time) {
        self.last_packet = Some(now);
        if self.last_request.is_none() {
            // The first keyframe is on its way: it is asked for if it takes long.
            self.last_request = Some(now);
        }
    }

    pub(crate) fn handle(&mut self, now: Time, packet: VideoPacket<'_>) {
        let Ok(read) = Vp8Descriptor::parse(packet.payload) else { return };
        let Some(picture_id) = read.picture_id else { return };
        // Picture ids have 15 bits: the lowest bit of 16 stays empty.
        let picture = self.pictures.unwrap(picture_id.value() << 1) >> 1;
        if self.decoded.is_some_and(|decoded| picture <= decoded) {
            return;
        }
        let timestamp = self.timestamps.unwrap(packet.timestamp);
        let layer = read.temporal;
        let frame = self.frames.entry(picture).or_insert_with(|| Frame {
            timestamp,
            first: None,
            last: None,
            packets: BTreeSet::new(),
            highest: packet.sequence,
            key: false,
            temporal: layer.map_or(0, |layer| layer.id),
            sync: layer.is_some_and(|layer| layer.sync),
            tl0: read.tl0_picture_index.unwrap_or(0),
            mark: Mark::read(packet.payload),
            bytes: 0,
            shown_at: None,
        });
        if !frame.packets.insert(packet.sequence) {
            return;
        }
        frame.bytes += packet.payload.len();
        frame.highest = frame.highest.max(packet.sequence);
        if read.is_frame_start() {
            frame.first = Some(packet.sequence);
            frame.key = read.is_keyframe_start(packet.payload);
        }
        if packet.marker {
            frame.last = Some(packet.sequence);
        }
        if frame.is_complete() {
            self.schedule(now, picture);
        }
        if self.frames.len() > FRAMES_MAX {
            self.frames.clear();
            self.needs_key = true;
        }
    }

    /// A frame is complete: when it is to be shown.
    fn schedule(&mut self, now: Time, picture: u64) {
        let Some(frame) = self.frames.get_mut(&picture) else { return };
        let captured = frame.timestamp as f64 * 100.0 / 9.0;
        let delay = now.0 as f64 - captured;
        let base = self.base_delay.map_or(delay, |base| base.min(delay));
        let late = (delay - base).min(TARGET_MAX);
        // The least delay rises with clocks that drift; 100 microseconds a second is plenty.
        self.base_delay = Some(base + 3.0);
        let step = if late > self.target { 0.3 } else { 0.003 };
        self.target += (late - self.target) * step;
        let shown = captured + base + self.target;
        frame.shown_at = Some(Time(shown.max(0.0) as u64).max(now));
    }

    /// The first frame that can be decoded.
    fn next_decodable(&self) -> Option<(u64, &Frame)> {
        self.frames
            .iter()
            .find(|(picture, frame)| frame.is_complete() && self.is_decodable(**picture, frame))
            .map(|(picture, frame)| (*picture, frame))
    }

    fn is_decodable(&self, picture: u64, frame: &Frame) -> bool {
        if frame.key {
            return true;
        }
        let Some((tl0, base)) = self.tl0.filter(|_| !self.needs_key) else { return false };
        if frame.temporal == 0 {
            return frame.tl0 == tl0.wrapping_add(1);
        }
        if frame.tl0 != tl0 {
            return false;
        }
        // A frame that needs more than the base layer waits for the lower layers between.
        frame.sync
            || (base + 1..picture).all(|between| {
                let lower = self.frames.get(&between).map(|other| other.temporal < frame.temporal);
                self.since_base.contains(&between) || lower == Some(false)
            })
    }

    pub(crate) fn due(&self) -> Option<Time> {
        let frame = self.next_decodable().and_then(|(_, frame)| frame.shown_at);
        let request = self.request_due();
        [frame, request].into_iter().flatten().min()
    }

    fn request_due(&self) -> Option<Time> {
        let last = self.last_request?;
        let active_until = self.last_packet?.plus(INACTIVE);
        let due = if self.needs_key {
            last.plus(KEYFRAME_WAIT)
        } else {
            last.max(self.last_shown.unwrap_or(Time::ZERO)).plus(FRAME_WAIT)
        };
        (due < active_until).then_some(due)
    }

    /// Decodes what is due. Returns the number behind the last decoded one, before which
    /// nothing is needed any more, and whether a keyframe is to be asked for.
    pub(crate) fn process(&mut self, now: Time) -> (Option<u64>, bool) {
        let mut clear_to = None;
        while let Some((picture, frame)) = self.next_decodable() {
            if frame.shown_at.is_none_or(|at| at > now) {
                break;
            }
            clear_to = Some(frame.highest + 1);
            self.decode(now, picture);
        }
        let ask = self.request_due().is_some_and(|due| due <= now);
        if ask {
            self.last_request = Some(now);
            self.needs_key = true;
            self.report.keyframe_requests += 1;
        }
        (clear_to, ask)
    }

    /// So much is missing that only a keyframe helps.
    pub(crate) fn give_up(&mut self, now: Time) -> bool {
        self.frames.clear();
        self.needs_key = true;
        let may = self.last_request.is_none_or(|last| now.since(last) >= KEYFRAME_WAIT);
        if may {
            self.last_request = Some(now);
            self.report.keyframe_requests += 1;
        }
        may
    }

    fn decode(&mut self, now: Time, picture: u64) {
        let later = self.frames.split_off(&(picture + 1));
        let frame = self.frames.remove(&picture);
        self.frames = later;
        let Some(frame) = frame else { return };
        self.needs_key = false;
        self.decoded = Some(picture);
        if frame.temporal == 0 {
            self.tl0 = Some((frame.tl0, picture));
            self.since_base.clear();
        } else {
            self.since_base.push(picture);
        }
        self.count(now, &frame);
    }

    fn count(&mut self, now: Time, frame: &Frame) {
        let report = &mut self.report;
        report.frames += 1;
        report.keyframes += u64::from(frame.key);
        report.first_frame.get_or_insert(now);
        if let Some(last) = self.last_shown.replace(now) {
            let gap = now.since(last);
            let length = micros(gap) as f64;
            if length > (3.0 * self.usual_gap).max(self.usual_gap + 150_000.0) {
                report.freezes += 1;
            }
            if gap > Duration::from_millis(500) {
                report.long_freezes.push((last, gap));
            }
            report.longest_gap = report.longest_gap.max(gap);
            self.usual_gap += (length.min(500_000.0) - self.usual_gap) / 30.0;
        }
        let second = now.second();
        if report.seconds.len() <= second {
            report.seconds.resize(second + 1, VideoSecond::default());
        }
        let Some(mark) = frame.mark else { return };
        let slot = &mut report.seconds[second];
        slot.frames += 1;
        slot.bytes += frame.bytes as u32;
        slot.encoding = Some(mark.encoding);
        if report.layers.last().map(|(_, encoding)| *encoding) != Some(mark.encoding) {
            report.layers.push((now, mark.encoding));
        }
        let latency = now.since(mark.captured);
        report.latency_sum += latency;
        report.latency_max = report.latency_max.max(latency);
    }
}
