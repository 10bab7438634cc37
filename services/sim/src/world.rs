//! The world: nodes, peers and the links between them, and one list of what happens when.
//! Time jumps from one happening to the next. Nothing in it knows a clock or a thread.

mod happening;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use headwater_model::media::{
    MediaKind, SubscriptionKey, SubscriptionTarget, TrackKey, TransportKey,
};
use headwater_sfu::{Sfu, SfuConfig};
use headwater_transport::ChannelId;

use crate::checks::StreamCheck;
use crate::negotiation::{audio_publication, subscription, video_publication};
use crate::net::{Delivery, Link, LinkStats};
use crate::node::Node;
use crate::peers::Watched;
use crate::seal::{End, Seal, SealReport};
use crate::{
    Access, Datagram, Kind, Publisher, PublisherConfig, Random, Subscriber, SubscriberConfig, Time,
    Trace, Weather,
};

/// A node of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// A peer of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(usize);

/// Who sends or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Node(usize),
    Peer(usize),
}

/// Something that happens.
#[derive(Debug)]
enum Happening {
    Arrival { link: usize, datagram: Datagram },
    Serve(usize),
    Node(usize),
    Peer(usize),
    Seal(usize),
}

#[derive(Debug)]
struct Entry {
    at: Time,
    serial: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

#[derive(Debug)]
enum Role {
    Publisher { publisher: Box<Publisher>, tracks: Vec<(TrackKey, MediaKind)> },
    Subscriber { subscriber: Box<Subscriber>, subscriptions: Vec<(SubscriptionKey, u32)> },
}

#[derive(Debug)]
struct Peer {
    node: usize,
    transport: TransportKey,
    up: usize,
    down: usize,
    armed: Option<Time>,
    role: Role,
    gone: bool,
    /// Transports on the way to the node, in worlds that have them.
    seal: Option<Box<Seal>>,
    /// It sends and receives: at once, or when its transport is connected.
    live: bool,
}

#[derive(Debug)]
struct Way {
    link: Link<Datagram>,
    from: Place,
    to: Place,
}

/// The world. Add nodes and peers, then let time pass.
#[derive(Debug)]
pub struct World {
    now: Time,
    origin: Instant,
    random: Random,
    serial: u64,
    /// One entry for each datagram on the way, and few for each link, node and peer.
    happenings: BinaryHeap<Reverse<Entry>>,
    nodes: Vec<Node>,
    peers: Vec<Peer>,
    ways: Vec<Way>,
    next_track: u32,
    next_subscription: u32,
    trace: Trace,
    arrivals: Vec<Delivery<Datagram>>,
    sealed: bool,
}

impl World {
    /// An empty world. The same seed gives the same world; `origin` is any instant, from
    /// which the nodes count.
    #[must_use]
    pub fn new(seed: u64, origin: Instant) -> Self {
        Self {
            now: Time::ZERO,
            origin,
            random: Random::new(seed),
            serial: 0,
            happenings: BinaryHeap::new(),
            nodes: Vec::new(),
            peers: Vec::new(),
            ways: Vec::new(),
            next_track: 1,
            next_subscription: 1,
            trace: Trace::default(),
            arrivals: Vec::new(),
            sealed: false,
        }
    }

    /// From now on peers come with real transports: they are connected by ICE and DTLS, and
    /// what they send is sealed. Such a world is not the same to the bit each time.
    pub fn use_transports(&mut self) {
        self.sealed = true;
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// A fingerprint of all that happened.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace.hash()
    }

    /// Adds a node.
    pub fn add_node(&mut self, config: SfuConfig) -> NodeId {
        let index = self.nodes.len();
        let seed = self.random.part(1_000_000 + index as u64).next_u64();
        let instant = self.origin + self.now.elapsed();
        self.nodes.push(Node::new(Sfu::new(config, seed, instant), self.origin));
        NodeId(index)
    }

    /// A node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.0]
    }

    /// Adds a publisher that begins to send now.
    pub fn add_publisher(
        &mut self,
        node: NodeId,
        config: PublisherConfig,
        access: Access,
    ) -> PeerId {
        let random = self.random.part(2_000_000 + self.peers.len() as u64);
        let publisher = Publisher::new(config.clone(), random, self.now);
        let role = Role::Publisher { publisher: Box::new(publisher), tracks: Vec::new() };
        let peer = self.add_peer(node, access, role);
        if config.audio {
            self.publish(peer, audio_publication("0", config.audio_red));
        }
        if !config.layers.is_empty() {
            let rates: Vec<u32> = config.layers.iter().map(|layer| layer.rate).collect();
            let heights: Vec<u32> = config.layers.iter().map(|layer| layer.height).collect();
            self.publish(peer, video_publication("1", &rates, &heights));
        }
        self.settle_node(node.0);
        self.settle_seal(peer.0);
        if self.peers[peer.0].live {
            self.arm_peer(peer.0);
        }
        peer
    }

    /// Adds a subscriber that watches nothing yet.
    pub fn add_subscriber(
        &mut self,
        node: NodeId,
        config: SubscriberConfig,
        access: Access,
    ) -> PeerId {
        let mut random = self.random.part(3_000_000 + self.peers.len() as u64);
        let subscriber = Subscriber::new(config, random.next_u64() as u32 | 1);
        let role = Role::Subscriber { subscriber: Box::new(subscriber), subscriptions: Vec::new() };
        let peer = self.add_peer(node, access, role);
        self.settle_seal(peer.0);
        peer
    }

    fn add_peer(&mut self, node: NodeId, access: Access, role: Role) -> PeerId {
        let index = self.peers.len();
        let transport = TransportKey(index as u32 + 1);
        let at = self.instant();
        let sfu = &mut self.nodes[node.0].sfu;
        sfu.add_transport(transport).expect("keys are new and the bounds of a world are wide");
        sfu.set_connected(at, transport, !self.sealed);
        let (peer, node_place) = (Place::Peer(index), Place::Node(node.0));
        let up = self.add_way(peer, node_place, access.up);
        let down = self.add_way(node_place, peer, access.down);
        let seal = self.sealed.then(|| {
            let mut random = self.random.part(5_000_000 + index as u64);
            let seal = Seal::new(self.origin, self.now, index, &mut random);
            Box::new(seal.expect("the system has randomness for a key"))
        });
        let live = seal.is_none();
        let node = node.0;
        let peer = Peer { node, transport, up, down, armed: None, role, gone: false, seal, live };
        self.peers.push(peer);
        PeerId(index)
    }

    fn add_way(&mut self, from: Place, to: Place, weather: Weather) -> usize {
        let random = self.random.part(4_000_000 + self.ways.len() as u64);
        self.ways.push(Way { link: Link::new(weather, random), from, to });
        self.ways.len() - 1
    }

    fn publish(&mut self, peer: PeerId, publication: headwater_model::media::Publication) {
        let at = self.instant();
        let kind = publication.kind;
        let track = TrackKey(self.next_track);
        self.next_track += 1;
        let peer = &mut self.peers[peer.0];
        self.nodes[peer.node]
            .sfu
            .publish(at, peer.transport, track, publication)
            .expect("keys are new and the bounds of a world are wide");
        if let Role::Publisher { tracks, .. } = &mut peer.role {
            tracks.push((track, kind));
        }
    }

    /// A subscriber watches all that a publisher of the same node publishes. Returns the
    /// subscriptions: sound, then pictures.
    pub fn subscribe(&mut self, who: PeerId, whom: PeerId) -> Vec<SubscriptionKey> {
        let Role::Publisher { tracks, .. } = &self.peers[whom.0].role else {
            return Vec::new();
        };
        let tracks = tracks.clone();
        let keys = tracks.into_iter().map(|(track, kind)| self.subscribe_track(who, track, kind));
        let keys = keys.collect();
        let node = self.peers[who.0].node;
        self.settle_node(node);
        keys
    }

    fn subscribe_track(
        &mut self,
        who: PeerId,
        track: TrackKey,
        kind: MediaKind,
    ) -> SubscriptionKey {
        let at = self.instant();
        let key = SubscriptionKey(self.next_subscription);
        self.next_subscription += 1;
        let ssrc = 100_000 + 10 * key.0;
        let peer = &mut self.peers[who.0];
        let with_red = match &peer.role {
            Role::Subscriber { subscriber, .. } => subscriber.takes_red(),
            Role::Publisher { .. } => false,
        };
        let negotiated = subscription(kind, &format!("{}", key.0), ssrc, with_red);
        let rtx_ssrc = negotiated.rtx_ssrc;
        let node = &mut self.nodes[peer.node];
        node.sfu
            .subscribe(at, key, track, peer.transport, negotiated)
            .expect("keys and SSRCs are new and the bounds of a world are wide");
        node.checks.insert((peer.transport, ssrc), StreamCheck::new(kind == MediaKind::Video));
        if let Role::Subscriber { subscriber, subscriptions } = &mut peer.role {
            subscriber.watch(Watched { kind, ssrc, rtx_ssrc });
            subscriptions.push((key, ssrc));
        }
        key
    }

    /// Says what a subscriber wants of a subscription.
    pub fn set_target(
        &mut self,
        who: PeerId,
        subscription: SubscriptionKey,
        target: SubscriptionTarget,
    ) {
        let at = self.instant();
        let peer = &self.peers[who.0];
        let Role::Subscriber { subscriptions, .. } = &peer.role else { return };
        let Some((_, ssrc)) = subscriptions.iter().find(|(key, _)| *key == subscription) else {
            return;
        };
        let node = &mut self.nodes[peer.node];
        if let Some(check) = node.checks.get_mut(&(peer.transport, *ssrc)) {
            check.want(match target {
                SubscriptionTarget::Paused => None,
                SubscriptionTarget::UpTo { spatial, .. } => Some(spatial),
            });
        }
        node.sfu.set_target(at, subscription, target).expect("the subscription is known");
        let node = peer.node;
        self.settle_node(node);
    }

    /// What became of a peer's transports; `None` in a world without them.
    #[must_use]
    pub fn seal(&self, who: PeerId) -> Option<&SealReport> {
        self.peers[who.0].seal.as_ref().map(|seal| &seal.report)
    }

    /// A peer opens a data channel that loses nothing and keeps its order. `None` if it has
    /// no transport, or cannot.
    pub fn open_channel(&mut self, who: PeerId, label: &str) -> Option<ChannelId> {
        let now = self.now;
        let id = self.peers[who.0].seal.as_mut()?.open_channel(now, label);
        self.settle_seal(who.0);
        id
    }

    /// A peer sends a message over a data channel. `false` if it cannot.
    pub fn send_message(&mut self, who: PeerId, id: ChannelId, data: &[u8]) -> bool {
        let now = self.now;
        let Some(seal) = &mut self.peers[who.0].seal else { return false };
        let sent = seal.send_message(now, id, data).is_ok();
        self.settle_seal(who.0);
        sent
    }

    /// A peer leaves.
    pub fn remove(&mut self, who: PeerId) {
        let peer = &mut self.peers[who.0];
        peer.gone = true;
        let (node, transport) = (peer.node, peer.transport);
        self.nodes[node].sfu.remove_transport(transport);
        self.settle_node(node);
    }

    /// The weather from a node to a peer changes at a time; give changes in order.
    pub fn change_down(&mut self, who: PeerId, at: Time, weather: Weather) {
        self.ways[self.peers[who.0].down].link.change_at(at, weather);
    }

    /// The weather from a peer to its node changes at a time; give changes in order.
    pub fn change_up(&mut self, who: PeerId, at: Time, weather: Weather) {
        self.ways[self.peers[who.0].up].link.change_at(at, weather);
    }

    /// What the link from a node to a peer did.
    #[must_use]
    pub fn down(&self, who: PeerId) -> &LinkStats {
        self.ways[self.peers[who.0].down].link.stats()
    }

    /// What the link from a peer to its node did.
    #[must_use]
    pub fn up(&self, who: PeerId) -> &LinkStats {
        self.ways[self.peers[who.0].up].link.stats()
    }

    /// The transport of a peer, as its node's core knows it.
    #[must_use]
    pub fn transport(&self, who: PeerId) -> TransportKey {
        self.peers[who.0].transport
    }

    /// A subscriber; `None` if it is a publisher.
    #[must_use]
    pub fn subscriber(&self, who: PeerId) -> Option<&Subscriber> {
        match &self.peers[who.0].role {
            Role::Subscriber { subscriber, .. } => Some(subscriber),
            Role::Publisher { .. } => None,
        }
    }

    /// A publisher; `None` if it is a subscriber.
    #[must_use]
    pub fn publisher(&self, who: PeerId) -> Option<&Publisher> {
        match &self.peers[who.0].role {
            Role::Publisher { publisher, .. } => Some(publisher),
            Role::Subscriber { .. } => None,
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now.plus(span));
    }

    /// Lets time pass until a point.
    pub fn run_until(&mut self, end: Time) {
        while let Some(Reverse(entry)) = self.happenings.peek()
            && entry.at <= end
        {
            let Some(Reverse(entry)) = self.happenings.pop() else { break };
            self.now = self.now.max(entry.at);
            self.happen(entry.what);
        }
        self.now = self.now.max(end);
    }
}
