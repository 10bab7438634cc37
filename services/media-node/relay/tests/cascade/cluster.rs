//! Shards with their forwarding cores and relays, and the glue that a shard's thread
//! has between them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater_model::media::{
    Codec, Publication, Subscription, SubscriptionKey, TrackKey, TransportKey,
};
use headwater_model::{Epoch, NodeId, ParticipantUid, RoomId, ShardIndex, TrackUid};
use headwater_relay::{
    Dialer, Inbox, LinkReport, Peer, PlanSlice, RelayEvent, ShardAddress, ShardRelay,
    ShardRelayConfig, StateEvent, Switchboard, Timing, TrackInfo, Wake,
};
use headwater_sfu::{Egress, OutgoingRtp, RelayClock, RelayPacket, Sfu, SfuConfig, SfuEvent};

use crate::harness::random::Random;
use crate::harness::subscriber::Receiver;
use crate::harness::{Sent, subscription};
use crate::wire::{Shared, WireDialer};

pub const ROOM: &str = "hall";

pub fn room() -> RoomId {
    RoomId::new(ROOM).unwrap()
}

/// The shard of a node with one shard.
pub fn address(name: &str) -> ShardAddress {
    ShardAddress { node: NodeId::new(name).unwrap(), shard: ShardIndex(0) }
}

struct Outbox<'a> {
    relay: &'a mut ShardRelay,
    sent: &'a mut Sent,
}

impl Egress for Outbox<'_> {
    fn rtp(&mut self, to: TransportKey, packet: OutgoingRtp<'_>) {
        self.sent.rtp(to, packet);
    }

    fn rtcp(&mut self, to: TransportKey, compound: &[u8]) {
        if !self.relay.rtcp(to, compound) {
            self.sent.rtcp(to, compound);
        }
    }

    fn relay(&mut self, track: TrackKey, packet: RelayPacket<'_>) {
        self.relay.relay(track, &packet);
    }

    fn relay_clock(&mut self, track: TrackKey, clock: RelayClock) {
        self.relay.relay_clock(track, clock);
    }
}

/// A viewer and when its packets came.
pub struct Viewer {
    pub receiver: Receiver,
    pub arrivals: Vec<Instant>,
}

pub struct Shard {
    pub me: ShardAddress,
    pub sfu: Sfu,
    pub relay: ShardRelay,
    pub sent: Sent,
    pub events: Vec<(Instant, RelayEvent)>,
    pub sfu_events: Vec<SfuEvent>,
    /// Tracks of other shards.
    pub tracks: BTreeMap<TrackUid, TrackKey>,
    publishers: BTreeMap<ParticipantUid, TransportKey>,
    pub viewers: BTreeMap<TransportKey, Viewer>,
    next_key: u32,
}

impl Shard {
    pub fn new(
        me: ShardAddress,
        boot: u64,
        dialer: Box<dyn Dialer>,
        inbox: Arc<Inbox>,
        now: Instant,
    ) -> Self {
        let timing = Timing::default();
        let config = ShardRelayConfig { me: me.clone(), boot, dialer, inbox, timing };
        let wall_clock = Duration::from_secs(1_800_000_000);
        let sfu = SfuConfig { wall_clock, ..SfuConfig::default() };
        Self {
            me,
            sfu: Sfu::new(sfu, boot, now),
            relay: ShardRelay::new(config, now),
            sent: Sent::default(),
            events: Vec::new(),
            sfu_events: Vec::new(),
            tracks: BTreeMap::new(),
            publishers: BTreeMap::new(),
            viewers: BTreeMap::new(),
            next_key: 1_000,
        }
    }

    fn key(&mut self) -> u32 {
        self.next_key += 1;
        self.next_key
    }

    /// One wake-up of a shard's thread.
    pub fn wake(&mut self, now: Instant) {
        self.relay.receive(now, &mut self.sfu);
        self.relay.handle_timeout(now, &mut self.sfu);
        self.sfu.handle_timeout(now);
        self.take_events(now);
        // What links ask of the forwarding core is in its next drain.
        self.relay.settle(now, &mut self.sfu);
        let Self { relay, sfu, sent, .. } = self;
        sfu.drain(now, &mut Outbox { relay, sent });
        self.relay.settle(now, &mut self.sfu);
        while let Some(event) = self.sfu.poll_event() {
            self.sfu_events.push(event);
        }
        for (to, bytes) in std::mem::take(&mut self.sent.rtp) {
            if let Some(viewer) = self.viewers.get_mut(&to)
                && viewer.receiver.take(&bytes)
            {
                viewer.arrivals.push(now);
            }
        }
    }

    fn take_events(&mut self, now: Instant) {
        while let Some((_, event)) = self.relay.poll_event() {
            match &event {
                RelayEvent::TrackAppeared(info) => self.attach(now, info),
                RelayEvent::TrackRenewed(info) => {
                    if let Some(key) = self.tracks.remove(&info.track) {
                        self.relay.detach(now, key, &mut self.sfu);
                    }
                    self.attach(now, info);
                }
                RelayEvent::TrackGone(uid) => {
                    if let Some(key) = self.tracks.remove(uid) {
                        self.relay.detach(now, key, &mut self.sfu);
                    }
                }
                _ => {}
            }
            self.events.push((now, event));
        }
    }

    fn attach(&mut self, now: Instant, info: &TrackInfo) {
        let track = TrackKey(self.key());
        let fresh = TransportKey(self.key());
        let transport = *self.publishers.entry(info.participant.clone()).or_insert(fresh);
        let of = (&room(), &info.track);
        self.relay.attach(now, of, (track, transport), &mut self.sfu).unwrap();
        self.tracks.insert(info.track.clone(), track);
    }

    /// Publishes on this shard.
    pub fn publish(
        &mut self,
        now: Instant,
        uid: &str,
        epoch: u32,
        publication: &Publication,
    ) -> (TransportKey, TrackKey) {
        let (transport, track) = (TransportKey(self.key()), TrackKey(self.key()));
        self.sfu.add_transport(transport).unwrap();
        self.sfu.set_connected(now, transport, true);
        self.sfu.publish(now, transport, track, publication.clone()).unwrap();
        let info = TrackInfo {
            track: TrackUid::from_raw(uid),
            participant: ParticipantUid::from_raw("PA_speaker"),
            epoch,
            publication: publication.clone(),
        };
        assert!(self.relay.publish(now, &room(), track, info));
        (transport, track)
    }

    /// Adds a viewer of a track of this or another shard.
    pub fn view(&mut self, now: Instant, track: TrackKey, codec: Codec) -> TransportKey {
        let ssrc = 10_000 + self.key();
        self.view_as(now, track, subscription(codec, ssrc))
    }

    /// Adds a viewer with what it has negotiated.
    pub fn view_as(&mut self, now: Instant, track: TrackKey, wanted: Subscription) -> TransportKey {
        let transport = TransportKey(self.key());
        let ssrc = wanted.ssrc;
        self.sfu.add_transport(transport).unwrap();
        self.sfu.set_connected(now, transport, true);
        let key = SubscriptionKey(ssrc);
        self.sfu.subscribe(now, key, track, transport, wanted.clone()).unwrap();
        let receiver = Receiver::new(&wanted);
        let viewer = Viewer { receiver, arrivals: Vec::new() };
        self.viewers.insert(transport, viewer);
        transport
    }

    pub fn track(&self, uid: &str) -> TrackKey {
        self.tracks[&TrackUid::from_raw(uid)]
    }

    pub fn viewer(&self, key: TransportKey) -> &Viewer {
        &self.viewers[&key]
    }

    pub fn report(&self, peer: &str) -> LinkReport {
        let reports = self.relay.reports();
        let found = reports.into_iter().find(|report| report.peer == address(peer));
        found.unwrap_or_else(|| panic!("no link between {:?} and {peer}", self.me))
    }

    /// What the state's events said.
    pub fn state_events(&self) -> impl Iterator<Item = &StateEvent> {
        self.events.iter().filter_map(|(_, event)| match event {
            RelayEvent::State(event) => Some(event),
            _ => None,
        })
    }
}

/// Shards on one virtual clock.
pub struct Cluster {
    pub now: Instant,
    pub shards: BTreeMap<String, Shard>,
    pub wires: Shared,
    pub switchboard: Switchboard,
    random: Random,
    boots: u64,
}

/// One place in a plan: name, parent, backups.
pub type Place<'a> = (&'a str, Option<&'a str>, &'a [&'a str]);

/// Slices of a plan; ranks are the order of the places.
pub fn slices(epoch: u64, plan: &[Place<'_>]) -> Vec<(String, PlanSlice)> {
    let rank = |name: &str| plan.iter().position(|(other, ..)| *other == name).unwrap() as u32;
    let peer = |name: &str| Peer { address: address(name), rank: rank(name), relay_address: None };
    let slice = |(name, parent, backups): &Place<'_>| PlanSlice {
        epoch: Epoch(epoch),
        rank: rank(name),
        parent: parent.map(peer),
        backups: backups.iter().map(|name| peer(name)).collect(),
        children: plan.iter().filter(|p| p.1 == Some(*name)).map(|p| peer(p.0)).collect(),
        backup_children: plan.iter().filter(|p| p.2.contains(name)).map(|p| peer(p.0)).collect(),
    };
    plan.iter().map(|place| (place.0.to_owned(), slice(place))).collect()
}

impl Cluster {
    pub fn new(names: &[&str]) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        let now = Instant::now();
        let mut cluster = Self {
            now,
            shards: BTreeMap::new(),
            wires: Arc::new(Mutex::default()),
            switchboard: Switchboard::default(),
            random: Random::new(11),
            boots: 0,
        };
        names.iter().for_each(|name| cluster.start(name));
        cluster
    }

    /// Starts a shard, or starts it anew.
    pub fn start(&mut self, name: &str) {
        self.boots += 1;
        let me = address(name);
        let inbox = Inbox::new(Wake::new(|| {}));
        self.switchboard.register(me.clone(), Arc::clone(&inbox));
        let (switchboard, wires) = (self.switchboard.clone(), Arc::clone(&self.wires));
        let dialer = Box::new(WireDialer { me: me.clone(), switchboard, wires });
        let shard = Shard::new(me, self.boots, dialer, inbox, self.now);
        self.shards.insert(name.to_owned(), shard);
    }

    /// Gives each living shard its slice.
    pub fn plan(&mut self, epoch: u64, plan: &[Place<'_>]) {
        for (name, slice) in slices(epoch, plan) {
            if let Some(shard) = self.shards.get_mut(&name) {
                assert!(shard.relay.set_slice(self.now, &room(), slice));
            }
        }
    }

    /// Ends a shard without a word.
    pub fn kill(&mut self, name: &str) {
        self.wires.lock().unwrap().dead.push(address(name));
        self.switchboard.unregister(&address(name));
        self.shards.remove(name);
    }

    pub fn shard(&mut self, name: &str) -> &mut Shard {
        self.shards.get_mut(name).unwrap()
    }

    /// Lets time pass in steps of a millisecond.
    pub fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += Duration::from_millis(1);
            self.wake_all();
        }
    }

    fn wake_all(&mut self) {
        for shard in self.shards.values_mut() {
            shard.wake(self.now);
        }
        self.wires.lock().unwrap().pump(self.now, &mut self.random);
    }

    /// Gives RTP to a publisher's shard.
    pub fn rtp(&mut self, name: &str, from: TransportKey, packets: &[Vec<u8>]) {
        let now = self.now;
        let shard = self.shard(name);
        for packet in packets {
            shard.sfu.handle_rtp(now, from, packet);
        }
    }

    /// RTCP that went to a client since the last call.
    pub fn rtcp_to(&mut self, name: &str, to: TransportKey) -> VecDeque<Vec<u8>> {
        let sent = &mut self.shard(name).sent.rtcp;
        let (taken, left) = std::mem::take(sent).into_iter().partition(|(key, _)| *key == to);
        *sent = left;
        let taken: Vec<(TransportKey, Vec<u8>)> = taken;
        taken.into_iter().map(|(_, bytes)| bytes).collect()
    }
}
