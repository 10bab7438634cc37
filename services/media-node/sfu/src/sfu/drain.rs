//! Packet path: no allocation once streams run. Hands out what is to be sent: packets
//! of each track subscriber by subscriber, then what was asked for again, then RTCP.

use headwater_model::media::MediaKind;
use headwater_rtp::extension::AbsSendTime;

use super::relay::hand_to_relay;
use super::timers::{LinkRef, Timer};
use super::{Sfu, Wanted};
use crate::SfuEvent;
use crate::clock::Micros;
use crate::egress::Egress;
use crate::forward::delivery::Delivery;
use crate::forward::forwarder::{Replay, Verdict};
use crate::forward::writer::{Outlet, Stored};
use crate::ingress::ring::Packet;
use crate::ingress::stream::{KeyframeGroup, Stream};
use crate::ingress::track::{Pending, Track};

/// A keyframe older than this is not replayed: what follows it would be a long burst,
/// and asking for another one takes less than that.
const REPLAY_AGE_MAX: Micros = Micros::from_millis(1_000);
/// A keyframe as fresh as this is begun with although packets of it are missing: they
/// are on their way.
const REPLAY_FRESH: Micros = Micros::from_millis(100);
/// Packets replayed at most: 1 s at 2.5 Mbit/s.
const REPLAY_PACKETS_MAX: u64 = 256;
/// The round trip assumed until one is measured.
pub(super) const RTT_UNKNOWN: Micros = Micros::from_millis(100);
/// A first sender report comes this soon after the first packet, for lip sync.
const FIRST_SENDER_REPORT: Micros = Micros::from_millis(100);

impl Sfu {
    pub(super) fn hand_out(&mut self, now: Micros, egress: &mut impl Egress) {
        self.writer.set_send_time(AbsSendTime::from_duration(now.to_duration()).to_bytes());
        self.allocate_queued(now);
        let mut queued = std::mem::take(&mut self.queued);
        for index in queued.drain(..) {
            self.forward_track(now, index, egress);
        }
        // Nothing is queued while tracks are forwarded.
        self.queued = queued;
        self.repeat_wanted(now, egress);
        // What is missing for good makes a keyframe due, and that nothing else.
        while !self.due.is_empty() {
            let mut due = std::mem::replace(&mut self.due, std::mem::take(&mut self.fired));
            for timer in due.drain(..) {
                self.work_off(now, timer, egress);
            }
            self.fired = due;
        }
    }

    fn forward_track(&mut self, now: Micros, index: u32, egress: &mut impl Egress) {
        let track = &mut self.tracks[index as usize];
        track.queued = false;
        let pending = std::mem::take(&mut track.pending);
        hand_to_relay(now, track, &pending, egress);
        let track = &self.tracks[index as usize];
        let unsettled = track.unsettled;
        // One bit for each encoding that somebody waits for.
        let mut awaited = 0_u8;
        // Of these, one for each whose last keyframe will be whole in a moment.
        let mut repaired = 0_u8;
        for position in 0..track.deliveries.len() {
            let track = &self.tracks[index as usize];
            let delivery_index = track.deliveries[position];
            let delivery = &mut self.deliveries[delivery_index as usize];
            let link_index = delivery.link;
            let link = &mut self.links[link_index as usize];
            if !link.connected || track.muted || delivery.is_paused() {
                continue;
            }
            if track.codec_index.is_some_and(|index| !delivery.takes(index)) {
                self.stats.drops.unsupported_codec += pending.len() as u64;
                delivery.forwarder.stop();
                continue;
            }
            let before = delivery.packets;
            let mut outlet = Outlet {
                writer: &mut self.writer,
                egress: &mut *egress,
                stats: &mut self.stats,
                to: link.key,
                transport_sequence: &mut link.next_transport_sequence,
                downlink: link.downlink.as_deref_mut(),
                now,
                rtt: link.rtt.unwrap_or(RTT_UNKNOWN),
            };
            forward_to(track, delivery, &pending, &mut outlet);
            if unsettled {
                rise_from_ring(track, delivery, &mut outlet);
            }
            if unsettled && let Some(encoding) = delivery.forwarder.awaits_keyframe(&track.streams)
            {
                awaited |= 1 << encoding;
                let begins = delivery.forwarder.awaits_start();
                repaired |= u8::from(begins && is_being_repaired(now, track, encoding)) << encoding;
            }
            let sent = delivery.packets != before;
            let idle = !link.sender_reports_armed;
            let unwatched = link.downlink.is_some() && !link.downlink_armed;
            self.note_layer(index, delivery_index);
            if sent && idle {
                self.begin_reporting(now, link_index);
            }
            if sent && unwatched {
                self.arm_downlink(now, link_index);
            }
        }
        let track = &mut self.tracks[index as usize];
        track.pending = pending;
        track.pending.clear();
        if unsettled {
            track.unsettled = awaited != 0;
            for encoding in 0..track.streams.len() as u8 {
                if (awaited & !repaired) >> encoding & 1 == 1 {
                    self.want_keyframe(index, encoding);
                }
            }
        }
    }

    /// Tells when another spatial layer is forwarded.
    fn note_layer(&mut self, track: u32, index: u32) {
        let track = &self.tracks[track as usize];
        let delivery = &mut self.deliveries[index as usize];
        let Some((encoding, spatial)) = delivery.forwarder.forwarded() else {
            return;
        };
        if track.kind() == MediaKind::Audio {
            return;
        }
        let spatial = track.spatial_of(encoding, spatial);
        let before = delivery.told_spatial.replace(spatial);
        if before != Some(spatial) {
            let subscription = delivery.key;
            self.stats.layer_switches += u64::from(before.is_some());
            self.tell(SfuEvent::LayerForwarded { subscription, spatial });
        }
    }

    fn begin_reporting(&mut self, now: Micros, index: u32) {
        let link = &mut self.links[index as usize];
        link.sender_reports_armed = true;
        let reference = LinkRef { index, key: link.key };
        self.wheel.arm(now.plus(FIRST_SENDER_REPORT), Timer::SenderReports(reference));
        self.arm_quality(now, index);
    }

    fn repeat_wanted(&mut self, now: Micros, egress: &mut impl Egress) {
        let mut wanted = std::mem::take(&mut self.wanted);
        for Wanted { delivery, sequence } in wanted.drain(..) {
            let Some(delivery) = self.deliveries.get_mut(delivery as usize) else {
                continue;
            };
            let link = &mut self.links[delivery.link as usize];
            if !link.connected {
                continue;
            }
            let track = &self.tracks[delivery.track as usize];
            let found = delivery.forwarder.origin(sequence).and_then(|(line, number)| {
                // Behind a switch nobody waits for what came before it.
                if !delivery.forwarder.goes_on_with(line.encoding) {
                    return None;
                }
                let stream = track.streams.get(usize::from(line.encoding))?;
                let packet = stream.packet(number)?;
                (packet.epoch == line.epoch).then_some((line, stream, packet))
            });
            let Some((line, stream, packet)) = found else {
                self.stats.drops.retransmission_gone += 1;
                continue;
            };
            let verdict = delivery.forwarder.place_in(&line, packet);
            let mut outlet = Outlet {
                writer: &mut self.writer,
                egress: &mut *egress,
                stats: &mut self.stats,
                to: link.key,
                transport_sequence: &mut link.next_transport_sequence,
                downlink: link.downlink.as_deref_mut(),
                now,
                rtt: link.rtt.unwrap_or(RTT_UNKNOWN),
            };
            outlet.send_again(delivery, stored(stream, packet), verdict);
        }
        self.wanted = wanted;
    }

    fn work_off(&mut self, now: Micros, timer: Timer, egress: &mut impl Egress) {
        match timer {
            Timer::Feedback(link) if self.is_link(link) => self.send_feedback(now, link, egress),
            Timer::Reports(link) if self.is_link(link) => self.send_reports(now, link, egress),
            Timer::SenderReports(link) if self.is_link(link) => {
                self.send_sender_reports(now, link, egress);
            }
            Timer::Probe(link) if self.is_link(link) => self.send_probe(now, link, egress),
            Timer::Nack(track) if self.is_track(track) => self.send_nacks(now, track, egress),
            Timer::Keyframe(track) if self.is_track(track) => {
                self.send_keyframe_requests(now, track, egress);
            }
            // Its owner left, or it has been worked off when it fired.
            Timer::Feedback(_)
            | Timer::Reports(_)
            | Timer::SenderReports(_)
            | Timer::Nack(_)
            | Timer::Keyframe(_)
            | Timer::LinkQuality(_)
            | Timer::Downlink(_)
            | Timer::Probe(_)
            | Timer::Tick(_)
            | Timer::Speakers => {}
        }
    }
}

pub(super) fn stored<'a>(stream: &'a Stream, packet: &'a Packet) -> Stored<'a> {
    let (payload, extensions) = stream.bytes(packet);
    Stored { packet, payload, extensions }
}

fn forward_to<E: Egress>(
    track: &Track,
    delivery: &mut Delivery,
    pending: &[Pending],
    outlet: &mut Outlet<'_, E>,
) {
    if track.kind() == MediaKind::Video && delivery.forwarder.awaits_start() {
        // All that is pending is in the ring and comes with the keyframe.
        start_with_keyframe(track, delivery, outlet);
        return;
    }
    for pending in pending {
        let stream = &track.streams[usize::from(pending.encoding)];
        let Some(packet) = stream.packet(pending.number) else {
            continue;
        };
        let verdict = delivery.forwarder.take(pending.encoding, packet, &track.streams);
        if verdict != Verdict::Skip {
            outlet.send(delivery, stored(stream, packet), verdict);
        }
    }
}

/// Goes over to a larger encoding by its last keyframe and what followed, where that gets
/// through at once: nobody has to be asked for another keyframe then.
fn rise_from_ring<E: Egress>(track: &Track, delivery: &mut Delivery, outlet: &mut Outlet<'_, E>) {
    let encoding = delivery.forwarder.wanted_encoding();
    let Some((current, _)) = delivery.forwarder.forwarded() else { return };
    // Most subscribers have what they want: nothing more is looked at for them.
    if encoding <= current {
        return;
    }
    let Some(downlink) = outlet.downlink.as_deref() else { return };
    let Some(stream) = track.streams.get(usize::from(encoding)) else { return };
    let Some((group, newest)) = replayable(outlet.now, stream) else { return };
    let bytes = bytes_of(stream, group.start, newest.number);
    if downlink.takes_at_once(outlet.now, bytes) {
        start_with_keyframe(track, delivery, outlet);
    }
}

/// Begins with the last keyframe, if all that followed it is still there.
fn start_with_keyframe<E: Egress>(
    track: &Track,
    delivery: &mut Delivery,
    outlet: &mut Outlet<'_, E>,
) {
    let encoding = delivery.forwarder.wanted_encoding();
    let Some(stream) = track.streams.get(usize::from(encoding)) else {
        return;
    };
    let Some((group, newest)) = replayable(outlet.now, stream) else {
        return;
    };
    let Some(first) = stream.packet(group.start) else {
        return;
    };
    let following = pictures_after(stream, group.start, newest.number);
    delivery.began.get_or_insert(outlet.now);
    outlet.stats.keyframes_replayed += u64::from(following > 0);
    let start = Replay { encoding, first, newest, following };
    let verdict = delivery.forwarder.replay_start(&start, &track.streams);
    outlet.send(delivery, stored(stream, first), verdict);
    for number in group.start + 1..=newest.number {
        let Some(packet) = stream.packet(number) else {
            continue;
        };
        if packet.epoch == first.epoch {
            let verdict = delivery.forwarder.replay_next(packet);
            outlet.send(delivery, stored(stream, packet), verdict);
        }
    }
}

/// Packets of an encoding's last keyframe, or of what followed, are missing and were asked
/// for again: that takes less time than another keyframe.
fn is_being_repaired(now: Micros, track: &Track, encoding: u8) -> bool {
    let Some(stream) = track.streams.get(usize::from(encoding)) else { return false };
    let waits = stream.missing.is_hopeful() && !stream.broken;
    let young = stream.group().is_some_and(|group| now.since(group.arrival) <= REPLAY_AGE_MAX);
    waits && young && replayable(now, stream).is_none()
}

/// The last keyframe group and the newest packet, if the group is short, young and, but
/// for what is on its way, complete.
pub(super) fn replayable(now: Micros, stream: &Stream) -> Option<(KeyframeGroup, &Packet)> {
    let group = stream.group()?;
    let newest = stream.packet(stream.newest()?)?;
    let age = now.since(group.arrival);
    if age > REPLAY_AGE_MAX || newest.number - group.start >= REPLAY_PACKETS_MAX {
        return None;
    }
    let complete =
        age <= REPLAY_FRESH || (group.start..newest.number).all(|n| stream.packet(n).is_some());
    complete.then_some((group, newest))
}

/// Bytes of payload of the packets from one to another.
pub(super) fn bytes_of(stream: &Stream, start: u64, newest: u64) -> u64 {
    let packets = (start..=newest).filter_map(|number| stream.packet(number));
    packets.map(|packet| u64::from(packet.payload_len)).sum()
}

/// How many pictures begin behind the first one.
fn pictures_after(stream: &Stream, start: u64, newest: u64) -> u32 {
    let timestamps = (start..=newest).filter_map(|number| stream.packet(number));
    let mut last = None;
    let mut pictures = 0_u32;
    for packet in timestamps {
        if last.replace(packet.timestamp) != Some(packet.timestamp) {
            pictures += 1;
        }
    }
    pictures.saturating_sub(1)
}
