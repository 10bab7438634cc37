//! All relay links of one shard, tied to its forwarding core: what the shard's thread
//! calls. It decides nothing; rooms' junctions do.

mod attach;
mod carry;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_model::media::{TrackKey, TransportKey};
use headwater_model::{NodeId, RoomId};
use headwater_sfu::{RelayClock, RelayPacket, Sfu};
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::junction::{Junction, JunctionConfig, JunctionOutput, MediaOrder, RelayEvent};
use crate::link::{LinkKey, LinkStats, Phase, Side};
use crate::plan::{PlanSlice, ShardAddress};
use crate::shell::{Dialer, Inbox, Parcel, Pipe, Wake};
use crate::state::{RoomState, StateError, Timing};
use crate::totals::RelayTotals;
use crate::track::TrackInfo;

pub use attach::AttachError;

/// How often it is looked what subscribers want of tracks of other shards; a new
/// subscription waits for its first packet at most this long.
const WISHES_INTERVAL: Duration = Duration::from_millis(100);
/// A link that was opened to this shard must say hello in this time.
const HELLO_MAX: Duration = Duration::from_secs(2);
/// Links that wait for their hello. Beyond, they are closed.
const UNNAMED_MAX: usize = 128;
/// Rooms of a shard that have relay links.
const ROOMS_MAX: usize = 4_096;
/// Longest datagram until what carries a link says more: QUIC's least, on any path.
const DATAGRAM_MAX_UNKNOWN: usize = 1_160;

/// Who a shard is to others, and how it reaches them.
pub struct ShardRelayConfig {
    /// This shard.
    pub me: ShardAddress,
    /// Identity of this process: random, another one after each start.
    pub boot: u64,
    /// Opens links to other shards.
    pub dialer: Box<dyn Dialer>,
    /// Where others open links to this shard.
    pub inbox: Arc<Inbox>,
    /// How long things of rooms' states take.
    pub timing: Timing,
}

/// A link's report.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkReport {
    /// The room.
    pub room: RoomId,
    /// The shard at the other end.
    pub peer: ShardAddress,
    /// Where it is in the tree.
    pub side: Side,
    /// How far the link is.
    pub phase: Phase,
    /// What was measured and counted.
    pub stats: LinkStats,
}

/// What carries a link.
#[derive(Debug)]
struct Carrier {
    /// Its room's place; absent until it said hello.
    room: Option<usize>,
    pipe: Pipe,
    /// A message of which not all has come; at most one message long.
    partial: Vec<u8>,
    since: Instant,
}

/// The relay links of one shard. See the crate's documentation for how to call it.
pub struct ShardRelay {
    config: ShardRelayConfig,
    wake: Wake,
    now: Instant,
    /// At most [`ROOMS_MAX`].
    junctions: Slab<Junction>,
    by_room: BTreeMap<RoomId, usize>,
    by_track: FxHashMap<TrackKey, usize>,
    /// Synthetic SSRCs of the tracks of other shards.
    by_ssrc: FxHashMap<u32, (usize, TrackKey, u8)>,
    /// Transports that stand for publishers of other shards, with their tracks.
    transports: FxHashMap<TransportKey, Vec<TrackKey>>,
    last_ssrc: u32,
    last_link: u32,
    /// Rooms begun so far.
    begun: u64,
    carriers: BTreeMap<LinkKey, Carrier>,
    wishes_at: Instant,
    /// As much as one wake-up makes: the caller takes all after each.
    events: VecDeque<(RoomId, RelayEvent)>,
    parcels: VecDeque<Parcel>,
    /// What links of rooms counted that are carried no more.
    released: RelayTotals,
}

impl ShardRelay {
    /// A shard without rooms.
    #[must_use]
    pub fn new(config: ShardRelayConfig, now: Instant) -> Self {
        Self {
            wake: config.inbox.wake(),
            config,
            now,
            junctions: Slab::new(),
            by_room: BTreeMap::new(),
            by_track: FxHashMap::default(),
            by_ssrc: FxHashMap::default(),
            transports: FxHashMap::default(),
            last_ssrc: 0,
            last_link: 0,
            begun: 0,
            carriers: BTreeMap::new(),
            wishes_at: now,
            events: VecDeque::new(),
            parcels: VecDeque::new(),
            released: RelayTotals::default(),
        }
    }

    /// Who this shard is to others.
    #[must_use]
    pub const fn address(&self) -> &ShardAddress {
        &self.config.me
    }

    /// Carries a room, or takes its new plan. `false` if the plan's epoch is lower than
    /// the known one, or there are too many rooms.
    pub fn set_slice(&mut self, now: Instant, room: &RoomId, slice: PlanSlice) -> bool {
        if let Some(index) = self.by_room.get(room) {
            return self.junctions[*index].set_slice(now, slice);
        }
        if self.junctions.len() >= ROOMS_MAX {
            return false;
        }
        let config = JunctionConfig {
            me: self.config.me.clone(),
            boot: self.config.boot,
            room: room.clone(),
            datagram_max: DATAGRAM_MAX_UNKNOWN,
        };
        let mut junction = Junction::new(config, slice, self.config.timing, now);
        self.begun += 1;
        let first = self.begun << 32;
        // It cannot fail: nothing is asked of it.
        let _ = junction.with_state(|state| {
            state.number_from(first);
            Ok(())
        });
        let index = self.junctions.insert(junction);
        self.by_room.insert(room.clone(), index);
        true
    }

    /// Carries a room no more; tracks of other shards must have been detached.
    pub fn release(&mut self, now: Instant, room: &RoomId, sfu: &mut Sfu) {
        let Some(index) = self.by_room.get(room).copied() else { return };
        self.junctions[index].leave(now);
        self.settle(now, sfu);
        self.released.add(&self.junctions.remove(index).totals());
        self.by_room.remove(room);
        self.by_track.retain(|_, other| *other != index);
        self.by_ssrc.retain(|_, (other, _, _)| *other != index);
    }

    /// A track is published on this shard, or negotiated anew. `false` if the room is
    /// not carried, or has too many tracks.
    pub fn publish(&mut self, now: Instant, room: &RoomId, key: TrackKey, info: TrackInfo) -> bool {
        let Some(index) = self.by_room.get(room).copied() else { return false };
        let taken = self.junctions[index].publish(now, key, info);
        if taken {
            self.by_track.insert(key, index);
        }
        taken
    }

    /// A track of this shard is published no more.
    pub fn unpublish(&mut self, now: Instant, key: TrackKey) {
        if let Some(index) = self.by_track.remove(&key) {
            self.junctions[index].forget_key(now, key);
        }
    }

    /// Changes the state of a room. `None` if the room is not carried.
    pub fn with_state<T>(
        &mut self,
        room: &RoomId,
        change: impl FnOnce(&mut RoomState) -> Result<T, StateError>,
    ) -> Option<Result<T, StateError>> {
        let index = self.by_room.get(room)?;
        Some(self.junctions[*index].with_state(change))
    }

    /// A room's links and state.
    #[must_use]
    pub fn junction(&self, room: &RoomId) -> Option<&Junction> {
        self.by_room.get(room).map(|index| &self.junctions[*index])
    }

    /// From [`headwater_sfu::Egress::relay`].
    pub fn relay(&mut self, track: TrackKey, packet: &RelayPacket<'_>) {
        if let Some(index) = self.by_track.get(&track) {
            self.junctions[*index].forward(self.now, track, packet);
        }
    }

    /// From [`headwater_sfu::Egress::relay_clock`].
    pub fn relay_clock(&mut self, track: TrackKey, clock: RelayClock) {
        if let Some(index) = self.by_track.get(&track) {
            self.junctions[*index].forward_clock(self.now, track, clock);
        }
    }

    /// Does what is due. Call it before the forwarding core's.
    pub fn handle_timeout(&mut self, now: Instant, sfu: &mut Sfu) {
        self.now = now;
        for (_, junction) in &mut self.junctions {
            if junction.poll_timeout() <= now {
                junction.handle_timeout(now);
            }
        }
        if now >= self.wishes_at {
            self.wishes_at = now + WISHES_INTERVAL;
            self.look_at_wishes(now, sfu);
        }
        self.drop_unnamed(now);
    }

    /// Looks what subscribers want of tracks of other shards. It is done by itself ten
    /// times a second; called right after a subscription it saves a viewer that time.
    pub fn look_at_wishes(&mut self, now: Instant, sfu: &Sfu) {
        for (_, junction) in &mut self.junctions {
            let keys: Vec<_> = junction.attached().map(|(_, key)| key).collect();
            for key in keys {
                junction.set_wishes(now, key, sfu.relay_wishes(key));
            }
        }
    }

    /// When [`ShardRelay::handle_timeout`] is to be called, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let junctions = self.junctions.iter().map(|(_, junction)| junction.poll_timeout());
        junctions.min().map(|at| at.min(self.wishes_at))
    }

    /// The next event, with its room.
    pub fn poll_event(&mut self) -> Option<(RoomId, RelayEvent)> {
        self.events.pop_front()
    }

    /// Every link there is.
    #[must_use]
    pub fn reports(&self) -> Vec<LinkReport> {
        let mut reports = Vec::new();
        for (_, junction) in &self.junctions {
            for (peer, side, phase, stats) in junction.reports() {
                let (room, peer) = (junction.room().clone(), peer.clone());
                reports.push(LinkReport { room, peer, side, phase, stats });
            }
        }
        reports
    }

    /// Other nodes to which a link is up, at most `most` of them.
    #[must_use]
    pub fn linked_nodes(&self, most: usize) -> BTreeSet<NodeId> {
        let links = self.junctions.iter().flat_map(|(_, junction)| junction.reports());
        let mut nodes = BTreeSet::new();
        for (peer, _, phase, _) in links {
            let is_other = phase == Phase::Up && peer.node != self.config.me.node;
            if is_other && nodes.len() < most && !nodes.contains(&peer.node) {
                nodes.insert(peer.node.clone());
            }
        }
        nodes
    }

    /// What all links counted since the shard began, those that have ended included.
    #[must_use]
    pub fn totals(&self) -> RelayTotals {
        let mut totals = self.released;
        for (_, junction) in &self.junctions {
            totals.add(&junction.totals());
        }
        totals
    }

    /// Carries out what the junctions want and hands all that waits to the pipes. Call
    /// it last in a wake-up, after [`Sfu::drain`].
    pub fn settle(&mut self, now: Instant, sfu: &mut Sfu) {
        self.now = now;
        let indices: Vec<_> = self.by_room.values().copied().collect();
        for index in indices {
            while let Some(output) = self.junctions[index].poll_output() {
                self.carry_out(now, index, output, sfu);
            }
            self.junctions[index].flush(now);
            for key in self.junctions[index].link_keys() {
                self.ship(index, key);
            }
        }
    }

    fn carry_out(&mut self, now: Instant, index: usize, output: JunctionOutput, sfu: &mut Sfu) {
        match output {
            JunctionOutput::Open(peer) => match self.config.dialer.dial(&peer, self.wake.clone()) {
                Some(pipe) => {
                    let key = self.add_carrier(now, Some(index), pipe);
                    if !self.junctions[index].opened(now, key, &peer.address) {
                        self.carriers.remove(&key);
                    }
                }
                None => self.junctions[index].failed(now, &peer.address),
            },
            JunctionOutput::Close(key, last) => {
                if let Some(carrier) = self.carriers.remove(&key) {
                    // Dropped behind it, the pipe closes when that was taken.
                    carrier.pipe.send([Parcel::Messages(last)]);
                }
            }
            JunctionOutput::Media(order) => self.carry_out_media(now, index, order, sfu),
            JunctionOutput::Event(event) => {
                let room = self.junctions[index].room().clone();
                self.events.push_back((room, event));
            }
        }
    }

    fn carry_out_media(&mut self, now: Instant, index: usize, order: MediaOrder, sfu: &mut Sfu) {
        let junction = &mut self.junctions[index];
        match order {
            MediaOrder::Demand(track, encodings) => {
                sfu.set_relay_demand(now, track, encodings);
                let wanted = RelayEvent::Wanted(track, encodings);
                self.events.push_back((junction.room().clone(), wanted));
            }
            MediaOrder::Keyframe(track, encoding) => sfu.request_keyframe(now, track, encoding),
            MediaOrder::Repeat { link, track, encoding, life, sequences } => {
                sfu.repeat_relayed(now, (track, encoding, life), sequences.into_iter(), |packet| {
                    junction.forward_to(now, link, track, &packet);
                });
            }
            MediaOrder::Replay(link, track, encodings) => {
                for encoding in (0..8).filter(|encoding| encodings >> encoding & 1 == 1) {
                    let replayed = sfu.replay_relayed(now, (track, encoding), |packet| {
                        junction.forward_to(now, link, track, &packet);
                    });
                    if !replayed {
                        sfu.request_keyframe(now, track, encoding);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
