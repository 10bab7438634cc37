//! Packet path: no allocation once streams run. Takes RTP of publishers: finds or
//! learns which encoding it is of, takes RTX off, stores it for the next drain.

use headwater_model::media::{Codec, MediaKind, TransportKey};
use headwater_rtp::{RtpView, rtx};

use super::Sfu;
use super::timers::{LinkRef, Timer};
use crate::SfuEvent;
use crate::clock::Micros;
use crate::ingress::arrivals::FEEDBACK_INTERVAL;
use crate::ingress::extensions::Seen;
use crate::ingress::stream::{Accepted, Incoming};
use crate::ingress::track::{PENDING_MAX, PayloadType, Pending};
use crate::link::Source;

/// How often receiver reports go out (libwebrtc sends them as often for video).
pub(super) const REPORT_INTERVAL: Micros = Micros::from_millis(1_000);

impl Sfu {
    pub(super) fn receive(&mut self, now: Micros, from: TransportKey, packet: &[u8]) {
        self.stats.packets_in += 1;
        self.stats.bytes_in += packet.len() as u64;
        let Some(&link) = self.link_index.get(&from) else {
            self.stats.drops.unknown_stream += 1;
            return;
        };
        let Ok(view) = RtpView::parse(packet) else {
            self.stats.drops.malformed += 1;
            return;
        };
        let seen = Seen::read(&view, &self.links[link as usize].extensions);
        if let Some(sequence) = seen.transport_sequence {
            self.note_arrival(now, link, sequence);
        }
        let known = self.links[link as usize].source(view.ssrc());
        let Some(source) = known.or_else(|| self.learn(link, &view, &seen)) else {
            return;
        };
        self.arm_reports(now, link);
        self.accept(now, link, source, &view, &seen);
    }

    fn note_arrival(&mut self, now: Micros, index: u32, sequence: u16) {
        let link = &mut self.links[index as usize];
        let reference = LinkRef { index, key: link.key };
        let urgent = link.arrivals.note(now, sequence);
        if urgent && !link.feedback_queued {
            link.feedback_queued = true;
            self.due.push(Timer::Feedback(reference));
        } else if !link.feedback_armed {
            link.feedback_armed = true;
            self.wheel.arm(now.plus(FEEDBACK_INTERVAL), Timer::Feedback(reference));
        }
    }

    fn arm_reports(&mut self, now: Micros, index: u32) {
        let link = &mut self.links[index as usize];
        link.active = true;
        if !link.reports_armed {
            link.reports_armed = true;
            let reference = LinkRef { index, key: link.key };
            // The first one soon: until it comes, libwebrtc repeats MID and RID.
            self.wheel.arm(now.plus(Micros(REPORT_INTERVAL.0 / 4)), Timer::Reports(reference));
        }
        self.arm_quality(now, index);
    }

    /// Learns what an unknown SSRC carries: by MID and RID, or by payload type if only
    /// one track of the transport takes it.
    fn learn(&mut self, link: u32, view: &RtpView<'_>, seen: &Seen<'_>) -> Option<Source> {
        let Some(track) = self.track_of(link, view.payload_type(), seen) else {
            self.stats.drops.unknown_stream += 1;
            return None;
        };
        let Some(meaning) = self.tracks[track as usize].payload_type(view.payload_type()) else {
            self.stats.drops.unknown_payload_type += 1;
            return None;
        };
        let rid = if meaning.repeat { seen.repaired_rid.or(seen.rid) } else { seen.rid };
        let Some(encoding) = self.tracks[track as usize].encoding_of(rid) else {
            self.stats.drops.unknown_stream += 1;
            return None;
        };
        let source = Source { ssrc: view.ssrc(), track, encoding, repeat: meaning.repeat };
        if !self.bind(link, source) {
            self.stats.drops.too_many_streams += 1;
            return None;
        }
        Some(source)
    }

    fn track_of(&self, link: u32, payload_type: u8, seen: &Seen<'_>) -> Option<u32> {
        let tracks = &self.links[link as usize].tracks;
        let track_at = |index: &u32| &self.tracks[*index as usize];
        if let Some(mid) = seen.mid {
            return tracks
                .iter()
                .find(|index| track_at(index).publication.mid.as_bytes() == mid)
                .copied();
        }
        let mut takers =
            tracks.iter().filter(|index| track_at(index).payload_type(payload_type).is_some());
        let only = takers.next().copied();
        only.filter(|_| takers.next().is_none())
    }

    fn accept(
        &mut self,
        now: Micros,
        link: u32,
        source: Source,
        view: &RtpView<'_>,
        seen: &Seen<'_>,
    ) {
        let track = &mut self.tracks[source.track as usize];
        let meaning = track.payload_type(view.payload_type());
        let Some(PayloadType { codec: codec_index, repeat }) = meaning else {
            self.stats.drops.unknown_payload_type += 1;
            return;
        };
        let mapping = &track.publication.codecs[usize::from(codec_index)];
        let (codec, nack) = (mapping.codec, mapping.nack);
        let Ok(red) = track.red_form(mapping) else {
            self.stats.drops.unknown_payload_type += 1;
            return;
        };
        let (sequence, payload) = match original(view, repeat) {
            Some(original) => original,
            None => {
                self.stats.drops.padding += 1;
                return;
            }
        };
        let extensions = seen.pack(codec == Codec::Av1);
        let incoming = Incoming {
            now,
            sequence,
            timestamp: view.timestamp(),
            marker: view.marker(),
            payload,
            extensions: &extensions,
            dependency: seen.dependency(),
            codec,
            codec_index,
            red,
            nack,
            repeated: repeat,
        };
        let stream = &mut track.streams[usize::from(source.encoding)];
        let epoch = stream.epoch();
        let accepted = stream.accept(&incoming, &mut self.stats);
        let broke = stream.epoch() != epoch;
        let missing = !stream.missing.is_empty() || stream.broken;
        let recovered = std::mem::take(&mut stream.recovered);
        if let Some(rtt) = stream.repair_time.take() {
            self.links[link as usize].note_rtt(rtt);
        }
        if missing {
            self.arm_nack(now, source.track);
        }
        if broke {
            self.unsettle(now, source.track);
        }
        for number in recovered {
            self.await_drain(source, number);
        }
        let Accepted::Stored(number) = accepted else {
            return;
        };
        self.note_started(now, source, (codec, codec_index));
        if codec.kind() == MediaKind::Audio && !repeat {
            self.note_level(now, source.track, view.timestamp(), seen.audio_level());
            self.judge(now, source.track, seen.audio_level());
        }
        self.await_drain(source, number);
    }

    pub(super) fn await_drain(&mut self, source: Source, number: u64) {
        let track = &mut self.tracks[source.track as usize];
        if track.muted || !track.audible {
            self.stats.drops.muted += 1;
            return;
        }
        if track.deliveries.is_empty() && track.relay_demand == 0 {
            return;
        }
        if track.pending.len() >= PENDING_MAX {
            self.stats.drops.batch_full += 1;
            return;
        }
        track.pending.push(Pending { number, encoding: source.encoding });
        self.queue(source.track);
    }

    /// Tells of a first packet, and lets subscribers have what begins to arrive.
    pub(super) fn note_started(
        &mut self,
        now: Micros,
        source: Source,
        (codec, index): (Codec, u8),
    ) {
        let track = &mut self.tracks[source.track as usize];
        let bit = 1_u8 << source.encoding;
        let known = match track.kind() {
            MediaKind::Video => track.codec_index == Some(index),
            // Whoever takes the codec takes it with and without redundancy.
            MediaKind::Audio => track.codec_index.is_some() && track.codec == Some(codec),
        };
        let known = known && track.alive & bit != 0;
        if track.kind() == MediaKind::Video {
            self.arm_tick(now, source.track);
        }
        if known {
            return;
        }
        let track = &mut self.tracks[source.track as usize];
        let news = track.seen & bit == 0 || track.codec != Some(codec);
        track.seen |= bit;
        track.alive |= bit;
        track.codec = Some(codec);
        track.codec_index = Some(index);
        if news {
            let (track, encodings_seen) = (track.key, track.seen);
            self.tell(SfuEvent::TrackStarted { track, codec, encodings_seen });
        }
        self.aim_track(source.track);
        self.queue(source.track);
    }

    pub(super) fn note_level(
        &mut self,
        now: Micros,
        index: u32,
        timestamp: u32,
        level: Option<u8>,
    ) {
        let track = &mut self.tracks[index as usize];
        if track.muted {
            return;
        }
        let Some(level) = level else { return };
        track.meter.observe(timestamp, level, Codec::Opus.clock_rate());
        if !track.meter.is_quiet() {
            self.arm_speakers(now, index);
        }
    }
}

/// Sequence number and payload as the publisher sent them first. `None` if there is
/// nothing of it: RTX that only probes for bandwidth.
fn original<'a>(view: &RtpView<'a>, repeat: bool) -> Option<(u16, &'a [u8])> {
    if repeat { rtx::parse(view.payload()) } else { Some((view.sequence(), view.payload())) }
}
