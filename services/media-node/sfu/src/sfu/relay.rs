//! Packet path: no allocation once streams run. Tracks that come from other shards and
//! tracks that go there: packets as they are, one copy whoever wants them.
//!
//! A publisher of another shard appears as a transport that is always connected; what
//! the core asks of it (RTCP through [`Egress::rtcp`]) the relay carries to the shard
//! the track came from.

use headwater_model::media::{MediaKind, SubscriptionTarget, TrackKey};

use super::Sfu;
use crate::clock::Micros;
use crate::egress::Egress;
use crate::ingress::extensions::Seen;
use crate::ingress::ring::{Packet, PacketKind};
use crate::ingress::stream::{Accepted, Incoming, Stream};
use crate::ingress::track::{Pending, Track};
use crate::link::Source;
use crate::relay::{RELAY_SEQUENCE_MAX, RelayClock, RelayPacket};

/// A keyframe older than this is not handed to a shard that begins: asking for another
/// one costs less than the burst.
const REPLAY_AGE_MAX: Micros = Micros::from_millis(3_000);
/// Packets handed to a shard that begins, at most: 1.5 s at 5 Mbit/s.
const REPLAY_PACKETS_MAX: u64 = 1_024;

impl Sfu {
    pub(super) fn demand_relay(&mut self, now: Micros, key: TrackKey, encodings: u8) {
        let Some(&index) = self.track_index.get(&key) else {
            return;
        };
        let track = &mut self.tracks[index as usize];
        if std::mem::replace(&mut track.relay_demand, encodings) != encodings {
            self.unsettle(now, index);
        }
    }

    pub(super) fn wish_keyframe(&mut self, now: Micros, key: TrackKey, encoding: u8) {
        if let Some(&index) = self.track_index.get(&key) {
            self.stats.keyframe_requests_in += 1;
            self.want_keyframe(index, encoding);
            self.arm_tick(now, index);
        }
    }

    /// One bit for each encoding that subscribers of this shard want.
    pub(super) fn wishes_of(&self, key: TrackKey) -> u8 {
        let Some(&index) = self.track_index.get(&key) else {
            return 0;
        };
        let track = &self.tracks[index as usize];
        let wishes = track.deliveries.iter().map(|delivery| {
            let delivery = &self.deliveries[*delivery as usize];
            if !self.links[delivery.link as usize].connected {
                return 0;
            }
            wish(track, delivery.target)
        });
        wishes.fold(0, |all, one| all | one)
    }

    pub(super) fn receive_relayed(&mut self, now: Micros, key: TrackKey, packet: &RelayPacket<'_>) {
        self.stats.packets_in += 1;
        self.stats.bytes_in += packet.payload.len() as u64;
        let Some(&index) = self.track_index.get(&key) else {
            self.stats.drops.unknown_stream += 1;
            return;
        };
        let track = &mut self.tracks[index as usize];
        let link = track.link;
        let mapping = track.publication.codecs.get(usize::from(packet.codec));
        let known = mapping
            .and_then(|mapping| Some((mapping.codec, mapping.nack, track.red_form(mapping).ok()?)));
        let Some((codec, nack, red)) = known else {
            self.stats.drops.unknown_payload_type += 1;
            return;
        };
        let Some(stream) = track.streams.get_mut(usize::from(packet.encoding)) else {
            self.stats.drops.unknown_stream += 1;
            return;
        };
        if packet.sequence > RELAY_SEQUENCE_MAX {
            self.stats.drops.malformed += 1;
            return;
        }
        let seen = Seen::from_packed(packet.extensions);
        let extensions = seen.pack(codec == headwater_model::media::Codec::Av1);
        let incoming = Incoming {
            now,
            sequence: packet.sequence as u16,
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload: packet.payload,
            extensions: &extensions,
            dependency: seen.dependency(),
            codec,
            codec_index: packet.codec,
            red,
            nack,
            repeated: false,
        };
        let epoch = stream.epoch();
        let origin = (packet.life, packet.sequence);
        let accepted = stream.accept_relayed(&incoming, origin, &mut self.stats);
        let broke = stream.epoch() != epoch;
        let missing = !stream.missing.is_empty() || stream.broken;
        let recovered = std::mem::take(&mut stream.recovered);
        if let Some(rtt) = stream.repair_time.take() {
            self.links[link as usize].note_rtt(rtt);
        }
        if missing {
            self.arm_nack(now, index);
        }
        if broke {
            self.unsettle(now, index);
        }
        let ssrc = self.tracks[index as usize].streams[usize::from(packet.encoding)].ssrc;
        let source = Source {
            ssrc: ssrc.unwrap_or_default(),
            track: index,
            encoding: packet.encoding,
            repeat: false,
        };
        for number in recovered {
            self.await_drain(source, number);
        }
        let Accepted::Stored(number) = accepted else {
            return;
        };
        self.arm_quality(now, link);
        self.note_started(now, source, (codec, packet.codec));
        if codec.kind() == MediaKind::Audio {
            self.note_level(now, index, packet.timestamp, seen.audio_level());
            self.judge(now, index, seen.audio_level());
        }
        self.await_drain(source, number);
    }

    pub(super) fn receive_relayed_clock(&mut self, now: Micros, key: TrackKey, clock: &RelayClock) {
        let Some(&index) = self.track_index.get(&key) else {
            return;
        };
        let track = &mut self.tracks[index as usize];
        let Some(stream) = track.streams.get_mut(usize::from(clock.encoding)) else {
            return;
        };
        if stream.life() == clock.life {
            stream.note_relayed_clock(now, clock.ntp_micros, clock.timestamp);
            self.links[track.link as usize].note_clock(now, clock.ntp_micros);
        }
    }

    /// Calls back with the stored packets that another shard asks for again; returns
    /// how many are gone.
    pub(super) fn repeat_stored(
        &mut self,
        now: Micros,
        (key, encoding, life): (TrackKey, u8, u32),
        sequences: impl Iterator<Item = u64>,
        mut send: impl FnMut(RelayPacket<'_>),
    ) -> u64 {
        let mut gone = 0;
        let stream = self.stream_of(key, encoding).filter(|stream| stream.life() == life);
        for sequence in sequences {
            let packet = stream.and_then(|stream| Some((stream, stream.packet(sequence)?)));
            match packet.filter(|(stream, packet)| packet.epoch == stream.epoch()) {
                Some((stream, packet)) => send(relayed(now, (stream, encoding), packet)),
                None => gone += 1,
            }
        }
        self.stats.drops.retransmission_gone += gone;
        gone
    }

    /// Calls back with the last keyframe of an encoding and all that followed it, if
    /// that is young and short. `false` if there is no such thing.
    pub(super) fn replay_stored(
        &mut self,
        now: Micros,
        (key, encoding): (TrackKey, u8),
        mut send: impl FnMut(RelayPacket<'_>),
    ) -> bool {
        let Some(stream) = self.stream_of(key, encoding) else {
            return false;
        };
        let (Some(group), Some(newest)) = (stream.group(), stream.newest()) else {
            return false;
        };
        let stale = now.since(group.arrival) > REPLAY_AGE_MAX;
        if stale || newest.saturating_sub(group.start) >= REPLAY_PACKETS_MAX {
            return false;
        }
        if stream.packet(group.start).is_none() {
            return false;
        }
        for number in group.start..=newest {
            let packet = stream.packet(number).filter(|packet| packet.epoch == stream.epoch());
            if let Some(packet) = packet {
                send(relayed(now, (stream, encoding), packet));
            }
        }
        self.stats.keyframes_replayed += 1;
        true
    }

    fn stream_of(&self, key: TrackKey, encoding: u8) -> Option<&Stream> {
        let track = &self.tracks[*self.track_index.get(&key)? as usize];
        if track.muted {
            return None;
        }
        track.streams.get(usize::from(encoding))
    }
}

/// Hands out what is pending of a track to other shards, and clocks that are new.
pub(super) fn hand_to_relay(
    now: Micros,
    track: &mut Track,
    pending: &[Pending],
    egress: &mut impl Egress,
) {
    let demand = track.relay_demand;
    if demand == 0 || track.muted {
        return;
    }
    for pending in pending.iter().filter(|pending| demand >> pending.encoding & 1 == 1) {
        let stream = &track.streams[usize::from(pending.encoding)];
        let packet = stream.packet(pending.number);
        if let Some(packet) = packet.filter(|packet| packet.epoch == stream.epoch()) {
            egress.relay(track.key, relayed(now, (stream, pending.encoding), packet));
        }
    }
    let key = track.key;
    for (encoding, stream) in (0..).zip(&mut track.streams) {
        if demand >> encoding & 1 == 1
            && let Some(clock) = stream.take_new_clock()
        {
            let (ntp_micros, timestamp) = (clock.ntp_micros, clock.rtp);
            let life = stream.life();
            egress.relay_clock(key, RelayClock { encoding, life, ntp_micros, timestamp });
        }
    }
}

fn relayed<'a>(
    now: Micros,
    (stream, encoding): (&'a Stream, u8),
    packet: &Packet,
) -> RelayPacket<'a> {
    let (payload, extensions) = stream.bytes(packet);
    debug_assert!(packet.kind == PacketKind::Media || payload.is_empty());
    RelayPacket {
        encoding,
        life: stream.life(),
        sequence: packet.number,
        timestamp: packet.timestamp,
        codec: packet.codec,
        marker: packet.marker,
        keyframe: packet.shape.keyframe_start,
        held: now.since(packet.arrival).to_duration(),
        extensions,
        payload,
    }
}

/// The encodings that a target means: the highest that it allows and, until that
/// arrives, those below it too. What its origin does not send is thus made up for.
fn wish(track: &Track, target: SubscriptionTarget) -> u8 {
    let SubscriptionTarget::UpTo { spatial, .. } = target else {
        return 0;
    };
    let encodings = &track.publication.encodings;
    let allowed = encodings.iter().rposition(|encoding| encoding.spatial <= spatial);
    let best = allowed.unwrap_or(0).min(7);
    let bit = 1_u8 << best;
    if track.alive & bit != 0 { bit } else { bit | (bit - 1) }
}
