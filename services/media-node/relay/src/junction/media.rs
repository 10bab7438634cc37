//! Packet path: no allocation. Frames in and out, and what is asked for behind them:
//! interest, keyframes, repetition.

use std::time::{Duration, Instant};

use headwater_model::TrackUid;
use headwater_model::media::TrackKey;
use headwater_sfu::{RelayClock, RelayPacket};

use super::{Junction, MediaOrder};
use crate::frame::{Frame, FrameTag, HOPS_MAX};
use crate::link::{LinkDrops, LinkKey};
use crate::message::{Message, REPEATS_MAX, Repeat};

/// A layer that nobody wants any more is still asked for this long: viewers come and
/// go, and each new beginning costs a keyframe.
const LINGER: Duration = Duration::from_secs(3);

/// What a link brought for the forwarding core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// For [`headwater_sfu::Sfu::handle_relayed`].
    Packet(TrackKey, RelayPacket<'a>),
    /// For [`headwater_sfu::Sfu::handle_relayed_clock`].
    Clock(TrackKey, RelayClock),
}

impl Junction {
    /// Takes a datagram of a link. Calls back with the packets and clocks that are for
    /// the forwarding core.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        key: LinkKey,
        datagram: &[u8],
        mut take: impl FnMut(Arrival<'_>),
    ) {
        let Some(mut link) = self.links.remove(&key) else { return };
        link.handle_datagram(now, datagram, |drops, frame, hop| {
            if let Some(arrival) = self.take_frame(key, drops, frame, hop) {
                take(arrival);
            }
        });
        self.links.insert(key, link);
    }

    /// Takes a frame that was too long for a datagram.
    pub fn handle_long_frame(
        &mut self,
        key: LinkKey,
        bytes: &[u8],
        mut take: impl FnMut(Arrival<'_>),
    ) {
        let Some(mut link) = self.links.remove(&key) else { return };
        if link.is_up() {
            match Frame::parse(bytes) {
                Ok(frame) => {
                    let taken = self.take_frame(key, link.drops(), frame, Duration::ZERO);
                    if let Some(arrival) = taken {
                        take(arrival);
                    }
                }
                Err(_) => link.drops().malformed += 1,
            }
        }
        self.links.insert(key, link);
    }

    /// Looks whether a frame is to be taken: from where its track is taken, of its
    /// publisher's present epoch, on a way that is not too long.
    fn take_frame<'a>(
        &mut self,
        key: LinkKey,
        drops: &mut LinkDrops,
        frame: Frame<'a>,
        hop: Duration,
    ) -> Option<Arrival<'a>> {
        let (Frame::Media(tag, _) | Frame::Clock(tag, _)) = frame;
        let route =
            self.handles_in.get(&(key, tag.handle)).and_then(|index| self.routes.get_mut(*index));
        let Some(route) = route else {
            drops.unknown_handle += 1;
            return None;
        };
        if tag.hops >= HOPS_MAX {
            drops.looped += 1;
            return None;
        }
        if tag.epoch != route.info.epoch as u16 {
            drops.stale_epoch += 1;
            return None;
        }
        let listened = route.source == Some(key)
            || route.previous.is_some_and(|(previous, _)| previous == key);
        let Some(track) = route.key.filter(|_| listened) else {
            drops.wrong_source += 1;
            return None;
        };
        match frame {
            Frame::Media(tag, packet) => {
                if route.note_packet(packet.encoding, packet.life, packet.sequence) {
                    drops.stale_epoch += 1;
                    return None;
                }
                let hop = u32::try_from(hop.as_micros()).unwrap_or(u32::MAX);
                route.age_micros[usize::from(packet.encoding & 7)] =
                    tag.age_micros.saturating_add(hop);
                Some(Arrival::Packet(track, packet))
            }
            Frame::Clock(_, clock) => Some(Arrival::Clock(track, clock)),
        }
    }

    /// Hands a packet of the forwarding core to the links that want its encoding.
    pub fn forward(&mut self, now: Instant, track: TrackKey, packet: &RelayPacket<'_>) {
        let Some(route) = self.by_key.get(&track).map(|index| &self.routes[*index]) else {
            return;
        };
        let mut tag = tag_of(route, packet);
        for (key, outlet) in &route.outlets {
            if outlet.interest >> packet.encoding & 1 == 1
                && let Some(link) = self.links.get_mut(key)
            {
                tag.handle = outlet.handle;
                link.send(now, &tag, packet);
            }
        }
    }

    /// Hands a publisher's clock to the links that want its encoding.
    pub fn forward_clock(&mut self, now: Instant, track: TrackKey, clock: RelayClock) {
        let Some(route) = self.by_key.get(&track).map(|index| &self.routes[*index]) else {
            return;
        };
        for (key, outlet) in &route.outlets {
            if outlet.interest >> clock.encoding & 1 == 1
                && let Some(link) = self.links.get_mut(key)
            {
                let handle = outlet.handle;
                let epoch = route.info.epoch as u16;
                let tag = FrameTag { handle, epoch, hops: route.hops, ..FrameTag::default() };
                link.send_clock(now, &tag, clock);
            }
        }
    }

    /// Sends a packet to one link that asked for it or that begins.
    pub fn forward_to(
        &mut self,
        now: Instant,
        key: LinkKey,
        track: TrackKey,
        packet: &RelayPacket<'_>,
    ) {
        let Some(route) = self.by_key.get(&track).map(|index| &self.routes[*index]) else {
            return;
        };
        let Some(outlet) = route.outlets.get(&key) else { return };
        let mut tag = tag_of(route, packet);
        (tag.handle, tag.repeated) = (outlet.handle, true);
        if let Some(link) = self.links.get_mut(&key) {
            link.note_repeated();
            link.send(now, &tag, packet);
        }
    }

    /// What subscribers of this shard want of a track; see
    /// [`headwater_sfu::Sfu::relay_wishes`].
    pub fn set_wishes(&mut self, now: Instant, track: TrackKey, encodings: u8) {
        let Some(&index) = self.by_key.get(&track) else { return };
        if self.routes[index].wishes != encodings {
            self.routes[index].wishes = encodings;
            self.settle_demand(now, index);
        }
    }

    /// Tracks of other shards in the forwarding core.
    pub fn attached(&self) -> impl Iterator<Item = (&TrackUid, TrackKey)> {
        let routes = self.by_uid.iter().map(|(uid, index)| (uid, &self.routes[*index]));
        routes.filter(|(_, route)| !route.local).filter_map(|(uid, route)| Some((uid, route.key?)))
    }

    pub(super) fn take_interest(
        &mut self,
        now: Instant,
        (key, handle): (LinkKey, u32),
        encodings: u8,
    ) {
        let Some(&index) = self.handles_out.get(&(key, handle)) else { return };
        let route = &mut self.routes[index];
        let Some(outlet) = route.outlets.get_mut(&key) else { return };
        let before = std::mem::replace(&mut outlet.interest, encodings);
        let new = encodings & !before;
        let track = route.key;
        self.settle_demand(now, index);
        if let Some(track) = track
            && new != 0
        {
            self.order(MediaOrder::Replay(key, track, new));
        }
    }

    pub(super) fn take_keyframe(&mut self, (key, handle): (LinkKey, u32), encoding: u8) {
        let index = self.handles_out.get(&(key, handle));
        if let Some(track) = index.and_then(|index| self.routes[*index].key) {
            self.order(MediaOrder::Keyframe(track, encoding));
        }
    }

    pub(super) fn take_repeat(&mut self, key: LinkKey, repeat: Repeat) {
        let index = self.handles_out.get(&(key, repeat.handle));
        if let Some(track) = index.and_then(|index| self.routes[*index].key) {
            let Repeat { encoding, life, sequences, .. } = repeat;
            self.order(MediaOrder::Repeat { link: key, track, encoding, life, sequences });
        }
    }

    /// The forwarding core needs a keyframe of a track of another shard.
    pub fn ask_keyframe(&mut self, track: TrackKey, encoding: u8) {
        if let Some((key, handle)) = self.source_of(track)
            && let Some(link) = self.links.get_mut(&key)
        {
            link.say(&Message::Keyframe(handle, encoding));
        }
    }

    /// The forwarding core misses packets of a track of another shard, named by the low
    /// bits of their sequence numbers.
    pub fn ask_repeat(&mut self, track: TrackKey, encoding: u8, lost: impl Iterator<Item = u16>) {
        let Some(&index) = self.by_key.get(&track) else { return };
        let Some((key, handle)) = self.source_of(track) else { return };
        let route = &self.routes[index];
        let mut sequences: Vec<u64> = Vec::new();
        let mut life = 0;
        for low in lost.take(REPEATS_MAX) {
            let (of_life, sequence) = route.extend(encoding, low);
            life = of_life;
            sequences.push(sequence);
        }
        if let Some(link) = self.links.get_mut(&key)
            && !sequences.is_empty()
        {
            link.say(&Message::Repeat(Repeat { handle, encoding, life, sequences }));
        }
    }

    fn source_of(&self, track: TrackKey) -> Option<(LinkKey, u32)> {
        let route = &self.routes[*self.by_key.get(&track)?];
        let source = route.source?;
        Some((source, route.vias.get(&source)?.handle))
    }

    /// Brings what is asked of the source and of the forwarding core in line with what
    /// is wanted. More is asked for at once, less after a while.
    pub(super) fn settle_demand(&mut self, now: Instant, index: usize) {
        let route = &mut self.routes[index];
        let wanted = route.wanted();
        if wanted & !route.asked != 0 || wanted == route.asked {
            route.lower_at = None;
        } else if route.lower_at.is_none() {
            route.lower_at = Some(now + LINGER);
        } else if route.lower_at.is_some_and(|at| at <= now) {
            route.lower_at = None;
            route.asked = wanted;
            self.ask_source(index);
        }
        self.settle(index);
    }

    /// The same without taking anything back.
    fn settle(&mut self, index: usize) {
        let route = &mut self.routes[index];
        let wanted = route.wanted();
        if !route.local && route.source.is_some() && wanted & !route.asked != 0 {
            route.asked |= wanted;
            self.ask_source(index);
        }
        let route = &mut self.routes[index];
        let demand = route.wanted_by_links();
        if let Some(track) = route.key
            && demand != route.demand
        {
            route.demand = demand;
            self.order(MediaOrder::Demand(track, demand));
        }
    }

    fn ask_source(&mut self, index: usize) {
        let route = &self.routes[index];
        let via = route.source.and_then(|key| Some((key, route.vias.get(&key)?.handle)));
        if let Some((key, handle)) = via {
            self.interest.entry(key).or_default().insert(handle, route.asked);
        }
    }
}

fn tag_of(route: &super::Route, packet: &RelayPacket<'_>) -> FrameTag {
    let held = u32::try_from(packet.held.as_micros()).unwrap_or(u32::MAX);
    FrameTag {
        handle: 0,
        epoch: route.info.epoch as u16,
        hops: route.hops,
        repeated: false,
        age_micros: route.age_micros[usize::from(packet.encoding & 7)].saturating_add(held),
    }
}
