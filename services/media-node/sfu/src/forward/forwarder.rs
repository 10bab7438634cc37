//! Packet path: no allocation. What one subscriber gets of one track: which encoding
//! and layers, and under which sequence numbers, timestamps and picture ids. It decides
//! and counts; it touches no bytes.

use headwater_model::media::{Codec, MediaKind};
use headwater_rtp::sequence::timestamp_distance;

use super::align::{LastOut, continue_from, translate};
use super::line::{History, Layers, Line};
use crate::clock::Micros;
use crate::ingress::ring::{Packet, PacketKind};
use crate::ingress::stream::Stream;

/// Distance of pictures that are replayed to a late joiner, in clock units (2 ms of
/// video): they are decoded at once and do not count as late.
const REPLAY_STEP: u32 = 180;

/// What the subscriber wants, in terms of what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) encoding: u8,
    pub(crate) layers: Layers,
}

/// A packet as the subscriber gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Our sequence number; does not wrap.
    pub(crate) number: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) picture: u16,
    pub(crate) tl0: u8,
    /// The counters in the payload differ from the publisher's.
    pub(crate) rewritten: bool,
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not for this subscriber.
    Skip,
    Forward(Placed),
    /// A number was kept for it but it is not for this subscriber: padding takes its
    /// place, or the subscriber would wait for it.
    Fill(Placed),
}

/// A keyframe in the ring and what follows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replay<'a> {
    pub(crate) encoding: u8,
    /// First packet of the keyframe.
    pub(crate) first: &'a Packet,
    pub(crate) newest: &'a Packet,
    /// Pictures behind the keyframe.
    pub(crate) following: u32,
}

/// Where an SSRC's numbers and timestamps ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    next_out: u64,
    last_out: LastOut,
    picture: u16,
    tl0: u8,
}

/// How far forwarding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Nothing was ever forwarded.
    Fresh,
    /// Forwarding was interrupted; it begins anew as if switched.
    Stopped,
    /// The current line goes on.
    Flowing,
    /// Packets are being left out; the current line is closed. `next` is the number
    /// behind those left out.
    Skipping { next: u64 },
}

/// Whether the current encoding is sent until another begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halt {
    /// It is.
    No,
    /// Up to the end of this picture.
    Asked,
    /// Nothing is sent any more; only a keyframe helps.
    Done,
}

/// Forwarding state of one subscription. Feed every packet of the track, in the order
/// of arrival, to [`Forwarder::take`].
#[derive(Debug)]
pub(crate) struct Forwarder {
    want: Want,
    flow: Flow,
    line: Line,
    layers: Layers,
    /// Highest number of the current encoding that was seen.
    highest: u64,
    /// Our next number.
    next_out: u64,
    last_in_timestamp: u32,
    last_in_picture: Option<u16>,
    last_out: LastOut,
    last_out_picture: u16,
    last_out_tl0: u8,
    clock_rate: u32,
    /// Spatial layers are inside one encoding.
    scalable: bool,
    begins_anywhere: bool,
    halt: Halt,
    history: History,
}

impl Forwarder {
    /// `first_out` is the first sequence number, `first_timestamp` the first timestamp.
    pub(crate) fn new(kind: MediaKind, first_out: u16, first_timestamp: u32) -> Self {
        Self {
            want: Want { encoding: 0, layers: Layers::ALL },
            flow: Flow::Fresh,
            line: Line::NONE,
            layers: Layers::ALL,
            highest: 0,
            // In the second cycle, so that numbers before it exist.
            next_out: 0x1_0000 + u64::from(first_out),
            last_in_timestamp: 0,
            last_in_picture: None,
            last_out: LastOut { timestamp: first_timestamp, arrival: Micros::ZERO },
            last_out_picture: 0,
            last_out_tl0: 0,
            clock_rate: match kind {
                MediaKind::Audio => Codec::Opus.clock_rate(),
                MediaKind::Video => Codec::Vp8.clock_rate(),
            },
            scalable: false,
            begins_anywhere: kind == MediaKind::Audio,
            halt: Halt::No,
            history: History::default(),
        }
    }

    /// Where its numbers and timestamps ended, for whoever goes on under the same
    /// SSRC. `None` if nothing was ever forwarded.
    pub(crate) fn ending(&self) -> Option<Ending> {
        (self.flow != Flow::Fresh).then(|| Ending {
            next_out: self.next_number(),
            last_out: self.last_out,
            picture: self.last_out_picture,
            tl0: self.last_out_tl0,
        })
    }

    /// Goes on where another one ended, with what it will forward first. Nothing
    /// may have been forwarded yet.
    pub(crate) fn go_on(&mut self, ending: Ending) {
        self.next_out = ending.next_out;
        self.last_out = ending.last_out;
        self.last_out_picture = ending.picture;
        self.last_out_tl0 = ending.tl0;
        self.flow = Flow::Stopped;
    }

    /// What is wanted from now on. It takes effect where the stream allows it.
    pub(crate) fn set_want(&mut self, want: Want, scalable: bool) {
        self.want = want;
        self.scalable = scalable;
        if self.halt == Halt::Asked && want.encoding >= self.line.encoding {
            self.halt = Halt::No;
        }
    }

    /// The network is full: if a lower encoding is wanted than is sent, nothing is sent
    /// until it begins. What would come meanwhile would only wait in the queue that the
    /// receiver still has pictures in.
    pub(crate) fn halt(&mut self) {
        let lower = self.want.encoding < self.line.encoding;
        if lower && !self.awaits_start() && self.halt == Halt::No {
            self.halt = Halt::Asked;
        }
    }

    /// What was sent of an encoding is of use still: it goes on, so that it is worth
    /// repeating.
    pub(crate) fn goes_on_with(&self, encoding: u8) -> bool {
        self.begins_anywhere || (self.line.encoding == encoding && self.halt != Halt::Done)
    }

    pub(crate) fn wanted_encoding(&self) -> u8 {
        self.want.encoding
    }

    /// Forwarding ends here; what follows begins anew.
    pub(crate) fn stop(&mut self) {
        self.close_line();
        self.halt = Halt::No;
        if self.flow != Flow::Fresh {
            self.flow = Flow::Stopped;
        }
    }

    /// Nothing is forwarded until a beginning is found.
    pub(crate) fn awaits_start(&self) -> bool {
        matches!(self.flow, Flow::Fresh | Flow::Stopped)
    }

    /// The encoding of which a keyframe is needed to give the subscriber what it wants.
    pub(crate) fn awaits_keyframe(&self, streams: &[Stream]) -> Option<u8> {
        if self.begins_anywhere {
            return None;
        }
        let stream = streams.get(usize::from(self.want.encoding))?;
        let wanted = self.want.layers.spatial.min(stream.max_spatial());
        let settled = !self.awaits_start()
            && self.halt != Halt::Done
            && self.line.is_of(self.want.encoding, stream.epoch())
            && (!self.scalable || self.layers.spatial >= wanted);
        (!settled).then_some(self.want.encoding)
    }

    /// The encoding that is forwarded now, and the highest spatial layer in it.
    pub(crate) fn forwarded(&self) -> Option<(u8, u8)> {
        (!self.awaits_start()).then_some((self.line.encoding, self.layers.spatial))
    }

    /// The encoding and epoch whose packets are forwarded now, for sender reports, with
    /// the offset of its timestamps.
    pub(crate) fn clock_line(&self) -> Option<(u8, u8, u32)> {
        (!self.awaits_start()).then_some((
            self.line.encoding,
            self.line.epoch,
            self.line.timestamp_offset,
        ))
    }

    /// Our timestamp of the newest packet and when it had come.
    pub(crate) fn last_sent(&self) -> (u32, Micros) {
        (self.last_out.timestamp, self.last_out.arrival)
    }

    /// A packet of the track arrived.
    #[inline]
    pub(crate) fn take(&mut self, encoding: u8, packet: &Packet, streams: &[Stream]) -> Verdict {
        let current = !self.awaits_start() && self.line.is_of(encoding, packet.epoch);
        let ended = self.halt == Halt::Done && self.begins_with(encoding, packet);
        if current && packet.number > self.highest && !ended {
            return self.advance(packet);
        }
        if (!current || ended) && !packet.late && self.begins_with(encoding, packet) {
            let timestamp = self.align(encoding, packet, streams);
            return self.begin(encoding, packet, timestamp);
        }
        if packet.late { self.look_up(encoding, packet) } else { Verdict::Skip }
    }

    /// Begins with a packet of the ring.
    pub(crate) fn replay_start(&mut self, replay: &Replay<'_>, streams: &[Stream]) -> Verdict {
        let span = replay.following * REPLAY_STEP;
        let live = self.align(replay.encoding, replay.newest, streams);
        let mut timestamp = live.wrapping_sub(span);
        if self.flow != Flow::Fresh && timestamp_distance(timestamp, self.last_out.timestamp) <= 0 {
            timestamp = self.last_out.timestamp.wrapping_add(1);
        }
        self.begin(replay.encoding, replay.first, timestamp)
    }

    /// Goes on with the next packet of the ring while replaying; pictures come right
    /// behind each other, whatever time had been between them.
    pub(crate) fn replay_next(&mut self, packet: &Packet) -> Verdict {
        if packet.timestamp != self.last_in_timestamp {
            let timestamp = self.last_out.timestamp.wrapping_add(REPLAY_STEP);
            self.cut(packet.number);
            self.line.timestamp_offset = timestamp.wrapping_sub(packet.timestamp);
        }
        self.advance(packet)
    }

    /// Where one of our numbers came from: the line and the publisher's number.
    pub(crate) fn origin(&self, sequence: u16) -> Option<(Line, u64)> {
        let newest = self.newest_out()?;
        let behind = (newest as u16).wrapping_sub(sequence);
        if behind >= 0x8000 {
            return None;
        }
        let out = newest - u64::from(behind);
        if self.flow == Flow::Flowing && out >= self.line.out {
            return Some((self.line, self.line.from + (out - self.line.out)));
        }
        self.history.iter().find_map(|line| line.number_of(out).map(|number| (*line, number)))
    }

    /// A packet that was or should have been forwarded in a line.
    pub(crate) fn place_in(&self, line: &Line, packet: &Packet) -> Verdict {
        let placed = self.placed(line, packet);
        let wanted = line.layers.pass(packet) && packet.kind == PacketKind::Media;
        if wanted { Verdict::Forward(placed) } else { Verdict::Fill(placed) }
    }

    /// Our number for what comes next; 0 if nothing was ever forwarded.
    pub(crate) fn next_number(&self) -> u64 {
        self.newest_out().map_or(0, |newest| newest + 1)
    }

    fn newest_out(&self) -> Option<u64> {
        match self.flow {
            Flow::Fresh => None,
            Flow::Flowing => Some(self.line.out_of(self.highest)),
            Flow::Stopped | Flow::Skipping { .. } => Some(self.next_out - 1),
        }
    }

    fn begins_with(&self, encoding: u8, packet: &Packet) -> bool {
        encoding == self.want.encoding
            && packet.kind == PacketKind::Media
            && (self.begins_anywhere || packet.shape.keyframe_start)
            // A start without a past goes through the keyframe group.
            && (self.begins_anywhere || !self.awaits_start())
    }

    fn align(&self, encoding: u8, packet: &Packet, streams: &[Stream]) -> u32 {
        if self.flow == Flow::Fresh {
            return self.last_out.timestamp;
        }
        let clock_of = |index: u8| streams.get(usize::from(index)).and_then(|stream| stream.clock);
        let reported = if self.line.is_of(encoding, packet.epoch) {
            Some(packet.timestamp)
        } else {
            let (from, to) = (clock_of(encoding), clock_of(self.line.encoding));
            translate(packet.timestamp, from, to, self.clock_rate)
        };
        let reported = reported.map(|time| time.wrapping_add(self.line.timestamp_offset));
        continue_from(self.last_out, packet.arrival, reported, self.clock_rate)
    }

    fn begin(&mut self, encoding: u8, packet: &Packet, timestamp: u32) -> Verdict {
        let fresh = self.flow == Flow::Fresh;
        self.close_line();
        let next_picture = self.last_out_picture.wrapping_add(1);
        let next_tl0 = self.last_out_tl0.wrapping_add(1);
        self.layers = self.passing_layers();
        self.line = Line {
            from: packet.number,
            to: u64::MAX,
            out: self.next_out,
            timestamp_offset: timestamp.wrapping_sub(packet.timestamp),
            picture_offset: if fresh { 0 } else { next_picture.wrapping_sub(packet.shape.picture) },
            tl0_offset: if fresh { 0 } else { next_tl0.wrapping_sub(packet.shape.tl0) },
            encoding,
            epoch: packet.epoch,
            layers: self.layers,
        };
        self.flow = Flow::Flowing;
        self.halt = Halt::No;
        self.highest = packet.number;
        self.forward(packet)
    }

    fn passing_layers(&self) -> Layers {
        let spatial = if self.scalable { self.want.layers.spatial } else { u8::MAX };
        Layers { spatial, temporal: self.want.layers.temporal }
    }

    /// The next packet of the current encoding, perhaps behind a gap.
    #[inline]
    fn advance(&mut self, packet: &Packet) -> Verdict {
        let new_picture = packet.timestamp != self.last_in_timestamp;
        if new_picture {
            let before = self.layers;
            self.settle_layers(packet);
            if before != self.layers {
                self.cut(packet.number);
                self.line.layers = self.layers;
            }
        }
        if new_picture && self.halt == Halt::Asked {
            self.halt = Halt::Done;
        }
        let passes = self.halt != Halt::Done && self.layers.pass(packet);
        if packet.kind == PacketKind::Media && passes {
            self.resume(packet.number);
            self.highest = packet.number;
            return self.forward(packet);
        }
        self.leave_out(packet, new_picture);
        Verdict::Skip
    }

    /// Layers change between pictures only: down at any, up in time where the format
    /// says so, up in space at a keyframe.
    fn settle_layers(&mut self, packet: &Packet) {
        let wanted = self.passing_layers();
        if packet.shape.keyframe_start {
            self.layers = wanted;
            return;
        }
        self.layers.spatial = self.layers.spatial.min(wanted.spatial);
        self.layers.temporal = self.layers.temporal.min(wanted.temporal);
        let shape = &packet.shape;
        if shape.reaches > self.layers.temporal && shape.reach_from <= self.layers.temporal {
            self.layers.temporal = shape.reaches.min(wanted.temporal);
        }
    }

    /// Goes on behind packets that were left out, with the next of our numbers.
    #[inline]
    fn resume(&mut self, number: u64) {
        if let Flow::Skipping { next } = self.flow {
            // What is missing between those left out and this one keeps its numbers:
            // it may belong to this picture.
            debug_assert!(next <= number);
            self.line.from = next;
            self.line.to = u64::MAX;
            self.line.out = self.next_out;
            self.line.layers = self.layers;
            self.flow = Flow::Flowing;
        }
    }

    fn leave_out(&mut self, packet: &Packet, new_picture: bool) {
        match self.flow {
            Flow::Flowing => {
                self.next_out = self.line.out_of(packet.number);
                self.line.to = packet.number;
                self.history.push(self.line);
            }
            Flow::Skipping { next } if next < packet.number && new_picture => {
                // Missing between two pictures that are left out: it may be a third
                // one that is wanted.
                let line = Line { from: next, to: packet.number, out: self.next_out, ..self.line };
                self.next_out += packet.number - next;
                self.history.push(line);
            }
            Flow::Skipping { .. } | Flow::Fresh | Flow::Stopped => {}
        }
        self.flow = Flow::Skipping { next: packet.number + 1 };
        self.highest = packet.number;
        self.last_in_timestamp = packet.timestamp;
        let picture = packet.shape.picture;
        if packet.shape.contiguous && self.last_in_picture != Some(picture) {
            self.line.picture_offset = self.line.picture_offset.wrapping_sub(1);
            self.last_in_picture = Some(picture);
        }
    }

    /// Ends the current line before a number and begins another that goes on alike.
    fn cut(&mut self, number: u64) {
        if self.flow == Flow::Flowing {
            let out = self.line.out_of(number);
            self.history.push(Line { to: number, ..self.line });
            self.line.from = number;
            self.line.out = out;
        }
    }

    fn close_line(&mut self) {
        if self.flow == Flow::Flowing {
            self.next_out = self.line.out_of(self.highest) + 1;
            self.line.to = self.highest + 1;
            self.history.push(self.line);
        }
    }

    #[inline]
    fn forward(&mut self, packet: &Packet) -> Verdict {
        let placed = self.placed(&self.line, packet);
        self.last_in_timestamp = packet.timestamp;
        self.last_in_picture = Some(packet.shape.picture);
        self.last_out = LastOut { timestamp: placed.timestamp, arrival: packet.arrival };
        self.last_out_picture = placed.picture;
        self.last_out_tl0 = placed.tl0;
        Verdict::Forward(placed)
    }

    #[inline]
    fn placed(&self, line: &Line, packet: &Packet) -> Placed {
        let shape = &packet.shape;
        let layer_end = self.scalable && shape.layer_end && shape.spatial == line.layers.spatial;
        Placed {
            number: line.out_of(packet.number),
            timestamp: packet.timestamp.wrapping_add(line.timestamp_offset),
            marker: packet.marker || layer_end,
            picture: shape.picture.wrapping_add(line.picture_offset),
            tl0: shape.tl0.wrapping_add(line.tl0_offset),
            rewritten: line.picture_offset != 0 || line.tl0_offset != 0,
        }
    }

    /// A packet that came late belongs to the line that was in force around it.
    fn look_up(&self, encoding: u8, packet: &Packet) -> Verdict {
        let matches =
            |line: &&Line| line.is_of(encoding, packet.epoch) && line.contains(packet.number);
        let current = Some(&self.line).filter(|_| self.flow == Flow::Flowing);
        let line = current.filter(matches).or_else(|| self.history.iter().find(matches));
        line.map_or(Verdict::Skip, |line| self.place_in(line, packet))
    }
}
